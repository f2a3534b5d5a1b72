"""What a stage did: one value for the commit's metadata, the ledger, the checks, the CLI and the UI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from lakehouse import __version__
from lakehouse.errors import ConservationError


@dataclass(frozen=True)
class BatchCounts:
    """What became of the rows of one batch; each row is counted under exactly one heading."""

    batch_id: int
    rows_in: int = 0
    accepted: int = 0
    deduplicated: int = 0
    superseded: int = 0
    late: int = 0
    quarantined: int = 0
    bytes_in: int = 0


@dataclass(frozen=True)
class StageResult:
    """The figures of one stage over the batches that it committed, rows unless the name says otherwise.

    ``rows_in = accepted + deduplicated + superseded + late + quarantined`` holds for every result, and for each
    of its batches in ``per_batch`` (empty for a commit of one batch, whose counts are the result's own).
    ``rows_written`` includes those that did not change, in files that were written again.
    """

    stage: str
    source: str
    table: str
    version_before: int | None
    version: int | None
    batches: tuple[int, ...] = ()
    rows_in: int = 0
    accepted: int = 0
    deduplicated: int = 0
    superseded: int = 0
    late: int = 0
    quarantined: int = 0
    rescued: int = 0
    bytes_in: int = 0
    bytes_written: int = 0
    rows_written: int = 0
    seconds: float = 0.0
    watermark_utc: datetime | None = None
    broken_rules: Mapping[str, int] = field(default_factory=dict)
    warned_rules: Mapping[str, int] = field(default_factory=dict)
    schema_changes: tuple[str, ...] = ()
    per_batch: tuple[BatchCounts, ...] = ()
    run_id: str = ""

    @property
    def committed(self) -> bool:
        return bool(self.batches)

    def check_conservation(self) -> None:
        """Raise ``ConservationError`` unless every row that came in is accounted for."""
        self._account(self, f"batches {self.batches}")
        for batch in self.per_batch:
            self._account(batch, f"batch {batch.batch_id}")
        for name in _ROWS if self.per_batch else ():
            apart, whole = sum(getattr(batch, name) for batch in self.per_batch), getattr(self, name)
            if apart != whole:
                raise ConservationError(
                    f"{self.stage}.{self.table} batches {self.batches}: {whole} {name}, but {apart} by batch; "
                    "nothing was committed"
                )

    def _account(self, counts: StageResult | BatchCounts, which: str) -> None:
        accounted = sum(getattr(counts, name) for name in _ROWS if name != "rows_in")
        if accounted != counts.rows_in:
            parts = ", ".join(f"{name} {getattr(counts, name)}" for name in _ROWS if name != "rows_in")
            raise ConservationError(
                f"{self.stage}.{self.table} {which}: {counts.rows_in} rows in, {accounted} accounted for "
                f"({parts}); nothing was committed",
                hint="a transform must keep every row; see docs/pipelines.md",
            )

    def metadata(self, **extra: Any) -> dict[str, Any]:
        """The JSON document that the data commit carries."""
        document = asdict(self)
        document["batches"] = list(self.batches)
        document["watermark_utc"] = self.watermark_utc.isoformat() if self.watermark_utc else None
        document["code_version"] = __version__
        for name in ("version", "version_before"):
            document.pop(name)
        return {**document, **extra}

    def plus(self, other: StageResult) -> StageResult:
        """Both results as one, for a stage that committed several batches in turn."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return replace(
            self,
            version=other.version,
            batches=self.batches + other.batches,
            schema_changes=self.schema_changes + other.schema_changes,
            per_batch=self._by_batch() + other._by_batch(),
            seconds=self.seconds + other.seconds,
            watermark_utc=max(filter(None, (self.watermark_utc, other.watermark_utc)), default=None),
            broken_rules=_summed(self.broken_rules, other.broken_rules),
            warned_rules=_summed(self.warned_rules, other.warned_rules),
            **counts,
        )

    def _by_batch(self) -> tuple[BatchCounts, ...]:
        if self.per_batch or len(self.batches) != 1:
            return self.per_batch
        counts = {name: getattr(self, name) for name in (*_ROWS, "bytes_in")}
        return (BatchCounts(self.batches[0], **counts),)


_ROWS = ("rows_in", "accepted", "deduplicated", "superseded", "late", "quarantined")
_COUNTS = (*_ROWS, "rescued", "bytes_in", "bytes_written", "rows_written")


def _summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
