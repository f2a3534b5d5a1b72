"""Append-only Delta tables of operational facts: rows are never changed, the newest fact wins.

State of alerts, incidents and freshness lives here, beside the data, so that losing the orchestrator's own
database repeats nothing and forgets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.storage import Lake, Snapshot


@dataclass(frozen=True)
class Page:
    """The rows of one version of a journal, and the turn that the next writer has to take."""

    rows: pl.DataFrame
    snapshot: Snapshot | None

    def later_than_all(self, now_utc: datetime) -> datetime:
        """``now_utc``, or just behind the newest row: the newest one holds, also where a clock was set back."""
        newest = self.rows["at_utc"].max()
        return max(now_utc, newest + timedelta(microseconds=1)) if isinstance(newest, datetime) else now_utc


@dataclass(frozen=True)
class Journal:
    """One append-only table below ``ops/``. Holds no state; every read opens the newest version."""

    lake: Lake
    name: str
    schema: Mapping[str, pl.DataType]
    description: str

    @property
    def _turn(self) -> str:
        return names.app_id("ops", self.name)

    def read(self, *predicates: pl.Expr) -> Page:
        """All rows that satisfy ``predicates``, in no particular order. A missing table is an empty page."""
        snapshot = self.lake.table("ops", self.name).snapshot_or_none()
        if snapshot is None:
            return Page(pl.DataFrame(schema=dict(self.schema)), None)
        frame = snapshot.scan()
        present = set(snapshot.schema())
        missing = [
            pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in self.schema.items()
            if name not in present
        ]
        frame = frame.with_columns(missing).select(list(self.schema))
        if predicates:
            frame = frame.filter(*predicates)
        return Page(frame.collect(), snapshot)

    def append(self, rows: Sequence[Mapping[str, Any]], *, after: Page) -> Page:
        """Commit ``rows``, unless somebody has written since ``after`` was read.

        Returns the page to write after next, without rows.

        Raises:
            CommitConflict: another writer was faster; read again and decide again.
        """
        if not rows:
            return after
        table = self.lake.table("ops", self.name)
        frame = pl.DataFrame(list(rows), schema=dict(self.schema), orient="row")
        if after.snapshot is None:
            staged = table.stage(frame.lazy())
            snapshot = table.create(
                self.schema,
                add=staged,
                txns={self._turn: 1},
                metadata={"stage": "ops"},
                description=self.description,
            )
        else:
            snapshot = after.snapshot
            turn = snapshot.txn(self._turn) + 1
            snapshot.commit(
                add=snapshot.stage(frame.lazy()), txns={self._turn: turn}, metadata={"stage": "ops"}
            )
        return Page(pl.DataFrame(schema=dict(self.schema)), snapshot)

    def append_always(self, rows: Sequence[Mapping[str, Any]], *, tries: int = 20) -> None:
        """Commit ``rows`` whatever else is written meanwhile. For facts that depend on no earlier row.

        Raises:
            CommitConflict: every one of ``tries`` attempts met another writer.
        """
        for attempt in range(1, tries + 1):
            try:
                self.append(rows, after=self.read(pl.lit(False)))
                return
            except CommitConflict:
                if attempt == tries:
                    raise
