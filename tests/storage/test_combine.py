"""Which files are joined byte by byte, and which rows are written again, when files of a table are combined."""

from __future__ import annotations

from pathlib import Path

import deltalake
import hypothesis
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.settings import load_settings
from lakehouse.storage import Lake, Snapshot, Table, upkeep
from lakehouse.storage.table import ROW_GROUP_ROWS

ROWS = {"id": pl.Int64(), "noise": pl.Int64()}
#: Numbers at random are not compressed: files of more than a mebibyte each.
COUNT = 150_000


def part(first: int, count: int = COUNT) -> pl.DataFrame:
    noise = np.random.default_rng(first).integers(0, 2**62, count)
    return pl.DataFrame({"id": np.arange(first, first + count), "noise": noise}, schema=ROWS)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Lake.from_settings(load_settings(root=str(tmp_path / "lake"))).table("silver", "things")


def filled(table: Table, *frames: pl.DataFrame) -> Snapshot:
    snapshot = table.create(ROWS)
    for frame in frames:
        snapshot.commit(add=table.stage(frame.lazy()))
        snapshot = table.snapshot()
    return snapshot


def in_order(snapshot: Snapshot) -> list[str]:
    return snapshot.files().sort("min.id", "path")["path"].to_list()


def row_groups(snapshot: Snapshot) -> int:
    return sum(pq.read_metadata(uri).num_row_groups for uri in snapshot.uris())


@pytest.mark.parametrize("sort_by", [(), ("id",)])
def test_files_one_behind_the_other_are_joined(table: Table, sort_by: tuple[str, ...]) -> None:
    before = filled(table, *(part(n * COUNT) for n in (2, 0, 1)))
    groups = row_groups(before)
    (staged,) = upkeep.combine(before, in_order(before), sort_by=sort_by)
    after = table.snapshot()
    assert row_groups(after) == groups, "as they were: nothing was read or written again"
    assert (len(after.uris()), after.num_rows()) == (1, 3 * COUNT)
    assert after.scan().collect().equals(pl.concat([part(n * COUNT) for n in (0, 1, 2)]))
    assert staged.num_records == 3 * COUNT
    bounds = after.files().select("min.id", "max.id", "null_count.noise").row(0)
    assert bounds == (0, 3 * COUNT - 1, 0)
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table().num_rows == 3 * COUNT
    assert after.history(1)[0].metadata["sorted_by"] == [], "within a part the rows lie as they lay"


