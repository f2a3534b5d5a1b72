"""The two sensors: one asks for runs when something has arrived, one watches the SLA. Neither keeps a cursor."""

# Without postponed annotations: Dagster reads the types of a sensor's parameters.

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from lakehouse import hold, names
from lakehouse.defs import workers
from lakehouse.defs.catalog import CATALOG
from lakehouse.defs.runtime import KEY, Runtime, runtime_of
from lakehouse.errors import DeclarationError, GoldBuildError
from lakehouse.gold import catalog
from lakehouse.gold.dbt_run import load_project
from lakehouse.gold.publish import heal
from lakehouse.gold.restore_points import current_point
from lakehouse.ops import alerts, backlog, failures, watch
from lakehouse.ops.work import FIRST_WAIT_INTERVALS, Work, decide, next_tries
from lakehouse.settings import Settings

LANE = "lakehouse/lane"
#: Dagster asks every five seconds whether a look is due. One of just under ten seconds ago is not, by milliseconds, and would be fifteen
#: seconds ago next time.
_LOOP_SLACK_S = 1
#: A run is made some moments after the look that asked for it. So the look at the end of the interval comes as much too early, and the next
#: would be a whole look too late: an interval that is all but over is over.
_AS_GOOD_AS_OVER = timedelta(seconds=5)
_IN_PROGRESS = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def sensor_definitions(
    settings: Settings, job: Any, gold_keys: Sequence[dg.AssetKey], problems: Sequence[str] = ()
) -> dg.Definitions:
    """Both sensors, running by default.

    Args:
        problems: what could not be loaded. Each look at the SLA ends with an error that says so, when it has done its work.
    """

    @dg.sensor(
        name="arrivals_sensor",
        job=job,
        minimum_interval_seconds=max(1, settings.sensor_interval_s - _LOOP_SLACK_S),
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={KEY},
        description="Asks for one run of every pipeline with news (listing minus ledger, or a batch that is not "
        "published yet), with gold and the catalog; not while one is in progress, nor just after one has begun. What "
        "keeps failing is retried apart, with back-off.",
    )
    def arrivals_sensor(context: dg.SensorEvaluationContext) -> Any:
        runtime = runtime_of(context)
        ended = workers.reap(context.instance)
        workers.note_reaped(ended, runtime.lake, runtime.settings)
        for run in ended:
            context.log.warning(
                f"run {run.run_id} had no process any more; it is ended, its work is done again"
            )
        if (rolled_back := hold.current(runtime.lake)) is not None:
            _show_published(context, runtime)
            return dg.SkipReason(f"{rolled_back.why}; runs are held until: {rolled_back.next_step}")
        if _in_progress(context, "main"):
            held: str | None = "a run is in progress; what has arrived is taken by the next one"
        else:
            _show_published(context, runtime)
            held = _too_soon(context, runtime.settings)
        if held and not _retry_is_due(context, runtime):
            return dg.SkipReason(held)  # nothing can be asked for: the sources are not listed for nothing
        seen = backlog.look(runtime.lake, runtime.settings, runtime.pipelines)
        for name, item in seen.news.items():
            if item.error:
                context.log.error(f"source {name} cannot be listed: {item.error}")
        work = _decide(runtime, seen)
        main = None if held else _main(work, gold_keys)
        requests = [request for request in (main, _retry(context, work)) if request is not None]
        return requests or dg.SkipReason(held or _why_not(work))

    @dg.sensor(
        name="sla_sensor",
        minimum_interval_seconds=settings.sla_interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={KEY},
        job=job,
        description="Works out the arrival lag of every gold table and sends one alert each on warning, on breach "
        "and on recovery. Requests no runs.",
    )
    def sla_sensor(context: dg.SensorEvaluationContext) -> Any:
        runtime = runtime_of(context)
        seen = watch_once(context, runtime)
        if problems:
            raise DeclarationError(
                "left out until it is corrected: " + "; ".join(problems), hint="lakehouse validate"
            )
        # Not logged: Dagster keeps a file for every look that logs something.
        silent = ", ".join(f"{s.source} since {s.last_arrival_utc:%Y-%m-%d %H:%M:%SZ}" for s in seen.silent)
        return dg.SkipReason(watch.summary(seen.tables) + (f"; silent: {silent}" if silent else ""))

    return dg.Definitions(sensors=[arrivals_sensor, sla_sensor])


def _show_published(context: dg.SensorEvaluationContext, runtime: Runtime) -> None:
    """Make the catalog show the current point: a publisher may have been killed between the two, or be elsewhere."""
    shown = "what is published"
    try:
        point = current_point(runtime.lake)
        if point is None or catalog.is_current(runtime.settings, point):
            return
        shown = f"point {point.id}"
        heal(runtime.lake, runtime.settings)
    except Exception as error:  # noqa: BLE001  whatever it is, what has arrived is taken all the same; the next look tries again
        context.log.error(f"the catalog does not show {shown}, lakehouse doctor says why: {error}")
        return
    context.log.warning("the catalog did not show what is published; now it does")


