"""Build gold: pin silver, decide what is out of date, run dbt on that, record what its tests found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lakehouse.errors import GoldBuildError
from lakehouse.gold import dbt_run, outcomes
from lakehouse.gold.dbt_run import ensure_manifest, load_project, manifest_path
from lakehouse.gold.plan import BuildPlan, make_plan
from lakehouse.gold.results import GoldResult, ModelResult, TestResult
from lakehouse.gold.session import BuildSession
from lakehouse.settings import Settings
from lakehouse.storage import Lake, store_trouble

__all__ = ["build", "ensure_manifest", "load_project", "manifest_path"]

Listener = Callable[[ModelResult | TestResult], None]


def build(
    lake: Lake,
    settings: Settings,
    *,
    select: Sequence[str] | None = None,
    run_id: str = "",
    full_refresh: bool = False,
    force: bool = False,
    silver_versions: Mapping[str, int] | None = None,
    on_event: Listener | None = None,
    project_dir: Path | None = None,
) -> GoldResult:
    """Bring the gold tables up to date with one version of each silver table; nothing is published.

    A model is built when the silver data that it reads, its code or its texts have changed since the version it
    would build on; the others keep their version. When nothing has changed, dbt is not started.

    Args:
        select: dbt selection (``["daily_punctuality+"]``); default is everything.
        full_refresh: rewrite tables whole, also those of strategy append, merge and replace_where.
        force: build the selected models even when nothing has changed.
        silver_versions: silver table → version to read; default is the newest that passed its blocking checks.
        on_event: called with each model's and test's result as it ends.
        project_dir: another dbt project than the installation's.

    Returns:
        What was done. A failed model or test is in the result (``ok``, ``raise_for_failures()``), not raised: the
        other models' versions stay staged, and ``publish`` refuses the result.

    Raises:
        GoldBuildError: the project does not parse, a model's configuration cannot work, or dbt itself failed.
        CheckFailed: a silver table has no version that passed its blocking checks.
    """
    started = time.perf_counter()
    folder = dbt_run.project_dir_of(settings, project_dir)
    project, _ = load_project(settings, folder)
    selected = _selection(settings, folder, project.models, select)
    plan = make_plan(
        lake,
        project,
        selected=selected,
        full_refresh=full_refresh,
        force=force,
        silver_versions=silver_versions,
        run_id=run_id,
    )
    if not plan.dbt_nodes and not plan.unit_nodes:
        result = outcomes.assemble(
            plan, BuildSession(lake, settings, silver={}, gold={}, plans={}), [], run_id
        )
    else:
        result = _run_dbt(lake, settings, folder, plan, run_id, on_event)
    if (
        plan.dbt_nodes or plan.unit_nodes or plan.retest
    ):  # without nodes: the last test of a table was removed
        outcomes.record(lake, result, plan)
    return replace(result, seconds=time.perf_counter() - started)


def _run_dbt(
    lake: Lake, settings: Settings, folder: Path, plan: BuildPlan, run_id: str, on_event: Listener | None
) -> GoldResult:
    session = BuildSession(
        lake,
        settings,
        silver={table: pin.snapshot for table, pin in plan.pins.items()},
        gold={name: base for name, (base, _) in plan.bases.items() if base is not None},
        plans=plan.writes,
    )
    results: list[Any] = []
    with session:
        try:
            for command, nodes in (("build", plan.dbt_nodes), ("test", plan.unit_nodes)):
                if nodes:
                    results += _results(settings, folder, plan, session, command, nodes, on_event)
            return outcomes.assemble(plan, session, results, run_id)
        finally:
            dbt_run.close_connections()


def _results(
    settings: Settings,
    folder: Path,
    plan: BuildPlan,
    session: BuildSession,
    command: str,
    nodes: Sequence[str],
    on_event: Listener | None,
) -> list[Any]:
    """What dbt says of these nodes. The plan names every one, tests too: dbt must not add tests of its own choosing."""
    found = dbt_run.run(
        settings,
        folder,
        [command, "--indirect-selection", "empty", "--select", *nodes],
        session=session.id,
        callback=outcomes.listener(plan, session, on_event),
    )
    results = getattr(found.result, "results", None)
    if found.exception is not None or results is None:
        trouble = found.exception and store_trouble(found.exception, "gold")
        if trouble:
            raise trouble from found.exception
        raise GoldBuildError(
            f"dbt failed before it ran a model: {found.exception}",
            hint=f"read {dbt_run.work_dir(settings, folder)}/logs/dbt.log",
        ) from (found.exception if isinstance(found.exception, Exception) else None)
    return list(results)


def _selection(
    settings: Settings, folder: Path, models: Mapping[str, Any], select: Sequence[str] | None
) -> set[str] | None:
    """The names of the selected models, None for all. Plain names need no dbt."""
    if not select:
        return None
    if all(name in models for name in select):
        return set(select)
    plain = [name for name in select if name.isidentifier() and name not in models]
    if plain:
        raise GoldBuildError(
            f"gold has no model called {', '.join(plain)}", hint=f"one of: {', '.join(sorted(models))}"
        )
    return dbt_run.list_models(settings, folder, select)
