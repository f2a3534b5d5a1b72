"""What Dagster has to do with a rollback: runs that are still going, and the history of the tables that went back."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg
from dagster import RunsFilter

from lakehouse import names
from lakehouse.defs import workers
from lakehouse.defs.instance import open_instance
from lakehouse.defs.sensors import LANE
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.ops.rollback import Step
from lakehouse.settings import Settings
from lakehouse.storage import Lake


def runs_going(settings: Settings, lake: Lake) -> list[str]:
    """Ids of the runs that may still write tables. Those whose process is gone are ended first; maintenance changes no row."""
    with open_instance(settings) as instance:
        workers.note_reaped(workers.reap(instance), lake, settings)
        runs = instance.get_runs(RunsFilter(statuses=workers.ALIVE))
    return [run.run_id for run in runs if run.tags.get(LANE) != "maintenance"]


def tell_history(settings: Settings, steps: Sequence[Step], made: RestorePoint) -> None:
    """Show among each restored table's events in the UI that it went back, to which version, by whom and why."""
    with open_instance(settings) as instance:
        for step in steps:
            if step.is_there or step.restored is None:
                continue
            observation = dg.AssetObservation(
                dg.AssetKey(names.asset_key(step.layer, step.table)),
                description=f"Rolled back to restore point {made.restored_from} by {made.made_by}.",
                metadata={
                    "table version": step.restored,
                    "rows of version": "none" if step.target is None else str(step.target),
                    "restore point": made.restored_from or "",
                    "by": made.made_by,
                    "note": made.note or "none",
                    "batches that are taken again": step.batches,
                },
            )
            instance.report_runless_asset_event(observation)
