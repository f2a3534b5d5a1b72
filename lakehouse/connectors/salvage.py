"""Reading broken CSV files: what is sound goes to a clean spool file, the rest becomes rejects.

Vectorised over lines. What reads well by the format's rules is read so. Where something is broken, a line that
is a whole record by itself (even quotes, the right number of fields) is always taken as one: so an unclosed
quote costs one record, not the rest of the file. Runs of other lines are joined by quote parity into records
with embedded newlines, and judged again as a whole.
"""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from lakehouse.connectors.encoding import MARK, decode, printable
from lakehouse.connectors.local import LineReader, LocalFile
from lakehouse.connectors.rejects import empty, rejects_of

if TYPE_CHECKING:
    from lakehouse.pipelines.model import CsvOptions

#: Stands for a quoted part while a line is judged. A noncharacter: no text has it.
_QUOTED = "\ufdd1"
#: Stands for a carriage return while a loose record is read; another noncharacter.
_RETURN = "\ufdd2"
#: A run of broken lines longer than this is not carried over to the next piece of the file.
_CARRY_LINES = 10_000
#: A carriage return before the newline is no part of a record that ends there, but of a value that goes on.
_ENDED = pl.col("text").str.strip_suffix("\r")
_LINE_SCHEMA: dict[str, pl.DataType] = {"line_no": pl.Int64(), "text": pl.String()}


@dataclass(frozen=True)
class Salvaged:
    """``clean``: UTF-8 without header, first field the row number. ``is_partial``: bytes were left unread."""

    clean: Path
    rejects: pl.DataFrame
    is_partial: bool


def salvage_csv(
    file: LocalFile, options: CsvOptions, columns: Sequence[str], header_lines: int, spool: Path
) -> Salvaged:
    """Read one UTF-8 file with care, from behind its header."""
    spool.mkdir(parents=True, exist_ok=True)
    clean = spool / f"{uuid.uuid4().hex}.csv"
    reader = LineReader(file)
    with open(clean, "wb") as sink:
        judge = _Judge(file, options, len(columns), header_lines, sink)
        for first, piece in reader.pieces():
            judge.take(_lines(piece, first))
        judge.end()
    limit = "csv: line longer than 64 MiB"
    rows = [
        (None, f"line {line.line_no}, {line.size_bytes} bytes", limit, printable(line.head))
        for line in reader.long_lines
    ]
    if reader.problem:
        position = f"line {reader.next_line}"
        rows.append((None, position, f"truncated: {reader.problem}", printable(reader.tail)))
    rejects = pl.concat([empty(), *judge.rejects, rejects_of(file, rows)])
    return Salvaged(clean, rejects, bool(rows))


def _lines(piece: bytes, first_line: int) -> pl.DataFrame:
    text = decode(piece.removeprefix(b"\xef\xbb\xbf") if first_line == 1 else piece)
    texts = text.split("\n")
    if texts[-1] == "":
        texts.pop()
    numbers = range(first_line, first_line + len(texts))
    return pl.DataFrame({"line_no": numbers, "text": texts}, schema=_LINE_SCHEMA)


