"""Arrival lag of every gold table: now − arrival of the oldest thing that is not in the published gold.

Two clocks, never mixed. *Arrival lag* is the SLA, and an idle source is not late. *Source silence* is how long
a source has sent nothing, against the cadence it declares. Everything here is a pure function of what the
ledger, the restore point and the checks say; ``ops.watch`` reads those and keeps the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

Status = Literal["fresh", "warn", "breach"]
#: Where a batch can stand, in order. ``queue``: arrived, in no batch yet. ``publish``: built, not yet current.
Hop = Literal["queue", "bronze", "silver", "gold", "publish"]
HOPS: tuple[Hop, ...] = ("queue", "bronze", "silver", "gold", "publish")


@dataclass(frozen=True)
class Obstacle:
    """Something that failed and stands in the way: a stage that raised, or a blocking check (a failed gate).

    ``source`` is None for what holds up every table (the gold build, publishing).
    """

    hop: Hop
    source: str | None
    what: str
    since_utc: datetime
    next_step: str
    is_gate: bool = False


@dataclass(frozen=True)
class Waiting:
    """What of one source has arrived and is not in published gold, at the hop where the oldest of it stands.

    ``hop_seconds``: how long that oldest thing spent at each hop up to now.
    """

    source: str
    hop: Hop
    oldest_arrival_utc: datetime
    files: int
    batches: tuple[int, ...] = ()
    hop_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TableFreshness:
    """One gold table at one moment. ``lag_s`` is 0 when everything that arrived is published.

    ``is_obstructed``: ``reason`` is what failed, not only where it stands.
    """

    table: str
    status: Status
    lag_s: float
    oldest_arrival_utc: datetime | None = None
    late_sources: tuple[str, ...] = ()
    hop: str = ""
    reason: str = ""
    next_step: str = ""
    breach_at_utc: datetime | None = None
    hop_seconds: Mapping[str, float] = field(default_factory=dict)
    is_obstructed: bool = False


@dataclass(frozen=True)
class Silence:
    """A source that has sent nothing for longer than it said it would. Not an SLA matter."""

    source: str
    last_arrival_utc: datetime
    silent_s: float
    expected_every_s: float


def assess(
    now_utc: datetime,
    feeds: Mapping[str, Iterable[str]],
    waiting: Mapping[str, Waiting],
    obstacles: Iterable[Obstacle] = (),
    *,
    warn_after_s: float,
    fail_after_s: float,
) -> list[TableFreshness]:
    """The state of every gold table, the latest first.

    Args:
        feeds: gold table → the sources whose rows it is made of.
        waiting: per source what is not published; a source without an entry is up to date (or idle).
        obstacles: what failed and has not succeeded since.
    """
    known = list(obstacles)
    states = []
    for table, sources in feeds.items():
        held = sorted(
            (waiting[s] for s in sources if s in waiting), key=lambda w: (w.oldest_arrival_utc, w.source)
        )
        if not held:
            states.append(TableFreshness(table, "fresh", 0.0))
            continue
        oldest = held[0]
        lag_s = max(0.0, (now_utc - oldest.oldest_arrival_utc).total_seconds())
        status: Status = "breach" if lag_s >= fail_after_s else "warn" if lag_s >= warn_after_s else "fresh"
        obstacle = _obstacle_of(oldest, known)
        hop, reason, next_step = _explain(oldest, obstacle)
        threshold_s = {"fresh": 0.0, "warn": warn_after_s, "breach": fail_after_s}[status]
        states.append(
            TableFreshness(
                table=table,
                status=status,
                lag_s=lag_s,
                oldest_arrival_utc=oldest.oldest_arrival_utc,
                # Only sources that are themselves late: an up-to-the-minute one is no part of the cause.
                late_sources=tuple(
                    sorted(
                        w.source
                        for w in held
                        if (now_utc - w.oldest_arrival_utc).total_seconds() >= threshold_s
                    )
                ),
                hop=hop,
                reason=reason,
                next_step=next_step,
                breach_at_utc=oldest.oldest_arrival_utc + timedelta(seconds=fail_after_s),
                hop_seconds=oldest.hop_seconds,
                is_obstructed=obstacle is not None,
            )
        )
    return sorted(states, key=lambda state: (-state.lag_s, state.table))


def _obstacle_of(oldest: Waiting, obstacles: Iterable[Obstacle]) -> Obstacle | None:
    """What stands in the way of the oldest thing of a table: its source's own obstacle before everybody's."""
    known = list(obstacles)
    own = [o for o in known if o.source == oldest.source] or [o for o in known if o.source is None]
    return max(own, key=lambda o: (o.is_gate, o.since_utc), default=None)


def _explain(oldest: Waiting, obstacle: Obstacle | None) -> tuple[str, str, str]:
    """Hop, reason and next command for the oldest thing of a table."""
    if obstacle is not None:
        since = f"since {obstacle.since_utc:%Y-%m-%d %H:%M:%SZ}"
        if obstacle.is_gate:
            return "failed gate", f"{obstacle.what} ({obstacle.hop}, {since})", obstacle.next_step
        return obstacle.hop, f"{obstacle.what} ({since})", obstacle.next_step
    if oldest.hop == "queue":
        reason = "arrived, and no run has taken it: is the daemon running, is another run still going?"
        return "queue", reason, "lakehouse run"
    reasons = {
        "bronze": "planned, and not landed in bronze yet",
        "silver": "landed in bronze, and not in silver yet",
        "gold": "in silver, and not in gold yet",
        "publish": "built, and not published yet",
    }
    return oldest.hop, reasons[oldest.hop], "lakehouse run"


def silences(
    now_utc: datetime, last_arrivals: Mapping[str, datetime], expected_every: Mapping[str, timedelta]
) -> list[Silence]:
    """Sources that are silent for longer than they declare; one that never sent anything has no clock yet."""
    found = []
    for source, every in expected_every.items():
        last = last_arrivals.get(source)
        if last is not None and now_utc - last > every:
            found.append(Silence(source, last, (now_utc - last).total_seconds(), every.total_seconds()))
    return sorted(found, key=lambda silence: (-silence.silent_s, silence.source))
