"""Numbers in JSON that the fast reader would round or refuse, and how to tell them from long ones that it keeps.

It holds a number with a point or an exponent in 64 bits. 15 digits always survive that. 17 do where a program wrote its own
such number in full, as most do (``0.8444218515250481``); what a database wrote as a decimal may not (``1234567890123456.7``),
and of two numbers as short and as near the reader may write the other one (``0.5000076293945312``). So a long number is exact
when the reader gives the same digits again.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

import polars as pl

#: A line without it has no number whose digits have to be looked at. Within texts such numbers are found, too.
LONG = r"[0-9](?:\.?[0-9]){15}"
#: Every number with a point or an exponent; what is cut out of a text this way is a number as well.
FLOAT = r"(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)"
#: Refused or rounded whatever their digits: no integer of the fast reader, or an exponent of three digits.
EXTREME = r"(?:^|[^0-9.])[0-9]{19}|[0-9][eE][+-]?[0-9]{3}"
#: The longest integer that the fast reader surely takes.
_INTEGER_DIGITS = 18

#: Never rounded: integers of 18 digits, and numbers of 15 digits with a point (three forms cover those that are met).
SHORT_PATTERN = (
    r"-?(?:(?:0|[1-9][0-9]{0,17})|(?:(?:0|[1-9][0-9]{0,4})\.[0-9]{1,10}|[1-9][0-9]{0,8}\.[0-9]{1,6}"
    r"|[1-9][0-9]{0,11}\.[0-9]{1,3}|0|[1-9][0-9]{0,14})(?:[eE][+-]?[0-9]{1,2})?)"
)
#: Exact when ``are_exact`` says so of the line.
LONG_PATTERN = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?"


def are_exact(lines: pl.Expr) -> pl.Expr:
    """True for a line all of whose numbers with a point or an exponent keep their digits in the fast reader."""
    return lines.str.extract_all(FLOAT).list.eval(keeps_digits(pl.element())).list.all()


def keeps_digits(numbers: pl.Expr) -> pl.Expr:
    """True for a number, as text, that the fast reader gives back with the same digits: it is asked."""
    return _digits(numbers) == _digits(numbers.str.json_decode(pl.String()))


def _digits(numbers: pl.Expr) -> pl.Expr:
    mantissa = numbers.str.replace("[eE].*", "").str.replace(".", "", literal=True)
    return mantissa.str.strip_chars_start("0").str.strip_chars_end("0")


def is_exact(number: str) -> bool:
    """Whether the fast reader keeps every digit of one number."""
    if re.search(r"[eE][+-]?[0-9]{3}", number):
        return False
    if not re.search("[.eE]", number):
        return len(number.lstrip("-")) <= _INTEGER_DIGITS
    held, written = Decimal(float(number)), Decimal(number).normalize(Context(prec=len(number)))
    if Decimal(repr(float(number))) != written:
        return False
    # Half a unit of the last digit away, the next number is as near, and the reader's choice.
    exponent = written.as_tuple().exponent
    return isinstance(exponent, int) and abs(held - written) * 2 != Decimal(1).scaleb(exponent)
