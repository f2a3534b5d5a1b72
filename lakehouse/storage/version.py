"""One version of a Delta table as the library read it, and the versions that this process has read last.

Opening a table costs milliseconds, and a run looks at every table dozens of times (measured: 2,495 openings for 47
pipelines, a sixth of the run). Whether a version is still the newest costs two looks at file names.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, TypeVar

import polars as pl

from lakehouse.errors import StorageError
from lakehouse.storage.deletion import FEATURE, Vector
from lakehouse.storage.following import essence, files_after
from lakehouse.storage.log import OLD_WRITER_FEATURES, actions, commit_file, feature_entries, vectors_at
from lakehouse.storage.objects import Objects
from lakehouse.storage.stats import wide_texts

_KEPT = 1024
#: Up to here a writer that adds files has nothing to look at; later versions of the protocol ask for more (change data, generated
#: columns, column mapping).
_PLAIN_WRITER = 2
_PLAIN_FEATURES = frozenset({"appendOnly", "invariants", FEATURE})
#: What is done here when files are taken out, and when they are read. A table that was given names for its old version lists
#: all that this version allowed, whether it is used or not.
_WRITER_FEATURES = _PLAIN_FEATURES | {"timestampNtz", *(name for _, name in OLD_WRITER_FEATURES)}
_READER_FEATURES = frozenset({FEATURE, "timestampNtz", "columnMapping"})  # the last where it is not used
#: More commits than these are not read one by one.
_FEW_COMMITS = 32
_Answer = TypeVar("_Answer")
#: Actions of one commit, and a list of files with the commits since.
_Commit = Sequence[Mapping[str, Any]]
_Since = tuple[pl.DataFrame, tuple[_Commit, ...]]
#: What a version says that only a change of the protocol or of the table's properties makes another.
_OF_PROTOCOL = ("has_vectors", "is_plain", "writer_features", "configuration")
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Version:
    """What a log says at one version. Shared between readers: nobody commits through its handle.

    Args:
        handle: of the library; None: it is opened when something is asked that is not known without it.
        reopen: opens the same version again. The library reads some things only when asked, from log files that a
            clean-up may have folded into a checkpoint since.
        earlier: a version before this one of the same table, so that not all of the log is read again.
        number: of the version, where there is no handle.
    """

    def __init__(
        self,
        handle: Any,
        objects: Objects,
        reopen: Callable[[int], Any],
        earlier: Version | None = None,
        number: int | None = None,
    ) -> None:
        self._handle = handle
        self._lock = threading.Lock()
        self.number: int = handle.version() if number is None else number
        self._objects = objects
        self._reopen = reopen
        self._earlier = None if earlier is None else earlier._known_vectors
        self._txns: dict[str, int] = {}
        self._since: _Since | None = None

    def _ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        with self._lock:
            try:
                if self._handle is not None:
                    return question(self._handle)
            except Exception:  # noqa: BLE001  whatever the library makes of a missing file; a second failure is raised
                pass
            self._handle = self._reopen(self.number)
            return question(self._handle)

    def followed_by(
        self, number: int, txns: Mapping[str, int], commits: Sequence[_Commit] | None, *, same_protocol: bool
    ) -> Version:
        """A version after this one, made by commits that are known. It has no handle, and this one's is let go.

        Args:
            txns: transactions of those commits.
            commits: all between, where they are known and none changed the schema: what is known of this version holds on.
            same_protocol: none changed the protocol either.
        """
        following = Version(None, self._objects, self._reopen, self, number)
        if commits is None:
            return following
        inherited = ["schema", "description", *(_OF_PROTOCOL if same_protocol else [])]
        # The commits stand, whatever becomes of this: what is not known is asked later.
        with suppress(Exception):
            for name in inherited if self._handle is not None else ():  # while there is one
                getattr(self, name)
            following._since = self._followed(commits)
        following._txns = {**self._txns, **txns}
        following.__dict__.update({n: self.__dict__[n] for n in inherited if n in self.__dict__})
        with self._lock:
            self._handle = None
        if "files" in self.__dict__:
            self._since = None
        return following

    def _followed(self, commits: Sequence[_Commit]) -> _Since | None:
        """From which list of files, and by which commits, one comes to those of the version that follows; None: unknown."""
        wanted = tuple(map(essence, commits))
        since = self._since  # before the files are looked for: when they are there, it goes
        if "files" in self.__dict__ or (since is None and self._handle is not None):
            return self.files, wanted
        if since is None:
            return None
        files, before = since
        if len(before) < _FEW_COMMITS:
            return files, (*before, *wanted)
        # Nobody has asked for so long: what was taken out since need not be remembered.
        newer = files_after(files, before, self._folder)
        return None if newer is None else (newer, wanted)

    @property
    def _folder(self) -> str:
        return self._objects.root.rstrip("/") + "/"

    def caught_up(self) -> Version | None:
        """The newest version, by the commits that others have made after this one; None where it must be opened.

        To read some commits costs a tenth of opening the table: maintenance in another process writes to every one.
        """
        txns: dict[str, int] = {}
        between: list[_Commit] = []
        for number in range(self.number + 1, self.number + _FEW_COMMITS):
            raw = self._objects.read(commit_file(number))
            if raw is None:
                return self.followed_by(number - 1, txns, between, same_protocol=True)
            try:
                found = actions(raw)
                txns |= {a["txn"]["appId"]: a["txn"]["version"] for a in found if "txn" in a}
            except (ValueError, KeyError):
                return None  # torn: the library says what is wrong with it
            if any("metaData" in action or "protocol" in action for action in found):
                return None
            between.append(found)
        return None

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        # Not through ``scan_delta``, which imports pyarrow and numpy: 0.15 s of every command (measured).
        return dict(self._ask(lambda handle: pl.Schema(handle.schema().to_arrow())))

    @cached_property
    def description(self) -> str | None:
        return self._ask(lambda handle: handle.metadata().description)  # type: ignore[no-any-return]

    @cached_property
    def configuration(self) -> dict[str, str]:
        """The table's properties, ``delta.…``."""
        return self._ask(lambda handle: handle.metadata().configuration)

    @cached_property
    def files(self) -> pl.DataFrame:
        since = self._since
        found = None if since is None else files_after(*since, self._folder)
        return self._listed() if found is None else found

    def _listed(self) -> pl.DataFrame:
        """The files as the library lists them."""
        frame = self._ask(lambda handle: pl.DataFrame(handle.get_add_actions(flatten=True)))
        deleted = {path: vector.cardinality for path, vector in self.vectors.items()}
        gone = (
            pl.col("path").replace_strict(deleted, default=0, return_dtype=pl.Int64)
            if deleted
            else pl.lit(0, pl.Int64)
        )
        return frame.with_columns(
            *wide_texts(frame),
            uri=pl.concat_str(pl.lit(self._folder), pl.col("path")),
            num_records=pl.col("num_records") - gone,
            num_deleted=gone,
        )

    @cached_property
    def has_vectors(self) -> bool:
        """True when files of the table may have deletion vectors."""
        return FEATURE in (self._ask(lambda handle: handle.protocol().reader_features) or ())

    @cached_property
    def is_plain(self) -> bool:
        """True when the table asks nothing of a writer that is not done here."""
        protocol = self._ask(lambda handle: handle.protocol())
        if protocol.min_writer_version <= _PLAIN_WRITER:
            return True
        return bool(protocol.writer_features) and _PLAIN_FEATURES.issuperset(protocol.writer_features)

    def refuse_reading(self, label: str) -> None:
        """Raise ``StorageError`` where the table is kept in a way in which its rows would be read wrong here."""
        asked = {*(self._ask(lambda handle: handle.protocol().reader_features) or ())} - _READER_FEATURES
        _ = self.writer_features  # now, while there is a handle: a version that follows has none
        if self.configuration.get("delta.columnMapping.mode", "none") != "none":
            asked.add("columnMapping")
        if self._ask(lambda handle: handle.metadata().partition_columns):
            asked.add("partition columns")
        if asked:
            raise StorageError(
                f"{label}: another engine has given the table {', '.join(sorted(asked))}, with which its rows would be read "
                "wrong here; nothing is read or written",
                hint="write the table without them (a copy by that engine), or restore it to a version from before",
            )

    @cached_property
    def writer_features(self) -> frozenset[str]:
        """What the table asks of writers by name; nothing for tables of before there were names."""
        return frozenset(self._ask(lambda handle: handle.protocol().writer_features) or ())

    def refuse_removal(self, label: str, *, data_change: bool, whole: bool) -> None:
        """Raise ``StorageError`` where files may not be taken out, or not by one who does not do what the table asks for.

        Args:
            whole: everything is replaced, by the library: it would forget the vectors, and their files would stay.
        """
        if whole and self.vectors:
            raise StorageError(
                f"{label} has rows that another engine marked as deleted, and its schema cannot change so",
                hint="let that engine write the marked files again (REORG TABLE … APPLY (PURGE)), then: lakehouse run",
            )
        asked = set(self.writer_features - _WRITER_FEATURES)
        if data_change and self.configuration.get("delta.appendOnly", "").lower() == "true":
            asked.add("delta.appendOnly = true")
        if asked:
            raise StorageError(
                f"{label}: another engine has given the table {', '.join(sorted(asked))}, which is not done here; nothing was "
                "taken out of it",
                hint="drop the feature or the property with that engine, then run again",
            )

    @cached_property
    def vectors(self) -> dict[str, Vector]:
        """Which rows of which files are gone, by path; files that have all their rows are not named."""
        return vectors_at(self._objects, self.number, self._earlier) if self.has_vectors else {}

    def feature_entries(self) -> list[dict[str, Any]]:
        """See ``log.feature_entries``."""
        return [] if self.has_vectors else self._ask(feature_entries)

    @property
    def _known_vectors(self) -> tuple[int, dict[str, Vector]] | None:
        """What this version knows of vectors without reading anything for it."""
        if "vectors" in self.__dict__:
            return self.number, self.vectors
        return self._earlier

    def txn(self, app_id: str) -> int:
        if app_id not in self._txns:
            self._txns[app_id] = self._ask(lambda handle: handle.transaction_version(app_id) or 0)
        return self._txns[app_id]


