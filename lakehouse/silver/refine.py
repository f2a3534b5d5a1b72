"""From bronze batches to silver rows: prepare, screen, merge, quarantine commit, data commit."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import polars as pl

from lakehouse import names, quarantine
from lakehouse.contracts.screen import BROKEN_RULES
from lakehouse.errors import CommitConflict, ConservationError, ContractError
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline
from lakehouse.results import StageResult
from lakehouse.settings import Settings
from lakehouse.silver import merge
from lakehouse.silver.prepare import (
    FILE_ORDER,
    LINEAGE_SCHEMA,
    RAW,
    SEQUENCE,
    prepare,
    with_file_order,
    with_raw,
)
from lakehouse.silver.write import Rewrite, existing_rows, rewrite
from lakehouse.storage import Lake, Snapshot, Table

STAGE: names.Layer = "silver"
_SLICE = "__slice"
#: Share of the memory limit that the changes of one slice may take; merging needs a few times that.
_SLICE_SHARE = 0.12
#: Rows of one row group of a spool file: what a streaming read of it holds at once.
_SPOOL_GROUP = 100_000
_INSTANT = pl.Datetime("us", "UTC")


def refine(lake: Lake, settings: Settings, pipeline: Pipeline, *, run_id: str = "") -> StageResult:
    """Bring every bronze batch that silver does not have yet into ``silver.<name>``, in one commit.

    Refused rows are committed to ``quarantine.<name>`` first, whole, with the rules they broke.

    Raises:
        ContractError: a rule with ``on_failure: fail`` is broken, or the contract does not fit the table; the
            table is left unchanged.
        ConservationError: the transform lost or doubled rows; nothing is committed.
    """
    table = lake.table(STAGE, pipeline.name)
    before = table.snapshot_or_none()
    version = before.version if before else None
    result = StageResult(STAGE, pipeline.name, pipeline.name, version, version, run_id=run_id)
    while (batches := _next_batches(lake, pipeline)) is not None:
        part = _refine_batches(lake, settings, pipeline, table, batches, run_id)
        if part is None:
            continue  # another run refined these batches; their rows are there once
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
    return done + 1, min(newest, half_done) if half_done > done else newest


def _refine_batches(
    lake: Lake, settings: Settings, pipeline: Pipeline, table: Table, batches: tuple[int, int], run_id: str
) -> StageResult | None:
    """One commit; None when another run was faster."""
    spool = Path(settings.state_dir, "spool", uuid.uuid4().hex)
    snapshot = table.snapshot_or_none()
    bronze = lake.table("bronze", pipeline.name).snapshot()
    try:
        return _Work(lake, settings, pipeline, table, snapshot, bronze, batches, run_id, spool).run()
    except CommitConflict:
        latest = table.snapshot_or_none()
        if latest is not None and latest.txn(names.app_id(STAGE, pipeline.name)) >= batches[1]:
            return None
        raise
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def table_schema(pipeline: Pipeline) -> dict[str, pl.DataType]:
    """Columns of the pipeline's silver table: the contract's, the mode's, and lineage."""
    contract, silver = pipeline.contract, pipeline.spec.silver
    extra: dict[str, pl.DataType] = {
        name: pl.String() for name in silver.sequence_by if name not in contract.schema
    }
    if silver.mode == "history":
        extra = {
            names.VALID_FROM: _INSTANT,
            names.VALID_TO: _INSTANT,
            names.IS_CURRENT: pl.Boolean(),
            merge.OBSERVED_AT: pl.List(_INSTANT),
        }
    if silver.delete_when is not None:
        extra[merge.IS_DELETED] = pl.Boolean()
    return {**contract.schema, **extra, **LINEAGE_SCHEMA}


