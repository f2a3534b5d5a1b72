"""Export: refused rows into a file that a person can look at, repair and land again."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import PermanentError
from lakehouse.storage.failures import translated

ENDINGS = (".csv", ".jsonl", ".ndjson", ".parquet")
_JOINED = "; "


def export(rows: pl.DataFrame, target: Path, *, landable: bool = False, overwrite: bool = False) -> int:
    """Write refused rows to ``target`` (CSV, JSONL or Parquet by its ending); the number of rows written.

    The file has every column of quarantine, ``_raw`` with the row as it came. ``landable``: only the source's own
    columns, taken from ``_raw``, so that the corrected file can be landed as it is. Lines that could not be read
    into columns (stage bronze) are not among those.

    Raises:
        PermanentError: the ending says no format, or the file exists and ``overwrite`` is false.
    """
    ending = target.suffix.lower()
    if ending not in ENDINGS:
        raise PermanentError(
            f"{target}: the file's ending says the format, and {ending or 'none'} is not one of {', '.join(ENDINGS)}",
            hint=f"--to {target.stem or 'refused'}.csv",
        )
    if target.exists() and not overwrite:
        raise PermanentError(f"{target} exists already", hint="choose another name, or add --overwrite")
    records = _records(rows) if landable else []
    # A reader never sees half a file.
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with translated(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if landable:
                _write_records(records, part, ending)
            elif ending == ".csv":
                _flat(rows).write_csv(part)
            elif ending == ".parquet":
                rows.write_parquet(part)
            else:
                rows.write_ndjson(part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    return len(records) if landable else rows.height


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists as text and nested values as JSON, which CSV has no form for."""
    columns = []
    for name, dtype in frame.schema.items():
        if dtype == pl.List(pl.String):
            columns.append(pl.col(name).list.join(_JOINED))
        elif isinstance(dtype, pl.Datetime):
            columns.append(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    return frame.with_columns(columns)


def _records(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The source's records: what bronze added is left out, what it rescued is put back."""
    records = []
    for raw in rows.filter(pl.col("_stage") == "silver")["_raw"]:
        record: dict[str, Any] = json.loads(raw)
        rescued = record.pop(names.RESCUED, None)
        records.append(record | (json.loads(rescued) if isinstance(rescued, str) else {}))
    return records


def _write_records(records: list[dict[str, Any]], path: Path, ending: str) -> None:
    if ending in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
        return
    columns = list(dict.fromkeys(name for record in records for name in record))
    if ending == ".parquet":
        pl.from_dicts(
            [{name: r.get(name) for name in columns} for r in records], infer_schema_length=None
        ).write_parquet(path)
        return
    data = {name: [_text(record.get(name)) for record in records] for name in columns}
    pl.DataFrame(data, schema=dict.fromkeys(columns, pl.String())).write_csv(path)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
