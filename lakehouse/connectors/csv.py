"""CSV as text: a fast strict read, and a careful one that keeps every broken line.

The fast read refuses lines with too many fields, bad quoting and bad encodings (Polars raises), but pads
lines with too few. Such a line leaves the last column empty, so only then is the careful read needed: clean
files are read once, at full speed.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import REJECT_SCHEMA, Extract
from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.salvage import reject_file, salvage_csv
from lakehouse.errors import SourceError

if TYPE_CHECKING:
    from lakehouse.pipelines.model import CsvOptions

#: Files of one scan get their row numbers from one window; its memory is bounded by this many bytes of input.
GROUP_BYTES = 64 << 20
HEADER_BYTES = 1 << 20
_UTF8 = ("utf-8", "ascii")


def read_csv(files: Sequence[LocalFile], options: CsvOptions, spool: Path, *, careful: bool) -> Extract:
    """The rows of ``files``, every column as text; see ``Extract``."""
    frames: list[pl.LazyFrame] = []
    rejects: list[pl.DataFrame] = []
    readable: list[tuple[LocalFile, tuple[str, ...]]] = []
    for file in files:
        try:
            columns = _columns(file, options)
        except (SourceError, OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
            rejects.append(reject_file(file, f"csv: unreadable header: {error}"))
            continue
        if columns is not None:  # an empty file holds no row, and no error either
            readable.append((file, columns))
    if careful or options.encoding not in _UTF8:
        for file, columns in readable:
            clean, refused = salvage_csv(file, options, columns, spool)
            frames.append(_scan_clean(clean, file, options, columns))
            rejects.append(refused)
    else:
        for columns, group in itertools.groupby(readable, key=lambda pair: pair[1]):
            frames += [_scan(part, columns, options) for part in _groups([file for file, _ in group])]
    frame = pl.concat(frames, how="diagonal") if frames else pl.LazyFrame(schema=_EMPTY)
    last = {columns[-1] for _, columns in readable}
    refused = pl.concat(rejects) if rejects else pl.DataFrame(schema=REJECT_SCHEMA)
    doubtful = last.pop() if not careful and len(last) == 1 and options.encoding in _UTF8 else None
    return Extract(frame, refused, doubtful)


_EMPTY = {names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()}


def _columns(file: LocalFile, options: CsvOptions) -> tuple[str, ...] | None:
    """Table columns of one file, from its header or the declaration; None for an empty file."""
    head = file.head(HEADER_BYTES)
    text = head.decode("utf-8-sig" if options.encoding in _UTF8 else options.encoding, errors="replace")
    if not text.strip():
        return None
    if not options.header:
        return tuple(options.columns)
    fields = next(
        csv.reader(
            io.StringIO(text, newline=""),
            delimiter=options.delimiter,
            quotechar=options.quote or None,
            quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
        )
    )
    if "\x00" in text[: len(",".join(fields)) + 1]:
        raise SourceError("the header holds NUL bytes; is this a text file?")
    return tuple(clean_names(fields))


def _groups(files: Iterable[LocalFile]) -> Iterable[list[LocalFile]]:
    """Neighbouring files packed into groups of at most ``GROUP_BYTES``; a larger file stands alone."""
    group: list[LocalFile] = []
    size = 0
    for file in files:
        if group and size + file.size_bytes > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size_bytes
    if group:
        yield group


def _scan(files: list[LocalFile], columns: tuple[str, ...], options: CsvOptions) -> pl.LazyFrame:
    """One strict scan over files with the same header. Row numbers start at 1 in each file."""
    row = names.SOURCE_ROW
    frame = pl.scan_csv(
        [str(file.path) for file in files],
        # The header is skipped, not read: its names may be none that a table can hold.
        has_header=False,
        skip_rows=int(options.header),
        separator=options.delimiter,
        quote_char=options.quote,
        schema=dict.fromkeys(columns, pl.String()),
        empty_string_is_null=False,
        row_index_name=row,
        row_index_offset=1,
        include_file_paths=names.SOURCE_FILE,
        glob=False,
    ).with_columns(pl.col(row).cast(pl.Int64))
    if len(files) > 1:
        frame = frame.with_columns(pl.col(row) - pl.col(row).min().over(names.SOURCE_FILE) + 1)
    renamed = {str(file.path): file.name for file in files if str(file.path) != file.name}
    if renamed:
        frame = frame.with_columns(pl.col(names.SOURCE_FILE).replace(renamed))
    return frame


def _scan_clean(clean: Path, file: LocalFile, options: CsvOptions, columns: tuple[str, ...]) -> pl.LazyFrame:
    """The records that the careful read found sound; their first field is the row number."""
    schema: dict[str, pl.DataType] = {names.SOURCE_ROW: pl.Int64(), **dict.fromkeys(columns, pl.String())}
    if clean.stat().st_size == 0:
        return pl.LazyFrame(schema={**dict.fromkeys(columns, pl.String()), **_EMPTY})
    return pl.scan_csv(
        clean,
        has_header=False,
        separator=options.delimiter,
        quote_char=options.quote,
        schema=schema,
        empty_string_is_null=False,
        glob=False,
    ).with_columns(pl.lit(file.name).alias(names.SOURCE_FILE))
