"""Parquet files with their own types."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import REJECT_SCHEMA, Extract
from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.salvage import reject_file


def read_parquet(files: Sequence[LocalFile], *, careful: bool) -> Extract:
    """The rows of ``files``; see ``Extract``. A file with a broken footer is one reject.

    Files whose types differ are brought to a common type where one exists (``diagonal_relaxed``), else to text.
    """
    frames: list[pl.LazyFrame] = []
    rejects = [pl.DataFrame(schema=REJECT_SCHEMA)]
    for file in files:
        try:
            columns = list(pl.read_parquet_schema(file.path))
            if careful:  # a damaged page shows only when it is decoded
                pl.scan_parquet(file.path, glob=False).select(pl.all().null_count()).collect(
                    engine="streaming"
                )
        except Exception as error:  # noqa: BLE001  whatever the reader raises, this file cannot be read
            rejects.append(reject_file(file, f"parquet: unreadable: {str(error).splitlines()[0][:200]}"))
            continue
        row = f"{names.SOURCE_ROW}_index"
        frames.append(
            pl.scan_parquet(
                file.path, row_index_name=row, row_index_offset=1, glob=False, hive_partitioning=False
            )
            .rename(dict(zip(columns, clean_names(columns), strict=True)))
            .with_columns(
                pl.col(row).cast(pl.Int64).alias(names.SOURCE_ROW), pl.lit(file.name).alias(names.SOURCE_FILE)
            )
            .drop(row)
        )
    empty = pl.LazyFrame(schema={names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()})
    return Extract(_together(frames) if frames else empty, pl.concat(rejects))


def _together(frames: list[pl.LazyFrame]) -> pl.LazyFrame:
    """All frames in one, columns by name; a column whose types have no common one becomes text."""
    if len(frames) == 1:
        return frames[0]
    try:
        together = pl.concat(frames, how="diagonal_relaxed")
        together.collect_schema()
        return together
    except (pl.exceptions.SchemaError, pl.exceptions.InvalidOperationError):
        schemas = [frame.collect_schema() for frame in frames]
        kinds: dict[str, set[pl.DataType]] = {}
        for schema in schemas:
            for name, dtype in schema.items():
                kinds.setdefault(name, set()).add(dtype)
        mixed = [name for name, dtypes in kinds.items() if len(dtypes) > 1]
        return pl.concat(
            [
                frame.with_columns(pl.col(c).cast(pl.String) for c in mixed if c in frame.collect_schema())
                for frame in frames
            ],
            how="diagonal_relaxed",
        )
