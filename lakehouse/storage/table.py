"""One Delta table: immutable snapshots, staged data files, one atomic commit.

Every write of the lake goes the same way: data files are written into the table's folder (nobody sees
them), described, and then adopted by one commit that carries rows, removals, application transactions and
metadata together. Measured: Polars ``sink_parquet`` plus adoption is 1.4 times as fast as ``sink_delta``.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict, LakehouseError, StorageError, TableNotFound
from lakehouse.storage.commits import (
    CommitInfo,
    StagedFile,
    commit_info,
    first_commit,
)
from lakehouse.storage.failures import translated
from lakehouse.storage.objects import Objects, sync_file, sync_folder
from lakehouse.storage.retry import patient
from lakehouse.storage.schema import delta_ready
from lakehouse.storage.snapshot import Snapshot
from lakehouse.storage.stats import footer_stats, stats_json
from lakehouse.storage.version import RECENT, Version

#: Rows of one row group: what a reader decodes at least, who wants rows that a column's bounds tell apart.
ROW_GROUP_ROWS = 30_720
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
        target_file_bytes: int = 32 << 20,
        compression_level: int = 1,
        deletion_vector_min_rows: int = 20_000,
    ) -> None:
        self.uri = uri
        self.layer = layer
        self.name = name
        self.options = dict(options or {})
        self.target_file_bytes = target_file_bytes
        self.compression_level = compression_level
        self.deletion_vector_min_rows = deletion_vector_min_rows
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
            known = RECENT.get(self.objects) if version is None else RECENT.at(self.objects, version)
            if known is not None:
                return Snapshot(self, known)
            earlier = RECENT.outdated(self.objects) if version is None else None
            if earlier is not None and (newest := earlier.caught_up()) is not None:
                RECENT.put(self.objects, newest)
                return Snapshot(self, newest)
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
                    raise StorageError(
                        f"{self.label} is there, but cannot be read: {error}", hint="lakehouse doctor"
                    ) from error
            except deltalake.exceptions.DeltaError as error:
                if version is not None and "version" in str(error).lower():
                    raise TableNotFound(
                        f"{self.label} has no version {version}: {error}",
                        hint="lakehouse doctor says which tables can be read",
                    ) from error
                raise
        opened = Version(handle, self.objects, self._open, earlier)
        opened.refuse_reading(self.label)
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
            self.sync(add)
            taken = self._has_commits() or not self.objects.put_if_absent(first, commit, durable=True)
            # The answer to a successful write may be lost, and the repeated one is then refused.
            if taken and self.objects.read(first) != commit:
                raise CommitConflict(
                    f"{self.label}: somebody else has just created it",
                    hint="another run was faster; run again, what is done is skipped",
                )
            if self._folder is not None:  # the log's folder, the table's and the layer's are new names, too
                for folder in (self._folder, *self._folder.parents[:2]):
                    sync_folder(folder)
        return self.snapshot(0)

    @property
    def _folder(self) -> Path | None:
        return None if self.objects.is_remote else Path(self.uri)

    def _make_folder(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def sync(self, files: Iterable[StagedFile]) -> None:
        """Return when a loss of power cannot take these files away: the log must not name what is not there."""
        if self._folder is not None:  # a remote store answers only then
            for file in files:
                sync_file(self._folder / file.path)
            sync_folder(self._folder)

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
    def stage(
        self, frame: pl.LazyFrame, *, max_rows_per_file: int | None = None, apart: pl.Expr | None = None
    ) -> list[StagedFile]:
        """Stream ``frame`` into new Parquet files of about the target size; an empty frame gives no file.

        Args:
            apart: rows for which it is true get files of their own. The frame is then computed twice.
        """
        parts = [frame] if apart is None else [frame.filter(apart), frame.filter(apart.not_())]
        written: list[str] = []
        with translated(f"write data files of {self.label}", self._folder), self._swept(written):
            self._make_folder()
            for part in parts:
                self._sink(part, max_rows_per_file, written)
        staged = self.adopt(written)
        for file in staged:
            if file.num_records == 0:  # the writer leaves one even of nothing
                self.objects.delete(file.path)
        return [file for file in staged if file.num_records > 0]

    def _sink(self, frame: pl.LazyFrame, max_rows_per_file: int | None, written: list[str]) -> None:
        prefix = uuid.uuid4().hex

        def file_name(args: Any) -> str:
            name = f"{prefix}-{args.index_in_partition:05d}.parquet"
            written.append(name)  # several threads may ask at once: the last one need not be this one
            return name

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
            row_group_size=ROW_GROUP_ROWS,
            storage_options=self.options or None,
            mkdir=True,
        )

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

    def _adopt_one(self, path: str) -> StagedFile:
        footer, size = self.footer(path)
        return StagedFile(path, size, footer.num_rows, stats_json(footer_stats(footer)))

    @patient
    def footer(self, path: str) -> tuple[Any, int]:
        """What a data file says of itself (PyArrow's ``FileMetaData``), and its size in bytes."""
        import pyarrow.parquet as pq

        with translated(f"read the footer of {self.label}/{path}"), self.objects.open(path) as reader:
            size = reader.seek(0, 2) or reader.tell()
            reader.seek(0)
            return pq.read_metadata(reader), size
