"""Files that arrive in a lake of the demo's pipelines."""

from __future__ import annotations

from pathlib import Path

from lakehouse.settings import Settings

AIRPORTS_HEADER = "faa,name,lat,lon,alt,tz,dst,tzone"


def land(settings: Settings, path: str, text: str) -> None:
    target = Path(settings.landing, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def bad_airports(rows: int) -> str:
    """A snapshot in which every airport lies at an impossible longitude."""
    lines = [f'Q{i:02d},"Nowhere {i}",10,999,5,-5,A,America/New_York' for i in range(rows)]
    return "\n".join([AIRPORTS_HEADER, *lines]) + "\n"


def one_more_flight(settings: Settings, carrier: str = "UA") -> None:
    source = next(Path(settings.landing, "flights").rglob("*.csv"))
    header, first, *_ = source.read_text().splitlines()
    day = (
        first.replace("2013-01-01", "2013-01-02")
        .replace("2013,1,1,", "2013,1,2,")
        .replace(",UA,", f",{carrier},")
    )
    land(settings, "flights/2013/01/flights_2013-01-02.csv", f"{header}\n{day}\n")
