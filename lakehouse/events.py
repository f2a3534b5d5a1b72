"""What a person should hear of, as rows of ``ops.events``: schema changes, files held, passed over or kept whole.

A journal for people. The truth is elsewhere: in the commits' metadata and in ``ops.batches``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.storage import Lake

#: One row per event. ``kind``: schema | held | ignored | duplicate | unreadable | returned | rollback | resume.
SCHEMA: dict[str, pl.DataType] = {
    "at_utc": pl.Datetime("us", "UTC"),
    "kind": pl.String(),
    "pipeline": pl.String(),
    "batch_id": pl.Int64(),
    "message": pl.String(),
}


@dataclass(frozen=True)
class Event:
    """One thing that happened to a source. ``batch_id`` is None where no batch took it."""

    kind: str
    pipeline: str
    message: str
    batch_id: int | None = None
    at_utc: datetime | None = None


def of_batch(
    pipeline: str, batch_id: int, changes: Sequence[str], lost: Mapping[str, str], rejects: pl.DataFrame
) -> list[Event]:
    """The events of one landed batch."""
    found = [Event("schema", pipeline, change, batch_id) for change in changes]
    found += [
        Event(
            "returned",
            pipeline,
            f"{path} {what} before it was read; what it is now is planned anew",
            batch_id,
        )
        for path, what in lost.items()
    ]
    if rejects.is_empty():
        return found
    whole = rejects.filter(pl.col("_source_position").str.starts_with("file of "))
    for path, position, rules in whole.select(
        "_source_file", "_source_position", "_broken_rules"
    ).iter_rows():
        found.append(Event("unreadable", pipeline, f"{path}: {rules[0]} ({position})", batch_id))
    broken = Counter(rejects.join(whole, on="_source_file", how="anti")["_source_file"].to_list())
    for path, count in broken.most_common(_MOST_FILES):
        found.append(
            Event("broken lines", pipeline, f"{path}: {count} lines refused, kept in quarantine", batch_id)
        )
    return found


#: A batch of ten thousand broken files is told of by its worst.
_MOST_FILES = 20


def record(lake: Lake, events: Iterable[Event]) -> None:
    """Append events. Raises ``CommitConflict`` when 20 attempts met other writers."""
    now = datetime.now(UTC)
    rows = [{**vars(event), "at_utc": event.at_utc or now} for event in events]
    if not rows:
        return
    table = lake.table("ops", "events")
    staged = table.stage(pl.LazyFrame(rows, schema=SCHEMA))
    app = names.app_id("ops", "events")
    for _ in range(20):
        snapshot = table.snapshot_or_none()
        try:
            if snapshot is None:
                table.create(SCHEMA, add=staged, txns={app: 1}, description="What a person should hear of.")
            else:
                snapshot.commit(add=staged, txns={app: snapshot.txn(app) + 1})
            return
        except CommitConflict:
            continue
    raise CommitConflict("ops.events: 20 attempts met other writers", hint="run again")


def recent(lake: Lake, *, limit: int = 10, since_utc: datetime | None = None) -> list[Event]:
    """The newest events first. Reads only."""
    snapshot = lake.table("ops", "events").snapshot_or_none()
    if snapshot is None:
        return []
    frame = snapshot.scan()
    if since_utc is not None:
        frame = frame.filter(pl.col("at_utc") >= since_utc)
    rows = frame.sort("at_utc", descending=True).head(limit).collect()
    return [Event(**row) for row in rows.iter_rows(named=True)]
