"""The template that judges JSON Lines at once never lets a line pass that parsing would refuse."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.connectors import json_lines
from lakehouse.connectors.json import read_json
from lakehouse.connectors.json_template import match
from lakehouse.connectors.local import LocalFile

SOUND = '{"id": 1, "name": "x", "tags": ["a", 2], "at": {"lat": 1.5, "lon": -2e3}}'
TEXTS = st.text(max_size=6) | st.sampled_from(["\ud83d", '"', "\\", "\x00", "é", "😀", ":null", "1" * 20])
VALUES = TEXTS | st.integers() | st.floats() | st.booleans() | st.none()
NESTED = VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(TEXTS, VALUES, max_size=2)


def _file(tmp_path: Path, *lines: str | bytes) -> LocalFile:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return LocalFile(str(path), path, path.stat().st_size)


def _one_by_one(file: LocalFile, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...] | None:
    with monkeypatch.context() as patched:
        patched.setattr(json_lines, "match", lambda _: None)
        return json_lines.judge(file)


@pytest.mark.parametrize(
    "line",
    [
        '{"id": 1, "id": 2}', '{"name": "x", "name": "y"}', '{"id": 1, "name": "x"', '{"id": 01}', "[1]", '{"id": }', '{"id": 1} x',
        '{"id": 12345678901234567890}', '{"id": 1234567890123456.7}', '{"id": 0.10000000000000000555}', '{"id": 1234567890123456789e3}', '{"id": 1e400}', '{"id": "\\ud83d"}', '{"id": "\t"}',
        b'{"id": "\xff"}', '{"id": 1}{"id": 2}', '{"id": 1,}', '{"id": [1, 2}', '{"at": {"lat": }}', "nonsense", '{"id": 1, "at": {"lat": 1}',
    ],
)  # fmt: skip
def test_a_line_that_needs_care_does_not_pass(tmp_path: Path, line: str | bytes) -> None:
    file = _file(tmp_path, SOUND, line)
    try:
        matched = match(file)
    except pl.exceptions.PolarsError:
        return
    assert matched is None or matched.odd_lines


@pytest.mark.parametrize(
    "line",
    [
        SOUND, SOUND.replace(" ", ""), '{"id": 2}', '{"id": null, "at": {}}', '{ "id" : "é😀" }', '{"id": "\\ud83d\\ude00 \\u00e9 \\n"}',
        '{"id": "12345678901234567890"}', '{"id": 3}\r', "", " \t", '{"id": 123456789012345678}', '{"id": -12345.6789012345}', '{"id": 1.5e-7}',
    ],
)  # fmt: skip
def test_a_sound_line_of_the_same_form_passes_at_once(tmp_path: Path, line: str) -> None:
    matched = match(_file(tmp_path, SOUND, line))
    assert matched is not None
    assert (matched.keys, matched.odd_lines) == (("id", "name", "tags", "at"), ())


@pytest.mark.parametrize(
    "number", ["0.8444218515250481", "-40.71277600000001", "0.00012345678901234567", "1.3436424411240123e-05", "1e22", "123456789012345.67"]
)  # fmt: skip
@pytest.mark.parametrize("first", [1, 500])
def test_numbers_that_programs_write_in_full_need_no_care(tmp_path: Path, number: str, first: int) -> None:
    """Once such files were read line by line, twenty times as slowly."""
    file = _file(tmp_path, *[SOUND] * first, f'{{"id": {number}}}', SOUND)
    assert json_lines.judge(file) == ("id", "name", "tags", "at")


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True) | st.floats(allow_nan=False, allow_infinity=False).map(repr))  # fmt: skip
def test_a_number_is_exact_or_read_with_care(tmp_path_factory: pytest.TempPathFactory, number: str) -> None:
    folder = tmp_path_factory.mktemp("number")
    file = _file(folder, SOUND, f'{{"id": {number}}}')
    extract = read_json([file], folder / "spool", array=False)
    assert extract.rejects.is_empty()
    assert Decimal(extract.frame.collect()["id"][1]) == Decimal(number)


def test_keys_that_only_later_lines_have_are_found(tmp_path: Path) -> None:
    file = _file(tmp_path, *[SOUND] * 1000, '{"later": 1, "id": 2}')
    assert json_lines.judge(file) == ("id", "name", "tags", "at", "later")


def test_a_file_whose_lines_all_differ_is_parsed(tmp_path: Path) -> None:
    lines = [json.dumps({f"k{number % 7}": 1, f"k{number % 5 + 7}": 2}) for number in range(9000)]
    assert set(json_lines.judge(_file(tmp_path, *lines)) or ()) == {f"k{number}" for number in range(12)}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "c", "ä"]) | TEXTS, NESTED, max_size=4), max_size=6),
    st.booleans(),
    st.data(),
)
def test_the_template_and_parsing_judge_alike(
    tmp_path_factory: pytest.TempPathFactory, objects: list[dict[str, Any]], is_ascii: bool, data: st.DataObject
) -> None:  # fmt: skip
    lines = [json.dumps(value, ensure_ascii=is_ascii).encode(errors="surrogatepass") for value in objects]
    if lines:  # and one line spoilt somewhere
        number = data.draw(st.integers(0, len(lines) - 1))
        place = data.draw(st.integers(0, len(lines[number])))
        lines[number] = lines[number][:place] + data.draw(st.sampled_from([b"", b'"', b",", b"}", b"0", b"\xff"])) + lines[number][place:]  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        file = _file(tmp_path_factory.mktemp("lines"), *lines)
        parsed = _one_by_one(file, monkeypatch)
        found = json_lines.judge(file)
    if (
        parsed is not None
    ):  # digits within texts make parsing careful, the template knows that they are no numbers
        assert found is not None
        assert set(found) == set(parsed)
    elif found is not None:
        strict = [json.loads(line, parse_constant=_refuse) for line in lines if line.strip(b" \t\r")]
        assert all(isinstance(value, dict) for value in strict)
        assert set(found) >= {key for value in strict for key in value}


def _refuse(name: str) -> Any:
    raise ValueError(name)
