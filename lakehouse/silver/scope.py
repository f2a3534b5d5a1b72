"""What a backfill of a range concerns: the rows of silver that it makes anew, and the bronze rows it makes them from."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from lakehouse import names
from lakehouse.errors import ConservationError, DeclarationError
from lakehouse.pipelines import Pipeline
from lakehouse.pipelines.model import PartitionBy
from lakehouse.silver.judge import WHERE
from lakehouse.silver.prepare import prepare
from lakehouse.silver.spool import Spool
from lakehouse.storage import Snapshot
from lakehouse.storage.schema import delta_ready

_CONCERNED = "__concerned"


@dataclass(frozen=True)
class Period:
    """Days of a partition column, both ends included. Of instants, a day is one in UTC."""

    first: date
    last: date

    @classmethod
    def parse(cls, first: str, last: str) -> Period:
        """From ``2013-03-01`` or ``2013-03``: a month means its first day as an end on the left, its last on the right.

        Raises:
            DeclarationError: not a day or a month, or the last day comes before the first.
        """
        period = cls(_day(first, at_end=False), _day(last, at_end=True))
        if period.last < period.first:
            raise DeclarationError(
                f"the range ends on {period.last}, before it begins on {period.first}",
                hint="swap --from and --to",
            )
        return period

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"

    def holds(self, column: str, dtype: pl.DataType) -> pl.Expr:
        """True where the column, a date or an instant, is in the range."""
        if not isinstance(dtype, pl.Datetime):
            return pl.col(column).is_between(self.first, self.last)
        zone = UTC if dtype.time_zone else None
        begin = datetime.combine(self.first, time(), zone)
        end = datetime.combine(self.last + timedelta(days=1), time(), zone)
        return (pl.col(column) >= begin) & (pl.col(column) < end)


def _day(text: str, *, at_end: bool) -> date:
    try:
        if len(text) == len("2013-03"):
            month = date.fromisoformat(f"{text}-01")
            return month.replace(day=calendar.monthrange(month.year, month.month)[1]) if at_end else month
        return date.fromisoformat(text)
    except ValueError:
        raise DeclarationError(
            f"{text!r} is neither a day nor a month", hint="write 2013-03-01, or 2013-03 for a whole month"
        ) from None


@dataclass(frozen=True)
class Scope:
    """``rows`` are places in bronze; ``keys`` tell the silver rows to make anew, by the table's key or, without one,
    by place."""

    rows: pl.DataFrame
    keys: pl.DataFrame


def days_column(pipeline: Pipeline) -> PartitionBy:
    """The column that says which day a row is of. Raises ``DeclarationError`` when none is declared."""
    if (partition := pipeline.spec.silver.partition_by) is not None:
        return partition
    raise DeclarationError(
        f"{pipeline.name} does not say which column its days are in",
        file=pipeline.file, field="silver.partition_by",
        hint="add partition_by: {column: …, grain: day} below silver; docs/pipelines.md",
    )  # fmt: skip


def identity(pipeline: Pipeline) -> list[str]:
    """The columns that tell what belongs together: the key, or the row's place in bronze where there is none."""
    return list(pipeline.contract.key) or WHERE


def find_scope(
    pipeline: Pipeline, silver: Snapshot, bronze: pl.LazyFrame, rows: int, period: Period, spool: Spool
) -> Scope:
    """Which keys and bronze rows a backfill of ``period`` concerns.

    The keys: those that silver has in the range, and those that bronze rows have there under today's transform.
    A row whose key or day has changed since belongs to both of its keys: the keys that these bronze rows have
    today, and those of the silver rows that came from them, are added, and so on until none is new. So no row
    falls between two partitions, and none stays in both. Rows that have no day today belong to every range,
    because they would belong to none otherwise.

    Args:
        bronze: the bronze rows of the batches that silver has taken, ``rows`` at most.

    Raises:
        ConservationError: silver has rows in the range that bronze does not have any more.
    """
    column, ident = days_column(pipeline).column, identity(pipeline)
    holds = period.holds(column, pipeline.contract.schema[column])
    prepared = prepare(bronze, pipeline).select(
        *dict.fromkeys([*ident, *WHERE]), (holds | pl.col(column).is_null()).alias(_CONCERNED)
    )
    prepared = delta_ready(prepared)  # as silver has them, to be joined with it
    index = spool.materialize(prepared, rows)
    concerned = index.filter(_CONCERNED)
    present = silver.scan()
    there = present.filter(holds if column in silver.schema() else pl.lit(False))
    keys = frontier = _distinct(pl.concat([there.select(ident), concerned.select(ident)]), ident)
    places = fresh = concerned.select(WHERE).collect(engine="streaming")
    while frontier.height or fresh.height:
        behind = present.join(frontier.lazy(), on=ident, how="semi").select(WHERE).collect(engine="streaming")
        _refuse_orphans(pipeline, index, behind, period)
        same_key = index.join(frontier.lazy(), on=ident, how="semi").select(WHERE).collect(engine="streaming")
        found = pl.concat([behind, same_key]).unique().join(places, on=WHERE, how="anti")
        places, fresh = pl.concat([places, found]), pl.concat([fresh, found])
        became = index.join(fresh.lazy(), on=WHERE, how="semi").select(ident)
        was = present.join(fresh.lazy(), on=WHERE, how="semi").select(ident)
        frontier = _distinct(pl.concat([became, was]), ident).join(keys, on=ident, how="anti")
        keys, fresh = pl.concat([keys, frontier]), fresh.clear()
    return Scope(places, keys)


def _distinct(frame: pl.LazyFrame, columns: list[str]) -> pl.DataFrame:
    """Distinct values of ``columns``; a row without a whole key cannot be in silver."""
    return frame.select(columns).drop_nulls().unique().collect(engine="streaming")


def _refuse_orphans(pipeline: Pipeline, index: pl.LazyFrame, behind: pl.DataFrame, period: Period) -> None:
    lost = behind.lazy().join(index, on=WHERE, how="anti").collect(engine="streaming")
    if lost.height:
        first = lost.row(0, named=True)
        raise ConservationError(
            f"silver.{pipeline.name}, {period}: {lost.height} rows cannot be made again, because bronze does not have "
            f"what they came from (for example {first[names.SOURCE_FILE]} row {first[names.SOURCE_ROW]} of batch "
            f"{first[names.BATCH_ID]}); nothing was changed",
            hint=f"lakehouse reconcile --select {pipeline.name}",
        )
