"""Dagster's databases kept open: they are Dagster's own, they may vanish, and two processes may make them at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.defs.instance import ensure_home, open_instance
from lakehouse.settings import PROJECT_DIR, Settings, load_settings


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