@dataclass
class _Judge:
    """Lines in, records out: sound ones to ``sink``, others to ``rejects``. Records are numbered from 1."""

    file: LocalFile
    options: CsvOptions
    width: int
    header_lines: int
    sink: BinaryIO
    rejects: list[pl.DataFrame] = field(default_factory=list)
    _carry: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_LINE_SCHEMA))
    _next_row: int = 1

    def take(self, lines: pl.DataFrame) -> None:
        lines = pl.concat([self._carry, lines.filter(pl.col("line_no") > self.header_lines)])
        records, self._carry = self._records(lines, final=False)
        self._write(records)

    def end(self) -> None:
        records, _ = self._records(self._carry, final=True)
        self._write(records)

    def _records(self, lines: pl.DataFrame, *, final: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(records: line_no, text; lines left for the next piece because their record may not be complete)."""
        if lines.is_empty():
            return lines, lines
        text = pl.col("text")
        quotes = text.str.count_matches(self.options.quote or "\x00", literal=True)
        counted = lines.with_columns(quotes=quotes if self.options.quote else pl.lit(0, pl.UInt32))
        records, carry = self._by_the_book(counted, final)
        if judged(records, self.options, self.width)["sound"].all():
            return records, carry
        return self._line_by_line(counted, final)

    @staticmethod
    def _by_the_book(lines: pl.DataFrame, final: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The records by quote parity alone, as the format's rules have it; the last is left while it is open."""
        opened = pl.col("quotes").cum_sum() - pl.col("quotes")
        marked = lines.with_columns(record=(opened % 2 == 0).cum_sum())
        carry = lines.clear()
        if not final and marked["quotes"].sum() % 2:
            carry = lines.tail(marked.filter(pl.col("record") == pl.col("record").last()).height)
            if carry.height > _CARRY_LINES:
                carry = lines.clear()  # judged now, with what is there
            marked = marked.head(lines.height - carry.height)
        return _joined(marked), carry.drop("quotes")

    def _line_by_line(self, lines: pl.DataFrame, final: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The records where something is broken: a line that is one by itself is one, whatever quote is open."""
        sound = judged(lines.with_columns(_ENDED), self.options, self.width)["sound"]
        # A loose line with an odd number of quotes may be the middle of a record that spans lines.
        marked = lines.with_columns(whole=sound & (lines["quotes"] % 2 == 0)).with_columns(
            run=(pl.col("whole") | pl.col("whole").shift(1, fill_value=True)).cum_sum()
        )
        # Within a run of lines that are no records by themselves, an odd number of quotes opens or closes one.
        opened = pl.col("quotes").cum_sum().over("run") - pl.col("quotes")
        marked = marked.with_columns(start=opened % 2 == 0).with_columns(record=pl.col("start").cum_sum())
        carry = lines.clear()
        if not final and not marked["whole"][-1]:
            tail = marked.filter(pl.col("run") == pl.col("run").last())
            if tail.height <= _CARRY_LINES:
                carry = lines.tail(tail.height)
                marked = marked.head(marked.height - tail.height)
        return _joined(marked), carry.drop("quotes")

    def _write(self, records: pl.DataFrame) -> None:
        if self.width > 1:  # in a table of one column an empty line is an empty value
            records = records.filter(pl.col("text") != "")
        if records.is_empty():
            return
        rows = pl.int_range(self._next_row, self._next_row + records.height, dtype=pl.Int64)
        found = judged(records.with_columns(row=rows), self.options, self.width)
        self._next_row += records.height
        good = found.filter("sound")
        if good.height:
            numbered = pl.concat_str(pl.col("row").cast(pl.String), "text", separator=self.options.delimiter)
            # A carriage return that ends a value is no part of the line's end: the reader takes one away, and no more.
            self.sink.write(("\r\n".join(good.select(numbered).to_series().to_list()) + "\r\n").encode())
        broken = found.filter(~pl.col("sound")).with_columns(rule=_reason(self.options, self.width))
        if broken.height:
            rows_out = broken.with_columns(pl.col("text").str.replace_all(MARK, "", literal=True))
            self.rejects.append(
                rejects_of(
                    self.file,
                    [
                        (row, f"line {line}", rule, text)
                        for row, line, rule, text in rows_out.select(
                            "row", "line_no", "rule", "text"
                        ).iter_rows()
                    ],
                )
            )


def _joined(marked: pl.DataFrame) -> pl.DataFrame:
    """(line_no, text) of each ``record``: its lines as one text, without the end of the last."""
    texts = pl.col("text").str.join("\n", ignore_nulls=False)
    return (
        marked.group_by("record", maintain_order=True)
        .agg(pl.col("line_no").first(), texts)
        .select("line_no", _ENDED)
    )


def judged(texts: pl.DataFrame, options: CsvOptions, width: int) -> pl.DataFrame:
    """``texts`` with ``sound``: is the text exactly one record of ``width`` fields? A loose one is rewritten in ``text``.

    Most are told by their delimiters and quotes alone. A loose record has a quote within a field that does not
    begin with one (``6" pipe``): there it is a character like any other, and the clean file gets it quoted.
    """
    text, quote = pl.col("text"), options.quote
    decoded = ~text.str.contains(MARK, literal=True)
    if quote is None:
        return texts.with_columns(sound=decoded & (_fields(text, options) == width))
    mark, delimiter = re.escape(quote), re.escape(options.delimiter)
    bare = text.str.replace_all(f"{mark}[^{mark}]*{mark}", _QUOTED)
    strict = ~bare.str.contains(f"{mark}|[^{_QUOTED}{delimiter}]{_QUOTED}|{_QUOTED}[^{_QUOTED}{delimiter}]")
    sound = decoded & strict & (_fields(bare, options) == width)
    found = texts.with_columns(sound=sound, loose=~sound & decoded & text.str.contains(quote, literal=True))
    if not found["loose"].any():
        return found.drop("loose")
    rewritten = [
        _requoted(text, options, width) if loose else None
        for text, loose in found.select("text", "loose").iter_rows()
    ]
    return (
        found.with_columns(rewritten=pl.Series(rewritten, dtype=pl.String))
        .with_columns(
            sound=pl.col("sound") | pl.col("rewritten").is_not_null(), text=pl.coalesce("rewritten", "text")
        )
        .drop("loose", "rewritten")
    )


def _requoted(text: str, options: CsvOptions, width: int) -> str | None:
    """The record with every field quoted; None when it is no record of ``width`` fields."""
    assert options.quote is not None
    # To this reader a carriage return ends a record wherever it stands; in a file it is a character like any other.
    lines = io.StringIO(text.replace("\r", _RETURN), newline="")
    try:
        rows = list(csv.reader(lines, delimiter=options.delimiter, quotechar=options.quote, strict=True))
    except csv.Error:
        return None
    if len(rows) != 1 or len(rows[0]) != width:
        return None
    quote = options.quote
    requoted = (f"{quote}{field.replace(quote, quote * 2)}{quote}" for field in rows[0])
    return options.delimiter.join(requoted).replace(_RETURN, "\r")


def _fields(text: pl.Expr, options: CsvOptions) -> pl.Expr:
    return text.str.count_matches(options.delimiter, literal=True) + 1


def _reason(options: CsvOptions, width: int) -> pl.Expr:
    text = pl.col("text")
    quote = re.escape(options.quote) if options.quote else None
    bare = text.str.replace_all(f"{quote}[^{quote}]*{quote}", "") if quote else text
    left_open = bare.str.contains(options.quote, literal=True) if options.quote else pl.lit(False)
    return (
        pl.when(text.str.contains(MARK, literal=True)).then(pl.lit(f"encoding: not {options.encoding}"))
        .when(left_open).then(pl.lit("csv: unclosed or misplaced quote"))
        .when(_fields(bare, options) < width).then(pl.lit("csv: too few fields"))
        .when(_fields(bare, options) > width).then(pl.lit("csv: too many fields"))
        .otherwise(pl.lit("csv: unclosed or misplaced quote"))
    )  # fmt: skip
