"""Planning: what has arrived becomes numbered batches; what must not be read is set aside, and says so.

A plan is one commit to ``ops.batches``, made before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import polars as pl

from lakehouse import events, names
from lakehouse.connectors import Batch, Connector, SourceFile, connector_for
from lakehouse.connectors.files import legible
from lakehouse.errors import CommitConflict, LakehouseError
from lakehouse.ledger import Ledger, News, append, news_of, row_of
from lakehouse.ledger_rows import RETURNED
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake

#: Says what is different between a file and the version of it that was taken.
Describe = Callable[[Lake, Settings, Pipeline, SourceFile, SourceFile], str]


def plan(
    lake: Lake,
    settings: Settings,
    pipelines: Iterable[Pipeline],
    *,
    run_id: str = "",
    now: datetime | None = None,
    describe: Describe | None = None,
) -> dict[str, list[Batch]]:
    """Write a batch for everything that has arrived and is not in the ledger; the new batches per source.

    All sources are planned in one commit. Two planners at once: one wins, the other reads again and finds
    nothing left to plan. Files that are held, ignored or duplicates are events, too. Of several sources, one that
    cannot be looked at is left out: planned by itself it says why.
    """
    chosen = list(pipelines)
    for _ in range(20):
        ledger = Ledger(lake)
        work = _Planning(lake, settings, ledger, run_id, ledger.after(now or datetime.now(UTC)), describe)
        pool = ThreadPoolExecutor(settings.thread_count, thread_name_prefix="hash")
        try:
            for step in (partial(work.look, pool), work.add):
                for pipeline in chosen:
                    try:
                        step(pipeline)
                    except LakehouseError:
                        if len(chosen) == 1:
                            raise
                        work.drop(pipeline.name)
        finally:
            pool.shutdown(cancel_futures=True)
        if not work.rows:
            return {}
        try:
            append(lake, ledger.snapshot, work.rows, work.txns)
        except CommitConflict:
            continue  # somebody planned meanwhile: what they took is not news any more
        events.record(lake, work.events)
        return work.planned
    raise CommitConflict("ops.batches: 20 attempts to plan met other planners", hint="run again")


class _Planning:
    """One attempt to plan: the rows to write, and what they mean."""

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        ledger: Ledger,
        run_id: str,
        now: datetime,
        describe: Describe | None,
    ) -> None:
        self.lake, self.settings, self.ledger = lake, settings, ledger
        self.run_id, self.now, self.describe = run_id, now, describe
        self.rows: list[dict[str, Any]] = []
        self.news: dict[str, tuple[News, dict[SourceFile, Future[str | None]]]] = {}
        self.planned: dict[str, list[Batch]] = {}
        self.events: list[events.Event] = []

    @property
    def txns(self) -> dict[str, int]:
        """One for every source with rows, so that of two planners who saw the same news one has to look again."""
        last = {row["source"]: self.ledger.last_batch_id(row["source"]) for row in self.rows}
        last |= {name: batches[-1].batch_id for name, batches in self.planned.items()}
        return {names.app_id("plan", name): batch_id for name, batch_id in last.items()}

    def look(self, pool: Executor, pipeline: Pipeline) -> None:
        """Find what is new, and have its contents hashed: of all sources at once, on every core."""
        connector = connector_for(pipeline.spec.source, self.settings)
        item = news_of(pipeline, self.settings, self.ledger)
        readable = [file for file in (*item.files, *item.changed) if legible(file.path) == file.path]
        hashes = {file: pool.submit(connector.content_hash, file) for file in readable}
        self.news[pipeline.name] = item, hashes

    def add(self, pipeline: Pipeline) -> None:
        """Sort what was found into batches and what is set aside; nothing where looking failed."""
        if pipeline.name not in self.news:
            return
        source = pipeline.spec.source
        connector = connector_for(source, self.settings)
        item, hashes = self.news[pipeline.name]
        contents = self.ledger.contents(pipeline.name, {file.size_bytes for file in item.files})
        sizes = {size for known, size in contents if _is_earlier(known)}
        take: list[SourceFile] = []
        for arrived in item.files:
            file = replace(arrived, content_hash=hashes[arrived].result())
            identity = (file.content_hash or "", file.size_bytes)
            first = contents.get(identity) if source.skips_same_content else None
            if first is None and source.skips_same_content and file.size_bytes in sizes:
                first = contents.get((connector.earlier_hash(file) or "", file.size_bytes))
            if first is not None and connector.has_records(file):
                latest = take[-1] if take else self._latest(pipeline.name)
                note = f"the same content as {first}{_goes_back(pipeline, latest, file)}"
                self._aside(pipeline, "duplicate", file, note)
                continue
            if file.content_hash is not None:
                contents.setdefault(identity, file.path)
            take.append(file)
        # Without names that are no UTF-8: no query takes those.
        taken = self.ledger.taken_files(pipeline.name, {file.path for file in item.changed if file in hashes})
        for arrived in item.changed:
            if (
                arrived not in hashes
            ):  # no reader takes such a path, and no table; the others must not wait for it
                named = replace(arrived, path=legible(arrived.path))
                self._aside(pipeline, "ignored", named, "its name is not UTF-8; rename it")
                continue
            file = replace(arrived, content_hash=hashes[arrived].result())
            before = taken.get(file.path)
            if before is not None and _is_same(connector, before, file):
                self._aside(pipeline, "unchanged", file, "")
            elif source.on_change == "append":
                take.append(file)
            else:
                stage = "ignored" if source.on_change == "ignore" else "held"
                self._aside(pipeline, stage, file, self._difference(pipeline, before, file))
        self.cut(pipeline.name, take)

    def drop(self, source: str) -> None:
        """Forget what was found of a source."""
        self.news.pop(source, None)
        self.planned.pop(source, None)
        self.rows = [row for row in self.rows if row["source"] != source]
        self.events = [event for event in self.events if event.pipeline != source]

    def cut(self, source: str, files: Sequence[SourceFile]) -> None:
        """Plan files as batches of at most the size limit."""
        last = self.ledger.last_batch_id(source)
        for part in split_by_size(files, self.settings.max_batch_bytes):
            last += 1
            self.planned.setdefault(source, []).append(Batch(source, last, tuple(part), self.now))
            self.rows.append(row_of(source, last, "planned", part, self.run_id, self.now))

    def _aside(self, pipeline: Pipeline, stage: str, file: SourceFile, note: str) -> None:
        self.rows.append(row_of(pipeline.name, None, stage, [file], self.run_id, self.now, note))
        if stage != "unchanged":
            then = f"; to take it: lakehouse accept {pipeline.name} --apply" if stage == "held" else ""
            message = f"{file.path} was not read: {note}{then}"
            self.events.append(events.Event(stage, pipeline.name, message, at_utc=self.now))

    def _latest(self, source: str) -> SourceFile | None:
        """The file that a batch took last."""
        batches = self.ledger.batches(source, above=self.ledger.last_batch_id(source) - 1)
        return batches[-1].files[-1] if batches else None

    def _difference(self, pipeline: Pipeline, before: SourceFile | None, file: SourceFile) -> str:
        if before is None:
            return f"new content of {file.size_bytes} bytes"
        if self.describe is not None:
            return self.describe(self.lake, self.settings, pipeline, before, file)
        return f"new content: {before.size_bytes} bytes before, {file.size_bytes} now"


def _goes_back(pipeline: Pipeline, latest: SourceFile | None, file: SourceFile) -> str:
    """What to do where earlier content has come again: a copy and a moved file look like a source's newest state.

    It is passed over all the same: reading it would let every copy of an old file undo what came after it.
    """
    if pipeline.spec.silver.mode == "append" or latest is None or latest.content_hash is None:
        return ""
    if latest.content_hash == file.content_hash or _is_earlier(latest.content_hash):
        return ""
    return (
        f", and other content came in between ({latest.path}); if the source has gone back to it, set "
        "source.same_content: land and send the file once more under another name"
    )


def _is_same(connector: Connector, before: SourceFile, now: SourceFile) -> bool:
    """True when the content is known to be what it was."""
    known = before.content_hash
    if known is None or now.content_hash is None:
        return False
    if known == now.content_hash:
        return True
    return _is_earlier(known) and before.size_bytes == now.size_bytes and connector.earlier_hash(now) == known


def _is_earlier(content_hash: str) -> bool:
    """True for a hash from before hashes said how they were made."""
    return ":" not in content_hash


def accept(
    lake: Lake, settings: Settings, pipeline: Pipeline, files: Sequence[SourceFile], *, run_id: str = ""
) -> list[Batch]:
    """Plan held files as new batches in the order of their arrival, which the next run lands; the batches.

    Files that are not held any more (somebody else accepted them, or they changed again) are left out.
    """
    for _ in range(20):
        ledger = Ledger(lake)
        held = {(file.path, file.fingerprint): file for file in ledger.held_files(pipeline.name)}
        chosen = [held[key] for file in files if (key := (file.path, file.fingerprint)) in held]
        if not chosen:
            return []
        # The last one wins where nothing else orders a key's rows.
        chosen.sort(key=lambda file: (file.modified_at_utc, file.path))
        work = _Planning(lake, settings, ledger, run_id, ledger.after(datetime.now(UTC)), None)
        work.cut(pipeline.name, chosen)
        try:
            append(lake, ledger.snapshot, work.rows, work.txns)
        except CommitConflict:
            continue
        return work.planned[pipeline.name]
    raise CommitConflict("ops.batches: 20 attempts to plan met other planners", hint="run again")


def plan_ahead(
    lake: Lake, settings: Settings, pipelines: Iterable[Pipeline], *, run_id: str, describe: Describe
) -> None:
    """Plan in one commit for all sources of a run, before any of them is read.

    A source with planned batches that have not landed is left to its own ``ingest``, which lands them first: one of
    their files may have to be given back, and what is there now must not be compared with it. So is one that fails.
    """
    ledger = Ledger(lake)
    settled = []
    for pipeline in pipelines:
        with suppress(LakehouseError):  # its own step says why
            take_back(lake, pipeline.name)
            bronze = lake.table("bronze", pipeline.name).snapshot_or_none()
            landed = bronze.txn(names.app_id("bronze", pipeline.name)) if bronze else 0
            if not ledger.batches(pipeline.name, above=landed):
                settled.append(pipeline)
    if len(settled) > 1:  # one alone is planned by its own step
        plan(lake, settings, settled, run_id=run_id, describe=describe)


def take_back(lake: Lake, source: str) -> int:
    """Copy from bronze's commits which planned files were given back; the number of files.

    Bronze says so in the same commit that passes the batch, so a crash in between loses nothing: this is
    called before every plan. The files then count as never seen.
    """
    app = names.app_id(RETURNED, source)
    for _ in range(20):
        bronze = lake.table("bronze", source).snapshot_or_none()
        ledger = Ledger(lake)
        last = bronze.txn(app) if bronze else 0
        done = ledger.snapshot.txn(app) if ledger.snapshot else 0
        if bronze is None or last <= done:
            return 0
        rows, count = [], 0
        planned = {batch.batch_id: batch for batch in ledger.batches(source, above=done)}
        for commit in bronze.history():
            batch_id = (commit.metadata.get("batches") or [0])[-1]
            lost = commit.metadata.get(RETURNED)
            if commit.metadata.get("stage") == "bronze" and batch_id <= done:
                break
            if lost and batch_id in planned:
                files = [file for file in planned[batch_id].files if file.path in lost]
                _withdraw(lake, source, batch_id, list(lost))
                note = "; ".join(f"{path} {what}" for path, what in lost.items())
                rows.append(
                    row_of(
                        source,
                        batch_id,
                        RETURNED,
                        files,
                        commit.metadata.get("run_id", ""),
                        ledger.after(datetime.now(UTC)),
                        note,
                    )
                )
                count += len(files)
        # Under the plan's transaction too: a planner who has not seen this must look again.
        txns = {app: last, names.app_id("plan", source): ledger.last_batch_id(source)}
        try:
            append(lake, ledger.snapshot, rows, txns)
            return count
        except CommitConflict:
            continue
    raise CommitConflict("ops.batches: 20 attempts met other planners", hint="run again")


def _withdraw(lake: Lake, source: str, batch_id: int, paths: Sequence[str]) -> None:
    """Take lines out of quarantine that a run refused, and died before its batch landed, of files given back since.

    The batch has passed without these files, and whatever is refused of them is refused again when they land.
    """
    table = lake.table("quarantine", source)
    of_files = (pl.col("_stage") == "bronze") & (pl.col(names.BATCH_ID) == batch_id)
    of_files &= pl.col(names.SOURCE_FILE).is_in(paths)
    for _ in range(20):
        snapshot = table.snapshot_or_none()
        if snapshot is None:
            return
        near = set(snapshot.files_in_range(names.BATCH_ID, batch_id, batch_id))
        files = snapshot.files().filter(pl.col("uri").is_in(near)).select("path", "uri").rows()
        gone = [
            (path, uri) for path, uri in files if not _is_empty(snapshot.scan(uris=[uri]).filter(of_files))
        ]
        if not gone:
            return
        rest = table.stage(snapshot.scan(uris=[uri for _, uri in gone]).filter(of_files.not_()))
        try:
            snapshot.commit(add=rest, remove=[path for path, _ in gone], metadata={"withdrawn": batch_id})
            return
        except CommitConflict:
            continue
    raise CommitConflict(f"quarantine.{source}: 20 attempts met other writers", hint="run again")


def _is_empty(frame: pl.LazyFrame) -> bool:
    return frame.head(1).collect().is_empty()


def split_by_size(files: Sequence[SourceFile], limit_bytes: int) -> list[list[SourceFile]]:
    """Files in order, cut into lists of at most ``limit_bytes``; a larger file stands alone."""
    lists: list[list[SourceFile]] = []
    size = 0
    for file in files:
        if not lists or size + file.size_bytes > limit_bytes:
            lists.append([])
            size = 0
        lists[-1].append(file)
        size += file.size_bytes
    return lists
