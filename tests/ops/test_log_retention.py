"""The log of a table is cleaned up by maintenance, and never what opens a version that somebody may go back to."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import deltalake
import pytest

from lakehouse.storage import Lake, Table, log
from lakehouse.storage.commits import CHECKPOINT_INTERVAL
from tests.ops.maintained import add, frame, ids, publish, run


def days_pass(table: Table, days: int, *, up_to: int) -> None:
    """The log up to this version becomes so much older."""
    for path in Path(table.uri, "_delta_log").iterdir():
        if path.name[:20].isdigit() and int(path.name[:20]) <= up_to:
            at = path.stat().st_mtime - timedelta(days=days).total_seconds()
            os.utime(path, (at, at))


def commits_of(table: Table) -> list[int]:
    return sorted(int(path.stem) for path in Path(table.uri, "_delta_log").glob("*.json"))


@pytest.mark.parametrize("library", [False, True])
def test_a_published_version_outlives_the_retention_of_the_log(lake: Lake, library: bool) -> None:
    """The commit after a long silence wrote a checkpoint and took the published version's commit away."""
    table = lake.table("silver", "quiet")
    add(table, frame(1))
    if library:
        deltalake.DeltaTable(table.uri).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    while table.snapshot().version < CHECKPOINT_INTERVAL - 2:
        table.snapshot().commit()
    published = table.snapshot().version
    publish(lake, silver_quiet=published)
    days_pass(table, 120, up_to=published)
    table.snapshot().commit(add=table.stage(frame(10).lazy()))
    assert Path(table.uri, log.checkpoint_file(published + 1)).exists()
    run(lake)
    assert ids(Lake(lake.root).table("silver", "quiet").snapshot(published)) == [1, 2, 3]
    assert commits_of(table) == list(range(published + 2))


def busy(lake: Lake, commits: int = 4 * CHECKPOINT_INTERVAL) -> Table:
    table = lake.table("bronze", "busy")
    add(table, frame(1))
    while table.snapshot().version < commits - 1:
        table.snapshot().commit()
    return table


def test_the_log_of_a_busy_table_does_not_grow_for_ever(lake: Lake) -> None:
    table = busy(lake)
    publish(lake, bronze_busy=160)
    days_pass(table, 91, up_to=150)
    before = ids(table.snapshot(160))
    assert run(lake, dry_run=True)["bronze/busy"].removed == 100
    assert len(commits_of(table)) == 200
    # The last checkpoint that lies fifty commits before version 150; the one before it goes, too.
    assert run(lake)["bronze/busy"].removed == 100
    assert commits_of(table) == list(range(99, 200))
    assert ids(table.snapshot(160)) == ids(table.snapshot(99)) == ids(table.snapshot()) == before
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table().num_rows == 3
    assert run(lake)["bronze/busy"].removed == 0


def test_the_log_stays_from_before_the_oldest_version_that_a_restore_point_names(lake: Lake) -> None:
    table = busy(lake)
    publish(lake, bronze_busy=120)
    publish(lake, bronze_busy=199)
    days_pass(table, 91, up_to=198)
    assert run(lake)["bronze/busy"].removed == 49
    assert commits_of(table)[0] == 49
    for version in (120, 199):
        assert ids(Lake(lake.root).table("bronze", "busy").snapshot(version)) == [1, 2, 3]


@pytest.mark.parametrize("reason", ["torn checkpoints", "young", "switched off", "not understood"])
def test_the_log_is_not_cleaned_up_where_that_is_not_safe_or_not_wanted(lake: Lake, reason: str) -> None:
    table = busy(lake)
    properties = {
        "switched off": {"delta.enableExpiredLogCleanup": "false"},
        "not understood": {"delta.logRetentionDuration": "interval 2 days 3 hours"},
    }
    if reason in properties:
        deltalake.DeltaTable(table.uri).alter.set_table_properties(properties[reason])
    if reason == "torn checkpoints":
        for version in (49, 99, 149):
            Path(table.uri, log.checkpoint_file(version)).write_bytes(b"")
    days_pass(table, 89 if reason == "young" else 91, up_to=198)
    assert run(lake)["bronze/busy"].removed == 0
    assert commits_of(table)[0] == 0
