"""Backfill: the rows of some days made again from bronze, with today's transform and contract, and nothing else.

What a backfill does follows from the state of the lake alone: run again after a crash it does what is left, and
run again after success it finds nothing to do and commits nothing. Its steps: *heal* what a killed replay or
backfill had planned; find the *scope* (``silver.scope``); *judge* its bronze rows; merge them from nothing and
*compare* with silver; then commit. Refused rows go to quarantine first, rows that today's rules accept are
planned as a release, as by a replay, and one commit takes the old rows of the keys that differ out and the new
ones in. It repeats silver's own transaction: Delta then refuses it when the stage or a replay has committed
meanwhile, and theirs when it was first.

A count of the backfills that changed rows is kept as transaction ``backfill/<table>`` in silver. Gold looks at it (and at
``replay/<table>``): rows of old batches have changed, which a model that only adds what is new would never notice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import polars as pl

from lakehouse import hold, names, quarantine
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import CommitConflict, ConservationError
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline
from lakehouse.quarantine import Book
from lakehouse.results import StageResult
from lakehouse.settings import Settings
from lakehouse.silver.batch import bronze_rows
from lakehouse.silver.difference import Difference, differences
from lakehouse.silver.judge import WHERE, Judged, judge_by_batch
from lakehouse.silver.prepare import LINEAGE_SCHEMA, originals
from lakehouse.silver.replay import heal
from lakehouse.silver.scope import Period, days_column, find_scope, identity
from lakehouse.silver.shape import fit_schema, missing_columns
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import Rewrite, rewrite
from lakehouse.storage import Lake, Snapshot, engine_translated

STAGE: names.Layer = "silver"
_ATTEMPTS = 20
#: What the commit says of a backfill beside the figures of every silver commit.
_COUNTS = (
    "keys_changed", "keys_added", "keys_removed", "keys_moved", "newly_refused", "reopened", "taken_out", "released",
)  # fmt: skip
_NO_ROWS = pl.DataFrame(schema=LINEAGE_SCHEMA)


@dataclass(frozen=True)
class Backfilled:
    """What one backfill did, or without ``applied`` would do.

    rows              bronze rows that were processed again = accepted + refused
    refused           of these, the ones that today's rules refuse: newly_refused were not in quarantine before,
                      reopened had been released from it; taken_out are those that silver has until now
    broken_rules      refused rows per rule; a row that breaks two counts under both
    released          accepted rows that were in quarantine until now
    kept_out          rows that today's rules accept, and that a person has marked as resolved: they stay out
    keys_changed, keys_added, keys_removed    keys of silver whose content came out differently (rows, without a key);
                      keys_moved: of the changed ones, those that left the range or came into it
    version           silver's new version; None when silver stayed as it was
    healed            rows of planned releases that were carried out first
    """

    table: str
    period: Period
    applied: bool
    rows: int = 0
    refused: int = 0
    broken_rules: Mapping[str, int] = field(default_factory=dict)
    newly_refused: int = 0
    reopened: int = 0
    taken_out: int = 0
    released: int = 0
    kept_out: int = 0
    keys_changed: int = 0
    keys_added: int = 0
    keys_removed: int = 0
    keys_moved: int = 0
    rows_before: int = 0
    rows_after: int = 0
    version: int | None = None
    healed: int = 0

    @property
    def changes_nothing(self) -> bool:
        """True when silver and quarantine are as today's rules would make them."""
        return not (
            self.keys_changed or self.keys_added or self.keys_removed
            or self.newly_refused or self.reopened or self.released
        )  # fmt: skip


@dataclass(frozen=True)
class _Examined:
    """What one attempt found. The frames are places in bronze, ``refused`` with the rules broken."""

    source: pl.LazyFrame
    found: Difference
    figures: StageResult
    refused: pl.DataFrame
    reopened: pl.DataFrame
    released: pl.DataFrame


def backfill(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    period: Period,
    *,
    apply: bool = False,
    actor: str = "",
    run_id: str = "",
) -> Backfilled:
    """Process the rows of ``period`` again from bronze. Dry unless ``apply``: then nothing is written.

    Raises:
        DeclarationError: the pipeline does not say which column its days are in (``silver.partition_by``).
        TableNotFound: there is no silver table yet.
        ContractError: a rule with ``on_failure: fail`` is broken, or the contract does not fit the table.
        ConservationError: rows would be lost or doubled; nothing was committed.
        CommitConflict: twenty attempts met other writers.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
    """
    days_column(pipeline)
    if apply:
        hold.refuse(lake)
    healed = 0
    for attempt in range(_ATTEMPTS):
        try:
            if apply and lake.table("quarantine", pipeline.name).exists():
                healed += heal(lake, settings, pipeline, run_id=run_id).healed
            what = f"backfill of silver.{pipeline.name}, {period}"
            with engine_translated(what), _Work(lake, settings, pipeline, period, run_id) as work:
                return replace(work.run(actor, apply=apply), healed=healed)
        except CommitConflict:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.02 * attempt)
    raise AssertionError("unreachable")


