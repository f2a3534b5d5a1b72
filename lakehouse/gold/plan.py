"""What a gold build has to do: which models are out of date, which tests must run, how each table is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lakehouse.errors import GoldBuildError
from lakehouse.gold.changes import are_comparable
from lakehouse.gold.project import Model, Project
from lakehouse.gold.restore_points import current_point
from lakehouse.gold.session import WritePlan
from lakehouse.gold.versions import Pin, commit_document, gold_bases, pin_silver
from lakehouse.storage import Lake, Snapshot


@dataclass
class BuildPlan:
    """The decisions of one build; every name is a model's."""

    project: Project
    pins: dict[str, Pin]
    bases: dict[str, tuple[Snapshot | None, Snapshot | None]]
    writes: dict[str, WritePlan] = field(default_factory=dict)
    build: set[str] = field(default_factory=set)
    in_memory: set[str] = field(default_factory=set)
    unavailable: dict[str, str] = field(default_factory=dict)
    stale: set[str] = field(default_factory=set)
    retest: set[str] = field(default_factory=set)
    run_unit_tests: bool = False
    dbt_nodes: list[str] = field(default_factory=list)
    watermarks: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def silver_versions(self) -> dict[str, int]:
        return {table: pin.snapshot.version for table, pin in self.pins.items()}


def make_plan(
    lake: Lake,
    project: Project,
    *,
    selected: set[str] | None,
    full_refresh: bool,
    force: bool,
    silver_versions: Mapping[str, int] | None,
    run_id: str,
) -> BuildPlan:
    """Compare every table of the lake with what it would be made from now. Reads logs only, no data."""
    published = current_point(lake)
    tables = {table for model in project.models.values() for table in model.silver}
    pins, notes = pin_silver(lake, tables, published, silver_versions)
    plan = BuildPlan(
        project,
        pins,
        gold_bases(lake, [model.name for model in project.delta_models], published),
        notes=notes,
    )
    schemas = {table: pin.form for table, pin in pins.items()}
    data = {table: pin.data_version for table, pin in pins.items()}
    for model in project.delta_models:
        _decide(
            lake,
            plan,
            model,
            schemas,
            data,
            selected=selected,
            full_refresh=full_refresh,
            force=force,
            run_id=run_id,
        )
    plan.run_unit_tests = published is None or published.gold_code_hash != project.code_hash
    if plan.run_unit_tests:
        # Tests may have changed although their models have not: look at the unchanged ones again.
        plan.retest = {
            name
            for name, (base, _) in plan.bases.items()
            if base is not None
            and name not in plan.build | set(plan.unavailable)
            and (selected is None or name in selected)
            and commit_document(base, "gold")[0].get("code_hash") != project.code_hash
        }
    _choose_nodes(plan, selected)
    return plan


def _decide(
    lake: Lake,
    plan: BuildPlan,
    model: Model,
    schemas: Mapping[str, str],
    data: Mapping[str, int],
    *,
    selected: set[str] | None,
    full_refresh: bool,
    force: bool,
    run_id: str,
) -> None:
    project = plan.project
    inputs = project.silver_inputs(model.name)
    missing = sorted(inputs.difference(plan.pins))
    plan.watermarks[model.name] = _oldest(
        [plan.pins[table].watermark_utc for table in inputs if table in plan.pins]
    )
    if missing:
        names = ", ".join(f"silver.{table}" for table in missing)
        plan.unavailable[model.name] = (
            f"{names} {'has' if len(missing) == 1 else 'have'} no version yet: lakehouse run"
        )
        return
    definition = project.definition_hash(model.name, schemas)
    wanted = project.input_hash(model.name, schemas, data)
    base, latest = plan.bases[model.name]
    document = commit_document(base, "gold")[0] if base is not None else {}
    is_stale = base is None or document.get("input_hash") != wanted
    chosen = selected is None or model.name in selected
    if not chosen:
        if is_stale:
            plan.stale.add(model.name)
        return
    if not (is_stale or force or (full_refresh and not model.never_refresh)):
        return
    same_definition = document.get("definition_hash") == definition or model.never_refresh
    incremental = (
        base is not None
        and model.strategy != "overwrite"
        and same_definition
        and not (full_refresh and not model.never_refresh)
    )
    before = None
    if incremental and model.strategy == "replace_groups":
        before = _inputs_before(lake, plan, model, document.get("inputs") or {})
        incremental = before is not None
    plan.build.add(model.name)
    plan.writes[model.name] = WritePlan(
        model=model,
        base=base,
        latest=latest,
        incremental=incremental,
        before=before or {},
        inputs=tuple(sorted(project.tables_read(model.name))),
        metadata={
            "stage": "gold",
            "model": model.name,
            "run_id": run_id,
            "code_hash": project.code_hash,
            "definition_hash": definition,
            "input_hash": wanted,
            "silver_versions": {table: plan.pins[table].snapshot.version for table in sorted(inputs)},
            "watermark_utc": plan.watermarks[model.name],
            "description": model.description,
            "columns": dict(model.columns),
        },
    )


