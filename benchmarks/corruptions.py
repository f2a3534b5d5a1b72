"""The catalogue of corruptions: each kind takes one sound line of real data and spoils it at a known place.

A kind that does not apply to a row (the sign of a delay of 0 cannot be flipped) says so by returning None,
so that every spoilt line truly differs from a valid one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Fields = dict[str, str]
Change = Callable[[Fields, random.Random], Fields | None]
Spoil = Callable[[bytes, random.Random], list[bytes] | None]
#: refused: in quarantine. deduplicated: once in silver. warned: in silver, counted by a rule that warns.
#: reference: in silver, counted by the reference check. sometimes: no rule sees it for sure; measured, not counted.
Expect = Literal["refused", "deduplicated", "warned", "reference", "sometimes"]


@dataclass(frozen=True)
class Kind:
    """One kind of corruption. ``spoil`` gives the physical lines that stand in the place of a sound one."""

    table: str
    level: Literal["value", "line"]
    name: str
    spoil: Spoil
    expect: Expect = "refused"


def value(table: str, name: str, change: Change, expect: Expect = "refused") -> Kind:
    """A kind that changes values and leaves the line well-formed."""
    columns = COLUMNS[table]

    def spoil(line: bytes, rng: random.Random) -> list[bytes] | None:
        before = dict(zip(columns, line.decode().split(","), strict=True))
        changed = change(dict(before), rng)
        if changed is None or changed == before:
            return None
        return [",".join(f'"{v}"' if "," in v else v for v in changed.values()).encode()]

    return Kind(table, "value", name, spoil, expect)


def put(column: str, text: str) -> Change:
    """The same text in every spoilt row."""
    return lambda fields, rng: fields | {column: text}


def number(column: str, change: Callable[[float], float | None], form: str = "{:.0f}") -> Change:
    """A number changed; rows without it, or that the change leaves as they are, do not apply."""

    def apply(fields: Fields, rng: random.Random) -> Fields | None:
        if fields[column] == "NA":
            return None
        before = float(fields[column])
        after = change(before)
        return None if after is None or abs(after - before) < 1e-9 else fields | {column: form.format(after)}

    return apply


def swap(one: str, other: str) -> Change:
    """Two values in each other's place."""

    def apply(fields: Fields, rng: random.Random) -> Fields | None:
        if "NA" in (fields[one], fields[other]):
            return None
        return fields | {one: fields[other], other: fields[one]}

    return apply


def text(column: str, change: Callable[[str], str | None]) -> Change:
    """A text changed; missing values do not apply."""

    def apply(fields: Fields, rng: random.Random) -> Fields | None:
        after = None if fields[column] == "NA" else change(fields[column])
        return None if after is None else fields | {column: after}

    return apply


def missing(column: str) -> Change:
    """A value lost where there was one."""
    return text(column, lambda before: "NA")


def instant(shift: Callable[[datetime], datetime]) -> Callable[[str], str]:
    """Another hour in the same form."""
    form = "%Y-%m-%dT%H:%M:%SZ"
    return lambda before: shift(datetime.strptime(before, form)).strftime(form)  # noqa: DTZ007  the text says Z


def _local_hour(fields: Fields, rng: random.Random) -> Fields:
    shown = f"{fields['year']}-{int(fields['month']):02d}-{int(fields['day']):02d}T{int(fields['hour']):02d}:00:00Z"
    return fields | {"time_hour": shown}


def _on_cancelled(fields: Fields, rng: random.Random) -> Fields | None:
    return fields | {"air_time": "100"} if fields["dep_time"] == "NA" else None


def _transposed(digits: str) -> str | None:
    return None if len(digits) < 2 or digits[-1] == digits[-2] else digits[:-2] + digits[-1] + digits[-2]


def _other_airport(fields: Fields, rng: random.Random) -> Fields | None:
    far, near = ("LAX", 2475), ("BOS", 187)
    code, distance = far if int(fields["distance"]) < 1000 else near
    return fields | {"dest": code} if abs(int(fields["distance"]) - distance) > 50 else None


def _other_digit(digits: str) -> str:
    return digits[:-1] + str((int(digits[-1]) + 1) % 10)


COLUMNS = {
    "flights": [
        "year",
        "month",
        "day",
        "dep_time",
        "sched_dep_time",
        "dep_delay",
        "arr_time",
        "sched_arr_time",
        "arr_delay",
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "air_time",
        "distance",
        "hour",
        "minute",
        "time_hour",
    ],
    "weather": [
        "origin",
        "year",
        "month",
        "day",
        "hour",
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "wind_gust",
        "precip",
        "pressure",
        "visib",
        "time_hour",
    ],
}

_F, _W = "flights", "weather"

