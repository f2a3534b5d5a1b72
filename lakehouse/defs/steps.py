"""What a bronze or silver step does: the stage, its checks, their record, and the events that tell of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from asset_checks import dagster_form
from asset_checks.base import Check, Subject, evaluate
from lakehouse import names
from lakehouse.bronze import ingest
from lakehouse.checks import CheckOutcome, record
from lakehouse.defs.events import stage_metadata, table_schema
from lakehouse.defs.runtime import Runtime, runtime_of
from lakehouse.defs.workers import note_worker
from lakehouse.pipelines import Pipeline
from lakehouse.silver import refine
from lakehouse.storage import Snapshot

_STAGES = {"bronze": ingest, "silver": refine}


def run_stage(
    context: dg.AssetExecutionContext, layer: names.Layer, pipeline: Pipeline, checks: Sequence[Check]
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one stage of one pipeline and check what it made, in one step.

    The outcomes are committed to ``ops.checks`` before Dagster hears of them: publishing reads them there.
    """
    runtime = runtime_of(context)
    note_worker(context.instance, context.run)
    source = pipeline.name
    try:
        result = _STAGES[layer](runtime.lake, runtime.settings, pipeline, run_id=context.run.run_id)
        snapshot = runtime.lake.table(layer, source).snapshot_or_none()
        if snapshot is None:
            context.log.info(f"{layer}.{source}: nothing has arrived yet")
            yield dg.MaterializeResult(
                asset_key=names.asset_key(layer, source),
                metadata={"dagster/row_count": 0, "batches": "none yet"},
                check_results=[_nothing_yet(check) for check in checks],
            )
            return
        found = evaluate(checks, _subject(runtime, pipeline, snapshot))
        record(runtime.lake, [outcome for _, outcome, _ in found], run_id=context.run.run_id)
    except Exception as error:  # noqa: BLE001  whatever it is: it is noted, so that it cannot hold up the others
        runtime.failed(context, layer, source, error)
    _settle(runtime, layer, source, [outcome for _, outcome, _ in found], context.run.run_id)
    metadata = stage_metadata(result, snapshot)
    if layer == "bronze":
        metadata["dagster/column_schema"] = table_schema(snapshot.schema())
    yield dg.MaterializeResult(
        asset_key=names.asset_key(layer, source),
        metadata=metadata,
        check_results=[dagster_form.result(outcome, finding.facts) for _, outcome, finding in found],
    )


def check_references(
    context: dg.AssetCheckExecutionContext, pipeline: Pipeline, checks: Sequence[Check]
) -> Iterator[dg.AssetCheckResult]:
    """Check one silver table against the tables that it refers to."""
    runtime = runtime_of(context)  # type: ignore[arg-type]
    snapshot = runtime.lake.table("silver", pipeline.name).snapshot_or_none()
    if snapshot is None:
        yield from (_nothing_yet(check) for check in checks)
        return
    found = evaluate(checks, _subject(runtime, pipeline, snapshot))
    record(runtime.lake, [outcome for _, outcome, _ in found], run_id=context.run.run_id)
    yield from (dagster_form.result(outcome, finding.facts) for _, outcome, finding in found)


def _subject(runtime: Runtime, pipeline: Pipeline, snapshot: Snapshot) -> Subject:
    point = runtime.point()
    published_batch = 0
    published_version = None
    if point is not None:
        published_batch = int(point.sources.get(pipeline.name, {}).get("batch_id") or 0)
        published_version = point.tables.get(names.table_path(snapshot.table.layer, pipeline.name))
    return Subject(runtime.lake, pipeline, snapshot, published_batch, published_version)


def _settle(runtime: Runtime, layer: str, source: str, outcomes: Sequence[CheckOutcome], run_id: str) -> None:
    """Remember a closed gate, or that this stage is well again."""
    closed = [outcome for outcome in outcomes if outcome.blocking and not outcome.passed]
    if closed:
        messages = [f"check {o.check} of {o.layer}.{o.table}: {o.message}" for o in closed]
        runtime.gate_failed(layer, source, messages, closed[0].recovery, run_id)
    else:
        runtime.succeeded(layer, source, run_id)


def _nothing_yet(check: Check) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=names.asset_key(check.layer, check.table),
        check_name=check.name,
        passed=True,
        description="nothing has arrived yet",
    )
