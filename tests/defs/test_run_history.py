"""Dagster's history is kept short: what old runs have left goes, and the UI still shows what is true now."""

# Without postponed annotations: Dagster reads the types of a parameter.

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.defs.instance import open_instance
from lakehouse.defs.run_history import forget_old_runs
from lakehouse.settings import Settings, load_settings

pytestmark = pytest.mark.slow


@dg.asset(
    check_specs=[dg.AssetCheckSpec("is_there", asset="thing")],
    config_schema={"fails": dg.Field(bool, default_value=False)},
)
def thing(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
    if context.op_execution_context.op_config["fails"]:
        raise ValueError("as asked")
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[dg.AssetCheckResult(passed=True)])


def _run(instance: dg.DagsterInstance, *, fails: bool = False) -> str:
    config = {"ops": {"thing": {"config": {"fails": fails}}}}
    return dg.materialize([thing], instance=instance, run_config=config, raise_on_error=False).run_id


def _settings(tmp_path: Path, runs: int) -> Settings:
    return load_settings(root=str(tmp_path / "lake"), run_history_runs=runs)


def _databases(settings: Settings) -> set[str]:
    folder = settings.dagster_home / "history" / "runs"
    return {path.name.removesuffix(".db") for path in folder.glob("*.db")} - {"index"}


def _logs(settings: Settings) -> set[str]:
    """Runs whose steps have printed something; every folder is one's."""
    return {path.name for path in (settings.dagster_home / "storage").iterdir()}


def _rows(settings: Settings, table: str, run_id: str) -> int:
    with sqlite3.connect(settings.dagster_home / "history" / "runs" / "index.db") as index:
        return int(index.execute(f"SELECT count(*) FROM {table} WHERE run_id = ?", (run_id,)).fetchone()[0])


def test_old_runs_go_with_all_that_they_left_and_the_newest_stay(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=2)
    with open_instance(settings) as instance:
        good = [_run(instance) for _ in range(4)]
        bad = [_run(instance, fails=True) for _ in range(3)]
        assert _databases(settings) == _logs(settings) == {*good, *bad}
        assert _rows(settings, "event_logs", good[0])
        assert _rows(settings, "asset_check_executions", good[0])
        assert forget_old_runs(instance, settings) == 3
        assert {run.run_id for run in instance.get_runs()} == {*good[2:], *bad[1:]}
        assert _databases(settings) == _logs(settings) == {*good[2:], *bad[1:]}
        for run_id in (*good[:2], bad[0]):
            assert not _rows(settings, "event_logs", run_id)
            assert not _rows(settings, "asset_check_executions", run_id)
        assert instance.all_logs(good[-1])
        assert forget_old_runs(instance, settings) == 0


def test_no_run_is_kept_for_longer_than_said(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=100)
    with open_instance(settings) as instance:
        _run(instance)
        in_time = datetime.now(UTC) + timedelta(days=settings.run_history_days - 1)
        assert forget_old_runs(instance, settings, in_time) == 0
        assert forget_old_runs(instance, settings, in_time + timedelta(days=2)) == 1
        assert not instance.get_runs()


def test_what_only_a_forgotten_run_has_told_is_still_shown(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    with open_instance(settings) as instance:
        _run(instance)
        for _ in range(3):
            dg.materialize([dg.asset(name="other")(lambda: None)], instance=instance)
        assert forget_old_runs(instance, settings) == 3
    with open_instance(settings) as instance:
        key = dg.AssetCheckKey(dg.AssetKey("thing"), "is_there")
        (record,) = instance.get_asset_records([dg.AssetKey("thing")])
        assert record.asset_entry.last_materialization is not None
        assert record.asset_entry.last_materialization.asset_materialization.metadata["rows"].value == 3
        checks = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
        assert checks[key].status.value == "SUCCEEDED"
        _run(instance)
        assert len(instance.fetch_materializations(dg.AssetKey("thing"), limit=9).records) == 1


def test_a_run_that_has_not_ended_stays(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    with open_instance(settings) as instance:
        run_id = _run(instance)
        begun = instance.create_run_for_job(dg.define_asset_job("job", [thing]).resolve(asset_graph=dg.Definitions([thing]).resolve_asset_graph()))  # fmt: skip
        later = datetime.now(UTC) + timedelta(days=100)
        assert forget_old_runs(instance, settings, later) == 1
        assert [run.run_id for run in instance.get_runs()] == [begun.run_id] != [run_id]
