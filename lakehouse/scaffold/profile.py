"""What the columns of a frame are: type, nulls, null markers, values seen, and a key that would do."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from lakehouse.connectors.columns import clean_names
from lakehouse.scaffold.content import Content
from lakehouse.scaffold.key import propose_key
from lakehouse.scaffold.seen import describe_values
from lakehouse.scaffold.sniff import Format, Sniffed

#: Texts that people write for "no value". Each counts only where it keeps a column from having its type.
NULL_MARKERS = (
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "NULL",
    "null",
    "None",
    "none",
    "nil",
    "NaN",
    "nan",
    "\\N",
    "-",
    "--",
    "?",
    ".",
)
_FIRST_LOOK_ROWS = 2_000
_INTEGER = r"^-?(0|[1-9]\d{0,17})$"
# Whole numbers beyond 18 digits are identifiers: as floats they would lose their last digits.
_FLOAT = r"^-?((0|[1-9]\d{0,17})|(0|[1-9]\d*)?\.\d+)([eE][+-]?\d+)?$"
# Part numbers look like this (12E4). Programs that write numbers so give the exponent a sign or the others a point.
_MAYBE_CODE = r"^\d+[eE]\d+$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_TIMESTAMP = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?$"
TIMESTAMP = pl.Datetime("us", "UTC")
_MOST = 0.95


@dataclass(frozen=True)
class Column:
    """One column as proposed. ``source_name`` is the file's; ``seen`` says which values, ``note`` is a remark."""

    name: str
    dtype: pl.DataType
    nulls: int
    source_name: str
    seen: str | None = None
    markers: tuple[str, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Profile:
    """The whole proposal. ``key`` is empty when no columns identify a row.

    ``left_out`` are columns that bronze keeps and no contract may have.
    """

    columns: tuple[Column, ...]
    rows_seen: int
    rows: int | None
    complete: bool
    key: tuple[str, ...]
    null_markers: tuple[str, ...] | dict[str, tuple[str, ...]]
    assumptions: tuple[str, ...] = field(default=())
    left_out: tuple[str, ...] = ()


def profile(sniffed: Sniffed, content: Content, *, key: tuple[str, ...] = ()) -> Profile:
    """Type every column and find a key, unless ``key`` names one."""
    frame = content.frame
    named = list(zip(frame.columns, clean_names(frame.columns), strict=True))
    left_out = tuple(final for _, final in named if final.startswith("__"))
    columns = tuple(
        _column(frame[name], final, sniffed.format) for name, final in named if final not in left_out
    )
    markers = tuple(dict.fromkeys(marker for column in columns for marker in column.markers))
    texts = _text_columns_with(frame, columns, markers)
    notes = _marker_notes(columns, markers, texts)
    if left_out:
        notes.append(
            f"left out of the contract: {', '.join(left_out)} (names with two underscores in front belong to the "
            "lakehouse); bronze keeps them, and a transform can give them another name"
        )
    if not content.complete:
        seen = f"{frame.height:,} rows" + (f" of {content.rows:,}" if content.rows else "")
        notes.append(
            f"the types are the file's; values were looked at in {seen}"
            if sniffed.format == "parquet"
            else f"types were worked out from the first {seen}; rows that do not fit will be quarantined, not lost"
        )
    if not key:
        # Floats are measurements, and a column without a name holds the row numbers that pandas and R write, which begin
        # anew in every file: that none repeats says nothing.
        unnamed = _unnamed(sniffed, named)
        candidates = [
            c.source_name for c in columns if not c.nulls and not c.dtype.is_float() and c.name not in unnamed
        ]
        found = propose_key(sniffed, content, candidates)
        key = tuple(column.name for column in columns if column.source_name == found)
        notes.append(
            f"key: {key[0]} (filled and never repeated); --key changes it"
            if key
            else "no key: no single column looks like one, so every row is kept as it comes; --key a,b sets one"
        )
    # Where a text column has the same text, it may well be a value there (the name Na, the code of Namibia).
    declared = {column.name: column.markers for column in columns if column.markers} if texts else markers
    return Profile(
        columns, frame.height, content.rows, content.complete, key, declared, tuple(notes), left_out
    )


def _unnamed(sniffed: Sniffed, named: list[tuple[str, str]]) -> set[str]:
    """Columns that a header has no name for: they are called by their place."""
    if sniffed.dialect is None or not sniffed.dialect.header:
        return set()
    return {final for place, (_, final) in enumerate(named, start=1) if final == f"column_{place}"}


def _column(values: pl.Series, name: str, file_format: Format) -> Column:
    if values.dtype == pl.String:
        return _text_column(values, name, numbers=file_format == "csv")
    dtype, note = _storable(values.dtype)
    seen = describe_values(values.drop_nulls(), dtype, name)
    return Column(name, dtype, values.null_count(), values.name, seen, note=note)


def _text_column(values: pl.Series, name: str, *, numbers: bool) -> Column:
    """The narrowest type that every value fits; JSON's texts may become times, never numbers."""
    trimmed = values.str.strip_chars()
    filled = trimmed.filter((trimmed != "").fill_null(False))
    real = filled.filter(~filled.is_in(NULL_MARKERS))
    if real.is_empty():
        return Column(name, pl.String(), values.len() - filled.len(), values.name, note="no value seen yet")
    kinds = _KINDS if numbers else _TIME_KINDS
    dtype = next((dtype for dtype, pattern in kinds if _fits(real, pattern)), None)
    if dtype == pl.Float64() and _may_be_codes(real):
        dtype = None
    if dtype is None:
        seen = describe_values(filled, pl.String(), name)
        note = _text_note(real)
        codes = tuple(_used_markers(filled)) if note == _CODES else ()
        return Column(name, pl.String(), values.len() - filled.len(), values.name, seen, codes, note)
    used = _used_markers(filled)
    note = None
    if dtype == TIMESTAMP and not _fits(real.head(_FIRST_LOOK_ROWS), r"(Z|[+-]\d{2}:?\d{2})$"):
        note = "no time zone in the data: taken as UTC"
    seen = describe_values(real, dtype, name)
    return Column(name, dtype, values.len() - real.len(), values.name, seen, tuple(used), note)


def _used_markers(filled: pl.Series) -> pl.Series:
    return filled.filter(filled.is_in(NULL_MARKERS)).unique(maintain_order=True)


_CODES = "digits with leading zeros: kept as text"
_TIME_KINDS: tuple[tuple[pl.DataType, str], ...] = ((pl.Date(), _DATE), (TIMESTAMP, _TIMESTAMP))
_KINDS: tuple[tuple[pl.DataType, str], ...] = (
    (pl.Boolean(), r"^(?i:true|false)$"),
    (pl.Int64(), _INTEGER),
    (pl.Float64(), _FLOAT),
    *_TIME_KINDS,
)


def _fits(values: pl.Series, pattern: str) -> bool:
    """All values match; a look at the first rows settles most columns cheaply."""
    return bool(
        values.head(_FIRST_LOOK_ROWS).str.contains(pattern).all() and values.str.contains(pattern).all()
    )


def _may_be_codes(values: pl.Series) -> bool:
    """Some value is digits, an E and digits, and no value has a decimal point."""
    return bool(values.str.contains(_MAYBE_CODE).any() and not values.str.contains(".", literal=True).any())


def _text_note(values: pl.Series) -> str | None:
    head = values.head(_FIRST_LOOK_ROWS)
    if _share(head, r"^[+-]?0\d+$") > 0 and _share(head, r"^[+-]?\d+$") == 1:
        return _CODES
    if _share(values, _FLOAT) == 1 and _may_be_codes(values):
        return "digits with an E among them, as in 12E4: could be codes, kept as text"
    for kind, pattern in (("numbers", _FLOAT), ("dates", _DATE), ("times", _TIMESTAMP)):
        if _MOST <= (share := _share(values, pattern)) < 1:
            return f"{share:.1%} of the values are {kind}, the others are not: kept as text"
    if _share(head, r"^\d{1,2}[/.]\d{1,2}[/.]\d{2,4}") == 1:
        return "looks like dates, but day and month could be either: kept as text; docs/pipelines.md says how a transform reads it"
    if _share(head, r"^-?\d{1,3}([.,]\d{3})*[.,]\d+$") == 1:
        return "looks like numbers with separators: kept as text; docs/pipelines.md says how a transform reads it"
    return None


def _share(values: pl.Series, pattern: str) -> float:
    return float(values.str.contains(pattern).mean() or 0)  # type: ignore[arg-type]


def _storable(dtype: pl.DataType) -> tuple[pl.DataType, str | None]:
    """The nearest type that the tables keep, and what changes by it."""
    if isinstance(dtype, pl.Datetime):
        return TIMESTAMP, None if dtype.time_zone else "no time zone in the data: taken as UTC"
    if dtype in (pl.UInt8, pl.UInt16):
        return pl.Int32(), None
    if dtype in (pl.UInt32, pl.UInt64):
        return pl.Int64(), None
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return pl.String(), None
    if isinstance(dtype, pl.Null):
        return pl.String(), "no value seen yet"
    if isinstance(dtype, pl.Time | pl.Duration):
        return pl.String(), f"{dtype} has no counterpart in the tables: kept as text"
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_storable(dtype.inner)[0]), None  # type: ignore[arg-type]
    if isinstance(dtype, pl.Struct):
        return pl.Struct([pl.Field(item.name, _storable(item.dtype)[0]) for item in dtype.fields]), None  # type: ignore[arg-type]
    return dtype, None


def _text_columns_with(
    frame: pl.DataFrame, columns: tuple[Column, ...], markers: tuple[str, ...]
) -> dict[str, list[str]]:
    """Per marker the text columns in which it stands among other texts."""
    found = {}
    for marker in markers:
        names = [
            column.name
            for column in columns
            if frame[column.source_name].dtype == pl.String
            and column.dtype == pl.String
            and marker not in column.markers
            and bool((frame[column.source_name] == marker).any())
        ]
        if names:
            found[marker] = names
    return found


def _marker_notes(
    columns: tuple[Column, ...], markers: tuple[str, ...], texts: dict[str, list[str]]
) -> list[str]:
    notes = []
    for marker in markers:
        where = [column.name for column in columns if marker in column.markers]
        note = f"{marker!r} means no value in {', '.join(where[:4])}{' …' if len(where) > 4 else ''}"
        if marker in texts:
            note += f"; it stays a text in {', '.join(texts[marker])} (add it to null_markers if it means no value there)"
        notes.append(note)
    return notes
