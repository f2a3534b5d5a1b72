"""Results of the core as Dagster metadata: figures, schema, links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from lakehouse import names
from lakehouse.contracts import ColumnSpec
from lakehouse.results import StageResult
from lakehouse.storage import Snapshot

_COUNTS = ("rows_in", "accepted", "deduplicated", "superseded", "late", "quarantined", "rescued")


def stage_metadata(result: StageResult, snapshot: Snapshot) -> dict[str, Any]:
    """What one materialization of a bronze or silver table shows."""
    metadata: dict[str, Any] = {
        "dagster/row_count": snapshot.num_rows(),
        "dagster/uri": snapshot.table.uri,
        "table version": snapshot.version,
        "batches": _batches(result.batches),
        **{name.replace("_", " "): getattr(result, name) for name in _COUNTS},
        "bytes in": result.bytes_in,
        "bytes written": result.bytes_written,
        "table bytes": snapshot.size_bytes(),
        "seconds": round(result.seconds, 3),
    }
    if result.watermark_utc is not None:
        metadata["watermark"] = dg.MetadataValue.timestamp(result.watermark_utc)
    if result.schema_changes:
        metadata["schema changes"] = "; ".join(result.schema_changes)
    if result.quarantined:
        metadata["look at quarantine"] = f"lakehouse quarantine show {result.source}"
        metadata["broken rules"] = dg.MetadataValue.json(dict(result.broken_rules))
    return metadata


def _batches(batches: tuple[int, ...]) -> str:
    if not batches:
        return "none new"
    return str(batches[0]) if len(batches) == 1 else f"{batches[0]} to {batches[-1]}"


def contract_schema(columns: tuple[ColumnSpec, ...]) -> dg.TableSchema:
    """The column schema that a contract promises, with descriptions and sensitivity tags."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                str(column.dtype),
                description=column.description or None,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
                tags={"sensitivity": column.sensitivity},
            )
            for column in columns
        ]
    )


def table_schema(schema: Mapping[str, pl.DataType]) -> dg.TableSchema:
    """The column schema of a table as it is."""
    texts = {
        names.BATCH_ID: "Number of the batch that brought the row",
        names.SOURCE_FILE: "File that the row came from",
        names.SOURCE_ROW: "Position of the row in its file, from 1",
        names.INGESTED_AT: "When the row was written to bronze",
        names.RESCUED: "What the table has no column for, as JSON",
    }
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, str(dtype), description=texts.get(name)) for name, dtype in schema.items()
        ]
    )
