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
from lakehouse.gold.dbt_run import load_project
from lakehouse.ops.profile import Profile
from lakehouse.pipelines import Pipeline
from lakehouse.settings import PROJECT_DIR, Settings

#: The one job: any selection of the graph, in one process. Each step in a process of its own costs a second.
JOB = "refresh"


def definitions_for(
    settings: Settings, pipelines: Mapping[str, Pipeline], *, profile: Profile | None = None
) -> dg.Definitions:
    """Everything that Dagster knows of this lakehouse. With a ``profile``, runs of it are measured."""
    gold = gold_definitions(settings)
    gold_keys = [key for asset in gold.assets or () for key in _keys(asset)]
    tables = load_project(settings)[0].delta_models
    job = dg.define_asset_job(
        JOB,
        # Backfills are asked for, never due; and their partitions would have to be those of every table.
        selection=dg.AssetSelection.all() - dg.AssetSelection.key_prefixes(PREFIX),
        executor_def=dg.in_process_executor,
        description="Takes what has arrived through bronze, silver, gold and the catalog.",
    )
    return dg.Definitions.merge(
        _pipelines(settings, pipelines),
        gold,
        # Silver too: a table that no model reads is published all the same.
        catalog_definitions(
            settings,
            [
                *(dg.AssetKey(names.asset_key("gold", model.name)) for model in tables),
                *(dg.AssetKey(names.asset_key("silver", name)) for name in pipelines),
            ],
        ),
        sensor_definitions(settings, job, gold_keys),
        maintenance_definitions(settings),
        dg.Definitions(
            jobs=[job],
            executor=dg.in_process_executor,
            resources={KEY: Runtime(settings, pipelines, profile=profile)},
        ),
    )


def _pipelines(settings: Settings, pipelines: Mapping[str, Pipeline]) -> dg.Definitions:
    """The pipelines through Dagster's component tree, which the UI shows; without it from another folder."""
    if Path(settings.pipelines_dir) == PROJECT_DIR / "lakehouse" / "defs":
        with components_for(settings):
            return dg.load_from_defs_folder(path_within_project=PROJECT_DIR)
    return dg.Definitions.merge(
        *(pipeline_definitions(pipeline, settings) for pipeline in pipelines.values())
    )


def _keys(asset: object) -> list[dg.AssetKey]:
    return list(asset.keys) if isinstance(asset, dg.AssetsDefinition) else []
