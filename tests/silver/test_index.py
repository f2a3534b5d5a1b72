"""The key index: it finds what reading the table would find, whatever happened to the table or to the index."""

from __future__ import annotations

import json
import os
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy
import polars as pl
import pytest

from lakehouse.silver.index import KeyIndex
from lakehouse.silver.prepare import FILE, POSITION
from lakehouse.silver.write import existing_rows
from lakehouse.storage import Lake, Table, upkeep

START = datetime(2024, 1, 1, tzinfo=UTC)


def rows(keys: list[int], sequence: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": keys,
            "name": [f"n{key}" for key in keys],
            "seen_at_utc": [None if key % 7 == 0 else START + timedelta(seconds=sequence) for key in keys],
        },
        schema={"id": pl.Int64, "name": pl.String, "seen_at_utc": pl.Datetime("us", "UTC")},
    )


@pytest.fixture
def table(tmp_path: Path) -> Table:
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    staged = [
        file
        for start in range(-200, 300, 100)
        for file in found.stage(rows([*range(start, start + 100)], 0).lazy())
    ]
    found.create(rows([], 0).schema, add=staged)
    return found


def index_of(tmp_path: Path, key: list[str]) -> KeyIndex:
    return KeyIndex(tmp_path / "index", key, "seen_at_utc", 1 << 30)


def agree(table: Table, index: KeyIndex, keys: pl.DataFrame) -> None:
    """The index says of these keys what the table says."""
    order = [*index.key, FILE, POSITION]
    found = index.find(table.snapshot(), keys).select(*index.key, "seen_at_utc", FILE, POSITION).sort(order)
    read = existing_rows(table.snapshot(), keys, index.key, ["seen_at_utc"]).sort(order)
    assert found.to_dicts() == read.select(found.columns).to_dicts()


@pytest.mark.parametrize("key", [["id"], ["name"], ["name", "id"]])
def test_the_index_finds_what_the_table_has(table: Table, tmp_path: Path, key: list[str]) -> None:
    wanted = rows([-200, -3, 0, 7, 299, 300, 5_000], 0).select(key)
    index = index_of(tmp_path, key)
    agree(table, index, wanted)
    assert index.find(table.snapshot(), wanted).height == 5


@pytest.mark.parametrize("key", [["id"], ["name"]])
def test_it_follows_changes_compactions_and_restored_files(
    table: Table, tmp_path: Path, key: list[str]
) -> None:
    rng, index = random.Random(3), index_of(tmp_path, key)
    for number in range(1, 25):
        changed = rows(rng.sample(range(-200, 400), 30), number)
        snapshot = table.snapshot()
        if number % 5 == 0:
            paths = snapshot.files()["path"].to_list()
            upkeep.combine(snapshot, rng.sample(paths, min(3, len(paths))))
            snapshot = table.snapshot()
        places = existing_rows(snapshot, changed, key, [])
        delete = {
            name: part[POSITION].to_numpy()
            for (name,), part in places.partition_by(FILE, as_dict=True).items()
        }
        snapshot.commit(add=snapshot.stage(changed.lazy()), delete=delete)
        agree(table, index, rows([*range(-210, 410)], 0).select(key))
    current = table.snapshot().scan().collect()
    assert current["id"].n_unique() == current.height


def test_a_lost_or_spoilt_index_is_made_again(table: Table, tmp_path: Path) -> None:
    index, wanted = index_of(tmp_path, ["id"]), rows([1, 2, 3], 0).select("id")
    agree(table, index, wanted)
    (index.folder / "segments.json").write_text("{")
    agree(table, index, wanted)
    for folder in (entry for entry in index.folder.iterdir() if entry.is_dir()):
        shutil.rmtree(folder)  # as another process does that has merged it
    agree(table, index, wanted)
    shutil.rmtree(index.folder)
    agree(table, index, wanted)


def test_a_half_written_segment_is_not_believed(table: Table, tmp_path: Path) -> None:
    index, wanted = index_of(tmp_path, ["id"]), rows([1, 2, 3], 0).select("id")
    agree(table, index, wanted)
    segment = next(entry for entry in index.folder.iterdir() if entry.is_dir())
    (segment / "sequences").write_bytes(b"")
    agree(table, index, wanted)


