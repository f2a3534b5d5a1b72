"""What a gold build has to do: which models are out of date, which tests must run, how each table is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lakehouse import hold
from lakehouse.errors import GoldBuildError
from lakehouse.gold.changes import are_comparable
from lakehouse.gold.project import Model, Project, Test
from lakehouse.gold.restore_points import RestorePoint, current_point
from lakehouse.gold.session import WritePlan
from lakehouse.gold.versions import (
    Pin,
    built_from,
    commit_document,
    gold_bases,
    pin_silver,
    published_version,
    refused_versions,
)
from lakehouse.storage import Lake, Snapshot, stands

#: Strategies whose incremental builds take the base's rows as they are. replace_groups compares what the base was built
#: from with what is read now, and overwrite keeps nothing.
_ADDING = ("append", "merge", "replace_where")


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
    dbt_nodes: list[str] = field(default_factory=list)  # as dbt selects them
    unit_nodes: list[str] = field(default_factory=list)
    tests: set[str] = field(default_factory=set)  # unique ids of those among them
    watermarks: dict[str, str | None] = field(default_factory=dict)
    start_over: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    _documents: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def silver_versions(self) -> dict[str, int]:
        return {table: pin.snapshot.version for table, pin in self.pins.items()}

    def forms(self, model: Model) -> dict[str, str]:
        """What of each silver table makes the model start over when it changes; see ``Pin``."""
        # Touched groups are found from the rows that differ, those of old batches too: no need to start over for them.
        sees_old_rows = model.strategy == "replace_groups"
        return {table: pin.columns if sees_old_rows else pin.form for table, pin in self.pins.items()}

    def document(self, name: str) -> dict[str, Any]:
        """What the model's base says of itself; nothing where there is none."""
        base = self.bases[name][0]
        if base is None:
            return {}
        if (name, base.version) not in self._documents:
            self._documents[name, base.version] = commit_document(base, "gold")[0]
        return self._documents[name, base.version]

    def input_hash(self, model: Model) -> str:
        """The base's own is another when a build could change the table."""
        data = {table: pin.data_version for table, pin in self.pins.items()}
        return self.project.input_hash(model.name, self.forms(model), data)


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
    hold.refuse(lake)
    _leave_refused_bases(lake, plan, published, selected)
    for model in project.delta_models:
        _decide(
            lake,
            plan,
            model,
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
            and plan.document(name).get("code_hash") != project.code_hash
        }
    _choose_nodes(plan, selected)
    return plan


def _leave_refused_bases(
    lake: Lake, plan: BuildPlan, published: RestorePoint | None, selected: set[str] | None
) -> None:
    """Find models whose base holds rows of data that gold does not read any more, and let them build on another.

    A base has passed its own tests, which say nothing of what it was built from: silver may have gone back to its published
    version since, and a table of gold may have failed a test that ran later. What the base got from there would stay in
    the table. The published version takes its place; where that is no better, the model is built whole.
    """
    doubtful: dict[str, Snapshot] = {}
    for model in plan.project.delta_models:
        base = plan.bases[model.name][0]
        if base is None or model.strategy not in _ADDING:
            continue
        if plan.project.silver_inputs(model.name).difference(plan.pins):
            continue
        if plan.document(model.name).get("input_hash") != plan.input_hash(model):
            doubtful[model.name] = base
    reasons = _not_read_any_more(lake, plan, {name: plan.document(name) for name in doubtful})
    current = {} if published is None else published.versions("gold")
    earlier = {
        name: snapshot
        for name in reasons
        if (snapshot := published_version(lake, name, current)) and snapshot.version < doubtful[name].version
    }
    documents = {name: commit_document(snapshot, "gold")[0] for name, snapshot in earlier.items()}
    no_better = _not_read_any_more(lake, plan, documents)
    for name, reason in reasons.items():
        if name in earlier and name not in no_better:
            plan.bases[name] = (earlier[name], plan.bases[name][1])
            outcome = f"goes on from the published version {earlier[name].version}"
        elif selected is not None and name not in selected:
            continue
        elif plan.project.models[name].never_refresh:
            outcome = "keeps its rows (full_refresh: false)"
        else:
            plan.start_over.add(name)
            outcome = "starts over"
        plan.notes.append(f"gold.{name} {outcome}: version {doubtful[name].version} was built from {reason}")


def _not_read_any_more(
    lake: Lake, plan: BuildPlan, documents: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Model → what a version of it was built from and would not be any more; models without such a thing are left out."""
    inputs = {name: built_from(lake, document) for name, document in documents.items()}
    every = {read for found in inputs.values() for read in found}
    bad = refused_versions(lake, every)
    pinned = {f"silver/{table}": pin.snapshot for table, pin in plan.pins.items()}
    bad |= {
        (table, version) for table, version in every if table in pinned and not stands(pinned[table], version)
    }
    reasons: dict[str, str] = {}
    for name, found in inputs.items():
        for table, version in sorted(found & bad)[:1]:
            reasons[name] = f"{table.replace('/', '.')} version {version}, which is not read now"
    return reasons


def _decide(
    lake: Lake,
    plan: BuildPlan,
    model: Model,
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
    definition = project.definition_hash(model.name, plan.forms(model))
    wanted = plan.input_hash(model)
    base, latest = plan.bases[model.name]
    document = plan.document(model.name)
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
        and model.name not in plan.start_over
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
    """The dbt nodes to run: models out of date, the tests that look at them, and what both need in memory."""
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
    if not needed and not leaves:
        return
    touched = needed | plan.in_memory
    read = {table for name in touched for table in project.silver_inputs(name)}
    tables = plan.build | {name for name, (base, _) in plan.bases.items() if base is not None}
    chosen: list[Test] = []
    for test in project.tests:
        if test.kind == "unit":  # arithmetic is tested when the code has changed
            wanted = plan.run_unit_tests and test.models[0] in touched
        else:
            wanted = bool(
                touched.intersection(test.models) or (not test.models and read.intersection(test.silver))
            )
        # Views that nothing else needs now are built for it, such as those of a source that has sent nothing new.
        views = {name for name in test.models if not project.models[name].is_delta}
        views |= {name for view in views for name in project.ancestors(view, through_delta=False)}
        below = {*test.models, *views}
        # A test across models waits until all of them exist.
        if wanted and below <= in_memory | tables | needed and not set(test.silver).difference(plan.pins):
            chosen.append(test)
            plan.in_memory |= views & in_memory
    plan.tests = {test.unique_id for test in chosen}
    made = plan.build | plan.in_memory
    nodes = {project.models[name].selector for name in made}
    # dbt runs a unit test with its model alone: those of models that stay as they are need a command of their own.
    apart = [test for test in chosen if test.kind == "unit" and test.models[0] not in made]
    plan.unit_nodes = sorted({test.selector for test in apart})
    plan.dbt_nodes = sorted(nodes) + sorted({test.selector for test in chosen if test not in apart})


def _oldest(watermarks: list[str | None]) -> str | None:
    """A table made from several is as fresh as the oldest of them; unknown when one is unknown."""
    known = [watermark for watermark in watermarks if watermark]
    return min(known) if known and len(known) == len(watermarks) else None
