"""Is this installation able to work? Each examination looks at one thing and says what to do about it.

The only thing written is a small probe object below the root, which is removed again.
"""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from lakehouse.errors import LakehouseError
from lakehouse.settings import Settings
from lakehouse.storage import Lake
from lakehouse.storage.probe import broken_promises

State = Literal["ok", "warn", "fail"]
_MIN_FREE_BYTES = 5 << 30
_MAX_CLOCK_SKEW_S = 5.0


@dataclass(frozen=True)
class Finding:
    """What one examination found. ``next_step`` is empty when all is well."""

    what: str
    state: State
    detail: str
    next_step: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is known. An examination that breaks is a finding too."""
    for what, look in _EXAMINATIONS.items():
        try:
            yield look(settings)
        except LakehouseError as error:
            yield Finding(what, "fail", error.message, error.hint or "")
        except OSError as error:
            yield Finding(what, "fail", str(error), "check the folder's permissions and the disk")


def _python(settings: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        return Finding(
            "python", "fail", f"{version}; 3.11 or 3.12 is needed", "make setup PYTHON=/path/to/python3.11"
        )
    return Finding("python", "ok", version)


def _packages(settings: Settings) -> Finding:
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for text in metadata.requires("lakehouse") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, not {requirement.specifier}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), "make setup")
    return Finding("packages", "ok", f"{count} direct dependencies as declared")


def _storage(settings: Settings) -> Finding:
    """Write, list, and let several writers race for one name: what the commit protocol rests on."""
    objects = Lake.from_settings(settings).objects
    folder = "ops/.doctor/"
    broken = broken_promises(objects, folder)
    if broken:
        return Finding(
            "storage", "fail", f"{settings.root} must not hold a lake, commits would be lost: {'; '.join(broken)}",
            "use a store with conditional writes (S3, GCS, Azure, SeaweedFS, MinIO, a local disk)",
        )  # fmt: skip
    probe = f"{folder}{uuid.uuid4().hex}"
    started = time.monotonic()
    try:
        objects.write(probe, b"1")
        listed = next((info for info in objects.list(folder) if info.path == probe), None)
    finally:
        objects.delete(probe)
    if listed is None:
        return Finding(
            "storage", "fail", f"{settings.root} does not list what was just written",
            "use a store whose listings are consistent",
        )  # fmt: skip
    skew_s = abs((datetime.now(UTC) - listed.modified_at_utc).total_seconds()) - (time.monotonic() - started)
    if skew_s > _MAX_CLOCK_SKEW_S:
        return Finding(
            "storage", "warn", f"the store's clock and this machine's differ by {skew_s:.0f} s: lags will be wrong by that",
            "let both follow a time server",
        )  # fmt: skip
    return Finding(
        "storage",
        "ok",
        f"{settings.root}: written, listed, one winner in every race of writers, clocks agree",
    )


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(Path(settings.state_dir))).free
    text = f"{free / (1 << 30):.0f} GiB free at {settings.state_dir}"
    if free < _MIN_FREE_BYTES:
        return Finding("disk", "warn", text, "free some space: spilling and new versions need it")
    return Finding("disk", "ok", text)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _memory(settings: Settings) -> Finding:
    import psutil

    available, limit = psutil.virtual_memory().available, settings.memory_limit_bytes
    text = f"{available / (1 << 30):.1f} GiB available, a run may use {limit / (1 << 30):.1f} GiB"
    if available < limit:
        return Finding("memory", "warn", text, "lower LAKEHOUSE_MEMORY_LIMIT or free some memory")
    return Finding("memory", "ok", text)


def _declarations(settings: Settings) -> Finding:
    from lakehouse.pipelines import find_problems
    from lakehouse.pipelines.load import declaration_files

    problems = find_problems(settings)
    if problems:
        return Finding(
            "declarations",
            "fail",
            f"{len(problems)} problems, the first: {problems[0]}",
            "lakehouse validate",
        )
    return Finding("declarations", "ok", f"{len(declaration_files(settings.pipelines_dir))} pipelines")


def _models(settings: Settings) -> Finding:
    from lakehouse.gold.dbt_run import load_project

    project, _ = load_project(settings)
    return Finding("dbt project", "ok", f"parses; {len(project.models)} models")


def _catalog(settings: Settings) -> Finding:
    from lakehouse.gold.catalog import shown_point_id
    from lakehouse.gold.restore_points import current_point

    point = current_point(Lake.from_settings(settings))
    if point is None:
        return Finding("catalog", "ok", "nothing is published yet")
    if shown_point_id(settings) != point.id:
        return Finding(
            "catalog", "warn", f"{settings.catalog_path} does not show point {point.id}", "lakehouse run"
        )
    return Finding("catalog", "ok", f"{settings.catalog_path} shows point {point.id}")


def _restore_points(settings: Settings) -> Finding:
    from lakehouse.gold.restore_points import list_ids, lost_points

    lake = Lake.from_settings(settings)
    lost = lost_points(lake)
    if lost:
        return Finding(
            "restore points", "fail",
            f"{', '.join(lost)} cannot be read (a loss of power?): the newest other point counts as published, and "
            "maintenance removes no files",
            "put them back from a backup or remove them, then: lakehouse run",
        )  # fmt: skip
    return Finding("restore points", "ok", f"{len(list_ids(lake))}, each can be read")


def _hold(settings: Settings) -> Finding:
    from lakehouse import hold

    held = hold.current(Lake.from_settings(settings))
    if held is None:
        return Finding("runs", "ok", "nothing holds them back")
    return Finding("runs", "warn", f"held: {held.why}", held.next_step)


def _browser(settings: Settings) -> Finding:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Finding("browser", "ok", f"{path} (for the UI tests)")
    return Finding("browser", "ok", "none; only the UI tests need one, they are skipped without")


_EXAMINATIONS: dict[str, Callable[[Settings], Finding]] = {
    "python": _python,
    "packages": _packages,
    "storage": _storage,
    "disk": _disk,
    "memory": _memory,
    "declarations": _declarations,
    "dbt project": _models,
    "restore points": _restore_points,
    "catalog": _catalog,
    "runs": _hold,
    "browser": _browser,
}
