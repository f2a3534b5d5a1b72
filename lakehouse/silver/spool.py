"""Rows on local disk while a stage works on them, so that memory holds no more of them than it may."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import polars as pl

from lakehouse import scratch
from lakehouse.errors import ContractError
from lakehouse.memory import SharedMemory
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.silver.prepare import prepare

_SLICE = "__slice"
#: Share of the memory limit that rows may take at their peak; the rest is for the process itself (0.6 went 3 % over a limit of 1 GiB).
_ROWS_SHARE = 0.5
#: How often typed rows are held at once at the peak of a stage, in each write mode (measured: 2.5, and 4.3 of a history).
_COPIES = {"append": 2.5, "upsert": 3.0, "history": 5.0}
#: So many rows are always held.
_FEW = 20_000
#: Rows of one row group of a spool file: what a streaming read of it holds at once.
_SPOOL_GROUP = 100_000
#: Spool files live for seconds: speed counts, not size.
_COMPRESSION: Literal["lz4"] = "lz4"


class Spool:
    """A folder of one stage run, made when first needed and gone when the run ends.

    Args:
        sample: some rows of bronze; from their size, and that of what the pipeline makes of them, follows how many rows
            are held at once.
        memory: what the stages of this process share; default is all of the settings' limit.
    """

    def __init__(
        self, settings: Settings, pipeline: Pipeline, sample: pl.LazyFrame, memory: SharedMemory | None = None
    ) -> None:
        self.folder = scratch.new_folder(settings.state_dir)
        self.index_folder = Path(settings.state_dir, "index")
        self.index_min_rows = settings.key_index_min_rows
        self.copies_folder = Path(settings.state_dir, "rows")
        self.copies_bytes = settings.row_copies_bytes
        self._memory = memory or SharedMemory(settings.memory_limit_bytes)
        self._taken_bytes: int | None = None
        self._pipeline, self._sample = pipeline, sample

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._taken_bytes is not None:
            self._memory.give_back(self._taken_bytes)
            self._taken_bytes = None

    def expect(self, rows: int) -> None:
        """Take as much of the shared memory as so many rows need, where there is as much."""
        if self._taken_bytes is None and rows > _FEW:
            # A row more than there are: what is taken is whole bytes, and a fraction less would send all rows to disk.
            self._taken_bytes = self._memory.take(int((rows + 1) * self._row_bytes / _ROWS_SHARE))

    @property
    def memory_bytes(self) -> int:
        if self._taken_bytes is None:
            self._taken_bytes = self._memory.take(0)
        return self._taken_bytes

    @cached_property
    def rows_that_fit(self) -> int:
        """How many rows the stage may hold at once, judged by the memory that the sample takes."""
        return max(int(self.memory_bytes * _ROWS_SHARE / self._row_bytes), _FEW)

    @cached_property
    def _row_bytes(self) -> float:
        """What a row of bronze takes at the stage's peak: as text, and typed with its flags and lineage."""
        sample = self._sample.head(1_000).collect(engine="streaming")
        text = sample.estimated_size()
        try:
            typed = prepare(sample.lazy(), self._pipeline).collect().estimated_size()
        except pl.exceptions.PolarsError:  # a value stops the transform: told where all rows go through it
            typed = text
        copies = _COPIES[self._pipeline.spec.silver.mode]
        return max((text + copies * typed) / max(sample.height, 1), 32.0)

    def _fits(self, rows: int) -> bool:
        return rows <= _FEW or rows <= self.rows_that_fit

    def hold(self, frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        """``frame`` read into memory when its ``rows`` fit, for who looks at it more than once; else as it is."""
        return frame.collect(engine="streaming").lazy() if self._fits(rows) else frame

    def materialize(self, frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        """``frame``, computed once: in memory when its ``rows`` fit the limit, else on disk.

        Raises:
            ContractError: a value stops the transform; the table is left unchanged.
        """
        try:
            return self._materialize(frame, rows)
        except pl.exceptions.PolarsError as error:
            raise ContractError(
                f"a value stops the transform: {str(error).strip().splitlines()[0]}; the table is left unchanged",
                hint="in the transform, let what does not fit become null (strict=False): the contract judges it then",
            ) from error

    def _materialize(self, frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        if self._fits(rows):
            return frame.collect(engine="streaming").lazy()
        return pl.scan_parquet(self._to_disk(frame), glob=False)

    def _to_disk(self, frame: pl.LazyFrame) -> Path:
        folder = self.folder / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}.parquet"
        frame.sink_parquet(path, compression=_COMPRESSION, row_group_size=_SPOOL_GROUP)
        return path

    def slices(self, changes: pl.LazyFrame, rows: int, key: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The changes in pieces that fit the memory limit; all rows of one key are in the same piece.

        Every piece is one chunk: to take rows out of many chunks cost five times as much (measured, a million rows).
        """
        if self._fits(rows):
            yield changes.collect(engine="streaming").rechunk()
            return
        # Half, because each is cut out of chunks of as many rows: whole ones went over a limit of 1 GiB (measured).
        limit = max(self.rows_that_fit // 2, 1)
        count = -(-rows // limit)
        # Computed once, then cut: a query that is asked for one slice after the other may have its rows in another order each
        # time (a join has none: 300,000 rows in five slices came as 220,000 distinct ones, the others twice).
        whole = self._to_disk(changes)
        folder = self.folder / "slices" / uuid.uuid4().hex
        number = (pl.struct(key).hash(seed=0) % count).alias(_SLICE)
        # Chunk by chunk, because one partitioned sink of the whole held 2.3 GB for 20 million rows (measured).
        for index in range(count):
            piece = pl.scan_parquet(whole, glob=False).slice(index * limit, limit).with_columns(number)
            chunk = piece.collect(engine="streaming")
            for (part,), rows_of_part in chunk.partition_by(_SLICE, as_dict=True, include_key=False).items():
                target = folder / f"{part:05d}" / f"{index:05d}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                rows_of_part.write_parquet(target, compression=_COMPRESSION)
        whole.unlink()
        for part_folder in sorted(folder.iterdir()):
            parts = sorted(part_folder.iterdir())
            yield pl.read_parquet(parts, glob=False, hive_partitioning=False).rechunk()

    def park(self, output: pl.DataFrame) -> pl.LazyFrame:
        """A slice's rows on disk until the commit: memory holds one slice at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"merged-{uuid.uuid4().hex}.parquet"
        output.write_parquet(path, compression=_COMPRESSION)
        return pl.scan_parquet(path, glob=False)
