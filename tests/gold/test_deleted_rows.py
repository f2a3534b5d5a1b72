"""Deleted rows of silver: a build notes them once, and is none the worse where one of the two ways to know them is lost."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lakehouse.gold import changes, session
from lakehouse.storage import deletion
from tests.gold.conftest import Workshop, order
from tests.gold.groups import rewrite
from tests.gold.models import DAILY


def mark_one_row(shop: Workshop) -> Path:
    """One order of two files is replaced by another; the folder of the table."""
    snapshot = shop.lake.table("silver", "orders").snapshot()
    (path,) = snapshot.files()["path"]
    new = {**snapshot.scan().collect().row(0, named=True), **order(9, "c", 5)}
    rewrite(shop, set(), [new], {path: [0]})
    return Path(snapshot.table.uri)


LEFT = [{"day": "a", "total": 20}, {"day": "b", "total": 30}, {"day": "c", "total": 5}]


def test_a_build_needs_none_of_the_lists_beside_the_vectors(shop: Workshop) -> None:
    folder = mark_one_row(shop)
    lists = list(folder.glob("*.rows.parquet"))
    assert lists
    for file in lists:
        file.unlink()
    shop.mart("daily", DAILY)
    shop.build_well()
    assert shop.rows("daily") == LEFT


def test_where_the_vectors_are_lost_the_lists_are_read(
    shop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    folder = mark_one_row(shop)
    for file in folder.glob("deletion_vector_*.bin"):
        file.unlink()
    deletion._RECENT.__init__()  # type: ignore[misc]
    shop.mart("daily", DAILY)
    shop.build_well()
    assert shop.rows("daily") == LEFT
    assert "gold reads the lists of deleted rows of silver.orders" in caplog.text


def test_only_tables_that_are_read_are_noted(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    note = session._note_deleted

    def noting(connection: object, name: str, snapshot: object) -> str | None:
        noted.append(name)
        return note(connection, name, snapshot)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_note_deleted", noting)
    shop.mart("daily", DAILY)
    shop.build_well()
    assert noted == []  # nothing is deleted
    mark_one_row(shop)
    shop.build_well()
    assert noted == ["silver.orders"]
    noted.clear()
    shop.mart("other", "select 1 as one")
    shop.build_well()
    assert noted == []


def test_marked_rows_that_tell_the_same_are_handed_over_once_where_that_pays() -> None:
    days = pl.DataFrame({"day": ["a", "b"] * 700, "__sign": [-1] * 1_400})
    assert sorted(changes._distinct(days).rows()) == [("a", -1), ("b", -1)]
    behind = pl.DataFrame({"day": [*range(1_000), *[7] * 99_000], "__sign": [-1] * 100_000})
    assert changes._distinct(behind).height == 1_000, "the first rows are others than the rest"
    keys = pl.DataFrame({"key": [*range(1_999), 0], "__sign": [-1] * 2_000})
    assert changes._distinct(keys).height == 2_000
    assert changes._distinct(keys.clear()).height == 0
