"""Flights: local clock readings become UTC instants.

The source gives departure and arrival as bare clock readings (`517` is 5:17, `2400` is midnight), local to
the airport, without a date. Only the scheduled departure hour is UTC. Every other instant is therefore found
from the reading and from an *expected* instant: of all moments at which the airport's clocks showed that
reading, the one nearest to the expected instant is the one that is meant. This settles the day (a flight past
midnight, a departure delayed to the next day, an early departure the evening before) and, in the hour that
an autumn clock change repeats, which of the two hours it was.
"""

from __future__ import annotations

import polars as pl

from lakehouse.silver.transforms.airport_zones import great_circle_mi, zone_by_airport

UTC_US = pl.Datetime("us", "UTC")

# A flight's scheduled length, by distance alone: 40 minutes plus 450 mph. Measured on all of 2013, the schedule
# lies from 74 minutes below to 107 minutes above it; the nearest reading is right up to 12 hours.
GROUND_MIN = 40.0
CRUISE_MILES_PER_MIN = 7.5

RENAMED = {
    "time_hour": "time_hour_utc",
    "sched_dep_time": "sched_dep_hhmm",
    "dep_time": "dep_hhmm",
    "sched_arr_time": "sched_arr_hhmm",
    "arr_time": "arr_hhmm",
    "dep_delay": "dep_delay_min",
    "arr_delay": "arr_delay_min",
    "air_time": "air_time_min",
    "distance": "distance_mi",
}
REPLACED = ("year", "month", "day", "hour", "minute")


def transform(raw: pl.LazyFrame) -> pl.LazyFrame:
    """One row in, one row out, in the same order.

    The source's columns take their names in the contract; added are `flight_date`, `origin_tzone`, `dest_tzone`,
    the four `*_at_utc` instants, `great_circle_mi`, `is_cancelled` and `is_diverted`. The source's values stay as they came (text),
    so that the contract, not this function, judges them: a value that is not a number gives null instants here
    and breaks `castable` there. `hour` and `minute` repeat `sched_dep_time` and are dropped.
    """
    zones = zone_by_airport()
    named = raw.rename(RENAMED).with_columns(
        flight_date=local_date(_number("year"), _number("month"), _number("day")),
        origin_tzone=pl.col("origin").replace_strict(zones, default=None, return_dtype=pl.String),
        dest_tzone=pl.col("dest").replace_strict(zones, default=None, return_dtype=pl.String),
    )
    departed = named.with_columns(sched_dep_at_utc=_scheduled_departure()).with_columns(
        dep_at_utc=nearest_instant(
            "dep_hhmm", "origin_tzone", pl.col("sched_dep_at_utc") + _minutes("dep_delay_min", missing=0)
        )
    )
    planned = departed.with_columns(
        sched_arr_at_utc=nearest_instant(
            "sched_arr_hhmm",
            "dest_tzone",
            pl.col("sched_dep_at_utc")
            + pl.duration(minutes=GROUND_MIN + _number("distance_mi") / CRUISE_MILES_PER_MIN),
        )
    )
    arrived = planned.with_columns(
        arr_at_utc=nearest_instant("arr_hhmm", "dest_tzone", _expected_arrival())
    ).with_columns(
        great_circle_mi=great_circle_mi("origin", "dest"),
        is_cancelled=pl.col("dep_at_utc").is_null(),
        is_diverted=pl.col("dep_at_utc").is_not_null() & _number("arr_delay_min").is_null(),
    )
    return arrived.drop(REPLACED)


def local_date(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> pl.Expr:
    """The date of three numbers; null for one that no calendar has (``pl.date`` raises, and with it the whole batch)."""
    return pl.format("{}-{}-{}", year, month, day).str.to_date("%Y-%m-%d", strict=False)


def _number(column: str) -> pl.Expr:
    """Read as the contract reads it: spaces around do not count, and 517.0 is 517."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return text.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)


def _minutes(column: str, *, missing: int | None = None) -> pl.Expr:
    number = _number(column)
    return pl.duration(minutes=number if missing is None else number.fill_null(missing))


def _scheduled_departure() -> pl.Expr:
    """The UTC hour that the source gives, plus the minute of the scheduled reading."""
    hour = pl.col("time_hour_utc").str.to_datetime(
        "%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC", strict=False
    )
    return hour + pl.duration(minutes=_number("sched_dep_hhmm") % 100)


def _expected_arrival() -> pl.Expr:
    """Schedule plus delay; for a diverted flight (it has no delay) the first such reading after departure.

    Twelve hours after departure is the middle of the 24 hours in which each reading occurs once.
    """
    on_schedule = pl.col("sched_arr_at_utc") + _minutes("arr_delay_min")
    return pl.coalesce(on_schedule, pl.col("dep_at_utc") + pl.duration(hours=12))


def nearest_instant(hhmm: str, tzone: str, expected: pl.Expr) -> pl.Expr:
    """The UTC instant nearest to `expected` at which clocks in `tzone` read `hhmm`; null when any is unknown.

    `2400` is midnight, like `0`. A reading in the hour that a spring clock change skips is taken as read from
    a clock that had not been put forward yet.
    """
    reading = _number(hhmm)
    is_reading = reading.is_between(0, 2400) & (reading % 100 < 60)
    return pl.struct(
        pl.when(is_reading).then(reading // 100 * 60 + reading % 100).alias("clock_min"),
        pl.col(tzone).alias("tzone"),
        expected.alias("expected"),
    ).map_batches(_nearest_by_zone, return_dtype=UTC_US, is_elementwise=True)


def _nearest_by_zone(batch: pl.Series) -> pl.Series:
    """Polars knows one time zone per column: each zone's rows are worked out together, then put back in order."""
    rows = batch.struct.unnest().with_row_index("_row")
    if rows.is_empty():
        return pl.Series([], dtype=UTC_US)
    found = [_nearest_in_zone(part) for part in rows.partition_by("tzone")]
    return pl.concat(found).sort("_row")["instant"]


def _nearest_in_zone(rows: pl.DataFrame) -> pl.DataFrame:
    tzone = rows["tzone"][0]
    if tzone is None:
        return rows.select("_row", instant=pl.lit(None, dtype=UTC_US))
    expected_local = pl.col("expected").dt.convert_time_zone(tzone).dt.replace_time_zone(None)
    half_day, day = pl.duration(hours=12), pl.duration(days=1)
    reading = expected_local.dt.truncate("1d") + pl.duration(minutes=pl.col("clock_min"))
    ahead = reading - expected_local
    local = (
        pl.when(ahead > half_day)
        .then(reading - day)
        .when(ahead < -half_day)
        .then(reading + day)
        .otherwise(reading)
    )

    def instant(at: pl.Expr, fold: str) -> pl.Expr:
        known = at.dt.replace_time_zone(tzone, ambiguous=fold, non_existent="null")  # type: ignore[arg-type]
        return known.dt.convert_time_zone("UTC")

    first, second = instant(local, "earliest"), instant(local, "latest")
    before_gap = instant(local - pl.duration(hours=1), "latest") + pl.duration(hours=1)
    nearest = (
        pl.when((second - pl.col("expected")).abs() < (first - pl.col("expected")).abs())
        .then(second)
        .otherwise(first)
    )
    return rows.select("_row", instant=pl.coalesce(nearest, before_gap).cast(UTC_US))
