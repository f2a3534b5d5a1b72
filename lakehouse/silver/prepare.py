"""Bronze rows as the contract wants them: path columns, types, transform, types of what the transform made."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from lakehouse import names
from lakehouse.connectors.columns import without_bytes
from lakehouse.contracts.casting import FALSE_TEXTS, TRUE_TEXTS
from lakehouse.contracts.columns import DELETING, UNCASTABLE
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import ContractError
from lakehouse.pipelines import Pipeline
from lakehouse.pipelines.model import DeleteWhen
from lakehouse.silver import rescued

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
#: Text that ``SEQUENCE`` was read from, where the source has it as text.
SEQUENCE_TEXT = "__sequence_text"
#: Where a row of the table stands: data file (path relative to the table) and position in it, alive only inside a run.
FILE, POSITION = "__file", "__position"
PLACE_SCHEMA: dict[str, pl.DataType] = {FILE: pl.String(), POSITION: pl.UInt32()}


def prepare(bronze: pl.LazyFrame, pipeline: Pipeline) -> pl.LazyFrame:
    """One row in, one row out: contract columns typed, lineage kept, ``__uncastable__*`` flags for the screen.

    Raises:
        ContractError: the transform fails, or does not deliver the contract's columns and types.
    """
    spec, contract = pipeline.spec, pipeline.contract
    frame = bronze.with_columns(
        pl.col(names.SOURCE_FILE).str.extract(pattern, 1).alias(column)
        for column, pattern in spec.source.path_columns.items()
    )
    markers = spec.source.markers_by_column
    typed = rescued.type_columns(frame, contract, markers)
    if pipeline.transform is not None:
        before = typed
        try:
            typed = pipeline.transform(before)
            typed.collect_schema()
        except Exception as error:  # a user's function: whatever it raises, the declaration is what to mend
            raise ContractError(
                f"{pipeline.name}: the transform {spec.transform} failed: {type(error).__name__}: {error}",
                hint=f"correct the transform, then: lakehouse run --select {pipeline.name}",
            ) from error
        typed = contract.type_columns(_with_flags_of(before, typed, pipeline), null_markers=markers)
    kept = {*contract.schema, *spec.silver.sequence_by}
    # Of no use from here on, and a seventh of what a row takes.
    unneeded = [name for name in (names.INGESTED_AT, names.RESCUED) if name not in kept]
    return _with_deletions(contract.add_missing(typed).drop(unneeded, strict=False), pipeline)


def _with_deletions(typed: pl.LazyFrame, pipeline: Pipeline) -> pl.LazyFrame:
    """Mark rows that delete their key. One that does not say when is a row like any other: nothing could order it."""
    silver, schema = pipeline.spec.silver, typed.collect_schema()
    if silver.delete_when is None or silver.delete_when.column not in schema:
        return typed
    ordered = [pl.col(name).is_not_null() for name in silver.sequence_by if name in schema]
    mark = pl.all_horizontal(marks_deletion(schema, silver.delete_when).fill_null(False), *ordered)
    return typed.with_columns(mark.alias(DELETING))


def marks_deletion(schema: Mapping[str, pl.DataType], delete: DeleteWhen) -> pl.Expr:
    """True where the column has the value that YAML gave, whatever of the two is text, number or truth value."""
    column, value = pl.col(delete.column), delete.value
    dtype, text = schema.get(delete.column), str(value).lower()
    if dtype is None:
        raise ContractError(
            f"delete_when: no column {delete.column!r} has come yet; the table is left unchanged",
            hint="correct delete_when, or let the source send the column; docs/pipelines.md",
        )
    if isinstance(dtype, pl.Boolean):
        return (column == (text in TRUE_TEXTS)).fill_null(False) & (text in (*TRUE_TEXTS, *FALSE_TEXTS))
    if dtype.is_numeric():
        return (column == _number(delete)).fill_null(False)
    if isinstance(value, bool):
        words = TRUE_TEXTS if value else FALSE_TEXTS
        return column.cast(pl.String).str.to_lowercase().is_in(words).fill_null(False)
    return column.cast(pl.String).eq_missing(pl.lit(str(value)))


def _number(delete: DeleteWhen) -> int | float:
    try:
        return float(delete.value) if isinstance(delete.value, str) else int(delete.value)
    except ValueError:
        raise ContractError(
            f"delete_when: {delete.column} holds numbers, and {delete.value!r} is none; the table is left unchanged",
            hint="write the number that marks a deletion; docs/pipelines.md",
        ) from None


def _with_flags_of(before: pl.LazyFrame, after: pl.LazyFrame, pipeline: Pipeline) -> pl.LazyFrame:
    """What a transform made, with the flags that it left out (its last step may select columns by name).

    Without them a value that could not be cast would be a null like any other, and be accepted.
    """
    present = after.collect_schema().names()
    names_before = before.collect_schema().names()
    lost = [name for name in names_before if name.startswith(UNCASTABLE) and name not in present]
    if not lost:
        return after
    where = list(KEPT_LINEAGE)
    if missing := [name for name in where if name not in present]:
        raise ContractError(
            f"{pipeline.name}: the transform {pipeline.spec.transform} drops {', '.join(missing)}, by which a row is "
            "found again",
            hint="end it with with_columns, or select these columns, too; docs/pipelines.md",
        )
    # Few rows are flagged, so that the join costs little beside typing the source twice.
    flagged = before.filter(pl.any_horizontal(lost)).select(*where, *lost)
    joined = after.join(flagged, on=where, how="left", maintain_order="left")
    return joined.with_columns(pl.col(lost).fill_null(False))


#: Up to so many rows are looked up by their numbers first, and held.
_FEW = 100_000


def originals(bronze: pl.LazyFrame, refused: pl.DataFrame) -> pl.LazyFrame:
    """Refused rows as bronze has them, found again by batch, file and row: these, ``_broken_rules`` and ``_raw``.

    A reader decodes the numbers of the rows alone, and the rest of only those that fit: a few refused rows out of
    millions cost a fifth of what a join of the whole costs (measured).
    """
    where = list(KEPT_LINEAGE)
    is_few = refused.height <= _FEW
    if is_few:
        bronze = bronze.filter(pl.col(names.SOURCE_ROW).is_in(refused[names.SOURCE_ROW].unique().implode()))
    found = with_raw(bronze.join(refused.lazy(), on=where, how="inner")).select(*where, BROKEN_RULES, RAW)
    return found.collect(engine="streaming").lazy() if is_few else found


def with_raw(bronze: pl.LazyFrame) -> pl.LazyFrame:
    """Add ``_raw``: the source's record as a JSON object, as bronze has it; bytes as hexadecimal digits."""
    added = (*names.LINEAGE, BROKEN_RULES)
    columns = [name for name in bronze.collect_schema().names() if name not in added]
    schema = bronze.collect_schema()
    record = pl.struct(without_bytes(pl.col(name), schema[name]).alias(name) for name in columns)
    return bronze.with_columns(record.struct.json_encode().alias(RAW))


def with_file_order(frame: pl.LazyFrame, order: Mapping[str, int]) -> pl.LazyFrame:
    """Add the position of each row's file in arrival order."""
    position = pl.col(names.SOURCE_FILE).replace_strict(order, default=0, return_dtype=pl.Int64)
    return frame.with_columns(position.alias(FILE_ORDER))


ARRIVAL_ORDER = (names.BATCH_ID, FILE_ORDER, names.SOURCE_ROW)
