"""Failures are open until they are cleared, whatever the clock does in between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import SourceError
from lakehouse.ops import failures
from lakehouse.storage import Lake

AHEAD = timedelta(days=1)


class FastClock(datetime):
    """A clock that is a day ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + AHEAD


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in which bronze of flights failed on the fast clock, which was set back then."""
    found = Lake(str(tmp_path))
    monkeypatch.setattr(failures, "datetime", FastClock)
    failures.record(found, "bronze", "flights", SourceError("unreadable"), run_id="r")
    monkeypatch.undo()
    return found


def test_a_failure_is_cleared_although_the_clock_was_set_back(lake: Lake) -> None:
    failures.clear(lake, [("bronze", "flights")], run_id="r")

    assert failures.open_failures(lake) == {}


def test_a_failure_after_the_clearing_is_open_although_the_clock_was_set_back(lake: Lake) -> None:
    failures.clear(lake, [("bronze", "flights")], run_id="r")
    failures.record(lake, "bronze", "flights", SourceError("unreadable again"), run_id="r")

    [failure] = failures.open_failures(lake).values()
    assert (failure.message, failure.attempts) == ("unreadable again", 1)


def test_a_retry_does_not_wait_for_a_day_that_a_clock_showed_by_mistake(lake: Lake) -> None:
    [failure] = failures.open_failures(lake).values()

    assert failure.last_at_utc > datetime.now(UTC) + AHEAD / 2
    assert failure.retry_at_utc(60.0) <= datetime.now(UTC)


def test_a_retry_waits_longer_after_every_failure(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "other"))
    waits = []
    for _ in range(3):
        failures.record(lake, "bronze", "flights", SourceError("unreadable"), run_id="r")
        [failure] = failures.open_failures(lake).values()
        waits.append((failure.retry_at_utc(60.0) - failure.last_at_utc) / timedelta(seconds=60))

    assert [int(wait) for wait in waits] == [1, 2, 4]
