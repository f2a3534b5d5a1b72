"""What a bronze or silver step does: the stage, its checks, their record, and the events that tell of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from asset_checks import dagster_form
from asset_checks.base import Check, Finding, evaluate
from asset_checks.tables import checks_of, declared_of, subject_of
from lakehouse import hold, names
from lakehouse.bronze import ingest
from lakehouse.bronze.compare import describe
from lakehouse.checks import CheckOutcome
from lakehouse.defs import order
from lakehouse.defs.ahead import Ahead
from lakehouse.defs.events import stage_metadata, table_schema
from lakehouse.defs.runtime import Runtime, runtime_of
from lakehouse.defs.workers import note_worker
from lakehouse.memory import SharedMemory
from lakehouse.pipelines import Pipeline
from lakehouse.planning import plan_ahead
from lakehouse.results import StageResult
from lakehouse.silver import refine
from lakehouse.storage import Snapshot

_LAYERS: tuple[names.Layer, ...] = ("bronze", "silver")
#: Under a name of their own: silver succeeds before its references are looked at, and would clear their failure.
_REFERENCES = "references"
_Found = list[tuple[Check, CheckOutcome, Finding]]


@dataclass(frozen=True)
class StageDone:
    """What a stage did, the version that it left, and what its checks found; no version when nothing has arrived."""

    result: StageResult
    snapshot: Snapshot | None
    found: _Found

    @property
    def gates_closed(self) -> bool:
        return any(outcome.blocking and not outcome.passed for _, outcome, _ in self.found)


def run_stage(
    context: dg.AssetExecutionContext, layer: names.Layer, pipeline: Pipeline
) -> Iterator[dg.MaterializeResult[None]]:
    """Run one stage of one pipeline and check what it made, in one step.

    Outcomes that block are committed to ``ops.checks`` before Dagster hears of them: publishing reads them there.
    """
    runtime = runtime_of(context)
    note_worker(context.instance, context.run)
    source = pipeline.name
    try:
        hold.refuse(runtime.lake)
        ahead = _ahead(context, runtime)
        done = ahead.take(layer, source)
        if done is None:
            done = stage_and_check(runtime, layer, pipeline, context.run, ahead.memory)
    except Exception as error:  # noqa: BLE001  whatever it is: it is noted, so that it cannot hold up the others
        runtime.failed(context, layer, source, error)
    if done.snapshot is None:
        context.log.info(f"{layer}.{source}: nothing has arrived yet")
        yield dg.MaterializeResult(
            asset_key=names.asset_key(layer, source),
            metadata={"dagster/row_count": 0, "batches": "none yet"},
            check_results=[_nothing_yet(check) for check in checks_of(layer, pipeline)],
        )
        return
    _settle(runtime, layer, source, [outcome for _, outcome, _ in done.found], context.run.run_id)
    if layer == "silver" and not pipeline.spec.checks.references:
        runtime.succeeded(_REFERENCES, source, context.run.run_id)  # no step is left that would say so
    metadata = stage_metadata(done.result, done.snapshot)
    if layer == "bronze":
        metadata["dagster/column_schema"] = table_schema(done.snapshot.schema())
    yield dg.MaterializeResult(
        asset_key=names.asset_key(layer, source),
        metadata=metadata,
        check_results=[dagster_form.result(outcome, finding.facts) for _, outcome, finding in done.found],
    )


def stage_and_check(
    runtime: Runtime,
    layer: names.Layer,
    pipeline: Pipeline,
    run: dg.DagsterRun,
    memory: SharedMemory | None = None,
) -> StageDone:
    """The stage itself, measured when the run is profiled. Raises whatever the stage raises.

    Args:
        memory: what stages at work beside each other share; default is all of the settings' limit.
    """
    if runtime.profile is None:
        return _stage_and_check(runtime, layer, pipeline, run, memory)
    with runtime.profile.measure(layer, pipeline.name):
        done = _stage_and_check(runtime, layer, pipeline, run, memory)
    runtime.profile.add_stage(done.result, transform=pipeline.spec.transform)
    return done


def _stage_and_check(
    runtime: Runtime,
    layer: names.Layer,
    pipeline: Pipeline,
    run: dg.DagsterRun,
    memory: SharedMemory | None,
) -> StageDone:
    lake, settings = runtime.lake, runtime.settings
    if layer == "bronze":
        result = ingest(lake, settings, pipeline, run_id=run.run_id)
    else:
        result = refine(lake, settings, pipeline, run_id=run.run_id, memory=memory)
    snapshot = runtime.lake.table(layer, pipeline.name).snapshot_or_none()
    if snapshot is None:
        return StageDone(result, None, [])
    found = evaluate(
        checks_of(layer, pipeline), subject_of(runtime.lake, pipeline, snapshot, runtime.point())
    )
    outcomes = [outcome for _, outcome, _ in found]
    if layer == "silver":
        outcomes.append(declared_of(pipeline, snapshot.version))
    # Here, and not in the step, which may come much later: another run could publish without what failed meanwhile.
    runtime.checked(outcomes, run)
    return StageDone(result, snapshot, found)


def _ahead(context: dg.AssetExecutionContext, runtime: Runtime) -> Ahead:
    """The run's workers, started by its first step: for every pipeline whose bronze and silver are both selected."""
    run_id = context.run.run_id
    if run_id not in runtime.ahead:
        chosen = context.run.asset_selection
        sources = [
            name
            for name in order.sources(runtime.pipelines, runtime.settings)
            if chosen is not None
            and all(dg.AssetKey(names.asset_key(layer, name)) in chosen for layer in _LAYERS)
        ]
        if len(sources) < 2 or runtime.profile is not None:  # nothing to do beside the step
            sources = []
        else:
            plan_ahead(
                runtime.lake, runtime.settings, [runtime.pipelines[name] for name in sources],
                run_id=run_id, describe=describe,
            )  # fmt: skip

        def act(layer: str, source: str, memory: SharedMemory) -> tuple[StageDone, bool]:
            done = stage_and_check(runtime, layer, runtime.pipelines[source], context.run, memory)  # type: ignore[arg-type]
            return done, not done.gates_closed

        runtime.ahead.clear()  # a process carries one run at a time
        runtime.ahead[run_id] = Ahead(run_id, sources, list(_LAYERS), runtime.settings, act)
    return runtime.ahead[run_id]


