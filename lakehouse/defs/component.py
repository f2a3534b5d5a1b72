"""The Dagster Component behind every pipeline's ``defs.yaml``: one source through bronze and silver."""

# Without postponed annotations: Dagster reads the types of a step's parameters.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel

from asset_checks import dagster_form
from asset_checks.references import partners, reference_checks
from asset_checks.tables import checks_of
from lakehouse import names
from lakehouse.defs import order
from lakehouse.defs.backfill import backfill_assets
from lakehouse.defs.events import contract_schema
from lakehouse.defs.runtime import KEY, freshness_policy
from lakehouse.defs.steps import check_references, run_stage
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.settings import Settings, load_settings

_SETTINGS: ContextVar[Settings | None] = ContextVar("settings", default=None)


@contextmanager
def components_for(settings: Settings) -> Iterator[None]:
    """Components that are loaded meanwhile are of this lake; Dagster hands them nothing but their YAML."""
    token = _SETTINGS.set(settings)
    try:
        yield
    finally:
        _SETTINGS.reset(token)


class PipelineComponent(dg.Component):
    """One source through bronze and silver: two assets with their checks, and one for backfills of its days.

    The attributes are those of ``lakehouse.pipelines.PipelineSpec``; docs/pipelines.md explains each.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    @classmethod
    def get_model_cls(cls) -> type[BaseModel] | None:
        return PipelineSpec

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description=cls.__doc__, owners=[], tags=["lakehouse"], produces=["asset", "asset_check"]
        )

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        assert isinstance(attributes, PipelineSpec)
        return cls(Pipeline(attributes, str(context.path / "defs.yaml")))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return pipeline_definitions(self.pipeline, _SETTINGS.get() or load_settings())


def pipeline_definitions(pipeline: Pipeline, settings: Settings) -> dg.Definitions:
    """The assets and checks of one pipeline. Raises ``DeclarationError`` when its contract cannot be used."""
    backfills = backfill_assets(pipeline)
    return dg.Definitions(
        assets=[_bronze(pipeline, settings), *backfills, _silver(pipeline, settings, backfills)],
        asset_checks=_references(pipeline, settings),
    )


def _bronze(pipeline: Pipeline, settings: Settings) -> dg.AssetsDefinition:
    spec = pipeline.spec
    checks = checks_of("bronze", pipeline)

    @dg.multi_asset(
        name=f"bronze_{pipeline.name}",
        specs=[
            _asset_spec(
                pipeline,
                "bronze",
                settings,
                description=f"{spec.description}\n\nAs it came from `{spec.source.path}`: append-only, "
                "untyped where the source is text, every row with its file, position and batch.",
                kinds={"bronze", "deltalake", "polars", spec.source.format},
                metadata={"source": spec.source.path},
            )
        ],
        check_specs=[dagster_form.spec(check) for check in checks],
        required_resource_keys={KEY},
        pool=f"bronze/{pipeline.name}",
        op_tags=order.tags("bronze", pipeline.name, settings),
    )
    def bronze(context: dg.AssetExecutionContext) -> Any:
        yield from run_stage(context, "bronze", pipeline)

    return bronze


def _silver(
    pipeline: Pipeline, settings: Settings, backfills: Sequence[dg.AssetsDefinition]
) -> dg.AssetsDefinition:
    spec = pipeline.spec
    contract = pipeline.contract
    checks = checks_of("silver", pipeline)
    how = {
        "append": "new keys are added",
        "upsert": "the latest state per key",
        "history": "every state per key",
    }
    key = (
        f"Key: {', '.join(contract.key)}; {how[spec.silver.mode]}."
        if contract.key
        else "No key; rows are added."
    )

    @dg.multi_asset(
        name=f"silver_{pipeline.name}",
        specs=[
            _asset_spec(
                pipeline,
                "silver",
                settings,
                description=f"{contract.description or spec.description}\n\n{key}",
                kinds={"silver", "deltalake", "polars"},
                metadata={
                    "dagster/column_schema": contract_schema(contract.columns),
                    "contract": spec.contract,
                    "contract hash": contract.hash,
                },
                deps=[names.asset_key("bronze", pipeline.name), *(asset.key.path for asset in backfills)],
            )
        ],
        check_specs=[dagster_form.spec(check) for check in checks],
        required_resource_keys={KEY},
        pool=f"silver/{pipeline.name}",
        op_tags=order.tags("silver", pipeline.name, settings),
    )
    def silver(context: dg.AssetExecutionContext) -> Any:
        yield from run_stage(context, "silver", pipeline)

    return silver


def _references(pipeline: Pipeline, settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Checks against other tables are a step of their own, which waits for both tables."""
    checks = reference_checks(pipeline)
    if not checks:
        return []
    specs = [
        dg.AssetCheckSpec(
            check.name,
            asset=names.asset_key("silver", pipeline.name),
            description=check.description,
            blocking=True,
            additional_deps=[dg.AssetKey(key) for key in partners(pipeline)],
            metadata={"recovery": check.recovery},
        )
        for check in checks
    ]

    @dg.multi_asset_check(
        name=f"references_of_{pipeline.name}",
        specs=specs,
        required_resource_keys={KEY},
        can_subset=False,
        op_tags=order.tags("silver", pipeline.name, settings),
    )
    def references(context: dg.AssetCheckExecutionContext) -> Any:
        yield from check_references(context, pipeline, checks)

    return [references]


def _asset_spec(
    pipeline: Pipeline,
    layer: names.Layer,
    settings: Settings,
    *,
    description: str,
    kinds: set[str],
    metadata: dict[str, Any],
    deps: Sequence[Sequence[str]] = (),
) -> dg.AssetSpec:
    spec = pipeline.spec
    return dg.AssetSpec(
        names.asset_key(layer, pipeline.name),
        deps=[dg.AssetKey(key) for key in deps],
        description=description,
        # One group a layer, so that the graph's first view shows the way of the data.
        group_name=f"{spec.group}_{layer}",
        owners=list(spec.owners),
        kinds=kinds,
        tags={"layer": layer, **spec.tags},
        metadata={**metadata, "declared in": pipeline.file},
        freshness_policy=freshness_policy(settings),
    )
