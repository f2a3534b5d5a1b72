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
from lakehouse.storage.folded import Folded


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

    @property
    def _nothing(self) -> pl.DataFrame:
        return pl.DataFrame(schema=dict(self.schema))

    def read(self, *predicates: pl.Expr, columns: Sequence[str] | None = None) -> Page:
        """All rows that satisfy ``predicates``, in no particular order. A missing table is an empty page."""
        chosen = list(self.schema) if columns is None else list(columns)
        snapshot = self.lake.table("ops", self.name).snapshot_or_none()
        if snapshot is None:
            return Page(self._nothing.select(chosen), None)
        frame = self._scan(snapshot)
        if predicates:
            frame = frame.filter(*predicates)
        return Page(frame.select(chosen).collect(engine="streaming"), snapshot)

    def read_newest(self, newest: Folded[pl.DataFrame]) -> Page:
        """The newest row of each kind, as ``newest`` (made by ``newest_by``) finds and keeps them."""
        snapshot = self.lake.table("ops", self.name).snapshot_or_none()
        if snapshot is None:
            return Page(self._nothing, None)
        rows = pl.concat([self._nothing, newest.at(snapshot)], how="diagonal").select(list(self.schema))
        return Page(rows, snapshot)

    def read_newest_before(self, key: str, order: str, end: datetime) -> pl.DataFrame:
        """Of the rows whose ``order`` is before ``end``, those with the greatest for each ``key``: more than one where it is tied."""
        snapshot = self.lake.table("ops", self.name).snapshot_or_none()
        if snapshot is None:
            return self._nothing
        return _with_greatest(self._scan(snapshot).filter(pl.col(order) < end), key, order)

    def _scan(self, snapshot: Snapshot) -> pl.LazyFrame:
        present = set(snapshot.schema())
        missing = [
            pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in self.schema.items()
            if name not in present
        ]
        return snapshot.scan().with_columns(missing).select(list(self.schema))

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
        return Page(self._nothing, snapshot)

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


def newest_by(key: str, order: Sequence[str]) -> Folded[pl.DataFrame]:
    """The newest row of each ``key``, by ``order``. One for a process: a busy journal has millions, and is asked twice a minute."""

    def fold(known: pl.DataFrame, snapshot: Snapshot, uris: Sequence[str]) -> pl.DataFrame:
        found = _with_greatest(snapshot.scan(uris=uris), key, order[0])
        rows = pl.concat([known, found], how="diagonal") if known.width else found
        return rows.sort(order, maintain_order=True).group_by(key, maintain_order=True).last()

    return Folded(pl.DataFrame(), fold)


def _with_greatest(rows: pl.LazyFrame, key: str, order: str) -> pl.DataFrame:
    """The rows with the greatest ``order`` of each ``key``, in two passes: the first reads these columns alone."""
    greatest = rows.group_by(key).agg(pl.col(order).max()).collect(engine="streaming")
    return rows.join(greatest.lazy(), on=[key, order], how="semi").collect(engine="streaming")
