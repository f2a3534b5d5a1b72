"""Parquet files with their own types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import FAST, Care, Extract, KeptFile
from lakehouse.connectors.columns import as_text, clean_names, one_spelling
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.rejects import Reject, empty, first_line, keep, reject_file, rejects_of
from lakehouse.errors import SourceError

_ROW = f"{names.SOURCE_ROW}_index"


def read_parquet(files: Sequence[LocalFile], care: Care = FAST) -> Extract:
    """The rows of ``files``; see ``Extract``. A file with a broken footer is one reject, a damaged row group too.

    Files whose types differ are brought to a common type where one exists that keeps every value, else to text.
    """
    frames: list[pl.LazyFrame] = []
    rejects = [empty()]
    kept: list[KeptFile] = []
    for file in files:
        try:
            if file.name in care.refused:
                raise SourceError(care.refused[file.name])
            columns = _scan(file).drop(_ROW).collect_schema().names()
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
    """All frames in one, columns by name; a column whose types have no common one that keeps every value becomes text.

    Beside bytes, which need be no text, it becomes the bytes of that text.
    """
    if len(frames) == 1:
        return frames[0]
    frames = one_spelling(frames)
    schemas = [frame.collect_schema() for frame in frames]
    order = list(dict.fromkeys(name for schema in schemas for name in schema))
    typed = {name for schema in schemas for name, dtype in schema.items() if dtype != pl.Null}
    # A column without a type holds nothing, and must not make another file's numbers text.
    frames = [
        _in_microseconds(
            frame.drop(name for name, dtype in schema.items() if dtype == pl.Null and name in typed)
        )
        for frame, schema in zip(frames, schemas, strict=True)
    ]
    schemas = [frame.collect_schema() for frame in frames]
    for name in order:
        having = [place for place, schema in enumerate(schemas) if name in schema]
        if len({schemas[place][name] for place in having}) == 1:
            continue
        common = _common_dtype(name, [frames[place] for place in having])
        has_bytes = any(schemas[place][name] == pl.Binary for place in having)
        for place in having:
            dtype = schemas[place][name]
            if common is not None:
                value = pl.col(name).cast(common)
            elif has_bytes:
                value = pl.col(name) if dtype == pl.Binary else as_text(name, dtype).cast(pl.Binary)
            else:
                value = as_text(name, dtype)
            frames[place] = frames[place].with_columns(value.alias(name))
    return pl.concat(frames, how="diagonal").select(order)


def _in_microseconds(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Instants and durations as a table has them. The common type of two units would be the coarser one."""
    casts = []
    for name, dtype in frame.collect_schema().items():
        if isinstance(dtype, pl.Datetime):
            instant = pl.col(name).dt.cast_time_unit("us")
            casts.append(instant.dt.convert_time_zone("UTC") if dtype.time_zone else instant)
        elif isinstance(dtype, pl.Duration):
            casts.append(pl.col(name).dt.total_microseconds())
    return frame.with_columns(casts)


def _common_dtype(name: str, frames: list[pl.LazyFrame]) -> pl.DataType | None:
    """The type that holds every value of the column as it is; None where there is none, or it is text."""
    dtypes = [frame.collect_schema()[name] for frame in frames]
    if not _are_alike(dtypes):
        return None
    try:
        empty_columns = [pl.DataFrame(schema={name: dtype}) for dtype in dtypes]
        common = pl.concat(empty_columns, how="vertical_relaxed").schema[name]
    except (pl.exceptions.SchemaError, pl.exceptions.InvalidOperationError):
        return None
    keeps = all(
        _keeps_values(frame, name, dtype, common) for frame, dtype in zip(frames, dtypes, strict=True)
    )
    return common if keeps else None


def _are_alike(dtypes: Iterable[Any]) -> bool:
    """Whether the types, and those within them, are of one kind. A common type of others means something else: to Polars
    a boolean is a 1, and a date a number."""
    dtypes = [dtype for dtype in dtypes if dtype != pl.Null]
    if len({_kind(dtype) for dtype in dtypes}) > 1:
        return False
    within: dict[str, list[Any]] = {}
    for dtype in dtypes:
        if isinstance(dtype, (pl.List, pl.Array)):
            within.setdefault("", []).append(dtype.inner)
        elif isinstance(dtype, pl.Struct):
            for field in dtype.fields:
                within.setdefault(field.name, []).append(field.dtype)
    return all(_are_alike(inner) for inner in within.values())


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    return "moment" if isinstance(dtype, (pl.Date, pl.Datetime)) else dtype.base_type().__name__


def _keeps_values(frame: pl.LazyFrame, name: str, source: pl.DataType, target: pl.DataType) -> bool:
    """True when each value is the same after a cast and back: a float has no place for every integer or decimal."""
    if source == target or (source.is_integer() and target.is_integer()):
        return True
    there_and_back = pl.col(name).cast(target, strict=False).cast(source, strict=False)
    is_kept = there_and_back.eq_missing(pl.col(name)).all()
    try:
        return bool(frame.select(is_kept).collect(engine="streaming").item())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001  nested values without a cast, or damage, which shows again when the rows are read
        return False
