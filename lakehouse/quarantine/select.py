"""Which refused rows a person means: by rule, batch, file, stage, time, state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import polars as pl

State = Literal["open", "releasing", "released", "resolved"]
#: ``releasing``: a replay has decided to release the row and was stopped before silver had it; the next one ends it.
STATES: tuple[State, ...] = get_args(State)


def there_since() -> pl.Expr:
    """When a row was refused or, if somebody opened it again, when that was: what ``until`` is compared with."""
    reopened = pl.when(pl.col("_state") == "open").then(pl.col("_acted_at_utc"))
    return pl.max_horizontal("_quarantined_at_utc", reopened)


@dataclass(frozen=True)
class Selection:
    """Refused rows that fit every option given; without any, all of them.

    Attributes:
        rule: a name of a broken rule, exactly as ``quarantine list`` shows it.
        file: the path, its end (``2013-01.csv``), or a pattern with ``*``.
        stage: bronze (lines and files that could not be read) or silver (rows that broke the contract).
        limit: at most so many rows, the oldest first.
        until: rows that were there at this instant: neither refused nor opened again later.
    """

    rule: str | None = None
    batch: int | None = None
    file: str | None = None
    stage: str | None = None
    limit: int | None = None
    until: datetime | None = None

    def where(self) -> pl.Expr:
        """The condition on a row, without the limit."""
        wanted = pl.lit(True)
        if self.rule is not None:
            wanted = wanted & pl.col("_broken_rules").list.contains(self.rule)
        if self.batch is not None:
            wanted = wanted & (pl.col("_batch_id") == self.batch)
        if self.stage is not None:
            wanted = wanted & (pl.col("_stage") == self.stage)
        if self.file is not None:
            wanted = wanted & self._file(self.file)
        if self.until is not None:
            wanted = wanted & (there_since() <= self.until)
        return wanted

    def apply(self, rows: pl.LazyFrame, *, newest_first: bool = False) -> pl.LazyFrame:
        """The rows that fit, in the order in which they came."""
        order = ["_quarantined_at_utc", "_batch_id", "_source_file", "_source_row"]
        descending = [newest_first, newest_first, False, False]
        chosen = rows.filter(self.where()).sort(order, descending=descending, maintain_order=True)
        return chosen if self.limit is None else chosen.head(self.limit)

    @staticmethod
    def _file(wanted: str) -> pl.Expr:
        path = pl.col("_source_file")
        if "*" in wanted or "?" in wanted:
            wild = {"*": ".*", "?": "."}
            # Code points, because in Rust's expressions an escaped < or b is something else than the character.
            pattern = "".join(wild.get(c, c if c.isalnum() else f"\\x{{{ord(c):x}}}") for c in wanted)
            return path.str.contains(f"(?s)^(?:.*/)?{pattern}$")
        return (path == wanted) | path.str.ends_with("/" + wanted.lstrip("/"))