def check_references(
    context: dg.AssetCheckExecutionContext, pipeline: Pipeline, checks: Sequence[Check]
) -> Iterator[dg.AssetCheckResult]:
    """Check one silver table against the tables that it refers to."""
    runtime = runtime_of(context)
    try:
        snapshot = runtime.lake.table("silver", pipeline.name).snapshot_or_none()
        found = []
        if snapshot is not None:
            found = evaluate(checks, subject_of(runtime.lake, pipeline, snapshot, runtime.point()))
        runtime.checked([outcome for _, outcome, _ in found], context.run)
    except Exception as error:  # noqa: BLE001  whatever it is: it is noted, so that it cannot hold up the others
        runtime.failed(context, _REFERENCES, pipeline.name, error)
    if snapshot is None:
        yield from (_nothing_yet(check) for check in checks)
        return
    _settle(runtime, _REFERENCES, pipeline.name, [outcome for _, outcome, _ in found], context.run.run_id)
    yield from (dagster_form.result(outcome, finding.facts) for _, outcome, finding in found)


def _settle(runtime: Runtime, stage: str, source: str, outcomes: Sequence[CheckOutcome], run_id: str) -> None:
    """Remember a closed gate, or that this stage is well again."""
    closed = [outcome for outcome in outcomes if outcome.blocking and not outcome.passed]
    if closed:
        messages = [f"check {o.check} of {o.layer}.{o.table}: {o.message}" for o in closed]
        runtime.gate_failed(stage, source, messages, closed[0].recovery, run_id)
    else:
        runtime.succeeded(stage, source, run_id)


def _nothing_yet(check: Check) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=names.asset_key(check.layer, check.table),
        check_name=check.name,
        passed=True,
        description="nothing has arrived yet",
    )
