"""Files that change, vanish or cannot be named while the lake takes them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse import planning
from lakehouse.connectors.files import FileConnector
from lakehouse.errors import SourceUnavailable
from lakehouse.ledger import news, sync
from lakehouse.ops.reconcile import reconcile
from lakehouse.storage import Table
from tests.hostile.bench import GOOD, Inbox


def test_a_file_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake", settle_seconds=60)
    path = inbox.put("a.csv", GOOD)
    assert not inbox.ingest().committed
    os.utime(path, (time.time() - 120,) * 2)
    assert inbox.ingest().accepted == 2


def test_a_file_that_changes_while_it_is_read_is_read_again_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", GOOD)
    path = inbox.put("b.csv", "id,name\n7,x\n")
    original = FileConnector.read

    def read_while_written(self: FileConnector, *arguments: object) -> object:
        extract = original(self, *arguments)  # type: ignore[arg-type]
        path.write_text("id,name\n7,x\n8,y\n")
        return extract

    with monkeypatch.context() as patched:
        patched.setattr(FileConnector, "read", read_while_written)
        with pytest.raises(SourceUnavailable, match=r"b\.csv changed while"):
            inbox.ingest()
    assert not inbox.lake.table("bronze", "orders").exists()
    assert inbox.ingest().accepted == 4
    assert inbox.rows("name") == [("ann",), ("bob",), ("x",), ("y",)]
    assert not inbox.ingest().committed


def test_a_planned_file_that_vanished_does_not_stop_the_others(tmp_path: Path) -> None:
    from lakehouse import planning

    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", GOOD)
    path = inbox.put("b.csv", "id,name\n7,x\n")
    planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    path.unlink()
    assert inbox.ingest().accepted == 2
    assert [event.kind for event in inbox.events()] == ["returned"]
    inbox.put("b.csv", "id,name\n9,z\n")
    assert inbox.ingest().accepted == 1


def test_giving_back_survives_a_crash_right_after_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.bronze import ingest as module

    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", GOOD)
    path = inbox.put("b.csv", "id,name\n7,x\n")
    planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    path.write_text("id,name\n7,x\n8,y\n")
    stage = sys.modules["lakehouse.bronze.ingest"]
    calls = []

    def die(lake: object, source: str) -> int:
        calls.append(source)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return 0

    with monkeypatch.context() as patched:
        patched.setattr(stage, "take_back", die)
        with pytest.raises(KeyboardInterrupt):
            module(inbox.lake, inbox.settings, inbox.pipeline)
    assert inbox.ingest().accepted == 2
    assert inbox.rows("name") == [("ann",), ("bob",), ("x",), ("y",)]


def test_lines_refused_by_a_run_that_died_are_in_quarantine_once_when_their_file_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", "id,name\n1,ann\n5\n")
    path = inbox.put("b.csv", "id,name\n7,x\n8\n")
    with monkeypatch.context() as patched:
        patched.setattr(Table, "create", _die_at("bronze", Table.create))
        with pytest.raises(KeyboardInterrupt):
            inbox.ingest()
    assert [row["_raw"] for row in inbox.refused()] == ["5", "8"]
    os.utime(path, (2_000_000_000, 2_000_000_000))
    inbox.ingest()
    assert inbox.rows("name", "_batch_id") == [("ann", 1), ("x", 2)]
    assert [(row["file"], row["_raw"], row["_batch_id"]) for row in inbox.refused()] == [
        ("a.csv", "5", 1),
        ("b.csv", "8", 2),
    ]
    sync(inbox.lake, [inbox.pipeline])
    counts = list(reconcile(inbox.lake, inbox.settings, {"orders": inbox.pipeline}))
    assert [count for count in counts if not count.ok] == []
    assert not inbox.ingest().committed


def _die_at(layer: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Creating a table of this layer kills the run."""

    def create(table: Table, *args: Any, **options: Any) -> Any:
        if table.layer == layer:
            raise KeyboardInterrupt
        return real(table, *args, **options)

    return create


def test_a_name_that_is_not_utf8_is_passed_over_and_told_and_stops_nobody(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake", path="in/**/x*.csv", on_change="append")
    other = Inbox(tmp_path / "lake", path="in/y*.csv", name="others")
    latin = os.fsencode(inbox.folder) + b"/x-caf\xe9.csv"
    folder = os.fsencode(inbox.folder) + b"/\xfcber"
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for name in (latin, folder + b"/x.csv"):
        with open(name, "wb") as file:
            file.write(GOOD.encode())
    inbox.put("x-café.csv", "id,name\n9,zoe\n")
    inbox.put("y.csv", GOOD)
    pipelines = {"orders": inbox.pipeline, "others": other.pipeline}
    assert set(planning.plan(inbox.lake, inbox.settings, pipelines.values())) == {"orders", "others"}
    assert (inbox.ingest().accepted, other.ingest().accepted) == (1, 2)
    assert news(inbox.lake, inbox.settings, pipelines) == {}
    # Nor when the source has landed something before.
    with open(os.fsencode(inbox.folder) + b"/x-caf\xea.csv", "wb") as file:
        file.write(GOOD.encode())
    inbox.put("x-more.csv", "id,name\n10,eve\n")
    inbox.put("y-more.csv", "id,name\n11,eve\n")
    assert set(planning.plan(inbox.lake, inbox.settings, pipelines.values())) == {"orders", "others"}
    assert (inbox.ingest().accepted, other.ingest().accepted) == (1, 1)
    assert news(inbox.lake, inbox.settings, pipelines) == {}
    told = [str(inbox.folder / name) for name in ("x-caf\\xe9.csv", "x-caf\\xea.csv", "\\xfcber/x.csv")]
    assert sorted((event.kind, event.pipeline, event.message) for event in inbox.events()) == sorted(
        ("ignored", "orders", f"{path} was not read: its name is not UTF-8; rename it") for path in told
    )
    os.rename(latin, inbox.folder / "x-cafe.csv")
    assert inbox.ingest().accepted == 2
    assert not inbox.ingest().committed
