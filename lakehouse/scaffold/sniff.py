"""What kind of file is this: format, compression, and for CSV the delimiter, quote, encoding and header.

Looks at the first megabyte of content; reads nothing else.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from lakehouse.errors import SourceError

Format = Literal["csv", "jsonl", "json", "parquet"]
SAMPLE_BYTES = 1 << 20
SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".psv": "csv", ".txt": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
Compression = Literal["gzip", "zstd"]
MAGIC: dict[Compression, bytes] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
COMPRESSED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
NUMBER = re.compile(r"^\s*[+-]?(\d+([.,]\d+)*|\.\d+)([eE][+-]?\d+)?\s*$")
DATE_LIKE = re.compile(r"^\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?$")

_YEAR = re.compile(r"^(1[5-9]|2[01])\d\d$")


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. ``columns`` are invented names where the file has no header."""

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sniffed:
    """What ``sniff`` found. ``assumptions`` are sentences for a person: everything that was guessed."""

    path: Path
    format: Format
    compression: Compression | None
    dialect: Dialect | None
    assumptions: tuple[str, ...] = ()

    @property
    def plain_name(self) -> str:
        """The file's name without the ending that says how it is compressed."""
        compressed = self.path.suffix.lower() in COMPRESSED_SUFFIXES
        return self.path.stem if compressed else self.path.name


def sniff(path: Path) -> Sniffed:
    """Recognise one local file.

    Raises SourceError when the file is missing, empty, or its name and its content disagree.
    """
    if not path.is_file():
        what = "is a folder: name one of its files" if path.is_dir() else "does not exist"
        raise SourceError(f"{path} {what}", hint="lakehouse new pipeline --from path/to/one/file.csv")
    compression = _compression(path)
    head = read_head(path, compression)
    if not head.strip():
        raise SourceError(
            f"{path} is empty: there is nothing to look at", hint="name a file that holds some rows"
        )
    named = Path(Sniffed(path, "csv", compression, None).plain_name).suffix.lower()
    found, notes = _format(head, named)
    if found != "csv":
        return Sniffed(path, found, compression, None, tuple(notes))
    dialect, more = _dialect(head)
    return Sniffed(path, found, compression, dialect, (*notes, *more))


def read_head(path: Path, compression: Compression | None, size: int = SAMPLE_BYTES) -> bytes:
    """The first bytes of a file's content, decompressed."""
    with open_content(path, compression) as stream:
        try:
            return stream.read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(
                f"{path} cannot be decompressed: {error}", hint="ask its sender for a whole file"
            ) from error


def open_content(path: Path, compression: Compression | None) -> IO[bytes]:
    """The content as a binary stream, decompressed on the way."""
    if compression == "gzip":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if compression == "zstd":
        import pyarrow as pa

        return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd"))
    return open(path, "rb")


def _compression(path: Path) -> Compression | None:
    """By content, as the reader of the files does: names lie."""
    with open(path, "rb") as stream:
        magic = stream.read(4)
    return next((kind for kind, mark in MAGIC.items() if magic.startswith(mark)), None)


def _format(head: bytes, suffix: str) -> tuple[Format, list[str]]:
    if head.startswith(b"PAR1"):
        return "parquet", [] if suffix in (".parquet", ".pq") else [
            "the content is Parquet, whatever the name says"
        ]
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    named = SUFFIXES.get(suffix)
    if named == "parquet":
        raise SourceError("the file is named Parquet, but its content is not", hint="rename it to what it is")
    if start == b"[" and named != "csv":
        return "json", [] if named == "json" else ["the content is one JSON array"]
    if start == b"{" and named != "csv":
        return "jsonl", [] if named == "jsonl" else ["one JSON object per line (JSON Lines)"]
    if named in ("json", "jsonl"):
        raise SourceError(
            "the file is named JSON, but starts with neither [ nor {", hint="correct the file or its name"
        )
    return "csv", [] if named == "csv" else ["read as delimited text (CSV): the name does not say what it is"]


def _dialect(head: bytes) -> tuple[Dialect, list[str]]:
    encoding, notes = _encoding(head)
    text = head.decode(encoding, errors="replace")
    if len(head) >= SAMPLE_BYTES:  # the last line is cut: leave it out
        text = text[: text.rfind("\n") + 1] or text
    delimiter, quote = _delimiter(text)
    rows = _rows(text, delimiter, quote, limit=500)
    header = _has_header(rows)
    if header:
        return Dialect(delimiter, quote, encoding, True), notes
    columns = tuple(f"column_{number}" for number in range(1, max(map(len, rows), default=1) + 1))
    notes.append(
        "no header line: the columns are called column_1, column_2 …; give them real names in the YAML"
    )
    return Dialect(delimiter, quote, encoding, False, columns), notes


