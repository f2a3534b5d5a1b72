"""The time zone and the place of every airport, by IATA code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import polars as pl

EARTH_RADIUS_MI = 3958.8


@cache
def zone_by_airport() -> dict[str, str]:
    """IATA code → IANA time zone of the world's airports (7,900), read once from the `airportsdata` package.

    The demo's own airports table does not do: it lacks San Juan, Ponce, Aguadilla and St. Thomas, to which
    7,602 flights go, and puts two airports of California and Arizona into Asia/Chongqing.
    """
    return {code: airport["tz"] for code, airport in _airports().items() if airport["tz"]}


@cache
def _airports() -> Mapping[str, Any]:
    import airportsdata  # imported on use: reading its file costs 50 ms and a process may never need it

    return airportsdata.load("IATA")


def great_circle_mi(origin: str, dest: str) -> pl.Expr:
    """Shortest way over the globe between the airports in two columns, statute miles; null for an unknown code."""
    first_lat, first_lon = _coordinate(origin, "lat"), _coordinate(origin, "lon")
    last_lat, last_lon = _coordinate(dest, "lat"), _coordinate(dest, "lon")
    haversine = ((last_lat - first_lat) / 2).sin() ** 2
    haversine += first_lat.cos() * last_lat.cos() * ((last_lon - first_lon) / 2).sin() ** 2
    return 2 * EARTH_RADIUS_MI * haversine.sqrt().arcsin()


def _coordinate(column: str, axis: str) -> pl.Expr:
    places = {code: float(airport[axis]) for code, airport in _airports().items()}
    return pl.col(column).replace_strict(places, default=None, return_dtype=pl.Float64).radians()
