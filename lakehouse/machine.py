"""What this process may use of its machine (memory and cores, as its container or service limits them), and how."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
#: How long Polars' allocator (jemalloc) keeps freed pages; its build gives them back within a second.
_KEEP = "dirty_decay_ms:5000,muzzy_decay_ms:5000"
#: Less memory than this is scarce: a process that keeps freed pages holds a fifth more at its peak.
_PLENTY_BYTES = 8 << 30


def keep_freed_memory() -> None:
    """Where memory is plenty, have Polars use freed memory again instead of giving it back at once.

    Works before Polars is imported, and in child processes; what the environment says already stays. Up to a sixth of
    a run's CPU time goes into fresh pages otherwise (docs/settings.md has the figures).
    """
    if memory_bytes() >= _PLENTY_BYTES:
        os.environ.setdefault("_RJEM_MALLOC_CONF", _KEEP)  # noqa: TID251  for the library, not read here


def limit_polars(threads: int) -> None:
    """Have Polars use so many threads, in this process, if it has not imported it, and in its children."""
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))  # noqa: TID251  for the library, not read here


@cache
def memory_bytes() -> int:
    """Physical memory, or the least of the limits that apply to this process."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = [folder / "memory.max" for folder in _own_folders("")]
    files += [folder / "memory.limit_in_bytes" for folder in _own_folders("memory")]
    return min([physical, *(limit for file in files for limit in _numbers(file)[:1])])


@cache
def cores() -> int:
    """Cores that this process may be scheduled on, or fewer where its share of their time is limited; at least 1."""
    shares = [_numbers(folder / "cpu.max") for folder in _own_folders("")]
    shares += [
        [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
        for folder in _own_folders("cpu")
    ]
    quotas = [-(-share[0] // share[1]) for share in shares if len(share) == 2 and share[0] > 0]
    return max(1, min([len(os.sched_getaffinity(0)), *quotas]))


def _own_folders(controller: str) -> Iterator[Path]:
    """This process's control group and those above it: of one controller (version 1), or of all ("", version 2)."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    top = _CGROUPS / controller
    for _, controllers, own in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controller in controllers.split(","):
            folder = Path(os.path.normpath(f"{top}/{own}"))
            while folder.is_relative_to(top):
                yield folder
                folder = folder.parent


def _numbers(file: Path) -> list[int]:
    """The numbers of a limit; none where it is not set ("max") or cannot be read."""
    try:
        words = file.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if all(word.lstrip("-").isdigit() for word in words) else []
