"""JSON Lines that are alike to the letter are cut into their values, not parsed: half of the parser's CPU (docs/decisions/0006).

Most programs write every line with the same keys in the same order, without spaces, and texts without escapes. A regular
expression proves that of every line. Then every quotation mark of the file stands at the beginning or the end of a key or
of a text: a CSV reader that takes it for the delimiter finds each value in a field of its own, as it is written.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse.connectors.json_template import LINE, SAMPLE_BYTES, are_plain, sample_lines
from lakehouse.connectors.local import LocalFile

#: Every key takes two to four fields of the reader, used or not; 500 are proved at 44 MB/s a core, 100 at 144 (measured).
_MAX_KEYS = 500
#: As the parser would write it: no zero at the end of a fraction, no exponent, no minus before zero.
_NUMBER = r"0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]"
#: With zeros at the end of a fraction, which the parser leaves out of a number that is not long.
#: No value may match two ways, or lines of many such values would take for ever where Python's engine looks at the first ones.
_PADDED = _NUMBER + r"|-?(?:0|[1-9][0-9]{0,8})\.[0-9]{0,5}0"
_TEXT = r'"[^"\\\x00-\x1f]*"'


@dataclass(frozen=True)
class Form:
    """The keys of every line, in their order.

    texts      those whose value is a text
    nullable   others whose value may be null
    padded     others whose fractions may end in zeros
    """

    keys: tuple[str, ...]
    texts: frozenset[str]
    nullable: frozenset[str]
    padded: frozenset[str]

    def pattern(self) -> str:
        """Matches the lines that have this form, and no others."""
        return r"^\{" + ",".join(f'"{re.escape(key)}":{self._value(key)}' for key in self.keys) + r"\}$"

    def _value(self, key: str) -> str:
        if key in self.texts:
            return _TEXT
        number = _PADDED if key in self.padded else _NUMBER
        return f"(?:{number}|true|false{'|null' if key in self.nullable else ''})"

    def scan(self, path: Path, row: str) -> pl.LazyFrame:
        """Every value as text, as the parser would give it, and the line's number in ``row``, from 1."""
        fields, values = 1, []
        for key in self.keys:
            # A key stands between two marks, what follows it is a field, and a text is one of its own behind that.
            place = fields + (2 if key in self.texts else 1)
            fields += 4 if key in self.texts else 2
            values.append(self._cut(key, pl.col(f"f{place}")))
        reader = pl.scan_csv(
            path,
            separator='"',
            quote_char=None,
            has_header=False,
            schema={f"f{number}": pl.String() for number in range(fields)},
            empty_string_is_null=False,
            row_index_name=row,
            row_index_offset=1,
            glob=False,
        )
        return reader.select(row, *values)

    def _cut(self, key: str, field: pl.Expr) -> pl.Expr:
        if key in self.texts:
            return field.alias(key)
        bare = field.str.strip_chars(":,}\r")
        if key in self.padded:
            is_padded = bare.str.ends_with("0") & bare.str.contains(".", literal=True)
            short = bare.str.strip_chars_end("0").str.strip_suffix(".")
            bare = pl.when(is_padded).then(short).otherwise(bare)
        return (pl.when(bare != "null").then(bare) if key in self.nullable else bare).alias(key)


class _Padded:
    """A fraction that ends in zeros."""


def form_of(file: LocalFile) -> Form | None:
    """The form that every line of the file has; None when one has another, or is no object.

    Told of the file as it is now: whoever reads it afterwards looks whether it is still the same, as bronze does.

    Raises:
        polars.exceptions.PolarsError: the file cannot be read as lines of UTF-8.
        OSError: nor at all.
    """
    if file.compression() is not None:
        return None
    head, _ = file.head(SAMPLE_BYTES)
    form = _first_form(head)
    if form is None:
        return None
    has_it = pl.col(LINE).str.contains(form.pattern())
    others = pl.scan_lines(file.path, name=LINE, glob=False).filter(~has_it).head(1)
    return form if others.collect(engine="streaming").is_empty() else None


def _first_form(head: bytes) -> Form | None:
    """The form of the file's first lines, when they have one."""
    lines = sample_lines(head)
    try:
        objects = [
            json.loads(line, parse_float=lambda text: _Padded() if text.endswith("0") else 0.5)
            for line in lines
        ]
    except (ValueError, RecursionError):
        return None
    if not objects or not isinstance(objects[0], dict):
        return None
    first: dict[str, Any] = objects[0]
    if not 0 < len(first) <= _MAX_KEYS or not are_plain(first):
        return None
    texts = {key for key, value in first.items() if isinstance(value, str)}
    values = [(key, value) for found in objects if isinstance(found, dict) for key, value in found.items()]
    nullable = {key for key, value in values if value is None}
    padded = {key for key, value in values if isinstance(value, _Padded)}
    form = Form(tuple(first), frozenset(texts), frozenset(nullable - texts), frozenset(padded - texts))
    has_it = re.compile(form.pattern().encode())
    return form if all(has_it.match(line) for line in lines) else None
