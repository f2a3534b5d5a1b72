"""Tables opened beside each other, for who asks for one after the other next."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse.errors import StorageError
from lakehouse.storage import Lake
from lakehouse.storage.table import Table
from lakehouse.storage.version import RECENT

_TABLES = [("bronze", name) for name in ("a", "b", "c")]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    for layer, name in _TABLES:
        table = lake.table(layer, name)  # type: ignore[arg-type]
        table.create({"id": pl.Int64()}, add=table.stage(pl.LazyFrame({"id": [1]})))
    RECENT._versions.clear()
    return lake


def _opened(monkeypatch: pytest.MonkeyPatch, wait_for: int = 1) -> list[str]:
    opened: list[str] = []
    together = threading.Barrier(wait_for)
    before = Table._open

    def open_(table: Table, version: int | None) -> Any:
        opened.append(table.name)
        if version is None:
            together.wait(10)
        return before(table, version)

    monkeypatch.setattr(Table, "_open", open_)
    return opened


def test_all_are_opened_at_once_and_nobody_opens_them_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(monkeypatch, wait_for=3)  # one after the other would never meet
    lake.open_ahead(_TABLES)  # type: ignore[arg-type]
    assert sorted(opened) == ["a", "b", "c"]
    lake.open_ahead(_TABLES)  # type: ignore[arg-type]
    assert [lake.table("bronze", name).snapshot().num_rows() for _, name in _TABLES] == [1, 1, 1]
    assert len(opened) == 3


def test_what_cannot_be_opened_is_told_by_who_needs_it(lake: Lake) -> None:
    (commit,) = Path(lake.root, "bronze", "b", "_delta_log").glob("*.json")
    commit.write_text("torn")
    lake.open_ahead([*_TABLES, ("silver", "not_there")])  # type: ignore[list-item]
    assert lake.table("bronze", "c").snapshot().num_rows() == 1
    with pytest.raises(StorageError, match=r"bronze\.b"):
        lake.table("bronze", "b").snapshot()
