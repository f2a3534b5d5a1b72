"""Texts with characters behind U+FFFF: the library reads them wrongly where the log has them escaped (deltalake 1.6.6)."""

from __future__ import annotations

import json
from pathlib import Path

import deltalake
import pandera.polars as pa
import polars as pl
import pytest

from lakehouse.contracts import Contract
from lakehouse.silver import refine
from lakehouse.storage import Table, upkeep
from lakehouse.storage.stats import lower_bound, upper_bound
from tests.lakes import OrdersLake
from tests.storage.conftest import create

NAMES = ["佐藤", "鈴木", "𠮷田"]
#: One of each plane, alone and behind others, one longer than a bound, and the last of all.
TEXTS = [
    *(chr(plane << 16 | 0x1234) for plane in range(1, 17)), "a𠮷b", "z" * 40, "𠮷" * 40, "a" * 20 + "𠮷" * 20, "\U0010ffff",
]  # fmt: skip


class People(Contract):
    """One row per person."""

    name: pl.String = pa.Field(description="Name.")
    amount: pl.Int64 = pa.Field(ge=0, description="Euros.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["name"]


def escape(table: Table) -> None:
    """The log as it was written before, and as other writers may write it."""
    for path in Path(table.uri, "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                action["add"]["stats"] = json.dumps(json.loads(action["add"]["stats"]))
        path.write_text("\n".join(json.dumps(action) for action in actions))


@pytest.mark.parametrize("mode", ["upsert", "append", "history"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_key_that_comes_twice_is_there_once(tmp_path: Path, mode: str, escaped: bool) -> None:
    options = {} if mode == "append" else {"sequence_by": "seq"}
    orders = OrdersLake(tmp_path, mode, contract=People, **options)
    for batch in (NAMES, NAMES[2:], NAMES):
        orders.arrive(*(f"{name},{len(batch)},1" for name in batch), header="name,amount,seq")
        if escaped:
            escape(orders.lake.table("silver", "orders"))
    assert [row[0] for row in orders.rows("name")] == sorted(NAMES)
    assert refine(orders.lake, orders.settings, orders.pipeline).batches == ()


@pytest.mark.parametrize("escaped", [False, True])
def test_bounds_hold_whatever_wrote_the_log_and_however_often_a_file_is_shrunk(
    table: Table, escaped: bool
) -> None:
    create(table, pl.DataFrame({"name": ["first", "first"], "id": [0, 1]}))
    for number, text in enumerate(TEXTS):
        rows = pl.DataFrame(
            {"name": [text] * 3, "id": [10 * number + 10, 10 * number + 11, 10 * number + 12]}
        )
        table.snapshot().commit(add=table.stage(rows.lazy()))

    def check() -> None:
        if escaped:
            escape(table)
        for number, text in enumerate(TEXTS):
            own = set(table.snapshot().files_in_range("id", 10 * number + 10, 10 * number + 12))
            assert own <= set(table.snapshot().files_in_range("name", text, text)), text
        assert len(table.snapshot().files_in_range("name", "b", "c")) < len(TEXTS)  # some are ruled out

    check()
    for position in (0, 1):
        paths = table.snapshot().files()["path"].to_list()
        table.snapshot().commit(delete={path: [position] for path in paths})
        check()
    upkeep.write_checkpoint(table.snapshot())
    check()


def test_the_library_reads_what_was_written(table: Table) -> None:
    create(table, pl.DataFrame({"name": ["a𠮷b", "a𠮷b"]}))
    table.snapshot().commit(add=table.stage(pl.LazyFrame({"name": ["𠮷田", "佐藤"]})))
    last = table.snapshot().files().filter(pl.col("max.name").str.starts_with("a"))["path"].item()
    table.snapshot().commit(delete={last: [0]})
    found = pl.DataFrame(deltalake.DeltaTable(table.uri).get_add_actions(flatten=True))
    assert set(found["min.name"]) == {"佐藤", "a𠮷b"}
    # Of a file that lost rows the bound is written again, as it was read.
    assert set(found["max.name"]) == {"𠮷田", "a\U0010ffff"}


@pytest.mark.parametrize(
    "text", ["", "a", "z" * 32, "z" * 33, "z" * 60, "𠮷" * 33, "\U0010ffff", "a" * 31 + "𠮷"]
)
def test_bounds_of_bounds_are_the_same(text: str) -> None:
    low, high = lower_bound(text), upper_bound(text)
    assert low <= text <= high
    assert (lower_bound(low), upper_bound(high)) == (low, high)
