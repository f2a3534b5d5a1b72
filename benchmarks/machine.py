"""What a figure means nothing without: the machine, the versions, and the code that was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def describe(packages: Sequence[str], others: Mapping[str, str]) -> dict[str, Any]:
    """Cores and memory that may be used, processor, versions, the code: what a number means nothing without.

    Args:
        others: package → interpreter of the environment that has it, for packages that this one has not.
    """
    from importlib import metadata

    from lakehouse.machine import cores, memory_bytes

    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cores": cores(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "processor": model,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages}
        | {name: _version_in(python, name) for name, python in others.items()},
        "code": _code(),
        "load_before": list(os.getloadavg()),
    }


def _version_in(python: str, package: str) -> str:
    ask = f"from importlib import metadata; print(metadata.version({package!r}))"
    return _answer(python, "-c", ask) or "unknown"


def _code() -> str:
    """The commit that was measured; ``-dirty`` where files differ from it."""
    return _answer("git", "describe", "--always", "--dirty", "--abbrev=10") or "unknown"


def _answer(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _lines(path: str) -> Iterator[str]:
    try:
        yield from Path(path).read_text().splitlines()
    except OSError:
        return
