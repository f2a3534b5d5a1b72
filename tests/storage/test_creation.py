"""The first commit of a table: one creator wins, a crash leaves nothing, and what is answered is on the disk."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import deltalake
import polars as pl
import pytest

from lakehouse.errors import CommitConflict
from lakehouse.storage import StagedFile, Table, upkeep
from lakehouse.storage.commits import CHECKPOINT_INTERVAL
from tests.storage.conftest import FRAME, create


def test_two_creators_at_once_make_one_table(table: Table) -> None:
    create(table)
    with pytest.raises(CommitConflict):
        create(table)
    assert table.snapshot().num_rows() == 3


def test_a_table_that_was_removed_and_made_again_is_read_anew(table: Table) -> None:
    create(table)
    table.snapshot().commit(add=table.stage(FRAME.lazy()))
    assert table.snapshot().num_rows() == 2 * FRAME.height
    shutil.rmtree(table.uri)
    assert table.snapshot_or_none() is None
    create(table)
    table.snapshot().commit()
    assert table.snapshot().num_rows() == FRAME.height


@pytest.mark.parametrize("made_again", [False, True])
def test_no_commit_to_a_table_that_was_removed_meanwhile(table: Table, made_again: bool) -> None:
    """It would be version 2 of a table that has none, or only version 0: nobody could open it."""
    create(table)
    table.snapshot().commit(add=table.stage(FRAME.lazy()))
    held = table.snapshot()
    shutil.rmtree(table.uri)
    if made_again:
        create(table)
    with pytest.raises(CommitConflict):
        held.commit(txns={"a": 1})
    found = table.snapshot_or_none()
    assert (found and found.num_rows()) == (3 if made_again else None)


def test_a_first_commit_that_a_crash_cut_off_is_no_table(table: Table) -> None:
    """The half-written log made every later run fail: "is there, but cannot be read"."""
    log = Path(table.uri, "_delta_log")
    log.mkdir(parents=True)
    (log / "00000000000000000000.json#1").write_text('{"commitInfo"')
    (log / "_commit_0b1c.json.tmp").write_text("")
    assert table.snapshot_or_none() is None
    create(table)
    assert table.snapshot().version == 0


def record_flushes(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The inodes that are flushed from now on."""
    synced: set[int] = set()
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


@pytest.mark.parametrize("by", ["first commit", "library", "added columns", "hand"])
def test_a_commit_and_what_it_names_are_on_the_disk_before_it_is_answered(
    table: Table, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    synced = record_flushes(monkeypatch)
    create(table)
    if by in ("library", "hand"):
        if by == "library":
            deltalake.DeltaTable(table.uri).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
        synced.clear()
        table.snapshot().commit(add=table.stage(FRAME.lazy()), txns={"a": 1})
    elif by == "added columns":
        synced.clear()
        table.snapshot().add_columns({"more": pl.Int64()})
    log_folder = Path(table.uri, "_delta_log")
    newest = max(log_folder.glob("*.json"))
    named = [
        json.loads(line)["add"]["path"] for line in newest.read_text().splitlines() if '"add"' in line[:8]
    ]
    assert len(named) == (by != "added columns")
    folders = [log_folder, *([Path(table.uri), *Path(table.uri).parents[:2]] if by == "first commit" else [])]
    wanted = [newest, *(Path(table.uri, path) for path in named), *folders]
    assert [path.name for path in wanted if path.stat().st_ino not in synced] == []


@pytest.mark.parametrize("by", ["commit", "added columns", "maintenance"])
def test_a_checkpoint_is_on_the_disk_when_its_commit_is_answered(
    table: Table, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """After a loss of power an empty checkpoint under a sound hint kept everybody from opening the table."""
    create(table)
    for _ in range(CHECKPOINT_INTERVAL - 2):
        table.snapshot().commit()
    synced = record_flushes(monkeypatch)
    if by == "commit":
        table.snapshot().commit()
    elif by == "added columns":
        table.snapshot().add_columns({"more": pl.Int64()})
    else:
        upkeep.write_checkpoint(table.snapshot())
    log = Path(table.uri, "_delta_log")
    wanted = [next(log.glob("*.checkpoint.parquet")), log / "_last_checkpoint", log]
    assert [path.name for path in wanted if path.stat().st_ino not in synced] == []


def test_every_staged_file_has_the_name_that_the_writer_was_told(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer asks from several threads: between one's note and its answer another one may come."""
    told: list[str] = []
    written = _Interrupted()
    monkeypatch.setattr(
        pl, "PartitionBy", lambda *_, file_path_provider, **__: told.append(ask(file_path_provider))
    )
    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", lambda *_, **__: None)

    def ask(name_of: Any) -> str:
        return str(name_of(SimpleNamespace(index_in_partition=0)))

    table._sink(FRAME.lazy(), None, written)
    assert told == [written[0]]


class _Interrupted(list[str]):
    """A list to which another thread adds whenever one has added."""

    def append(self, name: str) -> None:
        self.extend([name, "another.parquet"])


def test_of_many_who_create_a_table_at_once_one_wins(table: Table) -> None:
    """The library made a second commit of a lost race: both sets of rows were in the table."""
    staged = [table.stage(FRAME.lazy()) for _ in range(6)]
    start = threading.Barrier(6)

    def race(files: list[StagedFile]) -> bool:
        start.wait(10)
        try:
            table.create(FRAME.schema, add=files, txns={"silver/things": 1})
        except CommitConflict:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, staged)) == 1
    assert (table.snapshot().version, table.snapshot().num_rows()) == (0, FRAME.height)
