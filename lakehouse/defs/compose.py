"""All definitions for one set of settings: pipelines, gold, catalog, job, sensors, resources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from lakehouse import names
from lakehouse.defs.backfill import PREFIX
from lakehouse.defs.catalog import catalog_definitions
from lakehouse.defs.component import components_for, pipeline_definitions
from lakehouse.defs.gold import gold_definitions
from lakehouse.defs.maintenance import maintenance_definitions
from lakehouse.defs.runtime import KEY, Runtime
from lakehouse.defs.sensors import sensor_definitions
from lakehouse.defs.workers import note_worker
from lakehouse.errors import GoldBuildError
from lakehouse.gold.dbt_run import load_project
from lakehouse.pipelines import Pipeline
from lakehouse.settings import PROJECT_DIR, Settings

#: The one job: any selection of the graph, in one process. Each step in a process of its own costs a second.
JOB = "refresh"


def definitions_for(
    settings: Settings,
    pipelines: Mapping[str, Pipeline],
    *,
    runtime: Runtime | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dg.Definitions:
    """Everything that Dagster knows of this lakehouse.

    Args:
        runtime: what its runs share, for one who asks it afterwards.
        left_out: pipelines that could not be loaded, and what is wrong with each, which the SLA's looks tell of. A dbt
            project that does not parse is then left out as well; without, it is an error.

    Raises:
        GoldBuildError: the dbt project does not parse, or a model's configuration cannot work.
    """
    wrong = list((left_out or {}).values())
    try:
        gold, tables = gold_definitions(settings), load_project(settings)[0].delta_models
    except GoldBuildError as error:
        if left_out is None:
            raise
        gold, tables = dg.Definitions(), []
        wrong.append(error.message)
    gold_keys = [key for asset in gold.assets or () for key in _keys(asset)]
    job = dg.define_asset_job(
        JOB,
        # Backfills are asked for, never due; and their partitions would have to be those of every table.
        selection=dg.AssetSelection.all() - dg.AssetSelection.key_prefixes(PREFIX),
        executor_def=dg.in_process_executor,
        description="Takes what has arrived through bronze, silver, gold and the catalog.",
    )
    return dg.Definitions.merge(
        _pipelines(settings, pipelines, all_sound=not left_out),
        gold,
        # Silver too: a table that no model reads is published all the same.
        catalog_definitions(
            settings,
            [
                *(dg.AssetKey(names.asset_key("gold", model.name)) for model in tables),
                *(dg.AssetKey(names.asset_key("silver", name)) for name in pipelines),
            ],
        ),
        sensor_definitions(settings, job, gold_keys, wrong),
        maintenance_definitions(settings),
        dg.Definitions(
            jobs=[job],
            executor=dg.in_process_executor,
            resources={KEY: _resource(runtime or Runtime(settings, pipelines, left_out=left_out or {}))},
        ),
    )


def _resource(runtime: Runtime) -> dg.ResourceDefinition:
    """The runtime of every step and sensor. A run notes its process before its first step, which may have to wait for a pool."""

    def init(context: dg.InitResourceContext) -> Runtime:
        if context.run is not None and context.instance is not None:
            note_worker(context.instance, context.run)
        return runtime

    return dg.ResourceDefinition(resource_fn=init)


def _pipelines(settings: Settings, pipelines: Mapping[str, Pipeline], *, all_sound: bool) -> dg.Definitions:
    """The pipelines through Dagster's component tree, which the UI shows; without it from another folder, and where some
    are wrong: the tree loads all of them or none."""
    if all_sound and Path(settings.pipelines_dir) == PROJECT_DIR / "lakehouse" / "defs":
        with components_for(settings):
            return dg.load_from_defs_folder(path_within_project=PROJECT_DIR)
    return dg.Definitions.merge(
        *(pipeline_definitions(pipeline, settings) for pipeline in pipelines.values())
    )


def _keys(asset: object) -> list[dg.AssetKey]:
    return list(asset.keys) if isinstance(asset, dg.AssetsDefinition) else []
