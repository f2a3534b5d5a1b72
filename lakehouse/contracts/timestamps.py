"""Text to instants, dates and times. Every function is one attempt: null in, null out; unreadable, null out.

Text without an offset is read as UTC. Digits below the target's unit are cut off. Years are those of Python, 1 to 9999
in UTC: bounds of keys and statistics of tables are Python's values, and one year beyond would stop the table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, Literal

import polars as pl

Attempt = Callable[[pl.Expr], pl.Expr]

#: Date, optional time (T or spaces), optional seconds, optional fraction, optional zone.
_ISO = (
    r"^(\d{4}-\d{2}-\d{2})(?:(?:[Tt]|\s+)(\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?"
    r"\s*([Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?$"
)
#: Polars reads 31-01-24 as a day of the year 31. Earlier years than this must show their four digits (``_ISO``).
_SURELY_FOUR_DIGITS = 1000
#: The whole years that nanoseconds in 64 bits reach.
_NANOSECOND_DAYS = (date(1678, 1, 1), date(2261, 12, 31))


def instants(target: pl.Datetime) -> tuple[Attempt, ...]:
    """Attempts that read ISO 8601 text, the commonest spellings first.

    The formats of a fixed length take Polars' own parser: 0.06 s per million rows, but 0.25 s for texts that it does
    not fit, so each sees only texts of its length. The general ones take 0.25 s and 0.6 s, and see what is left.
    """
    unit = target.time_unit

    def exactly(format_: str, length: int | None = None) -> Attempt:
        def attempt(text: pl.Expr) -> pl.Expr:
            if length is not None:
                text = pl.when(text.str.len_bytes() == length).then(text)
            parsed = _parsed(text, format_, unit)
            return _in_zone(parsed, "%#z" in format_, target, _SURELY_FOUR_DIGITS)

        return attempt

    def any_iso(text: pl.Expr) -> pl.Expr:
        part = [text.str.extract(_ISO, group) for group in range(1, 6)]
        zone = part[4].str.replace("(?i)^(z|utc|gmt)$", "+00:00").fill_null("+00:00")
        canonical = pl.concat_str(
            part[0],
            pl.lit("T"),
            part[1].fill_null("00:00"),
            part[2].fill_null(":00"),
            part[3].str.replace(",", ".", literal=True).fill_null(""),
            zone,
        )
        parsed = _parsed(canonical, "%Y-%m-%dT%H:%M:%S%.f%#z", unit)
        return _in_zone(parsed, True, target)

    return (
        exactly("%Y-%m-%dT%H:%M:%SZ", 20),
        exactly("%Y-%m-%dT%H:%M:%S.%3fZ", 24),
        exactly("%Y-%m-%dT%H:%M:%S.%6fZ", 27),
        exactly("%Y-%m-%d %H:%M:%S", 19),
        exactly("%Y-%m-%dT%H:%M:%S%.f%#z"),
        any_iso,
    )


def _parsed(text: pl.Expr, format_: str, unit: Literal["ms", "us", "ns"]) -> pl.Expr:
    parsed = text.str.to_datetime(format_, time_unit=unit, strict=False, exact=True)
    return _in_nanoseconds(parsed, _parsed(text, format_, "us")) if unit == "ns" else parsed


def dates() -> tuple[Attempt, ...]:
    """Attempts that read ``2013-01-31``; a time of day is accepted only when it is midnight."""
    midnight = pl.Datetime("us")

    def iso(text: pl.Expr) -> pl.Expr:
        day = text.str.to_date("%Y-%m-%d", strict=False, exact=True)
        return in_years(day, pl.Date(), _SURELY_FOUR_DIGITS)

    def from_instant(text: pl.Expr) -> pl.Expr:
        instant = instants(midnight)[-1](text)
        day = instant.dt.date()
        return pl.when(day.cast(midnight) == instant).then(day)

    return (iso, from_instant)


def times() -> tuple[Attempt, ...]:
    """Attempts that read ``10:05:00``, with a fraction, or ``10:05``."""

    def by(format_: str) -> Attempt:
        return lambda text: text.str.to_time(format_, strict=False)

    return (by("%H:%M:%S"), by("%H:%M:%S%.f"), by("%H:%M"))


def between_instants(source: pl.Datetime | pl.Date, target: pl.Datetime) -> Attempt:
    """A date or an instant as another instant type; one without a zone is taken as UTC."""
    zone = source.time_zone if isinstance(source, pl.Datetime) else None

    def attempt(value: pl.Expr) -> pl.Expr:
        in_unit = value.cast(pl.Datetime(target.time_unit, zone), strict=False)
        if target.time_unit == "ns":
            in_unit = _in_nanoseconds(in_unit, value)
        return _in_zone(in_unit, zone is not None, target)

    return attempt


def in_years(value: pl.Expr, dtype: pl.Datetime | pl.Date, first: int = 1) -> pl.Expr:
    """The value where its year is between ``first`` and 9999 (UTC), else null.

    One look at both ends of each batch of rows. An expression that names the value twice would compute it twice, and to
    compare every value costs twice as much (measured).
    """
    ends: tuple[date, date] = date(first, 1, 1), date(9999, 12, 31)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns":  # they cannot be so far away
            return value
        zone = UTC if dtype.time_zone else None
        ends = datetime(first, 1, 1, tzinfo=zone), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=zone)
    low, high = (_literal(end, dtype) for end in ends)

    def kept(values: pl.Series) -> pl.Series:
        if _are_between(values, *ends):
            return values
        return values.zip_with(values.is_between(low, high), values.clear(values.len()))

    return value.map_batches(kept, dtype, is_elementwise=True)


def _are_between(values: pl.Series, first: Any, last: Any) -> bool:
    if values.null_count() == values.len():
        return True
    try:
        lowest: Any = values.min()
        highest: Any = values.max()
    except (ValueError, OverflowError):  # no value of Python's
        return False
    return bool(first <= lowest and highest <= last)


@cache  # a third of a millisecond each, and every column of every batch asks
def _literal(end: date, dtype: pl.Datetime | pl.Date) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        return pl.lit(end, dtype=pl.Datetime(dtype.time_unit, "UTC")).dt.convert_time_zone(dtype.time_zone)
    return pl.lit(end, dtype=dtype)


def _in_nanoseconds(value: pl.Expr, coarse: pl.Expr) -> pl.Expr:
    """Nanoseconds where they do not overflow, by the same instants in another unit: Polars lets them, silently."""
    return pl.when(coarse.dt.date().is_between(*_NANOSECOND_DAYS)).then(value)


def _in_zone(value: pl.Expr, aware: bool, target: pl.Datetime, first_year: int = 1) -> pl.Expr:
    utc: Literal["UTC"] = "UTC"
    zone = target.time_zone
    in_utc = value.dt.convert_time_zone(utc) if aware else value.dt.replace_time_zone(utc)
    in_utc = in_years(in_utc, pl.Datetime(target.time_unit, utc), first_year)
    if zone is None:
        return in_utc.dt.replace_time_zone(None)
    return in_utc if zone == utc else in_utc.dt.convert_time_zone(zone)
