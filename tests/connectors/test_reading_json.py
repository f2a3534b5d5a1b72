"""JSON Lines and arrays: every value as text, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from lakehouse.connectors.json import read_json
from lakehouse.connectors.local import LocalFile
from tests.connectors.extracts import care_for, local, rows


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
