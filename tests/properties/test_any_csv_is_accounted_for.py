"""Whatever bytes come as CSV: every line lands or is kept, and the fast read never sees other rows than the careful one."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakehouse.connectors.base import FAST, Care, Extract
from lakehouse.connectors.csv import goes_on_behind_quotes, read_csv
from lakehouse.connectors.local import LocalFile
from lakehouse.pipelines.model import CsvOptions

pytestmark = pytest.mark.slow

FIELD = st.sampled_from(
    [
        b"",
        b"7",
        b"ann",
        b'"q"',
        b'"a,b"',
        b'"a""b"',
        b'"',
        b'x"y',
        b'6" x',
        b'"two\nlines"',
        b"\xc3\xa9",
        b"\xff",
        b"\0",
        b" ",
        b"\rx",
        b"x\r",
    ]
)
LINE = st.lists(FIELD, min_size=0, max_size=5).map(b",".join)
SOUND = st.tuples(
    *[st.sampled_from([b"7", b"ann", b'"a,b"', b'"a""b"', b'"two\nlines"', b"", b'6" x 3"'])] * 3
).map(b",".join)
BODY = st.lists(st.one_of(LINE, SOUND, SOUND), max_size=12)


def read(content: bytes, folder: Path, careful: bool) -> Extract:
    path = folder / "a.csv"
    path.write_bytes(content)
    file = LocalFile(str(path), path, len(content))
    return read_csv([file], CsvOptions(), folder / "spool", Care(frozenset({str(path)})) if careful else FAST)


def landed(extract: Extract) -> list[tuple[object, ...]]:
    frame = extract.frame.collect()
    return frame.select("_source_row", "a", "b", "c").sort("_source_row").rows() if frame.width > 2 else []


def by_the_rules(content: bytes) -> bool:
    """No quote within a field that does not begin with one, and every quote closed."""
    if b'x"' in content or b'6"' in content:
        return False
    try:
        list(csv.reader(io.StringIO(content.decode("latin-1"), newline=""), strict=True))
    except csv.Error:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(BODY, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_every_line_lands_or_is_kept(body: list[bytes], end: bytes, ends: bool) -> None:
    content = end.join([b"a,b,c", *body]) + (end if ends else b"")
    with tempfile.TemporaryDirectory() as folder:
        extract = read(content, Path(folder), careful=True)
        rows = landed(extract)
        lines = content.split(b"\n")[1:]
        covered = sum(1 + sum(str(value).count("\n") for value in row[1:]) for row in rows)
        covered += sum(raw.count("\n") + 1 for raw in extract.rejects["_raw"])
        blank = sum(not line.strip(b"\r") for line in lines)
        assert covered <= len(lines)
        assert len(lines) - covered <= blank
        numbers = [row[0] for row in rows] + extract.rejects["_source_row"].to_list()
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(LINE, SOUND, SOUND, SOUND), min_size=1, max_size=8), st.sampled_from([b"\n", b"\r\n"])
)
@example([b',,"', b'"'], b"\r\n")
@example([b',"', b"7,7,7", b'",'], b"\n")
@example([b'x"y,x"y,\rx'], b"\n")
@example([b',","q",",'], b"\n")
def test_what_the_fast_read_accepts_the_careful_one_reads_alike(body: list[bytes], end: bytes) -> None:
    content = end.join([b"a,b,c", *body]) + end
    with tempfile.TemporaryDirectory() as folder:
        fast = read(content, Path(folder), careful=False)
        try:
            rows = landed(fast)
        except pl.exceptions.PolarsError:
            return  # it is read with care then
        empty = any(row[-1] == "" for row in rows)
        if not fast.doubts or (empty and fast.doubts[0].is_short(len(rows))):
            return
        if any("\n" in str(value) for row in rows for value in row) and not by_the_rules(content):
            return  # a broken quote over several lines has more than one reading
        careful = read(content, Path(folder), careful=True)
        assert careful.rejects.is_empty()
        assert landed(careful) == rows


@pytest.mark.parametrize("line", [b',"a"b"c",1', b',","q",",1'])
def test_a_field_that_goes_on_behind_its_quote_is_refused_whole(line: bytes, tmp_path: Path) -> None:
    extract = read(b"a,b,c\n1,2,3\n" + line + b"\n", tmp_path, careful=False)
    assert landed(extract) == [(1, "1", "2", "3")]
    assert extract.rejects["_raw"].to_list() == [line.decode()]


@pytest.mark.parametrize("line", ['6" x 3",2,3', '"{""a"":1,""b"":2}",2,3', '"","",""', 'a,"say ""hi""",b'])
def test_sound_quotes_need_no_care(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"a,b,c\n{line}\n")
    assert not goes_on_behind_quotes(LocalFile(str(path), path, path.stat().st_size), CsvOptions())
