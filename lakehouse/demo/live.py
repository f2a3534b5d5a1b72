"""The replay: December 2013 arrives hour by hour, as a source system would send it, at an accelerated clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lakehouse.demo import landing, source
from lakehouse.settings import Settings

#: Midnight in New York: what was scheduled before it lands at once, as whole days.
STARTS_UTC = "2013-12-01T05:00:00Z"


@dataclass(frozen=True)
class Hour:
    """One hour of the replay, and how many data rows of each table it brings."""

    at_utc: str
    files: dict[str, bytes]
    rows: dict[str, int]


def hours() -> list[Hour]:
    """Every UTC hour from the first of December on in which something was scheduled or observed."""
    by_hour: dict[str, dict[str, tuple[str, bytes]]] = {}
    for table in source.DAILY:
        for at_utc, file in source.hourly_files(table, from_utc=STARTS_UTC).items():
            by_hour.setdefault(at_utc, {})[table] = file
    return [
        Hour(
            at_utc,
            dict(files.values()),
            {table: content.count(b"\n") - 1 for table, (_, content) in files.items()},
        )
        for at_utc, files in sorted(by_hour.items())
    ]


def replay(
    settings: Settings,
    *,
    seconds_per_hour: float,
    limit: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Hour]:
    """Land one hour after the other, ``seconds_per_hour`` apart; yields each as it has landed.

    Hours that have landed in an earlier replay are passed over without a pause, so that a replay that was
    stopped goes on where it was.
    """
    done = 0
    for hour in hours():
        if limit is not None and done >= limit:
            return
        started = datetime.now(UTC)
        if landing.land(settings, hour.files).files == 0:
            continue
        done += 1
        yield hour
        spent = (datetime.now(UTC) - started).total_seconds()
        sleep(max(0.0, seconds_per_hour - spent))
