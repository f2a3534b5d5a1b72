"""Keeps Dagster's own freshness state true for idle sources.

Dagster's policy asks when an asset was last materialized; the SLA asks whether something that has arrived is
missing. An idle source would turn every page red. So what is verifiably complete is reported again, without a
run: the asset's last materialization with its figures, and a note that nothing has arrived since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from lakehouse import names
from lakehouse.defs.catalog import CATALOG
from lakehouse.ops.watch import Observation
from lakehouse.settings import Settings

NOTE = "verified complete"


def is_due(cursor: str | None, settings: Settings, now_utc: datetime) -> bool:
    """True when the last report is older than half the warning time. The cursor only paces; losing it is harmless."""
    try:
        last = datetime.fromisoformat(cursor or "")
    except ValueError:
        return True
    return now_utc - last >= timedelta(minutes=settings.sla_warn_minutes / 2)


def complete_assets(seen: Observation, fed_by: Mapping[str, Iterable[str]]) -> list[dg.AssetKey]:
    """Assets in which nothing that has arrived is missing."""
    waiting = set(seen.backlog.waiting) | {name for name, item in seen.backlog.news.items() if item.error}
    layers: tuple[names.Layer, ...] = ("bronze", "silver")
    keys = [
        dg.AssetKey(names.asset_key(layer, source))
        for source in seen.backlog.positions
        if source not in waiting
        for layer in layers
    ]
    keys += [
        dg.AssetKey(names.asset_key("gold", model))
        for model, sources in fed_by.items()
        if not waiting & set(sources)
    ]
    return keys if waiting else [*keys, CATALOG]


def report(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> list[dg.AssetMaterialization]:
    """The last materialization of each asset again; an asset that never had one is left out."""
    now = datetime.now(UTC)
    events = []
    for key in keys:
        last = instance.get_latest_materialization_event(key)
        if last is None or last.asset_materialization is None:
            continue
        metadata = {**last.asset_materialization.metadata, NOTE: dg.MetadataValue.timestamp(now)}
        events.append(
            dg.AssetMaterialization(
                key, description="nothing has arrived since the last run", metadata=metadata
            )
        )
    return events
