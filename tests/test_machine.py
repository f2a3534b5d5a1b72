"""Limits of a container count, those of the groups above it as well, and what is not limited is the machine's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse import machine
from lakehouse.settings import load_settings

_PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A control group file system of its own, and a process in ``/job/step`` of it."""
    own = "4:cpu,cpuacct:/job/step\n3:memory:/job/step\n0::/job/step\n"
    read = Path.read_text
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, *a, **k: own if str(self) == "/proc/self/cgroup" else read(self, *a, **k),
    )
    for answer in (machine.memory_bytes, machine.cores):
        answer.cache_clear()
    yield tmp_path
    for answer in (machine.memory_bytes, machine.cores):
        answer.cache_clear()


def _say(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_without_limits_the_machine_is_the_limit(groups: Path) -> None:
    _say(groups / "job", "memory.max", "max\n")
    _say(groups / "job", "cpu.max", "max 100000\n")
    _say(groups / "memory" / "job", "memory.limit_in_bytes", "9223372036854771712\n")
    _say(groups / "cpu" / "job", "cpu.cfs_quota_us", "-1\n")
    _say(groups / "cpu" / "job", "cpu.cfs_period_us", "100000\n")
    assert machine.memory_bytes() == _PHYSICAL
    assert machine.cores() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("top", [("memory.max", ""), ("memory.limit_in_bytes", "memory")])
def test_the_least_memory_limit_above_the_process_counts(groups: Path, top: tuple[str, str]) -> None:
    name, controller = top
    _say(groups / controller / "job" / "step", name, str(3 << 30))
    _say(groups / controller / "job", name, str(2 << 30))
    assert machine.memory_bytes() == 2 << 30
    settings = load_settings()
    assert settings.memory_limit_bytes == 512 << 20
    assert settings.shared_by(2).memory_limit_bytes == 256 << 20


def test_a_large_machine_is_not_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 64 << 30)
    assert load_settings().memory_limit_bytes == 3 << 30
    assert load_settings(memory_limit="8GiB").memory_limit_bytes == 8 << 30


def test_half_a_core_is_one_and_one_and_a_half_are_two(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    _say(groups / "job" / "step", "cpu.max", "150000 100000\n")
    assert machine.cores() == 2
    machine.cores.cache_clear()
    _say(groups / "cpu" / "job", "cpu.cfs_quota_us", "50000\n")
    _say(groups / "cpu" / "job", "cpu.cfs_period_us", "100000\n")
    assert machine.cores() == 1


@pytest.mark.parametrize(
    ("gib", "limit", "set_already", "kept"),
    [(24, "", "", True), (4, "", "", False), (24, "2GiB", "", False), (24, "", "dirty_decay_ms:7", False)],
)
def test_freed_memory_is_kept_where_it_is_plenty_and_nobody_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, gib: int, limit: str, set_already: str, kept: bool
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: gib << 30)
    monkeypatch.setenv("_RJEM_MALLOC_CONF", set_already)
    if not set_already:
        monkeypatch.delenv("_RJEM_MALLOC_CONF")
    load_settings(memory_limit=limit).tune_process()
    assert ("dirty_decay_ms:5000" in os.environ.get("_RJEM_MALLOC_CONF", "")) is kept


@pytest.mark.parametrize(("threads", "set_already", "told"), [(3, "", "3"), (0, "", None), (3, "7", "7")])
def test_polars_is_told_of_the_threads_where_somebody_has_set_them(
    monkeypatch: pytest.MonkeyPatch, threads: int, set_already: str, told: str | None
) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", set_already)
    if not set_already:
        monkeypatch.delenv("POLARS_MAX_THREADS")
    load_settings(threads=threads).tune_process()
    assert os.environ.get("POLARS_MAX_THREADS") == told


def test_a_run_has_no_more_polars_threads_than_are_set(tmp_path: Path) -> None:
    code = (
        "from lakehouse.settings import load_settings; load_settings().tune_process(); "
        "import polars; print(polars.thread_pool_size())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "LAKEHOUSE_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "1"