class Recent:
    """The newest known version of each table and the one before it, which a run compares it with; each with the mark of its
    commit file: a log that was removed and begun again has another."""

    def __init__(self) -> None:
        self._versions: OrderedDict[_Key, list[tuple[str, Version]]] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, objects: Objects) -> bool:
        """True when this process has read a version of the table."""
        return bool(self._known(objects))

    def get(self, objects: Objects) -> Version | None:
        """The table's newest version, if it is one that this process knows."""
        known = self._known(objects)
        if not known or objects.info(commit_file(known[-1][1].number + 1)) is not None:
            return None
        return _still_there(objects, *known[-1])

    def at(self, objects: Objects, number: int) -> Version | None:
        """This version, if this process knows it and the table still has it."""
        for mark, version in self._known(objects):
            if version.number == number:
                return _still_there(objects, mark, version)
        return None

    def outdated(self, objects: Objects) -> Version | None:
        """The newest version that this process knows, if the table still has it."""
        known = self._known(objects)
        return _still_there(objects, *known[-1]) if known else None

    def put(self, objects: Objects, version: Version) -> None:
        """Remember a version that was the newest a moment ago."""
        mark = _mark(objects, version.number)
        if mark is None:  # the log does not reach back to its commit: it must be opened each time
            return
        with self._lock:
            known = [
                entry for entry in self._versions.get(_key(objects), []) if entry[1].number != version.number
            ]
            self._versions[_key(objects)] = [*known[-1:], (mark, version)]
            self._versions.move_to_end(_key(objects))
            while len(self._versions) > _KEPT:
                self._versions.popitem(last=False)

    def _known(self, objects: Objects) -> list[tuple[str, Version]]:
        with self._lock:
            return self._versions.get(_key(objects), [])


#: Shared by the whole process. It holds nothing that a table's log does not say.
RECENT = Recent()


def _key(objects: Objects) -> _Key:
    """Where the table is and how it is reached: a version goes on asking the store by the way that it was opened."""
    return objects.root, tuple(sorted(objects.options.items()))


def _still_there(objects: Objects, mark: str, version: Version) -> Version | None:
    return version if _mark(objects, version.number) == mark else None


def _mark(objects: Objects, version: int) -> str | None:
    info = objects.info(commit_file(version))
    return None if info is None else f"{info.etag} {info.modified_at_utc}"
