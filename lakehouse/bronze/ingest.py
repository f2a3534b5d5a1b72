"""From planned batches to bronze rows: read, align, stage, quarantine commit, data commit."""

from __future__ import annotations

import shutil
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from lakehouse import names, quarantine
from lakehouse.bronze.align import Aligned, align
from lakehouse.connectors import Batch, Connector, Extract, connector_for
from lakehouse.errors import CommitConflict
from lakehouse.ledger import Ledger, plan
from lakehouse.pipelines import Pipeline
from lakehouse.results import StageResult
from lakehouse.settings import Settings
from lakehouse.storage import Lake, Snapshot, StagedFile, Table

STAGE: names.Layer = "bronze"


def ingest(lake: Lake, settings: Settings, pipeline: Pipeline, *, run_id: str = "") -> StageResult:
    """Plan what has arrived and land every planned batch that bronze does not have yet.

    Each batch is one commit to ``bronze.<name>`` with its transaction; refused lines are committed to
    ``quarantine.<name>`` first. A batch that another run commits meanwhile is skipped.

    Raises:
        SourceUnavailable: a file vanished or changed while it was read; the batch is redone by the next run.
        SourceError: a schema change that the source's policy forbids; nothing of the batch is committed.
    """
    plan(lake, settings, [pipeline], run_id=run_id)
    table = lake.table(STAGE, pipeline.name)
    snapshot = table.snapshot_or_none()
    version = snapshot.version if snapshot else None
    result = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    done = snapshot.txn(names.app_id(STAGE, pipeline.name)) if snapshot else 0
    for batch in Ledger(lake).batches(pipeline.name, above=done):
        result = result.plus(_land(lake, settings, pipeline, table, batch, run_id))
    return result


def _land(
    lake: Lake, settings: Settings, pipeline: Pipeline, table: Table, batch: Batch, run_id: str
) -> StageResult:
    started = time.monotonic()
    snapshot = table.snapshot_or_none()
    app = names.app_id(STAGE, pipeline.name)
    version = snapshot.version if snapshot else None
    nothing = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    if snapshot is not None and snapshot.txn(app) >= batch.batch_id:
        return nothing
    connector = connector_for(pipeline.spec.source, settings)
    spool = Path(settings.state_dir, "spool", uuid.uuid4().hex)
    try:
        connector.verify(batch)
        extract, aligned, staged = _stage(connector, pipeline, batch, table, snapshot, spool)
        connector.verify(batch)
        refused = extract.rejects.height
        if refused:
            quarantine.append(
                lake, pipeline.name, extract.rejects.lazy(),
                stage=STAGE, batch_id=batch.batch_id, contract_hash=None, run_id=run_id,
            )  # fmt: skip
        landed = sum(file.num_records for file in staged)
        result = StageResult(
            STAGE, pipeline.name, pipeline.name, nothing.version_before, None,
            batches=(batch.batch_id,), rows_in=landed + refused, accepted=landed, quarantined=refused,
            rescued=_count_rescued(table, aligned, staged), bytes_in=batch.size_bytes,
            bytes_written=sum(file.size_bytes for file in staged), seconds=time.monotonic() - started,
            watermark_utc=batch.newest_arrival_utc, broken_rules=_rule_counts(extract.rejects),
            schema_changes=aligned.changes, run_id=run_id,
        )  # fmt: skip
        result.check_conservation()
        committed = _commit(table, snapshot, aligned, staged, {app: batch.batch_id}, result, pipeline)
    except CommitConflict:
        newest = table.snapshot_or_none()
        if newest is not None and newest.txn(app) >= batch.batch_id:
            return nothing  # another run landed this batch; its rows are there once
        raise
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    return StageResult(**{**vars(result), "version": committed})


def _stage(
    connector: Connector,
    pipeline: Pipeline,
    batch: Batch,
    table: Table,
    snapshot: Snapshot | None,
    spool: Path,
) -> tuple[Extract, Aligned, list[StagedFile]]:
    """Read fast; read again carefully when the reader refuses something or short lines may hide."""
    try:
        extract = connector.read(batch, spool)
        aligned, staged = _write(pipeline, batch, table, snapshot, extract)
        doubtful = extract.doubtful_column
        if doubtful is None or not staged:
            return extract, aligned, staged
        column = pl.scan_parquet(
            [f"{table.uri}/{file.path}" for file in staged], storage_options=table.options or None
        )
        if not column.select((pl.col(doubtful) == "").any()).collect(engine="streaming").item():
            return extract, aligned, staged
        again = connector.read(batch, spool, careful=True)
        if again.rejects.height == extract.rejects.height:
            return extract, aligned, staged  # the empty values are the source's own
    except (pl.exceptions.PolarsError, OSError, UnicodeError):
        again = connector.read(batch, spool, careful=True)
    return again, *_write(pipeline, batch, table, snapshot, again)


def _write(
    pipeline: Pipeline, batch: Batch, table: Table, snapshot: Snapshot | None, extract: Extract
) -> tuple[Aligned, list[StagedFile]]:
    schema = snapshot.schema() if snapshot else None
    label = f"bronze.{pipeline.name} batch {batch.batch_id}"
    frame = extract.frame.with_columns(
        pl.lit(batch.batch_id, pl.Int64).alias(names.BATCH_ID),
        pl.lit(datetime.now(UTC)).dt.cast_time_unit("us").alias(names.INGESTED_AT),
    )
    aligned = align(frame, schema, pipeline.spec.source.new_columns, label)
    order = [*(schema or {}), *aligned.added]
    if not order:
        incoming = aligned.frame.collect_schema().names()
        tail = [*names.LINEAGE, names.RESCUED]
        order = [name for name in incoming if name not in tail] + tail
    return aligned, table.stage(aligned.frame.select(order))


def _commit(
    table: Table,
    snapshot: Snapshot | None,
    aligned: Aligned,
    staged: list[StagedFile],
    txns: dict[str, int],
    result: StageResult,
    pipeline: Pipeline,
) -> int:
    """Adopt the staged files through the handle that was read before they were written."""
    metadata = result.metadata()
    if snapshot is None:
        order = [*aligned.frame.collect_schema().names()]
        tail = [*names.LINEAGE, names.RESCUED]
        schema = aligned.frame.collect_schema()
        columns = {name: schema[name] for name in [*(n for n in order if n not in tail), *tail]}
        return table.create(
            columns, add=staged, txns=txns, metadata=metadata,
            description=f"{pipeline.spec.description} As it came from the source.",
        ).version  # fmt: skip
    handle = snapshot.add_columns(aligned.added) if aligned.added else snapshot
    if handle is not snapshot and handle.txn(next(iter(txns))) >= next(iter(txns.values())):
        raise CommitConflict(f"{table.label}: another run committed the batch while columns were added")
    return handle.commit(add=staged, txns=txns, metadata=metadata)


def _count_rescued(table: Table, aligned: Aligned, staged: list[StagedFile]) -> int:
    if not aligned.changes or not staged:
        return 0
    frame = pl.scan_parquet(
        [f"{table.uri}/{file.path}" for file in staged], storage_options=table.options or None
    )
    return int(frame.select(pl.col(names.RESCUED).is_not_null().sum()).collect(engine="streaming").item())


def _rule_counts(rejects: pl.DataFrame) -> dict[str, int]:
    if rejects.is_empty():
        return {}
    counts = rejects.explode("_broken_rules").group_by("_broken_rules").len().sort("len", descending=True)
    return {str(rule): int(count) for rule, count in counts.iter_rows()}
