"""JSON Lines that are alike are cut into values: the same values as the parser's, and of no other file."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse import names
from lakehouse.connectors.base import Care
from lakehouse.connectors.json import read_json
from lakehouse.connectors.json_cut import form_of
from lakehouse.connectors.json_template import match
from lakehouse.connectors.local import LocalFile

ALIKE = [
    '{"id":1,"name":"a","paid":true,"amount":0.5}',
    '{"id":-20,"name":"","paid":false,"amount":12}',
    '{"id":0,"name":"x, \\u0079:{}","paid":true,"amount":-0.25}'.replace("\\u0079", "ž"),
    '{"id":123456789012345678901234567890,"name":"null","paid":true,"amount":1234567890123456.7}',
]
VALUES = [
    {"id": "1", "name": "a", "paid": "true", "amount": "0.5"},
    {"id": "-20", "name": "", "paid": "false", "amount": "12"},
    {"id": "0", "name": "x, ž:{}", "paid": "true", "amount": "-0.25"},
    {"id": "123456789012345678901234567890", "name": "null", "paid": "true", "amount": "1234567890123456.7"},
]


def local(tmp_path: Path, text: str | bytes, name: str = "in.jsonl") -> LocalFile:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return LocalFile(str(path), path, path.stat().st_size)


def read(file: LocalFile, spool: Path) -> list[dict[str, Any]]:
    extract = read_json([file], spool, array=False)
    assert extract.rejects.is_empty()
    frame = extract.frame.collect()
    assert frame[names.SOURCE_ROW].to_list() == list(range(1, frame.height + 1))
    return frame.drop(names.SOURCE_ROW, names.SOURCE_FILE).to_dicts()


@pytest.mark.parametrize("end", ["\n", ""])
def test_each_value_is_as_it_is_written(tmp_path: Path, end: str) -> None:
    file = local(tmp_path, "\n".join(ALIKE) + end)
    form = form_of(file)
    assert form is not None
    assert form.scan(file.path, "row").drop("row").collect().to_dicts() == VALUES
    assert read(file, tmp_path) == VALUES


def test_what_may_be_null_is_null_and_a_text_that_says_so_is_none(tmp_path: Path) -> None:
    lines = ['{"a":null,"b":"null","c":1}', '{"a":3,"b":"","c":2}', '{"a":null,"b":"x","c":3}']
    file = local(tmp_path, "\n".join(lines))
    assert form_of(file) is not None
    assert [list(row.values()) for row in read(file, tmp_path)] == [
        [None, "null", "1"], ["3", "", "2"], [None, "x", "3"],
    ]  # fmt: skip


#: Each is sound JSON, or none, and no line of the same form.
OTHERS = {
    "a key twice": '{"id":1,"name":"a","paid":true,"amount":0.5,"amount":7}',
    "a key twice, another missing": '{"id":1,"name":"a","paid":true,"paid":0.5}',
    "a key more": '{"id":1,"name":"a","paid":true,"amount":0.5,"more":1}',
    "a key less": '{"id":1,"name":"a","paid":true}',
    "another order": '{"name":"a","id":1,"paid":true,"amount":0.5}',
    "a space": '{"id": 1,"name":"a","paid":true,"amount":0.5}',
    "a space behind": '{"id":1,"name":"a","paid":true,"amount":0.5} ',
    "an escape": '{"id":1,"name":"a\\"b","paid":true,"amount":0.5}',
    "a backslash at the end of a text": '{"id":1,"name":"a\\\\","paid":true,"amount":0.5}',
    "a control character": '{"id":1,"name":"a\tb","paid":true,"amount":0.5}',
    "a text for a number": '{"id":"1","name":"a","paid":true,"amount":0.5}',
    "a number for a text": '{"id":1,"name":7,"paid":true,"amount":0.5}',
    "no text": '{"id":1,"name":null,"paid":true,"amount":0.5}',
    "an object": '{"id":{"x":1},"name":"a","paid":true,"amount":0.5}',
    "a list": '{"id":[1],"name":"a","paid":true,"amount":0.5}',
    "an exponent": '{"id":1,"name":"a","paid":true,"amount":5e3}',
    "a minus before zero": '{"id":-0,"name":"a","paid":true,"amount":0.5}',
    "a zero in front": '{"id":01,"name":"a","paid":true,"amount":0.5}',
    "a plus": '{"id":+1,"name":"a","paid":true,"amount":0.5}',
    "no number at all": '{"id":NaN,"name":"a","paid":true,"amount":0.5}',
    "a comma at the end": '{"id":1,"name":"a","paid":true,"amount":0.5,}',
    "a line without its end": '{"id":1,"name":"a","paid":true,"amount":0.5',
    "two objects": '{"id":1,"name":"a","paid":true,"amount":0.5}{"id":1,"name":"a","paid":true,"amount":0.5}',
    "a blank line": "",
    "another value": "7",
    "another name": '{"ID":1,"name":"a","paid":true,"amount":0.5}',
}  # fmt: skip


@pytest.mark.parametrize("line", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("place", ["first", "within the first lines", "far behind"])
def test_one_line_of_another_form_and_the_file_is_parsed(tmp_path: Path, line: str, place: str) -> None:
    lines = [ALIKE[0]] * 2_000
    lines.insert({"first": 0, "within the first lines": 7, "far behind": 1_999}[place], line)
    assert form_of(local(tmp_path, "\n".join(lines) + "\n")) is None


def test_line_ends_of_another_system(tmp_path: Path) -> None:
    """Lines that all end so are parsed; a few far behind are cut as the others, and nothing of their ends stays."""
    windows = local(tmp_path, "\r\n".join(ALIKE) + "\r\n")
    assert form_of(windows) is None
    assert read(windows, tmp_path) == VALUES
    for last in ('"amount":0.5', '"name":"a"'):
        line = f'{{"id":1,{last}}}'
        mixed = local(tmp_path, "\n".join([line] * 2_000 + [f"{line}\r"] * 3))
        assert form_of(mixed) is not None
        assert {str(row) for row in read(mixed, tmp_path)} == {
            str({"id": "1", **{k: str(v) for k, v in json.loads(f"{{{last}}}").items()}})
        }


def test_zeros_at_the_end_of_fractions_go_as_the_parser_leaves_them_out(tmp_path: Path) -> None:
    numbers = ["5.0", "-0.0", "0.50", "100.00", "100", "0", "0.05", "-20.10", "true", "null"]
    file = local(tmp_path, "".join(f'{{"a":{number},"b":"1.0"}}\n' for number in numbers))
    assert form_of(file) is not None
    expected = ["5", "-0", "0.5", "100", "100", "0", "0.05", "-20.1", "true", None]
    assert [row["a"] for row in read(file, tmp_path)] == expected
    assert pl.scan_ndjson(file.path, schema={"a": pl.String()}).collect()["a"].to_list() == expected


@pytest.mark.parametrize(
    "line",
    [
        '{"id":null,"name":"a","paid":true,"amount":0.5}',
        '{"id":1,"name":"a","paid":true,"amount":5.0}',
        '{"id":1,"name":"a","paid":true,"amount":0.50}',
    ],
)
def test_what_the_first_lines_did_not_announce(tmp_path: Path, line: str) -> None:
    assert form_of(local(tmp_path, "\n".join([ALIKE[0]] * 2_000 + [line]))) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"{}\n{}\n",
        b'[{"id":1}]',
        b'\xef\xbb\xbf{"id":1}\n{"id":2}\n',
        b'{"a\\"b":1}\n{"a\\"b":2}\n',
        gzip.compress(b'{"id":1}\n', mtime=0),
        b'{"id":1,"id":2}\n' * 3,
        b'{"id":1}\n{"id":2}\n\n',
        b'{"id":1.50}\n{"id":12345678901234567.10}\n',
        b'{"id":1.0}\n{"id":12345678901234567890.0}\n',
    ],
)
def test_files_without_a_form(tmp_path: Path, content: bytes) -> None:
    assert form_of(local(tmp_path, content)) is None


def test_bytes_that_are_no_text_are_refused_where_files_are_judged(tmp_path: Path) -> None:
    file = local(tmp_path, b'{"id":1,"name":"a"}\n{"id":2,"name":"\xff"}\n')
    extract = read_json([file], tmp_path, array=False)
    assert extract.frame.collect()["id"].to_list() == ["1"]
    assert extract.rejects["_broken_rules"].to_list() == [["encoding: not utf-8"]]


def test_a_name_with_signs_of_a_pattern(tmp_path: Path) -> None:
    file = local(tmp_path, '{"a.b*":1,"[c] ":"x"}\n{"a.b*":2,"[c] ":"y"}\n', name="in[1]*.jsonl")
    assert form_of(file) is not None
    assert [list(row.values()) for row in read(file, tmp_path)] == [["1", "x"], ["2", "y"]]
    assert form_of(local(tmp_path, '{"a.b*":1}\n{"aXbb":2}\n')) is None


def test_a_first_line_that_does_not_match_is_told_at_once_however_many_numbers_it_has(tmp_path: Path) -> None:
    """Each may be written in two ways, and there are two to the power of forty ways to try both of each."""
    numbers = ",".join(f'"k{number}":0.50' for number in range(40))
    others = ",".join(f'"k{number}":0.25' for number in range(40))
    file = local(tmp_path, f'{{{numbers},"last":"a"}}\n{{{others},"last":null}}\n')
    assert form_of(file) is None


def test_keys_that_are_too_many_for_an_expression_are_judged_by_parsing(tmp_path: Path) -> None:
    line = json.dumps({f"k{number}": [number] for number in range(200)})
    assert match(local(tmp_path, f"{line}\n" * 3)) is None
    assert len(read(local(tmp_path, f"{line}\n" * 3), tmp_path)[0]) == 200


@pytest.mark.parametrize("seed", range(12))
def test_cut_is_as_parsed(tmp_path: Path, seed: int) -> None:
    """Whatever a program writes with one list of columns: when it has a form, both readers give the same."""
    rng = random.Random(seed)
    kinds = {f"k{number}": rng.choice("itfbn") for number in range(rng.randrange(1, 9))}
    letters = "abc ,:{}[]'/ž€\U0001f600" + ('"\\\n' if seed % 3 == 0 else "")

    def value(kind: str) -> Any:
        if kind == "n" and rng.random() < 0.3:
            return None
        return {
            "t": "".join(rng.choices(letters, k=rng.randrange(6))),
            "i": rng.randrange(-(10 ** rng.randrange(1, 18)), 10**17),
            "f": round(rng.uniform(-1, 1) * 10 ** rng.randrange(-4, 9), rng.randrange(1, 9)) + 0.5,
            "b": rng.random() < 0.5,
            "n": rng.randrange(100),
        }[kind]

    lines = [json.dumps({key: value(kind) for key, kind in kinds.items()}, ensure_ascii=False, separators=(",", ":")) for _ in range(300)]  # fmt: skip
    file = local(tmp_path, "\n".join(lines) + "\n")
    form = form_of(file)
    with_care = read_json([file], tmp_path, array=False, care=Care(careful=frozenset({file.name}))).frame
    parsed = pl.scan_ndjson(file.path, schema=dict.fromkeys(kinds, pl.String())).collect()
    assert read(file, tmp_path) == parsed.to_dicts()
    assert with_care.select(parsed.columns).collect().equals(parsed)
    if form is not None:
        assert form.scan(file.path, "row").drop("row").collect().equals(parsed)
    assert (form is not None) or seed % 3 == 0
