"""The columns of a silver table, and accepted rows in the shape that its write mode needs."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lakehouse import names
from lakehouse.contracts import plain_text
from lakehouse.contracts.timestamps import instants
from lakehouse.errors import CommitConflict, ContractError
from lakehouse.pipelines import Pipeline
from lakehouse.silver.prepare import (
    FILE_ORDER,
    LINEAGE_SCHEMA,
    SEQUENCE,
    SEQUENCE_TEXT,
    marks_deletion,
    with_file_order,
)
from lakehouse.storage import Snapshot
from lakehouse.storage.schema import delta_dtype, delta_ready

_INSTANT = pl.Datetime("us", "UTC")


def table_schema(pipeline: Pipeline) -> dict[str, pl.DataType]:
    """Columns of the pipeline's silver table, as they are stored: the contract's, the mode's, and lineage."""
    contract, silver = pipeline.contract, pipeline.spec.silver
    extra: dict[str, pl.DataType] = {
        name: pl.String() for name in silver.sequence_by if name not in contract.schema
    }
    if silver.mode == "history":
        extra = {
            names.VALID_FROM: _INSTANT,
            names.VALID_TO: _INSTANT,
            names.IS_CURRENT: pl.Boolean(),
            names.OBSERVED_AT: pl.List(_INSTANT),
        }
    if silver.delete_when is not None:
        extra[names.IS_DELETED] = pl.Boolean()
    stored = {name: delta_dtype(dtype) for name, dtype in {**contract.schema, **extra}.items()}
    return {**stored, **LINEAGE_SCHEMA}


def fit_schema(snapshot: Snapshot, pipeline: Pipeline) -> Snapshot:
    """The table with the contract's new columns added.

    Raises:
        ContractError: a column's type changed.
        CommitConflict: somebody else committed while the columns were added; what was read must be read again.
    """
    added = missing_columns(snapshot, pipeline)
    if not added:
        return snapshot
    version = snapshot.version
    wider = snapshot.add_columns(added)
    if wider.version != version + 1:
        # The new handle may hold rows of these very batches: committing through it could double them.
        raise CommitConflict(
            f"silver.{pipeline.name}: another run committed while columns were added", hint="run again"
        )
    return wider


def missing_columns(snapshot: Snapshot, pipeline: Pipeline) -> dict[str, pl.DataType]:
    """Columns that the contract has and the table has not.

    Raises:
        ContractError: a column's type changed; the table was a history and is none any more, or the other way round; or it
            knows of deletions and the pipeline does not any more.
    """
    schema = table_schema(pipeline)
    stored = snapshot.schema()
    if names.is_history(stored) != (pipeline.spec.silver.mode == "history"):
        # Rows without a beginning would stay beside the versions made of them: the same key twice.
        raise ContractError(
            f"silver.{pipeline.name} {'is' if names.is_history(stored) else 'is not'} a history, and mode is "
            f"{pipeline.spec.silver.mode} now; the table is left unchanged",
            hint="keep the mode, or give the pipeline a new name: its table is then built from all its files",
        )
    changed = [
        f"{name} is {stored[name]}, the contract says {dtype}"
        for name, dtype in schema.items()
        if name in stored and stored[name] != dtype
    ]
    if changed:
        raise ContractError(
            f"silver.{pipeline.name}: {'; '.join(changed)}; the table is left unchanged",
            hint="keep the type, or give the pipeline a new name: its table is then built from all its files",
        )
    if names.IS_DELETED in stored and pipeline.spec.silver.delete_when is None:
        raise ContractError(
            f"silver.{pipeline.name} marks keys that were deleted in the source, and delete_when is gone: what comes next "
            "would make them alive again; the table is left unchanged",
            hint="keep delete_when, or give the pipeline a new name: its table is then built from all its files",
        )
    return {name: dtype for name, dtype in schema.items() if name not in stored}


def shape(accepted: pl.LazyFrame, pipeline: Pipeline, file_order: Mapping[str, int]) -> pl.LazyFrame:
    """Contract columns, lineage and what the mode needs; keys are whole at this point."""
    contract, silver = pipeline.contract, pipeline.spec.silver
    frame = with_file_order(accepted, file_order)
    extra = [name for name in silver.sequence_by if name not in contract.schema]
    computed: list[pl.Expr] = []
    delete = silver.delete_when
    if delete is not None:
        computed.append(marks_deletion(frame.collect_schema(), delete).alias(names.IS_DELETED))
    if silver.mode == "history":
        sequence = silver.sequence_by[0]
        computed.append(_instant(frame, sequence).alias(SEQUENCE))
        if isinstance(frame.collect_schema()[sequence], pl.String):
            computed.append(pl.col(sequence).alias(SEQUENCE_TEXT))
        stored = table_schema(pipeline)
        extra = [name for name in extra if name in stored]
    frame = frame.with_columns(computed)
    kept = [
        *contract.schema,
        *extra,
        *(e.meta.output_name() for e in computed),
        *LINEAGE_SCHEMA,
        FILE_ORDER,
    ]
    return delta_ready(frame.select(*dict.fromkeys(kept)))


def _instant(frame: pl.LazyFrame, column: str) -> pl.Expr:
    """A sequence column as an instant: timestamps as they are, dates at midnight UTC, text as a contract reads it.

    Declarations with numbers are refused by ``lakehouse validate``; here they are microseconds since 1970.
    """
    dtype = frame.collect_schema()[column]
    value = pl.col(column)
    if isinstance(dtype, pl.String):
        return plain_text.read(value, _INSTANT, instants(_INSTANT))
    if isinstance(dtype, pl.Datetime):
        return (
            value.dt.cast_time_unit("us")
            if dtype.time_zone
            else value.dt.cast_time_unit("us").dt.replace_time_zone("UTC")
        )
    if isinstance(dtype, pl.Date):
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.from_epoch(value, time_unit="us").dt.replace_time_zone("UTC")


def with_own_sequence(versions: pl.DataFrame, column: str) -> pl.DataFrame:
    """History rows whose sequence column says when they begin.

    A late row splits a version in two; the second part would carry the first part's value, and the table would
    depend on how its rows were cut into batches.
    """
    if column not in versions.columns:
        return versions
    dtype, begins = versions.schema[column], pl.col(names.VALID_FROM)
    if isinstance(dtype, pl.String):
        value = begins.dt.to_string("iso:strict")
    elif isinstance(dtype, pl.Datetime):
        value = (begins if dtype.time_zone else begins.dt.replace_time_zone(None)).cast(dtype)
    elif isinstance(dtype, pl.Date):
        value = begins.dt.date()
    else:
        value = begins.dt.epoch("us").cast(dtype)
    differs = _instant(versions.lazy(), column).ne_missing(begins)
    return versions.with_columns(pl.when(differs).then(value).otherwise(pl.col(column)).alias(column))
