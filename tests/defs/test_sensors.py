"""The arrivals sensor: listing minus ledger, one run at a time, failing sources apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
import yaml
from dagster import DagsterRunStatus

from asset_checks import references
from lakehouse.defs import runtime, sensors, workers
from lakehouse.defs.compose import JOB, definitions_for
from lakehouse.defs.execute import run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.defs.runtime import KEY, Runtime
from lakehouse.defs.sensors import LANE, stage_keys
from lakehouse.errors import PermanentError, SourceError, TransientError
from lakehouse.gold.catalog import shown_point_id
from lakehouse.gold.restore_points import current_point
from lakehouse.ops import backlog, failures, watch
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import Settings
from lakehouse.storage import Lake
from tests.defs.arrivals import AIRPORTS_HEADER, land, one_more_flight

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Tick:
    """What one look of a sensor came to."""

    requests: list[dg.RunRequest]
    skipped: str


class Bench:
    """The definitions of one lake, its instance, and a way to tick a sensor."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        pipelines = load_pipelines(settings)
        self.definitions = definitions_for(settings, pipelines)
        self.runtime = Runtime(settings, pipelines)

    def tick(self, name: str = "arrivals_sensor") -> Tick:
        sensor = self.definitions.get_sensor_def(name)
        with dg.build_sensor_context(instance=self.instance, resources={KEY: self.runtime}) as context:
            found = sensor.evaluate_tick(context)
        return Tick(list(found.run_requests), found.skip_message or "")

    def start_run(self, lane: str, tags: dict[str, str] | None = None) -> dg.DagsterRun:
        job = self.definitions.resolve_job_def(JOB)
        return self.instance.create_run_for_job(
            job, tags={LANE: lane, **(tags or {})}, status=DagsterRunStatus.STARTED
        )

    def carry_out(self, request: dg.RunRequest) -> bool:
        """Do what the sensor asked for, as the daemon's launcher does; whether all of it succeeded."""
        done = self.definitions.resolve_job_def(JOB).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or ()),
            tags={**request.tags, **workers.worker_tag()},
            raise_on_error=False,
        )
        return bool(done.success)

    def published_batch(self, source: str) -> int:
        point = current_point(self.runtime.lake)
        assert point is not None
        return int(point.sources[source]["batch_id"])


@pytest.fixture
def bench(first_day: Callable[..., Settings]) -> Iterator[Bench]:
    """Where a run may begin as soon as the one before it has ended; the tests of the interval set their own."""
    settings = first_day(run_interval_s=0)
    with open_instance(settings) as instance:
        yield Bench(settings, instance)


@pytest.fixture
def spaced(first_day: Callable[..., Settings]) -> Iterator[Bench]:
    """Where a run begins an hour after the one before it, and looks are ten minutes apart."""
    settings = first_day(run_interval_s=3600, sensor_interval_s=600)
    with open_instance(settings) as instance:
        yield Bench(settings, instance)


