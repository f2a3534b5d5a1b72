"""One Delta table: commits, conflicts, statistics, DuckDB sources."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pytest

from lakehouse.errors import CommitConflict, StorageError, TableNotFound
from lakehouse.storage import Lake, Objects, Table, duckdb_source, log
from tests.storage.conftest import FRAME, create


def test_staged_rows_are_invisible_until_the_commit(table: Table) -> None:
    create(table)
    staged = table.stage(FRAME.lazy())
    assert table.snapshot().num_rows() == 3
    table.snapshot().commit(add=staged)
    assert table.snapshot().num_rows() == 6


def test_another_reader_sees_what_was_committed(table: Table) -> None:
    create(table)
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table().to_pydict() == FRAME.to_dict(as_series=False)
    assert deltalake.DeltaTable(table.uri).transaction_version("silver/things") == 1


def test_a_commit_through_a_stale_handle_is_refused_when_the_transaction_is_taken(table: Table) -> None:
    create(table)
    first, second = table.snapshot(), table.snapshot()
    staged = table.stage(FRAME.lazy())
    first.commit(add=staged, txns={"silver/things": 2})
    with pytest.raises(CommitConflict):
        second.commit(add=table.stage(FRAME.lazy()), txns={"silver/things": 2})
    assert table.snapshot().num_rows() == 6


def test_removing_and_adding_is_one_version(table: Table) -> None:
    create(table)
    snapshot = table.snapshot()
    old = snapshot.files()["path"].to_list()
    version = snapshot.commit(add=table.stage(pl.LazyFrame({"id": [9], "name": ["z"]})), remove=old)
    assert version == 1
    assert table.snapshot(1).scan().collect()["id"].to_list() == [9]
    assert table.snapshot(0).scan().collect()["id"].to_list() == [1, 2, 3]


def test_metadata_comes_back_from_the_history(table: Table) -> None:
    create(table)
    table.snapshot().commit(add=table.stage(FRAME.lazy()), metadata={"stage": "silver", "rows_in": 3})
    newest, oldest = table.snapshot().history()
    assert (newest.version, newest.metadata) == (1, {"stage": "silver", "rows_in": 3})
    assert oldest.metadata == {"n": 1}


def test_a_pinned_version_has_its_own_history(table: Table) -> None:
    create(table)
    overtaken = table.snapshot()
    for number in (1, 2):
        table.snapshot().commit(add=table.stage(FRAME.lazy()), metadata={"n": number + 1})
    found = [(commit.version, commit.metadata["n"]) for commit in table.snapshot(1).history()]
    assert found == [(1, 2), (0, 1)]
    assert [commit.metadata["n"] for commit in overtaken.history(1)] == [1]


def test_a_missing_table_is_told_from_an_unreadable_one(table: Table) -> None:
    with pytest.raises(TableNotFound):
        table.snapshot()
    create(table)
    log = Path(table.uri, "_delta_log", "00000000000000000000.json")
    log.write_text("this is not a Delta log\n")
    with pytest.raises(StorageError) as error:
        table.snapshot()
    assert not isinstance(error.value, TableNotFound)


def test_a_version_that_never_was_is_not_found(table: Table) -> None:
    create(table)
    with pytest.raises(TableNotFound, match="no version 7"):
        table.snapshot(7)


def test_added_columns_read_as_null_in_old_files(table: Table) -> None:
    create(table)
    snapshot = table.snapshot().add_columns({"colour": pl.String()})
    snapshot.commit(add=table.stage(FRAME.with_columns(colour=pl.lit("red")).lazy()))
    rows = table.snapshot().scan().collect()
    assert rows["colour"].null_count() == 3
    connection = duckdb.connect()
    counted = connection.execute(
        f"SELECT count(*), count(colour) FROM {duckdb_source(table.snapshot())}"
    ).fetchone()
    assert counted == (6, 3)


def test_an_empty_table_is_a_typed_empty_relation(table: Table) -> None:
    table.create({"id": pl.Int64(), "at": pl.Datetime("us", "UTC")})
    relation = duckdb.connect().sql(f"SELECT * FROM {duckdb_source(table.snapshot())}")
    assert relation.columns == ["id", "at"]
    assert [str(kind) for kind in relation.types] == ["BIGINT", "TIMESTAMP WITH TIME ZONE"]
    assert relation.fetchall() == []


def test_an_empty_frame_stages_no_file(table: Table) -> None:
    assert table.stage(FRAME.lazy().filter(pl.col("id") > 99)) == []


def test_statistics_never_hide_a_row(table: Table) -> None:
    """Bounds of texts and timestamps are cut; a file must still be found by its extreme values."""
    longest = "z" * 60
    instant = datetime(2024, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    frame = pl.DataFrame({"text": ["a", longest], "at": [instant, instant]}).cast(
        {"at": pl.Datetime("us", "UTC")}
    )
    create(table, frame)
    snapshot = table.snapshot()
    assert snapshot.files_in_range("text", longest, longest) == snapshot.uris()
    assert (
        snapshot.files_in_range("text", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz~", "~") == snapshot.uris()
    )
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table(filters=[("at", "=", instant)]).num_rows == 2
    assert pl.scan_delta(table.uri).filter(pl.col("text") == longest).collect().height == 1


def test_statistics_rule_out_files_that_cannot_match(table: Table) -> None:
    create(table)
    table.snapshot().commit(add=table.stage(pl.LazyFrame({"id": [100, 200], "name": ["x", "y"]})))
    assert len(table.snapshot().files_in_range("id", 150, 160)) == 1
    assert table.snapshot().files_in_range("id", 300, 400) == []


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        (pl.UInt32(), 4_000_000_000, 4_000_000_000),
        (pl.UInt64(), 2**64 - 1, 2**64 - 1),
        (pl.Categorical(), "a", "a"),
        (
            pl.Datetime("ns", "Europe/Berlin"),
            datetime(2024, 7, 1, tzinfo=UTC),
            datetime(2024, 7, 1, tzinfo=UTC),
        ),
    ],
)
def test_types_that_delta_lacks_are_widened_without_loss(
    table: Table, dtype: pl.DataType, value: object, stored: object
) -> None:
    create(table, pl.DataFrame({"x": [value]}, schema={"x": dtype}))
    assert table.snapshot().scan().collect()["x"].to_list() == [stored]


def test_tables_lists_what_has_a_version(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert lake.tables("silver") == []
    create(lake.table("silver", "things"))
    lake.table("silver", "staged_only").stage(FRAME.lazy())
    assert lake.tables("silver") == ["things"]


def test_one_of_many_callers_creates_an_object(tmp_path: Path) -> None:
    objects = Lake(str(tmp_path)).objects
    assert [objects.put_if_absent("lock", b"x") for _ in range(3)] == [True, False, False]
    assert objects.read("lock") == b"x"
    assert objects.read("nothing") is None


def test_a_commit_knows_its_own_version_when_others_commit_beside_it(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest version was taken for one's own: checks were then recorded for another writer's rows."""
    create(table)
    mine = table.snapshot()
    other = table.snapshot()
    other.commit(add=table.stage(FRAME.lazy()), metadata={"who": "before"})
    real = log.append_commit

    def overtaken(*args: Any, **options: Any) -> int:
        monkeypatch.undo()
        version = real(*args, **options)
        table.snapshot().commit(add=table.stage(FRAME.lazy()), metadata={"who": "after"})
        return version

    monkeypatch.setattr(log, "append_commit", overtaken)
    assert mine.commit(add=table.stage(FRAME.lazy()), metadata={"who": "me"}) == 2
    assert next(mine.commits()).metadata == {"who": "me"}
    assert mine.num_rows() == 3 * FRAME.height
    assert table.snapshot().version == 3


