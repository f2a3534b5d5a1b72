"""The files of a version that is reached by its commits are those that the library lists when it opens the table."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import numpy
import polars as pl
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from lakehouse import names
from lakehouse.storage import Lake, Table
from lakehouse.storage.following import files_after
from lakehouse.storage.log import actions, commit_file
from lakehouse.storage.version import RECENT, Version

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.Int64(),
    "small": pl.Int8(),
    "ratio": pl.Float64(),
    "narrow": pl.Float32(),
    "name": pl.String(),
    "day": pl.Date(),
    "at_utc": pl.Datetime("us", "UTC"),
    "local": pl.Datetime("us"),
    "price": pl.Decimal(12, 2),
    "whole": pl.Decimal(18, 0),
    "is_new": pl.Boolean(),
    "raw": pl.Binary(),
    "tags": pl.List(pl.String()),
    "place": pl.Struct({"city": pl.String(), "number": pl.Int64()}),
}
_INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001  the type without a zone is one of them
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "small": st.none() | st.integers(-128, 127),
        "ratio": st.none() | st.floats(),
        "narrow": st.none() | st.floats(width=32),
        "name": st.none() | st.text(max_size=40) | st.sampled_from(["𠮷" * 40, "\U0010ffff" * 40, 'a"\\\n']),
        "day": st.none() | st.dates(date(1, 1, 1), date(9999, 12, 31)),
        "at_utc": st.none() | _INSTANTS.map(lambda value: value.replace(tzinfo=UTC)),
        "local": st.none() | _INSTANTS,
        "price": st.none() | st.decimals(-(10**9), 10**9, places=2),
        "whole": st.none() | st.integers(-(10**17), 10**17).map(Decimal),
        "is_new": st.none() | st.booleans(),
        "raw": st.none() | st.binary(max_size=5),
        "tags": st.none() | st.lists(st.none() | st.text(max_size=3), max_size=2),
        "place": st.none()
        | st.fixed_dictionaries({"city": st.text(max_size=3), "number": st.integers(0, 9)}),
    }
)
FRAMES = st.lists(ROWS, min_size=1, max_size=4).map(lambda rows: pl.DataFrame(rows, schema=SCHEMA))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    frame = pl.DataFrame({"id": [1, 2, 3], "at_utc": [datetime(2026, 1, 1, tzinfo=UTC)] * 3})
    table = Lake(str(tmp_path / "lake")).table("silver", "things")
    table.create(frame.schema, add=table.stage(frame.lazy()))
    return table


def _listed(table: Table) -> pl.DataFrame:
    """The files of the newest version as the library lists them."""
    return Version(table._open(None), table.objects, table._open).files


def _newest(table: Table) -> pl.DataFrame:
    """The same, of a version that this process follows."""
    return table.snapshot().files()


def _assert_alike(found: pl.DataFrame | None, expected: pl.DataFrame) -> None:
    assert found is not None
    assert_frame_equal(found.sort("path"), expected.sort("path"), check_exact=True)


def _never_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltalake, "DeltaTable", lambda *_, **__: pytest.fail("the table was opened"))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(FRAMES, min_size=1, max_size=4), data=st.data())
def test_files_that_come_go_and_lose_rows_are_as_the_library_lists_them(
    tmp_path_factory: pytest.TempPathFactory, frames: list[pl.DataFrame], data: st.DataObject
) -> None:
    table = Lake(str(tmp_path_factory.mktemp("lake"))).table("silver", "things")
    table.create(SCHEMA, add=table.stage(frames[0].lazy()))
    before, first = _listed(table), table.snapshot().version
    for frame in [*frames[1:], frames[0]]:
        snapshot = table.snapshot()
        paths = snapshot.files()["path"].to_list()
        remove = data.draw(st.lists(st.sampled_from(paths), unique=True, max_size=1))
        shrunk = data.draw(st.sampled_from([None, *(path for path in paths if path not in remove)]))
        delete = {} if shrunk is None else {shrunk: numpy.array([0])}
        snapshot.commit(add=table.stage(frame.lazy()), remove=remove, delete=delete)
    _assert_alike(_newest(table), _listed(table))
    last = table.snapshot().version
    commits = [actions(Path(table.uri, commit_file(n)).read_bytes()) for n in range(first + 1, last + 1)]
    _assert_alike(files_after(before, commits, table.uri + "/"), _listed(table))


def test_a_hundred_commits_are_followed_without_opening_the_table(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.storage.snapshot.CHECKPOINT_INTERVAL", 1000)
    snapshot = table.snapshot()
    assert snapshot.num_rows() == 3
    assert {snapshot.txn("batch"), snapshot.txn(names.app_id("files", "things"))} == {0}  # asked once
    _never_open(monkeypatch)
    for number in range(100):
        add = table.stage(pl.LazyFrame({"id": [number], "at_utc": [datetime(2026, 1, 2, tzinfo=UTC)]}))
        remove = table.snapshot().files()["path"][:1].to_list() if number % 7 == 6 else []
        table.snapshot().commit(add=add, remove=remove, txns={"batch": number + 1})
    monkeypatch.undo()
    _assert_alike(_newest(table), _listed(table))
    assert table.snapshot().txn("batch") == 100


def test_commits_that_nobody_looks_at_are_not_kept_for_ever(table: Table) -> None:
    table.snapshot().num_rows()
    version = table.snapshot()._read
    entry: dict[str, Any] = {"add": {"path": "x", "partitionValues": {}, "size": 1, "modificationTime": 1}}
    for number in range(200):
        entry["add"] |= {"path": f"f{number}", "stats": json.dumps({"numRecords": number})}
        version = version.followed_by(
            version.number + 1, {}, [[json.loads(json.dumps(entry))]], same_protocol=True
        )
        assert version._since is not None
        assert len(version._since[1]) <= 33
    assert version.files.height == 201
    assert version.files["num_records"].sum() == sum(range(200)) + 3


def test_files_stand_in_the_order_in_which_the_library_lists_them(table: Table) -> None:
    """Else the rows of one version come in two orders, by who reads them."""
    for count in (2, 3):
        frames = [
            pl.LazyFrame({"id": [n], "at_utc": [datetime(2026, 1, 2, tzinfo=UTC)]}) for n in range(count)
        ]
        table.snapshot().commit(add=[file for frame in frames for file in table.stage(frame)])
    assert _newest(table)["path"].to_list() == _listed(table)["path"].to_list()


def test_lists_that_follow_each_other_keep_nothing_of_those_before(table: Table) -> None:
    """Texts appended to a column keep every buffer that they were in, whatever is taken out since."""
    files = table.snapshot().files()
    for number in range(50):
        add = {"path": f"{number:036}.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1}
        add["stats"] = json.dumps({"numRecords": 1})
        out = [{"remove": {"path": path}} for path in files["path"][:1]] if number % 3 == 2 else []
        after = files_after(
            files, [[{"commitInfo": {"lakehouseCommit": ""}}, {"add": add}, *out]], table.uri + "/"
        )
        assert after is not None
        files = after
    taken_out = files_after(
        files,
        [[{"commitInfo": {"lakehouseCommit": ""}}, {"remove": {"path": files["path"][34]}}]],
        table.uri + "/",
    )
    assert taken_out is not None
    assert taken_out.equals(files[:34])
    assert files["path"][0] == f"{49:036}.parquet"
    for column in [*files.select(pl.col(pl.String)), *taken_out.select(pl.col(pl.String))]:
        texts = column.to_arrow(compat_level=pl.CompatLevel.newest())
        assert isinstance(texts, pyarrow.Array)
        assert len(texts.buffers()) <= 3, column.name


def test_another_programs_files_are_followed_and_what_it_takes_out_is_asked(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.snapshot().num_rows()
    rows = pl.DataFrame(
        {"id": [7, None], "at_utc": [datetime(2026, 5, 1, 1, 2, 3, 456789, tzinfo=UTC), None]}
    )
    deltalake.write_deltalake(table.uri, rows.to_arrow(), mode="append")
    _never_open(monkeypatch)
    found = _newest(table)
    monkeypatch.undo()
    _assert_alike(found, _listed(table))
    deltalake.DeltaTable(table.uri).delete("id = 2")
    _assert_alike(_newest(table), _listed(table))
    deltalake.DeltaTable(table.uri).optimize.compact()
    _assert_alike(_newest(table), _listed(table))
    assert sorted(table.snapshot().scan().collect()["id"].drop_nulls()) == [1, 3, 7]


def test_a_file_that_keeps_its_vector_because_another_program_forgot_it_stays(table: Table) -> None:
    """The library takes a file out without naming its vector, and by the protocol it then stays."""
    snapshot = table.snapshot()
    path = snapshot.files()["path"][0]
    snapshot.commit(delete={path: numpy.array([1])})
    version = table.snapshot().version + 1
    remove = {
        "remove": {"path": path, "deletionTimestamp": 1, "dataChange": True, "partitionValues": {}, "size": 1}
    }
    Path(table.uri, commit_file(version)).write_text(json.dumps(remove) + "\n")
    assert (table.snapshot().version, _newest(table)["path"].to_list()) == (version, [path])
    assert table.snapshot().scan().collect()["id"].to_list() == [1, 3]
    _assert_alike(_newest(table), _listed(table))


@pytest.mark.parametrize(
    "change",
    [
        {"path": "a%20b.parquet"}, {"partitionValues": {"id": "1"}}, {"stats": None}, {"stats": "{"}, {"stats": "[]"},
        {"stats": '{"minValues": {}}'}, {"stats": '{"numRecords": "3"}'}, {"stats": '{"numRecords": null}'},
        {"stats": '{"numRecords": 1, "minValues": {"id": "1"}}'}, {"stats": '{"numRecords": 1, "minValues": {"id": true}}'},
        {"stats": '{"numRecords": 1, "minValues": {"id": 9223372036854775808}}'},
        {"stats": '{"numRecords": 1, "minValues": {"other": 1}}'},
        {"stats": '{"numRecords": 1, "nullCount": {"id": 1.5}}'},
        {"stats": '{"numRecords": 1, "minValues": {"id": "\\ud800"}}'},
        {"stats": '{"numRecords": 1, "maxValues": {"at_utc": "2026-01-01T00:00:00.123456789Z"}}'},
        {"stats": '{"numRecords": 1, "maxValues": {"at_utc": "2026-01-01T00:00:00"}}'},
        {"stats": '{"numRecords": 1, "maxValues": {"at_utc": "2026-01-01T00:00:00+02:00"}}'},
        {"stats": '{"numRecords": 1, "maxValues": {"at_utc": "yesterday"}}'}, {"size": "large"},
    ],
    ids=lambda change: json.dumps(change)[:60],
)  # fmt: skip
def test_what_is_not_as_it_is_written_here_is_left_to_the_library(
    table: Table, change: dict[str, Any]
) -> None:
    add = {
        "path": "x.parquet",
        "partitionValues": {},
        "size": 1,
        "modificationTime": 2,
        "stats": '{"numRecords": 1}',
    }
    assert files_after(_listed(table), [[{"add": add}]], table.uri + "/") is not None
    assert files_after(_listed(table), [[{"add": {**add, **change}}]], table.uri + "/") is None
    incomplete = {name: value for name, value in add.items() if name not in change}
    assert files_after(_listed(table), [[{"add": incomplete}]], table.uri + "/") is None


def test_a_file_that_another_program_removes_or_adds_again_is_left_to_the_library(table: Table) -> None:
    files = _listed(table)
    remove = {"remove": {"path": files["path"][0]}}
    assert files_after(files, [[remove]], table.uri + "/") is None
    assert files_after(files, [[{"commitInfo": {}}, remove]], table.uri + "/") is None
    again = {"path": files["path"][0], "partitionValues": {}, "size": 1, "modificationTime": 2}
    again["stats"] = '{"numRecords": 1}'
    assert files_after(files, [[{"add": again}]], table.uri + "/") is None
    ours = files_after(files, [[{"commitInfo": {"lakehouseCommit": "1"}}, remove]], table.uri + "/")
    assert ours is not None
    assert ours.height == files.height - 1 == 0
    nothing = files_after(
        files, [[{"commitInfo": {}}, {"txn": {"appId": "x", "version": 1}}]], table.uri + "/"
    )
    assert nothing is not None
    assert nothing.equals(files)


def test_bounds_are_not_rounded_on_their_way(tmp_path: Path) -> None:
    schema = {"price": pl.Decimal(18, 2), "ratio": pl.Float64(), "name": pl.String()}
    table = Lake(str(tmp_path / "lake")).table("silver", "things")
    row = {"price": [Decimal(1)], "ratio": [1.0], "name": ["a"]}
    table.create(schema, add=table.stage(pl.LazyFrame(row, schema=schema)))
    add: dict[str, Any] = {"path": "x", "partitionValues": {}, "size": 1, "modificationTime": 2}

    def bound(column: str, text: str) -> Any:
        add["stats"] = '{"numRecords": 1, "maxValues": {"%s": %s}}' % (column, text)  # noqa: UP031  braces
        found = files_after(_listed(table), [[{"add": add}]], table.uri + "/")
        return None if found is None else found[f"max.{column}"][0]

    assert bound("price", "9007199254740993.25") is None  # a float is 9007199254740994
    assert bound("price", "9007199254740992.0") == Decimal("9007199254740992.00")
    assert bound("ratio", "0.1") == 0.1
    assert bound("ratio", "1e400") is None
    assert bound("name", '"a\\ud842\\udfb7b"') == "a\U0010ffff"
    assert bound("name", '"\\ud800"') is None


def test_a_table_of_no_statistics_is_asked(tmp_path: Path) -> None:
    RECENT.__init__()  # type: ignore[misc]
    table = Lake(str(tmp_path / "lake")).table("silver", "things")
    table.create({"id": pl.Int64()})
    assert table.snapshot().num_rows() == 0
    table.snapshot().commit(add=table.stage(pl.LazyFrame({"id": [1, 2]})))
    _assert_alike(_newest(table), _listed(table))
    assert table.snapshot().num_rows() == 2
