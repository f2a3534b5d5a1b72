"""Files are recognised by what they hold."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from lakehouse.errors import SourceError
from lakehouse.scaffold.sniff import Dialect, sniff


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,name\n1,a\n2,b\n", Dialect()),
        ("id;name\n1;a,b\n2;c,d\n", Dialect(delimiter=";")),
        ("id\tname\n1\ta b\n", Dialect(delimiter="\t")),
        ("id|name\n1|a\n", Dialect(delimiter="|")),
        ("id,name\n1,'a,b'\n2,'c,d'\n", Dialect(quote="'")),
        ('id,note\n1,"two\nlines, and a ""quote"""\n2,"x"\n', Dialect()),
        ("1,a\n2,b\n", Dialect(header=False, columns=("column_1", "column_2"))),
        ("name\nada\nbob\n", Dialect()),
    ],
)
def test_the_dialect_of_a_csv_is_found(tmp_path: Path, text: str, expected: Dialect) -> None:
    file = tmp_path / "data.csv"
    file.write_text(text, newline="")
    assert sniff(file).dialect == expected


def test_an_encoding_other_than_utf8_is_said_out_loud(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_bytes("id,name\n1,Jürgen\n".encode("windows-1252"))
    found = sniff(file)
    assert found.dialect == Dialect(encoding="windows-1252")
    assert any("windows-1252" in note for note in found.assumptions)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'[{"a": 1}]', "json"),
        ("a.json", b'{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("a.ndjson", b'{"a": 1}\n', "jsonl"),
        ("a.dat", b'{"a": 1}\n', "jsonl"),
        ("a.dat", b"a,b\n1,2\n", "csv"),
    ],
)
def test_the_format_is_that_of_the_content(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert sniff(file).format == expected


def test_compressed_files_are_looked_into(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": i}) + "\n" for i in range(10)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows))
    with pa.CompressedOutputStream(str(tmp_path / "a.jsonl.zst"), "zstd") as stream:
        stream.write(rows)
    assert [(s.format, s.compression) for s in map(sniff, sorted(tmp_path.glob("a.*")))] == [
        ("jsonl", "gzip"),
        ("jsonl", "zstd"),
    ]


def test_parquet_is_recognised_without_its_ending(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "export")
    assert sniff(tmp_path / "export").format == "parquet"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("a.csv", b"", "empty"), ("a.parquet", b"a,b\n", "not"), ("a.json", b"a,b\n", "neither")],
)
def test_a_file_that_cannot_be_is_refused_with_its_reason(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        sniff(file)


def test_a_folder_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is a folder"):
        sniff(tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        sniff(tmp_path / "nothing.csv")
