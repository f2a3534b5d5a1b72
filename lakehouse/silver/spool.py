"""Rows on local disk while a stage works on them, so that memory holds no more of them than it may."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import polars as pl

from lakehouse.errors import ContractError
from lakehouse.settings import Settings

_SLICE = "__slice"
#: Share of the memory limit that the changes of one slice may take, as the sample gives them; merging needs a few times
#: that (what just fits takes six times as much at its peak: 0.25 went over the limit in tests/e2e/test_memory.py).
_SLICE_SHARE = 0.14
#: Rows of one row group of a spool file: what a streaming read of it holds at once.
_SPOOL_GROUP = 100_000
#: Spool files live for seconds: speed counts, not size.
_COMPRESSION: Literal["lz4"] = "lz4"


class Spool:
    """A folder of one stage run, made when first needed and gone when the run ends.

    Args:
        sample: some rows of the input; from their size follows how many rows are held at once. Typed rows,
            their flags and their lineage take about as much again as the source's own.
    """

    def __init__(self, settings: Settings, sample: pl.LazyFrame) -> None:
        self.folder = Path(settings.state_dir, "spool", uuid.uuid4().hex)
        self.index_folder = Path(settings.state_dir, "index")
        self.index_min_rows = settings.key_index_min_rows
        self.memory_bytes = settings.memory_limit_bytes
        self._sample = sample
        self._rows_that_fit: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def rows_that_fit(self) -> int:
        """How many rows the stage may hold at once, judged by the memory that the sample takes."""
        if self._rows_that_fit is None:
            sample = self._sample.head(1_000).collect(engine="streaming")
            row_bytes = max(2 * sample.estimated_size() / max(sample.height, 1), 32.0)
            self._rows_that_fit = max(int(self.memory_bytes * _SLICE_SHARE / row_bytes), 20_000)
        return self._rows_that_fit

    def hold(self, frame: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        """``frame`` read into memory when its ``rows`` fit, for who looks at it more than once; else as it is."""
        return frame.collect(engine="streaming").lazy() if rows <= self.rows_that_fit else frame

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
        if rows <= self.rows_that_fit:
            return frame.collect(engine="streaming").lazy()
        folder = self.folder / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}.parquet"
        frame.sink_parquet(path, compression=_COMPRESSION, row_group_size=_SPOOL_GROUP)
        return pl.scan_parquet(path, glob=False)

    def slices(self, changes: pl.LazyFrame, rows: int, key: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The changes in pieces that fit the memory limit; all rows of one key are in the same piece.

        Every piece is one chunk: to take rows out of many chunks cost five times as much (measured, a million rows).
        """
        limit = self.rows_that_fit
        if rows <= limit:
            yield changes.collect(engine="streaming").rechunk()
            return
        count = -(-rows // limit)
        folder = self.folder / "slices" / uuid.uuid4().hex
        number = (pl.struct(key).hash(seed=0) % count).alias(_SLICE)
        # Chunk by chunk, because one partitioned sink of the whole held 2.3 GB for 20 million rows (measured).
        for index in range(count):
            chunk = changes.slice(index * limit, limit).with_columns(number).collect(engine="streaming")
            for (part,), piece in chunk.partition_by(_SLICE, as_dict=True, include_key=False).items():
                target = folder / f"{part:05d}" / f"{index:05d}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                piece.write_parquet(target, compression=_COMPRESSION)
        for part_folder in sorted(folder.iterdir()):
            yield pl.read_parquet(part_folder / "*.parquet", hive_partitioning=False).rechunk()

    def park(self, output: pl.DataFrame) -> pl.LazyFrame:
        """A slice's rows on disk until the commit: memory holds one slice at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"merged-{uuid.uuid4().hex}.parquet"
        output.write_parquet(path, compression=_COMPRESSION)
        return pl.scan_parquet(path, glob=False)
