"""From any type to a contract's type, without losing or inventing anything.

A conversion is a chain of attempts. Each is a Polars expression: null in, null out; a value that it cannot
convert *exactly*, null out. The next attempt sees only values that the attempts before it left null, which is
free when nothing is left. What is null at the end and was not at the start is uncastable.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lakehouse.contracts import nested, timestamps
from lakehouse.contracts.timestamps import Attempt

#: Texts that a boolean column accepts, in any case. "on"/"off" are left out: they name states of devices.
TRUE_TEXTS = ("true", "t", "yes", "y", "1")
FALSE_TEXTS = ("false", "f", "no", "n", "0")

#: Above this, a 64-bit float no longer tells neighbouring whole numbers apart.
_EXACT_FLOAT = 2**53
#: So many digits more than a decimal's own tell that a text was rounded.
_ROOM_DIGITS = 20
#: What a few operations leave of a 64-bit float's last digits, as a share of its value (a step between two is 2.2e-16).
_FLOAT_ERROR = 2e-15


@dataclass(frozen=True)
class Conversion:
    """How values of one type become another. ``can_fail`` is false when every value has an exact counterpart."""

    attempts: tuple[Attempt, ...]
    can_fail: bool

    def __call__(self, value: pl.Expr) -> pl.Expr:
        """The whole chain as one expression (for values inside lists and structs; columns go in stages)."""
        result = self.attempts[0](value)
        for attempt in self.attempts[1:]:
            result = result.fill_null(attempt(pl.when(result.is_null()).then(value)))
        return result


def conversion(source: pl.DataType, target: pl.DataType) -> Conversion | None:
    """The conversion from ``source`` to ``target``; None when every value stays as it is."""
    if source == target:
        if isinstance(target, (pl.Datetime, pl.Date)):
            return Conversion((lambda value: timestamps.in_years(value, target),), can_fail=True)
        return None
    if isinstance(source, pl.Null):
        return Conversion((lambda value: value.cast(target),), can_fail=False)
    if isinstance(source, (pl.Categorical, pl.Enum)) and not isinstance(target, pl.String):
        from_text = conversion(pl.String(), target)
        assert from_text is not None  # the target is not text
        return Conversion((lambda value: from_text(value.cast(pl.String)),), can_fail=True)
    if isinstance(source, pl.String):
        return _from_text(target)
    if isinstance(target, (pl.String, pl.Categorical)):
        return _to_text(source, target)
    if isinstance(target, (pl.List, pl.Struct)):
        return Conversion((nested.reshaped(source, target, conversion),), can_fail=True)
    if isinstance(target, pl.Datetime) and isinstance(source, (pl.Datetime, pl.Date)):
        return Conversion((timestamps.between_instants(source, target),), can_fail=True)
    if isinstance(target, pl.Date) and isinstance(source, pl.Datetime):
        whole_days = _round_trip(source, target)
        return Conversion((lambda value: timestamps.in_years(whole_days(value), target),), can_fail=True)
    return _between_scalars(source, target)


def _from_text(target: pl.DataType) -> Conversion:
    """From trimmed, non-marker text."""
    attempts: tuple[Attempt, ...]
    if target.is_integer():
        attempts = (_cast(target), _whole_number(target))
    elif target.is_float():
        attempts = (_finite(target), _infinite(target))
    elif isinstance(target, pl.Decimal):
        attempts = (_exact_decimal(target),)
    elif isinstance(target, pl.Boolean):
        attempts = (_truth,)
    elif isinstance(target, pl.Datetime):
        attempts = timestamps.instants(target)
    elif isinstance(target, pl.Date):
        attempts = timestamps.dates()
    elif isinstance(target, pl.Time):
        attempts = timestamps.times()
    elif isinstance(target, (pl.List, pl.Struct)):
        attempts = (nested.from_json(target, conversion),)
    elif isinstance(target, pl.Categorical):
        return Conversion((_cast(target),), can_fail=False)
    else:
        attempts = (_cast(target) if _castable(pl.String(), target) else _never(target),)
    return Conversion(attempts, can_fail=True)


def _to_text(source: pl.DataType, target: pl.DataType) -> Conversion:
    if isinstance(source, (pl.List, pl.Struct)):
        return Conversion((nested.to_json(source, target),), can_fail=False)
    if isinstance(source, pl.Datetime):
        return Conversion((lambda value: value.dt.to_string("iso:strict").cast(target),), can_fail=False)
    if isinstance(source, pl.Binary):
        return Conversion(
            (lambda value: value.map_batches(_utf8, pl.String(), is_elementwise=True).cast(target),),
            can_fail=True,
        )
    return Conversion((_cast(target),), can_fail=False)


def _utf8(values: pl.Series) -> pl.Series:
    """Bytes as text; bytes that are no UTF-8 have none (Polars' cast raises on them, even a lenient one)."""
    return nested.by_halves(lambda part: part.cast(pl.String), values, pl.String())


def _between_scalars(source: pl.DataType, target: pl.DataType) -> Conversion:
    if isinstance(target, pl.Boolean) and source.is_numeric():
        return Conversion((lambda value: pl.when(value.is_in([0, 1])).then(value != 0),), can_fail=True)
    if isinstance(target, pl.Decimal) and source.is_float():
        return Conversion((_near_decimal(target),), can_fail=True)
    numbers = (source.is_numeric() or isinstance(source, pl.Boolean)) and target.is_numeric()
    if numbers and target.is_float():
        if source == pl.Float64 and target == pl.Float32:
            return Conversion((_narrow_float,), can_fail=True)
        digits = 24 if target == pl.Float32 else 53
        if source.is_integer() and max(map(abs, _bounds(source))) > 2**digits:
            return Conversion((_round_trip(source, target),), can_fail=True)
        return Conversion((_cast(target),), can_fail=False)
    if numbers:
        return Conversion((_round_trip(source, target),), can_fail=not _widens(source, target))
    # Anything else would need a guess (is this number seconds or milliseconds?): say so instead.
    return Conversion((_never(target),), can_fail=True)


def _cast(target: pl.DataType) -> Attempt:
    return lambda value: value.cast(target, strict=False)


def _never(target: pl.DataType) -> Attempt:
    """Nothing converts. Height comes from the value, so that the expression stays one per row."""
    return lambda value: pl.when(value.is_null() & value.is_not_null()).then(pl.lit(None, dtype=target))


def _round_trip(source: pl.DataType, target: pl.DataType) -> Attempt:
    """Casts that come back as the value they started from: no fraction, no overflow, no time of day lost."""

    def attempt(value: pl.Expr) -> pl.Expr:
        there = value.cast(target, strict=False)
        return pl.when(there.cast(source, strict=False) == value).then(there)

    return attempt


def _widens(source: pl.DataType, target: pl.DataType) -> bool:
    """Whether every integer (or boolean) of ``source`` fits ``target``."""
    if isinstance(source, pl.Boolean):
        return True
    if not (source.is_integer() and target.is_integer()):
        return False
    (low, high), (target_low, target_high) = _bounds(source), _bounds(target)
    return target_low <= low and high <= target_high


def _bounds(dtype: pl.DataType) -> tuple[int, int]:
    low, high = pl.select(low=dtype.min(), high=dtype.max()).row(0)  # type: ignore[attr-defined]
    return int(low), int(high)


def _whole_number(target: pl.DataType) -> Attempt:
    """``3.0`` and ``1e3`` as integers; ``3.7`` not, and nothing that a float cannot hold exactly."""

    def attempt(text: pl.Expr) -> pl.Expr:
        number = text.cast(pl.Float64, strict=False)
        exact = (number == number.floor()) & (number.abs() < _EXACT_FLOAT)
        return pl.when(exact).then(number).cast(target, strict=False)

    return attempt


def _finite(target: pl.DataType) -> Attempt:
    """A number or ``NaN``; ``1e400`` overflows to infinity and is left for the next attempt to refuse."""

    def attempt(text: pl.Expr) -> pl.Expr:
        number = text.cast(target, strict=False)
        return pl.when(~number.is_infinite()).then(number)

    return attempt


def _infinite(target: pl.DataType) -> Attempt:
    def attempt(text: pl.Expr) -> pl.Expr:
        meant = text.str.contains(r"(?i)^[+-]?inf(inity)?$")
        return pl.when(meant).then(text).cast(target, strict=False)

    return attempt


def _narrow_float(value: pl.Expr) -> pl.Expr:
    narrow = value.cast(pl.Float32)
    return pl.when(~(narrow.is_infinite() & value.is_finite())).then(narrow)


def _exact_decimal(target: pl.Decimal) -> Attempt:
    """Polars rounds text to the scale: compare with a reading at the widest scale to notice it."""
    wide = pl.Decimal(38, 38 - (target.precision - target.scale))
    # No type is wide enough to notice much beside these: there the digits are counted.
    is_widest = wide.scale - target.scale < _ROOM_DIGITS

    def attempt(text: pl.Expr) -> pl.Expr:
        value = text.cast(target, strict=False)
        exact = value.cast(wide) == text.cast(wide, strict=False)
        if is_widest:
            digits = text.str.extract(r"^[^.eE]*\.([0-9]*?)0*(?:[eE].*)?$", 1).str.len_bytes().fill_null(0)
            power = text.str.extract(r"[eE]\+?(-?[0-9]+)$", 1).cast(pl.Int64, strict=False).fill_null(0)
            is_zero = text.str.contains(r"^[+-]?[0.]*(?:[eE].*)?$")
            exact = exact & ((digits.cast(pl.Int64) - power <= target.scale) | is_zero)
        return pl.when(exact).then(value)

    return attempt


def _near_decimal(target: pl.Decimal) -> Attempt:
    """1.1 as a float is not 1.1: accept what differs by no more than a float's own error."""

    def attempt(value: pl.Expr) -> pl.Expr:
        decimal = value.cast(target, strict=False)
        error = (decimal.cast(pl.Float64) - value).abs()
        return pl.when(error <= _FLOAT_ERROR * value.abs()).then(decimal)

    return attempt


def _truth(text: pl.Expr) -> pl.Expr:
    lower = text.str.to_lowercase()
    return (
        pl.when(lower.is_in(TRUE_TEXTS)).then(pl.lit(True)).when(lower.is_in(FALSE_TEXTS)).then(pl.lit(False))
    )


def _castable(source: pl.DataType, target: pl.DataType) -> bool:
    try:
        pl.Series([None], dtype=source).cast(target, strict=False)
    except pl.exceptions.PolarsError:
        return False
    return True
