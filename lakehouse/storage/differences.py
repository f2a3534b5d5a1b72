"""Where the rows lie in which two versions of a table differ.

The log says of every commit whether it changed data or only moved rows between files (``dataChange``, which maintenance
sets to false: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file). What the changing
commits between the two versions added and took out, set off against each other, is the difference: rows that
compaction moved need not be read, even where it has put new rows and old ones into one file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from lakehouse.storage import log
from lakehouse.storage.deletion import Vector, vector_of
from lakehouse.storage.snapshot import Snapshot

#: A data file and which of its rows are gone: the two together are what the log knows a file by.
_State = tuple[str, Vector | None]


@dataclass(frozen=True)
class Part:
    """A data file (its path, unquoted) as one version has it."""

    snapshot: Snapshot
    path: str

    @property
    def uri(self) -> str:
        return self.snapshot.table.objects.url(self.path)


@dataclass(frozen=True)
class Difference:
    """What has to be read to see every row that only one of two versions has.

    came       files that the new one has more, whose rows are new; rows that were moved may be among them
    went       files that the old one has more, likewise
    changed    files that both have, with other rows gone from them: as the old one has it, as the new one has it
    """

    came: list[Part] = field(default_factory=list)
    went: list[Part] = field(default_factory=list)
    changed: list[tuple[Part, Part]] = field(default_factory=list)

    def is_readable(self) -> bool:
        """False when maintenance has removed one of the files since."""
        parts = [*self.came, *self.went, *(part for pair in self.changed for part in pair)]
        paths = {part.path for part in parts}
        for part in parts:
            vector = part.snapshot._vectors.get(part.path)
            paths.update(() if vector is None else vector.paths)
        return all(parts[0].snapshot.table.objects.info(path) is not None for path in paths)


def difference(old: Snapshot, new: Snapshot) -> Difference:
    """The difference of two versions of one table with the same columns.

    Told by the log where maintenance may have moved rows in between; else, and where the log does not reach back or
    its files have been removed, by the files of both: then rows that were moved are on both sides.
    """
    by_files = _by_files(old, new)
    if not by_files.went:
        return by_files
    by_log = _by_log(old, new)
    return by_files if by_log is None or not by_log.is_readable() else by_log


def _by_files(old: Snapshot, new: Snapshot) -> Difference:
    before, after = _states(old), _states(new)
    net = dict.fromkeys(before.items(), -1)
    for state in after.items():
        net[state] = net.get(state, 0) + 1
    return _sorted(net, lambda state, sign: old if sign < 0 else new)


def _states(snapshot: Snapshot) -> dict[str, Vector | None]:
    vectors = snapshot._vectors
    return {path: vectors.get(path) for path in map(unquote, snapshot.files()["path"])}


def _sorted(net: Mapping[_State, int], version: Callable[[_State, int], Snapshot]) -> Difference:
    """``version``: gives the snapshot in which a file is in this state, of which there is one more (1) or less (-1)."""
    sides: dict[str, dict[int, Part]] = defaultdict(dict)
    for (path, vector), sign in sorted(net.items(), key=lambda item: item[0][0]):
        if sign:
            snapshot = version((path, vector), sign)
            sides[path][sign] = Part(snapshot, path)
    found = Difference()
    for both in sides.values():
        if len(both) == 2:
            found.changed.append((both[-1], both[1]))
        elif 1 in both:
            found.came.append(both[1])
        else:
            found.went.append(both[-1])
    return found


def _by_log(old: Snapshot, new: Snapshot) -> Difference | None:
    """None when the log does not tell: it does not reach back, or what it says does not add up.

    It tells forwards only. A build goes back to an earlier version when the newest one failed its checks.
    """
    if new.version < old.version:
        return None
    before = old.files().select("path", "num_records", "num_deleted")
    said = _Said({unquote(path): rows + gone for path, rows, gone in before.iter_rows()})
    newest = old.version
    for newest, raw in log.commits(new.table.objects, range(old.version + 1, new.version + 1)):
        said.take(newest, log.actions(raw))
    net = {state: sign for state, sign in said.net.items() if sign}
    if newest < new.version or not _adds_up(net, said.on_disk, new.num_rows() - old.num_rows()):
        return None
    at_ends = [(snapshot, _states(snapshot).items()) for snapshot in (new, old)]
    between: dict[int, Snapshot] = {}

    def version(state: _State, sign: int) -> Snapshot:
        for snapshot, states in at_ends:
            if state in states:
                return snapshot
        number = said.seen_at[state]
        if number not in between:
            between[number] = new.table.snapshot(number)
        return between[number]

    if any(state not in said.seen_at and state not in at_ends[-1][1] for state in net):
        return None  # taken out, and never there
    found = _sorted(net, version)
    return found if all(snapshot.schema() == new.schema() for snapshot in between.values()) else None


@dataclass
class _Said:
    """What some commits say.

    on_disk    rows in each file, those that are gone among them; None where a commit does not say
    net        how often a state came by commits that changed data, less how often it went by them
    seen_at    the last version that put a file into this state
    """

    on_disk: dict[str, int | None]
    net: dict[_State, int] = field(default_factory=lambda: defaultdict(int))
    seen_at: dict[_State, int] = field(default_factory=dict)

    def take(self, version: int, actions: Iterable[Mapping[str, Any]]) -> None:
        for action in actions:
            if (entry := action.get("add")) is not None:
                state = _state(entry)
                self.on_disk[state[0]] = json.loads(entry.get("stats") or "{}").get("numRecords")
                self.seen_at[state] = version
                self.net[state] += bool(entry.get("dataChange", True))
            elif (entry := action.get("remove")) is not None:
                self.net[_state(entry)] -= bool(entry.get("dataChange", True))


def _state(entry: Mapping[str, Any]) -> _State:
    described = entry.get("deletionVector")
    return unquote(entry["path"]), vector_of(described) if described else None


def _adds_up(net: Mapping[_State, int], on_disk: Mapping[str, int | None], expected: int) -> bool:
    """True when each file came or went once at most, and all together make the difference of both versions' rows."""
    if any(abs(sign) > 1 for sign in net.values()) or not _once_a_side(net.items()):
        return False
    rows = 0
    for (path, vector), sign in net.items():
        in_file = on_disk.get(path)
        if in_file is None:
            return False
        rows += sign * (in_file - (0 if vector is None else vector.cardinality))
    return rows == expected


def _once_a_side(net: Iterable[tuple[_State, int]]) -> bool:
    sides = [(path, sign) for (path, _), sign in net]
    return len(sides) == len(set(sides))
