"""All checks of a pipeline's tables at once: which there are, what they look at, and how to carry them out without Dagster."""

from __future__ import annotations

from collections.abc import Sequence

from asset_checks.base import Check, Subject, evaluate
from asset_checks.bronze import bronze_checks
from asset_checks.references import reference_checks
from asset_checks.silver import silver_checks
from lakehouse import checks, names
from lakehouse.checks import CheckOutcome
from lakehouse.gold.restore_points import RestorePoint, current_point
from lakehouse.pipelines import Pipeline
from lakehouse.storage import Lake, Snapshot


def checks_of(layer: names.Layer, pipeline: Pipeline) -> Sequence[Check]:
    """The checks of one stage, in the order in which the UI shows them."""
    return bronze_checks(pipeline) if layer == "bronze" else silver_checks(pipeline)


def declared_of(pipeline: Pipeline, version: int) -> CheckOutcome:
    """The row that says which checks a version of the silver table has to have: the stage's, and those of references."""
    found = (*silver_checks(pipeline), *reference_checks(pipeline))
    return checks.declared("silver", pipeline.name, version, [check.name for check in found])


def subject_of(lake: Lake, pipeline: Pipeline, snapshot: Snapshot, point: RestorePoint | None) -> Subject:
    """What the checks of one table look at: its version, and where published data stands."""
    published_batch = 0
    published_version = None
    if point is not None:
        published_batch = int(point.sources.get(pipeline.name, {}).get("batch_id") or 0)
        published_version = point.tables.get(names.table_path(snapshot.table.layer, pipeline.name))
    return Subject(lake, pipeline, snapshot, published_batch, published_version)


def carry_out(lake: Lake, pipeline: Pipeline, *, run_id: str = "") -> list[CheckOutcome]:
    """Check the newest bronze and silver of a pipeline and record what was found, for programs that call the stages
    themselves: gold leaves out, and publishing refuses, what was not checked.

    To be called when every table that the pipeline refers to has been refined.

    Raises:
        TransientError: the store did not answer; call it again.
    """
    point = current_point(lake)
    outcomes: list[CheckOutcome] = []
    layers: tuple[names.Layer, ...] = ("bronze", "silver")
    for layer in layers:
        snapshot = lake.table(layer, pipeline.name).snapshot_or_none()
        if snapshot is None:
            continue
        declared = list(checks_of(layer, pipeline))
        if layer == "silver":
            declared += reference_checks(pipeline)
            outcomes.append(declared_of(pipeline, snapshot.version))
        subject = subject_of(lake, pipeline, snapshot, point)
        outcomes += [outcome for _, outcome, _ in evaluate(declared, subject)]
    checks.record(lake, outcomes, run_id=run_id)
    return outcomes
