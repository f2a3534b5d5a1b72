"""A table taken back to an earlier version, by a commit of its own: history only grows, and readers of any version go on.

Not the library's restore (deltalake 1.6.6): it puts the table's properties back too, so that deletion vectors are off where later commits
write them; there is no version of before the first to go back to; and its commit is left to the system to write.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lakehouse import names
from lakehouse.storage import log
from lakehouse.storage.commits import CommitInfo
from lakehouse.storage.deletion import Vector
from lakehouse.storage.failures import translated
from lakehouse.storage.snapshot import Snapshot

#: In the document of a restoring commit: the version whose rows it brought back, None where it took all rows out.
RESTORED = "restored_version"
#: Transaction that has the version of the newest restore.
_APP = "rollback"


def missing_files(target: Snapshot) -> list[str]:
    """Files that this version needs and that are not there any more: data files, and those that say which rows are gone."""
    there = {info.path for info in target.table.objects.list()}
    needed = {*target.files()["path"].to_list(), *target.vector_files()}
    return sorted(needed - there)


def restore(
    newest: Snapshot, target: Snapshot | None, *, txns: Mapping[str, int], metadata: Mapping[str, Any]
) -> int:
    """Commit the rows and columns of ``target`` after ``newest``; the new version.

    Args:
        target: an earlier version of the same table; None takes every row out, and leaves the columns as they are.
        txns: application transactions as they are afterwards. They may go back: the newest entry of a log is the one that holds.
        metadata: document of the commit; ``restored_version`` is added.

    Raises:
        CommitConflict: somebody else has committed after ``newest``.
    """
    table, mark = newest.table, uuid.uuid4().hex
    with translated(f"restore {table.label} after version {newest.version}", table._folder):
        refuse_restoring(newest)
        document = {**metadata, RESTORED: None if target is None else target.version}
        entries = [log.info_entry(newest.version, "RESTORE", document, mark)]
        if target is not None and list(target.schema().items()) != list(newest.schema().items()):
            # Its columns, with today's properties: a feature that was turned on since stays on.
            entries.append(log.schema_entry(target._own_handle(), newest._read.configuration))
        entries += log.txn_entries({**txns, **_own_txns(newest)})
        entries += _file_entries(newest, target)
        return log.append_commit(table.objects, table.label, newest.version, entries, mark)


def refuse_restoring(newest: Snapshot) -> None:
    """Raise ``StorageError`` where another engine has given the table something that forbids taking rows out."""
    newest._read.refuse_removal(newest.table.label, data_change=True, whole=False)


def fence(newest: Snapshot, *, apps: Iterable[str], metadata: Mapping[str, Any]) -> int:
    """A commit after ``newest`` that changes nothing, and that no commit under one of these transactions can follow which read
    ``newest``; the new version.

    Raises:
        CommitConflict: somebody else has committed after ``newest``.
    """
    return newest.commit(
        txns={**{app: newest.txn(app) for app in apps}, **_own_txns(newest)},
        metadata={**metadata, "stage": names.MAINTENANCE},
        data_change=False,
    )


def _own_txns(newest: Snapshot) -> dict[str, int]:
    """A turn, as whoever takes files out (see ``Snapshot.commit``), and where the last restore was."""
    turn = names.app_id("files", newest.table.name)
    return {turn: newest.txn(turn) + 1, names.app_id(_APP, newest.table.name): newest.version + 1}


def standing_commits(snapshot: Snapshot) -> Iterator[CommitInfo]:
    """The commits that made this version what it is, the newest first: those that a restore has undone are passed over."""
    number = snapshot.version
    while number >= 0:
        commit = snapshot.table.commit_info(number)
        if commit is None:
            return
        yield commit
        if RESTORED in commit.metadata:
            restored = commit.metadata[RESTORED]
            number = -1 if restored is None else restored
        else:
            number -= 1


def stands(snapshot: Snapshot, version: int) -> bool:
    """True when what that version had is what this one goes on from: it is neither later, nor undone by a restore since.

    Where the log does not reach back so far, it is taken to stand.
    """
    if version >= snapshot.txn(names.app_id(_APP, snapshot.table.name)):  # nothing was restored since
        return version <= snapshot.version
    reached, is_emptied = snapshot.version + 1, False
    for commit in standing_commits(snapshot):
        reached = commit.version
        is_emptied = RESTORED in commit.metadata and commit.metadata[RESTORED] is None
        if reached <= version:
            break
    return reached == version or (reached > version and not is_emptied)


def _file_entries(newest: Snapshot, target: Snapshot | None) -> list[dict[str, Any]]:
    """What goes and what comes back. A file whose other rows are gone does both: the log knows it by path and vector together."""
    before, after = _states(newest), {} if target is None else _states(target)
    sizes = dict(newest.files().select("path", "size_bytes").iter_rows())
    entries = [
        log.remove_entry(path, sizes[path], vector, data_change=True)
        for path, vector in before.items()
        if path not in after or after[path] != vector
    ]
    for row in () if target is None else target.files().iter_rows(named=True):
        path = row["path"]
        if path not in before or before[path] != after[path]:
            entries.append(log.listed_entry(row, after[path]))
    return entries


def _states(snapshot: Snapshot) -> dict[str, Vector | None]:
    vectors = snapshot._vectors
    return {path: vectors.get(path) for path in snapshot.files()["path"].to_list()}
