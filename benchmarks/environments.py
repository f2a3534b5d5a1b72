"""Virtual environments for contestants that the project itself does not install: dlt and Spark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_NEEDS = {"spark": "java"}


def environment(name: str) -> tuple[str, str | None]:
    """(interpreter, None) of ``environments/<name>.txt``, made below ``.make/`` at first; else (own, why it is absent)."""
    needed = _NEEDS.get(name)
    if needed and shutil.which(needed) is None:
        return sys.executable, f"there is no {needed} on this machine"
    requirements = ROOT / "benchmarks" / "environments" / f"{name}.txt"
    folder = ROOT / ".make" / "bench" / name
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if stamp.exists() and stamp.read_text() == requirements.read_text():
        return str(python), None
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes", "--no-deps",
         "--compile", "-r", str(requirements)],
    ]  # fmt: skip
    for step in steps:
        ended = subprocess.run(step, capture_output=True, text=True, check=False)
        if ended.returncode:
            reason = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            return sys.executable, f"its packages could not be installed: {reason[:200]}"
    stamp.write_text(requirements.read_text())
    return str(python), None
