"""Dagster's history is kept short: what old runs have left goes, and the UI still shows what is true now."""

# Without postponed annotations: Dagster reads the types of a parameter.

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.defs import history_rows
from lakehouse.defs.instance import open_instance
from lakehouse.defs.run_history import forget_old_runs
from lakehouse.errors import StorageError
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


def test_a_run_that_only_planned_a_check_does_not_take_the_place_of_its_outcome(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    key = dg.AssetCheckKey(dg.AssetKey("thing"), "is_there")
    with open_instance(settings) as instance:
        good = _run(instance)
        failed = [_run(instance, fails=True) for _ in range(3)]
        dg.materialize([dg.asset(name="other")(lambda: None)], instance=instance)
        assert forget_old_runs(instance, settings) == 3
        assert [_rows(settings, "asset_check_executions", run_id) for run_id in (good, *failed)] == [1, 0, 0, 1]  # fmt: skip
        (summary,) = instance.event_log_storage.get_asset_check_summary_records([key]).values()
        assert summary.last_completed_check_execution_record is not None
        assert summary.last_completed_check_execution_record.run_id == good


def test_it_is_known_for_ever_which_partitions_were_made(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["2013-01", "2013-02"]))
    def monthly() -> None: ...

    with open_instance(settings) as instance:
        made = dg.materialize([monthly], partition_key="2013-01", instance=instance).run_id
        _run(instance)
        assert forget_old_runs(instance, settings) == 1
        assert instance.get_materialized_partitions(dg.AssetKey("monthly")) == {"2013-01"}
        assert _rows(settings, "event_logs", made) == 1


def test_what_a_killed_deletion_left_goes_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path, runs=1)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for method in ("compute_log_manager.delete_logs", "event_log_storage.delete_events", "delete_run"):
        with open_instance(settings) as instance:
            old, new = _run(instance), _run(instance)
            holder, _, name = f"{method}".rpartition(".")
            with monkeypatch.context() as patched:
                patched.setattr(getattr(instance, holder) if holder else instance, name, dies)
                with pytest.raises(KeyboardInterrupt):
                    forget_old_runs(instance, settings)
            assert forget_old_runs(instance, settings) >= 1
            assert _databases(settings) == _logs(settings) == {new}
            assert not _rows(settings, "event_logs", old)


def test_files_that_cannot_be_removed_keep_their_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(tmp_path, runs=1)
    with open_instance(settings) as instance:
        foreign, old, new = _run(instance), _run(instance), _run(instance)
        manager = instance.compute_log_manager
        real = manager.delete_logs

        def refused(*, prefix: list[str]) -> None:
            if prefix == [foreign]:
                raise PermissionError(13, "Permission denied")
            real(prefix=prefix)

        monkeypatch.setattr(manager, "delete_logs", refused)
        with pytest.raises(StorageError, match="1 of 2 old runs stay"):
            forget_old_runs(instance, settings)
        assert {run.run_id for run in instance.get_runs()} == {foreign, new}
        assert _databases(settings) == {foreign, new}
        assert not _rows(settings, "event_logs", old)


def test_what_sensors_printed_goes_with_the_years(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    folder = settings.dagster_home / "storage" / "repository" / "sla_sensor"
    folder.mkdir(parents=True)
    for name in ("old.err", "new.err"):
        (folder / name).touch()
    month_ago = datetime.now(UTC) - timedelta(days=settings.run_history_days + 1)
    os.utime(folder / "old.err", times=(0, month_ago.timestamp()))
    with open_instance(settings) as instance:
        forget_old_runs(instance, settings)
    assert [path.name for path in folder.iterdir()] == ["new.err"]


def test_a_deletion_reads_no_other_runs_checks(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    with open_instance(settings) as instance:
        _run(instance)
        _run(instance)
        forget_old_runs(instance, settings)
    with sqlite3.connect(settings.dagster_home / "history" / "runs" / "index.db") as index:
        statement = history_rows._FORGET_CHECKS.replace(":run", "'x'").replace(":planned", "'PLANNED'")
        steps = [str(row[-1]) for row in index.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert any("lakehouse_checks_of_run" in step for step in steps)
    assert not [step for step in steps if step.startswith("SCAN")]


def test_a_run_that_has_not_ended_stays(tmp_path: Path) -> None:
    settings = _settings(tmp_path, runs=1)
    with open_instance(settings) as instance:
        run_id = _run(instance)
        begun = instance.create_run_for_job(dg.define_asset_job("job", [thing]).resolve(asset_graph=dg.Definitions([thing]).resolve_asset_graph()))  # fmt: skip
        later = datetime.now(UTC) + timedelta(days=100)
        assert forget_old_runs(instance, settings, later) == 1
        assert [run.run_id for run in instance.get_runs()] == [begun.run_id] != [run_id]
