"""Files as people really send them: what can land lands, what cannot is kept with its position."""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.local import LineReader
from lakehouse.pipelines.model import CsvOptions
from tests.connectors.extracts import csv_extract, local, rows

MESSY = (
    b'id,name,note\n1,"Doe, Jane","two\nlines"\n2,short\n3,a,b,c\n4,"unclosed,5\n'
    b'007,"say ""hi""",NA\n6,x"y"z,q\n\n8,,\n'
)


def test_messy_csv_lands_what_is_sound_and_keeps_the_rest(tmp_path: Path) -> None:
    extract = csv_extract(tmp_path / "messy.csv", MESSY)
    assert rows(extract, "id", "name", "note") == [
        (1, "1", "Doe, Jane", "two\nlines"),
        (5, "007", 'say "hi"', "NA"),
        (6, "6", 'x"y"z', "q"),
        (7, "8", "", ""),
    ]
    kept = extract.rejects.sort("_source_row").select("_source_position", "_broken_rules", "_raw").rows()
    assert kept == [
        ("line 4", ["csv: too few fields"], "2,short"),
        ("line 5", ["csv: too many fields"], "3,a,b,c"),
        ("line 6", ["csv: unclosed or misplaced quote"], '4,"unclosed,5'),
    ]


def test_fast_and_careful_reads_agree_on_a_sound_file(tmp_path: Path) -> None:
    content = b'id,name\n1,"a\nb"\n2,"c,d"\n3,\n'
    fast = csv_extract(tmp_path / "a.csv", content, careful=False)
    careful = csv_extract(tmp_path / "a.csv", content, careful=True)
    assert (
        rows(fast, "id", "name")
        == rows(careful, "id", "name")
        == [(1, "1", "a\nb"), (2, "2", "c,d"), (3, "3", "")]
    )
    assert careful.rejects.is_empty()


def test_a_fast_read_names_the_column_in_which_short_lines_hide(tmp_path: Path) -> None:
    extract = csv_extract(tmp_path / "a.csv", b"id,name\n1,x\n2\n", careful=False)
    assert [doubt.column for doubt in extract.doubts] == ["name"]
    assert extract.doubts[0].is_short(2)
    assert rows(extract, "name")[-1] == (2, "")


def test_rows_are_numbered_per_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.csv" for n in range(3)]
    for path in paths:
        path.write_text("id\n1\n2\n")
    extract = read_csv([local(path) for path in paths], CsvOptions(), tmp_path)
    numbered = extract.frame.group_by("_source_file").agg(pl.col("_source_row").sort()).collect()
    assert sorted(numbered["_source_row"].to_list()) == [[1, 2]] * 3
    assert set(numbered["_source_file"]) == {str(path) for path in paths}


def test_files_with_different_headers_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,x\n")
    (tmp_path / "b.csv").write_text("colour,name,id\nred,y,2\n")
    files = [local(tmp_path / "a.csv"), local(tmp_path / "b.csv")]
    frame = read_csv(files, CsvOptions(), tmp_path).frame.sort("id").collect()
    assert frame.select("id", "name", "colour").rows() == [("1", "x", None), ("2", "y", "red")]


def test_a_byte_order_mark_and_crlf_leave_no_trace(tmp_path: Path) -> None:
    for careful in (False, True):
        extract = csv_extract(tmp_path / "bom.csv", b"\xef\xbb\xbfid,name\r\n1,x\r\n", careful=careful)
        assert rows(extract, "id", "name") == [(1, "1", "x")]


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        (b'id,size 6"\n1,x\n2,y\n', ("id", "size_6"), [(1, "1", "x"), (2, "2", "y")]),
        (b'"id","a\r\nb"\r\n1,x\r\n', ("id", "a_b"), [(1, "1", "x")]),
        (b'id,"a ""b"""\n1,x\n', ("id", "a_b"), [(1, "1", "x")]),
        (b'id,"unit\nprice",qty\n1,2,3\n', ("id", "unit_price", "qty"), [(1, "1", "2", "3")]),
        (b'id,"a, b\nc",qty\n1,2,3\n', ("id", "a_b_c", "qty"), [(1, "1", "2", "3")]),
        (b"id,name\r\r\n1,x\n", ("id", "name"), [(1, "1", "x")]),
        (b"id,name\n1,x\r\r\n", ("id", "name"), [(1, "1", "x\r")]),
        (b"id,name\r1,x\r", ("id", "name"), [(1, "1", "x")]),
        ("id,name\r1,x\r".encode("utf-16"), ("id", "name"), [(1, "1", "x")]),
    ],
)
def test_both_readers_begin_right_behind_the_header(
    tmp_path: Path, content: bytes, columns: tuple[str, ...], expected: list[Any], careful: bool
) -> None:
    extract = csv_extract(tmp_path / "a.csv", content, careful=careful)
    assert rows(extract, *columns) == expected
    assert extract.rejects.is_empty()


