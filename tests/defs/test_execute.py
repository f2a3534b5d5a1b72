"""Runs: everything once, nothing twice, and one poisoned source does not keep the others from gold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRun

from lakehouse import checks, quarantine
from lakehouse.defs import runtime, steps
from lakehouse.defs.execute import Progress, RunOutcome, parse_selection, run_pipelines
from lakehouse.defs.instance import ensure_home, open_instance
from lakehouse.errors import CommitConflict, DeclarationError
from lakehouse.gold.restore_points import current_point
from lakehouse.ops import failures, watch
from lakehouse.ops.profile import Profile
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import Settings
from lakehouse.storage import Lake
from tests.defs.arrivals import bad_airports, in_a_process, land, one_more_flight

pytestmark = pytest.mark.slow


def test_the_first_run_takes_every_source_to_the_catalog(first_run: tuple[Path, RunOutcome]) -> None:
    _, outcome = first_run

    assert outcome.success, outcome.failures
    assert outcome.published is not None
    assert (
        outcome.rows["bronze/flights"]
        == outcome.rows["silver/flights"]
        == outcome.rows["gold/fct_flights"]
        > 700
    )
    assert all(check.passed for check in outcome.checks if check.severity == "ERROR")
    assert [step.name for step in outcome.steps][-2:] == ["gold", "publish"]


def test_a_second_run_finds_nothing_new_without_loading_dagster(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    program = (
        "import sys\n"
        "from lakehouse.defs.execute import run_pipelines\n"
        "from lakehouse.settings import load_settings\n"
        "outcome = run_pipelines(load_settings())\n"
        "print(outcome.nothing_new, 'dagster' in sys.modules)\n"
    )
    before = sorted(path for path in Path(settings.root).rglob("*.json"))

    done = in_a_process(settings, program)

    assert done.stdout.strip() == "True False", done.stderr
    assert sorted(path for path in Path(settings.root).rglob("*.json")) == before


def test_a_run_from_the_command_line_is_in_dagsters_history(first_run: tuple[Path, RunOutcome]) -> None:
    folder, outcome = first_run
    with open_instance(Settings(root=str(folder / "lake"))) as instance:
        run = instance.get_run_by_id(outcome.run_id)

    assert run is not None
    assert run.is_success


def test_progress_is_told_as_it_happens(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    one_more_flight(settings)
    seen: list[Progress] = []

    outcome = run_pipelines(settings, progress=seen.append)

    assert outcome.success, outcome.failures
    assert seen[0].kind == "run"
    assert seen[0].steps_total == 4
    kinds = [(item.kind, item.name) for item in seen]
    assert kinds.index(("start", "bronze/flights")) < kinds.index(("end", "bronze/flights"))
    assert ("materialized", "catalog/gold") in kinds
    assert not any("planes" in step.name for step in outcome.steps), "nothing new in planes, so it is not run"


def test_a_source_that_fails_does_not_keep_the_others_from_gold(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    lake = Lake.from_settings(settings)
    declaration = Path(settings.pipelines_dir, "nyc", "airlines", "defs.yaml")
    declaration.write_text(
        declaration.read_text().replace("  source:\n", "  source:\n    new_columns: fail\n")
    )
    land(settings, "airlines/airlines_2013-02-01.csv", "carrier,name,country\nZZ,Zed Air,US\n")
    one_more_flight(settings)
    before = current_point(lake)

    outcome = run_pipelines(settings)

    point = current_point(lake)
    assert before is not None
    assert point is not None
    assert not outcome.success
    assert [step.name for step in outcome.failures] == ["bronze/airlines"]
    assert outcome.failures[0].next_step
    assert len(outcome.run_ids) == 2
    assert point.id != before.id
    assert point.sources["flights"]["batch_id"] == before.sources["flights"]["batch_id"] + 1
    assert point.sources["airlines"] == before.sources["airlines"]
    assert list(failures.open_failures(lake)) == [("bronze", "airlines")]

    declaration.write_text(declaration.read_text().replace("    new_columns: fail\n", ""))
    again = run_pipelines(settings)

    assert again.success, again.failures
    assert failures.open_failures(lake) == {}


def test_a_failed_gate_keeps_its_table_back_and_says_so(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    lake = Lake.from_settings(settings)
    before = current_point(lake)
    land(settings, "airports/airports_2013-02-01.csv", bad_airports(100))
    one_more_flight(settings)

    outcome = run_pipelines(settings)

    point = current_point(lake)
    assert before is not None
    assert point is not None
    assert [step.name for step in outcome.failures] == ["silver/airports"]
    assert "quarantined_share" in outcome.failures[0].message
    assert "lakehouse quarantine show airports" in outcome.failures[0].next_step
    assert point.sources["flights"]["batch_id"] > before.sources["flights"]["batch_id"]
    assert point.sources["airports"] == before.sources["airports"]
    seen = watch.observe(lake, settings, load_pipelines(settings))
    late = {state.table: state for state in seen.tables if state.oldest_arrival_utc}
    assert late["dim_airport"].hop == "failed gate"
    assert "quarantined_share" in late["dim_airport"].reason


def test_a_source_whose_gate_was_closed_for_several_batches_flows_again_when_it_is_repaired(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    lake = Lake.from_settings(settings)
    for month in (2, 3):
        land(settings, f"airports/airports_2013-0{month}-01.csv", bad_airports(100))
        run_pipelines(settings)
        one_more_flight(settings)  # the others publish meanwhile
        assert [step.name for step in run_pipelines(settings).failures] == ["silver/airports"]
    quarantine.resolve(lake, "airports", quarantine.Selection(), note="x", actor="x", apply=True)

    outcome = run_pipelines(settings)

    point = current_point(lake)
    assert outcome.success, outcome.failures
    assert point is not None
    assert point.sources["airports"]["batch_id"] == 3
    assert failures.open_failures(lake) == {}


def test_a_run_of_other_sources_does_not_publish_what_nobody_has_checked(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    lake = Lake.from_settings(settings)
    before = current_point(lake)
    land(settings, "airports/airports_2013-02-01.csv", bad_airports(100))
    airports = load_pipelines(settings)["airports"]
    for stage in (steps.ingest, steps.refine):  # as if the run had been killed before its checks
        stage(lake, settings, airports)
    one_more_flight(settings)

    assert run_pipelines(settings, ["flights"]).success

    point = current_point(lake)
    assert before is not None
    assert point is not None
    assert point.sources["flights"]["batch_id"] == before.sources["flights"]["batch_id"] + 1
    assert point.tables["silver/airports"] == before.tables["silver/airports"]
    assert [step.name for step in run_pipelines(settings).failures] == ["silver/airports"]
    quarantine.resolve(lake, "airports", quarantine.Selection(), note="x", actor="x", apply=True)
    assert run_pipelines(settings).success
    newest = current_point(lake)
    assert newest is not None
    assert newest.tables["silver/airports"] > before.tables["silver/airports"]


def test_a_transient_error_is_tried_again_and_a_permanent_one_is_not(
    first_day: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = first_day()
    one_more_flight(settings)
    calls = {"bronze": 0}
    ingest = steps.ingest

    def conflicting(*args: Any, **kwargs: Any) -> Any:
        calls["bronze"] += 1
        if calls["bronze"] < 3:
            raise CommitConflict("somebody was faster")
        return ingest(*args, **kwargs)

    monkeypatch.setattr(steps, "ingest", conflicting)
    monkeypatch.setattr(runtime, "FIRST_WAIT_S", 0.01)
    assert run_pipelines(settings, ["flights"]).success
    assert calls["bronze"] == 3

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls["bronze"] += 1
        raise DeclarationError("this will not change by itself")

    monkeypatch.setattr(steps, "ingest", broken)
    calls["bronze"] = 0
    assert not run_pipelines(settings, ["airlines"]).success
    assert calls["bronze"] == 1


def test_a_home_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path))
    home = ensure_home(settings)
    assert "telemetry" in (home / "dagster.yaml").read_text()

    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    ensure_home(settings)

    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (["flights"], (["flights"], ["fct", "mart"])),
        (["silver/flights"], (["flights"], ["fct", "mart"])),
        (["gold"], ([], ["fct", "mart"])),
        (["gold/fct"], ([], ["fct"])),
        (["mart"], ([], ["mart"])),
        (["catalog"], ([], [])),
    ],
)
def test_a_selection_names_pipelines_or_gold_tables(
    select: list[str], expected: tuple[list[str], list[str]]
) -> None:
    assert parse_selection(select, ["flights", "weather"], ["fct", "mart"]) == expected


def test_a_selection_of_nothing_says_what_was_meant() -> None:
    with pytest.raises(DeclarationError, match="did you mean flights"):
        parse_selection(["fligths"], ["flights", "weather"], ["fct"])


def test_a_profiled_run_says_what_each_stage_took_and_why_the_slowest_were_slow(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    header, first, *_ = next(Path(settings.landing, "flights").rglob("*.csv")).read_text().splitlines()
    land(settings, "flights/2013/01/corrected.csv", f"{header}\n{first.replace('N14228', 'N14229')}\n")
    profile = Profile()
    assert run_pipelines(settings, progress=None, profile=profile).success
    found = {(item.stage, item.table): item for item in profile.measured}
    bronze, silver = found["bronze", "flights"], found["silver", "flights"]
    assert (bronze.rows_in, bronze.rows_out, silver.rows_in) == (1, 1, 1)
    assert silver.rows_out is not None
    assert silver.rows_out > 700  # its file was written again for the one row
    assert "written again whole" in silver.why
    assert ("gold", "") in found
    assert ("gold model", "fct_flights") in found
    assert ("publish", "") in found
    assert all(item.wall_s > 0 for item in profile.measured)
    assert all((item.peak_rss_bytes or 0) > 50 << 20 for item in (bronze, silver))
    slowest = profile.slowest()
    assert [item.wall_s for item in slowest] == sorted((item.wall_s for item in slowest), reverse=True)
    assert all(item.why for item in profile.measured)


def test_a_failed_check_is_written_down_before_its_step_tells_of_it(
    first_day: Callable[..., Settings],
) -> None:
    """Stages run ahead of their steps; another run must not publish meanwhile what failed."""
    settings = first_day()
    land(settings, "airports/airports_2013-06-01.csv", bad_airports(300))
    pipelines = load_pipelines(settings)
    runtime_ = runtime.Runtime(settings, pipelines)
    run = DagsterRun(job_name="refresh", asset_selection=frozenset({runtime.GOLD_FOLLOWS}))
    for layer in ("bronze", "silver"):
        done = steps.stage_and_check(runtime_, layer, pipelines["airports"], run)
    assert done.gates_closed
    assert done.snapshot is not None
    failed = checks.failed_blocking(runtime_.lake, {"silver/airports": done.snapshot.version})
    assert [outcome.table for outcome in failed] == ["airports"]
