"""Columns that come, go, move and change their type: by policy, with nothing lost and somebody told."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from asset_checks.base import Subject
from asset_checks.bronze import bronze_checks
from lakehouse.errors import ContractError, SourceError
from tests.hostile.bench import Inbox
from tests.lakes import OrdersLake


def looked(lake: Any, name: str) -> Any:
    snapshot = lake.lake.table("bronze", "orders").snapshot()
    (check,) = [check for check in bronze_checks(lake.pipeline) if check.name == name]
    return check.look(Subject(lake.lake, lake.pipeline, snapshot))


def test_reordered_columns_are_read_by_name_and_are_no_change(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", "id,name\n1,ann\n")
    inbox.put("b.csv", "name,id\nbob,2\n")
    assert inbox.ingest().schema_changes == ()
    assert inbox.rows("id", "name") == [("1", "ann"), ("2", "bob")]


def test_short_lines_are_found_where_the_last_column_is_a_number_since_the_source_was_parquet(
    tmp_path: Path,
) -> None:
    before = Inbox(tmp_path / "lake", "parquet")
    pl.DataFrame({"id": ["1"], "n": [7]}).write_parquet(before.folder / "a.parquet")
    before.ingest()
    inbox = Inbox(tmp_path / "lake")
    inbox.put("b.csv", "id,n\n2,8\n3,\n4\n")
    inbox.put("c.csv", "id,n\n5,\n6,9\n")
    result = inbox.ingest()
    assert (result.rows_in, result.accepted, result.quarantined) == (5, 4, 1)
    assert inbox.rows("id", "n", "_rescued") == [
        ("1", 7, None),
        ("2", 8, None),
        ("3", None, '{"n":""}'),
        ("5", None, '{"n":""}'),
        ("6", 9, None),
    ]
    assert [(row["file"], row["rule"], row["_raw"]) for row in inbox.refused()] == [
        ("b.csv", "csv: too few fields", "4")
    ]


@pytest.mark.parametrize("root", ["lake[1]", "la?e", "*"])
def test_a_root_that_looks_like_a_pattern_is_a_folder_like_any_other(tmp_path: Path, root: str) -> None:
    """Short lines and rescued values are looked for in what has just been staged: the run stopped, or read another folder."""
    test_short_lines_are_found_where_the_last_column_is_a_number_since_the_source_was_parquet(tmp_path / root)
    test_a_retyped_column_is_rescued_value_by_value(tmp_path / root / "more")
    lines = Inbox(tmp_path / root / "lines", "jsonl")
    lines.put("a.jsonl", '{"id": 1}\n{"id": 2}\n')
    lines.ingest()
    assert lines.rows("id") == [("1",), ("2",)]


def test_a_renamed_column_is_one_new_and_one_missing_and_both_are_told(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", "id,name\n1,ann\n")
    inbox.ingest()
    inbox.put("b.csv", "id,full_name\n2,bob\n")
    inbox.ingest()
    assert inbox.rows("id", "name", "full_name") == [("1", "ann", None), ("2", None, "bob")]
    assert sorted((event.kind, event.batch_id, event.message) for event in inbox.events()) == [
        ("schema", 2, "column name is missing"),
        ("schema", 2, "new column full_name (String)"),
    ]


def test_a_column_name_twice_keeps_both_values(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake")
    inbox.put("a.csv", "id,name,name\n1,ann,anna\n")
    inbox.ingest()
    assert inbox.rows("id", "name", "name_2") == [("1", "ann", "anna")]


def parquet(inbox: Inbox, name: str, **columns: Any) -> None:
    pl.DataFrame(columns).write_parquet(inbox.folder / name)


def test_a_retyped_column_is_rescued_value_by_value(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake", "parquet")
    parquet(inbox, "a.parquet", id=[1], amount=[1.5])
    inbox.ingest()
    parquet(inbox, "b.parquet", id=[2, 3], amount=["2.5", "lots"])
    result = inbox.ingest()
    assert (result.accepted, result.rescued) == (2, 1)
    assert inbox.rows("id", "amount", "_rescued") == [
        (1, 1.5, None),
        (2, 2.5, None),
        (3, None, '{"amount":"lots"}'),
    ]
    assert [event.message for event in inbox.events()] == [
        "column amount came as String, the table has Float64"
    ]


#: A column of the table, what comes later, and what of it lands and is rescued.
CASTLESS = {
    "a date as text": ([date(2022, 1, 8)], ["2022-01-08", None], [None, None], ["2022-01-08", None]),
    "an instant as text": ([datetime(2022, 1, 8, tzinfo=UTC)], ["2022-01-08"], [None], ["2022-01-08"]),
    "a boolean as text": ([True], ["true"], [None], ["true"]),
    "text as a date": (["x"], [date(2022, 1, 8)], ["2022-01-08"], [None]),
    "text as an instant": (["x"], [datetime(2022, 1, 8, 1, tzinfo=UTC)], ["2022-01-08 01:00:00.000000+00:00"], [None]),
    "text as a boolean": (["x"], [True], ["true"], [None]),
    "a boolean as a number": ([True], [1], [None], ["1"]),
    "a number as a boolean": ([7], [True], [None], ["true"]),
    "a date as a number": ([date(2022, 1, 8)], [19000], [None], ["19000"]),
    "a number as a date": ([7], [date(2022, 1, 8)], [None], ["2022-01-08"]),
    "a decimal as a boolean": ([Decimal("1.5")], [True], [None], ["true"]),
    "a boolean as a date": ([True], [date(2022, 1, 8)], [None], ["2022-01-08"]),
    "text as bytes": (["x"], [b"\xff\x00", None], [None, None], ["\\xff00", None]),
    "bytes as text": ([b"x"], ["y"], [None], ["y"]),
    "a number as bytes": ([7], [b"x"], [None], ["\\x78"]),
    "text as a list of bytes": (["x"], [[b"\xff"], None], [None, None], ['{"v":["ff"]}', None]),
    "text as bytes within": (["x"], [{"a": b"x", "b": [{"c": b"y"}]}], [None], ['{"a":"78","b":[{"c":"79"}]}']),
    "a float as a whole number in text": ([1.5], ["2", "02"], [2.0, None], [None, "02"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASTLESS)
def test_a_value_without_a_cast_is_rescued_and_stops_nothing(tmp_path: Path, name: str) -> None:
    before, later, landed, rescued = CASTLESS[name]
    inbox = Inbox(tmp_path / "lake", "parquet")
    parquet(inbox, "a.parquet", v=before)
    inbox.ingest()
    parquet(inbox, "b.parquet", v=later)
    assert inbox.ingest().accepted == len(later)
    found = inbox.rows("v", "_rescued")[1:]
    assert [value for value, _ in found] == landed
    assert [json.loads(text)["v"] if text else None for _, text in found] == rescued


@pytest.mark.parametrize("value", [[b"\xff"], b"\xff", {"a": [b"\xff"]}])
def test_a_new_column_of_bytes_can_be_rescued(tmp_path: Path, value: Any) -> None:
    inbox = Inbox(tmp_path / "lake", "parquet", new_columns="rescue")
    parquet(inbox, "a.parquet", id=[1])
    inbox.ingest()
    parquet(inbox, "b.parquet", id=[2, 3], raw=[value, None])
    assert inbox.ingest().rescued == 1
    assert [("ff" in text) if text else None for (text,) in inbox.rows("_rescued")] == [None, True, None]


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_names_that_differ_in_case_alone_are_one_column_of_a_batch(tmp_path: Path, file_format: str) -> None:
    inbox = Inbox(tmp_path / "lake", file_format)

    def put(stem: str, **columns: Any) -> None:
        frame, path = pl.DataFrame(columns), inbox.folder / f"{stem}.{file_format}"
        {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[file_format](
            path
        )

    put("a", id=["1"], name=["ann"])
    put("b", ID=["2"], Name=["bob"])
    assert inbox.ingest().accepted == 2
    put("c", NAME=["cid"], Id=["3"])
    put("d", iD=["4"], name=["dan"])
    result = inbox.ingest()
    assert (result.accepted, result.schema_changes) == (2, ())
    assert inbox.rows("id", "name") == [("1", "ann"), ("2", "bob"), ("3", "cid"), ("4", "dan")]
    assert len(inbox.bronze().columns) == len({name.lower() for name in inbox.bronze().columns})


def test_a_retyped_column_stops_the_batch_where_the_source_says_so(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake", "parquet", changed_types="fail")
    parquet(inbox, "a.parquet", id=[1])
    inbox.ingest()
    parquet(inbox, "b.parquet", id=["x"], colour=["red"])
    with pytest.raises(SourceError, match="the source's changed_types policy is fail"):
        inbox.ingest()
    assert inbox.rows("id") == [(1,)]


def test_new_columns_and_changed_types_have_policies_of_their_own(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "lake", "parquet", new_columns="rescue", changed_types="rescue")
    parquet(inbox, "a.parquet", id=[1])
    inbox.ingest()
    parquet(inbox, "b.parquet", id=["x"], tags=[["a", "b"]])
    assert inbox.ingest().rescued == 1
    assert json.loads(inbox.rows("_rescued")[1][0]) == {"id": "x", "tags": '{"tags":["a","b"]}'}


@pytest.mark.parametrize("policy", ["evolve", "rescue", "fail"])
def test_a_first_file_that_nobody_can_read_decides_nothing_about_the_columns(
    tmp_path: Path, policy: str
) -> None:
    inbox = Inbox(tmp_path / "lake", new_columns=policy)
    inbox.put("a.csv", b"\x00\x01")
    inbox.ingest()
    inbox.put("b.csv", "id,name\n1,ann\n")
    assert inbox.ingest().schema_changes == ()
    assert inbox.rows("id", "name", "_rescued") == [("1", "ann", None)]


def test_the_checks_show_changed_columns_and_held_files_until_they_are_dealt_with(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path / "lake")
    path = lake.land("1,10,a,1")
    lake.run()
    assert looked(lake, "columns_as_before").passed
    assert looked(lake, "no_files_held").passed
    lake.arrive("2,10,a,1,x", header="id,amount,note,seq,extra")
    path.write_text("id,amount,note,seq\n")
    lake.run()
    found = looked(lake, "columns_as_before")
    assert (found.passed, found.message) == (False, "1 changes: new column extra (String)")
    found = looked(lake, "no_files_held")
    assert (found.passed, found.count) == (False, 1)
    assert "truncated" in found.sample[0]["what"]


def test_a_value_that_stops_the_transform_is_told_with_the_remedy(tmp_path: Path) -> None:
    lake = OrdersLake(
        tmp_path / "lake", transform=lambda raw: raw.with_columns(pl.col("note").cast(pl.Int64))
    )
    lake.land("1,10,7,1", "2,20,late,1")
    with pytest.raises(ContractError, match=r"a value stops the transform: .*late") as caught:
        lake.run()
    assert "strict=False" in str(caught.value)
