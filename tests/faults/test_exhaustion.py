"""Disk full, permission lost, the clock set back: a clear error, no damage, and the next run heals.

Each fault strikes a process of its own, which runs the real pipeline on a lake that has one delivery already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lakehouse.storage import Lake
from tests.faults import inventory, lab

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
#: Root ignores permissions; a process that gave up these two capabilities does not.
_WITHOUT_PRIVILEGE = (
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and shutil.which("setpriv")
    else []
)
#: Runs one delivery in a child; prints the error's class, its family and its text, or "ok".
_CHILD = """
import json, os, sys
from pathlib import Path
order = json.loads(sys.argv[1])
from tests.faults import lab
from lakehouse import errors
import lakehouse.bronze, lakehouse.silver, lakehouse.gold.build, lakehouse.gold.publish, tests.faults.contracts
import dbt.cli.main, dbt.adapters.duckdb, pyarrow.parquet, deltalake, obstore.store, tenacity
place = lab.Lab(Path(order["folder"]), order["root"], {})
if order.get("clock_back_s"):
    import datetime as module
    real = module.datetime
    class Earlier(real):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) - module.timedelta(seconds=order["clock_back_s"])
    for name, loaded in list(sys.modules.items()):
        if name.startswith("lakehouse") and getattr(loaded, "datetime", None) is real:
            loaded.datetime = Earlier
try:
    lab.run(place, order["delivery"])
    print(json.dumps(["ok", "", ""]))
except errors.LakehouseError as error:
    family = "transient" if isinstance(error, errors.TransientError) else "permanent"
    print(json.dumps([type(error).__name__, family, str(error)]))
"""


def _run(place: lab.Lab, delivery: int, **fault: Any) -> tuple[str, str, str]:
    order = {"folder": str(place.folder), "root": place.root, "delivery": delivery, **fault}
    done = subprocess.run(
        [*_WITHOUT_PRIVILEGE, sys.executable, "-c", _CHILD, json.dumps(order)],
        cwd=PROJECT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"an error that is not ours:\n{done.stderr[-4000:]}"
    name, family, text = json.loads(done.stdout.splitlines()[-1])
    return name, family, text


def _start(place: lab.Lab) -> dict[str, Any]:
    """One delivery published, the second one in the landing folder; what the lake must hold after it."""
    place.write_project()
    lab.arrive(place, 1)
    lab.run(place, 1)
    undisturbed = lab.Lab(place.folder, str(place.folder / "undisturbed"), {})
    shutil.copytree(place.root, undisturbed.root)
    lab.arrive(place, 2)
    lab.run(undisturbed, 2)
    expected = inventory.take(undisturbed)
    shutil.rmtree(place.folder / "catalog")
    shutil.rmtree(undisturbed.root)
    return expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(disk: Path, leave_bytes: int) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb") as file:
        file.write(b"x" * max(0, shutil.disk_usage(disk).free - leave_bytes))
    return ballast


def test_a_full_disk_is_a_clear_error_and_the_next_run_heals(small_disk: Path, tmp_path: Path) -> None:
    """Space ends a step later each time: plan, bronze, silver, gold, catalog."""
    place = lab.Lab(tmp_path, str(small_disk / "lake"), {})
    expected = _start(place)
    outcomes = []
    for leave_kib in (0, 12, 24, 48, 96):
        ballast = _fill(small_disk, leave_kib << 10)
        name, family, text = _run(place, 2)
        ballast.unlink()
        outcomes.append(name)
        if name != "ok":
            assert family == "permanent", text
            assert "free some disk space" in text
    assert outcomes.count("ok") < len(outcomes), "the disk was never full: the test shows nothing"
    assert _run(place, 2)[0] == "ok"
    assert inventory.differences(expected, inventory.take(place)) == []


def test_a_lost_permission_is_a_clear_error_and_the_next_run_heals(tmp_path: Path) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that from it")
    place = lab.Lab(tmp_path, str(tmp_path / "lake"), {})
    expected = _start(place)
    for lost in (
        "ops/batches",
        "bronze/orders",
        "quarantine/orders",
        "silver/prices",
        "gold/customers",
        "restore_points",
    ):
        with _read_only(Path(place.root, lost)):
            _, family, text = _run(place, 2)
        assert family == "permanent", f"{lost}: {text}"
        assert "permission denied" in text.lower()
        assert "check the permissions" in text
    assert _run(place, 2)[0] == "ok"
    assert inventory.differences(expected, inventory.take(place)) == []


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """As after somebody put a backup back: everything can be read, nothing can be written."""
    paths = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in paths:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755)


def test_a_clock_that_is_set_back_neither_loses_nor_doubles(tmp_path: Path) -> None:
    place = lab.Lab(tmp_path, str(tmp_path / "lake"), {})
    expected = _start(place)
    assert _run(place, 2, clock_back_s=90_000)[0] == "ok"
    before = Lake.from_settings(place.settings()).table("ops", "batches").snapshot().version
    assert _run(place, 2, clock_back_s=180_000)[0] == "ok"
    found = inventory.take(place)
    assert inventory.differences(expected, found) == []
    assert Lake.from_settings(place.settings()).table("ops", "batches").snapshot().version == before