def test_files_that_overlap_are_sorted_where_order_matters(table: Table) -> None:
    before = filled(table, part(0), part(COUNT // 2))
    upkeep.combine(before, in_order(before), sort_by=("id",))
    after = table.snapshot().scan().collect()
    assert after["id"].is_sorted()
    assert table.snapshot().history(1)[0].metadata["sorted_by"] == ["id"]
    assert after.sort("id", "noise").equals(pl.concat([part(0), part(COUNT // 2)]).sort("id", "noise"))


def test_deleted_rows_do_not_come_back(table: Table) -> None:
    before = filled(table, part(0), part(COUNT))
    first = in_order(before)[0]
    before.commit(delete={first: np.arange(0, COUNT, 2, dtype=np.uint32)})
    upkeep.combine(table.snapshot(), in_order(before))
    after = table.snapshot()
    assert after.num_rows() == COUNT + COUNT // 2
    assert after.scan().collect()["id"].to_list() == [*range(1, COUNT, 2), *range(COUNT, 2 * COUNT)]


@pytest.mark.parametrize("is_mixed_up", [False, True])
def test_a_worn_file_alone_is_in_order_afterwards(
    table: Table, monkeypatch: pytest.MonkeyPatch, *, is_mixed_up: bool
) -> None:
    rows = part(0).sample(fraction=1.0, shuffle=True, seed=1) if is_mixed_up else part(0)
    before = filled(table, rows)
    before.commit(delete={in_order(before)[0]: np.arange(0, COUNT, 3, dtype=np.uint32)})
    worn = table.snapshot()
    expected = worn.scan().collect().sort("id", maintain_order=True)
    sorts: list[object] = []
    real = pl.LazyFrame.sort
    monkeypatch.setattr(
        pl.LazyFrame, "sort", lambda *args, **more: sorts.append(args[1]) or real(*args, **more)
    )
    upkeep.combine(worn, in_order(worn), sort_by=("id",))
    assert sorts.count(("id",)) == is_mixed_up, "rows in order are streamed, others are held to be sorted"
    assert table.snapshot().scan().collect().equals(expected)
    assert not table.snapshot().has_deletions
    assert row_groups(table.snapshot()) == -(-expected.height // ROW_GROUP_ROWS)


@pytest.mark.parametrize("is_mixed_up", [False, True])
def test_a_worn_file_is_parted_in_order(table: Table, *, is_mixed_up: bool) -> None:
    """As a history's: by key and instant, ended versions apart from the others."""
    rows = part(0, 1_000).with_columns(pl.col("id") // 3, noise=pl.when(pl.col("id") % 3 == 0).then("id"))
    rows = rows.sort("id", "noise")
    before = filled(table, rows.sample(fraction=1.0, shuffle=True, seed=1) if is_mixed_up else rows)
    before.commit(delete={in_order(before)[0]: np.arange(0, 1_000, 3, dtype=np.uint32)})
    worn = table.snapshot()
    expected = worn.scan().collect().sort("id", "noise")
    upkeep.combine(worn, in_order(worn), sort_by=("id", "noise"), apart_by="noise")
    parts = [pl.read_parquet(uri) for uri in table.snapshot().uris()]
    assert sorted(frame["noise"].null_count() in (0, frame.height) for frame in parts) == [True, True]
    for frame in parts:
        assert frame.equals(frame.sort("id", "noise"))
    assert pl.concat(parts).sort("id", "noise").equals(expected)


def test_looking_at_the_order_is_tried_again_where_the_store_fails(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(table, part(0))
    before.commit(delete={in_order(before)[0]: np.arange(10, dtype=np.uint32)})
    real, tries = upkeep._is_in_order, iter([True])

    def fails_once(*args: object) -> bool:
        if next(tries, False):
            raise OSError("Generic S3 error: connection reset by peer")
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(upkeep, "_is_in_order", fails_once)
    upkeep.combine(table.snapshot(), in_order(table.snapshot()), sort_by=("id",))
    assert table.snapshot().num_rows() == COUNT - 10


_VALUES = st.one_of(st.none(), st.integers(-1, 1))


@hypothesis.settings(deadline=None)
@given(st.lists(st.tuples(_VALUES, _VALUES), max_size=6))
def test_in_order_is_what_sorting_would_not_change(pairs: list[tuple[int | None, int | None]]) -> None:
    frame = pl.DataFrame(pairs, schema={"a": pl.Int8, "b": pl.Int8}, orient="row")
    for rows in (frame, frame.cast(pl.String), frame.select(a=pl.col("a") / 0.0, b="b")):
        for key in (["a"], ["a", "b"], ["b", "a"]):
            is_so = rows.with_row_index().sort(key, maintain_order=True)["index"].is_sorted()
            assert upkeep._is_in_order(rows.lazy(), key) == is_so
    nested = frame.select(a=pl.struct("a", "b"))
    assert not upkeep._is_in_order(nested.lazy(), ["a"]), "those are sorted, and cannot be compared"


def test_rows_that_shall_lie_apart_are_parted(table: Table) -> None:
    """What one file held until now, and nothing where all rows of a kind are gone."""
    rows = part(0, 100).with_columns(noise=pl.when(pl.col("id") % 3 == 0).then("noise"))
    before = filled(table, rows)
    upkeep.combine(before, in_order(before), sort_by=("id",), apart_by="noise")
    after = table.snapshot()
    assert sorted(after.files().select("num_records", "null_count.noise").rows()) == [(34, 0), (66, 66)]
    assert after.scan().collect().sort("id").equals(rows)
    some = after.files().filter(pl.col("null_count.noise") == 0)["path"].item()
    after.commit(delete={some: np.arange(34, dtype=np.uint32)})
    upkeep.combine(table.snapshot(), in_order(table.snapshot()), apart_by="noise")
    assert table.snapshot().files()["num_records"].to_list() == [66]
    assert len(list(Path(table.uri).glob("*-0000?.parquet"))) == 4, "no file of nothing is left"


def test_many_small_files_do_not_become_many_small_row_groups(table: Table) -> None:
    before = filled(table, *(part(100 * n, 100) for n in range(10)))
    upkeep.combine(before, in_order(before))
    after = table.snapshot()
    assert (row_groups(after), after.num_rows()) == (1, 1_000)


def test_files_from_before_a_column_was_added_are_written_again(table: Table) -> None:
    before = filled(table, part(0))
    before.add_columns({"text": pl.String()})
    snapshot = table.snapshot()
    snapshot.commit(add=table.stage(part(COUNT).with_columns(text=pl.lit("new")).lazy()))
    snapshot = table.snapshot()
    upkeep.combine(snapshot, in_order(snapshot))
    after = table.snapshot().scan().collect()
    assert after["text"].to_list() == [None] * COUNT + ["new"] * COUNT
