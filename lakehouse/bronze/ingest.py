"""From planned batches to bronze rows: read, align, stage, quarantine commit, data commit."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from lakehouse import events, names, quarantine, scratch
from lakehouse.bronze.align import Aligned, align
from lakehouse.bronze.compare import describe
from lakehouse.bronze.reading import read_and_write
from lakehouse.connectors import Batch, Connector, Extract, connector_for
from lakehouse.errors import CommitConflict, SourceUnavailable
from lakehouse.ledger import Ledger
from lakehouse.ledger_rows import RETURNED
from lakehouse.pipelines import Pipeline
from lakehouse.planning import plan, take_back
from lakehouse.results import StageResult
from lakehouse.settings import Settings
from lakehouse.storage import Lake, Snapshot, StagedFile, Table, engine_translated

STAGE: names.Layer = "bronze"


def ingest(lake: Lake, settings: Settings, pipeline: Pipeline, *, run_id: str = "") -> StageResult:
    """Plan what has arrived and land every planned batch that bronze does not have yet.

    Each batch is one commit to ``bronze.<name>`` with its transaction; refused lines are committed to
    ``quarantine.<name>`` first. A batch that another run commits meanwhile is skipped. A planned file that is
    not what was planned any more is given back to the ledger, and what has become of it is planned anew.

    Raises:
        SourceUnavailable: a file vanished or changed while it was read; the next run plans it anew.
        SourceError: a schema change that the source's policy forbids; nothing of the batch is committed.
    """
    take_back(lake, pipeline.name)  # what a run that died had given back
    table = lake.table(STAGE, pipeline.name)
    snapshot = table.snapshot_or_none()
    version = snapshot.version if snapshot else None
    result = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    # What was planned before comes first: a file that is not what was planned is then known to be given back,
    # and is planned anew instead of being taken for a new version of something that has landed.
    result = _land_planned(lake, settings, pipeline, table, result, run_id)
    for _ in range(_PLANS):
        if not plan(lake, settings, [pipeline], run_id=run_id, describe=describe):
            break
        result = _land_planned(lake, settings, pipeline, table, result, run_id)
    return result


#: One plan is the rule; a second takes up files that changed between the first and their reading.
_PLANS = 2
#: How often a batch is redone after conflicts with other writers of its table.
_ATTEMPTS = 5


def _land_planned(
    lake: Lake, settings: Settings, pipeline: Pipeline, table: Table, result: StageResult, run_id: str
) -> StageResult:
    snapshot = table.snapshot_or_none()
    done = snapshot.txn(names.app_id(STAGE, pipeline.name)) if snapshot else 0
    for batch in Ledger(lake).batches(pipeline.name, above=done):
        for attempt in range(_ATTEMPTS):
            try:
                with engine_translated(f"bronze.{pipeline.name} batch {batch.batch_id}"):
                    landed = _land(lake, settings, pipeline, table, batch, run_id)
                break
            except CommitConflict:
                # Somebody else changed the table, not this batch (or this run did, and the answer was lost).
                if attempt == _ATTEMPTS - 1:
                    raise
        result = result.plus(landed)
    return result


def _land(
    lake: Lake, settings: Settings, pipeline: Pipeline, table: Table, planned: Batch, run_id: str
) -> StageResult:
    started = time.monotonic()
    snapshot = table.snapshot_or_none()
    app = names.app_id(STAGE, pipeline.name)
    version = snapshot.version if snapshot else None
    nothing = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    if snapshot is not None and snapshot.txn(app) >= planned.batch_id:
        return nothing
    connector = connector_for(pipeline.spec.source, settings)
    spool = scratch.new_folder(settings.state_dir)
    lost = connector.lost(planned)
    batch = replace(planned, files=tuple(file for file in planned.files if file.path not in lost))
    try:
        extract, aligned, staged = read_and_write(
            connector, batch, table, spool, partial(_write, pipeline, batch, table, snapshot)
        )
        _still_the_same(connector, batch)
        for kept in extract.kept:
            lake.objects.upload(kept.lake_path, kept.path)
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
            bytes_written=sum(file.size_bytes for file in staged), rows_written=landed, seconds=time.monotonic() - started,
            watermark_utc=batch.newest_arrival_utc, broken_rules=_rule_counts(extract.rejects),
            schema_changes=aligned.changes, run_id=run_id,
        )  # fmt: skip
        result.check_conservation()
        txns = {app: batch.batch_id}
        if lost:
            txns[names.app_id(RETURNED, pipeline.name)] = batch.batch_id
        metadata = result.metadata(**({RETURNED: lost} if lost else {}))
        committed = _commit(table, snapshot, aligned, staged, txns, metadata, pipeline)
    except CommitConflict:
        newest = table.snapshot_or_none()
        if newest is not None and newest.txn(app) >= batch.batch_id:
            return nothing  # another run landed this batch; its rows are there once
        raise
    finally:
        shutil.rmtree(spool, ignore_errors=True)
    if lost:
        take_back(lake, pipeline.name)
    events.record(
        lake, events.of_batch(pipeline.name, batch.batch_id, aligned.changes, lost, extract.rejects)
    )
    return replace(result, version=committed)


def _still_the_same(connector: Connector, batch: Batch) -> None:
    """Raise ``SourceUnavailable`` when a file changed while it was read: what was read of it may be torn."""
    for path, what in connector.lost(batch).items():
        raise SourceUnavailable(
            f"{path} {what} while {batch.source} batch {batch.batch_id} was read; nothing of the batch was committed",
            hint="let its writer finish (write under another name, then rename), then run again",
        )


def _write(
    pipeline: Pipeline, batch: Batch, table: Table, snapshot: Snapshot | None, extract: Extract
) -> tuple[Aligned, list[StagedFile]]:
    schema = snapshot.schema() if snapshot else None
    label = f"bronze.{pipeline.name} batch {batch.batch_id}"
    frame = extract.frame.with_columns(
        pl.lit(batch.batch_id, pl.Int64).alias(names.BATCH_ID),
        pl.lit(datetime.now(UTC)).dt.cast_time_unit("us").alias(names.INGESTED_AT),
    )
    source = pipeline.spec.source
    aligned = align(frame, schema, label, new_columns=source.new_columns, changed_types=source.changed_types)
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
    metadata: dict[str, Any],
    pipeline: Pipeline,
) -> int:
    """Adopt the staged files through the handle that was read before they were written."""
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
        [f"{table.uri}/{file.path}" for file in staged], glob=False, storage_options=table.options or None
    )
    return int(frame.select(pl.col(names.RESCUED).is_not_null().sum()).collect(engine="streaming").item())


def _rule_counts(rejects: pl.DataFrame) -> dict[str, int]:
    if rejects.is_empty():
        return {}
    counts = rejects.explode("_broken_rules").group_by("_broken_rules").len().sort("len", descending=True)
    return {str(rule): int(count) for rule, count in counts.iter_rows()}
