"""The analysts' catalog: one DuckDB file of views over the Parquet files of a restore point.

Any DuckDB from 1.1 on opens it read-only, offline and without extensions. It is generated from the point alone and
swapped by rename: whoever has the old file open goes on reading the old point, whose files no vacuum removes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lakehouse.errors import PointLost
from lakehouse.gold.relations import source_of
from lakehouse.gold.restore_points import RestorePoint, load
from lakehouse.gold.versions import commit_document
from lakehouse.settings import Settings
from lakehouse.storage import Lake, Snapshot, connect_duckdb, quote_identifier, quote_literal
from lakehouse.storage.schema import instance

#: DuckDB's own format of 2024, which every later version reads.
STORAGE_VERSION = "v1.0.0"
INFO_SCHEMA = "lakehouse_info"
_SCHEMAS: dict[Literal["gold", "silver"], str] = {"gold": "main", "silver": "silver"}
_STALE_TEMP_SECONDS = 3600


@dataclass(frozen=True)
class _View:
    schema: str
    snapshot: Snapshot
    description: str
    columns: Mapping[str, str]
    watermark_utc: str | None


def regenerate(lake: Lake, settings: Settings, point: RestorePoint, *, contract_texts: bool = True) -> Path:
    """Write the catalog of ``point`` beside the one that is there, then take its place in one rename.

    Args:
        contract_texts: say of silver's columns what their contracts do. Reading those takes a second: not where readers wait for it.

    Raises:
        TableNotFound: a version that the point names is gone. The catalog that is there stays.
    """
    target = settings.catalog_path
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target)
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    _remove(temporary)
    connection = connect_duckdb(settings)
    try:
        connection.execute(
            f"ATTACH {quote_literal(str(temporary))} AS c (STORAGE_VERSION '{STORAGE_VERSION}')"
        )
        # One transaction: a few hundred statements, one checkpoint.
        connection.execute("USE c")
        connection.execute("BEGIN")
        texts = _contract_texts(settings) if contract_texts else {}
        _write(connection, _views(lake, point, texts), point, settings.root)
        connection.execute("COMMIT")
        connection.execute("USE memory")
        connection.execute("DETACH c")
        os.replace(temporary, target)
    finally:
        connection.close()
        _remove(temporary)
    return target


def is_current(settings: Settings, point: RestorePoint) -> bool:
    """True when the catalog is there, can be opened, and shows this point of the lake where it lies now."""
    return shown_point_id(settings) == point.id


def shown_point_id(settings: Settings) -> str | None:
    """Id of the point that the catalog shows; None when there is none, or it cannot be read, or the lake lay elsewhere then."""
    import duckdb

    if not settings.catalog_path.is_file():
        return None
    try:
        # Attached, not opened: within a process DuckDB would answer from a file it has open under the same path.
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {quote_literal(str(settings.catalog_path))} AS c (READ_ONLY)")
            row = connection.execute(f"SELECT id, root FROM c.{INFO_SCHEMA}.restore_point").fetchone()
    except duckdb.Error:
        return None
    return str(row[0]) if row is not None and row[1] == settings.root else None


def point_shown(lake: Lake, settings: Settings, point: RestorePoint) -> RestorePoint:
    """The point that analysts see on this machine: ``point``, which is the published one, or the one before it for as long as
    the catalog could not be made again.

    What is asked for all the time costs a look at a file: the catalog itself is opened where it is older than the point.
    """
    try:
        made = settings.catalog_path.stat().st_mtime
    except FileNotFoundError:  # analysts are elsewhere, or were never here
        return point
    if made >= datetime.fromisoformat(point.created_at_utc).timestamp():
        return point
    shown = shown_point_id(settings)
    if shown is None or shown == point.id:
        return point
    try:
        return load(lake, shown)
    except PointLost:
        return point


def _views(lake: Lake, point: RestorePoint, texts: Mapping[str, tuple[str, dict[str, str]]]) -> list[_View]:
    views = []
    for layer, schema in _SCHEMAS.items():
        for table, version in sorted(point.versions(layer).items()):
            snapshot = lake.table(layer, table).snapshot(version)
            if layer == "gold":
                document = commit_document(snapshot, "gold")[0]
                description, columns = str(document.get("description", "")), document.get("columns", {})
                watermark = point.watermarks.get(table)
            else:
                description, columns = texts.get(table, (snapshot.description or "", {}))
                watermark = point.sources.get(table, {}).get("watermark_utc")
            views.append(_View(schema, snapshot, description, columns, watermark))
    return views


def _contract_texts(settings: Settings) -> dict[str, tuple[str, dict[str, str]]]:
    """Description of each silver table and of its columns, as its contract gives them today."""
    from lakehouse.errors import DeclarationError, SettingsError
    from lakehouse.pipelines import load_pipelines

    texts = {}
    try:
        for name, pipeline in load_pipelines(settings).items():
            contract = pipeline.contract
            columns = {column.name: column.description for column in contract.columns}
            texts[name] = (contract.description or pipeline.spec.description, {**_SILVER_COLUMNS, **columns})
    except (DeclarationError, SettingsError):
        # A declaration that somebody is editing, or moving, must not keep good data from its readers: texts come back later.
        return texts
    return texts


#: Columns that silver tables have beside their contract's.
_SILVER_COLUMNS = {
    "_batch_id": "Batch of the source that brought the row",
    "_source_file": "File that the row came from",
    "_source_row": "Row number in that file, from 1",
    "_ingested_at_utc": "When the row entered the lake (UTC)",
    "_rescued": "JSON of values that the table has no column for",
    "valid_from_utc": "Start of the time in which this version of the row held (UTC, inclusive)",
    "valid_to_utc": "End of that time (UTC, exclusive); null while it holds",
    "_observed_at_utc": "Instants at which this version of the row was seen (UTC)",
    "is_current": "True for the version that holds now",
}


def _write(connection: Any, views: list[_View], point: RestorePoint, root: str) -> None:
    connection.execute("CREATE SCHEMA silver")
    connection.execute(f"CREATE SCHEMA {INFO_SCHEMA}")
    for view in views:
        _write_view(connection, view)
    connection.execute(
        f"CREATE TABLE {INFO_SCHEMA}.restore_point (id VARCHAR, created_at_utc TIMESTAMP, run_id VARCHAR, "
        "parent_id VARCHAR, gold_code_hash VARCHAR, root VARCHAR)"
    )
    _insert(
        connection,
        "restore_point",
        [point.id, _naive(point.created_at_utc), point.run_id, point.parent_id, point.gold_code_hash, root],
    )
    connection.execute(
        f"COMMENT ON TABLE {INFO_SCHEMA}.restore_point IS 'The restore point that this catalog shows: one row'"
    )
    connection.execute(
        f'CREATE TABLE {INFO_SCHEMA}.tables ("schema" VARCHAR, "table" VARCHAR, version BIGINT, rows BIGINT, '
        "bytes BIGINT, watermark_utc TIMESTAMP, description VARCHAR)"
    )
    for v in views:
        snapshot = v.snapshot
        row: list[str | int] = [
            v.schema,
            snapshot.table.name,
            snapshot.version,
            snapshot.num_rows(),
            snapshot.size_bytes(),
        ]
        _insert(connection, "tables", [*row, _naive(v.watermark_utc), v.description])
    connection.execute(
        f"COMMENT ON TABLE {INFO_SCHEMA}.tables IS 'One row per view: its table version, rows, and the time up to which it is complete'"
    )


def _insert(connection: Any, table: str, row: Sequence[str | int | datetime | None]) -> None:
    """As literals: to bind parameters DuckDB's Python package imports pandas, half a second for which readers would wait."""
    values = (
        "NULL" if value is None
        else str(value) if isinstance(value, int)
        else quote_literal(value.isoformat(" ") if isinstance(value, datetime) else value)
        for value in row
    )  # fmt: skip
    connection.execute(f"INSERT INTO {INFO_SCHEMA}.{table} VALUES ({', '.join(values)})")


