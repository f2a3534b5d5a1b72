"""Which rows of a table differ between two versions, and what of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from lakehouse import names
from lakehouse.gold import changes
from lakehouse.storage import Snapshot, difference
from tests.gold.conftest import Workshop, order
from tests.gold.groups import DAILY, WHOLE, compact, rewrite

pytestmark = pytest.mark.slow


def test_rows_that_compaction_moves_are_not_read(shop: Workshop) -> None:
    shop.land([order(4, "b", 40)])
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    shop.land([order(5, "c", 50)])
    news = set(table.snapshot().uris()) - set(before.uris())
    compact(shop)
    compacted = set(table.snapshot().uris())
    shop.land([order(6, "a", 60)])
    now = table.snapshot()
    latest = set(now.uris()) - compacted
    found = difference(before, now)
    assert {part.uri for part in found.came} == news | latest
    assert (found.went, found.changed) == ([], [])


def test_rows_that_go_before_and_after_a_compaction_are_told(shop: Workshop) -> None:
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    path = before.files()["path"][0]
    rewrite(shop, set(), [], {path: [0]})
    compact(shop)
    moved = table.snapshot().files()["path"][0]
    rewrite(shop, set(), [], {moved: [0]})
    now = table.snapshot()
    found = difference(before, now)
    was_is = {(old.uri, new.uri) for old, new in found.changed}
    assert (found.came, found.went) == ([], [])
    assert was_is == {(before.table.objects.url(p), before.table.objects.url(p)) for p in (path, moved)}


@pytest.mark.parametrize("ending", ["bin", "rows.parquet"])
def test_a_difference_cannot_be_read_without_both_lists_of_marked_rows(shop: Workshop, ending: str) -> None:
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    rewrite(shop, set(), [], {before.files()["path"][0]: [0]})
    found = difference(before, table.snapshot())
    assert found.is_readable()
    (gone,) = (path for path in table.snapshot().vector_files() if path.endswith(ending))
    table.objects.delete(gone)
    assert not found.is_readable()


def test_groups_of_marked_rows_are_told_by_expressions_however_they_name_their_columns(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are taken out of two files, and their groups told though nothing but the columns named is read."""
    monkeypatch.setattr(changes, "_HANDED_OVER", 1)  # each file's rows by themselves
    expression = """left(\\"DAY\\", 1) || case when Amount * 0 = 1 then 'x' else '' end"""
    shop.mart("daily", DAILY.replace("['day']}", f'["{expression}"]}}'))
    shop.mart("whole", WHOLE)
    shop.land([order(4, "b", 40)])
    shop.build_well()
    snapshot = shop.lake.table("silver", "orders").snapshot()
    first = {path: [0] for path in snapshot.files()["path"]}
    asked: list[Sequence[str]] = []
    read = Snapshot.rows_at

    def rows_at(self: Snapshot, path: str, positions: Any, columns: Sequence[str]) -> pl.DataFrame:
        asked.append(columns)
        return read(self, path, positions, columns)

    monkeypatch.setattr(Snapshot, "rows_at", rows_at)
    rewrite(shop, set(), [], first)
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert shop.rows("daily") == shop.rows("whole")
    assert len(first) == 2
    assert asked
    assert all(set(columns) == {"day", "amount"} for columns in asked)


@pytest.mark.parametrize(
    ("groups", "read"),
    [
        (["day"], ["day"]),
        (["DAY || amount"], ["day", "amount"]),
        (["1"], ["order_id"]),
        (["#2"], ["order_id", "day", "amount"]),
        (["hash(unnamed_subquery)"], ["order_id", "day", "amount"]),
        (["concat(columns('a.*'))"], ["order_id", "day", "amount"]),
        ("select day from changed_rows", ["order_id", "day", "amount"]),
    ],
)
def test_columns_that_may_tell_the_group_are_read(
    shop: Workshop, groups: str | list[str], read: list[str]
) -> None:
    table = shop.lake.table("silver", "narrow")
    table.create({"order_id": pl.Int64(), "day": pl.String(), "amount": pl.Int64()})
    assert changes._named_in(groups, table.snapshot()) == read


def test_a_build_that_goes_back_to_an_earlier_version_sees_what_differs(shop: Workshop) -> None:
    """Silver's newest version failed a check: the one before is read again, and has as many rows."""
    shop.mart("daily", DAILY)
    good = shop.lake.table("silver", "orders").snapshot()
    path = good.files()["path"][0]
    rows = good.scan().collect().to_dicts()
    changed = {**rows[0], "amount": 999}
    rewrite(shop, set(), [changed], {path: [0]})
    shop.build_well()
    assert sum(row["amount"] for row in shop.rows("daily")) == 999 + 20 + 30
    now = shop.lake.table("silver", "orders").snapshot()
    assert now.num_rows() == good.num_rows()
    back = difference(now, good)
    assert (len(back.came), len(back.went), len(back.changed)) == (0, 1, 1)
    result = shop.build_well(silver_versions={"orders": good.version})
    assert result.model("daily").strategy == "replace_groups"
    assert sum(row["amount"] for row in shop.rows("daily")) == 60


def test_a_log_that_does_not_add_up_is_not_believed(shop: Workshop) -> None:
    """Another program's commit that says of new rows that they are old ones."""
    shop.mart("daily", DAILY)
    shop.mart("whole", WHOLE)
    shop.build_well()
    table = shop.lake.table("silver", "orders")
    snapshot = table.snapshot()
    rows = snapshot.scan().collect()
    more = pl.concat([rows, pl.DataFrame([order(9, "b", 90)], schema=rows.schema, orient="row")])
    batch = shop.batches["orders"] = shop.batches["orders"] + 1
    version = snapshot.commit(
        add=table.stage(more.lazy()), remove=snapshot.files()["path"], data_change=False,
        metadata={"stage": "silver", "contract_hash": "c1"}, txns={names.app_id("silver", "orders"): batch},
    )  # fmt: skip
    shop.vouch(version)
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert shop.rows("daily") == shop.rows("whole")
