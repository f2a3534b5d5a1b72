"""Incidents: late tables that are late for one reason, told of three times at most.

A pure state machine. ``step`` gets the open incidents and what is late now, and returns the incidents after it
and the notices that are due: one on warning, one on breach, one on recovery, each once per incident.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from lakehouse.ops.freshness import TableFreshness

Kind = Literal["warn", "breach", "recovery"]


@dataclass(frozen=True)
class Incident:
    """Tables that are late for one cause. ``level`` is the worst that anybody has been told.

    ``tables`` are the ones that are late now. ``recovered`` were late in it and are not any more: late again, they are
    told of again.
    """

    id: str
    opened_at_utc: datetime
    level: Literal["warn", "breach"]
    tables: tuple[str, ...]
    sources: tuple[str, ...]
    cause: str
    recovered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One message that is due. ``states`` are the incident's tables as they stand now, the latest first."""

    incident: Incident
    kind: Kind
    states: tuple[TableFreshness, ...]


def cause_of(state: TableFreshness) -> str:
    """What two tables have in common when they are late for one reason: the hop and the obstacle there."""
    return f"{state.hop}: {state.reason}"


def step(
    now_utc: datetime,
    open_incidents: Sequence[Incident],
    states: Sequence[TableFreshness],
    *,
    warn_after_s: float,
    fail_after_s: float,
    coalesce_s: float = 300.0,
) -> tuple[list[Incident], list[Notice]]:
    """One look. Returns the incidents that are open afterwards, and the notices that are due.

    Args:
        states: one per gold table, fresh ones included.
        coalesce_s: a table this close to the threshold that another one just crossed is told of with it.
    """
    by_table = {state.table: state for state in states}
    floor_s = max(0.0, warn_after_s - coalesce_s)
    incidents = [_still_late(incident, by_table, floor_s) for incident in open_incidents]
    known = {table for incident in incidents for table in incident.tables if table in by_table}
    notices: list[Notice] = []

    for state in states:
        if state.status == "fresh" or state.table in known:
            continue
        related = next(
            (i for i, incident in enumerate(incidents) if _belongs(state, incident, by_table)), None
        )
        if related is None:
            incidents.append(_opened(now_utc, state))
        else:
            incidents[related] = _grown(incidents[related], [state])
        known.add(state.table)

    still_open: list[Incident] = []
    told = {incident.id for incident in open_incidents}
    for incident in incidents:
        members = _states_of(incident, by_table)
        worst = "breach" if any(m.status == "breach" for m in members) else "warn"
        is_new = incident.id not in told
        escalates = worst == "breach" and (is_new or incident.level == "warn")
        if is_new or escalates:
            threshold_s = fail_after_s if escalates else warn_after_s
            near = [
                state
                for state in states
                if state.table not in known
                and state.lag_s >= threshold_s - coalesce_s
                and _belongs(state, incident, by_table)
            ]
            incident = replace(_grown(incident, near), level="breach" if escalates else "warn")
            known.update(state.table for state in near)
            members += near
            notices.append(Notice(incident, "breach" if escalates else "warn", _latest_first(members)))
        if all(member.status == "fresh" for member in members):
            notices.append(Notice(_closed(incident, by_table), "recovery", _latest_first(members)))
        else:
            still_open.append(incident)
    return still_open, notices


def _states_of(incident: Incident, by_table: Mapping[str, TableFreshness]) -> list[TableFreshness]:
    return [by_table[table] for table in incident.tables if table in by_table]


def _still_late(incident: Incident, by_table: Mapping[str, TableFreshness], floor_s: float) -> Incident:
    """The incident without the tables that have recovered; as it is when none is left, for then it ends.

    A fresh table with more than ``floor_s`` of lag stays: it is about to be late, and somebody was told of it.
    """
    members = [
        state
        for state in _states_of(incident, by_table)
        if state.status != "fresh" or (state.lag_s > 0 and state.lag_s >= floor_s)
    ]
    if all(state.status == "fresh" for state in members):
        return incident
    tables = tuple(state.table for state in members)
    late = {source for state in members for source in state.late_sources}
    return replace(
        incident,
        tables=tables,
        # What became late only afterwards is no part of it, although a table of it waits for that, too.
        sources=tuple(sorted(late & set(incident.sources) or late)),
        recovered=tuple(sorted({*incident.recovered, *incident.tables} - set(tables))),
    )


def _closed(incident: Incident, by_table: Mapping[str, TableFreshness]) -> Incident:
    """The incident as its end is told: with every table of it that is not late again, in another incident."""
    late = {table for table, state in by_table.items() if state.status != "fresh"}
    return replace(
        incident, tables=tuple(sorted({*incident.tables, *incident.recovered} - late)), recovered=()
    )


def _belongs(state: TableFreshness, incident: Incident, by_table: Mapping[str, TableFreshness]) -> bool:
    """True when a table is late for what the tables of the incident are late for now, not when it was opened.

    What no run has taken is late because nobody runs anything. Elsewhere, that two tables stand at one hop says little when
    nothing has failed there: once the breach has been told it is not enough, for nobody would ever hear of this table.
    """
    late = [member for member in _states_of(incident, by_table) if member.status != "fresh"]
    if not late or state.lag_s <= 0 or state.table in incident.recovered:
        return False
    if set(state.late_sources) & set(incident.sources):
        return True
    if incident.level == "breach" and not (state.is_obstructed or state.hop == "queue"):
        return False
    return cause_of(state) in {cause_of(member) for member in late}


def _opened(now_utc: datetime, state: TableFreshness) -> Incident:
    """Named after the time and the table, so that two observers of one moment give it the same id."""
    since = state.oldest_arrival_utc or now_utc
    digest = hashlib.sha256(f"{state.table}|{since.isoformat()}".encode()).hexdigest()[:6]
    return Incident(
        id=f"{now_utc:%Y%m%dT%H%M%SZ}-{digest}",
        opened_at_utc=now_utc,
        level="warn",
        tables=(state.table,),
        sources=state.late_sources,
        cause=cause_of(state),
    )


def _grown(incident: Incident, states: Iterable[TableFreshness]) -> Incident:
    tables, sources = list(incident.tables), list(incident.sources)
    for state in states:
        tables += [state.table] if state.table not in tables else []
        sources += [source for source in state.late_sources if source not in sources]
    return replace(incident, tables=tuple(sorted(tables)), sources=tuple(sorted(sources)))


def _latest_first(states: Iterable[TableFreshness]) -> tuple[TableFreshness, ...]:
    return tuple(sorted(states, key=lambda state: (-state.lag_s, state.table)))
