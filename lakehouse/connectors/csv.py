"""CSV as text: a fast strict read, and a careful one (``salvage``) that keeps every broken line.

The fast read refuses lines with too many fields, unclosed quotes and bytes that are no UTF-8 (Polars raises),
but pads lines with too few. Such a line leaves the last column empty, so a file with an empty last value is
in doubt; counting its delimiters settles that exactly, at the speed of a memory scan.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import FAST, Care, Doubt, Extract, KeptFile
from lakehouse.connectors.columns import clean_names, one_spelling
from lakehouse.connectors.encoding import MARK, as_utf8, decode
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.rejects import empty, first_line, keep, reject_file
from lakehouse.connectors.salvage import salvage_csv
from lakehouse.errors import SourceError
from lakehouse.storage.failures import is_out_of_space

if TYPE_CHECKING:
    from lakehouse.pipelines.model import CsvOptions

#: Files of one scan get their row numbers from one window; its memory is bounded by this many bytes of input.
GROUP_BYTES = 64 << 20
#: What is looked at octet by octet is read in pieces that stay in the processor's cache.
_CACHED_BYTES = 1 << 20
HEADER_BYTES = 1 << 20
_EMPTY = {names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()}


@dataclass(frozen=True)
class _Head:
    """What a file's first lines say: table columns, how many lines the header takes, and whether row 1 is odd.

    Odd is a first line of the wrong width, one that is not over within ``HEADER_BYTES``, or a header with half a pair
    of quotes. The fast reader takes its own idea of the file from there: one of a hundred million fields keeps it
    busy for minutes.
    """

    columns: tuple[str, ...]
    lines: int
    is_odd: bool


def read_csv(files: Sequence[LocalFile], options: CsvOptions, spool: Path, care: Care = FAST) -> Extract:
    """The rows of ``files``, every column as text; see ``Extract``."""
    frames: list[pl.LazyFrame] = []
    rejects = [empty()]
    kept: list[KeptFile] = []
    fast: list[tuple[LocalFile, _Head]] = []
    for file in files:
        try:
            if file.name in care.refused:
                raise SourceError(care.refused[file.name])
            text = as_utf8(file, options.encoding, spool).unpacked(spool)
            head = _head(text, options)
        except (SourceError, OSError, EOFError, UnicodeError, csv.Error) as error:
            if is_out_of_space(error):  # for the copy: no fault of the file
                raise
            kept.append(keep(file))
            rejects.append(reject_file(file, f"csv: unreadable: {first_line(error)}", kept[-1]))
            continue
        if head is None:  # an empty file holds no row, and no error either
            continue
        if (
            file.name in care.careful
            or text.has_marks
            or text.problem
            or head.is_odd
            or goes_on_behind_quotes(text, options)
        ):
            salvaged = salvage_csv(text, options, head.columns, head.lines, spool)
            frames.append(_scan_clean(salvaged.clean, text, options, head.columns))
            rejects.append(salvaged.rejects)
            kept += [keep(file)] if salvaged.is_partial else []
        else:
            fast.append((text, head))
    for head, group in itertools.groupby(fast, key=lambda pair: pair[1]):
        frames += [_scan(part, head, options) for part in _groups([file for file, _ in group])]
    frame = pl.concat(one_spelling(frames), how="diagonal") if frames else pl.LazyFrame(schema=_EMPTY)
    doubts = [
        Doubt(file.name, head.columns[-1], partial(has_short_lines, file, options, len(head.columns)))
        for file, head in fast
        if len(head.columns) > 1
    ]
    return Extract(frame, pl.concat(rejects), tuple(doubts), tuple(kept))


def _head(file: LocalFile, options: CsvOptions) -> _Head | None:
    """The head of one file, from its header or the declaration; None for an empty file."""
    head, problem = file.head(HEADER_BYTES)
    text = decode(head.removeprefix(b"\xef\xbb\xbf"))
    if not text.strip():
        if problem:
            raise SourceError(problem)
        return None
    if not options.header:
        columns = tuple(options.columns)
        return _Head(columns, 0, _is_odd(text, len(head), options, len(columns)))
    fields, end = _first_record(text, options)
    if len(head) == HEADER_BYTES and end == len(text):
        raise SourceError(f"the header is longer than {HEADER_BYTES} bytes")
    header = "".join(fields)
    if not header.strip():
        raise SourceError("the first line is empty; the header must be the first line")
    if "\x00" in header:
        raise SourceError("the header holds NUL bytes; if this is UTF-16 or UTF-32, say so: csv.encoding")
    if MARK in header:
        raise SourceError(
            f"the header is not {options.encoding}; the file's real encoding goes into csv.encoding"
        )
    written, rest = text[:end], text[end:]
    if written.endswith("\r") and rest.partition("\n")[0].strip("\r"):
        # Both readers go on behind the next line feed: what stands before it would be lost.
        raise SourceError("a carriage return alone ends the header, but line feeds end other lines")
    quotes = written.count(options.quote) if options.quote else 0
    lines = written.rstrip("\r\n").split("\n")
    if len(lines) > 1 and not _is_by_the_book(written, options):
        raise SourceError("a quote in the header is not closed: it takes the lines below into the header")
    if (
        len(fields) > 1
        and len(lines) > 1
        and {line.count(options.delimiter) for line in lines} == {len(fields) - 1}
    ):
        # Such a quote may meet another that closes it by the rules, like an inch mark at the end of a row.
        raise SourceError("a quoted name in the header goes over lines each of which has all fields of a row")
    return _Head(
        tuple(clean_names(fields)),
        written.count("\n") + (not written.endswith("\n")),
        quotes % 2 == 1 or _is_odd(rest, len(head), options, len(fields)),
    )


def _first_record(text: str, options: CsvOptions, *, strict: bool = False) -> tuple[list[str], int]:
    """The fields of the first record, and where it ends."""
    source = io.StringIO(text, newline="")
    reader = csv.reader(
        source,
        delimiter=options.delimiter,
        quotechar=options.quote or None,
        quoting=csv.QUOTE_MINIMAL if options.quote else csv.QUOTE_NONE,
        strict=strict,
    )
    return next(reader), source.tell()


def _is_by_the_book(record: str, options: CsvOptions) -> bool:
    """Whether every quoted field of the record is closed, right before a delimiter or the end."""
    try:
        _first_record(record, options, strict=True)
    except csv.Error:
        return False
    return True


def _is_odd(rest: str, head_bytes: int, options: CsvOptions, width: int) -> bool:
    line, ended, _ = rest.partition("\n")
    if not ended and head_bytes == HEADER_BYTES:
        return True
    if not line.strip() or (options.quote and options.quote in line):
        return False
    return line.count(options.delimiter) != width - 1


def has_short_lines(file: LocalFile, options: CsvOptions, width: int, records: int) -> bool:
    """True when some of the ``records`` have too few fields, given that none has too many.

    Then every sound file has exactly ``(width - 1)`` delimiters a record, the header included. Delimiters
    within quotes are not counted; quotes may span pieces.
    """
    import numpy  # not at the top: `lakehouse status` and its like read no file

    delimiter, quote = ord(options.delimiter), ord(options.quote) if options.quote else None
    found, inside = 0, False
    for piece in file.chunks([], _CACHED_BYTES):
        octets = numpy.frombuffer(piece, numpy.uint8)
        quotes = numpy.flatnonzero(octets == quote) if quote is not None else octets[:0]
        if not len(quotes):
            found += 0 if inside else int(numpy.count_nonzero(octets == delimiter))
            continue
        delimiters = numpy.flatnonzero(octets == delimiter)
        before = numpy.searchsorted(delimiters, quotes)
        between = numpy.diff(before, prepend=0, append=len(delimiters))
        found += int(between[inside::2].sum())
        inside ^= len(quotes) % 2 == 1
    return found != (records + int(options.header)) * (width - 1)


def goes_on_behind_quotes(file: LocalFile, options: CsvOptions) -> bool:
    """True when some line has a quoted field that goes on behind its closing quote, like ``"a"b"c"``.

    The fast reader takes such quotes away without a word. Quotes are paired at the speed of a memory scan; only where a pair
    is not followed by the field's end (an inch mark has the same effect) are the lines matched, which takes ten times as long.
    """
    if options.quote is None:
        return False
    import numpy

    quote, closed = options.quote.encode(), f"{options.delimiter}{options.quote}\r\n".encode()
    is_end = numpy.zeros(256, bool)
    is_end[list(closed)] = True
    inside = False
    was_closed = False  # the last byte of the piece before closed a pair: what follows it was not known yet
    for piece in file.chunks([], _CACHED_BYTES):
        if was_closed and piece[0] not in closed:
            return _has_line(file, _goes_on(options))
        was_closed = False
        if quote not in piece:
            continue
        octets = numpy.frombuffer(piece, numpy.uint8)
        quotes = numpy.flatnonzero(octets == ord(options.quote))
        closing = quotes[int(not inside) :: 2]
        inside ^= len(quotes) % 2 == 1
        was_closed = bool(len(closing)) and int(closing[-1]) == len(piece) - 1
        if not is_end[octets[closing[: len(closing) - was_closed] + 1]].all():
            return _has_line(file, _goes_on(options))
    return False


def _goes_on(options: CsvOptions) -> str:
    """A regular expression: fields as they should be, then a quoted one with more behind it. A line that begins within a
    field of several lines may match, too: its file is read with care for nothing."""
    quote, delimiter = re.escape(options.quote or ""), re.escape(options.delimiter)
    quoted = f"{quote}(?:[^{quote}]|{quote}{quote})*{quote}"
    return f"^(?:(?:{quoted}|(?:[^{quote}{delimiter}][^{delimiter}]*)?){delimiter})*{quoted}[^{quote}{delimiter}\r]"


def _has_line(file: LocalFile, pattern: str) -> bool:
    lines = pl.scan_lines(file.path, name="line", glob=False).filter(pl.col("line").str.contains(pattern))
    try:
        return not lines.head(1).collect(engine="streaming").is_empty()
    except pl.exceptions.PolarsError:
        return True  # no text: the fast reader would stop there, too


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


def _scan(files: list[LocalFile], head: _Head, options: CsvOptions) -> pl.LazyFrame:
    """One strict scan over files with the same header. Row numbers start at 1 in each file."""
    row = names.SOURCE_ROW
    frame = pl.scan_csv(
        [str(file.path) for file in files],
        # The header is skipped, not read: its names may be none that a table can hold. It is skipped by lines: by rows
        # a quote within a name would take what follows for its field.
        has_header=False,
        skip_lines=head.lines,
        separator=options.delimiter,
        quote_char=options.quote,
        schema=dict.fromkeys(head.columns, pl.String()),
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