class _Work:
    """One attempt: everything of one moment, so that a commit by anybody else makes it fail."""

    def __init__(
        self, lake: Lake, settings: Settings, pipeline: Pipeline, period: Period, run_id: str
    ) -> None:
        self.lake, self.pipeline, self.period, self.run_id = lake, pipeline, period, run_id
        self.name, self.contract = pipeline.name, pipeline.contract
        self.started = time.monotonic()
        self.silver = lake.table(STAGE, self.name).snapshot()
        missing_columns(self.silver, pipeline)  # raises when a type has changed
        self.bronze = lake.table("bronze", self.name).snapshot()
        self.app = names.app_id(STAGE, self.name)
        self.taken = self.silver.txn(self.app)
        self.book = Book(lake, self.name) if lake.table("quarantine", self.name).exists() else None
        self.spool = Spool(settings, pipeline, self.bronze.scan(uris=self.bronze.uris()[:1]))

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.spool.__exit__(None, None, None)

    def run(self, actor: str, *, apply: bool) -> Backfilled:
        """Find out what differs, and with ``apply`` commit it."""
        if apply and self.book is not None and self.book.pending():
            raise CommitConflict(f"silver.{self.name}: a replay has planned a release", hint="run again")
        source = bronze_rows(self.bronze, range(1, self.taken + 1))
        scope = find_scope(
            self.pipeline, self.silver, source, self.bronze.num_rows(), self.period, self.spool
        )
        result = Backfilled(self.name, self.period, applied=apply)
        if scope.rows.is_empty():
            return result
        judged = judge_by_batch(self.pipeline, self.bronze, scope.rows, self.spool)
        if judged.missing.height:
            raise ConservationError(
                f"silver.{self.name}: the transform changed where {judged.missing.height} rows came from; "
                "nothing was committed",
                hint="the transform must leave _batch_id, _source_file and _source_row as they are",
            )
        states = self._states(scope.rows)
        resolved = judged.release.join(states.filter(pl.col("_state") == "resolved"), on=WHERE, how="semi")
        waiting = states.filter(pl.col("_state").is_in(["open", "releasing"]))
        released = judged.release.join(waiting, on=WHERE, how="semi")
        refused = judged.held.join(states, on=WHERE, how="anti")
        reopened = judged.held.join(states.filter(pl.col("_state") == "released"), on=WHERE, how="semi")
        accepted = judged.accepted.join(resolved.lazy(), on=WHERE, how="anti")
        found = differences(
            self.lake, self.pipeline, self.silver, scope, accepted,
            judged.release.height - resolved.height, self.period, self.spool,
        )  # fmt: skip
        result = replace(
            result,
            rows=scope.rows.height, refused=judged.held.height, broken_rules=_per_rule(judged.held),
            newly_refused=refused.height, reopened=reopened.height, released=released.height,
            taken_out=self._in_silver(judged.held), kept_out=resolved.height,
            keys_changed=found.changed, keys_added=found.added, keys_removed=found.removed,
            keys_moved=found.moved,
            rows_before=self._rows_of(found.replaced),
            rows_after=sum(int(piece.lazy().select(pl.len()).collect().item()) for piece in found.pieces),
        )  # fmt: skip
        figures = self._figures(judged, resolved.height, found)
        figures.check_conservation()
        if not apply or result.changes_nothing:
            return result
        examined = _Examined(source, found, figures, refused, reopened, released)
        return replace(result, version=self._commit(examined, result, actor))

    def _states(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Place and state of those of the rows that are in quarantine."""
        if self.book is None:
            return _NO_ROWS.with_columns(pl.lit(None, pl.String).alias("_state"))
        known = self.book.rows().filter(pl.col("_stage") == STAGE).select(*WHERE, "_state")
        return known.join(rows.lazy(), on=WHERE, how="semi").collect(engine="streaming")

    def _rows_of(self, keys: pl.DataFrame) -> int:
        ident = identity(self.pipeline)
        rows = self.silver.scan(ident).join(keys.lazy(), on=ident, how="semi")
        return int(rows.select(pl.len()).collect(engine="streaming").item())

    def _in_silver(self, rows: pl.DataFrame) -> int:
        """How many of these bronze rows silver shows."""
        shown = self.silver.scan(WHERE).join(rows.lazy(), on=WHERE, how="semi")
        return int(shown.select(pl.len()).collect(engine="streaming").item())

    def _figures(self, judged: Judged, kept_out: int, found: Difference) -> StageResult:
        """The figures of the commit. It brings no batch; the watermark stays where the stage's batches put it."""
        batches = Ledger(self.lake).batches(self.name)
        done = [batch.newest_arrival_utc for batch in batches if batch.batch_id <= self.taken]
        merged = found.merged
        return StageResult(
            STAGE, self.name, self.name, self.silver.version, None,
            rows_in=judged.release.height + judged.held.height,
            accepted=merged.accepted, deduplicated=merged.deduplicated, superseded=merged.superseded,
            late=merged.late, quarantined=judged.held.height + kept_out,
            watermark_utc=max(done, default=None), run_id=self.run_id,
        )  # fmt: skip

    def _commit(self, examined: _Examined, result: Backfilled, actor: str) -> int | None:
        """Quarantine first, then silver; a kill between any two leaves what the next backfill, or replay, ends."""
        snapshot, ident, found = self.silver, identity(self.pipeline), examined.found
        txns = {self.app: self.taken}
        if not found.is_empty:
            snapshot = fit_schema(snapshot, self.pipeline)
            app = names.app_id("backfill", self.name)
            txns[app] = snapshot.txn(app) + 1
        hold.refuse(self.lake)
        # Staged before anything is planned: rows that cannot be written must not become a plan.
        written = rewrite(snapshot.table, snapshot, found.pieces, found.replaced, ident)
        self._refuse(examined.source, examined.refused)
        self._act("reopen", examined.reopened, actor)
        if (action_id := self._act("release", examined.released, actor)) is not None:
            txns[names.app_id("replay", self.name)] = action_id
        if found.is_empty and action_id is None:
            return None
        self._assert_rows(snapshot, written, result)
        figures = replace(
            examined.figures,
            bytes_written=sum(file.size_bytes for file in written.add),
            seconds=time.monotonic() - self.started,
        )
        metadata = figures.metadata(
            action="backfill", first_day=str(self.period.first), last_day=str(self.period.last),
            **{name: getattr(result, name) for name in _COUNTS},
            contract_hash=self.contract.hash, mode=self.pipeline.spec.silver.mode,
        )  # fmt: skip
        return _commit(
            snapshot,
            add=written.add,
            remove=written.remove,
            delete=written.delete,
            txns=txns,
            metadata=metadata,
        )

    def _assert_rows(self, snapshot: Snapshot, written: Rewrite, result: Backfilled) -> None:
        """Every row of the files that go is in those that come, but for the ones made again or marked as deleted."""
        taken = snapshot.files().filter(pl.col("path").is_in(written.remove))["num_records"].sum()
        expected = int(taken or 0) - (result.rows_before - written.rows_deleted) + result.rows_after
        staged = sum(file.num_records for file in written.add)
        if staged != expected:
            raise ConservationError(
                f"silver.{self.name}: {staged} rows were written where {expected} belong; nothing was committed",
                hint=f"lakehouse reconcile --select {self.name}",
            )

    def _refuse(self, source: pl.LazyFrame, refused: pl.DataFrame) -> None:
        """Rows that today's rules refuse and that were never refused before, into quarantine as bronze has them."""
        if refused.is_empty():
            return
        found = originals(source, refused)
        quarantine.append(
            self.lake, self.name, found,
            stage=STAGE, batch_id=self.taken, contract_hash=self.contract.hash,
            run_id=quarantine.of_backfill(self.run_id),
        )  # fmt: skip

    def _act(self, action: quarantine.Action, rows: pl.DataFrame, actor: str) -> int | None:
        if rows.is_empty() or self.book is None:
            return None
        return quarantine.record(
            self.lake, self.book.actions, self.name, action, rows.select(WHERE).with_columns(_stage=pl.lit(STAGE)),
            actor=actor, note=f"backfill of {self.period}", contract_hash=self.contract.hash, run_id=self.run_id,
        )  # fmt: skip


def _commit(snapshot: Snapshot, **what: object) -> int:
    return snapshot.commit(**what)  # type: ignore[arg-type]


def _per_rule(held: pl.DataFrame) -> dict[str, int]:
    counted = (
        held.explode(BROKEN_RULES).group_by(BROKEN_RULES).len().sort("len", BROKEN_RULES, descending=True)
    )
    return {str(rule): int(rows) for rule, rows in counted.iter_rows()}
