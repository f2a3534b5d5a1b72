"""Landable files: refused rows as their source writes its files, so that a corrected one is read as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import PermanentError
from lakehouse.pipelines.model import CsvOptions, SourceSpec

Record = dict[str, Any]
_ENDINGS = {
    "csv": (".csv",),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet",),
}
_PACKED = (".gz", ".zst")


def endings(source: SourceSpec) -> tuple[str, ...]:
    """How a file of this source may end: as its path says (``orders/*.txt``), or as its format is called."""
    own = PurePosixPath(source.path).suffix.lower()
    is_plain = own[1:].isalnum() and own not in _PACKED
    return tuple(dict.fromkeys((*([own] if is_plain else []), *_ENDINGS[source.format])))


def records(rows: pl.DataFrame) -> list[Record]:
    """The source's records: what bronze added is left out, what it rescued is put back."""
    found = []
    for raw in rows.filter(pl.col("_stage") == "silver")["_raw"]:
        record: Record = json.loads(raw)
        rescued = record.pop(names.RESCUED, None)
        found.append(record | (json.loads(rescued) if isinstance(rescued, str) else {}))
    return found


def write(found: Sequence[Record], path: Path, source: SourceSpec, types: Mapping[str, pl.DataType]) -> None:
    """Write records as a file of ``source``; ``types`` are those of bronze, which Parquet files have, too.

    Raises:
        PermanentError: a value has no form in the source's encoding or dialect; names column and row.
    """
    columns = list(dict.fromkeys(name for record in found for name in record))
    if source.format == "parquet":
        pl.DataFrame([_typed(name, found, types.get(name)) for name in columns]).write_parquet(path)
    elif source.format == "csv":
        _write_csv(found, columns, path, source.csv)
    else:
        lines = [json.dumps(record, ensure_ascii=False) for record in found]
        is_array = source.format == "json"
        text = "[\n" + ",\n".join(lines) + "\n]\n" if is_array else "".join(f"{line}\n" for line in lines)
        path.write_text(text, encoding="utf-8")


def _typed(name: str, found: Sequence[Record], dtype: pl.DataType | None) -> pl.Series:
    """A column in its type: a date that lands as text would be rescued, and its column empty.

    What bronze rescued fits its type no more than before; then the column has the type of what stands there.
    """
    values = [record.get(name) for record in found]
    is_bytes = dtype == pl.Binary  # hexadecimal digits in ``_raw``
    if dtype is not None:
        written = pl.Series([json.dumps({name: value}) for value in values], dtype=pl.String)
        shape = pl.Struct({name: pl.String() if is_bytes else dtype})
        try:
            column = written.str.json_decode(shape).struct.field(name)
            column = column.str.decode("hex") if is_bytes else column
            if column.null_count() == sum(value is None for value in values):
                return column
        except pl.exceptions.PolarsError:
            pass
    return pl.from_dicts([{name: value} for value in values], infer_schema_length=None)[name]


def _write_csv(found: Sequence[Record], columns: list[str], path: Path, options: CsvOptions) -> None:
    if not options.header:  # the place of a value says what it is
        _check_columns(found, options.columns)
        columns = list(options.columns)
    # ASCII is read as UTF-8, which it is a part of.
    encoding = "utf-8" if options.encoding == "ascii" else options.encoding
    with open(path, "w", encoding=encoding, newline="") as sink:
        if options.header and columns:
            sink.write(_line(dict(zip(columns, columns, strict=True)), columns, options, encoding, 0))
        for number, record in enumerate(found, start=1):
            sink.write(_line(record, columns, options, encoding, number))


def _check_columns(found: Sequence[Record], columns: Sequence[str]) -> None:
    for number, record in enumerate(found, start=1):
        for name, value in record.items():
            if name not in columns and value not in (None, ""):
                raise _impossible(number, name, value, "and csv.columns has no such column")


def _line(
    record: Mapping[str, Any], columns: Sequence[str], options: CsvOptions, encoding: str, number: int
) -> str:
    return options.delimiter.join(_fields(record, columns, options, encoding, number)) + "\n"


def _fields(
    record: Mapping[str, Any], columns: Sequence[str], options: CsvOptions, encoding: str, number: int
) -> Iterator[str]:
    quote = options.quote
    special = (options.delimiter, "\r", "\n", *([quote] if quote else []))
    for name in columns:
        text = _text(record.get(name))
        try:
            text.encode(encoding)
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise _impossible(
                number, name, text, f"and {options.encoding} (csv.encoding) has no {character!r}"
            ) from None
        # An empty line would be no row.
        if any(mark in text for mark in special) or (quote and not text and len(columns) == 1):
            if quote is None:
                raise _impossible(
                    number, name, text, "which needs quotes, and the source has none (csv.quote)"
                )
            text = quote + text.replace(quote, quote * 2) + quote
        yield text


def _text(value: Any) -> str:
    if value is None:  # empty text is no value, whatever the null markers are
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _impossible(number: int, column: str, value: Any, why: str) -> PermanentError:
    where = f"row {number}" if number else "the header"
    shown = _text(value)
    return PermanentError(
        f"nothing was written: {column} of {where} is {shown[:80]!r}, {why}",
        hint="leave the row out with --rule, --file or --batch, or export without --landable and repair it by hand",
    )
