"""Reading broken text files: what is sound goes to a clean spool file, the rest becomes rejects.

Vectorised over lines. A line that is a whole record by itself (even quotes, the right number of fields) is
always taken as one: so an unclosed quote costs one record, not the rest of the file. Runs of other lines are
joined by quote parity into records with embedded newlines, and judged again as a whole.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lakehouse.connectors.base import REJECT_SCHEMA
from lakehouse.connectors.local import LocalFile

if TYPE_CHECKING:
    from lakehouse.pipelines.model import CsvOptions

#: A whole file that cannot be read is kept up to this many bytes; the source file itself is never touched.
RAW_LIMIT = 1 << 16


def reject_file(file: LocalFile, reason: str) -> pl.DataFrame:
    """One reject for a file that cannot be read at all, with its first bytes."""
    try:
        with open(file.path, "rb") as reader:
            raw = reader.read(RAW_LIMIT)
    except OSError as error:
        raw = str(error).encode()
    return _rejects(file, [None], [f"file of {file.size_bytes} bytes"], [[reason]], [_printable(raw)])


def _printable(raw: bytes) -> str:
    """Text that keeps every byte: UTF-8 where it is valid, ``\\xNN`` where it is not."""
    return raw.decode("utf-8", errors="backslashreplace")


def _rejects(
    file: LocalFile,
    rows: Sequence[int | None],
    positions: Sequence[str],
    rules: Sequence[list[str]],
    raws: Sequence[str],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "_source_file": [file.name] * len(rows),
            "_source_row": rows,
            "_source_position": positions,
            "_broken_rules": rules,
            "_raw": raws,
        },
        schema=REJECT_SCHEMA,
    )


def salvage_csv(
    file: LocalFile, options: CsvOptions, columns: Sequence[str], spool: Path
) -> tuple[Path, pl.DataFrame]:
    """(clean UTF-8 file without header whose first field is the row number, rejects)."""
    spool.mkdir(parents=True, exist_ok=True)
    clean = spool / f"{uuid.uuid4().hex}.csv"
    rejects = [pl.DataFrame(schema=REJECT_SCHEMA)]
    problems: list[str] = []
    line_number = 1
    row_number = 1
    carry = pl.DataFrame(schema=_LINE_SCHEMA)
    header_open = options.header
    with open(clean, "wb") as sink:
        for chunk in file.line_chunks(problems):
            lines, bad = _decode(chunk, options.encoding, line_number)
            line_number += lines.height
            rejects.append(_rejects(file, [None] * len(bad), *_columns_of(bad, "encoding", options.encoding)))
            lines = pl.concat([carry, lines])
            if header_open:
                lines, header_open = lines.slice(_header_lines(lines, options)), False
            records, carry = _records(lines, options, len(columns))
            row_number = _write(records, sink, rejects, file, options, len(columns), row_number)
        records, _ = _records(carry, options, len(columns), final=True)
        _write(records, sink, rejects, file, options, len(columns), row_number)
    if problems:
        rejects.append(_rejects(file, [None], [f"line {line_number}"], [[f"truncated: {problems[0]}"]], [""]))
    return clean, pl.concat(rejects)


_LINE_SCHEMA: dict[str, pl.DataType] = {"line_no": pl.Int64(), "text": pl.String()}


def _decode(chunk: bytes, encoding: str, first_line: int) -> tuple[pl.DataFrame, list[tuple[int, bytes]]]:
    """(lines as text, lines that the encoding cannot decode)."""
    if first_line == 1:
        chunk = chunk.removeprefix(b"\xef\xbb\xbf")
    raw = chunk.split(b"\n")
    if raw and raw[-1] == b"":
        raw.pop()
    numbers = range(first_line, first_line + len(raw))
    bad: list[tuple[int, bytes]] = []
    try:
        texts: list[str | None] = [*chunk.decode(encoding).split("\n")[: len(raw)]]
        if len(texts) != len(raw):  # multi-byte encodings: a newline byte need not be a newline
            raise UnicodeDecodeError(encoding, b"", 0, 1, "line structure")
    except UnicodeDecodeError:
        texts = []
        for number, line in zip(numbers, raw, strict=True):
            try:
                texts.append(line.decode(encoding))
            except UnicodeDecodeError:
                texts.append(None)
                bad.append((number, line))
    frame = pl.DataFrame({"line_no": numbers, "text": texts}, schema=_LINE_SCHEMA)
    return frame.with_columns(pl.col("text").str.strip_suffix("\r")), bad


def _columns_of(
    bad: list[tuple[int, bytes]], kind: str, detail: str
) -> tuple[list[str], list[list[str]], list[str]]:
    return (
        [f"line {number}" for number, _ in bad],
        [[f"{kind}: not {detail}"]] * len(bad),
        [_printable(line) for _, line in bad],
    )


def _header_lines(lines: pl.DataFrame, options: CsvOptions) -> int:
    """How many lines the header takes: a quoted column name may hold a newline."""
    open_quote = False
    for index, text in enumerate(lines["text"].head(1000).to_list()):
        if options.quote and text is not None and text.count(options.quote) % 2:
            open_quote = not open_quote
        if not open_quote:
            return index + 1
    return 1


def _records(
    lines: pl.DataFrame, options: CsvOptions, width: int, *, final: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(records: line_no, text, lines left for the next piece because their record may not be complete)."""
    if lines.is_empty():
        return lines, lines
    text = pl.col("text")
    whole = _is_sound(text, options, width)
    quotes = text.str.count_matches(options.quote or "\x00", literal=True).fill_null(0)
    marked = lines.with_columns(whole=whole, quotes=quotes).with_columns(
        run=(pl.col("whole") | pl.col("whole").shift(1, fill_value=True)).cum_sum()
    )
    # Within a run of lines that are no records by themselves, an odd number of quotes opens or closes one.
    opened = pl.col("quotes").cum_sum().over("run") - pl.col("quotes")
    marked = marked.with_columns(start=opened % 2 == 0).with_columns(record=pl.col("start").cum_sum())
    carry = lines.clear()
    if not final and not marked["whole"][-1]:
        last_run = marked["run"][-1]
        tail = marked.filter(pl.col("run") == last_run)
        if tail.height <= 10_000:
            carry = lines.tail(tail.height)
            marked = marked.head(marked.height - tail.height)
    records = (
        marked.group_by("record", maintain_order=True)
        .agg(pl.col("line_no").first(), pl.col("text").str.join("\n", ignore_nulls=False))
        .select("line_no", "text")
    )
    return records, carry


