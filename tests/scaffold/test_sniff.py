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


def dialect_of(folder: Path, text: str) -> Dialect:
    file = folder / "data.csv"
    file.write_text(text, newline="")
    found = sniff(file).dialect
    assert found is not None
    return found


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
    assert dialect_of(tmp_path, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        ",name,amount\n0,a,1.5\n1,b,2.5\n",  # pandas
        ",name\n0,ada\n1,bob\n",
        '"","mpg"\n"Mazda RX4",21\n"Valiant",18.1\n',  # R
        "id,name,name\n1,a,b\n2,c,d\n",
        "id,name,\n1,a,\n2,b,\n",
        "word,word\nx,y\nz,a\n",
        "word,,city\nx,y,paris\nz,a,rome\n",
        "country,2019,2020\nDE,83.1,83.2\nFR,67.2,67.4\n",
        ",2019,2020\nDE,83.1,\nFR,67.2,\n",
        "Region,1/22/20,1/23/20\nHubei,444,549\nAnhui,1,9\n",
        "name,,\nada,1,2\n",
    ],
)
def test_names_may_be_empty_repeated_or_years(tmp_path: Path, text: str) -> None:
    assert dialect_of(tmp_path, text) == Dialect()


@pytest.mark.parametrize(
    "text",
    [
        "1,a\n2,b\n",
        "2019,2020\n83.1,83.2\n",
        "ada,1984\nbob,2001\n",
        "ada,2024-01-31,5\nbob,2024-02-01,6\n",
        "ada,2024-01-31\nbob,2024-02-01\n",
        "ada,,x\nbob,5,y\nbob,,z\n",
        "paris,paris,fr\nparis,rome,it\n",
        "EU,,x\nUS,y,z\nEU,,w\n",
        "ada,1999,5.5\nbob,25,2.5\n",
    ],
)
def test_a_first_line_like_those_below_is_no_header(tmp_path: Path, text: str) -> None:
    assert not dialect_of(tmp_path, text).header


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