def test_a_snapshot_stays_what_it_was_when_another_commits(table: Table) -> None:
    create(table)
    mine, other = table.snapshot(), table.snapshot()
    other.commit(add=table.stage(FRAME.lazy()), txns={"a": 7})
    assert (mine.version, mine.num_rows(), mine.txn("a")) == (0, FRAME.height, 0)
    assert (other.version, other.num_rows(), other.txn("a")) == (1, 2 * FRAME.height, 7)
    assert table.snapshot().version == 1


def test_the_version_before_can_still_be_asked_after_a_commit_went_on_from_it(table: Table) -> None:
    """The opened log goes on to the new version; who holds the old one must not be shown the new one's files."""
    create(table)
    old = table.snapshot()
    table.snapshot().commit(add=table.stage(FRAME.lazy()), txns={"silver/things": 2}, metadata={"n": 2})
    assert (old.version, old.num_rows(), old.txn("silver/things")) == (0, 3, 1)
    assert old.scan().collect().height == 3
    assert table.snapshot(0).num_rows() == 3
    assert (table.snapshot().num_rows(), table.snapshot().txn("silver/things")) == (6, 2)
    assert deltalake.DeltaTable(table.uri).transaction_version("silver/things") == 2


def test_many_threads_may_ask_a_version_while_one_goes_on_from_it(table: Table) -> None:
    create(table)
    for number in range(1, 13):
        held = table.snapshot()
        start = threading.Barrier(5)

        def ask(held: Any = held, start: threading.Barrier = start) -> tuple[int, int]:
            start.wait(10)
            return held.version, held.num_rows()

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask) for _ in range(4)]
            mine = table.snapshot()
            start.wait(10)
            mine.commit(add=table.stage(FRAME.lazy()))
            assert {one.result() for one in asked} == {(number - 1, 3 * number)}
        assert table.snapshot().num_rows() == 3 * (number + 1)


