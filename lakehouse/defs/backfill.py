"""Backfills in the asset graph: for each table with days, one partitioned asset between bronze and silver.

Silver itself has no partitions: one run takes many tables, and Dagster wants one set of partitions in a job. So the
pieces of the past are an asset of their own, whose partitions show which of them were processed again.
"""

# Without postponed annotations: Dagster reads the types of a step's parameters.

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from lakehouse import names
from lakehouse.defs.runtime import KEY, Runtime, runtime_of
from lakehouse.defs.workers import BACKFILL_STEPS, note_worker
from lakehouse.pipelines import Pipeline
from lakehouse.pipelines.model import PartitionBy
from lakehouse.silver import Backfilled, Period, backfill

PREFIX = "backfill"
#: A run may ask for days that are no whole partitions, or for none that Dagster has.
DAYS_TAG = "lakehouse/days"
_COUNTS = (
    "rows", "refused", "newly_refused", "reopened", "taken_out", "released", "kept_out", "keys_changed", "keys_added",
    "keys_removed", "keys_moved",
)  # fmt: skip


def backfill_key(table: str) -> dg.AssetKey:
    """Key of the asset that makes the past of a silver table again."""
    return dg.AssetKey([PREFIX, table])


def backfill_assets(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The asset of this pipeline; none when it does not say which column its days are in."""
    spec = pipeline.spec
    partition = spec.silver.partition_by
    if partition is None:
        return []

    @dg.multi_asset(
        name=f"{BACKFILL_STEPS}{pipeline.name}",
        specs=[
            dg.AssetSpec(
                backfill_key(pipeline.name),
                deps=[dg.AssetKey(names.asset_key("bronze", pipeline.name))],
                description=f"Processes a {partition.grain} of `silver/{pipeline.name}` again from bronze, with today's "
                f"transform and contract (`{partition.column}` says which {partition.grain} a row is of), and leaves "
                "the rest as it is. Never part of an ordinary run. Gold and the catalog follow by themselves.",
                group_name=f"{spec.group}_silver",
                owners=list(spec.owners),
                kinds={"silver", "deltalake", "polars"},
                tags={"layer": "silver", **spec.tags},
                metadata={"declared in": pipeline.file},
            )
        ],
        partitions_def=_partitions(partition),
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys={KEY},
        # The table's own pool: a backfill and the stage take turns instead of redoing each other's work.
        pool=f"silver/{pipeline.name}",
    )
    def asset(context: dg.AssetExecutionContext) -> Any:
        yield from _run(context, runtime_of(context), pipeline, partition)

    return [asset]


def _partitions(partition: PartitionBy) -> dg.PartitionsDefinition[str]:
    """From ``start`` to the running day or month."""
    if partition.grain == "month":
        return dg.MonthlyPartitionsDefinition(start_date=partition.start.isoformat(), end_offset=1)
    return dg.DailyPartitionsDefinition(start_date=partition.start.isoformat(), end_offset=1)


def _run(
    context: dg.AssetExecutionContext, runtime: Runtime, pipeline: Pipeline, partition: PartitionBy
) -> Iterator[dg.MaterializeResult[None]]:
    note_worker(context.instance, context.run)
    try:
        done = backfill(
            runtime.lake, runtime.settings, pipeline, _period(context, partition),
            apply=True, actor=context.run.tags.get("user", "dagster"), run_id=context.run.run_id,
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001  shown, and not remembered: new arrivals of the table go on as before
        runtime.failed(context, PREFIX, pipeline.name, error, remember=False)
    runtime.backfilled[context.run.run_id] = done
    metadata = _metadata(done)
    if done.version is not None:
        silver = runtime.lake.table("silver", pipeline.name).snapshot(done.version)
        told = {**metadata, "dagster/row_count": silver.num_rows(), "table version": done.version}
        context.log_event(dg.AssetMaterialization(names.asset_key("silver", pipeline.name), metadata=told))
    yield dg.MaterializeResult(asset_key=backfill_key(pipeline.name), metadata=metadata)


def _period(context: dg.AssetExecutionContext, partition: PartitionBy) -> Period:
    if days := context.run.tags.get(DAYS_TAG):
        return Period.parse(*days.split("/"))
    chosen = context.partition_key_range
    size = len("2013-03") if partition.grain == "month" else len("2013-03-01")
    return Period.parse(chosen.start[:size], chosen.end[:size])


def _metadata(done: Backfilled) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "days": str(done.period),
        **{name.replace("_", " "): getattr(done, name) for name in _COUNTS},
        "outcome": "nothing differs; nothing was written" if done.changes_nothing else "rows were made again",
    }
    if done.broken_rules:
        metadata["broken rules"] = dg.MetadataValue.json(dict(done.broken_rules))
    return metadata


def partition_tags(partition: PartitionBy, period: Period, today: date) -> dict[str, str]:
    """Tags that name the whole partitions within ``period``; none when there is no whole one."""
    keys = [key for key in _keys(partition, period) if key <= today.isoformat()]
    if not keys:
        return {}
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    return {start: keys[0], end: keys[-1]}


def _keys(partition: PartitionBy, period: Period) -> Sequence[str]:
    first = max(period.first, partition.start)
    days = [first + timedelta(days=n) for n in range((period.last - first).days + 1)]
    if partition.grain == "day":
        return [day.isoformat() for day in days]
    whole = {f"{day:%Y-%m}" for day in days if (day + timedelta(days=1)).day == 1}
    return [day.isoformat() for day in days if day.day == 1 and f"{day:%Y-%m}" in whole]
