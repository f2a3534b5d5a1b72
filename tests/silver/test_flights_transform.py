"""Local clock readings become the instants that were meant."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse.silver.transforms.flights import nearest_instant, transform

ORDINARY = {
    "year": "2013", "month": "1", "day": "1", "dep_time": "517", "sched_dep_time": "515", "dep_delay": "2",
    "arr_time": "830", "sched_arr_time": "819", "arr_delay": "11", "carrier": "UA", "flight": "1545",
    "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "air_time": "227", "distance": "1400", "hour": "5",
    "minute": "15", "time_hour": "2013-01-01T10:00:00Z",
}  # fmt: skip


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def raw(*rows: dict[str, str]) -> pl.LazyFrame:
    """Rows as bronze has them: text, beside lineage."""
    full = [ORDINARY | row | {"_source_row": str(number)} for number, row in enumerate(rows)]
    return pl.LazyFrame(full, schema=dict.fromkeys(full[0], pl.String))


def flight(**changes: str) -> dict[str, Any]:
    return transform(raw(changes)).collect().row(0, named=True)


def test_a_flight_across_time_zones_departs_and_arrives_at_its_utc_instants() -> None:
    row = flight()
    assert row["flight_date"] == date(2013, 1, 1)
    assert row["sched_dep_at_utc"] == utc("2013-01-01T10:15")
    assert row["dep_at_utc"] == utc("2013-01-01T10:17")
    assert row["sched_arr_at_utc"] == utc("2013-01-01T14:19")
    assert row["arr_at_utc"] == utc("2013-01-01T14:30")
    assert (row["origin_tzone"], row["dest_tzone"]) == ("America/New_York", "America/Chicago")
    assert (row["is_cancelled"], row["is_diverted"]) == (False, False)


def test_a_flight_past_midnight_arrives_on_the_next_day() -> None:
    row = flight(
        dep_time="2353", sched_dep_time="2359", dep_delay="-6", arr_time="425", sched_arr_time="445", arr_delay="-20",
        dest="SJU", distance="1598", hour="23", minute="59", time_hour="2013-01-02T04:00:00Z",
    )  # fmt: skip
    assert row["dep_at_utc"] == utc("2013-01-02T04:53")
    assert row["sched_arr_at_utc"] == utc("2013-01-02T08:45"), (
        "Puerto Rico is an hour ahead of New York in winter"
    )
    assert row["arr_at_utc"] == utc("2013-01-02T08:25")


def test_a_departure_delayed_to_the_next_day_is_on_the_next_day() -> None:
    row = flight(dep_time="117", sched_dep_time="2100", dep_delay="257", time_hour="2013-01-02T02:00:00Z",
                 arr_time="NA", arr_delay="NA", air_time="NA")  # fmt: skip
    assert row["dep_at_utc"] == utc("2013-01-02T06:17")


def test_a_departure_delayed_by_more_than_a_day_keeps_its_day() -> None:
    row = flight(dep_time="641", sched_dep_time="900", dep_delay="1301", time_hour="2013-01-09T14:00:00Z",
                 arr_time="1242", sched_arr_time="1530", arr_delay="1272", dest="HNL", distance="4983")  # fmt: skip
    assert row["dep_at_utc"] == utc("2013-01-10T11:41")
    assert row["arr_at_utc"] == utc("2013-01-10T22:42")


def test_an_early_departure_before_midnight_is_on_the_evening_before() -> None:
    row = flight(dep_time="2350", sched_dep_time="5", dep_delay="-15", hour="0", minute="5",
                 time_hour="2013-01-02T05:00:00Z", arr_time="NA", arr_delay="NA", air_time="NA")  # fmt: skip
    assert row["dep_at_utc"] == utc("2013-01-02T04:50")


def test_2400_is_the_midnight_that_ends_the_day() -> None:
    row = flight(dep_time="2400", sched_dep_time="2359", dep_delay="1", time_hour="2013-01-02T04:00:00Z",
                 arr_time="2400", sched_arr_time="2358", arr_delay="2")  # fmt: skip
    assert row["dep_at_utc"] == utc("2013-01-02T05:00")
    assert row["arr_at_utc"] - row["sched_arr_at_utc"] == utc("2013-01-01T00:02") - utc("2013-01-01T00:00")


@pytest.mark.parametrize(
    ("expected", "meant"),
    [
        ("2013-11-03T05:20", "2013-11-03T05:30"),  # summer time's 1:30
        ("2013-11-03T06:20", "2013-11-03T06:30"),  # an hour later clocks read 1:30 again
    ],
)
def test_a_reading_that_the_autumn_change_repeats_is_the_one_nearest_to_the_expected(
    expected: str, meant: str
) -> None:
    frame = pl.LazyFrame({"hhmm": ["130"], "tz": ["America/New_York"], "expected": [utc(expected)]})
    found = frame.select(nearest_instant("hhmm", "tz", pl.col("expected"))).collect().item()
    assert found == utc(meant)


def test_a_reading_in_the_hour_that_spring_skips_comes_from_a_clock_not_yet_put_forward() -> None:
    """JetBlue 35 landed in Palm Beach at 2:03, 89 minutes late, when 2:03 did not exist: it was 3:03."""
    row = flight(
        dep_time="2319", sched_dep_time="2158", dep_delay="81", arr_time="203", sched_arr_time="34", arr_delay="89",
        dest="PBI", air_time="141", distance="1028", time_hour="2013-03-10T02:00:00Z",
    )  # fmt: skip
    assert row["arr_at_utc"] == utc("2013-03-10T07:03")


def test_a_cancelled_flight_has_no_actual_instants() -> None:
    row = flight(dep_time="NA", dep_delay="NA", arr_time="NA", arr_delay="NA", air_time="NA", tailnum="NA")
    assert row["is_cancelled"]
    assert not row["is_diverted"]
    assert row["dep_at_utc"] is None
    assert row["arr_at_utc"] is None
    assert row["sched_arr_at_utc"] == utc("2013-01-01T14:19")


def test_a_diverted_flight_arrives_at_the_first_such_reading_after_its_departure() -> None:
    row = flight(dep_time="1820", sched_dep_time="1815", dep_delay="5", time_hour="2013-01-01T23:00:00Z",
                 arr_time="30", sched_arr_time="2130", arr_delay="NA", air_time="NA")  # fmt: skip
    assert row["is_diverted"]
    assert row["arr_at_utc"] == utc("2013-01-02T06:30")


def test_spaces_and_decimals_are_read_as_the_contract_reads_them() -> None:
    row = flight(dep_time=" 517 ", dep_delay="2.0")
    assert row["dep_at_utc"] == utc("2013-01-01T10:17")


@pytest.mark.parametrize("reading", ["1275", "2401", "-5", "later", ""])
def test_a_reading_that_is_no_time_of_day_gives_no_instant_and_stays_as_it_came(reading: str) -> None:
    row = flight(dep_time=reading)
    assert row["dep_at_utc"] is None
    assert row["dep_hhmm"] == reading


def test_an_unknown_airport_has_no_time_zone_and_no_instant() -> None:
    row = flight(dest="QQQ")
    assert row["dest_tzone"] is None
    assert row["sched_arr_at_utc"] is None


def test_rows_keep_their_order_their_number_and_their_lineage_in_both_engines() -> None:
    many = raw(*({"dest": dest} for dest in ["IAH", "SJU", "HNL", "QQQ", "ANC", "LAX"] * 50))
    eager, streamed = transform(many).collect(), transform(many).collect(engine="streaming")
    assert eager["_source_row"].to_list() == [str(number) for number in range(300)]
    assert eager["dest"].to_list() == many.collect()["dest"].to_list()
    assert_frame_equal(eager, streamed)


def test_no_rows_in_no_rows_out_with_the_same_columns_and_types() -> None:
    empty = transform(raw({}).head(0)).collect()
    assert empty.height == 0
    assert empty.schema == transform(raw({})).collect().schema