def test_a_quote_in_the_header_costs_no_row_below_it(tmp_path: Path) -> None:
    for careful in (False, True):
        extract = csv_extract(tmp_path / "a.csv", b'id,size"\n1,6"\n2,7"\n3,8\n', careful=careful)
        assert rows(extract, "id", "size") == [(2, "3", "8")]
        assert extract.rejects["_raw"].to_list() == ['1,6"\n2,7"']


def test_a_header_over_two_pieces_of_the_file_is_passed_over_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.connectors import salvage

    monkeypatch.setattr(salvage, "LineReader", partial(LineReader, chunk_bytes=6))
    extract = csv_extract(tmp_path / "a.csv", b'id,"a\nb\nc"\n1,x\n2\n')
    assert rows(extract, "id", "a_b_c") == [(1, "1", "x")]
    assert extract.rejects["_source_position"].to_list() == ["line 5"]


def test_another_encoding_is_decoded_and_wrong_bytes_are_kept(tmp_path: Path) -> None:
    extract = csv_extract(tmp_path / "l.csv", "id,name\n1,café\n".encode("latin-1"), encoding="latin-1")
    assert rows(extract, "name") == [(1, "café")]
    wrong = csv_extract(tmp_path / "u.csv", "id,name\n1,café\n2,tea\n".encode("latin-1"))
    assert rows(wrong, "name") == [(2, "tea")]
    assert wrong.rejects.select("_source_position", "_raw").rows() == [("line 2", "1,caf\\xe9")]


def test_a_truncated_gzip_gives_what_it_holds_and_says_where_it_broke(tmp_path: Path) -> None:
    body = b"id,name\n" + b"".join(b"%d,%032x\n" % (n, n * 7919**5) for n in range(60_000))
    whole = gzip.compress(body)
    extract = csv_extract(tmp_path / "t.csv.gz", whole[: len(whole) // 2])
    landed = extract.frame.select(pl.len()).collect().item()
    assert 10_000 < landed < 60_000
    reasons = [rule for rules in extract.rejects["_broken_rules"].to_list() for rule in rules]
    assert any(reason.startswith("truncated") for reason in reasons)


def test_empty_and_header_only_files_are_no_error(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"id,name\n"):
        extract = csv_extract(tmp_path / "e.csv", content)
        assert extract.frame.collect().is_empty()
        assert extract.rejects.is_empty()


def test_a_file_without_header_takes_declared_columns(tmp_path: Path) -> None:
    extract = csv_extract(
        tmp_path / "h.csv", b"1;x\n2;y\n", header=False, columns=("id", "name"), delimiter=";"
    )
    assert rows(extract, "id", "name") == [(1, "1", "x"), (2, "2", "y")]


def test_column_names_become_valid_unique_and_stable() -> None:
    raw = [
        "Flight No.",
        "größe",
        "",
        "id",
        "ID",
        "2nd",
        "_batch_id",
        "a b",
        "ok_1",
        "_Batch_Id",
        "_broken_rules",
    ]
    expected = [
        "Flight_No",
        "grosse",
        "column_3",
        "id",
        "ID_2",
        "_2nd",
        "source_batch_id",
        "a_b",
        "ok_1",
        "source_Batch_Id_2",
        "source_broken_rules",
    ]
    assert clean_names(raw) == expected
    assert clean_names(clean_names(raw)) == expected