def _encoding(head: bytes) -> tuple[str, list[str]]:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ["encoding UTF-16 (byte order mark)"]
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(head)  # incremental: a character cut at the sample's end is no error
    except UnicodeDecodeError:
        return "windows-1252", ["not UTF-8: read as windows-1252 (Western European); check the accents"]
    return "utf-8", []


def first_record(text: str, dialect: Dialect) -> list[str]:
    """The fields of the first line: the names as the file has them, where it has a header."""
    return next(iter(_rows(text[:SAMPLE_BYTES], dialect.delimiter, dialect.quote, limit=1)), [])


def first_names(path: Path, dialect: Dialect) -> list[str]:
    """The first line of a CSV file as ``dialect`` reads it; nothing when the file is empty or unreadable."""
    try:
        head = read_head(path, _compression(path), 1 << 16)
    except (SourceError, OSError, ValueError):
        return []
    return first_record(head.decode(dialect.encoding, errors="replace").removeprefix("\ufeff"), dialect)


def _rows(text: str, delimiter: str, quote: str, limit: int = 200) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) >= limit:
                break
    except csv.Error:  # a field beyond csv's size limit: this dialect does not fit
        return rows
    return rows


def _delimiter(text: str) -> tuple[str, str]:
    """The pair that cuts most lines into the same number of fields, more than one; else ',' and '"'."""
    best, best_score = (",", '"'), (0.0, 0)
    for delimiter in (",", ";", "\t", "|"):
        for quote in ('"', "'"):
            if quote == "'" and not re.search(
                rf"(^|{re.escape(delimiter)})'[^\n]*'({re.escape(delimiter)}|\r?$)", text, re.M
            ):
                continue
            rows = _rows(text, delimiter, quote)
            widths = Counter(map(len, rows))
            width, count = widths.most_common(1)[0] if widths else (1, 0)
            if width > 1 and (score := (round(count / len(rows), 2), width)) > best_score:
                best, best_score = (delimiter, quote), score
    return best


def _has_header(rows: list[list[str]]) -> bool:
    """True when the first line reads like names above the lines that follow.

    Names are texts. Years and dates may be some, where they stand above other numbers (``country,2019,2020``). Where names
    are empty or repeated the lines below decide: pandas and R leave the name of their row numbers empty.
    """
    if not rows:
        return True
    first = [cell.strip() for cell in rows[0]]
    below = [_below(rows, position) for position in range(len(first))]
    numbers = [_is_number(cell) for cell in first]
    if any(numbers):
        above = [pair for pair in zip(first, below, strict=True) if _is_number(pair[0])]
        return (
            not numbers[0]
            and any(any(column) for _, column in above)
            and all(_is_period_above_numbers(cell, column) for cell, column in above)
        )
    if all(first) and len(set(first)) == len(first):
        return True
    if any(
        _are_numbers(column) and (cell or (position == 0 and "" not in column))
        for position, (cell, column) in enumerate(zip(first, below, strict=True))
    ):
        return True
    # Texts only: a name does not come again below itself, and a value that is missing here may miss elsewhere.
    return any(first) and not any(
        cell in column and (cell or any(column)) for cell, column in zip(first, below, strict=True)
    )


def _below(rows: list[list[str]], position: int) -> list[str]:
    """The cells under the first line's; a line that repeats the first says nothing."""
    return [row[position].strip() for row in rows[1:] if position < len(row) and row != rows[0]]


def _is_number(cell: str) -> bool:
    return bool(NUMBER.match(cell) or DATE_LIKE.match(cell))


def _are_numbers(cells: list[str]) -> bool:
    """Most of the filled cells are numbers or dates."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and sum(map(_is_number, filled)) * 2 > len(filled)


def _is_period_above_numbers(cell: str, below: list[str]) -> bool:
    """A year or a date that is no value of its column: most of what stands below are numbers, and not all are its like.

    A column that is empty so far, as that of the running year, does not contradict.
    """
    kind = next((kind for kind in (_YEAR, DATE_LIKE) if kind.match(cell)), None)
    filled = [other for other in below if other]
    if kind is None or not filled:
        return kind is not None
    return _are_numbers(filled) and not all(kind.match(other) for other in filled)