FLIGHTS = [
    value(_F, "text in a number (dep_delay)", put("dep_delay", "late")),
    value(_F, "letter O for zero (distance)", text("distance", lambda v: v.replace("0", "O") if "0" in v else None)),
    value(_F, "trailing garbage in a number (air_time)", text("air_time", lambda v: v + "x")),
    value(_F, "decimal comma (distance)", text("distance", lambda v: v + ",0")),
    value(_F, "spreadsheet error (arr_time)", text("arr_time", lambda v: "#REF!")),
    value(_F, "NUL byte in a number (flight)", text("flight", lambda v: v[:1] + "\x00" + v[1:])),
    value(_F, "number overflows its type (flight)", put("flight", "3000000000")),
    value(_F, "number out of range (flight = 0)", put("flight", "0")),
    value(_F, "negative number (distance)", number("distance", lambda v: -v)),
    value(_F, "clock reading of 25 hours (dep_time)", text("dep_time", lambda v: "2517")),
    value(_F, "clock reading of 75 minutes (sched_arr_time)", put("sched_arr_time", "1275")),
    value(_F, "month 13", put("month", "13")),
    value(_F, "30 February", lambda f, r: f | {"month": "2", "day": "30"}),
    value(_F, "impossible instant (time_hour)", text("time_hour", lambda v: v[:5] + "02-30" + v[10:])),
    value(_F, "instant in another form (time_hour)", text("time_hour", lambda v: f"{v[5:7]}/{v[8:10]}/{v[:4]} {v[11:16]}")),
    value(_F, "date one day off (day)", number("day", lambda v: v - 1 if v > 1 else None)),
    value(_F, "instant one hour off (time_hour)", text("time_hour", instant(lambda t: t + timedelta(hours=1)))),
    value(_F, "instant one day off (time_hour)", text("time_hour", instant(lambda t: t + timedelta(days=1)))),
    value(_F, "local time given as UTC (time_hour)", _local_hour),
    value(_F, "required value missing (carrier)", put("carrier", "NA")),
    value(_F, "required value empty (origin)", put("origin", "")),
    value(_F, "key missing (flight)", put("flight", "NA")),
    value(_F, "required number missing (distance)", put("distance", "NA")),
    value(_F, "unknown code of a fixed set (origin)", put("origin", "XXX")),
    value(_F, "lower-case code (dest)", text("dest", str.lower)),
    value(_F, "code that no airport has (dest)", put("dest", "QQQ")),
    value(_F, "mojibake (carrier)", put("carrier", "Ã¼A")),
    value(_F, "full-width digits (distance)", text("distance", lambda v: "".join(chr(0xFF10 + int(d)) for d in v))),
    value(_F, "origin and destination swapped", swap("origin", "dest")),
    value(_F, "another airport's code (dest)", _other_airport),
    value(_F, "hours for minutes (air_time)", number("air_time", lambda v: round(v / 60))),
    value(_F, "seconds for minutes (air_time)", number("air_time", lambda v: v * 60)),
    value(_F, "kilometres for miles (distance)", number("distance", lambda v: round(v * 1.609344))),
    value(_F, "one digit too many (distance)", text("distance", lambda v: v + "0")),
    value(_F, "sign flipped (dep_delay)", number("dep_delay", lambda v: -v)),
    value(_F, "sign flipped (arr_delay)", number("arr_delay", lambda v: -v)),
    value(_F, "hours for minutes (dep_delay)", number("dep_delay", lambda v: round(v / 60))),
    value(_F, "columns swapped (dep_time, arr_time)", swap("dep_time", "arr_time")),
    value(_F, "columns swapped (dep_delay, arr_delay)", swap("dep_delay", "arr_delay")),
    value(_F, "columns swapped (sched_dep_time, dep_time)", swap("sched_dep_time", "dep_time")),
    value(_F, "digits transposed (dep_time)", text("dep_time", _transposed)),
    value(_F, "digits transposed (arr_time)", text("arr_time", _transposed)),
    value(_F, "departed without a delay (dep_delay missing)", missing("dep_delay")),
    value(_F, "flown without an arrival (arr_time missing)", lambda f, r: None if f["air_time"] == "NA" else f | {"arr_time": "NA"}),
    value(_F, "arrived without time in the air (air_time missing)", missing("air_time")),
    value(_F, "cancelled, and yet in the air (air_time)", _on_cancelled),
    value(_F, "orphan key (carrier that is in no table)", put("carrier", "ZZ"), "reference"),
    value(_F, "trailing garbage in a register number (tailnum)", text("tailnum", lambda v: v + "Â"), "warned"),
    value(_F, "another flight number", text("flight", _other_digit), "sometimes"),
    value(_F, "another aircraft (tailnum)", text("tailnum", lambda v: "N14228"), "sometimes"),
]  # fmt: skip


def _cut(line: bytes, rng: random.Random) -> list[bytes]:
    return [line[: rng.randrange(5, line.rfind(b","))]]


def _split(line: bytes, rng: random.Random) -> list[bytes]:
    at = rng.randrange(4, len(line) - 25)
    return [line[:at], line[at:]]


def _drop_field(line: bytes, rng: random.Random) -> list[bytes]:
    fields = line.split(b",")
    del fields[rng.randrange(len(fields))]
    return [b",".join(fields)]


