"""Recounting the lake from its tables and its sources, independent of what the stages wrote down.

The stages assert their sums when they commit. This asks again, of the data itself: is every record of every
source file in bronze or in quarantine once; is every bronze row in silver, refused, or a repetition; do the
figures in the ledger agree.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl

from lakehouse import names, scratch
from lakehouse.connectors import Care, connector_for
from lakehouse.errors import LakehouseError, TableNotFound
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline
from lakehouse.quarantine import Book
from lakehouse.settings import Settings
from lakehouse.silver.prepare import prepare
from lakehouse.storage import Lake, Snapshot

_WHERE = (names.BATCH_ID, names.SOURCE_FILE, names.SOURCE_ROW)


@dataclass(frozen=True)
class Count:
    """One comparison. ``expected`` and ``found`` are rows; ``ok`` false is a difference that a person must see."""

    pipeline: str
    what: str
    expected: int
    found: int
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.expected == self.found


def reconcile(
    lake: Lake, settings: Settings, pipelines: Mapping[str, Pipeline], *, sources: bool = True
) -> Iterator[Count]:
    """Every comparison of every pipeline, one by one. Reads only.

    Args:
        sources: also read the source files again, where they still are as they were taken.
    """
    ledger = Ledger(lake)
    for name, pipeline in pipelines.items():
        bronze = lake.table("bronze", name).snapshot_or_none()
        if bronze is None:
            continue
        refused = _refused(lake, name)
        yield from _batches(ledger, lake, bronze, refused, name)
        yield _doubled(bronze, name)
        if sources:
            yield from _sources(settings, ledger, bronze, refused, pipeline)
        silver = lake.table("silver", name).snapshot_or_none()
        if silver is not None:
            yield from _silver(bronze, silver, refused, pipeline)


def _refused(lake: Lake, name: str) -> pl.LazyFrame:
    """Stage, batch, file and row of everything that is in quarantine, with what became of it (``_state``)."""
    columns = ["_stage", *_WHERE, "_broken_rules", "_state"]
    try:
        return Book(lake, name).rows().select(columns)
    except TableNotFound:
        schema = {
            "_stage": pl.String,
            names.BATCH_ID: pl.Int64,
            names.SOURCE_FILE: pl.String,
            names.SOURCE_ROW: pl.Int64,
        }
        return pl.LazyFrame(schema={**schema, "_broken_rules": pl.List(pl.String), "_state": pl.String})


def _batches(
    ledger: Ledger, lake: Lake, bronze: Snapshot, refused: pl.LazyFrame, name: str
) -> Iterator[Count]:
    """Per batch: rows in bronze plus refused lines, against what the ledger says came in."""
    landed = bronze.txn(names.app_id("bronze", name))
    planned = [batch.batch_id for batch in ledger.batches(name)]
    yield Count(name, "batches planned without a gap", len(planned), max(planned, default=0))
    in_bronze = bronze.scan([names.BATCH_ID]).group_by(names.BATCH_ID).len("rows")
    lines = refused.filter(pl.col("_stage") == "bronze").group_by(names.BATCH_ID).len("rows")
    recount = (
        pl.concat([in_bronze, lines])
        .group_by(names.BATCH_ID)
        .agg(pl.col("rows").sum())
        .collect(engine="streaming")
    )
    found = dict(recount.iter_rows())
    strays = [batch for batch in found if batch not in planned]
    yield Count(
        name,
        "rows of batches that nobody planned",
        0,
        sum(found[batch] for batch in strays),
        f"batches {strays}" if strays else "",
    )
    yield _against_ledger(lake, name, "bronze", "rows landed or refused, per batch", found, landed)
    silver = lake.table("silver", name).snapshot_or_none()
    if silver is not None:
        read = dict(in_bronze.collect(engine="streaming").iter_rows())
        taken = silver.txn(names.app_id("silver", name))
        yield _against_ledger(
            lake, name, "silver", "bronze rows that silver accounts for, per batch", read, taken
        )


def _against_ledger(
    lake: Lake, name: str, stage: str, what: str, found: Mapping[int, int], last: int
) -> Count:
    """What the ledger says came into the stage, against ``found`` rows, for its batches up to ``last``."""
    ops = lake.table("ops", "batches").snapshot()
    written = ops.scan(["source", "stage", "batch_id", "rows_in"]).filter(source=name, stage=stage)
    recorded = dict(written.select("batch_id", "rows_in").collect().iter_rows())
    known = [batch for batch in recorded if batch <= last]
    wrong = [batch for batch in known if recorded[batch] != found.get(batch, 0)]
    expected, there = sum(recorded[b] for b in known), sum(found.get(b, 0) for b in known)
    if wrong and expected == there:  # too many in one batch, too few in another
        there = expected - sum(abs(recorded[b] - found.get(b, 0)) for b in wrong)
    return Count(name, what, expected, there, f"batches {sorted(wrong)}" if wrong else "")


def _doubled(bronze: Snapshot, name: str) -> Count:
    """No record of a file is in bronze twice within a batch."""
    rows = bronze.scan(list(_WHERE)).group_by(_WHERE).len("copies").filter(pl.col("copies") > 1)
    extra = rows.select((pl.col("copies") - 1).sum()).collect(engine="streaming").item()
    return Count(name, "records doubled in bronze", 0, int(extra or 0))


def _sources(
    settings: Settings, ledger: Ledger, bronze: Snapshot, refused: pl.LazyFrame, pipeline: Pipeline
) -> Iterator[Count]:
    """Records in the source files, read again, against bronze and quarantine, for files that are still the same."""
    connector = connector_for(pipeline.spec.source, settings)
    last = bronze.txn(names.app_id("bronze", pipeline.name))
    gone = changed = records = held = 0
    spool = scratch.new_folder(settings.state_dir)
    lines = refused.filter(pl.col("_stage") == "bronze")
    try:
        for batch in ledger.batches(pipeline.name):
            if batch.batch_id > last:
                continue
            lost = connector.lost(batch)
            same = [file for file in batch.files if file.path not in lost]
            gone += sum(what == "vanished" for what in lost.values())
            changed += sum(what == "changed" for what in lost.values())
            if not same:
                continue
            extract = connector.read(
                replace(batch, files=tuple(same)), spool, Care(frozenset(file.path for file in same))
            )
            records += (
                int(extract.frame.select(pl.len()).collect(engine="streaming").item())
                + extract.rejects.height
            )
            paths = [file.path for file in same]
            kept = pl.col(names.SOURCE_FILE).is_in(paths) & (pl.col(names.BATCH_ID) == batch.batch_id)
            uris = bronze.files_in_range(names.BATCH_ID, batch.batch_id, batch.batch_id)
            for frame in (bronze.scan([names.BATCH_ID, names.SOURCE_FILE], uris=uris), lines):
                held += int(frame.filter(kept).select(pl.len()).collect(engine="streaming").item())
            shutil.rmtree(spool, ignore_errors=True)
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    absent = "; ".join(
        f"{n} files {what}" for n, what in ((gone, "not there any more"), (changed, "changed since")) if n
    )
    yield Count(pipeline.name, "records in the source files, read again", records, held, absent)


def _silver(bronze: Snapshot, silver: Snapshot, refused: pl.LazyFrame, pipeline: Pipeline) -> Iterator[Count]:
    """Keys of the bronze rows that were not refused, against the keys in silver, both ways."""
    name, key = pipeline.name, list(pipeline.contract.key)
    done = silver.txn(names.app_id("silver", name))
    rows = bronze.scan().filter(pl.col(names.BATCH_ID) <= done)
    silver_refused = refused.filter(pl.col("_stage") == "silver")
    barred = silver_refused.filter(pl.col("_state") != "released").select(_WHERE)
    total = int(rows.select(pl.len()).collect(engine="streaming").item())
    if not key:
        kept = int(
            rows.join(barred, on=_WHERE, how="anti").select(pl.len()).collect(engine="streaming").item()
        )
        yield Count(name, "bronze rows in silver or refused", total, silver.num_rows() + total - kept)
        return
    try:
        prepared = prepare(rows, pipeline).select(*key, *_WHERE)
    except LakehouseError as error:
        yield Count(name, "bronze rows in silver or refused", total, 0, error.message)
        return
    accepted = prepared.join(barred, on=_WHERE, how="anti").select(key).unique()
    released = prepared.join(barred, on=_WHERE, how="semi").select(key).unique()
    have = silver.scan(key).unique()
    expected = accepted.collect(engine="streaming")
    present = have.collect(engine="streaming")
    lost = expected.join(present, on=key, how="anti")
    # A refused row's key may be in silver: it came again, sound, or a replay has merged more than it wrote down.
    strange = present.join(expected, on=key, how="anti").join(
        released.collect(engine="streaming"), on=key, how="anti"
    )
    yield Count(name, "keys of accepted bronze rows missing in silver", 0, lost.height, _example(lost))
    yield Count(name, "keys in silver that no bronze row has", 0, strange.height, _example(strange))
    current = (
        silver.scan().filter(pl.col(names.IS_CURRENT))
        if names.IS_CURRENT in silver.schema()
        else silver.scan()
    )
    copies = current.select(key).group_by(key).len("copies").filter(pl.col("copies") > 1)
    yield Count(name, "keys doubled in silver", 0, copies.collect(engine="streaming").height)


def _example(rows: pl.DataFrame) -> str:
    return f"for example {rows.head(1).to_dicts()[0]}" if rows.height else ""
