"""Judging JSON Lines: the keys of a sound file, or what is sound in a broken one."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse.connectors.encoding import MARK, decode, printable
from lakehouse.connectors.json_cut import Form, form_of
from lakehouse.connectors.json_numbers import EXTREME, FLOAT, LONG, is_exact, keeps_digits
from lakehouse.connectors.json_template import match
from lakehouse.connectors.local import LINE_LIMIT_BYTES, LineReader, LocalFile
from lakehouse.connectors.rejects import Reject, empty, rejects_of
from lakehouse.storage import quote_literal

#: No JSON text holds this byte: a line of a CSV with this delimiter is one field.
_NO_DELIMITER = "\x01"
#: One row per distinct list of keys: is every line of it sound?
_JUDGE = """
SELECT CASE WHEN valid THEN json_keys(line) END AS keys, bool_and(valid AND NOT extreme) AS sound, bool_or(long) AS long
FROM (SELECT line, json_valid(line) AND json_type(CASE WHEN json_valid(line) THEN line END) = 'OBJECT' AS valid,
             regexp_matches(line, {extreme}) AS extreme, regexp_matches(line, {long}) AS long
      FROM {lines} WHERE trim(line, E' \\t\\r') <> '')
GROUP BY 1
"""
_NUMBERS = "SELECT unnest(regexp_extract_all(line, {float})) AS number FROM {lines} WHERE regexp_matches(line, {long})"
_NUMBERS_AT_ONCE = 100_000
_READ = (
    "read_csv({path}, columns = {{'line': 'VARCHAR'}}, delim = {delimiter}, quote = '', escape = '', header = false, "
    "auto_detect = false, compression = {compression}, max_line_size = {limit})"
)


@dataclass(frozen=True)
class SalvagedJson:
    """``clean`` has a line for every record, ``{}`` for a broken one; those are ``broken_rows`` (from 1)."""

    clean: Path
    keys: tuple[str, ...]
    broken_rows: tuple[int, ...]
    rejects: pl.DataFrame
    is_partial: bool


def uniform(file: LocalFile) -> Form | None:
    """The form that all lines of the file have, so that they need not be parsed; None where they have none in common."""
    if file.size_bytes == 0 or file.has_long_line():
        return None
    try:
        return form_of(file)
    except (pl.exceptions.PolarsError, OSError):
        return None  # broken encoding: said where the file is judged


def judge(file: LocalFile) -> tuple[str, ...] | None:
    """Every key of the file's objects; None when a line needs care.

    Lines that look like the first ones are judged by a template; the others, and files without one, by parsing.
    """
    if file.size_bytes == 0:
        return ()
    if file.has_long_line():
        return None  # both fast readers would hold it, several times over
    try:
        matched = match(file)
    except (pl.exceptions.PolarsError, OSError):
        matched = None
    if matched is None:
        compression = {"gzip": "gzip", "zstd": "zstd", None: "none"}[file.compression()]
        lines = _READ.format(
            path=quote_literal(str(file.path)),
            delimiter=quote_literal(_NO_DELIMITER),
            compression=quote_literal(compression),
            limit=LINE_LIMIT_BYTES,
        )
        return _parsed(lines)
    if not matched.odd_lines:
        return matched.keys
    odd = _parsed(f"(SELECT unnest([{', '.join(map(quote_literal, matched.odd_lines))}]) AS line)")
    return None if odd is None else tuple(dict.fromkeys([*matched.keys, *odd]))


def _parsed(lines: str) -> tuple[str, ...] | None:
    """Every key of these lines' objects, in order of appearance; None when a line is not sound.

    ``lines`` is SQL with literals: to convert a parameter DuckDB imports pandas, 0.3 s of CPU where it is installed.
    """
    import duckdb

    patterns = {"long": quote_literal(LONG), "extreme": quote_literal(EXTREME)}
    try:
        with duckdb.connect() as connection:
            connection.execute("SET enable_progress_bar = false")  # it would write into whatever prints
            rows = connection.execute(_JUDGE.format(lines=lines, **patterns)).fetchall()
            keys: dict[str, None] = {}
            for found, sound, _ in rows:
                if not sound or found is None or len(set(found)) != len(found):
                    return None
                keys.update(dict.fromkeys(found))
            if any(long for *_, long in rows):
                numbers = _NUMBERS.format(lines=lines, float=quote_literal(FLOAT), **patterns)
                for batch in connection.execute(numbers).to_arrow_reader(_NUMBERS_AT_ONCE):
                    frame = pl.DataFrame(pl.from_arrow(batch))
                    if not frame.select(keeps_digits(pl.col("number")).all()).item():
                        return None
    except (duckdb.Error, pl.exceptions.PolarsError):
        return None  # broken encoding, broken stream, longer than the limit: read with care
    return tuple(keys)


def salvage_json(file: LocalFile, spool: Path) -> SalvagedJson:
    """Read one UTF-8 file line by line. Blank lines are no records."""
    spool.mkdir(parents=True, exist_ok=True)
    clean = spool / f"{uuid.uuid4().hex}.jsonl"
    reader = LineReader(file)
    keys: dict[str, None] = {}
    rejects: list[Reject] = []
    broken: list[int] = []
    row = 0
    with open(clean, "w", encoding="utf-8") as sink:
        for first, piece in reader.pieces():
            lines = decode(piece).split("\n")
            for number, line in enumerate(lines, start=first):
                if not line.strip(" \t\r\ufeff"):
                    continue
                row += 1
                text, why = _sound(line, keys)
                if why is not None:
                    broken.append(row)
                    rejects.append((row, f"line {number}", why, line.replace(MARK, "")))
                sink.write(text + "\n")
    partial = [
        (
            None,
            f"line {line.line_no}, {line.size_bytes} bytes",
            "json: line longer than 64 MiB",
            printable(line.head),
        )
        for line in reader.long_lines
    ]
    if reader.problem:
        partial.append(
            (None, f"line {reader.next_line}", f"truncated: {reader.problem}", printable(reader.tail))
        )
    frame = pl.concat([empty(), rejects_of(file, rejects), rejects_of(file, partial)])
    return SalvagedJson(clean, tuple(keys), tuple(broken), frame, bool(partial))


def _sound(line: str, keys: dict[str, None]) -> tuple[str, str | None]:
    """(the line as the fast reader takes it, None) or (``{}``, why it is refused); sound keys are noted."""
    if MARK in line:
        return "{}", "encoding: not utf-8"
    pairs, numbers = _Pairs(), _Numbers()
    try:
        value = json.loads(
            line.lstrip("\ufeff"),
            object_pairs_hook=pairs,
            parse_int=numbers,
            parse_float=numbers,
            parse_constant=_no_constant,
        )
        if not isinstance(value, dict):
            return "{}", "json: not a JSON object"
        # Deeper down a key may stand twice as long as the line is kept letter by letter.
        twice = pairs.anywhere if numbers.are_inexact else pairs.outermost
        if twice is not None:
            return "{}", f"json: the key {json.dumps(twice)} stands twice in one object"
        text = json.dumps(value, ensure_ascii=False)
        text.encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return "{}", "json: not a JSON object"
    text = text if numbers.are_inexact else line.strip(" \t\r\ufeff")
    keys.update(dict.fromkeys(value))
    return text, None


class _Pairs:
    """Builds objects from their keys and values, and remembers a key that stood twice in one."""

    def __init__(self) -> None:
        self.anywhere: str | None = None
        self.outermost: str | None = None  # the outermost object is built last

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self.outermost = None
        if len(found) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.outermost = self.anywhere = counts.most_common(1)[0][0]
        return found


class _Numbers:
    """Builds numbers, or their digits as text where the fast reader would lose some: the column is text in any case."""

    def __init__(self) -> None:
        self.are_inexact = False

    def __call__(self, number: str) -> Any:
        if not is_exact(number):
            self.are_inexact = True
            return number
        return float(number) if any(mark in number for mark in ".eE") else int(number)


def _no_constant(name: str) -> Any:
    raise ValueError(name)
