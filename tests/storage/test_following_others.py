"""What other processes commit is followed by its commits alone; whatever they cannot tell is read by opening the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import deltalake
import polars as pl
import pytest

from lakehouse.errors import LakehouseError
from lakehouse.settings import PROJECT_DIR
from lakehouse.storage import Lake, Table
from lakehouse.storage.log import commit_file

FRAME = pl.DataFrame({"id": [1, 2, 3]})
_ANOTHER = """
import sys
import polars as pl
from lakehouse.storage import Lake
table = Lake(sys.argv[1]).table("silver", "things")
for number in range(int(sys.argv[2])):
    snapshot = table.snapshot()
    first = snapshot.files()["path"][0]
    snapshot.commit(
        add=table.stage(pl.LazyFrame({"id": [10 + number]})), delete={first: [0]} if number == 0 else None,
        txns={"other": number + 1},
    )
"""


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = Lake(str(tmp_path / "lake")).table("silver", "things")
    table.create(FRAME.schema, add=table.stage(FRAME.lazy()), txns={"mine": 1})
    table.snapshot().commit(add=table.stage(FRAME.lazy()))
    return table


def _others_commit(table: Table, times: int) -> None:
    root = str(Path(table.uri).parent.parent)
    subprocess.run([sys.executable, "-c", _ANOTHER, root, str(times)], cwd=PROJECT_DIR, check=True)


def _never_open(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltalake, "DeltaTable", lambda *_, **__: pytest.fail("the table was opened"))


def test_what_another_process_appends_and_deletes_is_seen_without_opening_the_table(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (table.snapshot().num_rows(), table.snapshot().txn("other")) == (6, 0)
    assert table.snapshot().schema() == FRAME.schema
    assert not table.snapshot()._read.has_vectors
    _others_commit(table, 1)  # turns deletion vectors on: that is the protocol's, so the table is opened
    assert sorted(table.snapshot().scan().collect()["id"]) == [1, 2, 2, 3, 3, 10]
    version = table.snapshot().version
    _never_open(table, monkeypatch)
    table.snapshot().commit(add=table.stage(FRAME.lazy()), txns={"mine": 2})
    assert (table.snapshot().version, table.snapshot().num_rows()) == (version + 1, 9)
    monkeypatch.undo()
    another = Lake(str(Path(table.uri).parent.parent)).table("silver", "things")
    deltalake.write_deltalake(
        another.uri, pl.DataFrame({"id": [77]}).to_arrow(), mode="append",
        commit_properties=deltalake.CommitProperties(app_transactions=[deltalake.Transaction("other", 9)]),
    )  # fmt: skip
    _never_open(table, monkeypatch)
    found = table.snapshot()
    assert (found.version, found.txn("other"), found.txn("mine")) == (version + 2, 9, 2)
    assert found.schema() == FRAME.schema
    assert sorted(found.scan().collect()["id"]) == [1, 1, 2, 2, 2, 3, 3, 3, 10, 77]


@pytest.mark.parametrize("times", [2, 30])
def test_a_few_commits_and_many_end_at_the_same_rows(table: Table, times: int) -> None:
    assert table.snapshot().num_rows() == 6
    _others_commit(table, times)
    assert (table.snapshot().num_rows(), table.snapshot().txn("other")) == (5 + times, times)
    assert table.snapshot().scan().collect().height == 5 + times


def test_columns_that_another_has_added_are_seen(table: Table) -> None:
    assert table.snapshot().schema() == FRAME.schema
    deltalake.write_deltalake(
        table.uri, pl.DataFrame({"id": [4], "name": ["d"]}).to_arrow(), mode="append", schema_mode="merge"
    )
    assert table.snapshot().schema() == {"id": pl.Int64(), "name": pl.String()}
    assert table.snapshot().num_rows() == 7


def test_a_version_goes_on_where_others_were_faster_than_the_look(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's handle goes to the newest version, which may be later than the one that was found."""
    table.snapshot().num_rows()
    deltalake.write_deltalake(table.uri, pl.DataFrame({"id": [4]}).to_arrow(), mode="append")
    found = table.snapshot()
    deltalake.write_deltalake(table.uri, pl.DataFrame({"id": [5]}).to_arrow(), mode="append")
    assert (found.version, found.num_rows()) == (2, 7)
    assert (table.snapshot().version, table.snapshot().num_rows()) == (3, 8)


def test_a_torn_commit_of_another_is_an_error_and_not_the_version_before(table: Table) -> None:
    assert table.snapshot().num_rows() == 6
    Path(table.uri, commit_file(2)).write_bytes(b'{"add": {"path"')
    with pytest.raises(LakehouseError):
        table.snapshot().num_rows()
