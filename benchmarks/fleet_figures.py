"""What the fleet is judged by, from what its ticks took."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.fleet_arrivals import MISSION_BYTES_S
from benchmarks.fleet_worker import Done


@dataclass(frozen=True)
class Tick:
    """One tick of the saturated phase. Maintenance that began beside it works on beside the next ones; ``wall_s`` of the last
    ends with both."""

    number: int
    landed_bytes: int
    wall_s: float
    maintained: bool
    done: Done


@dataclass(frozen=True)
class Paced:
    """The paced phase: how late each file was published, and its runs."""

    landed_bytes: int
    wall_s: float
    late_s: list[float]
    runs: list[Done]


def figures(
    ticks: Sequence[Tick],
    paced: Paced | None,
    empty: tuple[Done, Done],
    maintained: Sequence[Done],
    bare: Mapping[int, Done],
    stored_per_byte: float,
) -> dict[str, Any]:
    """The first tick makes every table and parses the dbt project: it is left out of the saturated phase."""
    steady = ticks[1:]
    landed, seconds = sum(tick.landed_bytes for tick in steady), sum(tick.wall_s for tick in steady)
    beside = [done for tick, done in zip([t for t in ticks if t.maintained], maintained, strict=False)]
    cpu_s = sum(tick.done.cpu_s for tick in steady) + sum(done.cpu_s for done in beside)
    written = sum(tick.done.written_bytes for tick in steady) + sum(done.written_bytes for done in beside)
    walls = [tick.done.wall_s for tick in steady]
    rate = landed / seconds
    beside_bare = [tick for tick in ticks if tick.number in bare]
    bare_bytes = sum(tick.landed_bytes for tick in beside_bare)
    bare_cpu_s, bare_s = sum(done.cpu_s for done in bare.values()), sum(done.wall_s for done in bare.values())
    found = {
        "ticks": len(ticks),
        "tick_mb": round(landed / 1e6 / len(steady)),
        "landed_gb": round(sum(tick.landed_bytes for tick in ticks) / 1e9, 2),
        "sustained_mb_s": round(rate / 1e6, 1),
        "times_mission": round(rate / MISSION_BYTES_S, 2),
        "published_after_s": _percentiles(walls),
        "cpu_s_per_gb": round(cpu_s / (landed / 1e9), 1),
        "cores_busy": round(cpu_s / seconds, 2),
        "bare_cpu_s_per_gb": round(bare_cpu_s / (bare_bytes / 1e9), 1),
        "bare_mb_s": round(bare_bytes / 1e6 / bare_s, 1),
        "cpu_to_bare": round(sum(tick.done.cpu_s for tick in beside_bare) / bare_cpu_s, 2),
        "time_to_bare": round(sum(tick.done.wall_s for tick in beside_bare) / bare_s, 2),
        "written_per_byte": round(written / landed, 2),
        "stored_per_byte": round(stored_per_byte, 3),
        "last_to_first": _last_to_first(walls),
        "last_to_first_cpu": _last_to_first([tick.done.cpu_s for tick in steady]),
        "last_to_first_bronze": _last_to_first([tick.done.busy.get("bronze", 0.0) for tick in steady]),
        "peak_rss_gib": round(max(done.peak_rss_bytes for done in _runs(ticks, paced)) / 2**30, 2),
        "maintenance_peak_rss_gib": round(max([done.peak_rss_bytes for done in maintained], default=0) / 2**30, 2),
        "maintenance_cpu_s_per_gb": round(sum(done.cpu_s for done in beside) / (landed / 1e9), 2),
        "empty_tick_after_maintenance_cpu_s": round(empty[0].cpu_s, 2),
        "empty_tick_cpu_s": round(empty[1].cpu_s, 2),
        "start_cpu_s": round(empty[0].start_cpu_s + max(0.0, ticks[0].done.cpu_s - statistics.median(t.done.cpu_s for t in steady)), 1),
    }  # fmt: skip
    if paced is not None:
        found["paced"] = {
            "files": len(paced.late_s),
            "landed_gb": round(paced.landed_bytes / 1e9, 2),
            "published_after_s": _percentiles(paced.late_s) | {"max": round(max(paced.late_s), 1)},
            "runs": len(paced.runs),
            "run_s": round(statistics.mean(done.wall_s for done in paced.runs), 1),
            "cpu_s_per_gb": round(sum(done.cpu_s for done in paced.runs) / (paced.landed_bytes / 1e9), 1),
        }
    return found


def _runs(ticks: Sequence[Tick], paced: Paced | None) -> list[Done]:
    return [tick.done for tick in ticks] + (paced.runs if paced else [])


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 1) for name, part in at.items()
    }


def _last_to_first(values: Sequence[float]) -> float:
    """Mean of the last ten over that of the first ten; of fewer where there are not thirty."""
    part = max(1, min(10, len(values) // 3))
    return round(statistics.mean(values[-part:]) / statistics.mean(values[:part]), 3)


def table(found: dict[str, Any], ticks: Sequence[Tick], paced: Paced | None) -> str:
    rows = [
        ("input", f"{found['ticks']} ticks of {found['tick_mb']} MB, {found['landed_gb']} GB in files as they arrive"),
        ("sustained, maintenance included", f"{found['sustained_mb_s']} MB/s = {found['times_mission']} × 26.6 MB/s"),
        ("a tick, from start to published (p50 / p95 / p99)", f"{_three(found['published_after_s'])} s"),
        ("mean of the last ten ticks ÷ the first ten", f"{found['last_to_first']}; by CPU {found['last_to_first_cpu']}"),
        ("the same of bronze, which reads no table: the machine's own drift", f"{found['last_to_first_bronze']}"),
        ("CPU", f"{found['cpu_s_per_gb']} s per GB, of it maintenance {found['maintenance_cpu_s_per_gb']}; {found['cores_busy']} cores busy"),
        ("bare Polars on the second and the last tick's files: text into Delta, types into Delta, nothing else",
         f"{found['bare_cpu_s_per_gb']} CPU-s per GB, {found['bare_mb_s']} MB/s; those ticks took {found['cpu_to_bare']} × its CPU, {found['time_to_bare']} × its time"),
        ("written per byte of input", f"{found['written_per_byte']}"),
        ("stored per byte of input, all versions", f"{found['stored_per_byte']}"),
        ("peak memory", f"{found['peak_rss_gib']} GiB; maintenance beside it {found['maintenance_peak_rss_gib']} GiB"),
        ("a tick without arrivals", f"{found['empty_tick_cpu_s']} CPU-s"),
        ("the same just after maintenance", f"{found['empty_tick_after_maintenance_cpu_s']} CPU-s"),
        ("the start of a process, once", f"{found['start_cpu_s']} CPU-s"),
    ]  # fmt: skip
    lines = ["**Saturated: a tick after the other**", "", *_markdown(rows)]
    if paced is not None:
        pace = found["paced"]
        rows = [
            ("input", f"{pace['files']} files, {pace['landed_gb']} GB in {paced.wall_s:.0f} s"),
            ("arrived → published, each file (p50 / p95 / p99)", f"{_three(pace['published_after_s'])} s"),
            ("the slowest", f"{pace['published_after_s']['max']} s"),
            ("runs", f"{pace['runs']}, {pace['run_s']} s each, {pace['cpu_s_per_gb']} CPU-s per GB"),
        ]
        lines += ["", "**Paced: files arrive at 26.6 MB/s**", "", *_markdown(rows)]
    return "\n".join([*lines, "", _where(ticks[1:])])


def _where(ticks: Sequence[Tick]) -> str:
    """Shares of the time that two threads have; gold and publishing take one."""
    busy: Counter[str] = Counter()
    for tick in ticks:
        busy.update(tick.done.busy)
    total = 2 * sum(tick.done.wall_s for tick in ticks)
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in busy.most_common())
    return f"Where the time of two threads went: {shares}; the rest is planning, checks, Dagster and waiting."


def _three(values: dict[str, float]) -> str:
    return f"{values['p50']} / {values['p95']} / {values['p99']}"


def _markdown(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]
