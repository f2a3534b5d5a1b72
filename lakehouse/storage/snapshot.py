"""One version of one table: its rows, files and transactions, and the one commit that may follow it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from lakehouse import names
from lakehouse.errors import StorageError
from lakehouse.storage.commits import CommitInfo, StagedFile, add_action, commit_info, properties
from lakehouse.storage.failures import translated
from lakehouse.storage.schema import delta_schema
from lakehouse.storage.version import RECENT, Version

if TYPE_CHECKING:
    from lakehouse.storage.table import Table


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
        self._read = Version(handle, self.table.uri, self.table._open)
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
