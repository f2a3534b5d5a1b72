"""Tables and logs that another engine, a torn write or a wrong clock has touched: read rightly, or refused in words."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import numpy
import polars as pl
import pytest

from lakehouse import names
from lakehouse.errors import StorageError
from lakehouse.gold.relations import source_of
from lakehouse.storage import Lake, Table, connect_duckdb, log, upkeep
from lakehouse.storage.version import RECENT
from tests.storage.conftest import FRAME, create

FEATURES = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}


def _commit(table: Table, *entries: dict[str, Any], stamp: datetime | None = None) -> None:
    """The next commit as another engine writes it; without a description where there is no stamp."""
    version = deltalake.DeltaTable(table.uri).version() + 1
    info = [] if stamp is None else [{"commitInfo": {"timestamp": int(stamp.timestamp() * 1000)}}]
    lines = "\n".join(json.dumps(entry) for entry in (*info, *entries))
    Path(table.uri, log.commit_file(version)).write_text(lines)


def _protocol(readers: list[str], writers: list[str]) -> dict[str, Any]:
    return {
        "protocol": {
            "minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": readers, "writerFeatures": [*readers, *writers],
        }
    }  # fmt: skip


@pytest.mark.parametrize("feature", ["v2Checkpoint", "typeWidening"])
def test_a_table_whose_rows_would_be_read_wrong_is_not_read(table: Table, feature: str) -> None:
    create(table)
    table.snapshot()
    _commit(table, _protocol([feature], []))
    with pytest.raises(StorageError, match=f"another engine has given the table {feature}"):
        table.snapshot().scan()


def test_a_table_with_partition_columns_is_not_read(tmp_path: Path) -> None:
    table = Lake(str(tmp_path)).table("silver", "things")
    deltalake.write_deltalake(table.uri, FRAME.to_arrow(), partition_by=["name"])
    with pytest.raises(StorageError, match="partition columns"):
        table.snapshot()


def test_nothing_is_taken_out_of_a_table_that_asks_for_more_than_is_done_here(table: Table) -> None:
    create(table)
    _commit(table, _protocol([], ["appendOnly", "invariants", "rowTracking", "domainMetadata"]))
    snapshot = table.snapshot()
    with pytest.raises(StorageError, match="domainMetadata, rowTracking, which is not done here"):
        snapshot.commit(remove=snapshot.files()["path"].to_list())
    with pytest.raises(StorageError, match="rowTracking"):
        snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([0])})
    assert table.snapshot().num_rows() == 3


def test_a_table_to_which_rows_are_only_added_loses_none_and_is_compacted(table: Table) -> None:
    create(table)
    deltalake.DeltaTable(table.uri).alter.set_table_properties({"delta.appendOnly": "true"})
    table.snapshot().commit(add=table.stage(FRAME.lazy()))
    snapshot = table.snapshot()
    with pytest.raises(StorageError, match="appendOnly"):
        snapshot.commit(remove=snapshot.files()["path"].to_list())
    upkeep.combine(snapshot, snapshot.files()["path"].to_list())
    assert (table.snapshot().files().height, table.snapshot().num_rows()) == (1, 6)


def test_gold_rows_that_another_engine_marked_as_deleted_are_gone(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    table = lake.table("gold", "daily")
    table.create(FRAME.schema, add=table.stage(FRAME.lazy()))
    snapshot = table.snapshot()
    snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([1])})
    from lakehouse.settings import load_settings

    with connect_duckdb(load_settings(root=str(tmp_path))) as connection:
        rows = connection.execute(f"SELECT id FROM {source_of(table.snapshot())} ORDER BY id").fetchall()
    assert rows == [(1,), (3,)]
    with pytest.raises(StorageError, match="marked as deleted"):
        table.snapshot().commit(
            add=table.stage(pl.LazyFrame({"id": [1]})), overwrite_schema=pl.Schema({"id": pl.Int64()})
        )


def test_a_removal_that_does_not_name_the_vector_removes_nothing(table: Table) -> None:
    create(table)
    snapshot = table.snapshot()
    path = snapshot.files()["path"][0]
    snapshot.commit(delete={path: numpy.array([0])})
    _commit(table, {"remove": {"path": path, "dataChange": True, "deletionTimestamp": log.now_ms()}})
    RECENT.__init__()  # type: ignore[misc]
    assert table.snapshot().scan().collect()["id"].to_list() == [2, 3]


@pytest.mark.parametrize("torn", [b"", b'{"vers', b"[]", b'{"version": null}', b"null"])
def test_a_torn_hint_of_the_checkpoint_is_none(table: Table, torn: bytes) -> None:
    create(table)
    snapshot = table.snapshot()
    snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([0])})
    upkeep.write_checkpoint(table.snapshot())
    Path(table.uri, log.LAST_CHECKPOINT).write_bytes(torn)
    RECENT.__init__()  # type: ignore[misc]
    assert table.snapshot().scan().collect()["id"].to_list() == [2, 3]
    assert not upkeep.checkpoint_is_due(table.snapshot())  # a young log needs none


def test_bounds_that_are_no_exact_numbers_are_left_out_when_rows_are_marked(tmp_path: Path) -> None:
    table = Lake(str(tmp_path)).table("silver", "things")
    amounts = pl.Series(["12.34", "56.78"]).str.to_decimal(scale=2).cast(pl.Decimal(10, 2))
    frame = pl.DataFrame({"id": [1, 2], "amount": amounts})
    frame.write_delta(table.uri)
    snapshot = table.snapshot()
    snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([0])})
    assert table.snapshot().scan().collect()["id"].to_list() == [2]
    assert deltalake.DeltaTable(table.uri).version() == 1


def test_columns_behind_the_32nd_keep_their_statistics(tmp_path: Path) -> None:
    table = Lake(str(tmp_path)).table("bronze", "wide")
    frame = pl.DataFrame({f"c{number:02d}": ["x", "y"] for number in range(40)}).with_columns(
        pl.lit(7, pl.Int64).alias(names.BATCH_ID)
    )
    table.create(frame.schema, add=table.stage(frame.lazy()))
    table.snapshot().commit(
        add=table.stage(frame.with_columns(pl.lit(8, pl.Int64).alias(names.BATCH_ID)).lazy())
    )
    snapshot = table.snapshot()
    assert len(snapshot.files_in_range(names.BATCH_ID, 8, 8)) == 1
    upkeep.write_checkpoint(snapshot)
    RECENT.__init__()  # type: ignore[misc]
    assert len(table.snapshot().files_in_range(names.BATCH_ID, 8, 8)) == 1


@pytest.mark.parametrize("stamp", [None, datetime(2001, 1, 1, tzinfo=UTC)])
def test_a_commit_without_a_time_or_with_an_old_one_makes_nothing_old(
    table: Table, stamp: datetime | None
) -> None:
    create(table)
    snapshot = table.snapshot()
    gone = snapshot.files()["path"].to_list()
    snapshot.commit(add=table.stage(FRAME.lazy()), remove=gone)  # a moment ago: readers may be at it
    _commit(table, {"txn": {"appId": "other", "version": 1}}, stamp=stamp)
    week_ago = datetime.now(UTC) - timedelta(days=8)
    for path in gone:
        os.utime(Path(table.uri, path), (week_ago.timestamp(),) * 2)
    assert upkeep.unneeded_files(table, kept_versions=[], retention=timedelta(days=7)) == []
    later = datetime.now(UTC) + timedelta(days=8)
    found = upkeep.unneeded_files(table, kept_versions=[], retention=timedelta(days=7), now_utc=later)
    assert [info.path for info in found] == gone
