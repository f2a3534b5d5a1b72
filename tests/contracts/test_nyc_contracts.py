"""The NYC contracts refuse what is wrong in the published data, keep what is merely odd, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from lakehouse.contracts import CompiledContract, compile_contract
from lakehouse.contracts.airlines import Airlines
from lakehouse.contracts.airports import Airports
from lakehouse.contracts.flights import Flights
from lakehouse.contracts.planes import Planes
from lakehouse.contracts.rules import ByPandera
from lakehouse.contracts.weather import Weather
from lakehouse.demo.source import read_table
from lakehouse.silver.transforms import flights, weather

pytestmark = pytest.mark.slow

ALL = [Airlines, Airports, Flights, Planes, Weather]

FLIGHT = {
    "year": "2013", "month": "1", "day": "1", "dep_time": "517", "sched_dep_time": "515", "dep_delay": "2",
    "arr_time": "830", "sched_arr_time": "819", "arr_delay": "11", "carrier": "UA", "flight": "1545",
    "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "air_time": "227", "distance": "1400", "hour": "5",
    "minute": "15", "time_hour": "2013-01-01T10:00:00Z",
}  # fmt: skip


def broken_rules(
    contract: CompiledContract, frame: pl.LazyFrame, transform: Callable[[pl.LazyFrame], pl.LazyFrame] | None
) -> dict[str, int]:
    """Rows at fault by rule, typed and transformed in the order of the silver stage."""
    typed = contract.type_columns(frame, null_markers=["NA"])
    if transform is not None:
        typed = contract.type_columns(transform(typed), null_markers=["NA"])
    counts = contract.count(contract.add_missing(typed))
    return {name: count for name, count in counts.broken.items() if count}


def published(table: str) -> pl.LazyFrame:
    frame = pl.read_csv(read_table(table), infer_schema=False).lazy()
    return (
        frame.with_columns(snapshot_date=pl.lit("2013-01-01"))
        if table in ("planes", "airports", "airlines")
        else frame
    )


@pytest.mark.parametrize(
    ("model", "transform", "expected"),
    [
        (Airlines, None, {}),
        (Airports, None, {"lon is in the United States": 3}),
        (Flights, flights.transform, {"tailnum matches '^N[0-9][0-9A-Z]{1,4}$'": 4}),
        (Planes, None, {}),
        (Weather, weather.transform, {"wind_speed_mph <= 253": 1}),
    ],
)
def test_of_the_published_data_exactly_the_known_rows_break_a_rule(
    model: type, transform: Callable[[pl.LazyFrame], pl.LazyFrame] | None, expected: dict[str, int]
) -> None:
    contract = compile_contract(model)
    assert broken_rules(contract, published(contract.name), transform) == expected


def test_an_odd_tail_number_warns_and_keeps_its_flight() -> None:
    contract = compile_contract(Flights)
    rule = next(rule for rule in contract.rules if rule.name.startswith("tailnum matches"))
    assert rule.on_failure == "warn"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"dep_delay": "soon"}, "castable(dep_delay_min)"),
        ({"dep_time": "1275"}, "dep_hhmm: minutes of the reading < 60"),
        ({"dep_time": "2500"}, "dep_hhmm <= 2400"),
        ({"dep_time": "518"}, "dep_at_utc - sched_dep_at_utc = dep_delay_min"),
        ({"arr_time": "831"}, "arr_at_utc - sched_arr_at_utc = arr_delay_min"),
        ({"dest": "BOS", "air_time": "500"}, "arr_at_utc - dep_at_utc >= air_time_min"),
        ({"dep_time": "NA", "dep_delay": "NA"}, "a cancelled flight has no arrival"),
        ({"dest": "EWR"}, "origin <> dest"),
        ({"dest": "QQQ"}, "not_null(dest_tzone)"),
        ({"day": "2"}, "flight_date and sched_dep_hhmm agree with time_hour_utc"),
        ({"time_hour": "2013-01-01T11:00:00Z"}, "flight_date and sched_dep_hhmm agree with time_hour_utc"),
        ({"distance": "0"}, "distance_mi > 0"),
        ({"carrier": "NA"}, "not_null(carrier)"),
    ],
)
def test_a_flight_that_contradicts_itself_is_named_by_rule(changes: dict[str, str], rule: str) -> None:
    broken = broken_rules(compile_contract(Flights), pl.LazyFrame([FLIGHT | changes]), flights.transform)
    assert rule in broken


def test_an_ordinary_flight_breaks_nothing() -> None:
    assert broken_rules(compile_contract(Flights), pl.LazyFrame([FLIGHT]), flights.transform) == {}


@pytest.mark.parametrize("model", ALL)
def test_every_rule_runs_as_a_polars_expression(model: type) -> None:
    assert [
        rule.name for rule in compile_contract(model).rules if isinstance(rule.predicate, ByPandera)
    ] == []


@pytest.mark.parametrize("model", ALL)
def test_every_column_is_described_and_has_a_sensitivity_of_its_own(model: type) -> None:
    for name, column in model.to_schema().columns.items():
        assert column.description, name
        assert "sensitivity" in (column.metadata or {}), name