def watch_once(context: dg.SensorEvaluationContext, runtime: Runtime) -> watch.Observation:
    """One look at the SLA: history and alerts."""
    seen = watch.observe(runtime.lake, runtime.settings, runtime.pipelines, left_out=runtime.left_out)
    watch.record(runtime.lake, runtime.settings, seen)
    for sent in alerts.tick(runtime.lake, runtime.settings, seen.tables, seen.at_utc):
        outcome = f"not delivered ({sent.error}), to be tried again" if sent.error else "delivered"
        context.log.warning(f"alert {sent.kind} of incident {sent.incident_id} to {sent.channel}: {outcome}")
    return seen


def _decide(runtime: Runtime, seen: backlog.Backlog) -> Work:
    try:
        code_hash = load_project(runtime.settings)[0].code_hash
    except GoldBuildError:
        code_hash = None
    return decide(
        seen,
        failures.open_failures(runtime.lake),
        datetime.now(UTC),
        gold_code_hash=code_hash,
        first_wait_s=_first_wait_s(runtime.settings),
    )


def _first_wait_s(settings: Settings) -> float:
    return FIRST_WAIT_INTERVALS * max(settings.sensor_interval_s, settings.run_interval_s)


def _too_soon(context: dg.SensorEvaluationContext, settings: Settings) -> str | None:
    """How long the next run has to wait after the last one, None when it may begin.

    Looks are more frequent than runs: after a run that took longer than the interval the next begins at once, and where
    little arrives, what came within the interval is one run and not several small ones.
    """
    newest = context.instance.get_run_records(RunsFilter(tags={LANE: "main"}), limit=1)
    if not newest:
        return None
    interval = timedelta(seconds=settings.run_interval_s)
    wait = interval - (datetime.now(UTC) - newest[0].create_timestamp)
    soon = min(_AS_GOOD_AS_OVER, timedelta(seconds=settings.sensor_interval_s) / 2, interval / 2)
    # A run that began in the future: the clock was set back, and nothing is known of how long ago it was.
    if not soon < wait <= interval:
        return None
    return (
        f"the last run began less than {settings.run_interval_s} s ago; what has arrived waits "
        f"{wait.total_seconds():.0f} s more"
    )


def _retry_is_due(context: dg.SensorEvaluationContext, runtime: Runtime) -> bool:
    """True when a source that failed may be tried again, which waits for no run of the others."""
    tries = next_tries(failures.open_failures(runtime.lake), _first_wait_s(runtime.settings))
    now = datetime.now(UTC)
    is_due = any(at <= now for name, at in tries.items() if name in runtime.pipelines)
    return is_due and not _in_progress(context, "retry")


def _main(work: Work, gold_keys: Sequence[dg.AssetKey]) -> dg.RunRequest | None:
    if not work.has_main:
        return None
    keys = stage_keys(work.sources)
    if work.with_gold:
        keys += [*gold_keys, CATALOG]
    return dg.RunRequest(asset_selection=keys, tags=run_tags("main", work.sources))


def _retry(context: dg.SensorEvaluationContext, work: Work) -> dg.RunRequest | None:
    if not work.retries or _in_progress(context, "retry"):
        return None
    return dg.RunRequest(asset_selection=stage_keys(work.retries), tags=run_tags("retry", work.retries))


def run_tags(lane: str, sources: Sequence[str]) -> dict[str, str]:
    """Which lane a run is in, and for which sources; a tag holds 255 characters."""
    return {LANE: lane, "lakehouse/sources": ",".join(sources)[:255] or "none, gold only"}


def stage_keys(sources: Sequence[str]) -> list[dg.AssetKey]:
    """Bronze and silver of these pipelines."""
    layers: tuple[names.Layer, ...] = ("bronze", "silver")
    return [dg.AssetKey(names.asset_key(layer, source)) for source in sources for layer in layers]


def _in_progress(context: dg.SensorEvaluationContext, lane: str) -> bool:
    runs = context.instance.get_runs(RunsFilter(tags={LANE: lane}, statuses=_IN_PROGRESS), limit=1)
    return bool(runs)


def _why_not(work: Work) -> str:
    if work.retries:
        return "a retry is in progress; what failed is tried again by the next one"
    if work.postponed:
        return "failed, next try: " + ", ".join(f"{n} at {t:%H:%M:%SZ}" for n, t in work.postponed.items())
    return "nothing new: all that has arrived is published"
