"""Deletion vectors: what every reader sees, what the log keeps, and what happens when two writers meet."""

from __future__ import annotations

from pathlib import Path

import deltalake
import duckdb
import duckdb_extension_delta
import numpy
import polars as pl
import pytest

from lakehouse.errors import CommitConflict, StorageError
from lakehouse.storage import Lake, Snapshot, Table, deletion, deletion_bits, duck, duckdb_source
from lakehouse.storage import positions as positions_module
from lakehouse.storage.commits import CHECKPOINT_INTERVAL
from lakehouse.storage.deletion import Gone, Vector
from lakehouse.storage.version import RECENT

ROWS = 1_000


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three files of 400, 400 and 200 rows: ``id`` 0 to 999, and a text and an instant that go with it."""
    found = Lake(str(tmp_path)).table("silver", "orders")
    frame = pl.LazyFrame({"id": range(ROWS)}).with_columns(
        text=pl.format("a text that is longer than the bounds in the log, of row {}", "id"),
        at_utc=pl.datetime(2024, 1, 1, time_zone="UTC") + pl.duration(seconds="id", microseconds=7),
    )
    staged = [
        file
        for start, rows in ((0, 400), (400, 400), (800, 200))
        for file in found.stage(frame.slice(start, rows))
    ]
    found.create(frame.collect_schema(), add=staged)
    return found


def path_of(snapshot: Snapshot, first_id: int) -> str:
    """The file whose smallest id this is."""
    return str(snapshot.files().filter(pl.col("min.id") == first_id)["path"].item())


def ids(snapshot: Snapshot) -> list[int]:
    return sorted(snapshot.scan(["id"]).collect()["id"].to_list())


def without(*gone: int) -> list[int]:
    return [number for number in range(ROWS) if number not in gone]


def delta_extension() -> str:
    return str(next(Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension")))


def test_every_reader_sees_the_rows_that_are_left(table: Table) -> None:
    snapshot = table.snapshot()
    snapshot.commit(
        delete={path_of(snapshot, 0): numpy.array([0, 399]), path_of(snapshot, 800): numpy.array([5])}
    )
    expected = without(0, 399, 805)
    assert ids(snapshot) == ids(table.snapshot()) == expected
    assert snapshot.num_rows() == len(expected)
    assert sorted(pl.scan_delta(table.uri).collect()["id"].to_list()) == expected
    connection = duckdb.connect()
    for source in (duckdb_source(snapshot), f"delta_scan('{table.uri}')"):
        if source.startswith("delta_scan"):
            connection.execute(f"LOAD '{delta_extension()}'")
        assert [
            row[0] for row in connection.execute(f"SELECT id FROM {source} ORDER BY id").fetchall()
        ] == expected


def noted(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> str:
    """As a gold build reads a version: its deleted rows are in a table."""
    connection.register("found", deletion_bits(snapshot).to_arrow())
    connection.execute("CREATE OR REPLACE TABLE gone AS SELECT file, block, gone::BIT AS gone FROM found")
    return duckdb_source(snapshot, deleted="gone")


@pytest.mark.parametrize("threads", [1, 4])
def test_deleted_rows_in_a_table_hide_the_same_rows(
    table: Table, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duck, "BLOCK_ROWS", 64)
    rng = numpy.random.default_rng(threads)
    connection = duckdb.connect(config={"threads": threads})
    for step in range(4):
        snapshot = table.snapshot()
        files = snapshot.files().filter(pl.col("num_records") > 100)
        # One file stays whole, and others lose their first, their last or any rows; there are always some behind a full byte.
        worn = files.sort("min.id").tail(2 + step % 2)
        gone = {path: numpy.unique([0, rows - 1, *rng.integers(0, rows, 30)]) for path, rows in worn.select("path", pl.col("num_records") + pl.col("num_deleted")).iter_rows()}  # fmt: skip
        snapshot.commit(delete=gone)
        if step == 2:
            table.snapshot().add_columns({"note": pl.String()})
        now = table.snapshot()
        source = noted(connection, now)
        for where, chosen in (("true", pl.lit(True)), ("id % 7 = 3", pl.col("id") % 7 == 3), ("id BETWEEN 390 AND 420", pl.col("id").is_between(390, 420)), ("id = 998", pl.col("id") == 998)):  # fmt: skip
            found = connection.execute(f"SELECT id FROM {source} WHERE {where} ORDER BY id").fetchall()
            assert [row[0] for row in found] == sorted(now.scan().filter(chosen).collect()["id"].to_list())
        columns = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        assert [row[0] for row in columns] == list(now.schema())


def test_a_column_called_as_duckdb_calls_the_files_number(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"id": [1, 2, 3], "file_index": [7, 8, 9], "file": ["a", "b", "c"], "gone": [1, 1, 1]}
    )
    connection = duckdb.connect()
    for names in (frame.columns, ["id", "file", "gone"]):
        other = Lake(str(tmp_path / str(len(names)))).table("silver", "orders")
        rows = frame.select(names)
        snapshot = other.create(rows.schema, add=other.stage(rows.lazy()))
        snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([1])})
        assert connection.execute(f"FROM {noted(connection, other.snapshot())} ORDER BY id").fetchall() == [
            rows.row(0), rows.row(2),
        ]  # fmt: skip


def test_a_table_of_deleted_rows_is_of_all_files(table: Table) -> None:
    with pytest.raises(ValueError, match="all of the version's files"):
        duckdb_source(table.snapshot(), table.snapshot().uris()[:1], "gone")


@pytest.mark.parametrize("window", [1, 2, 100, 400])
def test_rows_are_read_at_their_positions_deleted_or_not(
    table: Table, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(positions_module, "WINDOW_ROWS", window)
    snapshot = table.snapshot()
    path = path_of(snapshot, 400)
    snapshot.commit(delete={path: numpy.array([3, 399])})
    snapshot.add_columns({"more": pl.Int64()})
    rows = table.snapshot().rows_at(path, numpy.array([3, 4, 300, 399]), ["more", "id"])
    assert rows.rows() == [(None, 403), (None, 404), (None, 700), (None, 799)]
    none = table.snapshot().rows_at(path, numpy.array([], dtype=numpy.int64), ["id"])
    assert (none.height, none.schema) == (0, {"id": pl.Int64})


def test_rows_that_one_version_lacks_and_another_has(table: Table) -> None:
    snapshot = table.snapshot()
    path = path_of(snapshot, 0)
    before = snapshot.deleted_rows(path)
    snapshot.commit(delete={path: numpy.array([5, 7])})
    one = snapshot.deleted_rows(path)
    snapshot.commit(delete={path: numpy.array([6])})
    two = snapshot.deleted_rows(path)
    assert two.beyond(one).tolist() == [6]
    assert one.beyond(two).tolist() == []
    assert one.beyond(before).tolist() == [5, 7]


def test_a_scan_with_filters_limits_and_some_columns_never_shows_a_deleted_row(table: Table) -> None:
    snapshot = table.snapshot()
    snapshot.commit(delete={path_of(snapshot, 0): numpy.arange(100)})
    assert snapshot.scan(["text"]).select(pl.len()).collect().item() == ROWS - 100
    assert snapshot.scan().filter(pl.col("id") < 105).select("id").collect()["id"].to_list() == [
        100,
        101,
        102,
        103,
        104,
    ]
    assert (
        snapshot.scan(uris=[snapshot.table.objects.url(path_of(snapshot, 0))]).head(1).collect()["id"].item()
        == 100
    )


def test_vectors_add_up_and_earlier_versions_stay_as_they_were(table: Table) -> None:
    snapshot = table.snapshot()
    first = path_of(snapshot, 0)
    snapshot.commit(delete={first: numpy.array([1])})
    middle = snapshot.version
    table.snapshot().commit(delete={first: numpy.array([3, 1])})
    assert ids(table.snapshot()) == without(1, 3)
    assert ids(table.snapshot(middle)) == without(1)
    assert ids(table.snapshot(0)) == list(range(ROWS))


def test_what_is_gone_is_known_again_from_a_checkpoint_by_another_process(table: Table) -> None:
    snapshot = table.snapshot()
    first, last = path_of(snapshot, 0), path_of(snapshot, 800)
    for number in range(CHECKPOINT_INTERVAL + 3):
        snapshot.commit(delete={first if number % 2 else last: numpy.array([number])})
    gone = [number if number % 2 else 800 + number for number in range(CHECKPOINT_INTERVAL + 3)]
    RECENT._versions.clear()
    assert table.objects.read("_delta_log/_last_checkpoint") is not None
    assert ids(table.snapshot()) == without(*gone)
    for version in range(CHECKPOINT_INTERVAL - 1):  # as when the log's retention has passed
        table.objects.delete(f"_delta_log/{version:020d}.json")
    RECENT._versions.clear()
    assert ids(table.snapshot()) == without(*gone)
    assert sorted(pl.scan_delta(table.uri).collect()["id"].to_list()) == without(*gone)


def test_a_file_with_deleted_rows_can_be_removed_and_does_not_come_back(table: Table) -> None:
    snapshot = table.snapshot()
    first = path_of(snapshot, 0)
    snapshot.commit(delete={first: numpy.array([7])})
    snapshot.commit(remove=[first])
    assert ids(table.snapshot()) == list(range(400, ROWS))
    assert pl.scan_delta(table.uri).select(pl.len()).collect().item() == ROWS - 400
    assert deltalake.DeltaTable(table.uri).get_add_actions().num_rows == 2


def test_of_two_that_take_rows_out_at_once_the_second_is_refused(table: Table) -> None:
    one, two = table.snapshot(), table.snapshot()
    first = path_of(one, 0)
    one.commit(delete={first: numpy.array([1])})
    with pytest.raises(CommitConflict):
        two.commit(delete={first: numpy.array([2])})
    assert ids(table.snapshot()) == without(1)


def test_a_commit_that_only_adds_does_not_stop_one_that_takes_rows_out(table: Table) -> None:
    one, two = table.snapshot(), table.snapshot()
    one.commit(
        add=one.stage(one.scan().head(1).with_columns(id=pl.lit(5_000, pl.Int64))), txns={"another": 1}
    )
    two.commit(delete={path_of(two, 0): numpy.array([0])})
    assert ids(table.snapshot()) == [*without(0), 5_000]


def test_the_same_transaction_is_refused_to_whoever_comes_second(table: Table) -> None:
    one, two = table.snapshot(), table.snapshot()
    one.commit(add=one.stage(one.scan().head(1)), txns={"silver/orders": 2})
    with pytest.raises(CommitConflict, match="silver/orders"):
        two.commit(delete={path_of(two, 0): numpy.array([0])}, txns={"silver/orders": 2})


def test_the_librarys_append_after_deleted_rows_was_not_asked_about_them_and_keeps_them_deleted(
    table: Table,
) -> None:
    snapshot = table.snapshot()
    snapshot.commit(delete={path_of(snapshot, 0): numpy.array([0])})
    snapshot.commit(add=snapshot.stage(snapshot.scan().head(2).with_columns(id=pl.lit(7_000, pl.Int64))))
    assert ids(table.snapshot()) == [*without(0), 7_000, 7_000]


def test_columns_can_be_added_to_a_table_with_deleted_rows(table: Table) -> None:
    snapshot = table.snapshot()
    snapshot.commit(delete={path_of(snapshot, 0): numpy.array([0])})
    wider = snapshot.add_columns({"note": pl.String()})
    assert ids(wider) == without(0)
    source = duckdb_source(wider)
    assert duckdb.sql(f"SELECT count(*), count(note) FROM {source}").fetchone() == (ROWS - 1, 0)


def test_a_damaged_or_missing_vector_stops_the_reader(table: Table) -> None:
    snapshot = table.snapshot()
    snapshot.commit(delete={path_of(snapshot, 0): numpy.array([0])})
    vector = next(iter(snapshot._vectors.values()))
    raw = bytearray(table.objects.read(vector.path) or b"")
    raw[-6] ^= 0xFF
    table.objects.write(vector.path, bytes(raw))
    deletion._RECENT.__init__()  # type: ignore[misc]
    with pytest.raises(StorageError, match="damaged"):
        table.snapshot().deleted_rows(path_of(snapshot, 0))
    table.objects.delete(vector.path)
    with pytest.raises(StorageError, match="missing"):
        table.snapshot().deleted_rows(path_of(snapshot, 0))


@pytest.mark.parametrize("sought", [0, 1, 20, 5_000])
@pytest.mark.parametrize("gone", [0, 1, 10_000])
def test_positions_are_found_among_few_and_among_many(gone: int, sought: int) -> None:
    rng = numpy.random.default_rng(gone + sought)
    there = numpy.sort(rng.choice(100_000, gone, replace=False))
    positions = rng.integers(0, 100_000, sought, dtype=numpy.uint32)
    positions[::3] = there[: len(positions[::3])] if gone > sought else positions[::3]
    found = Gone.none().plus(there).contains(positions)
    assert found.tolist() == numpy.isin(positions, there).tolist()


def test_kept_vectors_take_no_more_than_they_may(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie far from each other take fifty times the room of neighbours."""
    kept = deletion._Recent()
    monkeypatch.setattr(deletion, "_KEPT_BYTES", 100_000)
    far, near = (Gone.none().plus(numpy.arange(100) * step) for step in (70_000, 1))
    assert far.memory_bytes > 10 * near.memory_bytes > 0
    every_second = Gone.none().plus(numpy.arange(0, 131_072, 2))
    assert every_second.memory_bytes < 20_000 < 2 * len(every_second)
    for number in range(100):
        for _ in range(2):
            kept.put(table.objects, Vector(f"v{number}", 1, 1, 100), far if number % 2 else near)
        assert kept.get(table.objects, Vector("v0", 1, 1, 100)) is near  # whoever is asked for stays
        assert kept._bytes == sum(gone.memory_bytes for gone in kept._known.values()) <= 100_000
    assert len(kept._known) > 5
    assert kept.get(table.objects, Vector("v99", 1, 1, 100)) is far
    assert kept.get(table.objects, Vector("v1", 1, 1, 100)) is None


