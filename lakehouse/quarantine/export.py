"""Export: refused rows into a file that a person can look at, repair and land again."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from lakehouse.errors import WrongUsage
from lakehouse.pipelines.model import SourceSpec
from lakehouse.quarantine import landable
from lakehouse.storage.failures import translated

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
_JOINED = "; "


def export(
    rows: pl.DataFrame,
    target: Path,
    *,
    source: SourceSpec | None = None,
    types: Mapping[str, pl.DataType] | None = None,
    overwrite: bool = False,
) -> int:
    """Write refused rows to ``target`` (CSV, JSONL or Parquet by its ending); the number of rows written.

    The file has every column of quarantine, ``_raw`` with the row as it came. With ``source``: only the source's own
    columns, taken from ``_raw`` and written as its files are (format, delimiter, encoding …), so that the corrected
    file can be landed as it is; ``types`` are those of its bronze table. Lines that could not be read into columns (stage bronze) are not among those.

    Raises:
        WrongUsage: the ending says no format, or not the source's; the file exists and ``overwrite`` is false.
        PermanentError: a value cannot be written as the source writes.
    """
    ending = target.suffix.lower()
    if source is not None and ending not in (fitting := landable.endings(source)):
        raise WrongUsage(
            f"{target}: the source's files are {source.format}, and a file that is to land there ends in {' or '.join(fitting)}",
            hint=f"--to {target.stem or 'refused'}{fitting[0]}, or leave out --landable",
        )
    if source is None and ending not in ENDINGS:
        raise WrongUsage(
            f"{target}: the file's ending says the format, and {ending or 'none'} is not one of {', '.join(ENDINGS)}",
            hint=f"--to {target.stem or 'refused'}.csv",
        )
    if target.exists() and not overwrite:
        raise WrongUsage(f"{target} exists already", hint="choose another name, or add --overwrite")
    records = [] if source is None else landable.records(rows)
    # A reader never sees half a file.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with translated(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source is not None:
                landable.write(records, part, source, types or {})
            elif ending == ".csv":
                _flat(rows).write_csv(part)
            elif ending == ".parquet":
                rows.write_parquet(part)
            else:
                rows.write_ndjson(part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return rows.height if source is None else len(records)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as text and nested values as JSON, which CSV has no form for."""
    columns = []
    for name, dtype in frame.schema.items():
        if dtype == pl.List(pl.String):
            columns.append(pl.col(name).list.join(_JOINED))
        elif isinstance(dtype, pl.Datetime):
            columns.append(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    return frame.with_columns(columns)
