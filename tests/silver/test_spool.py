"""Rows on disk and in memory are the same rows, however often they are asked for."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lakehouse.memory import SharedMemory
from lakehouse.silver import spool
from tests.lakes import OrdersLake

pytestmark = pytest.mark.slow

ROWS = 300_000


@pytest.fixture
def rows(tmp_path: Path) -> pl.LazyFrame:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"id": range(ROWS)}).write_parquet(path, row_group_size=20_000)
    return pl.scan_parquet(path)


def spool_of(tmp_path: Path, memory: SharedMemory) -> spool.Spool:
    bench = OrdersLake(tmp_path / "lake", "upsert", sequence_by="seq")
    bench.arrive(*(f"{n},{n},{'x' * n},{n}" for n in range(7)))
    sample = bench.lake.table("bronze", "orders").snapshot().scan()
    return spool.Spool(bench.settings, bench.pipeline, sample, memory)


def test_slices_of_a_lake_whose_root_looks_like_a_pattern(tmp_path: Path, rows: pl.LazyFrame) -> None:
    with spool_of(tmp_path / "lake[1]", SharedMemory(1)) as held:
        slices = list(held.slices(rows, ROWS, ["id"]))
    assert len(slices) > 5
    assert sorted(pl.concat(slices)["id"].to_list()) == list(range(ROWS))


@pytest.mark.parametrize("how", ["anti", "semi"])
def test_slices_have_every_row_once_though_a_join_keeps_no_order(
    tmp_path: Path, rows: pl.LazyFrame, how: str
) -> None:
    few = pl.LazyFrame({"id": [0, 7, ROWS // 2]})
    joined = rows.join(few if how == "anti" else rows.filter(pl.col("id") != 7), on="id", how=how)  # type: ignore[arg-type]
    expected = [
        number for number in range(ROWS) if number not in ((0, 7, ROWS // 2) if how == "anti" else (7,))
    ]
    with spool_of(tmp_path, SharedMemory(1)) as held:
        slices = list(held.slices(joined, len(expected), ["id"]))
    assert len(slices) > 5
    assert sorted(pl.concat(slices)["id"].to_list()) == expected


def test_rows_that_were_expected_fit(tmp_path: Path, rows: pl.LazyFrame) -> None:
    """More than the stage's own memory holds, with what it borrows: one row too few would send all of them to disk."""
    with spool_of(tmp_path / "alone", SharedMemory(1 << 30)) as held:
        row_bytes = (1 << 30) / held.rows_that_fit
    for count in (123_457, 200_003, 299_999):
        memory = SharedMemory(int(2 * count * row_bytes), 3)
        with spool_of(tmp_path / str(count), memory) as held:
            held.expect(count)
            assert held.rows_that_fit >= count
            held.materialize(rows.head(count), count)
            assert not held.folder.exists()


def test_what_a_stage_took_is_given_back_when_it_fails(tmp_path: Path) -> None:
    memory = SharedMemory(1 << 30, 2)

    def fail() -> None:
        with spool_of(tmp_path, memory) as held:
            held.expect(1_000_000)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert memory.take(1 << 30) == (3 << 30) // 4
