"""Folders for what a process keeps on the local disk for a while.

They go with the process. Where it was killed they stay, whole tables of a large batch among them, until the next process comes.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

#: Held by the living process: the kernel lets it go when that ends, however it ends, and in whatever container it ran.
_LOCK = ".lock"
#: What nobody holds, nor ever will, and has not changed for so long is nobody's: no batch takes as long.
_ABANDONED_S = 2 * 86_400
_own: dict[tuple[str, int], Path] = {}
_guard = threading.Lock()


def new_folder(state_dir: str | Path) -> Path:
    """A path of nobody else's below this process's folder. Who uses it makes it, and removes it when done."""
    return process_folder(state_dir) / uuid.uuid4().hex


def process_folder(state_dir: str | Path) -> Path:
    """This process's folder below ``<state>/spool``, made when first asked for. Those of processes that are gone are removed then."""
    key = (str(state_dir), os.getpid())
    with _guard:
        if key not in _own or not _own[key].exists():
            _own[key] = _make(Path(state_dir, "spool"))
        return _own[key]


def _make(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    _clear(root)
    name = uuid.uuid4().hex
    unlocked = root / f".{name}"  # passed over by who clears up: it is nobody's yet
    unlocked.mkdir()
    # Never closed: that would let the lock go.
    descriptor = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: who clears up must not get it, either
        (unlocked / _LOCK).unlink()
    own = unlocked.rename(root / name)
    atexit.register(_leave, own, os.getpid())
    return own


def _leave(own: Path, process: int) -> None:
    if os.getpid() == process:  # not in a fork, which ends earlier
        _remove(own)


def _remove(folder: Path) -> None:
    """The lock goes last: what is left when this is killed can be told from what is used."""
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != _LOCK:
                entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _clear(root: Path) -> None:
    for folder in root.iterdir():
        if not _is_ours(folder.name):
            continue
        if folder.name.startswith(".") or not (folder / _LOCK).exists():
            # About to get its lock and its name; or half made, of a release that knew no locks, or where there are none.
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                    _remove(folder)
            continue
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except OSError:
            pass  # its process lives
        finally:
            os.close(descriptor)


def _is_ours(name: str) -> bool:
    """True for the names that are given here."""
    return len(digits := name.removeprefix(".")) == 32 and set(digits) <= set("0123456789abcdef")
