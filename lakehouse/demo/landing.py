"""Landing: files appear in the landing folder or bucket whole, once, byte for byte as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lakehouse.demo import source
from lakehouse.settings import Settings
from lakehouse.storage import Objects


@dataclass(frozen=True)
class Landed:
    """What one landing did. ``files`` and ``bytes`` count what was written, ``present`` what lay there."""

    files: int = 0
    bytes: int = 0
    present: int = 0

    def __add__(self, other: Landed) -> Landed:
        return Landed(self.files + other.files, self.bytes + other.bytes, self.present + other.present)


def land(settings: Settings, files: Mapping[str, bytes]) -> Landed:
    """Write every file that is not there yet; what is there is never touched.

    Each write is atomic, so that a sensor that looks meanwhile sees whole files only.
    """
    landing = Objects(settings.landing, settings.storage_options)
    folders = {path.split("/")[0] for path in files}
    there = {info.path for folder in folders for info in landing.list(f"{folder}/")}
    written = size = 0
    for path, content in files.items():
        if path in there:
            continue
        landing.write(path, content)
        written += 1
        size += len(content)
    return Landed(written, size, len(files) - written)


def land_everything(settings: Settings) -> Landed:
    """The whole year: 365 days of flights, 364 of weather, three snapshots. Landing again writes nothing."""
    total = Landed()
    for table in source.DAILY:
        total += land(settings, source.daily_files(table))
    return total + land(settings, source.snapshot_files())


def land_before(settings: Settings, before_utc: str) -> Landed:
    """What a source system had delivered before ``before_utc`` (ISO, on the hour)."""
    total = Landed()
    for table in source.DAILY:
        total += land(settings, source.daily_files(table, before_utc=before_utc))
    return total + land(settings, source.snapshot_files())
