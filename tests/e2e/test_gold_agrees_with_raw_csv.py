"""Every number of gold, worked out again from the published CSV files with Python's standard library alone.

Nothing of the lakehouse takes part in the second calculation: no Polars, no DuckDB, no SQL, none of our code.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from statistics import fmean, median
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from tests.e2e.published_data import Flight, hour_key, published, published_flights

pytestmark = pytest.mark.slow

NEW_YORK = ZoneInfo("America/New_York")
# The airports' file lacks these four; St. Thomas and Puerto Rico keep Atlantic standard time all year.
ISLANDS = {"BQN", "PSE", "SJU", "STT"}
ABSURD_WIND = "1048.36058"
# It landed in Palm Beach at 2:03 on the night when 2:00 became 3:00: read from a clock that had not moved yet.
READ_IN_THE_SKIPPED_HOUR = {"20130310T02-B6-35": 303}


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    return published_flights()


@pytest.fixture
def gold(demo_lake: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """The analysts' catalog."""
    with duckdb.connect(str(demo_lake.catalog), read_only=True) as connection:
        yield connection


def rows_of(gold: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    result = gold.execute(sql)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def groups(flights: Iterable[Flight], key: Callable[[Flight], Any]) -> Mapping[Any, list[Flight]]:
    grouped = defaultdict(list)
    for flight in flights:
        grouped[key(flight)].append(flight)
    return grouped


def given(values: Iterable[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def mean_or_none(values: list[int]) -> float | None:
    return fmean(values) if values else None


def median_or_none(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(median(listed)) if listed else None


def ninetieth(values: list[int]) -> float | None:
    """The 90th percentile, between the two nearest values."""
    if not values:
        return None
    ordered, position = sorted(values), 0.9 * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def assert_same(actual: Mapping[str, Any], expected: Mapping[str, Any], where: object) -> None:
    for name, value in expected.items():
        if isinstance(value, float):
            tolerance = 0.005_000_1 if name.endswith("_pct") else 1e-9 * max(1.0, abs(value))
            assert actual[name] is not None, (where, name)
            assert abs(actual[name] - value) <= tolerance, (where, name, actual[name], value)
        else:
            assert actual[name] == value, (where, name)


def test_every_flight_is_in_the_fact_once_with_its_own_delays(
    gold: duckdb.DuckDBPyConnection, flights: list[Flight]
) -> None:
    fact = gold.execute(
        "select flight_id, flight_date, carrier, tailnum, origin, dest, weather_id, dep_delay_min, arr_delay_min,"
        " air_time_min, distance_mi, is_cancelled, is_diverted, is_arr_on_time from fct_flights order by flight_id"
    ).fetchall()
    expected = sorted(
        (
            f.key, f.day, f.carrier, f.tailnum, f.origin, f.dest, f.weather_key, f.dep_delay, f.arr_delay,
            f.air_time, f.distance, f.cancelled, f.diverted, f.on_time,
        )
        for f in flights
    )  # fmt: skip
    assert len(expected) == 336_776
    assert fact == expected


def test_every_instant_shows_the_published_reading_on_local_clocks(
    gold: duckdb.DuckDBPyConnection, flights: list[Flight]
) -> None:
    """Zones come from the published airports file, not from the directory that silver worked with."""
    zones = {row["faa"]: ZoneInfo(row["tzone"]) for row in published("airports") if row["tzone"] != "NA"}
    zones |= dict.fromkeys(ISLANDS, ZoneInfo("America/Puerto_Rico"))
    instants = {
        key: [moment and moment.replace(tzinfo=UTC) for moment in moments]
        for key, *moments in gold.execute(
            "select flight_id, sched_dep_at_utc, dep_at_utc, sched_arr_at_utc, arr_at_utc from fct_flights"
        ).fetchall()
    }

    def reading(moment: datetime, zone: ZoneInfo) -> int:
        local = moment.astimezone(zone)
        return local.hour * 100 + local.minute

    for f in flights:
        sched_dep, dep, sched_arr, arr = instants[f.key]
        zone = zones[f.dest]
        assert sched_dep == f.sched_dep, f
        assert reading(sched_arr, zone) == f.sched_arr_hhmm % 2400, f
        assert timedelta(minutes=45) < sched_arr - sched_dep < timedelta(hours=12), f
        assert (dep is None) == (f.dep_hhmm is None), f
        assert (arr is None) == (f.arr_hhmm is None), f
        if dep is not None:
            assert reading(dep, NEW_YORK) == f.dep_hhmm % 2400, f
            assert dep - sched_dep == timedelta(minutes=f.dep_delay), f
        if arr is not None:
            assert reading(arr, zone) == READ_IN_THE_SKIPPED_HOUR.get(f.key, f.arr_hhmm % 2400), f
            assert timedelta() < arr - dep < timedelta(days=1), f
        if f.arr_delay is not None:
            assert arr - sched_arr == timedelta(minutes=f.arr_delay), f
            # no flight of the year taxied for less than 5 minutes, or for 4 hours
            assert timedelta(minutes=5) <= arr - dep - timedelta(minutes=f.air_time) < timedelta(hours=4), f


def test_daily_airline_punctuality_agrees(gold: duckdb.DuckDBPyConnection, flights: list[Flight]) -> None:
    names = {row["carrier"]: row["name"] for row in published("airlines")}
    mart = {
        (row["flight_date"], row["carrier"]): row
        for row in rows_of(gold, "from mart_daily_airline_punctuality")
    }
    expected = groups(flights, lambda f: (f.day, f.carrier))
    assert mart.keys() == expected.keys()
    for key, of_day in expected.items():
        delays = given(f.arr_delay for f in of_day)
        dep_delays = given(f.dep_delay for f in of_day)
        cancelled = sum(f.cancelled for f in of_day)
        wanted = {
            "airline_name": names[key[1]],
            "scheduled_flights": len(of_day),
            "cancelled_flights": cancelled,
            "diverted_flights": sum(f.diverted for f in of_day),
            "arrived_flights": len(delays),
            "on_time_departures": sum(delay < 15 for delay in dep_delays),
            "on_time_arrivals": sum(delay < 15 for delay in delays),
            "dep_on_time_pct": share(sum(delay < 15 for delay in dep_delays), len(of_day)),
            "arr_on_time_pct": share(sum(delay < 15 for delay in delays), len(of_day)),
            "cancelled_pct": share(cancelled, len(of_day)),
            "avg_dep_delay_min": mean_or_none(dep_delays),
            "avg_arr_delay_min": mean_or_none(delays),
            "median_arr_delay_min": median_or_none(delays),
            "p90_arr_delay_min": ninetieth(delays),
            "late_arrival_minutes": sum(delay for delay in delays if delay > 0),
        }
        assert_same(mart[key], wanted, key)


def test_route_performance_agrees(gold: duckdb.DuckDBPyConnection, flights: list[Flight]) -> None:
    names = {row["faa"]: row["name"] for row in published("airports")}
    mart = {(row["origin"], row["dest"]): row for row in rows_of(gold, "from mart_route_performance")}
    gate_to_gate = dict(
        gold.execute("select flight_id, gate_to_gate_min from fct_flights where not is_diverted").fetchall()
    )
    expected = groups(flights, lambda f: (f.origin, f.dest))
    assert mart.keys() == expected.keys()
    for key, of_route in expected.items():
        delays = given(f.arr_delay for f in of_route)
        cancelled = sum(f.cancelled for f in of_route)
        flown = [(f.distance, f.air_time) for f in of_route if f.air_time is not None]
        wanted = {
            "dest_name": names.get(key[1], "unknown"),
            "distance_mi": max(f.distance for f in of_route),
            "airlines": len({f.carrier for f in of_route}),
            "scheduled_flights": len(of_route),
            "cancelled_flights": cancelled,
            "diverted_flights": sum(f.diverted for f in of_route),
            "arrived_flights": len(delays),
            "on_time_arrivals": sum(f.on_time for f in of_route),
            "arr_on_time_pct": share(sum(f.on_time for f in of_route), len(of_route)),
            "cancelled_pct": share(cancelled, len(of_route)),
            "median_air_time_min": median_or_none(minutes for _, minutes in flown),
            "median_gate_to_gate_min": median_or_none(given(gate_to_gate.get(f.key) for f in of_route)),
            "median_speed_mph": median_or_none(60 * miles / minutes for miles, minutes in flown),
            "avg_dep_delay_min": mean_or_none(given(f.dep_delay for f in of_route)),
            "avg_arr_delay_min": mean_or_none(delays),
            "median_arr_delay_min": median_or_none(delays),
            "p90_arr_delay_min": ninetieth(delays),
            "first_flight_date": min(f.day for f in of_route),
            "last_flight_date": max(f.day for f in of_route),
        }
        assert_same(mart[key], wanted, key)


def below(value: str, *bands: tuple[float, str], otherwise: str, inclusive: bool = False) -> str:
    """The first band whose limit lies above the value."""
    if value == "NA":
        return "not observed"
    measured = float(value)
    return next(
        (name for limit, name in bands if measured < limit or (inclusive and measured == limit)), otherwise
    )


def bands_of(hour: Mapping[str, str]) -> dict[str, str]:
    temperature = "freezing: up to 32 F" if hour["temp"] != "NA" and float(hour["temp"]) == 32 else below(
        hour["temp"], (32, "freezing: up to 32 F"), (60, "cool: 32 to 60 F"), (85, "warm: 60 to 85 F"),
        otherwise="hot: 85 F and more",
    )  # fmt: skip
    return {
        "temperature": temperature,
        "wind": below(
            hour["wind_speed"], (5, "calm: below 5 mph"), (15, "breeze: 5 to 15 mph"), (25, "windy: 15 to 25 mph"),
            otherwise="strong: 25 mph and more",
        ),
        "precipitation": below(
            hour["precip"], (0, "dry"), (0.1, "light: up to 0.10 in/h"), (0.3, "moderate: up to 0.30 in/h"),
            otherwise="heavy: over 0.30 in/h", inclusive=True,
        ),
        "visibility": below(
            hour["visib"], (1, "very poor: below 1 mi"), (3, "poor: 1 to 3 mi"), (10, "fair: 3 to 10 mi"),
            otherwise="clear: 10 mi",
        ),
    }  # fmt: skip


def test_delay_by_weather_agrees(gold: duckdb.DuckDBPyConnection, flights: list[Flight]) -> None:
    weather = {
        f"{hour_key(row['time_hour'])}-{row['origin']}": bands_of(row)
        for row in published("weather")
        if row["wind_speed"] != ABSURD_WIND
    }
    mart = {
        (row["origin"], row["factor"], row["band"]): row
        for row in rows_of(gold, "from mart_delay_by_weather")
    }
    expected: dict[tuple[str, str, str], list[Flight]] = defaultdict(list)
    unknown = dict.fromkeys(("temperature", "wind", "precipitation", "visibility"), "not observed")
    for f in flights:
        for factor, band in weather.get(f.weather_key, unknown).items():
            expected[(f.origin, factor, band)].append(f)
    assert mart.keys() == expected.keys()
    for key, of_band in expected.items():
        delays = given(f.dep_delay for f in of_band)
        late = sum(delay >= 15 for delay in delays)
        wanted = {
            "scheduled_flights": len(of_band),
            "cancelled_flights": len(of_band) - len(delays),
            "departed_flights": len(delays),
            "late_departures": late,
            "cancelled_pct": share(len(of_band) - len(delays), len(of_band)),
            "late_departure_pct": share(late, len(delays)),
            "avg_dep_delay_min": mean_or_none(delays),
            "median_dep_delay_min": median_or_none(delays),
            "p90_dep_delay_min": ninetieth(delays),
        }
        assert_same(mart[key], wanted, key)


def test_dimensions_hold_what_was_published_and_what_flights_add(
    gold: duckdb.DuckDBPyConnection, flights: list[Flight]
) -> None:
    published_planes = {row["tailnum"] for row in published("planes")}
    published_airports = {row["faa"] for row in published("airports")}
    flown_planes = {f.tailnum for f in flights if f.tailnum is not None}
    served = {f.dest for f in flights} | {f.origin for f in flights}

    planes = dict(gold.execute("select tailnum, is_known from dim_plane").fetchall())
    assert planes == {tailnum: tailnum in published_planes for tailnum in published_planes | flown_planes}

    refused = {"DVT", "EEN", "MYF"}  # positions outside the United States: in quarantine
    airports = dict(gold.execute("select airport, is_known from dim_airport").fetchall())
    known = published_airports - refused
    assert airports == {airport: airport in known for airport in known | served}

    airlines = dict(gold.execute("select carrier, airline_name from dim_airline").fetchall())
    assert airlines == {row["carrier"]: row["name"] for row in published("airlines")}

    days = gold.execute("select min(date_day), max(date_day), count(*) from dim_date").fetchone()
    assert days == (date(2013, 1, 1), date(2013, 12, 31), 365)


def test_weather_hours_are_the_published_ones_but_for_the_absurd_wind(
    gold: duckdb.DuckDBPyConnection,
) -> None:
    def value(text: str) -> float | None:
        return None if text == "NA" else float(text)

    expected = {
        f"{hour_key(row['time_hour'])}-{row['origin']}": tuple(
            value(row[name]) for name in ("temp", "wind_speed", "precip", "pressure", "visib")
        )
        for row in published("weather")
        if row["wind_speed"] != ABSURD_WIND
    }
    actual = {
        key: tuple(values)
        for key, *values in gold.execute(
            "select weather_id, temp_f, wind_speed_mph, precip_in, pressure_hpa, visibility_mi from dim_weather_hour"
        ).fetchall()
    }
    assert len(expected) == 26_114
    assert actual == expected


def test_the_known_orphans_are_kept_and_counted(
    gold: duckdb.DuckDBPyConnection, flights: list[Flight]
) -> None:
    def flights_with(condition: str, join: str) -> int:
        counted = gold.execute(f"select count(*) from fct_flights as f {join} where {condition}").fetchone()
        assert counted is not None
        return int(counted[0])

    assert flights_with("not p.is_known", "join dim_plane as p using (tailnum)") == 50_094
    assert flights_with("not a.is_known", "join dim_airport as a on f.dest = a.airport") == 7_602
    assert flights_with("w.weather_id is null", "left join dim_weather_hour as w using (weather_id)") == 1_556
    outcomes = dict(gold.execute("select arrival_outcome, count(*) from fct_flights group by all").fetchall())
    expected = Counter("cancelled" if f.cancelled else "diverted" if f.diverted else "ended" for f in flights)
    assert outcomes["cancelled"] == expected["cancelled"] == 8_255
    assert outcomes["diverted"] == expected["diverted"] == 1_175
