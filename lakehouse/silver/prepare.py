"""Bronze rows as the contract wants them: path columns, types, transform, types of what the transform made."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lakehouse import names
from lakehouse.errors import ContractError
from lakehouse.pipelines import Pipeline

#: Lineage that silver keeps of every row, so that an auditor finds the source's own record.
KEPT_LINEAGE = (names.BATCH_ID, names.SOURCE_FILE, names.SOURCE_ROW)
LINEAGE_SCHEMA: dict[str, pl.DataType] = {
    names.BATCH_ID: pl.Int64(),
    names.SOURCE_FILE: pl.String(),
    names.SOURCE_ROW: pl.Int64(),
}
RAW = "_raw"
#: Position of a row in arrival order, alive only inside one stage run.
FILE_ORDER = "__file_order"
SEQUENCE = "__sequence"


def prepare(bronze: pl.LazyFrame, pipeline: Pipeline, *, keep_raw: bool = False) -> pl.LazyFrame:
    """One row in, one row out: contract columns typed, lineage kept, ``__uncastable__*`` flags for the screen.

    Args:
        keep_raw: also carry ``_raw``, the bronze row as a JSON object, for rows that will be refused.

    Raises:
        ContractError: the transform fails, or does not deliver the contract's columns and types.
    """
    spec, contract = pipeline.spec, pipeline.contract
    source_columns = [
        name for name in bronze.collect_schema().names() if name not in (*names.LINEAGE, names.RESCUED)
    ]
    frame = bronze
    if keep_raw:
        kept = [*source_columns, *([names.RESCUED] if names.RESCUED in bronze.collect_schema() else [])]
        frame = frame.with_columns(pl.struct(kept).struct.json_encode().alias(RAW))
    frame = frame.with_columns(
        pl.col(names.SOURCE_FILE).str.extract(pattern, 1).alias(column)
        for column, pattern in spec.source.path_columns.items()
    )
    markers = spec.source.null_markers
    typed = contract.type_columns(frame, null_markers=markers)
    if pipeline.transform is not None:
        try:
            typed = pipeline.transform(typed)
            typed.collect_schema()
        except Exception as error:  # a user's function: whatever it raises, the declaration is what to mend
            raise ContractError(
                f"{pipeline.name}: the transform {spec.transform} failed: {type(error).__name__}: {error}",
                hint=f"correct the transform, then: lakehouse run --select {pipeline.name}",
            ) from error
        typed = contract.type_columns(typed, null_markers=markers)
    return contract.add_missing(typed)


def with_file_order(frame: pl.LazyFrame, order: Mapping[str, int]) -> pl.LazyFrame:
    """Add the position of each row's file in arrival order."""
    position = pl.col(names.SOURCE_FILE).replace_strict(order, default=0, return_dtype=pl.Int64)
    return frame.with_columns(position.alias(FILE_ORDER))


ARRIVAL_ORDER = (names.BATCH_ID, FILE_ORDER, names.SOURCE_ROW)
