"""Parquet files with their own types."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import FAST, Care, Extract, KeptFile
from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.rejects import Reject, empty, first_line, keep, reject_file, rejects_of
from lakehouse.errors import SourceError

_ROW = f"{names.SOURCE_ROW}_index"


def read_parquet(files: Sequence[LocalFile], care: Care = FAST) -> Extract:
    """The rows of ``files``; see ``Extract``. A file with a broken footer is one reject, a damaged row group too.

    Files whose types differ are brought to a common type where one exists (``diagonal_relaxed``), else to text.
    """
    frames: list[pl.LazyFrame] = []
    rejects = [empty()]
    kept: list[KeptFile] = []
    for file in files:
        try:
            if file.name in care.refused:
                raise SourceError(care.refused[file.name])
            columns = list(pl.read_parquet_schema(file.path))
            parts, broken = _sound_groups(file) if file.name in care.careful else ([_scan(file)], [])
        except Exception as error:  # noqa: BLE001  whatever the reader raises, this file cannot be read
            kept.append(keep(file))
            rejects.append(reject_file(file, f"parquet: unreadable: {first_line(error)}", kept[-1]))
            continue
        if broken:
            kept.append(keep(file))
            rejects.append(
                rejects_of(
                    file, [(r, f"{p}, file kept as {kept[-1].lake_path}", w, raw) for r, p, w, raw in broken]
                )
            )
        frames += [
            part.rename(dict(zip(columns, clean_names(columns), strict=True)))
            .with_columns(
                pl.col(_ROW).cast(pl.Int64).alias(names.SOURCE_ROW),
                pl.lit(file.name).alias(names.SOURCE_FILE),
            )
            .drop(_ROW)
            for part in parts
        ]
    none = pl.LazyFrame(schema={names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()})
    return Extract(_together(frames) if frames else none, pl.concat(rejects), kept=tuple(kept))


def _scan(file: LocalFile) -> pl.LazyFrame:
    return pl.scan_parquet(
        file.path, row_index_name=_ROW, row_index_offset=1, glob=False, hive_partitioning=False
    )


def _sound_groups(file: LocalFile) -> tuple[list[pl.LazyFrame], list[Reject]]:
    """The row groups that can be decoded, and a reject for each that cannot: damage shows only on decoding."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(file.path)
    parts: list[pl.LazyFrame] = []
    broken: list[Reject] = []
    first = 0
    for group in range(footer.num_row_groups):
        rows = footer.row_group(group).num_rows
        part = _scan(file).slice(first, rows)
        why = trouble(part)
        if why is None:
            parts.append(part)
        else:
            position = f"row group {group + 1}, rows {first + 1} to {first + rows}"
            broken.append((first + 1, position, f"parquet: damaged page: {why}", ""))
        first += rows
    return parts or [_scan(file).head(0)], broken


def trouble(frame: pl.LazyFrame) -> str | None:
    """What goes wrong when every value of ``frame`` is decoded; None when nothing does."""
    try:
        frame.select(pl.all().null_count()).collect(engine="streaming")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  a decoder that panics raises outside Exception
        return first_line(error)
    return None


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
