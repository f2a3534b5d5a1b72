"""Text to instants, dates and times. Every function is one attempt: null in, null out; unreadable, null out.

Text without an offset is read as UTC. Digits below the target's unit are cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import polars as pl

Attempt = Callable[[pl.Expr], pl.Expr]

#: Date, optional time (T or spaces), optional seconds, optional fraction, optional zone.
_ISO = (
    r"^(\d{4}-\d{2}-\d{2})(?:(?:[Tt]|\s+)(\d{2}:\d{2})(:\d{2})?([.,]\d{1,9})?"
    r"\s*([Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?$"
)


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
            parsed = text.str.to_datetime(format_, time_unit=unit, strict=False, exact=True)
            return _in_zone(parsed, "%#z" in format_, target.time_zone)

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
        parsed = canonical.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", time_unit=unit, strict=False)
        return _in_zone(parsed, True, target.time_zone)

    return (
        exactly("%Y-%m-%dT%H:%M:%SZ", 20),
        exactly("%Y-%m-%dT%H:%M:%S.%3fZ", 24),
        exactly("%Y-%m-%dT%H:%M:%S.%6fZ", 27),
        exactly("%Y-%m-%d %H:%M:%S", 19),
        exactly("%Y-%m-%dT%H:%M:%S%.f%#z"),
        any_iso,
    )


def dates() -> tuple[Attempt, ...]:
    """Attempts that read ``2013-01-31``; a time of day is accepted only when it is midnight."""
    midnight = pl.Datetime("us")

    def iso(text: pl.Expr) -> pl.Expr:
        return text.str.to_date("%Y-%m-%d", strict=False, exact=True)

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
        return _in_zone(in_unit, zone is not None, target.time_zone)

    return attempt


def _in_zone(value: pl.Expr, aware: bool, zone: str | None) -> pl.Expr:
    utc: Literal["UTC"] = "UTC"
    in_utc = value.dt.convert_time_zone(utc) if aware else value.dt.replace_time_zone(utc)
    if zone is None:
        return in_utc.dt.replace_time_zone(None)
    return in_utc if zone == utc else in_utc.dt.convert_time_zone(zone)
