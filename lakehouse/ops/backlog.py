"""What has arrived and is not in published gold, per source, and the hop at which the oldest of it stands.

Computed from the listing, the ledger, the tables' own transactions and the current restore point: never from a
cursor. The sensor, the SLA and the command line all ask this one question here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lakehouse import names
from lakehouse.connectors import Batch, SourceFile
from lakehouse.errors import StorageError
from lakehouse.gold.catalog import point_shown
from lakehouse.gold.restore_points import RestorePoint, current_point
from lakehouse.ledger import Ledger, News, news
from lakehouse.ops.freshness import Hop, Waiting
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake

_STAGED: tuple[names.Layer, ...] = ("bronze", "silver")


@dataclass(frozen=True)
class Position:
    """How far one source has come: numbers of the last planned, landed, refined and published batch.

    ``rewritten``: a replay or a backfill has changed rows of silver, and published gold does not show it yet.
    """

    source: str
    planned: int
    bronze: int
    silver: int
    published: int
    rewritten: bool = False

    @property
    def hop(self) -> Hop | None:
        """Where its oldest unpublished batch stands; None when all that was planned is published."""
        if self.planned <= self.published:
            return None
        if self.published < self.silver:
            return "gold"
        return "silver" if self.silver < self.bronze else "bronze"


@dataclass(frozen=True)
class Backlog:
    """One look at everything: what is new, what is under way, and what analysts see."""

    news: Mapping[str, News]
    positions: Mapping[str, Position]
    waiting: Mapping[str, Waiting]
    last_arrivals: Mapping[str, datetime]
    point: RestorePoint | None

    @property
    def unstaged(self) -> list[str]:
        """Sources with something that bronze or silver has to do: arrived files, or planned batches."""
        behind = {p.source for p in self.positions.values() if p.silver < p.planned}
        return sorted(behind | {name for name, item in self.news.items() if item.files or item.changed})

    @property
    def unpublished(self) -> list[str]:
        """Sources with batches in silver, or rows changed by a replay or a backfill, that published gold has not."""
        return sorted(p.source for p in self.positions.values() if p.published < p.silver or p.rewritten)

    @property
    def is_empty(self) -> bool:
        """True when there is nothing to do: all that has arrived is published, and something ever was."""
        return not (self.unstaged or self.unpublished)


def look(
    lake: Lake,
    settings: Settings,
    pipelines: Mapping[str, Pipeline],
    *,
    listing: bool = True,
    now_utc: datetime | None = None,
) -> Backlog:
    """Read the state of the lake. Writes nothing.

    Args:
        listing: also list the sources; without it ``news`` is empty (for looks from within a run).

    Raises:
        TransientError: the store did not answer.
    """
    now = now_utc or datetime.now(UTC)
    ledger = Ledger(lake)
    point = current_point(lake)
    found = news(lake, settings, pipelines, ledger=ledger) if listing else {}
    lake.open_ahead((layer, name) for name in pipelines for layer in _STAGED)
    positions = {name: _position(lake, ledger, name, point) for name in pipelines}
    # What is published and not shown has reached nobody: it waits, although no run has anything to do for it.
    shown = None if point is None else point_shown(lake, settings, point)
    reached = (
        positions if shown == point else {name: _position(lake, ledger, name, shown) for name in pipelines}
    )
    waiting = {}
    arrivals = {}
    for name, position in reached.items():
        files = _to_be_taken(pipelines[name], found.get(name))
        held = _waiting(position, ledger.batches(name, above=position.published), files, now)
        if held is not None:
            waiting[name] = held
        newest = [ledger.newest_arrival_utc(name), *(file.modified_at_utc for file in files)]
        if known := [instant for instant in newest if instant is not None]:
            arrivals[name] = min(max(known), now)
    return Backlog(found, positions, waiting, arrivals, point)


def _position(lake: Lake, ledger: Ledger, source: str, point: RestorePoint | None) -> Position:
    published = int(point.sources.get(source, {}).get("batch_id") or 0) if point else 0
    done = {}
    rewritten = False
    for layer in _STAGED:
        try:
            snapshot = lake.table(layer, source).snapshot_or_none()
        except StorageError:
            # One table that cannot be read must not hide the others: its stage runs, fails and says why.
            done[layer] = published
            continue
        done[layer] = snapshot.txn(names.app_id(layer, source)) if snapshot else 0
        if layer == "silver" and snapshot is not None and point is not None:
            apps = [names.app_id(what, source) for what in ("replay", "backfill")]
            shown = point.txns.get(names.table_path("silver", source), {})
            rewritten = any(snapshot.txn(app) > shown.get(app, 0) for app in apps)
    return Position(
        source, ledger.last_batch_id(source), done["bronze"], done["silver"], published, rewritten
    )


def _to_be_taken(pipeline: Pipeline, item: News | None) -> tuple[SourceFile, ...]:
    """What the next plan makes batches of. Changed files only where they are taken: else they wait for a person."""
    if item is None:
        return ()
    return (*item.files, *item.changed) if pipeline.spec.source.on_change == "append" else item.files


def _arrival_utc(batch: Batch) -> datetime:
    """A file's own time may lie in the future; it was there when it was planned."""
    return min(batch.oldest_arrival_utc, batch.planned_at_utc)


def _waiting(
    position: Position, batches: Sequence[Batch], files: Sequence[SourceFile], now: datetime
) -> Waiting | None:
    """The oldest of what one source has waiting. An arrived file may be older than a planned batch."""
    oldest_batch = min(batches, key=_arrival_utc, default=None)
    oldest_file = min((file.modified_at_utc for file in files), default=None)
    if oldest_file is not None:
        oldest_file = min(oldest_file, now)
    if oldest_batch is None and oldest_file is None:
        return None
    count = len(files) + sum(len(batch.files) for batch in batches)
    ids = tuple(batch.batch_id for batch in batches)
    if oldest_batch is None or (oldest_file is not None and oldest_file < _arrival_utc(oldest_batch)):
        assert oldest_file is not None  # one of the two is there
        queue_s = (now - oldest_file).total_seconds()
        return Waiting(position.source, "queue", oldest_file, count, ids, {"queue": queue_s})
    hop: Hop = (
        "gold"
        if oldest_batch.batch_id <= position.silver
        else "silver"
        if oldest_batch.batch_id <= position.bronze
        else "bronze"
    )
    arrived, planned = _arrival_utc(oldest_batch), oldest_batch.planned_at_utc
    spent: dict[str, float] = {
        "queue": max(0.0, (planned - arrived).total_seconds()),
        hop: max(0.0, (now - planned).total_seconds()),
    }
    return Waiting(position.source, hop, arrived, count, ids, spent)
