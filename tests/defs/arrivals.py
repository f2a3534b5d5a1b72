"""Files that arrive in a lake of the demo's pipelines, and a process of its own that works on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lakehouse.settings import PROJECT_DIR, Settings

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


def in_a_process(settings: Settings, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program that finds its lake by the environment, as a scheduler would start it."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT_DIR,
        env={"LAKEHOUSE_ROOT": settings.root, "LAKEHOUSE_PIPELINES_DIR": settings.pipelines_dir},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
