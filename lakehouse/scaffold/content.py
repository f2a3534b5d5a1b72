"""The rows of a sniffed file as a frame: whole when it is small, else its beginning, and said so.

CSV comes as text in every column, so that nothing is decided before the profile has seen it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from lakehouse.connectors.columns import clean_names
from lakehouse.errors import SourceError
from lakehouse.scaffold.sniff import Dialect, Sniffed, first_record, open_content

#: How much content is looked at. Above it the profile is of the beginning only.
LIMIT_BYTES = 64 << 20
PARQUET_SAMPLE_ROWS = 200_000


@dataclass(frozen=True)
class Content:
    """``frame`` holds the rows that were looked at; ``rows`` is the file's count where it is known."""

    frame: pl.DataFrame
    rows: int | None
    complete: bool


def load(sniffed: Sniffed) -> Content:
    """Raises SourceError when the content does not parse."""
    try:
        if sniffed.format == "parquet":
            return _parquet(sniffed)
        with open_content(sniffed.path, sniffed.compression) as stream:
            data = stream.read(LIMIT_BYTES + 1)
        complete = len(data) <= LIMIT_BYTES
        if sniffed.format == "csv":
            assert sniffed.dialect is not None
            frame = read_csv(data, sniffed.dialect, complete=complete)
        else:
            objects = _array(data, complete) if sniffed.format == "json" else _lines(data, complete)
            frame = _from_objects(objects)
    except (pl.exceptions.PolarsError, ValueError, EOFError, OSError) as error:
        raise SourceError(
            f"{sniffed.path} does not parse as {sniffed.format}: {error}",
            hint="look at the file's first lines; a file whose first lines are whole will do for this command",
        ) from error
    if frame.width == 0 or frame.height == 0:
        raise SourceError(f"{sniffed.path} holds no rows", hint="name a file that holds some rows")
    return Content(frame, frame.height if complete else None, complete)


def read_csv(data: bytes, dialect: Dialect, *, complete: bool) -> pl.DataFrame:
    """Every column as text; ragged lines are cut or filled, as only the types matter here."""
    text = data.decode(dialect.encoding, errors="replace").removeprefix("\ufeff")
    if not complete:
        text = _whole_records(text, dialect.quote)
    frame = pl.read_csv(
        io.BytesIO(text.encode()),
        separator=dialect.delimiter,
        quote_char=dialect.quote,
        has_header=dialect.header,
        new_columns=list(dialect.columns) or None,
        infer_schema=False,
        truncate_ragged_lines=True,
        raise_if_empty=False,
    )
    written = first_record(text, dialect) if dialect.header else []
    if len(written) == frame.width:  # Polars calls a second `name` otherwise than bronze does
        frame.columns = written if len(set(written)) == len(written) else clean_names(written)
    return frame


def _whole_records(text: str, quote: str) -> str:
    """Cut at the last line end that lies outside quotes: there the number of quotes so far is even."""
    end, quotes = len(text), text.count(quote)
    while (cut := text.rfind("\n", 0, end)) > 0:
        quotes -= text.count(quote, cut, end)
        if quotes % 2 == 0:
            return text[: cut + 1]
        end = cut
    return text


def _lines(data: bytes, complete: bool) -> Iterator[dict[str, Any]]:
    lines = data.decode("utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines if complete else lines[:-1], start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            if number == 1:
                raise SourceError(f"line 1 is not JSON: {error}", hint="one JSON object per line") from error
            continue  # bronze quarantines it; the profile needs the rest
        if isinstance(value, dict):
            yield value


def _array(data: bytes, complete: bool) -> Iterator[dict[str, Any]]:
    """Objects of one array, read one by one so that a cut array still gives its beginning."""
    text = data.decode("utf-8-sig", errors="replace")
    decoder, position = json.JSONDecoder(), text.index("[") + 1
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        if position >= len(text) or text[position] == "]":
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError:
            if complete:
                raise
            return
        if isinstance(value, dict):
            yield value


def _from_objects(objects: Iterator[dict[str, Any]]) -> pl.DataFrame:
    """Objects with any mixture of fields; a field of mixed types becomes text."""
    rows = list(objects)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {dict}:
        fields = list(dict.fromkeys(field for value in values if value for field in value))
        if not fields:
            return pl.Series(name, [None] * len(values), dtype=pl.String)
        inner = [_series(field, [(value or {}).get(field) for value in values]) for field in fields]
        return pl.DataFrame(inner).to_struct(name)
    if kinds <= {list}:
        flat = [item for value in values if value for item in value]
        dtype = pl.List(_series("item", flat).dtype if flat else pl.String)
        return pl.Series(name, [None] * len(values), dtype=dtype)
    if kinds <= {int, float} or len(kinds) == 1:
        wide = [float(value) if float in kinds and value is not None else value for value in values]
        return pl.Series(name, wide, strict=False)
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pl.Series(name, texts, dtype=pl.String)


def _parquet(sniffed: Sniffed) -> Content:
    import pyarrow.parquet as pq

    rows = int(pq.ParquetFile(sniffed.path).metadata.num_rows)
    scan = pl.scan_parquet(sniffed.path, glob=False)
    if rows <= PARQUET_SAMPLE_ROWS:
        return Content(scan.collect(), rows, True)
    half = PARQUET_SAMPLE_ROWS // 2
    frame = pl.concat([scan.head(half).collect(), scan.tail(half).collect()])
    return Content(frame, rows, False)
