"""Sources that cannot be listed, and since when: what nobody can look at must not pass for up to date.

Kept beside the data, so that the clock of such a source goes on when the process that noticed it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from lakehouse.errors import CommitConflict
from lakehouse.ops.journal import Journal, Page
from lakehouse.storage import Lake

SCHEMA: dict[str, pl.DataType] = {
    "at_utc": pl.Datetime("us", "UTC"),
    "source": pl.String(),
    "event": pl.String(),  # lost | found
    "since_utc": pl.Datetime("us", "UTC"),
    "error": pl.String(),
}


@dataclass(frozen=True)
class Loss:
    """A source that cannot be listed. ``since_utc``: from when on something of it may be waiting."""

    since_utc: datetime
    error: str


def _journal(lake: Lake) -> Journal:
    return Journal(lake, "listings", SCHEMA, "Sources that could not be listed, and when they could again.")


def losses(lake: Lake) -> dict[str, Loss]:
    """The sources that could not be listed when somebody looked last."""
    return _losses(_journal(lake).read())


def _losses(page: Page) -> dict[str, Loss]:
    found: dict[str, Loss] = {}
    for row in page.rows.sort("at_utc", maintain_order=True).iter_rows(named=True):
        if row["event"] == "lost":
            found[row["source"]] = Loss(row["since_utc"], row["error"])
        else:
            found.pop(row["source"], None)
    return found


def note(lake: Lake, now_utc: datetime, lost: Mapping[str, Loss]) -> None:
    """Write which sources could not be listed this time, where that has changed."""
    log = _journal(lake)
    page = log.read()
    before = _losses(page)
    blank: dict[str, Any] = dict.fromkeys(SCHEMA) | {"at_utc": page.later_than_all(now_utc)}
    rows = [
        blank | {"source": name, "event": "lost", "since_utc": loss.since_utc, "error": loss.error}
        for name, loss in lost.items()
        if name not in before
    ]
    rows += [blank | {"source": name, "event": "found"} for name in before if name not in lost]
    try:
        log.append(rows, after=page)
    except CommitConflict:
        return  # another process saw the same
