"""The time zone of every airport, by IATA code."""

from __future__ import annotations

from functools import cache


@cache
def zone_by_airport() -> dict[str, str]:
    """IATA code → IANA time zone of the world's airports (7,900), read once from the `airportsdata` package.

    The demo's own airports table does not do: it lacks San Juan, Ponce, Aguadilla and St. Thomas, to which
    7,602 flights go, and puts two airports of California and Arizona into Asia/Chongqing.
    """
    import airportsdata  # imported on use: reading its file costs 50 ms and a process may never need it

    return {code: airport["tz"] for code, airport in airportsdata.load("IATA").items() if airport["tz"]}
