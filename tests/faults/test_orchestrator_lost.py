"""``lakehouse run`` killed at random instants, and Dagster's own storage deleted between any two runs."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse.demo.landing import land_before
from lakehouse.gold.query import connect_read_only
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake
from tests.conftest import PROJECT, run_cli

pytestmark = pytest.mark.slow

#: Each arrival is one local day more; with the first come the snapshots of the dimension tables.
_ARRIVALS = ("2013-01-02T05:00:00Z", "2013-01-03T05:00:00Z")
_VOLATILE = {"_ingested_at_utc", "_quarantined_at_utc", "_run_id"}


def _contents(settings: Settings) -> dict[str, list[str]]:
    """Rows of every table as sorted texts, and those of the published tables."""
    lake = Lake.from_settings(settings)
    found = {}
    for layer in ("bronze", "silver", "quarantine", "gold"):
        for name in lake.tables(layer):  # type: ignore[arg-type]
            rows = pl.scan_delta(f"{lake.root}/{layer}/{name}").collect().to_dicts()
            found[f"{layer}/{name}"] = _texts(rows)
    with connect_read_only(settings) as connection:
        for (name,) in connection.execute(
            "from duckdb_views() select schema_name || '.' || view_name where not internal"
        ).fetchall():
            (count,) = connection.execute(f"select count(*) from {name}").fetchone()  # type: ignore[misc]
            found[f"published/{name}"] = [str(count)]
    return found


def _texts(rows: list[dict[str, Any]]) -> list[str]:
    # Sums of floats depend on the order of addition in the last digits.
    def plain(value: Any) -> Any:
        return round(value, 6) if isinstance(value, float) else value

    return sorted(
        json.dumps({k: plain(v) for k, v in row.items() if k not in _VOLATILE}, default=str, sort_keys=True)
        for row in rows
    )


def _live(folder: Path, after_arrival: Callable[[Settings], None]) -> dict[str, list[str]]:
    """A lake through all arrivals, run once after each; ``after_arrival`` does its damage before that run."""
    settings = load_settings(root=str(folder / "lake"))
    for before_utc in _ARRIVALS:
        land_before(settings, before_utc)
        for path in sorted(Path(settings.landing).rglob("*.csv")):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        after_arrival(settings)
        done = run_cli("run", root=folder / "lake")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = _contents(settings)
    shutil.rmtree(folder / "lake")
    return found


def _forget(settings: Settings) -> None:
    shutil.rmtree(settings.dagster_home, ignore_errors=True)


def _kill_and_forget(settings: Settings) -> None:
    """Start the real command, kill it with its children at a random instant, delete what Dagster knows."""
    rng = random.Random(len(list(Path(settings.landing).rglob("*.csv"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "lakehouse.cli", "run"],
        cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "LAKEHOUSE_ROOT": settings.root},
    )  # fmt: skip
    time.sleep(rng.uniform(3, 10))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _forget(settings)


def test_killed_runs_and_a_lost_orchestrator_change_nothing(tmp_path: Path) -> None:
    undisturbed = _live(tmp_path, lambda settings: None)
    assert sum(len(rows) for table, rows in undisturbed.items() if table.startswith("silver/")) > 5_000
    disturbed = _live(tmp_path, _kill_and_forget)
    assert disturbed.keys() == undisturbed.keys()
    for table, rows in undisturbed.items():
        assert disturbed[table] == rows, table
