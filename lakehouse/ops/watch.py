"""Freshness as it is observed: read the lake, assess, keep the history, and say it to whoever asks.

``observe`` is one look; ``record`` appends to ``ops.freshness`` what has changed since the last look, with the
instant from which it really holds, so that the error budget is exact however rarely somebody looks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lakehouse import hold
from lakehouse.checks import failed_blocking
from lakehouse.errors import CommitConflict, GoldBuildError, StorageError
from lakehouse.gold.dbt_run import load_project
from lakehouse.gold.restore_points import RestorePoint, load
from lakehouse.ops import backlog, budget, failures, listings
from lakehouse.ops.backlog import Backlog
from lakehouse.ops.freshness import Obstacle, Silence, TableFreshness, Waiting, assess, silences
from lakehouse.ops.journal import Journal, Page, newest_by
from lakehouse.ops.listings import Loss
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake

SCHEMA: dict[str, pl.DataType] = {
    "observed_at_utc": pl.Datetime("us", "UTC"),
    "since_utc": pl.Datetime("us", "UTC"),
    "table": pl.String(),
    "status": pl.String(),  # fresh | warn | breach
    "lag_s": pl.Float64(),
    "oldest_arrival_utc": pl.Datetime("us", "UTC"),
    "late_sources": pl.List(pl.String()),
    "hop": pl.String(),
    "reason": pl.String(),
    "restore_point": pl.String(),
}
#: Every status, the better one first.
_WORSE = ("fresh", "warn", "breach")
_NEWEST = newest_by("table", ["since_utc", "observed_at_utc"])


@dataclass(frozen=True)
class Observation:
    """One look at freshness. ``tables`` has every gold table, the latest first.

    ``lost`` are the sources that cannot be listed; None when this look listed none. ``knows_models`` is False while the
    dbt project does not parse: a table that is missing then need not be gone.
    """

    at_utc: datetime
    tables: tuple[TableFreshness, ...]
    silent: tuple[Silence, ...]
    backlog: Backlog
    lost: Mapping[str, Loss] | None = field(default_factory=dict)
    knows_models: bool = True

    @property
    def worst_lag_s(self) -> float:
        return max((state.lag_s for state in self.tables), default=0.0)


def observe(
    lake: Lake,
    settings: Settings,
    pipelines: Mapping[str, Pipeline],
    *,
    now_utc: datetime | None = None,
    listing: bool = True,
    left_out: Mapping[str, str] | None = None,
) -> Observation:
    """Look at every gold table now. Writes nothing.

    Args:
        left_out: pipelines whose declaration cannot be loaded, and why: what comes for them is seen by nobody.

    Raises:
        TransientError: the store did not answer.
    """
    now = now_utc or datetime.now(UTC)
    seen = backlog.look(lake, settings, pipelines, listing=listing, now_utc=now)
    wrong = left_out or {}
    lost = _lost(lake, settings, seen, now, wrong) if listing else listings.losses(lake)
    unseen = {name: loss for name, loss in lost.items() if name in wrong or _may_be_older(seen, name, loss)}
    seen = replace(
        seen, waiting={**seen.waiting, **{name: _unseen(name, unseen[name], now) for name in unseen}}
    )
    fed, knows_models = feeds(settings, {*pipelines, *wrong}, seen)
    states = assess(
        now,
        fed,
        seen.waiting,
        [
            *obstacles(lake, seen),
            *(_wrong(n, loss) if n in wrong else _not_listable(n, loss) for n, loss in unseen.items()),
        ],
        warn_after_s=settings.sla_warn_minutes * 60,
        fail_after_s=settings.sla_fail_minutes * 60,
    )
    cadences = {name: p.spec.source.cadence for name, p in pipelines.items()}
    silent = silences(now, seen.last_arrivals, {name: every for name, every in cadences.items() if every})
    return Observation(now, tuple(states), tuple(silent), seen, lost if listing else None, knows_models)


def _lost(
    lake: Lake, settings: Settings, seen: Backlog, now: datetime, left_out: Mapping[str, str]
) -> dict[str, Loss]:
    """The sources that cannot be listed, each with the time from which on something of it may be waiting."""
    errors = {name: item.error for name, item in seen.news.items() if item.error} | dict(left_out)
    if not errors:
        return {}
    before, newest = listings.losses(lake), _by_table(_journal(lake).read_newest(_NEWEST))
    return {
        name: before.get(name) or Loss(_waiting_since(lake, settings, seen, name, newest, now), error)
        for name, error in errors.items()
    }


def _waiting_since(
    lake: Lake,
    settings: Settings,
    seen: Backlog,
    source: str,
    newest: Mapping[str, Mapping[str, Any]],
    now: datetime,
) -> datetime:
    """Since when something of a source may be waiting that cannot be listed any more: what the last look knew, or now."""
    batch = seen.waiting.get(source)
    instants = []
    for row in newest.values():
        arrived = row["oldest_arrival_utc"]
        if arrived is None or source not in (row["late_sources"] or ()):
            continue
        if batch is not None and batch.oldest_arrival_utc <= arrived:
            continue  # that is what the ledger still tells
        # While a table is not late no row is written when its oldest thing is published and the next one is the oldest.
        is_doubtful = row["status"] == "fresh" and now - arrived >= timedelta(
            minutes=settings.sla_warn_minutes
        )
        if not is_doubtful and not (seen.point and _has_moved(lake, row, seen.point)):
            instants.append(arrived)
    # Each is of the oldest of several sources: what waits of this one did not come before any of them.
    return max(instants, default=now)


def _may_be_older(seen: Backlog, source: str, loss: Loss) -> bool:
    """True unless a batch of the source is known to wait for longer."""
    if source not in seen.positions:
        return False
    waiting = seen.waiting.get(source)
    return waiting is None or loss.since_utc < waiting.oldest_arrival_utc


def _unseen(source: str, loss: Loss, now: datetime) -> Waiting:
    queue_s = max(0.0, (now - loss.since_utc).total_seconds())
    return Waiting(source, "queue", loss.since_utc, files=0, hop_seconds={"queue": queue_s})


def _not_listable(source: str, loss: Loss) -> Obstacle:
    """In the same words for every source, so that a store which is away is one incident."""
    what = "cannot be listed, so nobody knows what has arrived"
    return Obstacle("queue", source, what, loss.since_utc, "lakehouse status says why; then lakehouse run")


def _wrong(source: str, loss: Loss) -> Obstacle:
    what = f"its declaration cannot be loaded, so nobody takes what arrives: {loss.error.splitlines()[0]}"
    return Obstacle("queue", source, what, loss.since_utc, "lakehouse validate")


def feeds(
    settings: Settings, pipelines: Collection[str], seen: Backlog
) -> tuple[dict[str, frozenset[str]], bool]:
    """Gold table → the pipelines whose rows it is made of, from dbt's own lineage; and whether that is known.

    While the project does not parse, every published table counts as fed by every pipeline: a broken model must
    not silence the SLA.
    """
    try:
        project, _ = load_project(settings)
    except GoldBuildError:
        published = seen.point.versions("gold") if seen.point else {}
        return dict.fromkeys(published, frozenset(pipelines)), False
    fed = {
        model.name: frozenset(project.silver_inputs(model.name)) & frozenset(pipelines)
        for model in project.delta_models
    }
    return fed, True


def obstacles(lake: Lake, seen: Backlog) -> list[Obstacle]:
    """What failed and has not succeeded since: stages, and blocking checks of versions that wait for publishing. While the lake is
    held after a rollback, that alone: nothing else can be done about anything."""
    if (held := hold.current(lake)) is not None:
        since = datetime.fromisoformat(held.since_utc)
        return [Obstacle("publish", None, f"runs are held: {held.why}", since, held.next_step)]
    found = [failure.obstacle() for failure in failures.open_failures(lake).values()]
    known = {(obstacle.hop, obstacle.source) for obstacle in found}
    versions = {}
    for source in seen.unpublished:
        if ("silver", source) not in known and (snapshot := lake.table("silver", source).snapshot_or_none()):
            versions[f"silver/{source}"] = snapshot.version
    for outcome in failed_blocking(lake, versions):
        since = outcome.checked_at_utc or datetime.now(UTC)
        what = f"check {outcome.check} of {outcome.layer}.{outcome.table}: {outcome.message}"
        found.append(Obstacle("silver", outcome.table, what, since, outcome.recovery, is_gate=True))
    return found


def _journal(lake: Lake) -> Journal:
    return Journal(
        lake, "freshness", SCHEMA, "Changes of the freshness of gold tables; a state holds until the next."
    )


def record(lake: Lake, settings: Settings, observation: Observation) -> int:
    """Append the tables whose status or hop changed; the number of rows. Nothing changed, nothing is written."""
    if observation.lost is not None:
        listings.note(lake, observation.at_utc, observation.lost)
    log = _journal(lake)
    page = log.read_newest(_NEWEST)
    newest = _by_table(page)
    present = {state.table for state in observation.tables}
    # A table that no model makes any more is late no more: what was open of it would be counted for ever.
    gone = [
        TableFreshness(table, "fresh", 0.0, reason="no model makes this table any more")
        for table in sorted(set(newest) - present)
        if observation.knows_models
    ]
    rows = [
        row
        for state in (*observation.tables, *gone)
        for row in _changes(lake, state, newest.get(state.table), settings, observation)
    ]
    try:
        log.append(rows, after=page)
    except CommitConflict:
        return 0  # another process wrote the same change
    return len(rows)


def _by_table(page: Page) -> dict[str, dict[str, Any]]:
    return {row["table"]: row for row in page.rows.iter_rows(named=True)}


def _changes(
    lake: Lake,
    state: TableFreshness,
    before: Mapping[str, Any] | None,
    settings: Settings,
    observation: Observation,
) -> list[dict[str, object]]:
    """The row for a changed state; two when a breach began and ended between two looks is not knowable here."""
    if before is not None and (before["status"], before["hop"]) == (state.status, state.hop):
        return []
    threshold_min = {"fresh": None, "warn": settings.sla_warn_minutes, "breach": settings.sla_fail_minutes}[
        state.status
    ]
    since, observed = observation.at_utc, observation.at_utc
    if before is not None and _WORSE.index(state.status) < _WORSE.index(before["status"]):
        # What is next in the row says nothing of when that before it ended.
        since = _ended_utc(lake, before, observation)
    elif state.oldest_arrival_utc is not None and threshold_min is not None:
        since = state.oldest_arrival_utc + timedelta(minutes=threshold_min)
        # What a rollback undid had been published until then.
        since = max(since, _went_back_utc(lake, observation.backlog.point) or since)
    if before is not None:
        since = max(since, before["since_utc"])
        # The newest row holds, also where a clock was set back.
        observed = max(observed, before["observed_at_utc"] + timedelta(microseconds=1))
    point = observation.backlog.point
    return [
        {
            "observed_at_utc": observed,
            "since_utc": since,
            "table": state.table,
            "status": state.status,
            "lag_s": state.lag_s,
            "oldest_arrival_utc": state.oldest_arrival_utc,
            "late_sources": list(state.late_sources),
            "hop": state.hop,
            "reason": state.reason,
            "restore_point": point.id if point else None,
        }
    ]


def _went_back_utc(lake: Lake, point: RestorePoint | None) -> datetime | None:
    """Since when readers see a point that a rollback went back to; None where they see what was published last."""
    if (held := hold.current(lake)) is not None:
        return datetime.fromisoformat(held.since_utc)
    return (
        None if point is None or point.restored_from is None else datetime.fromisoformat(point.created_at_utc)
    )


def _ended_utc(lake: Lake, before: Mapping[str, Any], observation: Observation) -> datetime:
    """When a table stopped being as late as ``before`` says: with the publish of what it waited for, or only now.

    A file may also be removed or set aside, and then no publish ended it: neither an earlier one nor one of other sources.
    """
    point = observation.backlog.point
    if point is None:
        return observation.at_utc
    published = datetime.fromisoformat(point.created_at_utc).astimezone(UTC)
    if not before["since_utc"] < published <= observation.at_utc:
        return observation.at_utc
    return published if _has_moved(lake, before, point) else observation.at_utc


def _has_moved(lake: Lake, before: Mapping[str, Any], point: RestorePoint) -> bool:
    """True when something of the sources that a row names was published since the row was written."""
    if point.id == before["restore_point"]:
        return False
    try:
        then = load(lake, before["restore_point"]).sources if before["restore_point"] else {}
    except StorageError:
        return True  # that point is expired: many publishes ago
    return any(point.sources.get(source) != then.get(source) for source in before["late_sources"] or ())


def error_budget(lake: Lake, settings: Settings, now_utc: datetime | None = None) -> budget.ErrorBudget:
    """What is left of the error budget of the last 30 days."""
    now, log = now_utc or datetime.now(UTC), _journal(lake)
    start = now - budget.WINDOW
    held_then = log.read_newest_before("table", "since_utc", start).select(budget.COLUMNS)
    since_then = log.read(pl.col("since_utc") >= start, columns=budget.COLUMNS).rows
    return budget.from_history(pl.concat([held_then, since_then]), now, settings.sla_target_percent)


def summary(states: Sequence[TableFreshness]) -> str:
    """One line for a log: ``12 gold tables fresh`` or the late ones with their lag."""
    late = [state for state in states if state.status != "fresh"]
    if not late:
        return f"{len(states)} gold tables fresh"
    return ", ".join(f"gold.{s.table} {s.status}, {s.lag_s / 60:.1f} min behind at {s.hop}" for s in late)
