"""Gold in the asset graph: every dbt model an asset, every dbt test a check, one step that builds them in process.

The definitions come from dbt's manifest through dagster-dbt; the build is the project's own (``lakehouse.gold``),
because the lake pins silver, writes Delta and records the tests itself, with or without Dagster.
"""

# Without postponed annotations: Dagster reads the types of a step's parameters.

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from asset_checks import dagster_form
from lakehouse import names
from lakehouse.checks import CheckOutcome
from lakehouse.defs import order
from lakehouse.defs.column_lineage import column_lineage
from lakehouse.defs.runtime import KEY, Runtime, freshness_policy, runtime_of
from lakehouse.defs.translator import LakehouseTranslator
from lakehouse.defs.workers import note_worker
from lakehouse.errors import LakehouseError
from lakehouse.gold.build import build, load_project
from lakehouse.gold.outcomes import recovery
from lakehouse.gold.project import Project, Test
from lakehouse.gold.results import GoldResult, ModelResult, TestResult
from lakehouse.settings import Settings

STEP = "gold"


def gold_definitions(settings: Settings) -> dg.Definitions:
    """The models and tests of the dbt project. Parses it when it has changed since it was last parsed.

    Raises:
        GoldBuildError: the project does not parse or a model's configuration cannot work.
    """
    project, manifest_path = load_project(settings)
    if not project.models:
        return dg.Definitions()
    manifest = json.loads(Path(manifest_path).read_bytes())
    translator = LakehouseTranslator()
    specs = [_asset_spec(project, name, manifest, translator, settings) for name in project.order]
    check_specs = [_check_spec(test) for test in project.tests if test.models]
    names_by_op = {spec.key.to_user_string(): spec.key.path[-1] for spec in specs}

    @dg.multi_asset(
        name=STEP,
        specs=specs,
        check_specs=check_specs,
        required_resource_keys={KEY},
        can_subset=True,
        pool="gold/build",
        op_tags=order.GOLD,
    )
    def gold(context: dg.AssetExecutionContext) -> Any:
        note_worker(context.instance, context.run)
        selected = {key.path[-1] for key in context.selected_asset_keys}
        everything = selected >= set(names_by_op.values())
        yield from _build(context, runtime_of(context), None if everything else sorted(selected))

    return dg.Definitions(assets=[gold])


def _asset_spec(
    project: Project,
    name: str,
    manifest: Mapping[str, Any],
    translator: LakehouseTranslator,
    settings: Settings,
) -> dg.AssetSpec:
    model = project.models[name]
    spec = translator.get_asset_spec(manifest, model.unique_id, None)
    kinds = {"gold", "dbt", "duckdb", "deltalake"} if model.is_delta else {"gold", "dbt", "duckdb", "view"}
    return spec.replace_attributes(
        skippable=True,
        tags={"layer": "gold", **{f"dagster/kind/{kind}": "" for kind in kinds}},
        freshness_policy=freshness_policy(settings),
    )


def _check_spec(test: Test) -> dg.AssetCheckSpec:
    others = [dg.AssetKey(names.asset_key("gold", model)) for model in test.models[1:]]
    return dg.AssetCheckSpec(
        check_name(test),
        asset=names.asset_key("gold", test.models[0]),
        description=test.description or None,
        additional_deps=[
            key for key in others if key != dg.AssetKey(names.asset_key("gold", test.models[0]))
        ],
        # Unit tests run when code has changed only, and a blocking check without a result is a warning each.
        blocking=test.severity == "error" and test.kind == "data",
        metadata={"kind": f"dbt {test.kind} test", "recovery": recovery(f"gold.{test.models[0]}")},
    )


def check_name(test: Test | TestResult) -> str:
    """A unit test may be named like a data test of its model."""
    return f"unit_{test.name}" if test.kind == "unit" else test.name


