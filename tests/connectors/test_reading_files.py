"""Files as people really send them: what can land lands, what cannot is kept with its position."""

from __future__ import annotations

import gzip
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lakehouse.connectors.base import Care, Extract
from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.files import glob_regex, split_glob
from lakehouse.connectors.json import read_json
from lakehouse.connectors.local import LineReader, LocalFile
from lakehouse.connectors.parquet import read_parquet
from lakehouse.pipelines.model import CsvOptions


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """What a full disk does to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def local(path: Path) -> LocalFile:
    return LocalFile(str(path), path, path.stat().st_size)


def care_for(path: Path, careful: bool) -> Care:
    return Care(frozenset({str(path)})) if careful else Care()


def csv_extract(path: Path, content: bytes, *, careful: bool = True, **options: Any) -> Extract:
    path.write_bytes(content)
    return read_csv([local(path)], CsvOptions(**options), path.parent / "spool", care_for(path, careful))


def rows(extract: Extract, *columns: str) -> list[tuple[Any, ...]]:
    return extract.frame.select("_source_row", *columns).sort("_source_row").collect().rows()


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
    raw = ["Flight No.", "größe", "", "id", "ID", "2nd", "_batch_id", "a b", "ok_1"]
    expected = ["Flight_No", "grosse", "column_3", "id", "ID_2", "_2nd", "source_batch_id", "a_b", "ok_1"]
    assert clean_names(raw) == expected
    assert clean_names(clean_names(raw)) == expected


def test_json_lines_keep_every_value_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1,"b":{"x":[1,2]}}\n{"a":"one","New Key":true}\n')
    frame = read_json([local(path)], tmp_path, array=False).frame.collect()
    assert frame["a"].to_list() == ["1", "one"]
    assert json.loads(frame["b"][0]) == {"x": [1, 2]}
    assert frame["New_Key"].to_list() == [None, "true"]


def test_broken_json_lines_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"a":1}\n{"a":\n[1]\n\n{"a":2}\n')
    extract = read_json([local(path)], tmp_path, array=False)
    assert extract.frame.collect()["a"].to_list() == ["1", "2"]
    assert extract.rejects["_source_position"].to_list() == ["line 2", "line 3"]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("compress", [False, True])
def test_a_json_array_is_read_object_by_object(tmp_path: Path, indent: int | None, compress: bool) -> None:
    text = json.dumps([{"id": 1, "note": "two\nlines"}, {"id": 2, "tags": ["x"]}], indent=indent).encode()
    path = tmp_path / ("a.json.gz" if compress else "a.json")
    path.write_bytes(gzip.compress(text) if compress else text)
    frame = read_json([local(path)], tmp_path / "spool", array=True).frame.collect()
    assert frame.select("id", "note", "_source_row").rows() == [("1", "two\nlines", 1), ("2", None, 2)]


def test_a_broken_json_array_is_one_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"id": 1}, {"id":')
    extract = read_json([local(path)], tmp_path / "spool", array=True)
    assert extract.frame.collect().is_empty()
    assert extract.rejects.height == 1


DIGITS = (
    '{"id": 0.1234567890123456789,\r\n "n": 1234567890123456.7, "deep": {"x":\n [0.1234567890123456789]}}'
)


@pytest.mark.parametrize("careful", [False, True])
def test_an_array_keeps_every_digit(tmp_path: Path, careful: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[{DIGITS}, {DIGITS}]")
    extract = read_json([local(path)], tmp_path / "spool", array=True, care=care_for(path, careful))
    kept = ("0.1234567890123456789", "1234567890123456.7", '{"x": ["0.1234567890123456789"]}')
    assert rows(extract, "id", "n", "deep") == [(1, *kept), (2, *kept)]


def test_a_text_over_two_lines_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": "two\nlines"}]')
    extract = read_json([local(path)], tmp_path / "spool", array=True)
    assert extract.frame.collect().is_empty()
    assert extract.rejects.height == 1


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize(("content", "array"), [("{}\n\n{}\n", False), ("[{}, {}]", True)])
def test_objects_without_keys_are_rows(tmp_path: Path, content: str, array: bool, careful: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    extract = read_json([local(path)], tmp_path / "spool", array=array, care=care_for(path, careful))
    assert rows(extract) == [(1,), (2,)]
    assert extract.rejects.is_empty()


@pytest.mark.parametrize(("content", "array"), [("", False), ("\n \n", False), ("[]", True), ("", True)])
def test_a_json_file_without_objects_has_no_rows(tmp_path: Path, content: str, array: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    extract = read_json([local(path)], tmp_path / "spool", array=array)
    assert extract.frame.collect().is_empty()
    assert extract.rejects.is_empty()


@pytest.mark.parametrize("careful", [False, True])
def test_keys_that_clash_get_the_same_names_in_whatever_order_they_come(
    tmp_path: Path, careful: bool
) -> None:
    path = tmp_path / "a.jsonl"
    lines = ['{"id":1,"ID":2,"a b":3,"a_b":4}', '{"a b":3,"a_b":4,"ID":2,"id":1}']
    for content in (lines, lines[::-1]):
        path.write_text("\n".join(content))
        extract = read_json([local(path)], tmp_path / "spool", array=False, care=care_for(path, careful))
        found = extract.frame.select("id", "ID_2", "a_b", "a_b_2").collect().rows()
        assert found == [("1", "2", "4", "3")] * 2


PACKED_ARRAY = gzip.compress(b"[" + b", ".join(b'{"id": %d}' % n for n in range(1000)) + b"]", mtime=0)


@pytest.mark.parametrize(
    "packed",
    [PACKED_ARRAY[:-2], PACKED_ARRAY[:-8] + b"\0\0\0\0" + PACKED_ARRAY[-4:], PACKED_ARRAY[:-4] + b"\0" * 4],
)
@pytest.mark.parametrize("limit_bytes", [1 << 30, 100])
def test_a_packed_array_whose_checksum_is_wrong_or_missing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bytes, limit_bytes: int
) -> None:
    unpacked = LocalFile.unpacked
    monkeypatch.setattr(LocalFile, "unpacked", lambda file, spool: unpacked(file, spool, limit_bytes))
    path = tmp_path / "a.json.gz"
    path.write_bytes(packed)
    extract = read_json([local(path)], tmp_path / "spool", array=True)
    assert extract.frame.collect().is_empty()
    ((rule,),) = extract.rejects["_broken_rules"].to_list()
    assert rule.startswith("json: unreadable: ")
    assert [kept.path for kept in extract.kept] == [path]
    path.write_bytes(PACKED_ARRAY)
    assert read_json([local(path)], tmp_path / "spool", array=True).frame.collect().height == 1000


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
