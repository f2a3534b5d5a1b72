"""Parquet files beside each other: broken ones, and those whose types differ."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from lakehouse.connectors.parquet import read_parquet
from tests.connectors.extracts import local, rows


def test_a_parquet_with_a_broken_footer_does_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    pl.DataFrame({"id": [1, 2]}).write_parquet(good)
    bad.write_bytes(good.read_bytes()[:-6])
    extract = read_parquet([local(good), local(bad)])
    assert rows(extract, "id") == [(1, 1), (2, 2)]
    assert extract.rejects["_source_file"].to_list() == [str(bad)]


#: (one file's values, another's, what the column holds of both)
TOGETHER = {
    "integers that a float holds": ([1, None], [1.5], [1.0, None, 1.5]),
    "integers that no float holds": ([9007199254740993], [1.5], ["9007199254740993", "1.5"]),
    "decimals that a float holds": ([Decimal("0.10")], [1.5], [0.1, 1.5]),
    "decimals that no float holds": ([Decimal("12345678901234567.89")], [1.5], ["12345678901234567.89", "1.5"]),
    "integers and decimals": ([9007199254740993], [Decimal("0.5")], [Decimal("9007199254740993.0"), Decimal("0.5")]),
    "booleans and numbers": ([True, None], [1], ["true", None, "1"]),
    "dates and numbers": ([date(2022, 1, 8)], [19000], ["2022-01-08", "19000"]),
    "dates and instants": ([date(2022, 1, 8)], [datetime(2022, 1, 8, 1, tzinfo=UTC)], [datetime(2022, 1, 8, tzinfo=UTC), datetime(2022, 1, 8, 1, tzinfo=UTC)]),
    "no type and numbers": ([None], [1], [None, 1]),
    "lists that have a common type": ([[1]], [[1.5]], [[1.0], [1.5]]),
    "lists that have none": ([[9007199254740993], None], [[1.5]], ['{"x":[9007199254740993]}', None, '{"x":[1.5]}']),
    "lists of booleans and of numbers": ([[True]], [[1]], ['{"x":[true]}', '{"x":[1]}']),
    "empty lists and others": ([[]], [[1]], [[], [1]]),
    "objects of two forms": ([{"a": 1}], [{"b": 1.5}], [{"a": 1, "b": None}, {"a": None, "b": 1.5}]),
    "objects with a boolean and with a number": ([{"a": True}], [{"a": 1}], ['{"a":true}', '{"a":1}']),
    "lists and numbers": ([[1]], [1], ['{"x":[1]}', "1"]),
    "bytes and text": ([b"\xff"], ["a"], [b"\xff", b"a"]),
    "bytes and numbers": ([b"\xff", None], [1], [b"\xff", None, b"1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOGETHER)
def test_parquet_files_of_two_types_keep_every_value(tmp_path: Path, name: str) -> None:
    one, other, expected = TOGETHER[name]
    for values, file_name in ((one, "a.parquet"), (other, "b.parquet")):
        pl.DataFrame({"x": values, "id": range(len(values))}).write_parquet(tmp_path / file_name)
    extract = read_parquet([local(tmp_path / "a.parquet"), local(tmp_path / "b.parquet")])
    found = extract.frame.collect()
    assert found["x"].to_list() == expected
    assert found.columns == ["x", "id", "_source_row", "_source_file"]


def test_instants_of_two_units_keep_their_microseconds(tmp_path: Path) -> None:
    instant = datetime(2022, 1, 8, 1, 2, 3, 456_789, tzinfo=UTC)
    for unit in ("ms", "us"):
        frame = pl.DataFrame({"at": [instant]}, schema={"at": pl.Datetime(unit, "UTC")})
        frame.write_parquet(tmp_path / f"{unit}.parquet")
    found = read_parquet([local(tmp_path / "ms.parquet"), local(tmp_path / "us.parquet")]).frame.collect()
    assert found["at"].to_list() == [instant.replace(microsecond=456_000), instant]
