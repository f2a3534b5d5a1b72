"""One Delta table: immutable snapshots, staged data files, one atomic commit.

Every write of the lake goes the same way: data files are written into the table's folder (nobody sees
them), described, and then adopted by one commit that carries rows, removals, application transactions and
metadata together. Measured: Polars ``sink_parquet`` plus adoption is 1.4 times as fast as ``sink_delta``.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict, LakehouseError, StorageError, TableNotFound
from lakehouse.storage.commits import (
    CommitInfo,
    StagedFile,
    add_action,
    commit_info,
    first_commit,
    properties,
)
from lakehouse.storage.failures import translated
from lakehouse.storage.objects import Objects
from lakehouse.storage.retry import patient
from lakehouse.storage.schema import delta_ready, delta_schema
from lakehouse.storage.stats import footer_stats
from lakehouse.storage.version import RECENT, Version

_COMMIT_FILE = re.compile(r"/\d{20}\.(?:json|checkpoint\S*\.parquet)$")


class Table:
    """Where a table is or will be. Holds no state: ask for a ``snapshot`` to read or to commit."""

    def __init__(
        self,
        uri: str,
        layer: names.Layer,
        name: str,
        options: Mapping[str, str] | None = None,
        *,
        target_file_bytes: int = 128 << 20,
        compression_level: int = 1,
    ) -> None:
        self.uri = uri
        self.layer = layer
        self.name = name
        self.options = dict(options or {})
        self.target_file_bytes = target_file_bytes
        self.compression_level = compression_level
        self.objects = Objects(uri, self.options)

    def __repr__(self) -> str:
        return f"Table({self.layer}.{self.name})"

    @property
    def label(self) -> str:
        return f"{self.layer}.{self.name}"

    def exists(self) -> bool:
        return self.snapshot_or_none() is not None

    @patient
    def snapshot(self, version: int | None = None) -> Snapshot:
        """The newest version, or the one named.

        Raises:
            TableNotFound: there is no such table or version.
            StorageError, StorageUnavailable: it could not be read; never a reason to create it.
        """
        import deltalake
        from deltalake.exceptions import TableNotFoundError

        with translated(f"open {self.label} at {self.uri}"):
            if version is None and (known := RECENT.get(self.objects)) is not None:
                return Snapshot(self, known)
            if not self.objects.is_remote and not Path(self.uri, "_delta_log").is_dir():
                raise TableNotFound(f"{self.label} does not exist yet", hint="lakehouse run")
            try:
                handle = self._open(version)
            except TableNotFoundError:
                # The library says "not found" for "no access" too: only a log without a commit means absent.
                if not self._has_commits():
                    raise TableNotFound(f"{self.label} does not exist yet", hint="lakehouse run") from None
                try:
                    handle = self._open(version)  # somebody has just created it
                except TableNotFoundError as error:
                    raise StorageError(f"{self.label} is there, but cannot be read: {error}") from error
            except deltalake.exceptions.DeltaError as error:
                if version is not None and "version" in str(error).lower():
                    raise TableNotFound(f"{self.label} has no version {version}: {error}") from error
                raise
        opened = Version(handle, self.uri)
        if version is None:
            RECENT.put(self.objects, opened)
        return Snapshot(self, opened)

    def _open(self, version: int | None) -> Any:
        import deltalake

        return deltalake.DeltaTable(self.uri, version=version, storage_options=self.options or None)

    def _has_commits(self) -> bool:
        """False for an empty log, and for one in which a crash left nothing but an unfinished first commit."""
        return any(_COMMIT_FILE.search(info.path) for info in self.objects.list("_delta_log/"))

    def commit_info(self, version: int) -> CommitInfo | None:
        """One commit, without opening the table; None when the log does not reach back to it."""
        raw = self.objects.read(f"_delta_log/{version:020d}.json")
        return None if raw is None else commit_info(version, raw)

    def snapshot_or_none(self, version: int | None = None) -> Snapshot | None:
        """The snapshot, or None when the table does not exist. Every other failure is raised."""
        try:
            return self.snapshot(version)
        except TableNotFound:
            return None

    def create(
        self,
        schema: Mapping[str, pl.DataType],
        *,
        add: Sequence[StagedFile] = (),
        txns: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        description: str | None = None,
    ) -> Snapshot:
        """Commit version 0. Raises ``CommitConflict`` when somebody else has created the table meanwhile.

        The library writes the commit into an empty folder, and one conditional write makes it this table's. On its
        own the library turns a lost race into a second commit, with the same rows again (measured: 2 of 40 races
        of four processes, deltalake 1.6.6).
        """
        first = f"_delta_log/{0:020d}.json"
        with translated(f"create {self.label}", self._folder):
            commit = first_commit(self.uri, self.name, schema, add, txns or {}, metadata or {}, description)
            self._make_folder()
            taken = self._has_commits() or not self.objects.put_if_absent(first, commit)
            # The answer to a successful write may be lost, and the repeated one is then refused.
            if taken and self.objects.read(first) != commit:
                raise CommitConflict(
                    f"{self.label}: somebody else has just created it",
                    hint="another run was faster; run again, what is done is skipped",
                )
        return self.snapshot(0)

    @property
    def _folder(self) -> Path | None:
        return None if self.objects.is_remote else Path(self.uri)

    def _make_folder(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _swept(self, written: Sequence[str]) -> Iterator[None]:
        """Remove the half-written files of a failed staging: on a full disk they would keep it full."""
        try:
            yield
        except Exception:  # whatever it was, it is raised again
            for name in written:
                with suppress(LakehouseError):
                    self.objects.delete(name)
            raise

    # -- staging: write or describe data files, without a commit ----------------------------------

    @patient
    def stage(self, frame: pl.LazyFrame, *, max_rows_per_file: int | None = None) -> list[StagedFile]:
        """Stream ``frame`` into new Parquet files of about the target size; an empty frame gives no file."""
        prefix = uuid.uuid4().hex
        written: list[str] = []

        def file_name(args: Any) -> str:
            written.append(f"{prefix}-{args.index_in_partition:05d}.parquet")
            return written[-1]

        with translated(f"write data files of {self.label}", self._folder), self._swept(written):
            self._make_folder()
            delta_ready(frame).sink_parquet(
                pl.PartitionBy(
                    self.uri,
                    file_path_provider=file_name,
                    max_rows_per_file=max_rows_per_file,
                    # Bytes in memory; a Parquet file of ours is about a quarter of that (measured on flights).
                    approximate_bytes_per_file=4 * self.target_file_bytes,
                ),
                compression="zstd",
                compression_level=self.compression_level,
                storage_options=self.options or None,
                mkdir=True,
            )
        staged = self.adopt(written)
        return [file for file in staged if file.num_records > 0]

    def read_staged(self, staged: Sequence[StagedFile], columns: Sequence[str]) -> pl.DataFrame:
        """Some columns of files that no commit names yet."""
        if not staged:
            return pl.DataFrame(schema=dict.fromkeys(columns, pl.Null()))
        with translated(f"read staged files of {self.label}"):
            uris = [f"{self.uri.rstrip('/')}/{file.path}" for file in staged]
            frame = pl.scan_parquet(uris, glob=False, storage_options=self.options or None)
            return frame.select(columns).collect(engine="streaming")

    def adopt(self, paths: Iterable[str]) -> list[StagedFile]:
        """Describe Parquet files that already lie in the table's folder: size, rows and statistics."""
        return [self._adopt_one(path.removeprefix(self.uri).lstrip("/")) for path in paths]

    @patient
    def _adopt_one(self, path: str) -> StagedFile:
        import pyarrow.parquet as pq

        with translated(f"read the footer of {self.label}/{path}"), self.objects.open(path) as reader:
            size = reader.seek(0, 2) or reader.tell()
            reader.seek(0)
            footer = pq.read_metadata(reader)
        return StagedFile(path, size, footer.num_rows, json.dumps(footer_stats(footer)))


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
        return self._read.handle.metadata().description  # type: ignore[no-any-return]

    def txn(self, app_id: str) -> int:
        """Highest version that ``app_id`` has committed, 0 when none."""
        with translated(f"transactions of {self.table.label}"):
            return self._read.txn(app_id)

    @property
    def _files(self) -> pl.DataFrame:
        with translated(f"files of {self.table.label}"):
            return self._read.files

    def files(self) -> pl.DataFrame:
        """One row per data file: path, uri, size_bytes, num_records, min.<column>, max.<column>, null_count.<column>."""
        return self._files

    def uris(self) -> list[str]:
        return self._files["uri"].to_list()

    def num_rows(self) -> int:
        return int(self._files["num_records"].sum() or 0)

    def size_bytes(self) -> int:
        return int(self._files["size_bytes"].sum() or 0)

    def files_in_range(self, column: str, low: Any, high: Any) -> list[str]:
        """URIs of the files that may hold a value of ``column`` in [low, high], judged by their statistics."""
        files = self._files
        if f"min.{column}" not in files.columns:
            return self.uris()
        outside = (pl.col(f"max.{column}") < low) | (pl.col(f"min.{column}") > high)
        return files.filter(outside.not_().fill_null(True))["uri"].to_list()

    def scan(
        self, columns: Sequence[str] | None = None, *, uris: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """The version's rows, or those of some of its files. Columns a file lacks are null."""
        chosen = self.uris() if uris is None else list(uris)
        frame = (
            pl.scan_parquet(
                chosen,
                schema=self._schema,
                missing_columns="insert",
                extra_columns="ignore",
                hive_partitioning=False,
                glob=False,
                storage_options=self.table.options or None,
            )
            if chosen
            else pl.LazyFrame(schema=self._schema)
        )
        return frame if columns is None else frame.select(columns)

    def commits(self) -> Iterator[CommitInfo]:
        """The commits up to this version, the newest first, as far back as the log reaches; read one by one.

        Not the library's ``history``: for a version that is not the newest (pinned, or overtaken meanwhile) it
        returns the newest commits of the table under the numbers of this version's (measured, deltalake 1.6.6).
        """
        for version in range(self.version, -1, -1):
            raw = self.table.objects.read(f"_delta_log/{version:020d}.json")
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
            self._own_handle().alter.add_columns(list(delta_schema(columns).fields))
        return self.table.snapshot()

    def commit(
        self,
        *,
        add: Sequence[StagedFile] = (),
        remove: Iterable[str] = (),
        txns: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        overwrite_schema: Mapping[str, pl.DataType] | None = None,
        data_change: bool = True,
    ) -> int:
        """Adopt and remove files in one atomic commit; the new version.

        Args:
            add: staged files of this table.
            remove: paths (relative, as in ``files()``) that the commit takes out.
            txns: application transactions, app id → batch number.
            metadata: JSON document kept in the commit, read back by ``history``.
            overwrite_schema: replace everything, with this schema; ``remove`` must then be empty.
            data_change: False when the rows that come are the rows that go, in other files.

        Raises:
            CommitConflict: what this snapshot read has changed since, or the transaction is taken.
        """
        from deltalake.transaction import RemoveAction

        before, mark = self.version, uuid.uuid4().hex
        remove, txns = list(remove), dict(txns or {})
        if remove or overwrite_schema is not None:
            # Whoever takes files out takes a turn. The library lets a commit that began before a compaction take the
            # same file out again, and the rows are there twice (measured: docs/decisions/0040).
            turn = names.app_id("files", self.table.name)
            txns[turn] = self.txn(turn) + 1
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        actions: list[Any] = [add_action(file, data_change=data_change) for file in add]
        if overwrite_schema is None:
            sizes = dict(self._files.select("path", "size_bytes").iter_rows())
            actions += [RemoveAction(path, data_change, now_ms, sizes[path], {}) for path in remove]
        with translated(f"commit to {self.table.label} after version {self.version}", self.table._folder):
            handle = self._own_handle()
            handle.create_write_transaction(
                actions,
                mode="append" if overwrite_schema is None else "overwrite",
                schema=handle.schema() if overwrite_schema is None else delta_schema(overwrite_schema),
                commit_properties=properties(txns, metadata or {}, mark),
            )
            handle.update_incremental()
            newest = handle.version()
            if newest != before + 1:
                handle.load_as_version(self._own_version(before, newest, mark))
        self._read = Version(handle, self.table.uri)
        if self.version == newest:
            RECENT.put(self.table.objects, self._read)
        return self.version

    def _own_handle(self) -> Any:
        """The version once more, to commit through: what is read is shared with others."""
        return self.table._open(self.version)

    def _own_version(self, before: int, newest: int, mark: str) -> int:
        """The version that this commit made, where others have committed between the read or after it."""
        for version in range(newest, before, -1):
            raw = self.table.objects.read(f"_delta_log/{version:020d}.json")
            if raw is not None and mark.encode() in raw:
                return version
        raise StorageError(
            f"{self.table.label}: the commit after version {before} is not in the log: another writer overwrote it",
            hint="lakehouse doctor (the store must refuse to create an object that is there)",
        )
