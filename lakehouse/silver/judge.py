"""Bronze rows through today's transform and contract once more, as the stage would see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from lakehouse import names
from lakehouse.contracts.rules import ByPandera, Expression, Unique
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import ConservationError
from lakehouse.pipelines import Pipeline
from lakehouse.silver.batch import bronze_rows
from lakehouse.silver.prepare import KEPT_LINEAGE, LINEAGE_SCHEMA, prepare
from lakehouse.silver.spool import Spool
from lakehouse.storage import Snapshot

WHERE = list(KEPT_LINEAGE)
#: Places of rows that today's rules refuse, with the rules that they break.
HELD_SCHEMA: dict[str, pl.DataType] = {**LINEAGE_SCHEMA, BROKEN_RULES: pl.List(pl.String())}


@dataclass(frozen=True)
class Judged:
    """``accepted`` prepared rows, and the places of all rows that were judged: ``release`` of the accepted, ``held``
    of the refused ones, ``missing`` of those that bronze does not have any more."""

    accepted: pl.LazyFrame
    release: pl.DataFrame
    held: pl.DataFrame
    missing: pl.DataFrame


def sample(bronze: Snapshot, rows: pl.DataFrame) -> pl.LazyFrame:
    """Some bronze rows, for a spool to learn their size from."""
    number = rows[names.BATCH_ID][0]
    return bronze.scan(uris=bronze.files_in_range(names.BATCH_ID, number, number)[:1])


def looks_around(pipeline: Pipeline) -> bool:
    """True when some rule may judge a row by others of its batch, so that rows cannot be judged alone.

    A check of one's own may be a window over rows (the first of its kind, less than thrice the mean): nothing in the
    expression tells for certain.
    """
    return any(
        isinstance(rule.predicate, Unique | ByPandera)
        or (isinstance(rule.predicate, Expression) and (rule.predicate.scalar or rule.kind == "custom"))
        for rule in pipeline.contract.rules
    )


def judge(pipeline: Pipeline, bronze: Snapshot, rows: pl.DataFrame, spool: Spool) -> Judged:
    """Prepare and screen the rows at these places. A rule that looks at other rows sees their batches whole.

    Raises:
        ContractError: a rule with ``on_failure: fail`` is broken, or the transform does not fit the contract.
        ConservationError: the transform doubled rows.
    """
    contract, where = pipeline.contract, rows.lazy().select(WHERE)
    source = bronze_rows(bronze, rows[names.BATCH_ID].unique().to_list())
    around = looks_around(pipeline)
    height = rows.height
    if around:
        height = int(source.select(pl.len()).collect(engine="streaming").item())
    elif pipeline.transform is None:
        source = source.join(where, on=WHERE, how="semi")
    prepared = prepare(source, pipeline)
    if not around and pipeline.transform is not None:
        prepared = prepared.join(where, on=WHERE, how="semi")
    prepared = spool.materialize(prepared, height)
    ordering = pipeline.spec.silver.sequence_by
    accepted, rejected = contract.split(
        prepared, contract.count(prepared, ordering=ordering), ordering=ordering
    )
    accepted = accepted.join(where, on=WHERE, how="semi")
    held = pl.DataFrame(schema=HELD_SCHEMA)
    if rejected is not None:
        held = (
            rejected.join(where, on=WHERE, how="semi")
            .select(*WHERE, BROKEN_RULES)
            .collect(engine="streaming")
        )
    release = accepted.select(WHERE).collect(engine="streaming")
    found = pl.concat([release, held.select(WHERE)])
    if found.height != found.unique().height:
        raise ConservationError(
            f"silver.{pipeline.name}: the transform doubled rows; nothing was committed",
            hint="a transform must keep every row; see docs/pipelines.md",
        )
    missing = rows.select(WHERE).join(found, on=WHERE, how="anti")
    return Judged(accepted, release.sort(WHERE), held.sort(WHERE), missing)


def judge_by_batch(pipeline: Pipeline, bronze: Snapshot, rows: pl.DataFrame, spool: Spool) -> Judged:
    """``judge``, but a rule that looks at other rows sees one batch at a time.

    Rows of many batches together would break rules (no number twice) that each kept when its batch came.
    """
    if not looks_around(pipeline) or rows.is_empty():
        return judge(pipeline, bronze, rows, spool)
    parts = [judge(pipeline, bronze, part, spool) for part in _batches(rows)]
    return Judged(
        pl.concat([part.accepted for part in parts]),
        pl.concat([part.release for part in parts]),
        pl.concat([part.held for part in parts]),
        pl.concat([part.missing for part in parts]),
    )


def _batches(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    for number in rows[names.BATCH_ID].unique().sort():
        yield rows.filter(pl.col(names.BATCH_ID) == number)