def _inputs_before(
    lake: Lake, plan: BuildPlan, model: Model, versions: Mapping[str, int]
) -> dict[str, Snapshot] | None:
    """The versions of the model's inputs that its base was built from; None when only a full build is safe.

    That is so when the base does not say what it read, when an old version cannot be compared any more, or when
    a table has changed of which the model does not say whose groups that touches.
    """
    before: dict[str, Snapshot] = {}
    for table in plan.project.tables_read(model.name):
        layer, _, name = table.partition("/")
        if table not in versions:
            return None
        found = lake.table("silver" if layer == "silver" else "gold", name).snapshot_or_none(versions[table])
        if found is None:
            return None
        if layer == "silver":
            now: Snapshot | None = plan.pins[name].snapshot
            changed = commit_document(found, "silver")[1] != plan.pins[name].data_version
        else:
            now = None if name in plan.build else plan.bases[name][0]
            changed = now is None or now.version != found.version
        if changed and table not in model.touched_by:
            return None
        if table in model.touched_by:
            if now is not None and not are_comparable(found, now):
                return None
            before[table] = found
    return before


def _choose_nodes(plan: BuildPlan, selected: set[str] | None) -> None:
    """The dbt nodes to run: models out of date, what they need in memory, and the tests that look at them."""
    project = plan.project
    needed = plan.build | plan.retest
    in_memory = {
        name
        for name, model in project.models.items()
        if not model.is_delta and not project.silver_inputs(name).difference(plan.pins)
    }
    for name in needed:
        plan.in_memory |= project.ancestors(name, through_delta=False) & in_memory
    leaves = {name for name in in_memory if selected is not None and name in selected}
    for name in leaves:
        plan.in_memory |= {name} | (project.ancestors(name, through_delta=False) & in_memory)
    for name in sorted(needed | plan.in_memory):
        for parent in project.models[name].models:
            if project.models[parent].is_delta and parent not in plan.build and plan.bases[parent][0] is None:
                raise GoldBuildError(
                    f"model {name} reads {parent}, which was never built and is not selected",
                    hint=f"lakehouse run --select gold/{parent}",
                )
    readable = needed | plan.in_memory | {name for name, (base, _) in plan.bases.items() if base is not None}
    tests = {
        test.name
        for test in project.tests
        if (needed | plan.in_memory).intersection(test.models)
        # A test across models waits until all of them exist; arithmetic is tested when the code has changed.
        and set(test.models) <= readable
        and (test.kind == "data" or (plan.run_unit_tests and test.models[0] in needed | plan.in_memory))
    }
    # Views that nobody needs now are not built for their tests' sake.
    plan.dbt_nodes = sorted(plan.build | plan.in_memory) + sorted(tests) if needed or leaves else []


def _oldest(watermarks: list[str | None]) -> str | None:
    """A table made from several is as fresh as the oldest of them; unknown when one is unknown."""
    known = [watermark for watermark in watermarks if watermark]
    return min(known) if known and len(known) == len(watermarks) else None