def _insert_field(line: bytes, rng: random.Random) -> list[bytes]:
    fields = line.split(b",")
    fields.insert(rng.randrange(len(fields)), b"7")
    return [b",".join(fields)]


def _rotate(line: bytes, rng: random.Random) -> list[bytes]:
    fields = line.split(b",")
    return [b",".join(fields[1:] + fields[:1])]


def line(table: str, name: str, spoil: Spoil, expect: Expect = "refused") -> Kind:
    """A kind that breaks the line itself."""
    return Kind(table, "line", name, spoil, expect)


LINES = [
    line(_F, "field lost", _drop_field),
    line(_F, "field inserted", _insert_field),
    line(_F, "fields shifted by one", _rotate),
    line(_F, "line cut short", _cut),
    line(_F, "line broken in two", _split),
    line(_F, "line with more behind it", lambda b, r: [b + b",,"]),
    line(_F, "garbage behind the last field", lambda b, r: [b + b";\xc2\xa4\xc2\xa4"]),
    line(_F, "unclosed quote", lambda b, r: [b.replace(b",", b',"', 9).replace(b',"', b",", 8)]),
    line(_F, "quote closed too early", lambda b, r: [b'"' + b[:2] + b'"' + b[2:]]),
    line(_F, "another delimiter", lambda b, r: [b.replace(b",", b";")]),
    line(_F, "byte that is no UTF-8", lambda b, r: [b[:-1] + b"\xe9"]),
    line(_F, "run of NUL bytes", lambda b, r: [b"\x00" * len(b)]),
    line(_F, "header in the midst of the rows", lambda b, r: [",".join(COLUMNS[_F]).encode(), b]),
    line(_F, "every field empty", lambda b, r: [b"," * b.count(b",")]),
    line(_F, "row twice in a file", lambda b, r: [b, b], "deduplicated"),
]  # fmt: skip

WEATHER = [
    value(_W, "Celsius for Fahrenheit (temp)", number("temp", lambda v: (v - 32) / 1.8, "{:.2f}")),
    value(_W, "temperature and dew point swapped", lambda f, r: swap("temp", "dewp")(f, r) if _apart(f, "temp", "dewp", 1.0) else None),
    value(_W, "share for percent (humid)", number("humid", lambda v: v / 100, "{:.4f}")),
    value(_W, "number out of range (humid = 130)", put("humid", "130")),
    value(_W, "sentinel for missing (temp = -999)", put("temp", "-999")),
    value(_W, "sentinel for missing (pressure = 9999)", put("pressure", "9999")),
    value(_W, "inches of mercury for hectopascals (pressure)", number("pressure", lambda v: v / 33.8639, "{:.2f}")),
    value(_W, "kilopascals for hectopascals (pressure)", number("pressure", lambda v: v / 10, "{:.2f}")),
    value(_W, "direction beyond 360 (wind_dir)", put("wind_dir", "999")),
    value(_W, "direction in words (wind_dir)", put("wind_dir", "NNW")),
    value(_W, "direction that no station reports (wind_dir)", number("wind_dir", lambda v: v + 3 if v < 357 else None)),
    value(_W, "knots for miles per hour (wind_speed)", number("wind_speed", lambda v: round(v / 1.15078) if v else None)),
    value(_W, "metres per second for miles per hour (wind_speed)", number("wind_speed", lambda v: v * 0.44704 if v else None, "{:.5f}")),
    value(_W, "gust weaker than the wind", lambda f, r: None if f["wind_gust"] == "NA" or float(f["wind_speed"]) <= 4 else f | {"wind_gust": "2.30156"}),
    value(_W, "negative amount (precip)", put("precip", "-0.01")),
    value(_W, "kilometres for miles (visib)", number("visib", lambda v: v * 1.609344 if v * 1.609344 > 10 else None, "{:.2f}")),
    value(_W, "hour one off (hour)", number("hour", lambda v: v + 1 if v < 23 else None)),
    value(_W, "observation between the hours (time_hour)", text("time_hour", lambda v: v[:14] + "30" + v[16:])),
    value(_W, "key missing (time_hour)", put("time_hour", "NA")),
    value(_W, "unknown station (origin)", put("origin", "PHL")),
    line(_W, "observation twice in a file", lambda b, r: [b, b], "deduplicated"),
    line(_W, "observation cut short", _cut),
    value(_W, "millimetres for inches (precip)", number("precip", lambda v: v * 25.4 if v else None, "{:.2f}"), "sometimes"),
    value(_W, "Celsius for Fahrenheit (dewp)", number("dewp", lambda v: (v - 32) / 1.8, "{:.2f}"), "sometimes"),
    value(_W, "temperature and humidity swapped", swap("temp", "humid"), "sometimes"),
]  # fmt: skip


def _apart(fields: Fields, one: str, other: str, least: float) -> bool:
    return "NA" not in (fields[one], fields[other]) and abs(float(fields[one]) - float(fields[other])) > least


KINDS = [*FLIGHTS, *LINES, *WEATHER]