def test_a_position_that_the_file_does_not_have_is_refused(table: Table) -> None:
    snapshot = table.snapshot()
    with pytest.raises(StorageError, match="none at 400"):
        snapshot.commit(delete={path_of(snapshot, 0): numpy.array([400])})
    assert table.snapshot().version == 0


def test_bounds_in_the_log_still_hold_for_what_is_left(table: Table) -> None:
    snapshot = table.snapshot()
    before = snapshot.files().filter(pl.col("min.id") == 400)
    snapshot.commit(delete={path_of(snapshot, 400): numpy.array([0])})
    RECENT._versions.clear()
    after = table.snapshot().files().filter(pl.col("min.id") == 400)
    for name in before.columns:
        if name.startswith(("min.", "max.", "null_count.")) and not name.endswith("text"):
            assert after[name].to_list() == before[name].to_list(), name
    assert after["min.text"].item() <= before["min.text"].item()
    assert after["max.text"].item() >= before["max.text"].item()
    assert (after["num_records"].item(), after["num_deleted"].item()) == (399, 1)


def test_a_copied_or_moved_table_keeps_its_rows_deleted(table: Table, tmp_path: Path) -> None:
    snapshot = table.snapshot()
    snapshot.commit(delete={path_of(snapshot, 0): numpy.array([0])})
    (tmp_path / "elsewhere" / "silver").mkdir(parents=True)
    Path(table.uri).rename(tmp_path / "elsewhere" / "silver" / "orders")
    moved = Lake(str(tmp_path / "elsewhere")).table("silver", "orders").snapshot()
    assert ids(moved) == without(0)
    assert duckdb.sql(f"SELECT count(*) FROM {duckdb_source(moved)}").fetchone() == (ROWS - 1,)
    assert pl.scan_delta(moved.table.uri).select(pl.len()).collect().item() == ROWS - 1
