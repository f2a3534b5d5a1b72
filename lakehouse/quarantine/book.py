"""The quarantine of one table at one moment: its rows, what was done about each, and what that makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from lakehouse import names
from lakehouse.errors import TableNotFound
from lakehouse.quarantine import actions
from lakehouse.quarantine.rows import IDENTITY
from lakehouse.storage import Lake, Snapshot


class Book:
    """Reads once; every figure is of the same moment.

    Raises:
        TableNotFound: nothing of the table was ever refused.
    """

    def __init__(self, lake: Lake, table: str) -> None:
        self.lake, self.table = lake, table
        try:
            self.refused = lake.table("quarantine", table).snapshot()
        except TableNotFound:
            known = ", ".join(sorted(lake.tables("quarantine"))) or "none"
            raise TableNotFound(
                f"nothing of {table!r} is in quarantine (tables with refused rows: {known})",
                hint="lakehouse quarantine list",
            ) from None
        self.actions: Snapshot | None = actions.snapshot_of(lake)
        silver = lake.table("silver", table).snapshot_or_none()
        #: Highest action whose rows silver has, and highest batch that silver has taken.
        self.merged = silver.txn(names.app_id("replay", table)) if silver else 0
        self.refined = silver.txn(names.app_id("silver", table)) if silver else 0

    @cached_property
    def latest(self) -> pl.DataFrame:
        """The newest action on each row that anybody acted on, with the row's ``_state``."""
        release = pl.col("action") == "release"
        state = (
            pl.when(release & (pl.col("action_id") <= self.merged)).then(pl.lit("released"))
            .when(release).then(pl.lit("releasing"))
            .when(pl.col("action") == "resolve").then(pl.lit("resolved"))
            .otherwise(pl.lit("open"))
        )  # fmt: skip
        return actions.latest(self.actions, self.table).with_columns(state.alias("_state"))

    def rows(self) -> pl.LazyFrame:
        """The refused rows with ``_state`` and the newest ``_action_id``, ``_note``, ``_actor``, ``_acted_at_utc``."""
        acted = self.latest.lazy().select(
            *IDENTITY, "_state",
            pl.col("action_id").alias("_action_id"), pl.col("note").alias("_note"),
            pl.col("actor").alias("_actor"), pl.col("recorded_at_utc").alias("_acted_at_utc"),
        )  # fmt: skip
        joined = self.refused.scan().join(acted, on=list(IDENTITY), how="left", nulls_equal=True)
        return joined.with_columns(pl.col("_state").fill_null("open"))

    def pending(self) -> list[int]:
        """Releases that were planned and that silver does not have yet, the oldest first."""
        ids = self.latest.filter(pl.col("_state") == "releasing")["action_id"].unique().sort()
        return [int(number) for number in ids]

    def planned(self, action_id: int) -> pl.DataFrame:
        """Identity of the rows of one pending release."""
        of_action = (pl.col("action_id") == action_id) & (pl.col("_state") == "releasing")
        return self.latest.filter(of_action).select(IDENTITY)

    def counts(self) -> Counts:
        """Rows by state."""
        total = self.refused.num_rows()
        if self.latest.is_empty():
            return Counts(total, total, 0, 0, 0)
        found = dict(self.rows().group_by("_state").len().collect(engine="streaming").iter_rows())
        return Counts(
            sum(found.values()),
            *(int(found.get(state, 0)) for state in ("open", "releasing", "released", "resolved")),
        )


@dataclass(frozen=True)
class Counts:
    """Refused rows of one table, each in exactly one state."""

    refused: int
    open: int
    releasing: int
    released: int
    resolved: int

    @property
    def waiting(self) -> int:
        """Rows that are not in silver and that nobody has dealt with."""
        return self.open + self.releasing


def state_counts(lake: Lake) -> dict[str, Counts]:
    """Refused rows by state, per table. A table that nobody acted on costs a look at its log, no data."""
    return {table: Book(lake, table).counts() for table in sorted(lake.tables("quarantine"))}


def open_counts(lake: Lake) -> dict[str, int]:
    """Refused rows per table that wait for somebody: neither released nor resolved."""
    return {table: counts.waiting for table, counts in state_counts(lake).items()}
