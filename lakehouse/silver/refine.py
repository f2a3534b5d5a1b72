"""From bronze batches to silver rows: prepare, screen, merge, quarantine commit, data commit."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import datetime

import polars as pl

from lakehouse import hold, names, quarantine
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import CommitConflict, ConservationError
from lakehouse.ledger import Ledger
from lakehouse.memory import SharedMemory
from lakehouse.pipelines import Pipeline
from lakehouse.results import BatchCounts, StageResult
from lakehouse.settings import Settings
from lakehouse.silver.batch import bronze_rows, file_order, merge_batch
from lakehouse.silver.judge import looks_around
from lakehouse.silver.merge import Tally, by_batch
from lakehouse.silver.prepare import KEPT_LINEAGE, LINEAGE_SCHEMA, originals, prepare
from lakehouse.silver.shape import fit_schema, table_schema
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import Rewrite
from lakehouse.storage import Lake, Snapshot, Table, engine_translated

__all__ = ["refine", "table_schema"]

STAGE: names.Layer = "silver"
_ATTEMPTS = 20


def refine(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    *,
    run_id: str = "",
    memory: SharedMemory | None = None,
) -> StageResult:
    """Bring every bronze batch that silver does not have yet into ``silver.<name>``, in one commit.

    Refused rows are committed to ``quarantine.<name>`` first, whole, with the rules they broke.

    Args:
        memory: what the stages of this process share; default is all of the settings' limit.

    Raises:
        ContractError: a rule with ``on_failure: fail`` is broken, or the contract does not fit the table; the
            table is left unchanged.
        ConservationError: the transform lost or doubled rows; nothing is committed.
        CommitConflict: others kept committing to the table; what they did not take is left for the next run.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
    """
    table = lake.table(STAGE, pipeline.name)
    before = table.snapshot_or_none()
    version = before.version if before else None
    result = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    conflicts = 0
    while (batches := _next_batches(lake, pipeline)) is not None:
        try:
            with engine_translated(f"silver.{pipeline.name} batches {batches[0]} to {batches[1]}"):
                part = _refine_batches(lake, settings, pipeline, table, batches, run_id, memory)
        except CommitConflict:
            # Another run refined these batches, or a replay released rows: read again, then skip or redo.
            conflicts += 1
            if conflicts == _ATTEMPTS:
                raise
            continue
        result = result.plus(part)
    return result


def _next_batches(lake: Lake, pipeline: Pipeline) -> tuple[int, int] | None:
    """First and last bronze batch of the next commit; None when silver has them all.

    A lost data commit may have left its quarantine commit behind: those batches are redone by themselves,
    under the same transaction, so that their refused rows are not committed a second time.
    """
    app = names.app_id(STAGE, pipeline.name)
    silver = lake.table(STAGE, pipeline.name).snapshot_or_none()
    bronze = lake.table("bronze", pipeline.name).snapshot_or_none()
    refused = lake.table("quarantine", pipeline.name).snapshot_or_none()
    done = silver.txn(app) if silver else 0
    newest = bronze.txn(names.app_id("bronze", pipeline.name)) if bronze else 0
    half_done = refused.txn(app) if refused else 0
    if newest <= done:
        return None
    if looks_around(pipeline):
        newest = (
            done + 1
        )  # no two rows of a batch, says the rule: of several together it would say another thing
    return done + 1, min(newest, half_done) if half_done > done else newest


def _refine_batches(
    lake: Lake,
    settings: Settings,
    pipeline: Pipeline,
    table: Table,
    batches: tuple[int, int],
    run_id: str,
    memory: SharedMemory | None,
) -> StageResult:
    snapshot = table.snapshot_or_none()
    if snapshot is not None and snapshot.txn(names.app_id(STAGE, pipeline.name)) >= batches[0]:
        raise CommitConflict(f"silver.{pipeline.name}: another run has refined batch {batches[0]}")
    bronze = lake.table("bronze", pipeline.name).snapshot()
    first_file = bronze.files_in_range(names.BATCH_ID, *batches)[:1]
    with Spool(settings, pipeline, bronze.scan(uris=first_file), memory) as spool:
        return _Work(lake, pipeline, table, snapshot, bronze, batches, run_id, spool).run()


class _Work:
    """One refinement: the inputs that its steps share."""

    def __init__(
        self,
        lake: Lake,
        pipeline: Pipeline,
        table: Table,
        snapshot: Snapshot | None,
        bronze: Snapshot,
        batches: tuple[int, int],
        run_id: str,
        spool: Spool,
    ) -> None:
        self.lake, self.pipeline, self.contract = lake, pipeline, pipeline.contract
        self.table, self.snapshot, self.bronze = table, snapshot, bronze
        self.first, self.last = batches
        self.run_id, self.spool = run_id, spool
        planned = Ledger(lake).batches(pipeline.name, above=self.first - 1)
        self.planned = [batch for batch in planned if batch.batch_id <= self.last]

    def run(self) -> StageResult:
        started = time.monotonic()
        snapshot = fit_schema(self.snapshot, self.pipeline) if self.snapshot else None
        hold.refuse(self.lake)
        source = bronze_rows(self.bronze, range(self.first, self.last + 1))
        came = self._came()
        rows_in = came.total()
        self.spool.expect(rows_in)
        source = self.spool.hold(source, rows_in)
        prepared = self.spool.materialize(prepare(source, self.pipeline), rows_in)
        ordering = self.pipeline.spec.silver.sequence_by
        counts = self.contract.count(prepared, ordering=ordering)
        if (
            self.pipeline.transform is not None
        ):  # before anything is refused: what a faulty transform breaks is not the row's fault
            self._refuse_others(source, prepared, rows_in, counts.rows)
        accepted, rejected = self.contract.split(prepared, counts, ordering=ordering)
        accepted, quarantined = self._quarantine(source, accepted, rejected)
        del source  # merging needs the memory
        merged, written = merge_batch(
            self.pipeline,
            self.table,
            snapshot,
            accepted,
            counts.rows - quarantined.total(),
            file_order(self.planned),
            self.spool,
        )
        on_failure = {rule.name: rule.on_failure for rule in self.contract.rules}
        result = StageResult(
            STAGE, self.pipeline.name, self.pipeline.name,
            self.snapshot.version if self.snapshot else None, None,
            batches=tuple(range(self.first, self.last + 1)),
            rows_in=rows_in,
            accepted=merged.accepted, deduplicated=merged.deduplicated, superseded=merged.superseded,
            late=merged.late, quarantined=quarantined.total(),
            bytes_in=sum(batch.size_bytes for batch in self.planned),
            bytes_written=sum(file.size_bytes for file in written.add),
            rows_written=sum(file.num_records for file in written.add),
            seconds=time.monotonic() - started, watermark_utc=self._watermark(),
            broken_rules={n: c for n, c in counts.violations.items() if on_failure[n] != "warn"},
            warned_rules={n: c for n, c in counts.violations.items() if on_failure[n] == "warn"},
            per_batch=self._per_batch(came, merged.tally, quarantined),
            run_id=self.run_id,
        )  # fmt: skip
        result.check_conservation()
        return replace(result, version=self._commit(snapshot, written, result))

    def _refuse_others(self, source: pl.LazyFrame, prepared: pl.LazyFrame, rows_in: int, rows: int) -> None:
        """Raise where the transform gives other rows than it was given, be they as many: it has lost some and doubled others.

        By the sum of the rows' hashes, which takes no memory: other rows have the same once in 10^19.
        """
        if rows != rows_in:
            raise ConservationError(
                f"silver.{self.pipeline.name}: {rows_in} rows in, {rows} out of the transform; nothing was committed",
                hint="a transform must keep every row, once; see docs/pipelines.md",
            )
        place = pl.struct(pl.col(name).cast(dtype) for name, dtype in LINEAGE_SCHEMA.items())
        both = [rows.select(place.hash(seed=1).sum()) for rows in (source, prepared)]
        came, kept = (found.item() for found in pl.collect_all(both, engine="streaming"))
        if came != kept:
            raise ConservationError(
                f"silver.{self.pipeline.name}: the transform drops rows and doubles others; nothing was committed",
                hint="a transform must keep every row, once; see docs/pipelines.md",
            )

    def _came(self) -> Counter[int]:
        """Bronze rows of each batch."""
        found = self.bronze.count_from(names.BATCH_ID, self.first)
        return Counter({number: rows for number, rows in found.items() if number <= self.last})

    def _per_batch(
        self, came: Counter[int], tally: Tally, quarantined: Counter[int]
    ) -> tuple[BatchCounts, ...]:
        """The counts of each batch, where the commit has several."""
        if self.first == self.last:
            return ()
        sizes = {batch.batch_id: batch.size_bytes for batch in self.planned}
        return tuple(
            BatchCounts(
                number, came[number], tally.accepted[number], tally.deduplicated[number],
                tally.superseded[number], tally.late[number], quarantined[number], sizes.get(number, 0),
            )
            for number in range(self.first, self.last + 1)
        )  # fmt: skip

    def _watermark(self) -> datetime | None:
        return max((batch.newest_arrival_utc for batch in self.planned), default=None)

    def _quarantine(
        self, source: pl.LazyFrame, accepted: pl.LazyFrame, rejected: pl.LazyFrame | None
    ) -> tuple[pl.LazyFrame, Counter[int]]:
        """Commit the refused rows as bronze has them, found again by batch, file and row.

        Returns the accepted rows and the number of refused ones by batch. Rows of these batches that a lost run had
        refused under another contract stay refused: a replay can release them.
        """
        where = list(KEPT_LINEAGE)
        known = quarantine.half_done(
            self.lake, self.pipeline.name, stage=STAGE, batches=(self.first, self.last)
        )
        refused: Counter[int] = Counter()
        if known is not None:
            accepted = accepted.join(known.lazy(), on=where, how="anti")
            rejected = None if rejected is None else rejected.join(known.lazy(), on=where, how="anti")
            refused = by_batch(known)
        if rejected is None:
            return accepted, refused
        broken = rejected.select(*where, BROKEN_RULES).collect(engine="streaming")
        found = originals(source, broken)
        if broken.height != found.select(pl.len()).collect(engine="streaming").item():
            raise ConservationError(
                f"silver.{self.pipeline.name}: {broken.height} refused rows, but not all are found again in bronze by "
                f"{', '.join(where)}; nothing was committed",
                hint="the transform must leave these columns as they are",
            )
        if broken.height:
            quarantine.append(
                self.lake, self.pipeline.name, found,
                stage=STAGE, batch_id=self.last, first_batch_id=self.first, contract_hash=self.contract.hash, run_id=self.run_id,
            )  # fmt: skip
        return accepted, refused + by_batch(broken)

    def _commit(self, snapshot: Snapshot | None, written: Rewrite, result: StageResult) -> int:
        txns = {names.app_id(STAGE, self.pipeline.name): self.last}
        metadata = result.metadata(contract_hash=self.contract.hash, mode=self.pipeline.spec.silver.mode)
        if snapshot is None:
            hold.refuse(self.lake)  # a rollback cannot restore, and so not fence, what is not there yet
            return self.table.create(
                table_schema(self.pipeline),
                add=written.add,
                txns=txns,
                metadata=metadata,
                description=self.pipeline.spec.description,
            ).version
        return snapshot.commit(
            add=written.add, remove=written.remove, delete=written.delete, txns=txns, metadata=metadata
        )
