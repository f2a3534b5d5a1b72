"""Where a run's time went: wall, CPU, rows, bytes and peak memory of each stage, and why the slowest were slow.

A profiled run does one thing after the other, so that what the process used meanwhile is the stage's own.
"""

from __future__ import annotations

import contextlib
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lakehouse.gold.results import GoldResult, ModelResult
from lakehouse.results import StageResult

#: Below this share of its wall time on a processor, a stage has mostly waited.
_WAITED = 0.5
#: Rows written for one that changed, above which rewriting is what costs.
_REWRITES = 3.0


@dataclass(frozen=True)
class Measured:
    """One stage of one table. Seconds; bytes; ``rows_in`` came into the stage, ``rows_out`` it wrote.

    ``cpu_s`` is None for gold models, which DuckDB computes side by side; ``gold`` as a whole has it.
    """

    stage: str
    table: str
    wall_s: float
    cpu_s: float | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    peak_rss_bytes: int | None = None
    why: str = ""


@dataclass
class Profile:
    """What was measured so far, in the order of the run."""

    measured: list[Measured] = field(default_factory=list)

    @contextmanager
    def measure(self, stage: str, table: str = "") -> Iterator[None]:
        """Time, CPU and peak memory of the block; what failed is measured, too."""
        _forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.measured.append(
                Measured(
                    stage,
                    table,
                    time.perf_counter() - wall,
                    time.process_time() - cpu,
                    peak_rss_bytes=peak_rss_bytes(),
                )
            )

    def add_stage(self, result: StageResult, *, transform: str | None) -> None:
        """Complete the last measurement with what the stage says of itself."""
        last = replace(
            self.measured[-1],
            rows_in=result.rows_in, rows_out=result.rows_written,
            bytes_in=result.bytes_in, bytes_out=result.bytes_written,
        )  # fmt: skip
        self.measured[-1] = replace(last, why=_why_stage(last, result, transform))

    def explain(self, why: str) -> None:
        """Say of the last measurement why it took its time."""
        self.measured[-1] = replace(self.measured[-1], why=why)

    def add_gold(self, result: GoldResult) -> None:
        """Complete the last measurement, and add a line for each model that was built."""
        built = [model for model in result.models if model.status == "built" and model.version is not None]
        self.measured[-1] = replace(
            self.measured[-1],
            rows_out=sum(model.rows_written for model in built), bytes_out=sum(model.bytes for model in built),
            why=f"dbt's start, {len(built)} models and {len(result.tests)} tests",
        )  # fmt: skip
        self.measured += [
            Measured(
                "gold model", model.name, model.seconds, rows_out=model.rows_written, bytes_out=model.bytes,
                why=_why_model(model),
            )
            for model in built
        ]  # fmt: skip

    def slowest(self, count: int = 3) -> list[Measured]:
        """The stages that took longest; gold by its models and not as a whole."""
        parts = [item for item in self.measured if item.stage != "gold"]
        return sorted(parts, key=lambda item: -item.wall_s)[:count]


def _why_stage(measured: Measured, result: StageResult, transform: str | None) -> str:
    if not result.committed:
        return "nothing new: only its checks ran"
    cpu_s = measured.cpu_s or 0.0
    if measured.wall_s > 1 and cpu_s < _WAITED * measured.wall_s:
        return f"waited: {cpu_s:.1f} CPU seconds in {measured.wall_s:.1f} s (storage, or other processes)"
    rate = f"{result.rows_in / max(cpu_s, 1e-3):,.0f} rows per CPU second"
    if result.stage == "bronze":
        if result.quarantined:
            return f"{result.quarantined:,} broken lines: their files are read twice, the second time with care; {rate}"
        return f"parsing and encoding, {rate}"
    written = measured.rows_out or 0
    if result.accepted and written > _REWRITES * result.accepted:
        return (
            f"wrote {written:,} rows for {result.accepted:,} that changed: small and worn files are written again whole "
            f"(LAKEHOUSE_DELETION_VECTOR_MIN_ROWS says which are small), and of a history all versions of a changed key; {rate}"
        )
    if transform:
        return f"typing, the transform {transform.rsplit('.', 2)[-2]}, screening and merging, {rate}"
    return f"typing, screening and merging, {rate}"


def _why_model(model: ModelResult) -> str:
    if model.strategy == "overwrite" or model.rows_written >= model.rows:
        return f"computed whole, {model.rows_written:,} rows"
    return f"{model.strategy}: {model.rows_written:,} of {model.rows:,} rows"


def _forget_peak() -> None:
    """Begin a new peak where the system can (Linux); elsewhere the peak is that of the process so far."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_bytes() -> int:
    """Most memory that this process has held. Not what the C library says where the system says better: that counts the
    process that started this one, too (Linux).
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
