"""Reconcile finds what somebody did to the tables behind the stages' back."""

from __future__ import annotations

from pathlib import Path

import deltalake
import polars as pl
import pytest

from lakehouse.ops.reconcile import reconcile
from tests.lakes import OrdersLake


@pytest.fixture
def orders(tmp_path: Path) -> OrdersLake:
    lake = OrdersLake(tmp_path / "lake", "upsert")
    lake.arrive("1,1,a,", "2,-1,refused,", "3")
    lake.arrive("1,2,b,", "4,1,c,", "4,1,c,")
    return lake


def differences(orders: OrdersLake, *, sources: bool = True) -> list[str]:
    counts = list(reconcile(orders.lake, orders.settings, orders.pipelines, sources=sources))
    assert len(counts) >= 7
    return [count.what for count in counts if not count.ok]


def test_an_honest_lake_has_no_difference(orders: OrdersLake) -> None:
    assert differences(orders) == []


def test_a_lost_bronze_row_is_found(orders: OrdersLake) -> None:
    deltalake.DeltaTable(orders.lake.table("bronze", "orders").uri).delete("note = 'c'")
    found = differences(orders)
    assert "rows landed or refused, per batch" in found
    assert "records in the source files, read again" in found
    assert "keys in silver that no bronze row has" in found


def test_a_doubled_bronze_row_is_found(orders: OrdersLake) -> None:
    table = orders.lake.table("bronze", "orders")
    copy = pl.scan_delta(table.uri).filter(pl.col("note") == "a").collect()
    deltalake.write_deltalake(table.uri, copy, mode="append")
    assert {"records doubled in bronze", "rows landed or refused, per batch"} <= set(differences(orders))


def test_a_lost_silver_row_is_found(orders: OrdersLake) -> None:
    deltalake.DeltaTable(orders.lake.table("silver", "orders").uri).delete("id = 4")
    assert differences(orders) == ["keys of accepted bronze rows missing in silver"]


def test_a_doubled_silver_row_is_found(orders: OrdersLake) -> None:
    table = orders.lake.table("silver", "orders")
    deltalake.write_deltalake(table.uri, pl.read_delta(table.uri).filter(id=4), mode="append")
    assert differences(orders) == ["keys doubled in silver"]


def test_a_lost_quarantine_row_is_found(orders: OrdersLake) -> None:
    deltalake.DeltaTable(orders.lake.table("quarantine", "orders").uri).delete("_stage = 'silver'")
    assert differences(orders) == ["keys of accepted bronze rows missing in silver"]


def test_a_source_file_that_is_gone_is_said_and_no_difference(orders: OrdersLake) -> None:
    next(Path(orders.settings.landing, "orders").iterdir()).unlink()
    counts = list(reconcile(orders.lake, orders.settings, orders.pipelines))
    assert all(count.ok for count in counts)
    assert any("not there any more" in count.detail for count in counts)
