"""Replay: refused rows through today's contract once more, and into silver exactly once.

Three steps. *Judge*: the open rows are found again in bronze, prepared and screened as the stage does.
*Plan*: the rows that pass are written to ``ops.replays`` as a release with the next number. *Merge*: they go
into silver in its write mode, in one commit that carries this number as transaction ``replay/<table>``. A
release that was planned and not merged is carried out, with the same rows, before anything new is judged.

The commit repeats silver's own transaction ``silver/<table>`` too: Delta then refuses it when the stage has
committed meanwhile, and refuses the stage's when a replay has. Two commits that only add rows would otherwise
both be taken, and a key that both bring would be there twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl

from lakehouse import hold, names, quarantine
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import CommitConflict
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline
from lakehouse.quarantine import Book, Selection
from lakehouse.results import StageResult
from lakehouse.settings import Settings
from lakehouse.silver import merge
from lakehouse.silver.batch import bronze_rows, file_order, merge_batch
from lakehouse.silver.judge import HELD_SCHEMA, WHERE, Judged, judge_by_batch, sample
from lakehouse.silver.prepare import LINEAGE_SCHEMA
from lakehouse.silver.shape import fit_schema
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import Rewrite
from lakehouse.storage import Lake, Snapshot

STAGE: names.Layer = "silver"
_ATTEMPTS = 20


@dataclass(frozen=True)
class Replayed:
    """What one replay did, or with ``dry_run`` would do. Figures are rows.

    selected       open rows of the selection that the contract had refused
    released       those that today's rules accept = accepted + deduplicated + superseded + late (in silver's terms)
    held           those that today's rules still refuse, with ``_broken_rules``; ``release`` has the released ones
    unreadable     open rows of the selection that no rule can release: lines and files that could not be read;
                   ``unreadable_until_utc`` says since when the newest of them is there
    unrefined      rows of batches that silver has not taken yet; ``missing`` rows that bronze does not have any more
    healed         rows of earlier releases that were planned and not merged, carried out first
    reopened       rows of such releases that today's rules refuse again
    """

    table: str
    dry_run: bool
    action_id: int | None = None
    version: int | None = None
    selected: int = 0
    released: int = 0
    accepted: int = 0
    deduplicated: int = 0
    superseded: int = 0
    late: int = 0
    unreadable: int = 0
    unreadable_until_utc: datetime | None = None
    unrefined: int = 0
    missing: int = 0
    healed: int = 0
    reopened: int = 0
    pending: int = 0
    release: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LINEAGE_SCHEMA))
    held: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=HELD_SCHEMA))

    @property
    def still_broken(self) -> dict[str, int]:
        """Held rows per rule of today; a row that breaks two counts under both."""
        counted = (
            self.held.explode(BROKEN_RULES)
            .group_by(BROKEN_RULES)
            .len()
            .sort("len", BROKEN_RULES, descending=[True, False])
        )
        return {str(rule): int(rows) for rule, rows in counted.iter_rows()}


def replay(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    selection: Selection | None = None,
    *,
    dry_run: bool = False,
    actor: str = "",
    note: str = "",
    run_id: str = "",
) -> Replayed:
    """Release the open rows of a pipeline's quarantine that today's contract accepts, each exactly once.

    Args:
        selection: which of them; default all.
        dry_run: judge only; nothing is written.

    Raises:
        TableNotFound: nothing of the table was ever refused.
        ContractError: a rule with ``on_failure: fail`` is broken, or the contract does not fit the table.
        CommitConflict: twenty attempts met other writers.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
    """
    if not dry_run:
        hold.refuse(lake)  # before a plan that was undone is carried out, too
    selection = selection or Selection()
    result = Replayed(pipeline.name, dry_run)
    for attempt in range(_ATTEMPTS):
        try:
            if not dry_run:
                result = heal(lake, settings, pipeline, result, run_id=run_id)
            return _once(lake, settings, pipeline, selection, result, (actor, note, run_id))
        except CommitConflict:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.02 * attempt)
    raise AssertionError("unreachable")


def _once(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    selection: Selection,
    result: Replayed,
    who: tuple[str, str, str],
) -> Replayed:
    """Judge, plan and merge. A conflict before the plan leaves nothing; one after it leaves a pending release."""
    actor, note, run_id = who
    book = Book(lake, pipeline.name)
    if not result.dry_run and book.pending():
        raise CommitConflict(
            f"silver.{pipeline.name}: another replay has planned a release", hint="run again"
        )
    chosen = book.rows().filter(pl.col("_state") == "open")
    rows = selection.apply(chosen).select("_stage", *WHERE, since=quarantine.there_since()).collect()
    candidates = rows.filter(pl.col("_stage") == STAGE)
    refined = candidates.filter(pl.col(names.BATCH_ID) <= book.refined).select(WHERE)
    result = replace(
        result,
        selected=candidates.height,
        unreadable=rows.height - candidates.height,
        unreadable_until_utc=rows.filter(pl.col("_stage") != STAGE).select(pl.col("since").max()).item(),
        unrefined=candidates.height - refined.height,
        pending=sum(book.planned(number).height for number in book.pending()),
    )
    if refined.is_empty():
        return result
    bronze = lake.table("bronze", pipeline.name).snapshot()
    with Spool(settings, pipeline, sample(bronze, refined)) as spool:
        judged = judge_by_batch(pipeline, bronze, refined, spool)
        result = replace(
            result,
            missing=judged.missing.height,
            released=judged.release.height,
            release=judged.release,
            held=judged.held,
        )
        if result.dry_run or judged.release.is_empty():
            return result
        merging = _Merging(lake, pipeline, judged, spool, run_id)
        # Before the plan: rows that cannot be merged must not become a plan that nobody can carry out.
        prepared = merging.prepare()
        action_id = quarantine.record(
            lake, book.actions, pipeline.name, "release",
            judged.release.with_columns(pl.lit(STAGE).alias("_stage")),
            actor=actor, note=note, contract_hash=pipeline.contract.hash, run_id=run_id,
        )  # fmt: skip
        done = merging.commit(action_id, prepared)
    if done is None:  # another replay has carried our plan out: the rows are there once
        return replace(result, action_id=action_id)
    return replace(
        result,
        action_id=action_id, version=done.version, accepted=done.accepted,
        deduplicated=done.deduplicated, superseded=done.superseded, late=done.late,
    )  # fmt: skip


def heal(
    lake: Lake, settings: Settings, pipeline: Pipeline, result: Replayed | None = None, *, run_id: str = ""
) -> Replayed:
    """Carry out every release that was planned and not merged; ``result`` with their figures added.

    Raises:
        TableNotFound: nothing of the table was ever refused.
        CommitConflict: others kept committing to the table.
    """
    result = result or Replayed(pipeline.name, dry_run=False)
    while pending := (book := Book(lake, pipeline.name)).pending():
        result = _heal(lake, settings, pipeline, book, pending[0], result, run_id)
    return result


def _heal(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    book: Book,
    action_id: int,
    result: Replayed,
    run_id: str,
) -> Replayed:
    """Carry out a release that was planned and not merged, with exactly its rows.

    Rows that today's rules refuse again, or that bronze has lost, are reopened first: silver never takes a row
    that breaks the contract of its time.
    """
    planned = book.planned(action_id)
    bronze = lake.table("bronze", pipeline.name).snapshot()
    with Spool(settings, pipeline, sample(bronze, planned)) as spool:
        judged = judge_by_batch(pipeline, bronze, planned.select(WHERE), spool)
        refused = pl.concat([judged.held.select(WHERE), judged.missing])
        if refused.height:
            quarantine.record(
                lake, book.actions, pipeline.name, "reopen",
                refused.with_columns(pl.lit(STAGE).alias("_stage")),
                of_action=action_id, actor="replay", note="refused again by the contract of the day",
                contract_hash=pipeline.contract.hash, run_id=run_id,
            )  # fmt: skip
        if judged.release.height:
            merging = _Merging(lake, pipeline, judged, spool, run_id)
            merging.commit(action_id, merging.prepare())
    return replace(
        result,
        healed=result.healed + judged.release.height,
        reopened=result.reopened + refused.height,
    )


class _Merging:
    """Accepted rows on their way into silver."""

    def __init__(self, lake: Lake, pipeline: Pipeline, judged: Judged, spool: Spool, run_id: str) -> None:
        self.lake, self.pipeline, self.judged, self.spool, self.run_id = lake, pipeline, judged, spool, run_id
        self.table = lake.table(STAGE, pipeline.name)
        self.app = names.app_id("replay", pipeline.name)
        self.stage_app = names.app_id(STAGE, pipeline.name)
        self.batches = Ledger(lake).batches(pipeline.name)

    def prepare(self) -> tuple[Snapshot, merge.Merged, Rewrite]:
        """Stage the files of the commit, and hold the version that they follow."""
        snapshot = fit_schema(self.table.snapshot(), self.pipeline)
        hold.refuse(self.lake)
        rows, there = self.judged.accepted, merge.by_batch(self.judged.release.clear())
        if self.pipeline.spec.silver.mode == "append" and not self.pipeline.contract.key:
            # Without a key nothing else would notice a row that is there already.
            batches = self.judged.release[names.BATCH_ID].unique().to_list()
            known = bronze_rows(snapshot, batches).select(WHERE)
            rows = rows.join(known, on=WHERE, how="anti")
            there = merge.by_batch(
                self.judged.release.join(known.collect(engine="streaming"), on=WHERE, how="semi")
            )
        height = self.judged.release.height - there.total()
        merged, written = merge_batch(
            self.pipeline, self.table, snapshot, rows, height, file_order(self.batches), self.spool
        )
        merged = replace(merged, tally=merged.tally.plus(merge.Tally(deduplicated=there)))
        return snapshot, merged, written

    def commit(self, action_id: int, prepared: tuple[Snapshot, merge.Merged, Rewrite]) -> StageResult | None:
        """One commit with the action's number; None when another replay has carried the action out."""
        started = time.monotonic()
        snapshot, merged, written = prepared
        for _ in range(_ATTEMPTS):
            if snapshot.txn(self.app) >= action_id:
                return None
            result = self._result(snapshot, merged, written, time.monotonic() - started)
            result.check_conservation()
            metadata = result.metadata(
                action="replay", action_id=action_id, contract_hash=self.pipeline.contract.hash,
                mode=self.pipeline.spec.silver.mode,
            )  # fmt: skip
            txns = {self.stage_app: snapshot.txn(self.stage_app), self.app: action_id}
            try:
                version = _commit(snapshot, written, txns, metadata)
                return replace(result, version=version)
            except CommitConflict:
                snapshot, merged, written = self.prepare()
        raise CommitConflict(
            f"silver.{self.pipeline.name}: {_ATTEMPTS} attempts to commit release {action_id} met other writers",
            hint=f"lakehouse quarantine replay {self.pipeline.name}",
        )

    def _result(
        self, snapshot: Snapshot, merged: merge.Merged, written: Rewrite, seconds: float
    ) -> StageResult:
        """The figures of the commit. It brings no batch; the watermark stays where the stage's batches put it."""
        done = [b.newest_arrival_utc for b in self.batches if b.batch_id <= snapshot.txn(self.stage_app)]
        return StageResult(
            STAGE, self.pipeline.name, self.pipeline.name, snapshot.version, None,
            rows_in=self.judged.release.height,
            accepted=merged.accepted, deduplicated=merged.deduplicated, superseded=merged.superseded,
            late=merged.late, bytes_written=sum(file.size_bytes for file in written.add),
            seconds=seconds, watermark_utc=max(done, default=None), run_id=self.run_id,
        )  # fmt: skip


def _commit(snapshot: Snapshot, written: Rewrite, txns: dict[str, int], metadata: dict[str, object]) -> int:
    return snapshot.commit(
        add=written.add, remove=written.remove, delete=written.delete, txns=txns, metadata=metadata
    )