def test_an_append_does_not_mind_what_others_take_out_meanwhile(table: Table) -> None:
    create(table)
    mine = table.snapshot()
    other = table.snapshot()
    other.commit(remove=other.files()["path"].to_list())
    assert mine.commit(add=table.stage(FRAME.lazy())) == 2
    assert (mine.num_rows(), table.snapshot().num_rows()) == (3, 3)
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table().num_rows == 3


def test_a_table_that_asks_more_of_its_writers_is_written_by_the_library(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(table)
    deltalake.DeltaTable(table.uri).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    monkeypatch.setattr(log, "append_commit", lambda *_, **__: pytest.fail("written by hand"))
    table.snapshot().commit(add=table.stage(FRAME.lazy()), txns={"a": 3}, metadata={"n": 7})
    assert (table.snapshot().num_rows(), table.snapshot().txn("a")) == (6, 3)
    assert table.snapshot().history(1)[0].metadata == {"n": 7}


def test_rows_are_counted_by_value_whether_footers_tell_or_not(table: Table) -> None:
    """Files of one value, of several, of several row groups, and one with rows that are gone."""
    alone = pl.DataFrame({"id": [7] * 300_000})  # more than one row group
    create(table, alone)
    mixed = pl.DataFrame({"id": [8, 8, 9, None]})
    table.snapshot().commit(add=table.stage(mixed.lazy()))
    table.snapshot().commit(add=table.stage(pl.DataFrame({"id": [9, 9, 9]}).lazy()))
    assert table.snapshot().count_from("id", 0) == {7: 300_000, 8: 2, 9: 4}
    assert table.snapshot().count_from("id", 9) == {9: 4}
    path = table.snapshot().files().filter(pl.col("num_records") == 300_000)["path"].item()
    table.snapshot().commit(delete={path: [0, 17]})
    assert table.snapshot().count_from("id", 0) == {7: 299_998, 8: 2, 9: 4}


def test_a_count_of_rows_is_of_the_files_and_not_of_the_log(table: Table) -> None:
    """The log may say anything of a file; what is counted is what a reader gets."""
    create(table, pl.DataFrame({"id": [1] * 10}))
    path = table.snapshot().files()["path"].item()
    pl.DataFrame({"id": [1] * 9}).write_parquet(Path(table.uri, path))
    assert table.snapshot().num_rows() == 10
    assert table.snapshot().count_from("id", 0) == {1: 9}


@pytest.mark.parametrize("root", [".", "./lake", "{here}", "{here}/lake/"])
@pytest.mark.parametrize("prefix", ["", "a", "a/"])
def test_a_listing_names_objects_as_they_stand_below_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, prefix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / root.format(here=tmp_path) / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "x").write_bytes(b"1")
    (folder / "b" / "y").write_bytes(b"22")
    found = sorted((info.path, info.size_bytes) for info in Objects(root.format(here=tmp_path)).list(prefix))
    assert found == [("a/b/y", 2), ("a/x", 1)]