def _is_sound(text: pl.Expr, options: CsvOptions, width: int) -> pl.Expr:
    """True for a text that is exactly one record of ``width`` fields."""
    delimiter = re.escape(options.delimiter)
    if options.quote is None:
        return (text.str.count_matches(options.delimiter, literal=True) == width - 1).fill_null(False)
    quote = re.escape(options.quote)
    bare = text.str.replace_all(f"{quote}[^{quote}]*{quote}", "\x00")
    fields = bare.str.count_matches(options.delimiter, literal=True) == width - 1
    clean = ~bare.str.contains(f"{quote}|[^\x00{delimiter}]\x00|\x00[^\x00{delimiter}]")
    return (fields & clean).fill_null(False)


def _write(
    records: pl.DataFrame,
    sink: object,
    rejects: list[pl.DataFrame],
    file: LocalFile,
    options: CsvOptions,
    width: int,
    first_row: int,
) -> int:
    """Write sound records, collect the others; the next row number."""
    records = (
        records.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
        if width > 1
        else records.drop_nulls()
    )
    if records.is_empty():
        return first_row
    records = records.with_columns(
        row=pl.int_range(first_row, first_row + records.height, dtype=pl.Int64),
        sound=_is_sound(pl.col("text"), options, width),
    )
    sound = records.filter("sound")
    if sound.height:
        body = sound.select(pl.concat_str(pl.col("row").cast(pl.String), "text", separator=options.delimiter))
        sink.write(("\n".join(body.to_series().to_list()) + "\n").encode())  # type: ignore[attr-defined]
    broken = records.filter(~pl.col("sound"))
    if broken.height:
        bare = pl.col("text").str.replace_all(
            f"{options.quote or chr(0)}[^{options.quote or chr(0)}]*{options.quote or chr(0)}", ""
        )
        fields = bare.str.count_matches(options.delimiter, literal=True) + 1
        rule = (
            pl.when(bare.str.contains(options.quote or "\x00", literal=True) if options.quote else pl.lit(False))
            .then(pl.lit("csv: unclosed or misplaced quote"))
            .when(fields < width).then(pl.lit("csv: too few fields"))
            .when(fields > width).then(pl.lit("csv: too many fields"))
            .otherwise(pl.lit("csv: unclosed or misplaced quote"))
        )  # fmt: skip
        rejects.append(
            broken.select(
                pl.lit(file.name).alias("_source_file"),
                pl.col("row").alias("_source_row"),
                pl.format("line {}", "line_no").alias("_source_position"),
                pl.concat_list(rule).alias("_broken_rules"),
                pl.col("text").alias("_raw"),
            )
        )
    return first_row + records.height