class _Work:
    """One refinement: the inputs that its steps share."""

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        pipeline: Pipeline,
        table: Table,
        snapshot: Snapshot | None,
        bronze: Snapshot,
        batches: tuple[int, int],
        run_id: str,
        spool: Path,
    ) -> None:
        self.lake, self.settings, self.pipeline = lake, settings, pipeline
        self.table, self.snapshot, self.bronze = table, snapshot, bronze
        self.first, self.last = batches
        self.run_id, self.spool = run_id, spool
        self.contract, self.silver = pipeline.contract, pipeline.spec.silver
        self.key = list(self.contract.key)
        self.schema = table_schema(pipeline)
        planned = Ledger(lake).batches(pipeline.name, above=self.first - 1)
        self.planned = [batch for batch in planned if batch.batch_id <= self.last]

    def run(self) -> StageResult:
        started = time.monotonic()
        snapshot = self._fit_schema()
        bronze_rows = self._bronze_rows()
        rows_in = int(bronze_rows.select(pl.len()).collect(engine="streaming").item())
        prepared = self._materialize(prepare(bronze_rows, self.pipeline), rows_in)
        counts = self.contract.count(prepared)
        accepted, rejected = self.contract.split(prepared, counts)
        quarantined = self._quarantine(bronze_rows, rejected) if rejected is not None else 0
        merged, written = self._merge(snapshot, accepted, counts.rows - quarantined)
        on_failure = {rule.name: rule.on_failure for rule in self.contract.rules}
        result = StageResult(
            STAGE, self.pipeline.name, self.pipeline.name,
            self.snapshot.version if self.snapshot else None, None,
            batches=tuple(range(self.first, self.last + 1)),
            rows_in=rows_in,
            accepted=merged.accepted, deduplicated=merged.deduplicated, superseded=merged.superseded,
            late=merged.late, quarantined=quarantined,
            bytes_in=sum(batch.size_bytes for batch in self.planned),
            bytes_written=sum(file.size_bytes for file in written.add),
            seconds=time.monotonic() - started, watermark_utc=self._watermark(),
            broken_rules={n: c for n, c in counts.violations.items() if on_failure[n] != "warn"},
            warned_rules={n: c for n, c in counts.violations.items() if on_failure[n] == "warn"},
            run_id=self.run_id,
        )  # fmt: skip
        result.check_conservation()
        return replace(result, version=self._commit(snapshot, written, result))

    # -- input -------------------------------------------------------------------------------------

    def _bronze_rows(self) -> pl.LazyFrame:
        """Bronze rows of the batches, read from only the files that hold them."""
        uris = self.bronze.files_in_range(names.BATCH_ID, self.first, self.last)
        rows = self.bronze.scan(uris=uris)
        return rows.filter(pl.col(names.BATCH_ID).is_between(self.first, self.last))

    def _materialize(self, prepared: pl.LazyFrame, rows: int) -> pl.LazyFrame:
        """The prepared rows, computed once: in memory when they fit the limit, else spooled to disk."""
        if rows <= self._rows_that_fit:
            return prepared.collect(engine="streaming").lazy()
        folder = self.spool / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        prepared.sink_parquet(
            folder / "rows.parquet", compression="zstd", compression_level=1, row_group_size=_SPOOL_GROUP
        )
        return pl.scan_parquet(folder / "rows.parquet", glob=False)

    @cached_property
    def _rows_that_fit(self) -> int:
        """How many rows a stage may hold at once, judged by the memory that bronze's first rows take.

        Typed rows, their flags and their lineage take about as much again as the source's own.
        """
        uris = self.bronze.files_in_range(names.BATCH_ID, self.first, self.last)[:1]
        sample = self.bronze.scan(uris=uris).head(1_000).collect(engine="streaming")
        row_bytes = max(2 * sample.estimated_size() / max(sample.height, 1), 32.0)
        return max(int(self.settings.memory_limit_bytes * _SLICE_SHARE / row_bytes), 20_000)

    def _watermark(self) -> datetime | None:
        return max((batch.newest_arrival_utc for batch in self.planned), default=None)

    def _fit_schema(self) -> Snapshot | None:
        """The table with the contract's new columns added. Raises ``ContractError`` when a type changed."""
        if self.snapshot is None:
            return None
        stored = self.snapshot.schema()
        changed = [
            f"{name} is {stored[name]}, the contract says {dtype}"
            for name, dtype in self.schema.items()
            if name in stored and stored[name] != dtype
        ]
        if changed:
            raise ContractError(
                f"silver.{self.pipeline.name}: {'; '.join(changed)}; the table is left unchanged",
                hint="keep the type, or give the pipeline a new name: its table is then built from all its files",
            )
        added = {name: dtype for name, dtype in self.schema.items() if name not in stored}
        return self.snapshot.add_columns(added) if added else self.snapshot

    # -- refused rows ------------------------------------------------------------------------------

    def _quarantine(self, bronze_rows: pl.LazyFrame, rejected: pl.LazyFrame) -> int:
        """Commit the refused rows as bronze has them, found again by batch, file and row."""
        where = [names.BATCH_ID, names.SOURCE_FILE, names.SOURCE_ROW]
        broken = rejected.select(*where, BROKEN_RULES).collect(engine="streaming")
        found = with_raw(bronze_rows.join(broken.lazy(), on=where, how="inner"))
        if broken.height != found.select(pl.len()).collect(engine="streaming").item():
            raise ConservationError(
                f"silver.{self.pipeline.name}: {broken.height} refused rows, but not all are found again in bronze by "
                f"{', '.join(where)}; nothing was committed",
                hint="the transform must leave these columns as they are",
            )
        return quarantine.append(
            self.lake, self.pipeline.name, found.select(*where, BROKEN_RULES, RAW),
            stage=STAGE, batch_id=self.last, contract_hash=self.contract.hash, run_id=self.run_id,
        )  # fmt: skip

    # -- accepted rows -----------------------------------------------------------------------------

    def _merge(
        self, snapshot: Snapshot | None, accepted: pl.LazyFrame, rows: int
    ) -> tuple[merge.Merged, Rewrite]:
        changes = self._shape(accepted)
        none = pl.DataFrame(schema={name: self.schema[name] for name in self.key})
        if self.silver.mode == "append" and not self.key:
            staged = self.table.stage(changes.select(*self.schema))
            count = sum(file.num_records for file in staged)
            return merge.Merged(pl.DataFrame(), none, count), Rewrite(staged, [])
        total = merge.Merged(pl.DataFrame(), none, 0)
        pieces: list[pl.DataFrame | pl.LazyFrame] = []
        for index, part in enumerate(self._slices(changes, rows)):
            merged = self._merge_slice(snapshot, part)
            output = merged.rows.select(*self.schema).sort(self.key)
            pieces.append(self._park(output, index) if rows > part.height else output)
            total = merge.Merged(
                pl.DataFrame(), pl.concat([total.replaced, merged.replaced]),
                total.accepted + merged.accepted, total.deduplicated + merged.deduplicated,
                total.superseded + merged.superseded, total.late + merged.late,
            )  # fmt: skip
        return total, rewrite(self.table, snapshot, pieces, total.replaced, self.key)

    def _shape(self, accepted: pl.LazyFrame) -> pl.LazyFrame:
        """Contract columns, lineage and what the mode needs; keys are whole at this point."""
        order = {file.path: index for index, file in enumerate(f for b in self.planned for f in b.files)}
        frame = with_file_order(accepted, order)
        extra = [name for name in self.silver.sequence_by if name not in self.contract.schema]
        computed: list[pl.Expr] = []
        delete = self.silver.delete_when
        if delete is not None:
            marked = pl.col(delete.column).cast(pl.String).eq_missing(pl.lit(str(delete.value)))
            computed.append(marked.alias(merge.IS_DELETED))
        if self.silver.mode == "history":
            computed.append(_instant(frame, self.silver.sequence_by[0]).alias(SEQUENCE))
            extra = [name for name in extra if name not in self.contract.schema and name in self.schema]
        frame = frame.with_columns(computed)
        kept = [
            *self.contract.schema,
            *extra,
            *(e.meta.output_name() for e in computed),
            *LINEAGE_SCHEMA,
            FILE_ORDER,
        ]
        return frame.select(*dict.fromkeys(kept))

    def _slices(self, changes: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
        """The changes in pieces that fit the memory limit; all rows of one key are in the same piece."""
        limit = self._rows_that_fit
        if rows <= limit:
            yield changes.collect(engine="streaming")
            return
        count = -(-rows // limit)
        folder = self.spool / "slices"
        number = (pl.struct(self.key).hash(seed=0) % count).alias(_SLICE)
        # Chunk by chunk, because one partitioned sink of the whole held 2.3 GB for 20 million rows (measured).
        for index in range(count):
            chunk = changes.slice(index * limit, limit).with_columns(number).collect(engine="streaming")
            for (part,), piece in chunk.partition_by(_SLICE, as_dict=True, include_key=False).items():
                target = folder / f"{part:05d}" / f"{index:05d}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                piece.write_parquet(target, compression="zstd", compression_level=1)
        for part_folder in sorted(folder.iterdir()):
            yield pl.read_parquet(part_folder / "*.parquet", hive_partitioning=False)

    def _park(self, output: pl.DataFrame, index: int) -> pl.LazyFrame:
        """A slice's rows on disk until the commit: memory holds one slice at a time."""
        path = self.spool / f"merged-{index:05d}.parquet"
        output.write_parquet(path, compression="zstd", compression_level=1)
        return pl.scan_parquet(path, glob=False)

    def _merge_slice(self, snapshot: Snapshot | None, changes: pl.DataFrame) -> merge.Merged:
        mode, delete = self.silver.mode, self.silver.delete_when
        content = [name for name in self.contract.schema if name not in self.key]
        content += [name for name in self.silver.sequence_by if name not in (*self.key, *content)]
        if delete is not None:
            content.append(merge.IS_DELETED)
        if mode == "history" and changes[SEQUENCE].null_count():
            raise ContractError(
                f"silver.{self.pipeline.name}: {changes[SEQUENCE].null_count()} rows have no {self.silver.sequence_by[0]}, "
                "so nobody knows since when they hold; the table is left unchanged",
                hint="declare the column as not nullable in the contract: such rows are then quarantined",
            )
        if mode == "append":
            keys = self._existing(snapshot, changes, [])
            return merge.merge_append(changes, keys, self.key)
        if mode == "upsert":
            existing = self._existing(
                snapshot, changes, [name for name in self.schema if name not in LINEAGE_SCHEMA]
            )
            return merge.merge_upsert(changes, existing, self.key, self.silver.sequence_by, content)
        content = [name for name in content if name not in self.silver.sequence_by]
        return merge.merge_history(
            changes, self._existing(snapshot, changes, list(self.schema)), self.key, content
        )

    def _existing(
        self, snapshot: Snapshot | None, changes: pl.DataFrame, columns: Sequence[str]
    ) -> pl.DataFrame:
        wanted = [*dict.fromkeys([*self.key, *columns])]
        if snapshot is None:
            return pl.DataFrame(schema={name: self.schema[name] for name in wanted})
        return existing_rows(snapshot, changes, self.key, wanted)

    # -- commit ------------------------------------------------------------------------------------

    def _commit(self, snapshot: Snapshot | None, written: Rewrite, result: StageResult) -> int:
        txns = {names.app_id(STAGE, self.pipeline.name): self.last}
        metadata = result.metadata(contract_hash=self.contract.hash, mode=self.silver.mode)
        if snapshot is None:
            return self.table.create(
                self.schema,
                add=written.add,
                txns=txns,
                metadata=metadata,
                description=self.pipeline.spec.description,
            ).version
        return snapshot.commit(add=written.add, remove=written.remove, txns=txns, metadata=metadata)


def _instant(frame: pl.LazyFrame, column: str) -> pl.Expr:
    """A sequence column as an instant: timestamps as they are, dates at midnight UTC, ISO text parsed."""
    dtype = frame.collect_schema()[column]
    value = pl.col(column)
    if isinstance(dtype, pl.String):
        return value.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    if isinstance(dtype, pl.Datetime):
        return (
            value.dt.cast_time_unit("us")
            if dtype.time_zone
            else value.dt.cast_time_unit("us").dt.replace_time_zone("UTC")
        )
    if isinstance(dtype, pl.Date):
        return value.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return pl.from_epoch(value, time_unit="us").dt.replace_time_zone("UTC")
