"""What every connector speaks: source files, batches, extracts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import polars as pl

#: Columns of a frame of refused input: one row per line, object or file that could not be read.
REJECT_SCHEMA: dict[str, pl.DataType] = {
    "_source_file": pl.String(),
    "_source_row": pl.Int64(),
    "_source_position": pl.String(),
    "_broken_rules": pl.List(pl.String()),
    "_raw": pl.String(),
}


@dataclass(frozen=True)
class SourceFile:
    """One version of one file. ``fingerprint`` changes when the content may have changed."""

    path: str
    size_bytes: int
    modified_at_utc: datetime
    fingerprint: str
    content_hash: str | None = None


@dataclass(frozen=True)
class Batch:
    """What one plan of one source takes: exact inputs, numbered 1, 2, 3 … per source."""

    source: str
    batch_id: int
    files: tuple[SourceFile, ...]
    planned_at_utc: datetime

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def oldest_arrival_utc(self) -> datetime:
        return min((file.modified_at_utc for file in self.files), default=self.planned_at_utc)

    @property
    def newest_arrival_utc(self) -> datetime:
        return max((file.modified_at_utc for file in self.files), default=self.planned_at_utc)


@dataclass(frozen=True)
class Extract:
    """What a batch's files hold: rows that could be read, and input that could not.

    ``frame`` has the source's columns plus ``_source_file`` and ``_source_row`` (1-based position of the
    record in its file). ``doubtful_column`` names a column whose empty values may hide lines that are too
    short: rows with an empty value there must be read again, carefully.
    """

    frame: pl.LazyFrame
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECT_SCHEMA))
    doubtful_column: str | None = None


class Connector(Protocol):
    """A source that can be listed and read again with the same result."""

    def list(self) -> list[SourceFile]:
        """Everything that is there now, in arrival order. Raises ``SourceUnavailable`` when it cannot be told."""
        ...

    def content_hash(self, file: SourceFile) -> str | None:
        """Hash of the content, or None where the store cannot give one cheaply."""
        ...

    def read(self, batch: Batch, spool: Path, *, careful: bool = False) -> Extract:
        """The batch's rows. ``careful`` reads file by file and keeps every broken line as a reject."""
        ...

    def verify(self, batch: Batch) -> None:
        """Raise ``SourceUnavailable`` when a file of the batch is not what was planned."""
        ...
