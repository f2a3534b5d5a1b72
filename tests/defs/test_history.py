"""Dagster's databases kept open: they are Dagster's own, they may vanish, and two processes may make them at once."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage

from lakehouse.defs.instance import ensure_home, open_instance
from lakehouse.settings import PROJECT_DIR, Settings, load_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(root=str(tmp_path / "lake"))


@dg.asset
def thing() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 3})


def _materialize(instance: dg.DagsterInstance) -> str:
    result = dg.materialize([thing], instance=instance)
    assert result.success
    return result.run_id


def _seen(instance: dg.DagsterInstance) -> tuple[int, int]:
    """Runs, and materializations of the asset."""
    records = instance.fetch_materializations(dg.AssetKey("thing"), limit=100).records
    return len(instance.get_runs()), len(records)


def test_what_is_written_here_is_read_by_dagsters_own_storage(settings: Settings) -> None:
    with open_instance(settings) as instance:
        run_id = _materialize(instance)
        steps = [
            event.get_dagster_event().event_type_value
            for event in instance.all_logs(run_id)
            if event.is_dagster_event
        ]
    home = ensure_home(settings)
    lines = (home / "dagster.yaml").read_text().splitlines()
    (home / "dagster.yaml").write_text("\n".join(line for line in lines[1:] if "_storage:" not in line))
    with dg.DagsterInstance.from_config(str(home)) as plain:
        assert "history" not in type(plain.event_log_storage).__module__
        assert _seen(plain) == (1, 1)
        found = [
            event.get_dagster_event().event_type_value
            for event in plain.all_logs(run_id)
            if event.is_dagster_event
        ]
    assert found == steps
    assert "ASSET_MATERIALIZATION" in steps


def test_a_home_that_is_deleted_under_a_living_process_is_begun_anew(settings: Settings) -> None:
    with open_instance(settings) as instance:
        _materialize(instance)
        _materialize(instance)
        assert _seen(instance) == (2, 2)
    shutil.rmtree(settings.dagster_home)
    with open_instance(settings) as instance:
        assert _seen(instance) == (0, 0)
        _materialize(instance)
        assert _seen(instance) == (1, 1)


def test_processes_that_start_together_make_it_once(settings: Settings) -> None:
    code = (
        "import sys; from lakehouse.settings import load_settings; from lakehouse.defs.instance import open_instance\n"
        "with open_instance(load_settings(root=sys.argv[1])) as instance: print(len(instance.get_runs()))"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, settings.root], cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[0].strip() for process in started] == ["0"] * 4
    assert [process.returncode for process in started] == [0] * 4


@dg.asset(
    check_specs=[dg.AssetCheckSpec("good", asset="checked"), dg.AssetCheckSpec("bad", asset="checked")],
    deps=[thing],
)
def checked():  # type: ignore[no-untyped-def]  # Dagster wants a tuple or nothing
    return dg.MaterializeResult(
        metadata={"rows": 3},
        check_results=[
            dg.AssetCheckResult(check_name="good", passed=True),
            dg.AssetCheckResult(check_name="bad", passed=False, metadata={"recovery": "look"}),
        ],
    )


@dg.asset(deps=[checked], partitions_def=dg.StaticPartitionsDefinition(["a"]))
def parted() -> None:
    raise dg.Failure("on purpose")


def test_the_rows_of_every_event_are_those_that_dagster_would_write(
    settings: Settings, tmp_path: Path
) -> None:
    with open_instance(settings) as instance:
        for _ in range(2):
            dg.materialize([thing, checked], instance=instance)
            dg.materialize([parted], instance=instance, partition_key="a", raise_on_error=False)
        run_ids = [run.run_id for run in reversed(instance.get_runs())]
        events = [entry for run_id in run_ids for entry in instance.all_logs(run_id)]
        ours = _tables(settings.dagster_home / "history" / "runs", run_ids)
    assert {entry.dagster_event_type.value for entry in events if entry.is_dagster_event} >= {
        "ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED", "ASSET_CHECK_EVALUATION", "STEP_FAILURE",
    }  # fmt: skip
    plain = SqliteEventLogStorage(str(tmp_path / "plain"))
    for entry in events:
        plain.store_event(entry)
    plain.dispose()
    assert _tables(tmp_path / "plain", run_ids) == ours


def _tables(folder: Path, run_ids: list[str]) -> dict[str, list[tuple[object, ...]]]:
    """The rows of every table, without the instants at which they were written."""
    found = {}
    for name in ["index", *run_ids]:
        with sqlite3.connect(folder / f"{name}.db") as connection:
            for table in ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions"):
                rows = connection.execute(f"SELECT * FROM {table}")
                columns = [column[0] for column in rows.description]
                kept = [at for at, column in enumerate(columns) if column != "create_timestamp"]
                found[f"{name} {table}"] = [tuple(row[at] for at in kept) for row in rows]
    return found


def test_a_pool_has_one_step_at_a_time_and_the_next_one_is_let_in(settings: Settings) -> None:
    with open_instance(settings) as instance:
        ours = instance.event_log_storage
        ours.set_concurrency_slots("silver/flights", 1)
        # Dagster's own storage on the same files: another installation's process, or the web server of another release.
        plain = SqliteEventLogStorage(str(settings.dagster_home / "history" / "runs"))
        assert ours.claim_concurrency_slot("silver/flights", "run 1", "a").is_claimed
        assert ours.check_concurrency_claim("silver/flights", "run 1", "a").is_claimed
        assert not plain.claim_concurrency_slot("silver/flights", "run 2", "b").is_claimed
        assert not ours.claim_concurrency_slot("silver/flights", "run 3", "c").is_claimed
        ours.free_concurrency_slot_for_step("run 1", "a")
        assert not ours.claim_concurrency_slot("silver/flights", "run 3", "c").is_claimed
        assert plain.claim_concurrency_slot("silver/flights", "run 2", "b").is_claimed
        ours.free_concurrency_slots_for_run("run 2")
        assert ours.claim_concurrency_slot("silver/flights", "run 3", "c").is_claimed
        ours.free_concurrency_slot_for_step("run 3", "c")
        assert plain.claim_concurrency_slot("silver/flights", "run 4", "d").is_claimed
        assert not ours.claim_concurrency_slot("silver/flights", "run 1", "a").is_claimed
        plain.dispose()
