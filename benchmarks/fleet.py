"""47 pipelines in ticks, everything on: how much input the whole lakehouse takes, and whether it stays so as tables grow.

    python benchmarks/fleet.py --docs docs/performance.md         # 100 ticks
    python benchmarks/fleet.py --quick                            # 8 small ticks, about a minute

Every tick lands a file for each pipeline (upserts of recent and of any keys, histories, keyed and keyless appends; CSV,
gzip, JSON lines, Parquet) and runs what a sensor would: Dagster run, ledger, contracts, quarantine, checks, gold,
publishing; maintenance every ten ticks. Landing is not measured. Sizes are those of the files as they arrive.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import fleet_lake, harness  # noqa: E402

#: The mission: 2.3 TB of raw input a day.
MISSION_MB_S = 26.6
_MAINTAIN_EVERY = 10
_PACKAGES = ("dagster", "polars", "deltalake", "duckdb", "dbt-duckdb")


@dataclass(frozen=True)
class Tick:
    """One tick: input landed, and what the run of it took. ``busy`` has seconds per stage, added up over threads."""

    number: int
    landed_bytes: int
    wall_s: float
    cpu_s: float
    maintain_s: float
    peak_rss_bytes: int
    written_bytes: int
    busy: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = harness.options(__doc__)
    parser.add_argument("--ticks", type=int, help="how many ticks (default 100; quick: 8)")
    parser.add_argument("--tick-mb", type=float, help="input of one tick (default 500; quick: 60)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker:
        _work(chosen.worker)
        return 0
    started = time.monotonic()
    count = chosen.ticks or (8 if chosen.quick else 100)
    tick_bytes = int(1e6 * (chosen.tick_mb or (60 if chosen.quick else 500)))
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = Path(name)
        fleet_lake.declare(folder)
        ticks, empty_cpu_s = _run(folder, count, tick_bytes)
        shutil.rmtree(folder / "lake" / "landing")
        stored = harness.folder_bytes(folder / "lake")
    figures = _figures(ticks, stored, empty_cpu_s)
    harness.finish(
        "fleet", chosen, _table(figures, ticks), {}, _PACKAGES, started,
        figures=figures, ticks=[asdict(tick) for tick in ticks],
    )  # fmt: skip
    return 0


def _run(folder: Path, count: int, tick_bytes: int) -> tuple[list[Tick], float]:
    """All ticks in one worker process, as the daemon's long-lived ones; then a tick without arrivals."""
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__)), "--worker", str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert worker.stdin
    assert worker.stdout
    ticks = []
    for number in range(count + 1):
        landed = fleet_lake.land(folder / "lake" / "landing", number, tick_bytes) if number < count else 0
        # Landed files stay out of the page cache's debt: what is measured is the lakehouse, not this writer.
        os.sync()
        worker.stdin.write(json.dumps({"number": number, "landed_bytes": landed}) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended with {worker.wait()}")
        tick = Tick(**json.loads(line))
        if number == count:
            break
        ticks.append(tick)
        print(
            f"  tick {number:>3}  {landed / 1e6:6.0f} MB  {tick.wall_s:6.1f} s  {tick.cpu_s:6.1f} CPU-s  "
            f"{landed / 1e6 / tick.wall_s:5.1f} MB/s  {tick.peak_rss_bytes >> 20} MiB",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    worker.stdin.close()
    worker.wait(60)
    return ticks, tick.cpu_s


def _work(folder: Path) -> None:
    """The measured process: a line in, a run, a line out."""
    import contextlib

    from lakehouse.defs.execute import run_pipelines
    from lakehouse.ops.maintenance import maintain
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings(
        root=str(folder / "lake"), pipelines_dir=str(folder / "pipelines"), dbt_project=str(folder / "dbt")
    )
    lake = Lake.from_settings(settings)
    pipelines = load_pipelines(settings)
    for line in sys.stdin:
        order = json.loads(line)
        written, cpu, wall = harness.written_bytes(), time.process_time(), time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            outcome = run_pipelines(settings)
            maintain_s = 0.0
            if order["number"] % _MAINTAIN_EVERY == _MAINTAIN_EVERY - 1:
                began = time.perf_counter()
                for _ in maintain(lake, settings, pipelines):
                    pass
                maintain_s = time.perf_counter() - began
        if not (outcome.success or outcome.nothing_new):
            raise SystemExit(
                f"tick {order['number']} failed: {[c for c in outcome.checks if not c.passed][:3]}"
            )
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        busy: Counter[str] = Counter()
        for step in outcome.steps:
            busy[step.name.split("/")[0]] += step.seconds
        tick = Tick(
            order["number"], order["landed_bytes"], wall_s, cpu_s, maintain_s, harness.peak_rss(),
            harness.written_bytes() - written, dict(busy),
        )  # fmt: skip
        print(json.dumps(asdict(tick)), flush=True)


def _figures(ticks: Sequence[Tick], stored: int, empty_cpu_s: float) -> dict[str, Any]:
    """What the fleet is judged by. The first tick makes every table and parses the dbt project: it is left out."""
    steady = ticks[1:]
    landed = sum(tick.landed_bytes for tick in steady)
    seconds = sum(tick.wall_s for tick in steady)
    walls = sorted(tick.wall_s - tick.maintain_s for tick in steady)
    tenth = max(1, min(10, len(steady) // 3))
    first, last = (
        statistics.mean(t.wall_s - t.maintain_s for t in part) for part in (steady[:tenth], steady[-tenth:])
    )
    rate = landed / 1e6 / seconds
    return {
        "ticks": len(ticks),
        "landed_gb": round(sum(tick.landed_bytes for tick in ticks) / 1e9, 2),
        "sustained_mb_s": round(rate, 1),
        "times_mission": round(rate / MISSION_MB_S, 2),
        "published_after_s": {
            "p50": round(walls[len(walls) // 2], 1),
            "p95": round(walls[int(len(walls) * 0.95)], 1),
            "p99": round(walls[min(len(walls) - 1, int(len(walls) * 0.99))], 1),
        },
        "cpu_s_per_gb": round(sum(tick.cpu_s for tick in steady) / (landed / 1e9), 1),
        "cores_busy": round(sum(tick.cpu_s for tick in steady) / seconds, 2),
        "written_per_byte": round(sum(tick.written_bytes for tick in steady) / landed, 2),
        "stored_per_byte": round(stored / sum(tick.landed_bytes for tick in ticks), 3),
        "last_to_first": round(last / first, 3),
        "peak_rss_gib": round(max(tick.peak_rss_bytes for tick in ticks) / 2**30, 2),
        "maintain_s": round(sum(tick.maintain_s for tick in steady), 1),
        "empty_tick_cpu_s": round(empty_cpu_s, 2),
    }


def _table(figures: dict[str, Any], ticks: Sequence[Tick]) -> str:
    after = figures["published_after_s"]
    rows = [
        ("input", f"{figures['ticks']} ticks, {figures['landed_gb']} GB in files as they arrive"),
        ("sustained, maintenance included", f"{figures['sustained_mb_s']} MB/s = {figures['times_mission']} × 26.6 MB/s"),
        ("landed → published, back to back (p50 / p95 / p99)", f"{after['p50']} / {after['p95']} / {after['p99']} s"),
        ("mean of the last ten ticks ÷ the first ten", f"{figures['last_to_first']}"),
        ("CPU", f"{figures['cpu_s_per_gb']} s per GB, {figures['cores_busy']} cores busy"),
        ("written per byte of input", f"{figures['written_per_byte']}"),
        ("stored per byte of input, all versions", f"{figures['stored_per_byte']}"),
        ("peak memory", f"{figures['peak_rss_gib']} GiB"),
        ("maintenance, all together", f"{figures['maintain_s']} s"),
        ("a tick without arrivals", f"{figures['empty_tick_cpu_s']} CPU-s"),
    ]  # fmt: skip
    busy: Counter[str] = Counter()
    for tick in ticks[1:]:
        busy.update(tick.busy)
    total = sum(busy.values()) or 1.0
    where = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in busy.most_common(5))
    lines = ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]
    return "\n".join([*lines, "", f"Where a run waited: {where}."])


if __name__ == "__main__":
    raise SystemExit(main())
