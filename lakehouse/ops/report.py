"""The state of the whole lake in one value: what `status` prints and what the demo ends with. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lakehouse import checks, hold, quarantine
from lakehouse.errors import TableNotFound
from lakehouse.events import Event, recent
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.hold import Hold
from lakehouse.ledger import Ledger
from lakehouse.names import Layer
from lakehouse.ops import backlog, failures, watch
from lakehouse.ops.budget import ErrorBudget
from lakehouse.ops.freshness import Silence, TableFreshness
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake


@dataclass(frozen=True)
class PipelineState:
    """One pipeline. ``lag_s`` is the age of the oldest thing that arrived and is not published; 0 when none.

    ``quarantined_rows`` were ever refused = open (waiting for somebody) + released + resolved.
    """

    name: str
    group: str
    mode: str
    lag_s: float
    hop: str | None
    last_batch: int
    last_arrival_utc: datetime | None
    waiting_files: int
    bronze_rows: int | None
    silver_rows: int | None
    quarantined_rows: int
    open_rows: int
    released_rows: int
    resolved_rows: int
    problem: str | None


@dataclass(frozen=True)
class GoldState:
    """One published gold table. ``status`` is fresh, warn or breach; ``complete_to_utc`` its watermark."""

    table: str
    status: str
    lag_s: float
    hop: str
    reason: str
    rows: int | None
    version: int | None
    complete_to_utc: str | None


@dataclass(frozen=True)
class HeldFile:
    """A file that came with new content under a known name, and waits for `lakehouse accept`."""

    pipeline: str
    path: str
    size_bytes: int
    note: str


#: What happened longer ago is in ``ops.events``.
EVENTS_SINCE = timedelta(days=7)


@dataclass(frozen=True)
class Overview:
    """Everything. ``point`` is None before the first publish; ``held`` are files that wait for somebody, ``hold`` is what keeps
    all runs back after a rollback; ``problems`` are those of gold and of publishing."""

    at_utc: datetime
    root: str
    catalog: str
    point: RestorePoint | None
    pipelines: tuple[PipelineState, ...]
    gold: tuple[GoldState, ...]
    silent: tuple[Silence, ...]
    budget: ErrorBudget
    problems: tuple[str, ...] = ()
    held: tuple[HeldFile, ...] = ()
    events: tuple[Event, ...] = ()
    hold: Hold | None = None


def overview(lake: Lake, settings: Settings, pipelines: Mapping[str, Pipeline]) -> Overview:
    """Look at everything once. Raises TransientError when the store does not answer."""
    seen = watch.observe(lake, settings, pipelines)
    waiting = seen.backlog
    lake.open_ahead(("gold", state.table) for state in seen.tables)
    lake.open_ahead(("quarantine", name) for name in lake.tables("quarantine"))
    held = quarantine.state_counts(lake)
    failed = failures.open_failures(lake).values()
    problems: dict[str | None, str] = {
        failure.source: failure.message.splitlines()[0] for failure in failed if failure.source
    }
    states = tuple(
        _pipeline(lake, pipeline, waiting, seen.at_utc, held, problems) for pipeline in pipelines.values()
    )
    return Overview(
        at_utc=seen.at_utc,
        root=settings.root,
        catalog=str(settings.catalog_path),
        point=waiting.point,
        pipelines=states,
        gold=tuple(_gold(lake, state, waiting.point) for state in seen.tables),
        silent=seen.silent,
        budget=watch.error_budget(lake, settings),
        problems=tuple(
            f"{failure.stage}: {failure.message.splitlines()[0]}. Next: {failure.next_step}"
            for failure in failed
            if not failure.source
        ),
        held=_held(lake, pipelines),
        events=tuple(recent(lake, since_utc=seen.at_utc - EVENTS_SINCE)),
        hold=hold.current(lake),
    )


def _pipeline(
    lake: Lake,
    pipeline: Pipeline,
    seen: backlog.Backlog,
    now: datetime,
    held: Mapping[str, quarantine.Counts],
    problems: Mapping[str | None, str],
) -> PipelineState:
    name = pipeline.name
    waiting = seen.waiting.get(name)
    news = seen.news.get(name)
    refused = held.get(name, quarantine.Counts(0, 0, 0, 0, 0))
    return PipelineState(
        name=name,
        group=pipeline.spec.group,
        mode=pipeline.spec.silver.mode,
        lag_s=(now - waiting.oldest_arrival_utc).total_seconds() if waiting else 0.0,
        hop=waiting.hop if waiting else None,
        last_batch=seen.positions[name].planned,
        last_arrival_utc=seen.last_arrivals.get(name),
        waiting_files=waiting.files if waiting else 0,
        bronze_rows=_rows(lake, "bronze", name),
        silver_rows=_rows(lake, "silver", name),
        quarantined_rows=refused.refused,
        open_rows=refused.waiting,
        released_rows=refused.released,
        resolved_rows=refused.resolved,
        problem=problems.get(name) or (news.error if news else None),
    )


def _held(lake: Lake, pipelines: Mapping[str, Pipeline]) -> tuple[HeldFile, ...]:
    ledger = Ledger(lake)
    return tuple(
        HeldFile(name, file.path, file.size_bytes, note)
        for name in pipelines
        for file, note in ledger.held(name)
    )


def _gold(lake: Lake, state: TableFreshness, point: RestorePoint | None) -> GoldState:
    version = point.versions("gold").get(state.table) if point else None
    return GoldState(
        table=state.table,
        status=state.status if version is not None else "not published",
        lag_s=state.lag_s,
        hop=state.hop,
        reason=state.reason,
        rows=None if version is None else _rows(lake, "gold", state.table, version),
        version=version,
        complete_to_utc=point.watermarks.get(state.table) if point else None,
    )


def _rows(lake: Lake, layer: Layer, table: str, version: int | None = None) -> int | None:
    try:
        return lake.table(layer, table).snapshot(version).num_rows()
    except TableNotFound:
        return None


@dataclass(frozen=True)
class CheckCounts:
    """Checks of the published versions: every outcome counted once."""

    passed: int
    warned: int
    failed: int


def check_counts(lake: Lake, point: RestorePoint) -> CheckCounts:
    """What the checks of a point's table versions found."""
    found = checks.outcomes(lake, point.tables)
    warned = sum(1 for o in found if not o.passed and o.severity == "warn")
    failed = sum(1 for o in found if not o.passed and o.severity == "error")
    return CheckCounts(len(found) - warned - failed, warned, failed)


def as_json(value: Overview) -> dict[str, Any]:
    """The overview as plain values, for programs."""
    from dataclasses import asdict

    document = asdict(value)
    document["point"] = (
        None if value.point is None else {"id": value.point.id, "created_at_utc": value.point.created_at_utc}
    )
    document["budget"] = {
        **document["budget"],
        "remaining_s": value.budget.remaining_s,
        "good_percent": value.budget.good_percent,
    }
    document["at_utc"] = value.at_utc.astimezone(UTC)
    return document
