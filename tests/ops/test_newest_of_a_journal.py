"""The newest row of each kind of a journal, and the error budget of 30 days, without reading years of it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse.ops import budget, watch
from lakehouse.ops.journal import Journal, newest_by
from lakehouse.settings import load_settings
from lakehouse.storage import Lake, upkeep

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDER = ["since_utc", "observed_at_utc"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def _row(table: str, hours_ago: float, status: str, number: int = 0) -> dict[str, Any]:
    since = NOW - timedelta(hours=hours_ago)
    nothing = dict.fromkeys(watch.SCHEMA)
    observed = since + timedelta(microseconds=number)
    return nothing | {"table": table, "since_utc": since, "observed_at_utc": observed, "status": status}


def _rows(seed: int, count: int) -> list[dict[str, Any]]:
    some = random.Random(seed)
    hours = [some.randrange(0, 60 * 24) for _ in range(count)]  # the window is the newer half; some are equal
    return [_row(some.choice("abc"), h, some.choice(["fresh", "warn", "breach"]), n) for n, h in enumerate(hours)]  # fmt: skip


def _append(journal: Journal, rows: list[dict[str, Any]]) -> None:
    journal.append(rows, after=journal.read(pl.lit(False)))


def _newest(rows: pl.DataFrame) -> list[tuple[Any, ...]]:
    return sorted(rows.sort(ORDER).group_by("table").last().select("table", "status", *ORDER).rows())


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_rows_are_those_of_all_rows(lake: Lake, seed: int) -> None:
    journal, newest = watch._journal(lake), newest_by("table", ORDER)
    assert journal.read_newest(newest).rows.is_empty()
    for part in range(3):
        _append(journal, _rows(10 * seed + part, 20))
        assert _newest(journal.read_newest(newest).rows) == _newest(journal.read().rows)
    snapshot = lake.table("ops", "freshness").snapshot()
    upkeep.combine(snapshot, snapshot.files()["path"].to_list())
    _append(journal, _rows(seed + 1_000, 20))
    assert _newest(journal.read_newest(newest).rows) == _newest(journal.read().rows)


def test_a_second_look_reads_the_new_files_alone(lake: Lake) -> None:
    journal, newest = watch._journal(lake), newest_by("table", ORDER)
    read: list[int] = []
    fold = newest._fold
    newest._fold = lambda made, snapshot, uris: (read.append(len(uris)), fold(made, snapshot, uris))[1]
    for number in range(3):
        _append(journal, [_row("a", 10 - number, "fresh")])
    journal.read_newest(newest)
    _append(journal, [_row("a", 1, "warn")])
    assert journal.read_newest(newest).rows["status"].to_list() == ["warn"]
    journal.read_newest(newest)
    assert read == [3, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_budget_of_the_window_is_that_of_the_whole_history(lake: Lake, seed: int) -> None:
    journal = watch._journal(lake)
    _append(journal, _rows(seed, 60))
    whole = budget.from_history(journal.read().rows, NOW, 99.9)
    assert whole.breach_s > 0
    assert watch.error_budget(lake, load_settings(root=lake.root), NOW) == whole
