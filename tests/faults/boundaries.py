"""Where a run can be cut: just before and just after every commit, staging, pointer and swap of the real code.

The production code knows nothing of this: its functions are wrapped in the process that is to die.
"""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BY_APP = {
    "plan": "plan commit",
    "sync": "ledger sync",
    "bronze": "bronze quarantine commit",
    "silver": "silver quarantine commit",
}


@dataclass(frozen=True)
class Boundary:
    """The ``nth`` time that a run comes to ``when`` (before, after) the act ``kind`` on ``subject``."""

    when: str
    kind: str
    subject: str
    nth: int = 1

    def __str__(self) -> str:
        again = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.when} {self.kind} {self.subject}{again}"

    @property
    def label(self) -> str:
        return f"{self.when} {self.kind}"


class Tripwire:
    """Counts the boundaries that a process crosses; writes them down, or kills the process at one of them."""

    def __init__(self, *, kill_at: Boundary | None = None, log: Path | None = None) -> None:
        self._kill_at, self._log = kill_at, log
        self._seen: Counter[tuple[str, str, str]] = Counter()

    def cross(self, when: str, kind: str, subject: str) -> None:
        self._seen[when, kind, subject] += 1
        here = Boundary(when, kind, subject, self._seen[when, kind, subject])
        if self._log is not None:
            with open(self._log, "a") as log:
                log.write("\t".join([here.when, here.kind, here.subject, str(here.nth)]) + "\n")
        if here == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, kind: str, subject: str, act: Callable[[], Any]) -> Any:
        self.cross("before", kind, subject)
        result = act()
        self.cross("after", kind, subject)
        return result


def read_log(path: Path) -> list[Boundary]:
    """The boundaries that an undisturbed run crossed, in order."""
    fields = (line.split("\t") for line in path.read_text().splitlines())
    return [Boundary(when, kind, subject, int(nth)) for when, kind, subject, nth in fields]


def _commit_kind(layer: str, txns: Mapping[str, int] | None, name: str) -> str:
    stage = next(iter(txns or {}), "").split("/")[0]
    if layer == "ops":
        return "checks record" if name == "checks" else _BY_APP.get(stage, "ops commit")
    if layer == "quarantine":
        return _BY_APP.get(stage, "quarantine commit")
    return "gold model commit" if layer == "gold" else f"{layer} data commit"


def install(wire: Tripwire) -> None:
    """Wrap the real functions of this process. There is no way back: the process is made to die or to end."""
    from lakehouse.gold import strategies
    from lakehouse.storage import objects, table

    _wrap(
        table.Snapshot, "commit",
        lambda args, options: (_commit_kind(args[0].table.layer, options.get("txns"), args[0].table.name), args[0].table.label),
        wire,
    )  # fmt: skip
    _wrap(
        table.Table, "create",
        lambda args, options: (_commit_kind(args[0].layer, options.get("txns"), args[0].name), args[0].label),
        wire,
    )  # fmt: skip
    _wrap(
        table.Snapshot, "add_columns",
        lambda args, _: (f"{args[0].table.layer} column-add commit", args[0].table.label) if args[1] else None,
        wire,
    )  # fmt: skip
    _wrap(table.Table, "stage", lambda args, _: (f"{args[0].layer} staging", args[0].label), wire)
    _wrap(strategies, "_copy", lambda args, _: ("gold staging", args[2].label), wire)
    _wrap(objects.Objects, "write", lambda args, _: _object_kind(args[1]), wire)
    _wrap(objects.Objects, "put_if_absent", lambda args, _: _new_object_kind(args[0].root, args[1]), wire)
    _wrap(os, "replace", lambda args, _: _swap_kind(str(args[1])), wire)


def _object_kind(path: str) -> tuple[str, str] | None:
    if path.endswith("CURRENT"):
        return "CURRENT pointer", "restore_points"
    if path.startswith("restore_points/"):
        return "restore point object", "restore_points"
    return None


def _new_object_kind(root: str, path: str) -> tuple[str, str] | None:
    table = "/".join(root.rstrip("/").split("/")[-2:])
    if path.startswith("deletion_vector_"):
        return "deletion vector", table
    return ("log entry", table) if path.startswith("_delta_log/") else None


def _swap_kind(target: str) -> tuple[str, str] | None:
    if target.endswith("segments.json"):
        return "key index", target.split("/")[-2]
    return ("catalog swap", "catalog") if target.endswith("gold.duckdb") else None


def _wrap(
    owner: Any, name: str, describe: Callable[[Any, Any], tuple[str, str] | None], wire: Tripwire
) -> None:
    real = getattr(owner, name)

    @functools.wraps(real)
    def wrapped(*args: Any, **options: Any) -> Any:
        found = describe(args, options)
        if found is None:
            return real(*args, **options)
        return wire.around(*found, lambda: real(*args, **options))

    setattr(owner, name, wrapped)
