"""Delta file statistics out of a Parquet footer, so that adopted files prune as well as written ones."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from lakehouse import names

#: Delta's own default; wider tables would swell the log.
MAX_COLUMNS = 32
#: Kept wherever they are: stages prune by them.
_ALWAYS = {*names.LINEAGE, names.VALID_FROM, names.VALID_TO}
_TEXT_LIMIT = 32


def footer_stats(footer: Any) -> dict[str, Any]:
    """numRecords, minValues, maxValues and nullCount of the top-level columns.

    Bounds are never too tight: texts are cut (minimum) or raised (maximum), timestamps rounded outwards to
    milliseconds, and a column with a doubtful bound in any row group has none.
    """
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    schema = footer.schema
    for index in range(footer.num_columns):
        column = schema.column(index)
        name = column.name
        if column.path != name or (index >= MAX_COLUMNS and name not in _ALWAYS):
            continue
        bounds = _column_bounds(footer, index)
        if bounds is None:
            continue
        null_count, minimum, maximum = bounds
        nulls[name] = null_count
        if minimum is not None and maximum is not None:
            low[name], high[name] = minimum, maximum
    return {"numRecords": footer.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}


def _column_bounds(footer: Any, index: int) -> tuple[int, Any, Any] | None:
    """(null count, minimum, maximum) over the row groups; None without a reliable null count."""
    null_count, minimum, maximum, bounded = 0, None, None, True
    for group in range(footer.num_row_groups):
        chunk = footer.row_group(group).column(index)
        stats = chunk.statistics
        if stats is None or not stats.has_null_count:
            return None
        null_count += stats.null_count
        if stats.null_count == chunk.num_values or not bounded:
            continue
        try:
            if not stats.has_min_max:
                raise ValueError
            here_low, here_high = (bound(value) for bound, value in zip(_BOUNDS, _ends(stats), strict=True))
        except (ValueError, OverflowError, UnicodeDecodeError):
            bounded = False
            continue
        minimum = here_low if minimum is None or here_low < minimum else minimum
        maximum = here_high if maximum is None or here_high > maximum else maximum
    return (null_count, minimum, maximum) if bounded else (null_count, None, None)


def rows_by_value(footer: Any, column: str) -> Counter[Any] | None:
    """How many rows of a file have each value of a column, where its footer alone tells: in each row group all rows have the
    same. None where it does not.
    """
    found: Counter[Any] = Counter()
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        chunk = next((chunk for chunk in chunks if chunk.path_in_schema == column), None)
        stats = None if chunk is None else chunk.statistics
        if stats is None or not (stats.has_null_count and stats.has_min_max) or stats.null_count:
            return None
        low, high = _ends(stats)
        if low != high:
            return None
        found[low] += group.num_rows
    return found


def _ends(stats: Any) -> tuple[Any, Any]:
    """Smallest and largest value. Instants are made of their raw numbers: PyArrow imports pandas to give them as such
    (0.2 s of CPU and 50 MiB of every process that writes).
    """
    logical = stats.logical_type
    if logical.type != "TIMESTAMP" or stats.physical_type != "INT64":
        return stats.min, stats.max
    kind = json.loads(logical.to_json())
    times, parts = _MICROSECONDS[kind["timeUnit"]]
    epoch = datetime(1970, 1, 1, tzinfo=UTC if kind["isAdjustedToUTC"] else None)
    # What is finer than a microsecond is rounded outwards.
    low, high = stats.min_raw * times // parts, -(-stats.max_raw * times // parts)
    return epoch + timedelta(microseconds=low), epoch + timedelta(microseconds=high)


#: The last of all characters.
_LAST = "\U0010ffff"
_FROM_THE_FIRST_RARE = r"(?s)[\x{10000}-\x{10FFFF}].*"
_RARE = re.compile("(?s)[\U00010000-\U0010ffff].*")


def stats_json(stats: dict[str, Any]) -> str:
    """As the log keeps statistics: characters as they are. The library reads an escaped U+20BB7 as U+10BB7, and others likewise
    (deltalake 1.6.6): a bound of which a key's file would not be found any more."""
    return json.dumps(stats, ensure_ascii=False)


def wide_texts(files: pl.DataFrame) -> list[pl.Expr]:
    """The files' greatest texts, never too low, also where their log has escaped characters.

    From the first character behind U+FFFF on nothing is sure, so the last of all takes its place. Least texts may be: what
    the library makes of such a character sorts before it.
    """
    greatest = [
        name for name, dtype in files.schema.items() if name.startswith("max.") and dtype == pl.String
    ]
    return [pl.col(name).str.replace(_FROM_THE_FIRST_RARE, _LAST) for name in greatest]


def wide_text(greatest: str) -> str:
    """The same of one text."""
    return _RARE.sub(_LAST, greatest, count=1)


def uris_in_range(files: pl.DataFrame, column: str, low: Any, high: Any) -> list[str]:
    """Of a version's files those that may hold a value of ``column`` in [low, high]; what has no statistics may.

    In Python, because a query over some files takes 0.3 ms, and a run asks six times a table.
    """
    uris = files["uri"].to_list()
    if f"min.{column}" not in files.columns:
        return uris
    bounds = zip(uris, files[f"min.{column}"].to_list(), files[f"max.{column}"].to_list(), strict=True)
    return [
        uri
        for uri, first, last in bounds
        if first is None or last is None or not (last < low or first > high)
    ]


def lower_bound(value: Any) -> Any:
    """What the log says of a smallest value: never more than it."""
    if isinstance(value, str):
        return value[:_TEXT_LIMIT]
    if isinstance(value, datetime):
        return _timestamp(value.replace(microsecond=value.microsecond // 1000 * 1000))
    return _exact(value)


def upper_bound(value: Any) -> Any:
    """What the log says of a largest value: never less than it."""
    if isinstance(value, str):
        if len(value) <= _TEXT_LIMIT or (len(value) == _TEXT_LIMIT + 1 and value[-1] == _LAST):
            return value  # or it was raised before
        if value[_TEXT_LIMIT] == _LAST:
            raise ValueError  # nothing of this length sorts behind it
        return value[:_TEXT_LIMIT] + _LAST  # it sorts behind whatever was cut off
    if isinstance(value, datetime):
        if value.microsecond % 1000:
            value = value.replace(microsecond=value.microsecond // 1000 * 1000) + timedelta(milliseconds=1)
        return _timestamp(value)
    return _exact(value)


def _timestamp(value: datetime) -> str:
    """ISO 8601 with milliseconds, in UTC where there is a zone (``strftime`` would write the year 1 as "1")."""
    if value.tzinfo is None:
        return value.isoformat(timespec="milliseconds")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _exact(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        raise ValueError
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError
        return value
    if isinstance(value, int):
        return value
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return (
            float(value) if -(2**53) < value < 2**53 and value == value.to_integral_value() else _no_bound()
        )
    raise ValueError


_BOUNDS = (lower_bound, upper_bound)
#: A tick of each unit of Parquet's, as a fraction.
_MICROSECONDS = {"milliseconds": (1_000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1_000)}


def _no_bound() -> Any:
    raise ValueError
