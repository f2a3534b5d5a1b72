"""Rows made anew from bronze against the rows that silver has: which keys come out differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline
from lakehouse.silver import merge
from lakehouse.silver.batch import file_order, merged_slices
from lakehouse.silver.prepare import LINEAGE_SCHEMA
from lakehouse.silver.scope import Period, Scope, days_column, identity
from lakehouse.silver.shape import shape, table_schema
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import existing_rows
from lakehouse.storage import Lake, Snapshot


@dataclass
class Difference:
    """``pieces`` are the new rows of the keys that differ; silver's rows of the keys in ``replaced`` go.

    Figures are keys (rows, of a table without one): added, removed, changed = present before and after with another
    content, and of these moved = out of the range or into it. ``merged`` has the counts of the rows that came in.
    """

    replaced: pl.DataFrame
    merged: merge.Merged
    pieces: list[pl.DataFrame | pl.LazyFrame] = field(default_factory=list)
    added: int = 0
    removed: int = 0
    changed: int = 0
    moved: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed)


def differences(
    lake: Lake,
    pipeline: Pipeline,
    silver: Snapshot,
    scope: Scope,
    accepted: pl.LazyFrame,
    rows: int,
    period: Period,
    spool: Spool,
) -> Difference:
    """Merge ``rows`` accepted rows from nothing in the table's write mode, and compare with what ``silver`` has.

    A key whose content comes out as it is stays as it is, lineage included: which of two equal rows a table kept
    depends on how they were batched, and says nothing about the data.
    """
    ident = identity(pipeline)
    schema = table_schema(pipeline)
    nothing = scope.keys.clear()
    found = Difference(nothing, merge.Merged(pl.DataFrame(), nothing))
    remade = [nothing]
    for part in _remade(lake, pipeline, accepted, rows, spool) if rows else ():
        new = part.rows.select(*schema)
        old = _present(silver, new.select(ident).unique(), ident, schema)
        keys = _compare(pipeline, old, new, period, found)
        remade.append(new.select(ident).unique())
        found.replaced = pl.concat([found.replaced, keys])
        output = new.join(keys, on=ident, how="semi").sort(ident)
        if output.height:
            found.pieces.append(spool.park(output) if rows > part.changes else output)
        found.merged = found.merged.plus(merge.Merged(pl.DataFrame(), nothing, part.tally))
    gone = scope.keys.join(pl.concat(remade), on=ident, how="anti")
    if gone.height:
        known = (
            silver.scan(ident).join(gone.lazy(), on=ident, how="semi").unique().collect(engine="streaming")
        )
        found.removed += known.height
        found.replaced = pl.concat([found.replaced, known])
    return found


def _remade(
    lake: Lake, pipeline: Pipeline, accepted: pl.LazyFrame, rows: int, spool: Spool
) -> Iterator[merge.Merged]:
    """The accepted rows as an empty table would take them, in pieces that fit memory."""
    order = file_order(Ledger(lake).batches(pipeline.name))
    changes = shape(accepted, pipeline, order)
    if pipeline.contract.key:
        yield from merged_slices(pipeline, None, changes, rows, order, spool)
        return
    for part in spool.slices(changes, rows, identity(pipeline)):
        yield merge.Merged(part, part.clear(), merge.Tally(accepted=merge.by_batch(part)))


def _present(
    silver: Snapshot, keys: pl.DataFrame, ident: Sequence[str], schema: dict[str, pl.DataType]
) -> pl.DataFrame:
    """Silver's rows of these keys; a column that the contract has and the table not yet is null."""
    stored = silver.schema()
    rows = existing_rows(silver, keys, ident, [name for name in schema if name in stored])
    lacking = (pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in stored)
    return merge.with_deletions_known(rows.with_columns(lacking).select(*schema))


def _compare(
    pipeline: Pipeline, old: pl.DataFrame, new: pl.DataFrame, period: Period, found: Difference
) -> pl.DataFrame:
    """Keys whose rows differ in anything but lineage; they are counted in ``found``."""
    ident, partition = identity(pipeline), days_column(pipeline)
    one_row = merge.row_identity(ident, pipeline.spec.silver.mode)
    content = [name for name in new.columns if name not in one_row and name not in LINEAGE_SCHEMA]
    before = old.select(
        *one_row, pl.lit(True).alias("__old"), *(pl.col(name).alias(f"__old_{name}") for name in content)
    )
    after = new.select(*one_row, pl.lit(True).alias("__new"), *content)
    pairs = after.join(before, on=one_row, how="full", coalesce=True)
    both = pl.col("__new").fill_null(False) & pl.col("__old").fill_null(False)
    same = pl.all_horizontal(
        pl.lit(True), *(pl.col(name).eq_missing(pl.col(f"__old_{name}")) for name in content)
    )
    dtype = new.schema[partition.column]
    held = f"__old_{partition.column}" if partition.column in content else partition.column
    was, is_ = (
        period.holds(held, dtype).fill_null(False),
        period.holds(partition.column, dtype).fill_null(False),
    )
    different = pairs.filter(~(both & same)).with_columns(__moved=both & (was != is_))
    per_key = different.group_by(ident).agg(pl.col("__moved").any())
    known = old.select(ident).unique()
    found.added += per_key.join(known, on=ident, how="anti").height
    found.changed += per_key.join(known, on=ident, how="semi").height
    found.moved += int(per_key["__moved"].sum())
    return per_key.select(ident)
