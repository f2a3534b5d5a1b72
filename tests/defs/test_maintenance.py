"""Maintenance by the daemon: scheduled by default, told of in the event log, and in nobody's way."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from lakehouse.defs.compose import definitions_for
from lakehouse.defs.maintenance import MAINTENANCE_JOB
from lakehouse.defs.workers import MAINTENANCE_STEP, Reaped, note_reaped
from lakehouse.errors import SettingsError
from lakehouse.ops import failures
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake, Table

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path, with_project: Callable[[Settings], Settings]) -> Settings:
    (tmp_path / "pipelines").mkdir()
    return with_project(load_settings(root=str(tmp_path / "lake"), pipelines_dir=str(tmp_path / "pipelines")))


@pytest.fixture
def many_files(settings: Settings) -> Callable[[str], Table]:
    def make(name: str) -> Table:
        table = Lake.from_settings(settings).table("bronze", name)
        frame = pl.DataFrame({"id": [1, 2, 3]})
        table.create(frame.schema)
        for _ in range(9):
            table.snapshot().commit(add=table.stage(frame.lazy()))
        return table

    return make


def carry_out(settings: Settings, *, vacuum: bool = True) -> dg.ExecuteInProcessResult:
    job = definitions_for(settings, {}).resolve_job_def(MAINTENANCE_JOB)
    config = {"ops": {MAINTENANCE_STEP: {"config": {"vacuum": vacuum}}}}
    return job.execute_in_process(
        run_config=config, instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
    )


def test_two_schedules_run_it_by_default(settings: Settings) -> None:
    definitions = definitions_for(settings, {})
    found = {schedule.name: schedule for schedule in definitions.schedules or ()}
    assert {name: schedule.cron_schedule for name, schedule in found.items()} == {
        "compact_schedule": settings.compact_cron,
        "vacuum_schedule": settings.vacuum_cron,
    }
    repository = definitions.get_repository_def()
    for name, vacuum in (("compact_schedule", False), ("vacuum_schedule", True)):
        schedule = repository.get_schedule_def(name)
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 5, 3, 37, tzinfo=UTC))
        (request,) = schedule.evaluate_tick(context).run_requests or ()
        assert request.run_config["ops"][MAINTENANCE_STEP]["config"] == {"vacuum": vacuum}


def test_what_was_done_stands_among_the_tables_events(
    settings: Settings, many_files: Callable[[str], Table]
) -> None:
    table = many_files("things")
    old = table.stage(pl.LazyFrame({"id": [9]}))[0].path
    long_ago = (datetime.now(UTC) - timedelta(days=30)).timestamp()
    os.utime(Path(table.uri, old), (long_ago, long_ago))
    result = carry_out(settings)
    assert result.success
    (event,) = [e for e in result.all_events if e.event_type is dg.DagsterEventType.ASSET_OBSERVATION]
    observation = event.asset_observation_data.asset_observation
    assert observation.asset_key == dg.AssetKey(["bronze", "things"])
    assert {
        name: observation.metadata[name].value for name in ("files before", "files after", "files removed")
    } == {
        "files before": 9,
        "files after": 1,
        "files removed": 1,
    }
    assert table.snapshot().num_rows() == 27
    again = carry_out(settings)
    assert [e for e in again.all_events if e.event_type is dg.DagsterEventType.ASSET_OBSERVATION] == []


def test_without_vacuum_no_file_is_removed(settings: Settings, many_files: Callable[[str], Table]) -> None:
    table = many_files("things")
    old = table.stage(pl.LazyFrame({"id": [9]}))[0].path
    os.utime(Path(table.uri, old), (1_600_000_000, 1_600_000_000))
    assert carry_out(settings, vacuum=False).success
    assert Path(table.uri, old).exists()


def test_a_table_that_cannot_be_maintained_fails_the_run_after_the_others(
    settings: Settings, many_files: Callable[[str], Table]
) -> None:
    broken, whole = many_files("broken"), many_files("whole")
    Path(broken.snapshot().uris()[0]).write_bytes(b"torn")
    result = carry_out(settings)
    assert not result.success
    assert len(whole.snapshot().uris()) == 1
    assert failures.open_failures(Lake.from_settings(settings)) == {}


def test_tables_do_not_wait_for_dagsters_history(
    settings: Settings, many_files: Callable[[str], Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = many_files("orders")

    def fails(*_: object) -> int:
        raise RuntimeError("database is locked")

    monkeypatch.setattr("lakehouse.defs.maintenance.forget_old_runs", fails)
    assert carry_out(settings).success
    assert table.snapshot().files().height == 1


def test_a_maintenance_that_was_killed_holds_up_nothing(settings: Settings) -> None:
    lake = Lake.from_settings(settings)
    note_reaped([Reaped("run", (MAINTENANCE_STEP, "bronze_things"))], lake, settings)
    assert list(failures.open_failures(lake)) == [("bronze", "things")]


def test_a_schedule_that_cannot_work_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LAKEHOUSE_COMPACT_CRON.*write five"):
        load_settings(root=str(tmp_path), compact_cron="hourly")
    with pytest.raises(SettingsError, match="LAKEHOUSE_RETENTION_DAYS"):
        load_settings(root=str(tmp_path), retention_days=0.5)
