"""Freshness as it is observed: read the lake, assess, keep the history, and say it to whoever asks.

``observe`` is one look; ``record`` appends to ``ops.freshness`` what has changed since the last look, with the
instant from which it really holds, so that the error budget is exact however rarely somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from lakehouse.checks import failed_blocking
from lakehouse.errors import CommitConflict, GoldBuildError, StorageError
from lakehouse.gold.dbt_run import load_project
from lakehouse.gold.restore_points import load
from lakehouse.ops import backlog, budget, failures
from lakehouse.ops.backlog import Backlog
from lakehouse.ops.freshness import Obstacle, Silence, TableFreshness, assess, silences
from lakehouse.ops.journal import Journal
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


@dataclass(frozen=True)
class Observation:
    """One look at freshness. ``tables`` has every gold table, the latest first."""

    at_utc: datetime
    tables: tuple[TableFreshness, ...]
    silent: tuple[Silence, ...]
    backlog: Backlog

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
) -> Observation:
    """Look at every gold table now. Writes nothing.

    Raises:
        TransientError: the store did not answer.
    """
    now = now_utc or datetime.now(UTC)
    seen = backlog.look(lake, settings, pipelines, listing=listing, now_utc=now)
    states = assess(
        now,
        feeds(settings, pipelines, seen),
        seen.waiting,
        obstacles(lake, seen),
        warn_after_s=settings.sla_warn_minutes * 60,
        fail_after_s=settings.sla_fail_minutes * 60,
    )
    cadences = {name: p.spec.source.cadence for name, p in pipelines.items()}
    silent = silences(now, seen.last_arrivals, {name: every for name, every in cadences.items() if every})
    return Observation(now, tuple(states), tuple(silent), seen)


def feeds(settings: Settings, pipelines: Mapping[str, Pipeline], seen: Backlog) -> dict[str, frozenset[str]]:
    """Gold table → the pipelines whose rows it is made of, from dbt's own lineage.

    While the project does not parse, every published table counts as fed by every pipeline: a broken model must
    not silence the SLA.
    """
    try:
        project, _ = load_project(settings)
    except GoldBuildError:
        published = seen.point.versions("gold") if seen.point else {}
        return dict.fromkeys(published, frozenset(pipelines))
    return {
        model.name: frozenset(project.silver_inputs(model.name)) & frozenset(pipelines)
        for model in project.delta_models
    }


def obstacles(lake: Lake, seen: Backlog) -> list[Obstacle]:
    """What failed and has not succeeded since: stages, and blocking checks of versions that wait for publishing."""
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
    log = _journal(lake)
    page = log.read()
    newest = {
        row["table"]: row
        for row in page.rows.sort("since_utc", "observed_at_utc", maintain_order=True).iter_rows(named=True)
    }
    rows = [
        row
        for state in observation.tables
        for row in _changes(lake, state, newest.get(state.table), settings, observation)
    ]
    try:
        log.append(rows, after=page)
    except CommitConflict:
        return 0  # another process wrote the same change
    return len(rows)


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
    since = observation.at_utc
    if before is not None and _WORSE.index(state.status) < _WORSE.index(before["status"]):
        # What is next in the row says nothing of when that before it ended.
        since = _ended_utc(lake, before, observation)
    elif state.oldest_arrival_utc is not None and threshold_min is not None:
        since = state.oldest_arrival_utc + timedelta(minutes=threshold_min)
    if before is not None:
        since = max(since, before["since_utc"])
    point = observation.backlog.point
    return [
        {
            "observed_at_utc": observation.at_utc,
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


def _ended_utc(lake: Lake, before: Mapping[str, Any], observation: Observation) -> datetime:
    """When a table stopped being as late as ``before`` says: with the publish of what it waited for, or only now.

    A file may also be removed or set aside, and then no publish ended it: neither an earlier one nor one of other sources.
    """
    point = observation.backlog.point
    if point is None or point.id == before["restore_point"]:
        return observation.at_utc
    published = datetime.fromisoformat(point.created_at_utc).astimezone(UTC)
    if not before["since_utc"] < published <= observation.at_utc:
        return observation.at_utc
    try:
        then = load(lake, before["restore_point"]).sources if before["restore_point"] else {}
    except StorageError:
        return published  # that point is expired: many publishes ago
    moved = any(point.sources.get(source) != then.get(source) for source in before["late_sources"] or ())
    return published if moved else observation.at_utc


def error_budget(lake: Lake, settings: Settings, now_utc: datetime | None = None) -> budget.ErrorBudget:
    """What is left of the error budget of the last 30 days."""
    return budget.from_history(
        _journal(lake).read().rows, now_utc or datetime.now(UTC), settings.sla_target_percent
    )


def summary(states: Sequence[TableFreshness]) -> str:
    """One line for a log: ``12 gold tables fresh`` or the late ones with their lag."""
    late = [state for state in states if state.status != "fresh"]
    if not late:
        return f"{len(states)} gold tables fresh"
    return ", ".join(f"gold.{s.table} {s.status}, {s.lag_s / 60:.1f} min behind at {s.hop}" for s in late)