def turn_clock(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """The sensors' clock, and only theirs."""

    class Turned(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + by

    monkeypatch.setattr(sensors, "datetime", Turned)


def keys(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def test_nothing_new_is_no_run(bench: Bench) -> None:
    found = bench.tick()

    assert found.requests == []
    assert "nothing new" in found.skipped


def test_a_new_file_is_one_run_of_its_pipeline_with_gold_and_the_catalog(bench: Bench) -> None:
    one_more_flight(bench.settings)

    [request] = bench.tick().requests

    assert {"bronze/flights", "silver/flights", "gold/fct_flights", "catalog/gold"} <= keys(request)
    assert not keys(request) & {"bronze/planes", "silver/weather"}


def test_a_catalog_that_a_killed_publisher_left_behind_is_made_again(bench: Bench) -> None:
    point = current_point(Lake.from_settings(bench.settings))
    assert point is not None
    bench.settings.catalog_path.unlink()
    running = bench.start_run("main", workers.worker_tag())

    bench.tick()
    assert not bench.settings.catalog_path.exists(), "the run that is at work may be about to do it"

    bench.instance.report_run_failed(running)
    assert bench.tick().requests == []
    assert shown_point_id(bench.settings) == point.id


def test_a_catalog_that_was_left_behind_does_not_wait_for_the_next_run(spaced: Bench) -> None:
    spaced.settings.catalog_path.unlink()
    spaced.instance.report_run_failed(spaced.start_run("main", workers.worker_tag()))

    assert "less than 3600 s ago" in spaced.tick().skipped
    assert spaced.settings.catalog_path.exists()


def test_a_catalog_that_cannot_be_made_again_does_not_hold_up_what_arrives(bench: Bench) -> None:
    bench.settings.catalog_path.unlink()
    bench.settings.catalog_path.mkdir()
    one_more_flight(bench.settings)

    assert len(bench.tick().requests) == 1
    assert bench.settings.catalog_path.is_dir()


def test_no_second_run_is_asked_for_while_one_is_in_progress(bench: Bench) -> None:
    one_more_flight(bench.settings)
    bench.start_run("main", workers.worker_tag())

    found = bench.tick()

    assert found.requests == []
    assert "in progress" in found.skipped


def test_what_comes_soon_after_a_run_began_is_taken_when_the_interval_is_over(
    spaced: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more_flight(spaced.settings)
    assert len(spaced.tick().requests) == 1, "nothing has begun yet: it does not wait"
    spaced.instance.report_run_failed(spaced.start_run("main", workers.worker_tag()))

    found = spaced.tick()
    assert found.requests == []
    assert re.search(r"less than 3600 s ago; what has arrived waits 3[56]\d\d s more", found.skipped)

    turn_clock(monkeypatch, timedelta(minutes=50))
    assert not spaced.tick().requests
    # Some seconds before its end the interval is over: else runs would be an interval and a look apart.
    turn_clock(monkeypatch, timedelta(seconds=3600 - 4))
    assert len(spaced.tick().requests) == 1


def test_a_clock_that_is_set_back_makes_nothing_wait(spaced: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one_more_flight(spaced.settings)
    spaced.instance.report_run_failed(spaced.start_run("main", workers.worker_tag()))

    turn_clock(monkeypatch, timedelta(days=-1))

    assert len(spaced.tick().requests) == 1


def test_sources_are_not_listed_while_no_run_may_begin(
    spaced: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced.start_run("main", workers.worker_tag())
    looks: list[str] = []
    look = backlog.look
    monkeypatch.setattr(backlog, "look", lambda *a, **k: looks.append("") or look(*a, **k))

    assert "in progress" in spaced.tick().skipped
    failures.record(spaced.runtime.lake, "bronze", "airlines", SourceError("unreadable"), run_id="r")
    failures.record(spaced.runtime.lake, "gold", None, SourceError("unreadable"), run_id="r")
    assert "in progress" in spaced.tick().skipped
    assert not looks, "what failed is not due yet"

    monkeypatch.setattr(failures, "MAX_WAIT", timedelta(0))
    [retry] = spaced.tick().requests
    assert keys(retry) == {"bronze/airlines", "silver/airlines"}, "what failed is tried again all the same"
    assert looks


def test_a_run_whose_process_was_killed_does_not_block_the_next(bench: Bench) -> None:
    one_more_flight(bench.settings)
    host, _, _ = workers.worker_tag()[workers.TAG].rsplit(" ", 2)
    gone = max(psutil.pids()) + 1000
    run = bench.start_run("main", {workers.TAG: f"{host} {gone} 1.00"})

    [request] = bench.tick().requests

    assert "bronze/flights" in keys(request)
    assert bench.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_a_clock_that_is_set_makes_no_living_process_a_dead_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more_flight(bench.settings)
    run = bench.start_run("main", workers.worker_tag())
    started = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: started + 3_600)

    assert bench.tick().requests == []
    assert bench.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.STARTED


def test_another_process_under_the_same_number_is_not_the_one_that_was_noted(bench: Bench) -> None:
    one_more_flight(bench.settings)
    host, pid, _ = workers.worker_tag()[workers.TAG].rsplit(" ", 2)
    run = bench.start_run("main", {workers.TAG: f"{host} {pid} another-boot:1"})

    assert len(bench.tick().requests) == 1
    assert bench.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.FAILURE


def test_a_run_of_another_machine_is_not_judged(bench: Bench) -> None:
    one_more_flight(bench.settings)
    run = bench.start_run("main", {workers.TAG: "elsewhere 4 1.00"})

    assert bench.tick().requests == []
    assert bench.instance.get_run_by_id(run.run_id).status == DagsterRunStatus.STARTED


def test_what_keeps_failing_waits_and_is_then_retried_apart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more_flight(bench.settings)
    Path(bench.settings.landing, "airlines", "airlines_2013-03-01.csv").write_text("carrier,name\nZZ,Zed\n")
    failures.record(bench.runtime.lake, "bronze", "airlines", SourceError("unreadable"), run_id="r")

    [request] = bench.tick().requests
    assert not keys(request) & {"bronze/airlines", "silver/airlines"}
    assert "bronze/flights" in keys(request)

    monkeypatch.setattr(failures, "MAX_WAIT", failures.timedelta(0))
    main, retry = bench.tick().requests
    assert keys(retry) == {"bronze/airlines", "silver/airlines"}
    assert "silver/airlines" not in keys(main)


def test_what_failed_in_a_pipeline_that_is_deleted_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures.record(bench.runtime.lake, "bronze", "trains", SourceError("unreadable"), run_id="r")
    monkeypatch.setattr(failures, "MAX_WAIT", failures.timedelta(0))

    assert "nothing new" in bench.tick().skipped
    assert run_pipelines(bench.settings).nothing_new


def test_a_table_whose_partners_are_missing_waits_and_the_rest_is_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more_flight(bench.settings, carrier="ZQ")
    land(
        bench.settings,
        "airports/airports_2013-03-01.csv",
        f"{AIRPORTS_HEADER}\nQ00,Nowhere,10,20,5,-5,A,America/New_York\n",
    )
    before = {source: bench.published_batch(source) for source in ("flights", "airports")}

    [both] = bench.tick().requests
    assert not bench.carry_out(both)

    failed = failures.open_failures(bench.runtime.lake)
    assert set(failed) == {("references", "flights")}
    assert failed["references", "flights"].is_gate
    assert failed["references", "flights"].obstacle().hop == "silver"
    [rest] = bench.tick().requests
    assert not keys(rest) & {"bronze/flights", "silver/flights"}
    assert bench.carry_out(rest)
    assert bench.published_batch("airports") == before["airports"] + 1
    assert bench.published_batch("flights") == before["flights"]
    found = bench.tick()
    assert found.requests == []
    assert "next try: flights" in found.skipped

    land(bench.settings, "airlines/airlines_2013-03-01.csv", "carrier,name\nZQ,Zed Air\n")
    monkeypatch.setattr(failures, "MAX_WAIT", failures.timedelta(0))
    partners, retry = bench.tick().requests
    assert "silver/airlines" in keys(partners)
    assert bench.carry_out(dg.RunRequest(asset_selection=stage_keys(["airlines"])))
    assert keys(retry) == {"bronze/flights", "silver/flights"}
    assert bench.carry_out(retry)
    assert failures.open_failures(bench.runtime.lake) == {}
    [last] = bench.tick().requests
    assert bench.carry_out(last)
    assert bench.published_batch("flights") == before["flights"] + 1
    assert "nothing new" in bench.tick().skipped


def test_references_that_cannot_be_looked_at_are_a_failure_that_ends_with_their_declaration(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_more_flight(bench.settings)

    looks = []

    def silent(*_: object) -> object:
        looks.append(1)
        raise TransientError("the store did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(references, "_orphans", silent)
        patch.setattr(runtime, "FIRST_WAIT_S", 0.01)
        [request] = bench.tick().requests
        assert not bench.carry_out(request)
    assert len(looks) == 1 + runtime.MAX_RETRIES
    failed = failures.open_failures(bench.runtime.lake)
    assert set(failed) == {("references", "flights")}
    assert not failed["references", "flights"].is_gate

    declaration = Path(bench.settings.pipelines_dir, "nyc", "flights", "defs.yaml")
    document = yaml.safe_load(declaration.read_text())
    del document["attributes"]["checks"]["references"]
    declaration.write_text(yaml.safe_dump(document))
    bench = Bench(bench.settings, bench.instance)
    monkeypatch.setattr(failures, "MAX_WAIT", failures.timedelta(0))
    [retry] = bench.tick().requests
    assert bench.carry_out(retry)
    assert failures.open_failures(bench.runtime.lake) == {}


def test_the_step_in_which_a_process_died_is_a_failure_of_its_source(bench: Bench) -> None:
    workers.note_reaped(
        [
            workers.Reaped("r1", ("bronze_flights",)),
            workers.Reaped("r2", ("gold",)),
            workers.Reaped("r3", ("references_of_weather",)),
        ],
        bench.runtime.lake,
        bench.settings,
    )

    found = set(failures.open_failures(bench.runtime.lake))
    assert found == {("bronze", "flights"), ("gold", None), ("references", "weather")}


def test_a_backfill_that_was_killed_is_nobodys_reason_for_being_late(bench: Bench) -> None:
    lake = bench.runtime.lake
    workers.note_reaped([workers.Reaped("r1", ("backfill_flights",))], lake, bench.settings)
    assert not lake.table("ops", "failures").exists()

    failures.record(lake, "backfill_flights", None, PermanentError("noted by an earlier version"), run_id="r")
    one_more_flight(bench.settings)
    assert failures.open_failures(lake) == {}
    late = watch.observe(lake, bench.settings, bench.runtime.pipelines).tables
    assert {state.hop for state in late if state.oldest_arrival_utc} == {"queue"}


def test_stages_on_threads_count_and_not_the_step_that_waited(bench: Bench) -> None:
    note = Path(bench.settings.state_dir, "working", "r1.json")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text('[["silver", "weather"], ["bronze", "planes"]]')
    workers.note_reaped([workers.Reaped("r1", ("bronze_flights",))], bench.runtime.lake, bench.settings)

    assert set(failures.open_failures(bench.runtime.lake)) == {("silver", "weather"), ("bronze", "planes")}


def test_the_sla_sensor_requests_no_runs_and_says_how_fresh_gold_is(bench: Bench) -> None:
    found = bench.tick("sla_sensor")

    assert found.requests == []
    assert "gold tables fresh" in found.skipped
