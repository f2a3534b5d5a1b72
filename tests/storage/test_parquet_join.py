"""Parquet files joined byte by byte: every reader finds the same rows as in the parts, and skips as it did."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from lakehouse.storage.parquet_join import joined

SCHEMA: dict[str, Any] = {
    "id": pl.Int64,
    "name": pl.String,
    "share": pl.Float64,
    "is_late": pl.Boolean,
    "at_utc": pl.Datetime("us", "UTC"),
    "price": pl.Decimal(12, 2),
    "raw": pl.Binary,
    "tags": pl.List(pl.String),
    "place": pl.Struct({"city": pl.String, "zip": pl.Int32}),
}


def rows(count: int, first: int, seed: int) -> pl.DataFrame:
    rng = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.1 else value

    return pl.DataFrame(
        [
            {
                "id": first + number,
                "name": maybe(f"name {rng.randrange(50)} ä"),
                "share": maybe(rng.random()),
                "is_late": maybe(rng.random() < 0.5),
                "at_utc": maybe(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(10**7))),
                "price": maybe(Decimal(rng.randrange(10**6)) / 100),
                "raw": maybe(rng.randbytes(4)),
                "tags": maybe([maybe("a"), "b"][: rng.randrange(3)]),
                "place": maybe({"city": maybe("Graz"), "zip": rng.randrange(9999)}),
            }
            for number in range(count)
        ],
        schema=SCHEMA,
    )


def by_polars(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path, compression="zstd", row_group_size=200)


def by_pyarrow(frame: pl.DataFrame, path: Path) -> None:
    pq.write_table(frame.to_arrow(), path, row_group_size=150, write_page_index=True, compression="snappy")


def by_duckdb(frame: pl.DataFrame, path: Path) -> None:
    frame.write_parquet(path)
    copy = path.with_suffix(".copy")
    duckdb.sql(f"COPY (FROM read_parquet('{path}')) TO '{copy}' (FORMAT parquet, ROW_GROUP_SIZE 2048, COMPRESSION zstd)")  # fmt: skip
    copy.rename(path)


@pytest.mark.parametrize("write", [by_polars, by_pyarrow, by_duckdb])
@pytest.mark.parametrize("counts", [(1, 1), (700, 3, 450), tuple([30] * 20), (5_000, 5_000)])
def test_every_reader_finds_the_rows_of_the_parts(
    write: Any, counts: tuple[int, ...], tmp_path: Path
) -> None:
    frames = [rows(count, 10_000 * number, number) for number, count in enumerate(counts)]
    for number, frame in enumerate(frames):
        write(frame, tmp_path / f"{number}.parquet")
    whole = joined([(tmp_path / f"{number}.parquet").read_bytes() for number in range(len(counts))])
    assert whole is not None
    path = tmp_path / "whole"
    path.write_bytes(whole)
    expected = pl.concat(frames)

    assert pl.read_parquet(path).select(*SCHEMA).equals(expected)
    assert pl.scan_parquet(path).select(*SCHEMA).collect(engine="streaming").equals(expected)
    assert pl.from_arrow(pq.read_table(path)).select(*SCHEMA).equals(expected)  # type: ignore[union-attr]
    count, least = duckdb.sql(f"SELECT count(*), min(name) FROM read_parquet('{path}')").fetchone() or ()
    assert (count, least) == (expected.height, expected["name"].min())
    for wanted in random.Random(0).sample(range(expected.height), min(20, expected.height)):
        row = expected.row(wanted, named=True)
        for column in (
            "id",
            "name",
            "price",
        ):  # statistics, dictionaries and Bloom filters are where the footer says
            same = expected.filter(pl.col(column).eq_missing(row[column]))
            found = pl.scan_parquet(path).select(*SCHEMA).filter(pl.col(column).eq_missing(row[column]))
            assert found.collect().equals(same)
        number = row["id"]
        assert duckdb.sql(f"SELECT name FROM read_parquet('{path}') WHERE id = {number}").fetchall() == [(row["name"],)]  # fmt: skip


def test_the_footer_tells_of_every_row_group_as_before(tmp_path: Path) -> None:
    parts = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for number, part in enumerate(parts):
        by_polars(rows(500, 1_000 * number, number), part)
    whole = joined([part.read_bytes() for part in parts])
    assert whole is not None
    before = [group for part in parts for group in pq.read_metadata(part).to_dict()["row_groups"]]
    after = pq.read_metadata(io.BytesIO(whole)).to_dict()
    assert after["num_rows"] == 1_000
    moved = {
        "file_offset",
        "data_page_offset",
        "dictionary_page_offset",
        "has_offset_index",
        "has_column_index",
    }
    for old, new in zip(before, after["row_groups"], strict=True):
        assert (old["num_rows"], old["total_byte_size"]) == (new["num_rows"], new["total_byte_size"])
        for one, other in zip(old["columns"], new["columns"], strict=True):
            assert {k: v for k, v in one.items() if k not in moved} == {k: v for k, v in other.items() if k not in moved}  # fmt: skip


def test_files_of_other_columns_or_types_are_not_joined(tmp_path: Path) -> None:
    frame = rows(10, 0, 0)
    others = [frame.drop("name"), frame.with_columns(pl.col("id").cast(pl.Int32)), frame.rename({"id": "no"})]
    by_polars(frame, tmp_path / "one")
    for other in others:
        by_polars(other, tmp_path / "two")
        assert joined([(tmp_path / "one").read_bytes(), (tmp_path / "two").read_bytes()]) is None


@pytest.mark.parametrize("damage", ["cut", "footer", "magic", "empty", "text"])
def test_what_is_no_whole_parquet_file_is_not_joined(damage: str, tmp_path: Path) -> None:
    by_polars(rows(300, 0, 0), tmp_path / "one")
    whole = (tmp_path / "one").read_bytes()
    broken = {
        "cut": whole[:-20],
        "footer": whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:],
        "magic": b"PARE" + whole[4:],
        "empty": b"",
        "text": b"id,name\n1,a\n",
    }
    assert joined([whole, broken[damage]]) is None


def test_an_encrypted_file_is_not_joined(tmp_path: Path) -> None:
    key = "0123456789012345"
    duckdb.sql("SET force_mbedtls_unsafe = true")
    duckdb.sql(f"PRAGMA add_parquet_key('k', '{key}')")
    duckdb.sql(
        f"COPY (SELECT 1 AS id) TO '{tmp_path / 'one'}' (FORMAT parquet, ENCRYPTION_CONFIG {{footer_key: 'k'}})"
    )
    content = (tmp_path / "one").read_bytes()
    assert joined([content, content]) is None