def _build(
    context: dg.AssetExecutionContext, runtime: Runtime, select: list[str] | None
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Build, then report every model and every test. A failed model or blocking test fails the step at the end."""
    logging.getLogger("dagster._core.execution.plan.active").addFilter(_UNNEEDED)
    try:
        runtime.write_checks()
        with runtime.measured("gold"):
            result = build(
                runtime.lake,
                # Stages may still be at work, each with its share.
                runtime.settings.shared_by(2) if runtime.ahead else runtime.settings,
                select=select,
                run_id=context.run.run_id,
                on_event=lambda item: context.log.info(
                    f"{type(item).__name__[:-6].lower()} {item.name}: {item.status}"
                ),
            )
        if runtime.profile is not None:
            runtime.profile.add_gold(result)
    except Exception as error:  # noqa: BLE001  whatever it is: it is noted, so that it cannot hold up the others
        runtime.failed(context, "gold", None, error)
    runtime.gold[context.run.run_id] = result
    for note in result.notes:
        context.log.warning(note)
    for model in result.models:
        key = dg.AssetKey(names.asset_key("gold", model.name))
        # A model whose sources have sent nothing yet is told of with no rows: without an output of every model
        # Dagster would skip publishing, and the tables that are there would never be seen.
        told = model.status in ("built", "unchanged") or (model.status == "skipped" and result.ok)
        if told and key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=_metadata(runtime, model, result))
    for test in result.tests:
        if not test.models:
            continue
        key = dg.AssetKey(names.asset_key("gold", test.models[0]))
        if key in context.selected_asset_keys and test.status != "skipped":
            yield _check_result(test, result)
    _settle(context, runtime, result)


def _settle(context: dg.AssetExecutionContext, runtime: Runtime, result: GoldResult) -> None:
    if result.ok:
        runtime.succeeded("gold", None, context.run.run_id)
        return
    failed_tests = [test for test in result.tests if test.blocks]
    if failed_tests and not any(model.status == "failed" for model in result.models):
        messages = [f"test {test.name} of {test.subjects}: {test.message}" for test in failed_tests]
        hint = recovery(failed_tests[0].subjects.partition(",")[0])
        runtime.gate_failed("gold", None, messages, hint, context.run.run_id)
        raise dg.Failure("; ".join(messages), metadata={"next": hint}, allow_retries=False)
    try:
        result.raise_for_failures()
    except LakehouseError as error:
        runtime.failed(context, "gold", None, error)


class _TestsThatWereNotNeeded(logging.Filter):
    """Drops Dagster's warning per blocking check without a result: an unchanged version keeps the outcomes that
    it has in ``ops.checks``, and publishing asks there."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "emitted no result in step" not in record.getMessage()


_UNNEEDED = _TestsThatWereNotNeeded()


def _metadata(runtime: Runtime, model: ModelResult, result: GoldResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "status": model.status,
        "seconds": round(model.seconds, 3),
        "silver versions": dg.MetadataValue.json(result.silver_versions),
    }
    if model.status == "skipped":
        metadata |= {"dagster/row_count": 0, "waits for": model.message}
    if model.version is not None:
        metadata |= {
            "dagster/row_count": model.rows,
            "dagster/uri": runtime.lake.table("gold", model.name).uri,
            "table version": model.version,
            "strategy": model.strategy or "",
            "rows written": model.rows_written,
            "bytes written": model.bytes,
        }
    if model.watermark_utc:
        metadata["watermark"] = model.watermark_utc
    if model.sql and (lineage := column_lineage(model, result.models, runtime.pipelines)) is not None:
        metadata["dagster/column_lineage"] = lineage
    return metadata


def _check_result(test: TestResult, result: GoldResult) -> dg.AssetCheckResult:
    model = test.models[0]
    outcome = CheckOutcome(
        layer="gold",
        table=model,
        version=result.versions.get(model, -1),
        check=check_name(test),
        passed=test.passed,
        blocking=test.blocks,
        severity="error" if test.blocks else "warn",
        count=test.failures,
        sample=test.sample,
        message=test.message or ("passed" if test.passed else test.status),
        recovery=recovery(f"gold.{model}"),
    )
    return dagster_form.result(outcome, {"seconds": round(test.seconds, 3)})
