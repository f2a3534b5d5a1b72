"""Tables of any size and batches of changes to them, for `upsert` and `history`.

The table is TPC-H's orders without the comment, sorted by key in files of one size; larger ones are the same rows again
under the next keys. A batch changes nine known keys for each new one:

- hot: among the newest keys, twice as many as a batch has rows; new keys follow the last one;
- uniform: among all keys; new keys lie between the known ones;
- deep: uniform, in a history that has grown in versions: 100,000 keys, each with as many versions as make the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.harness import Contestant

WHERE = ("hot", "uniform")
DEEP = "deep"
KEY, SINCE = "o_orderkey", "updated_at_utc"
#: TPC-H uses eight of every 32 keys.
_USED, _BLOCK = 8, 32
#: Keys of a deep history.
_DEEP_KEYS = 100_000
#: One update of so many is older than what the table has of its key; upsert only.
_LATE_EVERY = 100
#: After every state of TPC-H (1992 to 1998), and before all of them.
_BATCHES_BEGIN, _LONG_AGO = (datetime(year, 1, 1, tzinfo=UTC) for year in (2024, 1990))


@dataclass(frozen=True)
class Case:
    """One table and the batches that come to it. ``batches`` are the measured ones; one more comes before them."""

    mode: str
    rows: int
    changes: int
    batches: int
    source_scale: float
    state: str
    where: str = ""
    folder: str = ""

    @property
    def keys(self) -> int:
        """Keys of the table. A history has a closed version, too, of every fourth key; a deep one many of every key."""
        if self.where == DEEP:
            return min(self.rows // 2, _DEEP_KEYS)
        return self.rows if self.mode == "upsert" else self.rows * 4 // 5

    @property
    def files(self) -> list[Path]:
        """The batches, in order."""
        return sorted(Path(self.state, self.where).glob("*.parquet"))[: self.batches + 1]

    @property
    def columns(self) -> dict[str, Any]:
        """What the results are compared by."""
        import polars as pl

        from lakehouse import names

        instant = pl.Datetime("us", "UTC")
        history = {names.VALID_FROM: instant, names.VALID_TO: instant} if self.mode == "history" else {}
        return {**contract().schema, **history}

    def contestant(self, name: str, function: str, *, absent: str | None = None, **more: Any) -> Contestant:
        return Contestant(name, function, {**asdict(self), **more}, absent=absent)


def case_of(raw: Mapping[str, Any]) -> Case:
    """The case that a contestant was given; what is its own beside it is left out."""
    return Case(**{name: raw[name] for name in Case.__dataclass_fields__})


def contract() -> Any:
    """The compiled contract of the table."""
    from benchmarks.tables import Order
    from lakehouse.contracts import compile_contract

    return compile_contract(Order)


def _key(index: Any) -> Any:
    """The key of the ``index``-th order (from 0); numbers, arrays and expressions."""
    return (index + 1) // _USED * _BLOCK + (index + 1) % _USED


def table_before(case: Case) -> Any:
    """All rows, in the order of their keys."""
    import polars as pl

    from lakehouse import names

    source = pl.scan_parquet(data.files_of(data.orders(case.source_scale)))
    copies = -(-case.keys // source.select(pl.len()).collect().item())
    instant = pl.Datetime("us", "UTC")
    index = pl.col("index").cast(pl.Int64)
    frame = (
        pl.concat([source] * copies)
        .with_row_index("index")
        .head(case.keys)
        .with_columns(
            _key(index).alias(KEY),
            (pl.col("o_orderdate").cast(instant) + pl.duration(seconds=index * 7919 % 86_400)).alias(SINCE),
            pl.lit(0).alias(names.BATCH_ID),
            pl.lit("base").alias(names.SOURCE_FILE),
            (index + 1).alias(names.SOURCE_ROW),
        )
    )
    if case.mode == "upsert":
        return frame
    begins, age = pl.col(SINCE), pl.col("age")
    oldest = case.rows // case.keys - 1 if case.where == DEEP else (index % 4 == 0).cast(pl.Int64)
    return (
        frame.with_columns(age=pl.int_ranges(oldest, -1, -1), current_since=begins)
        .explode("age")
        .with_columns((begins - pl.duration(days=30 * age)).alias(SINCE))
        .with_columns(
            # Two versions that follow each other differ, or they would be one.
            (pl.col("o_totalprice").cast(pl.Float64) + age).alias("o_totalprice"),
            begins.alias(names.VALID_FROM),
            pl.when(age > 0).then(begins + pl.duration(days=30)).alias(names.VALID_TO),
            (age == 0).alias(names.IS_CURRENT),
            pl.concat_list(begins).alias(names.OBSERVED_AT),
        )
    )


def batch_of(case: Case, where: str, number: int) -> Any:
    """The changed rows of one batch, in no order. New states come after all that there are; late ones before."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng([number, case.rows])
    new = case.changes // 10
    updates = case.changes - new
    if where == "hot":
        known = case.keys + number * new
        window = min(2 * case.changes, known)
        changed = _key(known - 1 - rng.choice(window, updates, replace=False))
        added = _key(known + np.arange(new))
    else:
        batches = case.batches + 1
        changed = _key(rng.choice(case.keys, updates, replace=False))
        # Every batch has places of its own.
        added = _key(rng.choice(case.keys // batches, new, replace=False) * batches + number) + _USED
    seconds = number * 86_400 + rng.integers(0, 86_400, case.changes)
    begins = pl.lit(_BATCHES_BEGIN) + pl.duration(seconds=pl.Series(seconds))
    if case.mode == "upsert":
        begins = (
            pl.when(pl.int_range(pl.len()) < updates // _LATE_EVERY).then(pl.lit(_LONG_AGO)).otherwise(begins)
        )
    schema = contract().schema
    return (
        pl.scan_parquet(data.files_of(data.orders(case.source_scale))[0])
        .head(case.changes)
        .collect()
        .with_columns(
            pl.Series(KEY, np.concatenate([changed, added])),
            pl.Series("o_totalprice", rng.integers(1_000, 50_000_000, case.changes) / 100),
            begins.alias(SINCE),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .sample(fraction=1.0, shuffle=True, seed=number)
    )  # fmt: skip
