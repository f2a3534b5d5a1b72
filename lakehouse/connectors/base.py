"""What every connector speaks: source files, batches, extracts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
class Care:
    """How each file is to be read: fast, or with care (line by line), or not at all because nothing reads it.

    Files that are not named are read fast. ``refused`` says why, by path.
    """

    careful: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)

    def worsened(self, trouble: Mapping[str, str]) -> Care:
        """The next level for every file of ``trouble`` (path → what went wrong)."""
        hopeless = {path: why for path, why in trouble.items() if path in self.careful}
        return Care(self.careful | set(trouble), {**self.refused, **hopeless})


#: Every file fast: what a first read takes.
FAST = Care()


@dataclass(frozen=True)
class Doubt:
    """A file whose short lines a fast read may have padded: they would show as empty values of ``column``.

    ``is_short`` tells exactly, from the number of records that were read.
    """

    path: str
    column: str
    is_short: Callable[[int], bool]


@dataclass(frozen=True)
class KeptFile:
    """A source file whose bytes are to be copied into the quarantine, under their hash."""

    path: Path
    content_hash: str

    @property
    def lake_path(self) -> str:
        """Where the copy lies, below the lake's root."""
        return f"quarantine/_files/{self.content_hash}"


@dataclass(frozen=True)
class Extract:
    """What a batch's files hold: rows that could be read, and input that could not.

    ``frame`` has the source's columns plus ``_source_file`` and ``_source_row`` (1-based position of the
    record in its file, broken records counted).
    """

    frame: pl.LazyFrame
    rejects: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=REJECT_SCHEMA))
    doubts: tuple[Doubt, ...] = ()
    kept: tuple[KeptFile, ...] = ()


class Connector(Protocol):
    """A source that can be listed and read again with the same result."""

    def list(self) -> list[SourceFile]:
        """Everything that is there now, in arrival order. Raises ``SourceUnavailable`` when it cannot be told."""
        ...

    def content_hash(self, file: SourceFile) -> str | None:
        """Hash of the content, or None where the store cannot give one cheaply."""
        ...

    def earlier_hash(self, file: SourceFile) -> str | None:
        """What a ledger has for the same content that was hashed another way than today; None where there never was another."""
        ...

    def has_records(self, file: SourceFile) -> bool:
        """False for an empty file or a bare header: such files are alike without being the same."""
        ...

    def read(self, batch: Batch, spool: Path, care: Care = FAST) -> Extract:
        """The batch's rows. Whatever a frame raises later, `bronze` finds the file at fault and reads on."""
        ...

    def lost(self, batch: Batch) -> dict[str, str]:
        """Files that are not what was planned any more: path → what happened to them."""
        ...