def test_an_index_of_another_sequence_or_type_is_not_used(table: Table, tmp_path: Path) -> None:
    wanted = rows([1, 2], 0).select("id")
    index_of(tmp_path, ["id"]).find(table.snapshot(), wanted)
    other = KeyIndex(tmp_path / "index", ["id"], "id", 1 << 30)
    assert other.find(table.snapshot(), wanted)["id"].sort().to_list() == [1, 2]


def test_segments_stay_few_however_many_batches_come(table: Table, tmp_path: Path) -> None:
    index = index_of(tmp_path, ["id"])
    for number in range(40):
        snapshot = table.snapshot()
        snapshot.commit(add=snapshot.stage(rows([1_000 + number], number).lazy()))
        index.find(table.snapshot(), rows([1], 0).select("id"))
    assert len([entry for entry in index.folder.iterdir() if entry.is_dir()]) <= 5


def test_a_table_without_any_of_the_keys_gives_an_empty_answer(table: Table, tmp_path: Path) -> None:
    found = index_of(tmp_path, ["id"]).find(table.snapshot(), rows([9_999], 0).select("id"))
    assert found.is_empty()
    assert set(found.columns) == {"id", "seen_at_utc", FILE, POSITION}
    assert isinstance(numpy.array(found[POSITION]), numpy.ndarray)


def test_what_another_process_is_about_to_name_is_left_alone_and_what_nobody_named_goes(
    table: Table, tmp_path: Path
) -> None:
    index, wanted = index_of(tmp_path, ["id"]), rows([1], 0).select("id")
    young, old = tmp_path / "index" / "young", tmp_path / "index" / "old"
    for folder in (young, old):
        folder.mkdir(parents=True)
        (folder / "keys").write_bytes(b"")
    os.utime(old, (0, 0))
    index.find(table.snapshot(), wanted)
    assert young.exists()
    assert not old.exists()


def test_only_files_that_may_have_the_keys_are_noted(table: Table, tmp_path: Path) -> None:
    index, snapshot = index_of(tmp_path, ["id"]), table.snapshot()
    near = snapshot.files().filter(pl.col("min.id") == 0)["path"].to_list()
    found = index.find(snapshot, rows([5, 250], 0).select("id"), near)
    assert found["id"].to_list() == [5]
    about = [json.loads(path.read_text()) for path in index.folder.glob("*/files.json")]
    assert [name for one in about for name in one["files"]] == near


@pytest.mark.parametrize(
    "dtype", [pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Date, pl.Datetime("us"), pl.Datetime("us", "UTC")]
)
def test_sequences_and_keys_of_every_type_come_back_as_they_were(tmp_path: Path, dtype: pl.DataType) -> None:
    table = Lake(str(tmp_path / "lake")).table("silver", "orders")
    frame = pl.DataFrame(
        {"key": [-3, 0, 100], "at": [100, None, -3]}, schema={"key": pl.Int64, "at": pl.Int64}
    )
    frame = frame.with_columns(pl.all().cast(pl.Int32 if dtype == pl.Date else pl.Int64).cast(dtype))
    table.create(frame.schema, add=table.stage(frame.lazy()))
    index = KeyIndex(tmp_path / "index", ["key"], "at", 1 << 30)
    found = index.find(table.snapshot(), frame.select("key")).select("key", "at").sort("key")
    assert found.equals(frame.sort("key"))
    assert KeyIndex.fits(dict(frame.schema), ["at"])


def test_without_a_sequence_it_says_where_keys_are(table: Table, tmp_path: Path) -> None:
    index = KeyIndex(tmp_path / "index", ["name"], None, 1 << 30)
    wanted = rows([5, 250, 999], 0).select("name")
    found = index.find(table.snapshot(), wanted).sort("name")
    assert found.to_dicts() == existing_rows(table.snapshot(), wanted, ["name"], []).sort("name").to_dicts()


def test_rows_from_before_a_column_was_the_key_may_have_none(tmp_path: Path) -> None:
    """A null among integers made NumPy take them all for fractions: every key of the file was another."""
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    frame = rows([1, 2, 3], 0).with_columns(pl.Series("id", [1, None, 3]))
    snapshot = found.create(frame.schema, add=found.stage(frame.lazy()))
    places = index_of(tmp_path, ["id"]).find(snapshot, pl.DataFrame({"id": [1, 3, 5]}))
    assert sorted(places.select("id", POSITION).rows()) == [(1, 0), (3, 2)]
