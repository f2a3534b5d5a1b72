"""Memory does not grow with the data: ten times the flights, within the limit that the settings promise."""

from __future__ import annotations

import itertools
import os
import string
import subprocess
import sys
from pathlib import Path

import deltalake
import polars as pl
import pytest

from lakehouse.demo import source
from lakehouse.settings import PROJECT_DIR, load_settings

pytestmark = pytest.mark.slow
TIMES = 10
ROWS = 336_776
LIMIT = "2GiB"

#: One stage in a process of its own; prints the process's peak resident memory in bytes.
_STAGE = """
import sys
from lakehouse.ops.profile import peak_rss_bytes
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from lakehouse.bronze import ingest
from lakehouse.silver import refine
settings = load_settings()
lake = Lake.from_settings(settings)
for name in sys.argv[2:]:
    {"bronze": ingest, "silver": refine}[sys.argv[1]](lake, settings, load_pipelines(settings)[name])
print(peak_rss_bytes())
"""


def _peak_bytes(root: Path, stage: str, *pipelines: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _STAGE, stage, *pipelines],
        env={
            **os.environ,
            "LAKEHOUSE_ROOT": str(root),
            "LAKEHOUSE_MEMORY_LIMIT": LIMIT,
            "PYTHONPATH": str(PROJECT_DIR),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


def _land_ten_times(landing: Path) -> None:
    """The published flights ten times over, each time under other carrier codes, so that every key is new."""
    flights = pl.read_csv(source.read_table("flights"), infer_schema=False)
    codes = ("".join(pair) for pair in itertools.product(string.ascii_uppercase, string.digits))
    carriers = flights["carrier"].unique().sort().to_list()
    for number in range(TIMES):
        file = landing / "flights" / f"flights_{number}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        renamed = dict(zip(carriers, codes, strict=False))
        flights.with_columns(pl.col("carrier").replace_strict(renamed)).write_csv(file)


def test_ten_times_the_flights_stay_under_the_memory_limit(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    settings = load_settings(root=str(root), memory_limit=LIMIT)
    _land_ten_times(Path(settings.landing))
    peaks = {stage: _peak_bytes(root, stage, "flights") for stage in ("bronze", "silver")}
    for layer in ("bronze", "silver"):
        counts = deltalake.DeltaTable(str(root / layer / "flights")).get_add_actions(flatten=True)[
            "num_records"
        ]
        assert sum(counts.to_pylist()) == TIMES * ROWS
    assert {stage: peak for stage, peak in peaks.items() if peak > settings.memory_limit_bytes} == {}
    print({stage: f"{peak / 2**20:.0f} MiB" for stage, peak in peaks.items()})  # noqa: T201  shown with -rP
