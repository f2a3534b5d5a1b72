"""Alerts: decided once, recorded beside the data, delivered to every channel, retried per channel.

One tick: read ``ops.alerts`` → decide → commit decisions and delivery attempts (the commit is refused when
another process decided meanwhile, so there is one sender) → send → commit what came of it. A process that dies
between sending and recording is the one case in which a message can come twice; it then carries the same
``id``. Deleting the orchestrator's storage changes nothing here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lakehouse.errors import CommitConflict, LakehouseError
from lakehouse.ops.channels import Channel, channels
from lakehouse.ops.freshness import TableFreshness
from lakehouse.ops.incidents import Incident, Notice, step
from lakehouse.ops.journal import Journal, Page
from lakehouse.ops.message import compose
from lakehouse.settings import Settings
from lakehouse.storage import Lake

LOGGER = logging.getLogger("lakehouse.alerts")
#: An attempt without an outcome is of a process that died while sending; after this it is tried again.
LOST_AFTER = timedelta(seconds=60)
#: Older news than this is no news: it is given up, and stays readable in ops.alerts.
GIVE_UP_AFTER = timedelta(hours=24)

SCHEMA: dict[str, pl.DataType] = {
    "seq": pl.Int64(),
    "at_utc": pl.Datetime("us", "UTC"),
    "incident_id": pl.String(),
    "event": pl.String(),  # opened | updated | closed | decided | attempt | delivered | failed
    "kind": pl.String(),  # warn | breach | recovery; of decided, attempt, delivered and failed
    "channel": pl.String(),
    "level": pl.String(),
    "opened_at_utc": pl.Datetime("us", "UTC"),
    "tables": pl.List(pl.String()),
    "sources": pl.List(pl.String()),
    "cause": pl.String(),
    "message": pl.String(),  # JSON, as sent
    "error": pl.String(),
}


@dataclass(frozen=True)
class Sent:
    """One delivery of this tick. ``error`` is empty when the channel took the message."""

    incident_id: str
    kind: str
    channel: str
    error: str = ""


def journal(lake: Lake) -> Journal:
    return Journal(
        lake, "alerts", SCHEMA, "Incidents, alerts and their deliveries; append-only, ordered by seq."
    )


def tick(
    lake: Lake,
    settings: Settings,
    states: Sequence[TableFreshness],
    now_utc: datetime,
    *,
    to: Sequence[Channel] | None = None,
) -> list[Sent]:
    """Decide and deliver what is due now. Writes nothing while nothing is late and nothing is owed.

    Raises:
        TransientError: the store did not answer; the next tick decides again.
    """
    log = journal(lake)
    page = log.read()
    events = page.rows.sort("seq").to_dicts()
    before = open_incidents(events)
    after, notices = step(
        now_utc,
        before,
        states,
        warn_after_s=settings.sla_warn_minutes * 60,
        fail_after_s=settings.sla_fail_minutes * 60,
    )
    targets = {channel.name: channel for channel in (channels(settings) if to is None else to)}
    rows = _decisions(before, after, notices, settings, now_utc)
    due = _due(events + rows, targets, now_utc)
    attempts = [_row(now_utc, d.incident_id, "attempt", kind=d.kind, channel=d.channel) for d in due]
    if not rows and not attempts:
        return []
    number = max((event["seq"] for event in events), default=0)
    try:
        page = log.append(_numbered(rows + attempts, number), after=page)
    except CommitConflict:
        LOGGER.info("another process is sending these alerts; leaving them to it")
        return []
    sent: list[Sent] = []
    try:
        away: set[str] = set()
        for delivery in due:
            if (
                delivery.channel in away
            ):  # each attempt would wait as long again, and keep the other channels waiting
                continue
            sent.append(_deliver(delivery, targets[delivery.channel]))
            if sent[-1].error:
                away.add(delivery.channel)
    finally:  # also when it is ended in the middle: what was delivered must not come again
        if sent:
            outcomes = [
                _row(
                    now_utc,
                    s.incident_id,
                    "failed" if s.error else "delivered",
                    kind=s.kind,
                    channel=s.channel,
                    error=s.error,
                )
                for s in sent
            ]
            _record(log, page, _numbered(outcomes, number + len(rows) + len(attempts)))
    return sent


def open_incidents(events: Sequence[Mapping[str, Any]]) -> list[Incident]:
    """The incidents that are open after ``events`` (rows of ``ops.alerts`` in order)."""
    found: dict[str, Incident] = {}
    for event in events:
        if event["event"] in ("opened", "updated"):
            before = found.get(event["incident_id"])
            been = {*before.tables, *before.recovered} if before else set()
            found[event["incident_id"]] = Incident(
                id=event["incident_id"],
                opened_at_utc=event["opened_at_utc"],
                level=event["level"],
                tables=tuple(event["tables"]),
                sources=tuple(event["sources"]),
                cause=event["cause"],
                recovered=tuple(sorted(been - set(event["tables"]))),
            )
        elif event["event"] == "closed":
            found.pop(event["incident_id"], None)
    return list(found.values())


@dataclass(frozen=True)
class _Delivery:
    incident_id: str
    kind: str
    channel: str
    message: dict[str, Any]


def _decisions(
    before: Sequence[Incident],
    after: Sequence[Incident],
    notices: Sequence[Notice],
    settings: Settings,
    now: datetime,
) -> list[dict[str, Any]]:
    known = {incident.id: incident for incident in before}
    rows = []
    for incident in [*after, *(n.incident for n in notices if n.kind == "recovery")]:
        if known.get(incident.id) != incident:
            event = "updated" if incident.id in known else "opened"
            rows.append(_row(now, incident.id, event, **_fields(incident)))
    for notice in notices:
        message = json.dumps(compose(notice, settings, now))
        rows.append(_row(now, notice.incident.id, "decided", kind=notice.kind, message=message))
    open_after = {incident.id for incident in after}
    gone = [incident.id for incident in before if incident.id not in open_after]
    rows += [_row(now, incident_id, "closed") for incident_id in gone]
    return rows


def _due(
    events: Sequence[Mapping[str, Any]], targets: Mapping[str, Channel], now_utc: datetime
) -> list[_Delivery]:
    """What each channel is still owed, in the order in which it was decided."""
    status: dict[tuple[str, str, str], tuple[str, datetime]] = {}
    for event in events:
        if event["event"] in ("attempt", "delivered", "failed"):
            status[(event["incident_id"], event["kind"], event["channel"])] = (
                event["event"],
                event["at_utc"],
            )
    due = []
    for event in events:
        if event["event"] != "decided" or now_utc - event["at_utc"] > GIVE_UP_AFTER:
            continue
        for name in targets:
            what, when = status.get((event["incident_id"], event["kind"], name), ("never", now_utc))
            if what in ("never", "failed") or (what == "attempt" and now_utc - when > LOST_AFTER):
                due.append(_Delivery(event["incident_id"], event["kind"], name, json.loads(event["message"])))
    # What a channel has refused comes last: a message that it will never take must not keep the others from it.
    return sorted(
        due, key=lambda d: status.get((d.incident_id, d.kind, d.channel), ("never",))[0] == "failed"
    )


def _deliver(delivery: _Delivery, channel: Channel) -> Sent:
    """Send one message. Whatever a channel raises is its own trouble: the others are served all the same."""
    try:
        channel.send(delivery.message)
    except Exception as error:  # noqa: BLE001
        LOGGER.warning(
            "alert %s/%s not delivered to %s: %s", delivery.incident_id, delivery.kind, channel.name, error
        )
        what = error.message if isinstance(error, LakehouseError) else f"{type(error).__name__}: {error}"
        return Sent(delivery.incident_id, delivery.kind, channel.name, what)
    return Sent(delivery.incident_id, delivery.kind, channel.name)


def _record(log: Journal, page: Page, rows: list[dict[str, Any]]) -> None:
    """Outcomes must not get lost: when somebody wrote meanwhile, they are appended after what he wrote."""
    try:
        log.append(rows, after=page)
    except CommitConflict:
        number = log.read().rows["seq"].max()
        log.append_always(_numbered(rows, int(number) if isinstance(number, int) else 0))


def _fields(incident: Incident) -> dict[str, Any]:
    return {
        "level": incident.level,
        "opened_at_utc": incident.opened_at_utc,
        "tables": list(incident.tables),
        "sources": list(incident.sources),
        "cause": incident.cause,
    }


def _row(at_utc: datetime, incident_id: str, event: str, **fields: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMA) | {"at_utc": at_utc, "incident_id": incident_id, "event": event, **fields}


def _numbered(rows: Sequence[Mapping[str, Any]], after: int) -> list[dict[str, Any]]:
    return [{**row, "seq": after + i} for i, row in enumerate(rows, start=1)]
