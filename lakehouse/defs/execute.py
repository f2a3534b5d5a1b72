"""Runs from the command line: the same job, in this process, recorded where the UI shows it.

Dagster is imported only when there is something to run: a look that finds nothing new takes a fraction of the
time that the import alone would.
"""

from __future__ import annotations

import difflib
import gc
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakehouse import hold, names
from lakehouse.defs.outcome import CheckLine, Progress, RunOutcome, StepOutcome
from lakehouse.errors import DeclarationError
from lakehouse.gold.dbt_run import load_project
from lakehouse.gold.publish import current_point, heal
from lakehouse.ops import backlog, failures
from lakehouse.ops.work import Work, decide
from lakehouse.pipelines import Pipeline, load_pipelines
from lakehouse.settings import Settings
from lakehouse.silver import Backfilled, Period
from lakehouse.silver.scope import days_column
from lakehouse.storage import Lake

if TYPE_CHECKING:
    import dagster as dg

    from lakehouse.defs.report import Recorder
    from lakehouse.defs.runtime import Runtime
    from lakehouse.ops.profile import Profile

__all__ = ["CheckLine", "Progress", "RunOutcome", "StepOutcome", "parse_selection", "run_pipelines"]


def run_pipelines(
    settings: Settings,
    select: Sequence[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    profile: Profile | None = None,
) -> RunOutcome:
    """Run what is due, or what is selected, and wait for it.

    Args:
        select: names of pipelines (``flights``), ``gold``, ``gold/<model>`` or ``catalog``; what follows from
            them is run too. None: everything with news, also what failed before, whatever its back-off.
        progress: called from this thread as things happen.
        profile: takes what each stage took; the stages then run one after the other.

    Raises:
        DeclarationError: a declaration is wrong, or the selection names nothing that exists.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
        TransientError: the store did not answer the first look.
    """
    started = time.monotonic()
    pipelines = load_pipelines(settings)
    lake = Lake.from_settings(settings)
    if hold.current(lake) is not None:
        heal(lake, settings)  # the rollback may have been another machine's
        hold.refuse(lake)
    project = load_project(settings)[0]
    sources: list[str]
    models: list[str] | None
    if select:
        sources, models = parse_selection(select, list(pipelines), list(project.models))
    else:
        work = _everything_due(lake, settings, pipelines, project.code_hash)
        sources = sorted({*work.sources, *work.retries})
        models = list(project.models) if work.with_gold or sources else None
    if not sources and models is None:
        point = heal(lake, settings)
        return RunOutcome(
            nothing_new=True, seconds=time.monotonic() - started, published=point.id if point else None
        )
    return _outcome(_run(settings, pipelines, sources, models, progress, profile), lake, started)


def run_backfill(
    settings: Settings,
    table: str,
    period: Period,
    *,
    actor: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> tuple[RunOutcome, Backfilled | None]:
    """Apply a backfill, check what it made, and publish it, in one run that the UI shows in the table's lineage.

    Returns what the run did, and what the backfill did: None when it failed.

    Raises:
        DeclarationError: there is no such pipeline, or it does not say which column its days are in.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
        TransientError: the store did not answer the first look.
    """
    import dagster as dg

    from lakehouse.defs.backfill import DAYS_TAG, backfill_key, partition_tags
    from lakehouse.defs.runtime import Runtime

    started = time.monotonic()
    hold.refuse(Lake.from_settings(settings))
    pipelines = load_pipelines(settings)
    partition = days_column(find_pipeline(pipelines, table))
    models = list(load_project(settings)[0].models)
    tags = {
        DAYS_TAG: f"{period.first}/{period.last}",
        **partition_tags(partition, period, datetime.now(UTC).date()),
    }
    if actor:
        tags["user"] = actor
    runtime = Runtime(settings, pipelines)
    with _prepared(runtime, progress) as (definitions, instance, recorder):
        silver = dg.AssetKey(names.asset_key("silver", table))
        keys = [backfill_key(table), silver, *_gold_keys(models)]
        # Not the ordinary job: that one has no partitions.
        job = definitions.resolve_implicit_global_asset_job_def()
        _execute_keys(job, instance, recorder, keys, tags)
    done = runtime.backfilled.get(recorder.run_ids[0])
    return _outcome(recorder, Lake.from_settings(settings), started), done


def find_pipeline(pipelines: Mapping[str, Pipeline], table: str) -> Pipeline:
    """The pipeline of this name. Raises ``DeclarationError`` when there is none."""
    if table not in pipelines:
        near = difflib.get_close_matches(table, list(pipelines), 1)
        raise DeclarationError(
            f"no pipeline is named {table!r}" + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"pipelines: {', '.join(pipelines) or 'none'}",
        )
    return pipelines[table]


def _outcome(recorder: Recorder, lake: Lake, started: float) -> RunOutcome:
    point = current_point(lake)
    return RunOutcome(
        run_ids=tuple(recorder.run_ids),
        success=recorder.success,
        seconds=time.monotonic() - started,
        steps=tuple(recorder.steps.values()),
        checks=tuple(recorder.checks.values()),
        rows=recorder.rows,
        published=point.id if point else None,
    )


def parse_selection(
    select: Sequence[str], sources: Sequence[str], models: Sequence[str]
) -> tuple[list[str], list[str] | None]:
    """Pipelines and gold models that a selection names; no models means the catalog alone. Raises ``DeclarationError`` for a name of neither."""
    chosen_sources: list[str] = []
    chosen_models: list[str] | None = None
    for item in select:
        name = item.split("/", 1)[-1]
        layer = item.split("/", 1)[0] if "/" in item else ""
        if item in ("catalog", "publish", "catalog/gold"):
            chosen_models = chosen_models or []
        elif item == "gold":
            chosen_models = list(models)
        elif layer == "gold" and name in models:
            chosen_models = [*(chosen_models or []), name]
        elif layer in ("", "bronze", "silver") and name in sources:
            chosen_sources.append(name)
        elif layer == "" and name in models:
            chosen_models = [*(chosen_models or []), name]
        else:
            known = [*sources, *models, *(f"gold/{model}" for model in models), "gold", "catalog"]
            near = difflib.get_close_matches(item, known, 1) or difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise DeclarationError(
                f"--select {item}: there is no such pipeline or gold table{meant}",
                hint=f"pipelines: {', '.join(sources) or 'none'}; gold, gold/<table>, catalog",
            )
    return list(dict.fromkeys(chosen_sources)), list(models) if chosen_sources else chosen_models


def _everything_due(
    lake: Lake, settings: Settings, pipelines: Mapping[str, Pipeline], code_hash: str
) -> Work:
    seen = backlog.look(lake, settings, pipelines)
    # No back-off: somebody is at the keyboard and wants it tried now.
    found = failures.open_failures(lake)
    return decide(seen, found, datetime.max.replace(tzinfo=UTC), gold_code_hash=code_hash, first_wait_s=0.0)


def _run(
    settings: Settings,
    pipelines: Mapping[str, Pipeline],
    sources: Sequence[str],
    models: Sequence[str] | None,
    progress: Callable[[Progress], None] | None,
    profile: Profile | None,
) -> Recorder:
    """One run of everything; when a pipeline failed before gold, another of gold for the others."""
    from lakehouse.defs.compose import JOB
    from lakehouse.defs.runtime import Runtime

    runtime = Runtime(settings, pipelines, profile=profile)
    with _prepared(runtime, progress) as (definitions, instance, recorder):
        job = definitions.resolve_job_def(JOB)
        _execute(job, instance, recorder, sources, models)
        failed = recorder.failed_sources
        if failed and models is not None and "publish" not in recorder.steps_that_ran:
            healthy = [source for source in sources if source not in failed]
            _execute(job, instance, recorder, healthy, models)
    return recorder


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cycles as objects are made, and goes through everything that stays each time it looks at all.

    The modules and definitions of Dagster and dbt are half a million objects that stay: by Python's own measure a tenth
    of a short run goes there. Rows are no part of it: frames are freed when the last name for them goes.
    """
    before = gc.get_threshold()
    gc.set_threshold(20_000, 10, 10)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _prepared(
    runtime: Runtime, progress: Callable[[Progress], None] | None
) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance, Recorder]]:
    """Definitions, an instance without the runs of dead processes, and a listener; Dagster's own log is off."""
    with _rare_collections():
        from lakehouse.defs.compose import definitions_for
        from lakehouse.defs.instance import open_instance
        from lakehouse.defs.report import Recorder, quiet
        from lakehouse.defs.workers import note_reaped, reap

        with quiet(), open_instance(runtime.settings) as instance:
            note_reaped(reap(instance), runtime.lake, runtime.settings)
            definitions = definitions_for(runtime.settings, runtime.pipelines, runtime=runtime)
            yield definitions, instance, Recorder(progress)


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    recorder: Recorder,
    sources: Sequence[str],
    models: Sequence[str] | None,
) -> None:
    from lakehouse.defs.sensors import run_tags, stage_keys

    keys = stage_keys(sources)
    if models is not None:
        keys += _gold_keys(models)
    _execute_keys(job, instance, recorder, keys, run_tags("cli", sources))


def _gold_keys(models: Sequence[str]) -> list[dg.AssetKey]:
    import dagster as dg

    from lakehouse.defs.catalog import CATALOG

    return [*(dg.AssetKey(names.asset_key("gold", model)) for model in models), CATALOG]


def _execute_keys(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    recorder: Recorder,
    keys: Sequence[dg.AssetKey],
    tags: Mapping[str, str],
) -> None:
    from lakehouse.defs.workers import worker_tag

    run_id = str(uuid.uuid4())
    recorder.begin(run_id, keys)
    instance.add_event_listener(run_id, recorder.on_event)
    arguments: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    job.execute_in_process(
        instance=instance,
        run_id=run_id,
        asset_selection=keys,
        raise_on_error=False,
        run_config=arguments,
        tags={**tags, **worker_tag()},
    )
