"""The analysts' catalog as the last asset: a restore point is made current, and the catalog is swapped."""

# Without postponed annotations: Dagster reads the types of a step's parameters.

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from lakehouse import ledger
from lakehouse.defs.runtime import GOLD_FOLLOWS, KEY, Runtime, freshness_policy, runtime_of
from lakehouse.defs.workers import note_worker
from lakehouse.errors import LakehouseError
from lakehouse.gold.build import build
from lakehouse.gold.publish import RestorePoint, publish
from lakehouse.ops import watch
from lakehouse.settings import Settings

CATALOG = GOLD_FOLLOWS


def catalog_definitions(settings: Settings, published: Sequence[dg.AssetKey]) -> dg.Definitions:
    """The publishing asset, downstream of every table that analysts see."""

    @dg.multi_asset(
        name="publish",
        specs=[
            dg.AssetSpec(
                CATALOG,
                deps=list(published),
                description="What analysts read: `gold.duckdb`, views over one consistent set of table versions "
                "(a restore point). Made only when every blocking check of those versions has passed.",
                group_name="catalog",
                kinds={"gold", "duckdb"},
                tags={"layer": "catalog"},
                metadata={"path": dg.MetadataValue.path(str(settings.catalog_path))},
                freshness_policy=freshness_policy(settings),
            )
        ],
        required_resource_keys={KEY},
        pool="catalog/gold",
    )
    def publish_catalog(context: dg.AssetExecutionContext) -> Any:
        note_worker(context.instance, context.run)
        yield from _publish(context, runtime_of(context))

    return dg.Definitions(assets=[publish_catalog])


def _publish(context: dg.AssetExecutionContext, runtime: Runtime) -> Iterator[dg.MaterializeResult[None]]:
    before = runtime.point()
    is_partial = False
    try:
        runtime.write_checks()
        ledger.sync(runtime.lake, runtime.pipelines.values())
        # On its own (from the UI, or retried) the step asks for the build again, which then finds nothing to do.
        gold = runtime.gold.get(context.run.run_id) or build(
            runtime.lake, runtime.settings, run_id=context.run.run_id
        )
        is_partial = bool(gold.stale)
        _remember_lag(context, runtime)
        with runtime.measured("publish"):
            point = publish(runtime.lake, runtime.settings, gold=gold, run_id=context.run.run_id)
        if runtime.profile is not None:
            runtime.profile.explain("a version of every table is named, and the analysts' catalog is written")
    except Exception as error:  # noqa: BLE001  whatever it is: it is noted, so that it cannot hold up the others
        runtime.gold.pop(context.run.run_id, None)
        # Whoever has built some models alone knows that this is not published; nobody else's publishing waits for it.
        runtime.failed(context, "publish", None, error, remember=not is_partial)
    runtime.succeeded("publish", None, context.run.run_id)
    _remember_lag(context, runtime)
    yield dg.MaterializeResult(asset_key=CATALOG, metadata=_metadata(runtime.settings, before, point))


def _remember_lag(context: dg.AssetExecutionContext, runtime: Runtime) -> None:
    """Freshness before and after the publish goes into the history even where no daemon looks.

    Best effort: a failure to take notes never holds data back.
    """
    try:
        seen = watch.observe(
            runtime.lake, runtime.settings, runtime.pipelines, listing=False, left_out=runtime.left_out
        )
        watch.record(runtime.lake, runtime.settings, seen)
    except LakehouseError as error:
        context.log.warning(f"the freshness history could not be written: {error.message}")


def _metadata(settings: Settings, before: RestorePoint | None, point: RestorePoint) -> dict[str, Any]:
    is_new = before is None or before.id != point.id
    return {
        "restore point": point.id,
        "published": "a new restore point" if is_new else "nothing new: the point before is still current",
        "catalog": dg.MetadataValue.path(str(settings.catalog_path)),
        "versions": dg.MetadataValue.json(point.tables),
        "sources": dg.MetadataValue.json(point.sources),
        "query it": 'lakehouse query "show tables"',
    }
