"""One version of one table: its rows, files and transactions, and the one commit that may follow it."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from lakehouse import names
from lakehouse.errors import StorageError
from lakehouse.storage import deletion, log
from lakehouse.storage.commits import (
    CHECKPOINT_INTERVAL,
    CommitInfo,
    StagedFile,
    add_action,
    commit_info,
    nothing_more,
    properties,
)
from lakehouse.storage.deletion import Gone, Vector
from lakehouse.storage.failures import translated
from lakehouse.storage.objects import sync_file, sync_folder
from lakehouse.storage.positions import rows_in_groups, rows_in_windows
from lakehouse.storage.schema import delta_schema
from lakehouse.storage.stats import rows_by_value, uris_in_range
from lakehouse.storage.version import RECENT, Version

if TYPE_CHECKING:
    from lakehouse.storage.table import Table


@dataclass(frozen=True)
class _Changes:
    """What a commit takes out and brings."""

    add: Sequence[StagedFile]
    remove: Sequence[str]
    delete: Mapping[str, Any]
    txns: Mapping[str, int]
    metadata: Mapping[str, Any]
    data_change: bool


class Snapshot:
    """One version of one table. Reads are repeatable; a commit through it fails if what it read changed."""

    def __init__(self, table: Table, read: Version) -> None:
        self.table = table
        self._read = read

    @property
    def version(self) -> int:
        return self._read.number

    def __repr__(self) -> str:
        return f"Snapshot({self.table.label} v{self.version})"

    @property
    def _schema(self) -> dict[str, pl.DataType]:
        with translated(f"schema of {self.table.label}"):
            return self._read.schema

    def schema(self) -> dict[str, pl.DataType]:
        """Column names and types, in order."""
        return dict(self._schema)

    @property
    def description(self) -> str | None:
        return self._read.description

    def txn(self, app_id: str) -> int:
        """Highest version that ``app_id`` has committed, 0 when none."""
        with translated(f"transactions of {self.table.label}"):
            return self._read.txn(app_id)

    @property
    def _files(self) -> pl.DataFrame:
        with translated(f"files of {self.table.label}"):
            return self._read.files

    def files(self) -> pl.DataFrame:
        """One row per data file: path, uri, size_bytes, num_records (rows that are there), num_deleted (rows that are
        gone and still in the file), min.<column>, max.<column>, null_count.<column> (of all rows in the file)."""
        return self._files

    def uris(self) -> list[str]:
        return self._files["uri"].to_list()

    def num_rows(self) -> int:
        return int(self._files["num_records"].sum() or 0)

    def size_bytes(self) -> int:
        return int(self._files["size_bytes"].sum() or 0)

    def files_in_range(self, column: str, low: Any, high: Any) -> list[str]:
        """URIs of the files that may hold a value of ``column`` in [low, high], judged by their statistics."""
        return uris_in_range(self._files, column, low, high)

    def scan(
        self, columns: Sequence[str] | None = None, *, uris: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """The version's rows, or those of some of its files. Columns a file lacks are null."""
        chosen = self.uris() if uris is None else list(uris)
        if not chosen:
            frame = pl.LazyFrame(schema=self._schema)
        else:
            frame = self._scan_files(chosen, _deletion_files=self._deletions(chosen))
        return frame if columns is None else frame.select(columns)

    def count_from(self, column: str, low: int) -> dict[int, int]:
        """Value → rows, of a numeric column's values from ``low`` on, as the data files have them.

        A file in which all rows of a row group have one value says so in its footer, and nothing else of it is read.
        """
        near = set(self.files_in_range(column, low, 2**62))
        files = (self._files[name].to_list() for name in ("uri", "path", "num_deleted"))
        counted: Counter[int] = Counter()
        doubtful = []
        for uri, path, deleted in zip(*files, strict=True):
            if uri not in near:
                continue
            found = None if deleted else rows_by_value(self.table.footer(path)[0], column)
            if found is None:
                doubtful.append(uri)
            else:
                counted += found
        if doubtful:
            rows = self.scan([column], uris=doubtful).drop_nulls().group_by(column).len()
            counted += Counter(dict(rows.collect(engine="streaming").iter_rows()))
        return {value: rows for value, rows in counted.items() if value >= low}

    def scan_places(self, columns: Sequence[str], *, uris: Sequence[str], place: str) -> pl.LazyFrame:
        """Rows of some files, deleted ones too, with their position: counted through all of these files from 0."""
        return self._scan_files(uris, row_index_name=place).select(*columns, place)

    def rows_at(self, path: str, positions: Any, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of one file, deleted ones too, at these positions (a NumPy array, ascending); columns that it lacks are null."""
        uri = self.table.objects.url(path)
        with translated(f"read rows of {self.table.label}/{path}"):
            if not self.table.objects.is_remote:
                found = rows_in_groups(uri, positions, {name: self._schema[name] for name in columns})
                if found is not None:
                    return found
            return rows_in_windows(self._scan_files([uri]).select(columns), positions)

    def _scan_files(self, uris: Sequence[str], **more: Any) -> pl.LazyFrame:
        return pl.scan_parquet(
            list(uris),
            schema=self._schema,
            missing_columns="insert",
            extra_columns="ignore",
            hive_partitioning=False,
            glob=False,
            storage_options=self.table.options or None,
            # Other engines write instants with nanoseconds, and without a zone.
            cast_options=pl.ScanCastOptions(datetime_cast=["nanosecond-downcast", "convert-timezone"]),
            **more,
        )

    def rows_on_disk(self, paths: Iterable[str]) -> dict[str, int]:
        """Path → rows of the file, deleted ones too."""
        files = self._files.filter(pl.col("path").is_in(list(paths)))
        return dict(files.select("path", pl.col("num_records") + pl.col("num_deleted")).iter_rows())

    def deleted_rows(self, path: str) -> Gone:
        """Which rows of a file are gone."""
        vector = self._vectors.get(path)
        return Gone.none() if vector is None else deletion.rows_gone(self.table.objects, vector)

    @property
    def _vectors(self) -> Mapping[str, Vector]:
        with translated(f"deletion vectors of {self.table.label}"):
            return self._read.vectors

    @property
    def has_deletions(self) -> bool:
        """True when rows of some files are gone."""
        return bool(self._vectors)

    def vectors(self) -> dict[str, str]:
        """Data file (URI) → Parquet file (URI) that lists its deleted rows, for the files that have any."""
        objects = self.table.objects
        return {objects.url(path): objects.url(vector.rows_path) for path, vector in self._vectors.items()}

    def vector_files(self) -> set[str]:
        """Files below the table that say which rows are gone."""
        return {path for vector in self._vectors.values() for path in vector.paths}

    def _deletions(self, uris: Sequence[str]) -> Any:
        """What Polars asks for the rows that are gone; None when none are. Its own reader of Delta uses the same door."""
        by_uri = {self.table.objects.url(path): (path, vector) for path, vector in self._vectors.items()}
        if by_uri.keys().isdisjoint(uris):
            return None
        on_disk = self.rows_on_disk(self._vectors)

        def masks(requested: pl.DataFrame) -> pl.DataFrame:
            wanted = (by_uri.get(uri.removeprefix("file://")) for uri in requested["path"])
            rows = [(None, 0) if found is None else (found[1], on_disk[found[0]]) for found in wanted]
            return deletion.keep_masks(self.table.objects, rows).to_frame()

        return ("delta-deletion-vector", masks)

    def commits(self) -> Iterator[CommitInfo]:
        """The commits up to this version, the newest first, as far back as the log reaches; read one by one.

        Not the library's ``history``: for a version that is not the newest (pinned, or overtaken meanwhile) it
        returns the newest commits of the table under the numbers of this version's (measured, deltalake 1.6.6).
        """
        for version in range(self.version, -1, -1):
            raw = self.table.objects.read(log.commit_file(version))
            if raw is None:
                return
            yield commit_info(version, raw)

    def history(self, limit: int | None = None) -> list[CommitInfo]:
        """The newest ``limit`` commits up to this version, the newest first."""
        return list(islice(self.commits(), limit))

    def stage(self, frame: pl.LazyFrame, *, max_rows_per_file: int | None = None) -> list[StagedFile]:
        """See ``Table.stage``."""
        return self.table.stage(frame, max_rows_per_file=max_rows_per_file)

    def adopt(self, paths: Iterable[str]) -> list[StagedFile]:
        """See ``Table.adopt``."""
        return self.table.adopt(paths)

    def add_columns(self, columns: Mapping[str, pl.DataType]) -> Snapshot:
        """A commit of its own that adds nullable columns; harmless when nothing follows it."""
        if not columns:
            return self
        with translated(f"add columns {', '.join(columns)} to {self.table.label}"):
            handle = self._own_handle()
            handle.alter.add_columns(
                list(delta_schema(columns).fields), post_commithook_properties=nothing_more()
            )
            self._sync_commit(handle.version())
        added = self.table.snapshot()
        added._checkpoint_in_turn()
        return added

    def commit(
        self,
        *,
        add: Sequence[StagedFile] = (),
        remove: Iterable[str] = (),
        delete: Mapping[str, Any] | None = None,
        txns: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        overwrite_schema: Mapping[str, pl.DataType] | None = None,
        data_change: bool = True,
    ) -> int:
        """Adopt and remove files, and take rows out of others, in one atomic commit; the new version.

        Args:
            add: staged files of this table.
            remove: paths (relative, as in ``files()``) that the commit takes out.
            delete: rows that the commit takes out of files that stay: path → their positions (NumPy, from 0).
            txns: application transactions, app id → batch number.
            metadata: JSON document kept in the commit, read back by ``history``.
            overwrite_schema: replace everything, with this schema; ``remove`` and ``delete`` must then be empty.
            data_change: False when the rows that come are the rows that go, in other files.

        Raises:
            CommitConflict: what this snapshot read has changed since, or the transaction is taken.
        """
        mark = uuid.uuid4().hex
        remove, delete, txns = list(remove), dict(delete or {}), dict(txns or {})
        if remove or delete or overwrite_schema is not None:
            # Whoever takes something out takes a turn. The library lets a commit that began before a compaction take
            # the same file out again, and the rows are there twice (measured: docs/decisions/0040).
            turn = names.app_id("files", self.table.name)
            txns[turn] = self.txn(turn) + 1
        with translated(f"commit to {self.table.label} after version {self.version}", self.table._folder):
            takes_out = bool(remove or delete)
            if overwrite_schema is not None and takes_out:
                raise ValueError("a commit replaces everything, or names what it takes out")
            if takes_out or overwrite_schema is not None:
                self._read.refuse_removal(self.table.label, data_change=data_change, whole=not takes_out)
            if overwrite_schema is None and (takes_out or self._read.is_plain):
                self._commit_by_hand(_Changes(add, remove, delete, txns, metadata or {}, data_change), mark)
            else:
                self._commit_by_library(add, txns, metadata or {}, overwrite_schema, data_change, mark)
        return self.version

    def _commit_by_library(
        self,
        add: Sequence[StagedFile],
        txns: Mapping[str, int],
        metadata: Mapping[str, Any],
        overwrite_schema: Mapping[str, pl.DataType] | None,
        data_change: bool,
        mark: str,
    ) -> None:
        before = self.version
        handle = self._own_handle()
        self.table.sync(add)
        handle.create_write_transaction(
            [add_action(file, data_change=data_change) for file in add],
            mode="append" if overwrite_schema is None else "overwrite",
            schema=handle.schema() if overwrite_schema is None else delta_schema(overwrite_schema),
            commit_properties=properties(txns, metadata, mark),
            post_commithook_properties=nothing_more(),
        )
        handle.update_incremental()
        newest = handle.version()
        if newest != before + 1:
            handle.load_as_version(self._own_version(before, newest, mark))
        self._sync_commit(handle.version())
        self._read = Version(handle, self.table.objects, self.table._open, self._read)
        if handle.version() == newest:
            RECENT.put(self.table.objects, self._read)
        self._checkpoint_in_turn()

    def _commit_by_hand(self, changes: _Changes, mark: str) -> None:
        """All that adds files or takes something out: see ``storage.log``."""
        table, objects, before = self.table, self.table.objects, self._read
        features = before.feature_entries() if changes.delete else []
        entries = [log.info_entry(self.version, "WRITE", changes.metadata, mark), *features]
        entries += log.txn_entries(changes.txns)
        if gone := [*changes.remove, *changes.delete]:
            sizes = dict(self._files.select("path", "size_bytes").iter_rows())
            entries += [
                log.remove_entry(path, sizes[path], before.vectors.get(path), data_change=changes.data_change)
                for path in gone
            ]
        entries += [log.add_entry(file, data_change=changes.data_change) for file in changes.add]
        if changes.delete:
            written = deletion.write_vectors(objects, self._merged(changes.delete))
            chosen = self._files.filter(pl.col("path").is_in(list(written)))
            entries += [log.listed_entry(row, written[row["path"]]) for row in chosen.iter_rows(named=True)]
        table.sync(changes.add)
        version = log.append_commit(objects, table.label, self.version, entries, mark, only_adds=not gone)
        between = [entries] if version == before.number + 1 else None
        self._read = before.followed_by(version, changes.txns, between, same_protocol=not features)
        RECENT.put(objects, self._read)
        self._checkpoint_in_turn()

    def _checkpoint_in_turn(self) -> None:
        """After each so many commits. What the checkpoint replaces of the log stays: maintenance knows which versions are kept."""
        if (self.version + 1) % CHECKPOINT_INTERVAL == 0:
            # The commit stands whatever happens here; maintenance writes a checkpoint that is overdue.
            with suppress(Exception):
                self._checkpoint()

    def _checkpoint(self) -> None:
        """A checkpoint at this version, on the disk when this returns: an empty one would keep readers from all of the log."""
        self._own_handle().create_checkpoint()
        if (folder := self.table._folder) is not None:
            for path in (log.checkpoint_file(self.version), log.LAST_CHECKPOINT):
                sync_file(folder / path)
            sync_folder(folder / "_delta_log")

    def _merged(self, delete: Mapping[str, Any]) -> dict[str, Gone]:
        """The rows to take out together with those that are out already."""
        import numpy

        merged, on_disk = {}, self.rows_on_disk(delete)
        for path, positions in delete.items():
            rows = numpy.asarray(positions, dtype=numpy.int64)
            if len(rows) and not 0 <= rows.min() <= rows.max() < on_disk[path]:
                raise StorageError(
                    f"{self.table.label}: {path} has {on_disk[path]} rows, none at {rows.max()}"
                )
            merged[path] = self.deleted_rows(path).plus(rows)
        return merged

    def _own_handle(self) -> Any:
        """The version once more, to commit through: what is read is shared with others."""
        return self.table._open(self.version)

    def _sync_commit(self, version: int) -> None:
        """The library leaves its commit to the system to write: a later one, which is synced, must not outlive it."""
        if (folder := self.table._folder) is not None:
            commit = folder / log.commit_file(version)
            sync_file(commit)
            sync_folder(commit.parent)

    def _own_version(self, before: int, newest: int, mark: str) -> int:
        """The version that this commit made, where others have committed between the read or after it."""
        for version in range(newest, before, -1):
            raw = self.table.objects.read(log.commit_file(version))
            if raw is not None and mark.encode() in raw:
                return version
        raise StorageError(
            f"{self.table.label}: the commit after version {before} is not in the log: another writer overwrote it",
            hint="lakehouse doctor (the store must refuse to create an object that is there)",
        )
