"""What the fleet is judged by, from what its ticks took."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.fleet_arrivals import MISSION_BYTES_S
from benchmarks.fleet_daemon import Shipped
from benchmarks.fleet_worker import Done
from benchmarks.harness import Target

_T = TypeVar("_T")


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


@dataclass(frozen=True)
class Start:
    """A process of its own for a run that finds nothing new."""

    wall_s: float
    cpu_s: float


def figures(
    ticks: Sequence[Tick],
    paced: Paced | None,
    shipped: Shipped | None,
    empty: tuple[Done, Done],
    start: Start,
    maintained: Sequence[Done],
    bare: Mapping[int, Done],
    stored_per_byte: float,
) -> dict[str, Any]:
    """The first tick loads every table and parses the dbt project: it is left out of the saturated phase."""
    steady = ticks[1:]
    compared_ticks = compared(ticks)
    landed, seconds = sum(tick.landed_bytes for tick in steady), sum(tick.wall_s for tick in steady)
    beside = [done for tick, done in zip([t for t in ticks if t.maintained], maintained, strict=False)]
    cpu_s = sum(tick.done.cpu_s for tick in steady) + sum(done.cpu_s for done in beside)
    written = sum(tick.done.written_bytes for tick in steady) + sum(done.written_bytes for done in beside)
    walls = [tick.done.wall_s for tick in steady]
    rate = landed / seconds
    beside_bare = [tick for tick in ticks if tick.number in bare]
    bare_bytes = sum(tick.landed_bytes for tick in beside_bare)
    bare_cpu_s, bare_s = sum(done.cpu_s for done in bare.values()), sum(done.wall_s for done in bare.values())
    ours = [[tick.done for tick in part] for part in compared_ticks]
    theirs = [[bare[tick.number] for tick in part if tick.number in bare] for part in compared_ticks]
    wall, cpu = (_grown(*ours, what) for what in ("wall_s", "cpu_s"))
    bare_wall, bare_cpu = (_grown(*theirs, what) for what in ("wall_s", "cpu_s"))
    found = {
        "ticks": len(ticks),
        "tick_mb": round(landed / 1e6 / len(steady)),
        "first_load_gb": round(ticks[0].landed_bytes / 1e9, 2),
        "landed_gb": round(sum(tick.landed_bytes for tick in ticks) / 1e9, 2),
        "sustained_mb_s": round(rate / 1e6, 1),
        "times_mission": round(rate / MISSION_BYTES_S, 2),
        "exact": {"times_mission": rate / MISSION_BYTES_S, "last_to_first": wall.ratio},
        "published_after_s": _percentiles(walls),
        "cpu_s_per_gb": round(cpu_s / (landed / 1e9), 1),
        "cores_busy": round(cpu_s / seconds, 2),
        "bare_cpu_s_per_gb": round(bare_cpu_s / (bare_bytes / 1e9), 1),
        "bare_mb_s": round(bare_bytes / 1e6 / bare_s, 1),
        "bare_cores_busy": round(bare_cpu_s / bare_s, 2),
        "bare_last_to_first": str(bare_wall),
        "bare_last_to_first_cpu": str(bare_cpu),
        "last_to_first_by_bare": str(wall.by(bare_wall)),
        "last_to_first_by_bare_cpu": str(cpu.by(bare_cpu)),
        "cpu_to_bare": round(sum(tick.done.cpu_s for tick in beside_bare) / bare_cpu_s, 2),
        "time_to_bare": round(sum(tick.done.wall_s for tick in beside_bare) / bare_s, 2),
        "written_per_byte": round(written / landed, 2),
        "stored_per_byte": round(stored_per_byte, 3),
        "last_to_first": str(wall),
        "last_to_first_cpu": str(cpu),
        "compared_ticks": len(compared_ticks[0]),
        "silver_rows_million": [round(tick.done.rows / 1e6, 1) for tick in (steady[0], steady[-1])],
        "slope_s_per_10m_rows": _slope([tick.done.rows / 1e7 for tick in steady], walls),
        "slope_cpu_s_per_10m_rows": _slope([tick.done.rows / 1e7 for tick in steady], [tick.done.cpu_s for tick in steady]),
        "mean_tick_s": round(statistics.mean(walls), 1),
        "peak_rss_gib": round(max(done.peak_rss_bytes for done in _runs(ticks, paced)) / 2**30, 2),
        "maintenance_peak_rss_gib": round(max([done.peak_rss_bytes for done in maintained], default=0) / 2**30, 2),
        "maintenance_cpu_s_per_gb": round(sum(done.cpu_s for done in beside) / (landed / 1e9), 2),
        "empty_tick_after_maintenance_cpu_s": round(empty[0].cpu_s, 2),
        "empty_tick_cpu_s": round(empty[1].cpu_s, 2),
        "empty_tick_kernel_s": round(empty[1].kernel_s, 2),
        "empty_tick_after_maintenance_kernel_s": round(empty[0].kernel_s, 2),
"start_s": round(start.wall_s, 1),
        "start_cpu_s": round(start.cpu_s, 1),
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
    if shipped is not None:
        found["shipped"] = {
            "files": len(shipped.late_s),
            "landed_gb": round(shipped.landed_bytes / 1e9, 2),
            "published_after_s": _percentiles(shipped.late_s) | {"max": round(max(shipped.late_s), 1)},
            "publications": shipped.publications,
            "cpu_s_per_gb": round(shipped.cpu_s / (shipped.landed_bytes / 1e9), 1),
            "sensor_interval_s": shipped.sensor_interval_s,
            "run_interval_s": shipped.run_interval_s,
        }
    return found


def targets(found: Mapping[str, Any]) -> list[Target]:
    """What the mission asks of the fleet."""
    asked = [
        Target(
            "2 × 26.6 MB/s sustained", f"{found['times_mission']} ×", found["exact"]["times_mission"] >= 2
        ),
        Target(
            f"the last {found['compared_ticks']} ticks within 10 % of the first {found['compared_ticks']}",
            f"{found['last_to_first']}",
            found["exact"]["last_to_first"] <= 1.1,
        ),
    ]
    for phase, name in (("paced", "runs back to back"), ("shipped", "by the daemon")):
        if phase in found:
            p99 = found[phase]["published_after_s"]["p99"]
            asked.append(
                Target(f"p99 arrival → published under 60 s at 26.6 MB/s, {name}", f"{p99} s", p99 < 60)
            )
    peak = found["peak_rss_together_gib"]
    empty = max(found["empty_tick_after_maintenance_cpu_s"], found["empty_tick_cpu_s"])
    return [
        *asked,
        Target("peak memory under 4 GiB, runs and maintenance together", f"{peak} GiB", peak < 4),
        Target(
            "an empty tick under one second of CPU, the one just after maintenance, too",
            f"{empty} s",
            empty < 1,
        ),
    ]


def _runs(ticks: Sequence[Tick], paced: Paced | None) -> list[Done]:
    return [tick.done for tick in ticks] + (paced.runs if paced else [])


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 1) for name, part in at.items()
    }


def compared(ticks: Sequence[_T]) -> tuple[Sequence[_T], Sequence[_T]]:
    """The first and the last ten ticks, the first load left out; fewer where there are not thirty."""
    part = max(1, min(10, (len(ticks) - 1) // 3))
    return ticks[1 : 1 + part], ticks[-part:]


@dataclass(frozen=True)
class Growth:
    """How many times as much the last ones took as the first ones, and the standard error of that as a share of it."""

    ratio: float
    error: float

    def by(self, other: Growth) -> Growth:
        return Growth(self.ratio / other.ratio, math.hypot(self.error, other.error))

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ± {self.ratio * self.error:.3f}"


def _grown(first: Sequence[Done], last: Sequence[Done], what: str) -> Growth:
    before, after = ([float(getattr(done, what)) for done in part] for part in (first, last))
    return Growth(
        statistics.mean(after) / statistics.mean(before),
        math.hypot(_relative_error(before), _relative_error(after)),
    )


def _relative_error(values: Sequence[float]) -> float:
    """The standard error of their mean, as a share of it; 0 for a single one."""
    if len(values) < 2:
        return 0.0
    return statistics.stdev(values) / math.sqrt(len(values)) / statistics.mean(values)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """By least squares."""
    return round(statistics.linear_regression(x, y).slope, 3) if len(set(x)) > 1 else 0.0


def table(found: dict[str, Any], ticks: Sequence[Tick], paced: Paced | None, shipped: Shipped | None) -> str:
    first, last = found["silver_rows_million"]
    both = f"{found['bare_cpu_s_per_gb']} CPU-s per GB"
    rows = [
        ("input", f"a first load of {found['first_load_gb']} GB, then {found['ticks'] - 1} ticks of {found['tick_mb']} MB: {found['landed_gb']} GB in files as they arrive"),
        ("sustained, maintenance included", f"{found['sustained_mb_s']} MB/s = {found['times_mission']} × 26.6 MB/s"),
        ("a tick, from start to published (p50 / p95 / p99)", f"{_three(found['published_after_s'])} s"),
        (f"mean of the last {found['compared_ticks']} ticks ÷ the first {found['compared_ticks']}",
         f"{found['last_to_first']}; by CPU {found['last_to_first_cpu']}"),
        ("the same of bare Polars with every second tick's files", f"{found['bare_last_to_first']}; by CPU {found['bare_last_to_first_cpu']}"),
        ("ours divided by that", f"{found['last_to_first_by_bare']}; by CPU {found['last_to_first_by_bare_cpu']}"),
        ("slope, as silver grows", f"from {first} to {last} million rows, {found['slope_s_per_10m_rows']:+} s and {found['slope_cpu_s_per_10m_rows']:+} CPU-s per 10 million (a tick has {found['mean_tick_s']} s)"),
        ("CPU", f"{found['cpu_s_per_gb']} s per GB, of it maintenance {found['maintenance_cpu_s_per_gb']}; {found['cores_busy']} cores busy"),
        ("bare Polars on every second tick's files of these: text into Delta, types into Delta, nothing else; two at a time",
         f"{both}, {found['bare_mb_s']} MB/s, {found['bare_cores_busy']} cores busy; those ticks took {found['cpu_to_bare']} × its CPU, {found['time_to_bare']} × its time"),
        ("written per byte of input", f"{found['written_per_byte']}"),
        ("stored per byte of input, versions of the last four minutes with it", f"{found['stored_per_byte']}"),
        ("peak memory", f"{found['peak_rss_gib']} GiB; maintenance beside it {found['maintenance_peak_rss_gib']} GiB; both at one moment {found['peak_rss_together_gib']} GiB"),
        ("a tick without arrivals", f"{found['empty_tick_cpu_s']} CPU-s, of it {found['empty_tick_kernel_s']} in the kernel"),
        ("the same just after maintenance", f"{found['empty_tick_after_maintenance_cpu_s']} CPU-s, of it {found['empty_tick_after_maintenance_kernel_s']} in the kernel"),
        ("`lakehouse run` with nothing new: a process, started and ended", f"{found['start_s']} s, {found['start_cpu_s']} CPU-s"),
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
        lines += [
            "",
            "**Paced: files arrive at 26.6 MB/s, runs back to back in one process**",
            "",
            *_markdown(rows),
        ]
    if shipped is not None:
        daemon = found["shipped"]
        rows = [
            ("input", f"{daemon['files']} files, {daemon['landed_gb']} GB in {shipped.wall_s:.0f} s"),
            ("arrived → published, each file (p50 / p95 / p99)", f"{_three(daemon['published_after_s'])} s"),
            ("the slowest", f"{daemon['published_after_s']['max']} s"),
            (
                "published",
                f"{daemon['publications']} times; the sensor looks every {daemon['sensor_interval_s']} s, runs begin about {daemon['run_interval_s']} s apart",
            ),
            ("CPU of the daemon, the web server and all runs", f"{daemon['cpu_s_per_gb']} s per GB"),
        ]
        lines += ["", "**Shipped: the same by `lakehouse up`, a process per run**", "", *_markdown(rows)]
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
