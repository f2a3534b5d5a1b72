"""The text of an alert: what is late, since when, how long, at which hop and why, and what to run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lakehouse.ops.incidents import Notice
from lakehouse.settings import Settings

_WORDS = {"warn": "WARNING", "breach": "SLA BREACH", "recovery": "RECOVERED"}


def compose(notice: Notice, settings: Settings, now_utc: datetime) -> dict[str, Any]:
    """The message of a notice as JSON-ready fields. ``text`` alone says everything (Slack shows only that)."""
    incident = notice.incident
    worst = notice.states[0] if notice.states else None
    tables = [f"gold.{table}" for table in incident.tables]
    subject = f"[{settings.environment}] {_WORDS[notice.kind]}: {_listed(tables)}"
    lines = [subject]
    if notice.kind == "recovery":
        minutes = (now_utc - incident.opened_at_utc).total_seconds() / 60
        lines += [
            f"Everything that had arrived is published again, {minutes:.1f} min after the first alert.",
            f"It was: {incident.cause}",
            "next: nothing to do; lakehouse status shows what is left of the error budget",
        ]
    elif worst is not None:
        since = _instant(worst.oldest_arrival_utc)
        limit = settings.sla_fail_minutes
        lines += [
            f"late since {since}: what arrived then is not in published gold after {worst.lag_s / 60:.1f} min "
            f"(source {', '.join(incident.sources)})",
            f"stands at: {worst.hop}; {worst.reason}",
            f"the {limit:g} min SLA {'was' if notice.kind == 'breach' else 'will be'} broken at "
            f"{_instant(worst.breach_at_utc)}",
            f"next: {worst.next_step}",
        ]
    lines.append(f"{settings.ui_url}/asset-groups  ·  incident {incident.id}")
    return {
        "id": f"{incident.id}/{notice.kind}",
        "text": "\n".join(lines),
        "subject": subject,
        "kind": notice.kind,
        "incident": incident.id,
        "environment": settings.environment,
        "tables": tables,
        "sources": list(incident.sources),
        "hop": worst.hop if worst else "",
        "reason": worst.reason if worst else "",
        "next": worst.next_step if worst else "",
        "lag_s": round(worst.lag_s, 1) if worst else 0.0,
        "late_since_utc": _instant(worst.oldest_arrival_utc) if worst and worst.oldest_arrival_utc else None,
        "breach_at_utc": _instant(worst.breach_at_utc) if worst and worst.breach_at_utc else None,
        "at_utc": _instant(now_utc),
    }


def _instant(value: datetime | None) -> str:
    return "unknown" if value is None else f"{value:%Y-%m-%dT%H:%M:%SZ}"


def _listed(tables: list[str]) -> str:
    if len(tables) <= 4:
        return ", ".join(tables)
    return f"{', '.join(tables[:3])} and {len(tables) - 3} more"
