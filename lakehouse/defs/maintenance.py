"""Table maintenance by the daemon: one job, two schedules. It never holds up a run, and a writer always wins."""

# Without postponed annotations: Dagster reads the types of an op's parameters.

import multiprocessing
import os
from contextlib import suppress
from typing import Any

import dagster as dg

from lakehouse import names
from lakehouse.defs.run_history import forget_old_runs
from lakehouse.defs.runtime import KEY, runtime_of
from lakehouse.defs.sensors import LANE
from lakehouse.defs.workers import MAINTENANCE_STEP, note_worker
from lakehouse.ops.maintenance import Maintained, maintain
from lakehouse.settings import Settings

MAINTENANCE_JOB = "maintenance"
_NICE = 10
#: Layers whose tables are assets: they show their maintenance among their events, the others in the run's log.
_ASSETS = ("bronze", "silver", "gold")


def maintenance_definitions(settings: Settings) -> dg.Definitions:
    """The job and its schedules, running by default."""

    @dg.op(
        name=MAINTENANCE_STEP,
        config_schema={
            "vacuum": dg.Field(bool, default_value=True, description="Also remove files that nobody needs.")
        },
        required_resource_keys={KEY},
        out=dg.Out(dg.Nothing),
        description="Combines the small files of every table, writes overdue checkpoints and, when asked to, removes "
        "files that no kept version needs. Takes no pool: whoever writes a table at the same time wins.",
    )
    def maintain_tables(context: dg.OpExecutionContext) -> None:
        note_worker(context.instance, context.run)
        _step_back()
        _forget_old_runs(context)
        _maintain(context, vacuum=context.op_config["vacuum"])

    @dg.job(
        name=MAINTENANCE_JOB,
        executor_def=dg.in_process_executor,
        tags={LANE: "maintenance"},
        description="Few files of a good size, none that nobody needs. Changes no row.",
    )
    def maintenance_job() -> None:
        maintain_tables()

    def schedule(name: str, cron: str, *, vacuum: bool, description: str) -> dg.ScheduleDefinition:
        return dg.ScheduleDefinition(
            name=name,
            job=maintenance_job,
            cron_schedule=cron,
            execution_timezone="UTC",
            run_config={"ops": {MAINTENANCE_STEP: {"config": {"vacuum": vacuum}}}},
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description=description,
        )

    return dg.Definitions(
        jobs=[maintenance_job],
        schedules=[
            schedule(
                "compact_schedule",
                settings.compact_cron,
                vacuum=False,
                description="Combines small files where that pays.",
            ),
            schedule(
                "vacuum_schedule",
                settings.vacuum_cron,
                vacuum=True,
                description="Also removes files that no kept version needs.",
            ),
        ],
    )


def _forget_old_runs(context: dg.OpExecutionContext) -> None:
    try:
        forgotten = forget_old_runs(context.instance, runtime_of(context).settings)
    except Exception as error:  # noqa: BLE001  whatever it was, the tables do not wait for Dagster's history
        context.log.error(
            f"old runs were not all deleted from Dagster's history, the next time tries again: {error}"
        )
        return
    if forgotten:
        context.log.info(f"{forgotten} old runs were deleted from Dagster's history")


def _maintain(context: dg.OpExecutionContext, *, vacuum: bool) -> None:
    """Every table, with what was done among the events; fails after the last one if any could not be maintained."""
    runtime = runtime_of(context)
    failed: list[Maintained] = []
    for done in maintain(runtime.lake, runtime.settings, runtime.pipelines, vacuum=vacuum):
        if done.did_something and done.layer in _ASSETS:
            key = dg.AssetKey(names.asset_key(done.layer, done.table))
            context.log_event(dg.AssetObservation(key, metadata=_metadata(done)))
        elif done.did_something:
            context.log.info(f"{done.name}: {_metadata(done)['maintenance']}")
        if done.skipped:
            context.log.info(f"{done.name}: {done.skipped}")
        if done.error:
            context.log.error(f"{done.name}: {done.error}")
            failed.append(done)
    if failed:
        # Not noted as an open failure: no data waits for it, and the next tick tries again.
        raise dg.Failure(
            description="not maintained: " + "; ".join(f"{done.name}: {done.error}" for done in failed),
            metadata={"next": dg.MetadataValue.text("lakehouse maintain")},
            allow_retries=False,
        )


def _step_back() -> None:
    """Let runs have the processor first; only where this process was started for this run alone."""
    if multiprocessing.parent_process() is not None:
        with suppress(OSError):
            os.nice(_NICE)


def _metadata(done: Maintained) -> dict[str, Any]:
    return {
        "maintenance": f"{done.combined} small files became {done.into}; {done.removed} files removed",
        "files before": done.files_before,
        "files after": done.files_after,
        "bytes before": done.bytes_before,
        "bytes after": done.bytes_after,
        "files removed": done.removed,
        "bytes removed": done.removed_bytes,
        "checkpoint written": done.checkpoint,
        "version": done.version,
        "seconds": round(done.seconds, 3),
    }
