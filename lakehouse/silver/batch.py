"""Accepted rows into a silver table, in its write mode: what one commit has to add and to remove.

Both the stage (new bronze batches) and a replay (released rows of old ones) go through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl

from lakehouse import names
from lakehouse.connectors import Batch
from lakehouse.errors import ContractError
from lakehouse.pipelines import Pipeline
from lakehouse.silver import merge
from lakehouse.silver.known import known_rows, known_versions, places
from lakehouse.silver.prepare import LINEAGE_SCHEMA, PLACE_SCHEMA, SEQUENCE, SEQUENCE_TEXT, with_file_order
from lakehouse.silver.shape import shape, table_schema, with_own_sequence
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import Rewrite, candidate_files, existing_rows, rewrite
from lakehouse.storage import Snapshot, Table

#: Keys alone take so much less memory than rows.
_KEYS_SHARE = 4


def file_order(batches: Iterable[Batch]) -> dict[str, int]:
    """Position of each planned file in arrival order."""
    return {file.path: index for index, file in enumerate(f for b in batches for f in b.files)}


def merge_batch(
    pipeline: Pipeline,
    table: Table,
    snapshot: Snapshot | None,
    accepted: pl.LazyFrame,
    rows: int,
    order: Mapping[str, int],
    spool: Spool,
) -> tuple[merge.Merged, Rewrite]:
    """Merge ``rows`` accepted rows with what ``snapshot`` has of the same keys, and stage the files.

    Nothing is committed. The counts of the result add up to ``rows``; its frames are empty but for the keys
    of replaced rows.

    Raises:
        ContractError: a row of a history table does not say since when it holds.
    """
    key = list(pipeline.contract.key)
    schema = table_schema(pipeline)
    changes = shape(accepted, pipeline, order)
    identity = merge.row_identity(key, pipeline.spec.silver.mode)
    none = pl.DataFrame(schema={**{name: schema[name] for name in identity}, **PLACE_SCHEMA})
    if pipeline.spec.silver.mode == "append" and (not key or _adds_only(snapshot, changes, key, rows, spool)):
        staged = table.stage(changes.select(*schema))
        tally = merge.Tally(accepted=merge.by_batch(table.read_staged(staged, [names.BATCH_ID])))
        return merge.Merged(pl.DataFrame(), none, tally), Rewrite(staged, [])
    total = merge.Merged(pl.DataFrame(), none)
    pieces: list[pl.DataFrame | pl.LazyFrame] = []
    for merged in merged_slices(pipeline, snapshot, changes, rows, order, spool):
        output = _sorted(merged.rows.select(*schema), key)
        pieces.append(spool.park(output) if rows > merged.changes else output)
        total = total.plus(merged)
    return total, rewrite(table, snapshot, pieces, total.replaced, identity)


def _sorted(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """By key, so that files hold ranges of keys. Merging mostly leaves them so, and to look is cheaper than to sort."""
    return rows if len(key) == 1 and rows[key[0]].is_sorted() else rows.sort(key)


def _adds_only(
    snapshot: Snapshot | None, changes: pl.LazyFrame, key: Sequence[str], rows: int, spool: Spool
) -> bool:
    """True when no key of the changes can be in the table or comes twice, so that nothing has to be compared.

    So it is with numbers that grow. Their keys must fit memory to be counted: a few times what a slice may hold.
    """
    if not 0 < rows <= _KEYS_SHARE * spool.rows_that_fit:
        return False
    if snapshot is not None and candidate_files(snapshot, changes, key):
        return False
    return merge.is_all_new(changes, key, rows)


def merged_slices(
    pipeline: Pipeline,
    snapshot: Snapshot | None,
    changes: pl.LazyFrame,
    rows: int,
    order: Mapping[str, int],
    spool: Spool,
) -> Iterator[merge.Merged]:
    """``rows`` shaped changes of a table with a key, merged piece by piece; a key is in one piece only."""
    schema = table_schema(pipeline)
    for part in spool.slices(changes, rows, list(pipeline.contract.key)):
        yield _merge_slice(pipeline, schema, snapshot, part, order, spool)


def _merge_slice(
    pipeline: Pipeline,
    schema: Mapping[str, pl.DataType],
    snapshot: Snapshot | None,
    changes: pl.DataFrame,
    order: Mapping[str, int],
    spool: Spool,
) -> merge.Merged:
    silver, key = pipeline.spec.silver, list(pipeline.contract.key)
    content = [name for name in pipeline.contract.schema if name not in key]
    content += [name for name in silver.sequence_by if name not in (*key, *content)]
    if silver.delete_when is not None:
        content.append(names.IS_DELETED)

    def existing(columns: Sequence[str]) -> pl.DataFrame:
        wanted = [*dict.fromkeys([*key, *columns])]
        if snapshot is None:
            return pl.DataFrame(schema={**{name: schema[name] for name in wanted}, **PLACE_SCHEMA})
        return existing_rows(snapshot, changes, key, wanted)

    if silver.mode == "append":
        there = places(snapshot, changes, key, None, spool)
        return merge.merge_append(changes, existing([]) if there is None else there, key)
    if silver.mode == "upsert":
        if silver.sequence_by:
            wanted = [name for name in schema if name not in LINEAGE_SCHEMA]
            if snapshot is None:
                known = existing(wanted)
            else:
                known = known_rows(snapshot, changes, key, silver.sequence_by, wanted, spool)
        else:
            # Without a sequence the arrival decides, and a replayed row arrived before some that the table has.
            known = with_file_order(existing(list(schema)).lazy(), order).collect()
        return merge.merge_upsert(changes, known, key, silver.sequence_by, content)
    _check_beginnings(pipeline, changes)
    changes = changes.drop(SEQUENCE_TEXT, strict=False)
    content = [name for name in content if name not in silver.sequence_by]
    columns = list(schema)
    known = existing(columns) if snapshot is None else known_versions(snapshot, changes, key, columns, spool)
    merged = merge.merge_history(changes, known, key, content)
    return replace(merged, rows=with_own_sequence(merged.rows, silver.sequence_by[0]))


def _check_beginnings(pipeline: Pipeline, changes: pl.DataFrame) -> None:
    """Raises ContractError when a row of a history does not say since when it holds."""
    unknown = changes.filter(pl.col(SEQUENCE).is_null())
    if unknown.is_empty():
        return
    column, start = pipeline.spec.silver.sequence_by[0], f"silver.{pipeline.name}: {unknown.height} rows have"
    texts = unknown[SEQUENCE_TEXT].drop_nulls() if SEQUENCE_TEXT in unknown.columns else pl.Series()
    end = "so nobody knows since when they hold; the table is left unchanged"
    if len(texts):
        raise ContractError(
            f"{start} a {column} that is no date or instant in ISO 8601, such as {texts[0]!r}, {end}",
            hint="let source.path_columns or the transform give such text; or declare the column as pl.Date or TimestampUtc in "
            "the contract, not nullable: such rows are then quarantined",
        )
    hint = "declare the column as not nullable in the contract: such rows are then quarantined"
    if column in pipeline.spec.source.path_columns:
        hint = "the regular expression under source.path_columns does not fit these files' paths: correct it"
    raise ContractError(f"{start} no {column}, {end}", hint=hint)


def bronze_rows(bronze: Snapshot, batches: Sequence[int]) -> pl.LazyFrame:
    """Bronze rows of these batches, read from only the files that may hold them."""
    spans = _spans(batches)
    uris: dict[str, None] = {}
    for first, last in spans:
        uris |= dict.fromkeys(bronze.files_in_range(names.BATCH_ID, first, last))
    number = pl.col(names.BATCH_ID)
    wanted = number.is_between(*spans[0]) if len(spans) == 1 else number.is_in(sorted(set(batches)))
    return bronze.scan(uris=list(uris)).filter(wanted)


def _spans(batches: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers as (first, last)."""
    spans: list[tuple[int, int]] = []
    for number in sorted(set(batches)):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