def _write_view(connection: Any, view: _View) -> None:
    schema = view.snapshot.schema()
    name = f"{view.schema}.{quote_identifier(view.snapshot.table.name)}"
    columns = ", ".join(_column(column, dtype) for column, dtype in schema.items())
    connection.execute(f"CREATE VIEW {name} AS SELECT {columns} FROM {source_of(view.snapshot)} AS t")
    if view.description:
        connection.execute(f"COMMENT ON VIEW {name} IS {quote_literal(view.description)}")
    for column in schema:
        text = view.columns.get(column)
        if text:
            connection.execute(
                f"COMMENT ON COLUMN {name}.{quote_identifier(column)} IS {quote_literal(text)}"
            )


def _column(name: str, dtype: pl.DataType) -> str:
    """Instants become plain UTC timestamps: every client shows them alike, whatever its time zone or packages.

    ``epoch_us`` and ``make_timestamp`` are DuckDB's core; ``AT TIME ZONE`` needs an extension and took ten times as
    long. Older releases understand the list comprehension, too.
    """
    quoted = quote_identifier(name)
    return f"{_plain(f't.{quoted}', dtype)} AS {quoted}" if _has_instant(dtype) else f"t.{quoted}"


def _plain(expression: str, dtype: pl.DataType, depth: int = 0) -> str:
    if not _has_instant(dtype):
        return expression
    if isinstance(dtype, pl.List):
        item = f"item{depth}"
        return f"[{_plain(item, instance(dtype.inner), depth + 1)} FOR {item} IN {expression}]"
    if isinstance(dtype, pl.Struct):
        parts = [
            f"{quoted} := {_plain(f'{expression}.{quoted}', instance(field.dtype), depth)}"
            for field in dtype.fields
            for quoted in [quote_identifier(field.name)]
        ]
        return f"CASE WHEN {expression} IS NULL THEN NULL ELSE struct_pack({', '.join(parts)}) END"
    return f"make_timestamp(epoch_us({expression}))"


def _has_instant(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _has_instant(instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_has_instant(instance(field.dtype)) for field in dtype.fields)
    return isinstance(dtype, pl.Datetime) and dtype.time_zone is not None


def _naive(iso: str | None) -> datetime | None:
    return None if iso is None else datetime.fromisoformat(iso).astimezone(UTC).replace(tzinfo=None)


def _remove_stale(target: Path) -> None:
    """Remove what crashed writers left; another process's fresh file is left alone."""
    for path in target.parent.glob(f"{target.name}.tmp-*"):
        try:
            if time.time() - path.stat().st_mtime > _STALE_TEMP_SECONDS:
                _remove(path)
        except FileNotFoundError:
            continue


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
