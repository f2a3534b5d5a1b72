"""The bytes of a file: compression, long lines, copies, names."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lakehouse.connectors.base import Extract
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.files import glob_regex, split_glob
from lakehouse.connectors.json import read_json
from lakehouse.connectors.local import LocalFile
from lakehouse.pipelines.model import CsvOptions
from tests.connectors.extracts import csv_extract, local, no_file_larger_than, rows


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_compression_is_told_by_content(tmp_path: Path, kind: str) -> None:
    content = b"id,name\n1,x\n2,y\n"
    packed = {
        "plain": content,
        "gzip": gzip.compress(content),
        "zstd": pa.compress(content, codec="zstd", asbytes=True) if kind == "zstd" else b"",
    }[kind]
    for careful in (False, True):
        assert rows(csv_extract(tmp_path / "file.csv", packed, careful=careful), "name") == [
            (1, "x"),
            (2, "y"),
        ]


@pytest.mark.parametrize("more", [b"", b"more\n"], ids=["nothing", "a member"])
def test_zeros_behind_a_gzip_member_are_passed_over_however_many(tmp_path: Path, more: bytes) -> None:
    behind = gzip.compress(more) if more else b""
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"a\n1\n") + b"\x00" * (3 << 20) + behind)
    problems: list[str] = []
    file = LocalFile(str(path), path, path.stat().st_size)
    assert b"".join(file.chunks(problems)) == b"a\n1\n" + more
    assert problems == []


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "a.csv.gz", True),
        ("*.csv", "sub/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv.zst", True),
        ("2024-0[1-3]/?.json", "2024-02/a.json", True),
        ("2024-0[1-3]/?.json", "2024-04/a.json", False),
        ("a.csv", "a.csv.bak", False),
    ],
)
def test_globs_match_as_people_expect(pattern: str, path: str, matches: bool) -> None:
    import re

    assert bool(re.fullmatch(glob_regex(pattern), path)) is matches


def test_a_glob_is_split_at_its_first_wildcard() -> None:
    assert split_glob("/data/in/2024-*/x.csv") == ("/data/in", "2024-*/x.csv")
    assert split_glob("s3://bucket/in/**/*.csv") == ("s3://bucket/in", "**/*.csv")
    assert split_glob("/data/one.csv") == ("/data", "one.csv")


@pytest.mark.parametrize("place", range(0, 400_000, 41_000))
def test_a_line_of_twice_the_limit_is_found_wherever_it_lies_and_short_lines_never_are(
    tmp_path: Path, place: int
) -> None:
    limit = 100_000
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 9 + b"\n" + (b"y" * 99_999 + b"\n") * 8)
    assert not local(path).has_long_line(limit)
    path.write_bytes((b"x" * 9 + b"\n") * (place // 10) + b"y" * (2 * limit) + b"\n" + b"z\n" * 70_000)
    assert local(path).has_long_line(limit)
    assert not local(path).has_long_line(path.stat().st_size)


def test_long_lines_of_a_compressed_file_are_not_known(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"y" * 300_000, compresslevel=0))
    assert not local(path).has_long_line(100_000)


@pytest.mark.parametrize("pack", [gzip.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
def test_a_compressed_file_is_unpacked_once_and_keeps_its_name(tmp_path: Path, pack: Any) -> None:
    content = b"a,b\n" + b"".join(b'%d,"x, ""y"""\n' % number for number in range(50_000)) + b"50000,\n"
    path = tmp_path / "a.csv.packed"
    path.write_bytes(pack(content))
    file = local(path).unpacked(tmp_path / "spool")
    assert (file.path.read_bytes(), file.source_path, file.problem) == (content, path, None)
    assert file.unpacked(tmp_path / "spool") is file
    found = csv_extract(path, pack(content), careful=False).frame.collect()
    assert found["_source_file"].unique().to_list() == [str(path)]
    assert found["_source_row"].to_list() == list(range(1, 50_002))
    assert found["b"].value_counts().sort("b").rows() == [("", 1), ('x, "y"', 50_000)]


def test_a_file_that_unpacks_to_more_than_the_limit_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x\n" * 100_000))
    packed = local(path)
    assert packed.unpacked(tmp_path / "spool", 100_000) is packed
    assert packed.unpacked(tmp_path / "spool", 200_002) is not packed
    assert len(list((tmp_path / "spool").iterdir())) == 1


def test_a_file_whose_copy_finds_no_room_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a\n" + b"x\n" * 400_000))
    packed = local(path)
    with no_file_larger_than(100_000):
        assert packed.unpacked(tmp_path / "spool") is packed
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ("a\n" + "x\n" * 400_000).encode("utf-16")),
        ("a.jsonl", ('{"a": 1}\n' * 100_000).encode("utf-16")),
        ("a.json", ("[" + ", ".join(['{"a": 1}'] * 100_000) + "]").encode()),
    ],
)
def test_a_file_whose_decoded_copy_finds_no_room_is_not_refused_for_it(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path, spool = tmp_path / name, tmp_path / "spool"
    path.write_bytes(content)

    def read() -> Extract:
        if name.endswith("csv"):
            return read_csv([local(path)], CsvOptions(), spool)
        return read_json([local(path)], spool, array=name.endswith("json"))

    with no_file_larger_than(100_000), pytest.raises(OSError, match="File too large"):
        read()
    extract = read()
    assert extract.rejects.is_empty()
    assert extract.frame.select(pl.len()).collect().item() in (100_000, 400_000)
