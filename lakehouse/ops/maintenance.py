"""Table maintenance: few files of a good size, no file that nobody needs, logs that open fast.

Safe beside anything: nothing changes a row, a writer that was faster wins, and what a restore point names stays.
One table's trouble is told in its result and does not stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from lakehouse import hold, names
from lakehouse.errors import CommitConflict, DeclarationError, LakehouseError
from lakehouse.gold import restore_points
from lakehouse.ops.compaction import MIN_FILES, Layout, groups, layout_of
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake, Snapshot, Table, engine_translated, upkeep

#: Sorting holds the rows, their order and the result at once.
_SORT_COPIES = 3
#: How often a table is looked at again after a conflict. Then it is left to its writers until the next time.
_ATTEMPTS = 3


@dataclass(frozen=True)
class Maintained:
    """What was done to one table, or would be (``dry_run``). Restore points are told of like the files of a table.

    files, bytes      data files of the newest version, before and after
    combined          small files that became ``into`` new ones
    removed           files that no kept version needs, with their bytes: of old versions, left by killed runs, of the log
    skipped           why nothing, or not everything, was done
    error             what went wrong, with the next step
    """

    layer: names.Layer
    table: str
    dry_run: bool = False
    version: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    combined: int = 0
    into: int = 0
    removed: int = 0
    removed_bytes: int = 0
    checkpoint: bool = False
    seconds: float = 0.0
    skipped: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        return names.table_path(self.layer, self.table)

    @property
    def did_something(self) -> bool:
        return bool(self.combined or self.removed or self.checkpoint)


@dataclass
class _Job:
    """The choices of one call."""

    lake: Lake
    settings: Settings
    pipelines: Mapping[str, Pipeline]
    dry_run: bool
    compact: bool
    vacuum: bool
    retention: timedelta
    min_files: int
    kept: Mapping[str, Collection[int]] = field(default_factory=dict)


def maintain(
    lake: Lake,
    settings: Settings,
    pipelines: Mapping[str, Pipeline],
    *,
    select: Sequence[str] | None = None,
    dry_run: bool = False,
    compact: bool = True,
    vacuum: bool = True,
    retention: timedelta | None = None,
    min_files: int = MIN_FILES,
) -> Iterator[Maintained]:
    """Thin the restore points out, then maintain the tables one by one; a result for each, as it is done.

    Args:
        select: ``flights`` (in every layer), ``silver/flights`` or ``silver``; default is every table.
        compact: combine small files, and write a checkpoint where one is overdue.
        vacuum: remove restore points that are too old for their number (of the whole lake only, without ``select``), and
            files that no kept version needs, those of the log as long after as the table says. Not while the lake is held.
        retention: how long what was taken out, or never committed, is spared. Default is the setting; anything
            shorter than the longest run and the longest query is for tests.
        min_files: how many small neighbours it takes.

    Raises:
        DeclarationError: the selection names nothing that exists.
        StorageError: a restore point cannot be read; nothing is removed without knowing what it names.
    """
    tables = find_tables(lake, select)
    vacuum = vacuum and hold.current(lake) is None  # a rollback may be about to name what nobody does now
    job = _Job(
        lake, settings, pipelines, dry_run, compact, vacuum,
        timedelta(days=settings.retention_days) if retention is None else retention,
        min_files,
    )  # fmt: skip
    if vacuum:
        gone = [] if select else _expendable_points(job)
        job.kept = restore_points.kept_versions(lake, gone)
        if gone:
            yield _thin_out(job, gone)
    for table in tables:
        yield _maintain_one(job, table)


def _expendable_points(job: _Job) -> list[str]:
    settings = job.settings
    keep = restore_points.Keep(
        every=timedelta(days=settings.restore_points_days),
        hourly=timedelta(days=settings.restore_points_hourly_days),
        daily=timedelta(days=settings.restore_points_daily_days),
    )
    current = restore_points.current_point(job.lake)
    ids = restore_points.list_ids(job.lake)
    return restore_points.expendable(ids, current.id if current else None, keep, datetime.now(UTC))


def _thin_out(job: _Job, gone: Sequence[str]) -> Maintained:
    started = time.monotonic()
    sizes = {info.path: info.size_bytes for info in job.lake.objects.list(f"{restore_points.FOLDER}/")}
    points = [path for path in sizes if path.endswith(".json")]
    going = [f"{restore_points.FOLDER}/{point_id}.json" for point_id in gone]
    if not job.dry_run:
        hold.refuse(job.lake)
        restore_points.remove(job.lake, gone)
    freed, before = sum(sizes.get(path, 0) for path in going), sum(sizes[path] for path in points)
    return Maintained(
        "ops", "restore_points", job.dry_run,
        files_before=len(points), files_after=len(points) - len(going), bytes_before=before, bytes_after=before - freed,
        removed=len(going), removed_bytes=freed, seconds=time.monotonic() - started,
    )  # fmt: skip


def find_tables(lake: Lake, select: Sequence[str] | None = None) -> list[Table]:
    """The tables that a selection names. Raises ``DeclarationError`` for a name of none."""
    present = [(layer, name) for layer in names.LAYERS for name in lake.tables(layer)]
    wanted = list(select or ())
    known = {word for layer, name in present for word in (layer, name, names.table_path(layer, name))}
    unknown = [word for word in wanted if word not in known]
    if unknown:
        tables = ", ".join(names.table_path(layer, name) for layer, name in present)
        raise DeclarationError(
            f"there is no table {', '.join(unknown)}; write flights, silver/flights or silver",
            hint=f"tables: {tables or 'none yet'}",
        )
    return [
        lake.table(layer, name)
        for layer, name in present
        if not wanted or {layer, name, names.table_path(layer, name)}.intersection(wanted)
    ]


def _maintain_one(job: _Job, table: Table) -> Maintained:
    started = time.monotonic()
    done = Maintained(table.layer, table.name, dry_run=job.dry_run)
    try:
        with engine_translated(f"maintenance of {table.label}"):
            snapshot = table.snapshot_or_none()
            if snapshot is None:
                return replace(done, skipped="it has no version yet")
            done = replace(done, files_before=len(snapshot.uris()), bytes_before=snapshot.size_bytes())
            done = _sized(done, snapshot)
            if job.compact:
                done = _compact(job, table, snapshot, done)
                done = _checkpoint(job, table, done)
            if job.vacuum:
                done = _vacuum(job, table, done)
    except LakehouseError as error:
        done = replace(done, error=f"{error.message} (next: {error.hint or 'lakehouse doctor'})")
    except Exception as error:  # noqa: BLE001  one table that cannot be read must not keep the others as they are
        done = replace(done, error=f"{type(error).__name__}: {error} (next: lakehouse reconcile)")
    return replace(done, seconds=time.monotonic() - started)


def _sized(done: Maintained, snapshot: Snapshot) -> Maintained:
    return replace(
        done, version=snapshot.version, files_after=len(snapshot.uris()), bytes_after=snapshot.size_bytes()
    )


def _compact(job: _Job, table: Table, snapshot: Snapshot, done: Maintained) -> Maintained:
    """One commit a group: a writer that meets it redoes little, and what was done before stays done."""
    for _ in range(_ATTEMPTS):
        chosen, layout = _choose(job, table, snapshot)
        if job.dry_run:
            merged = sum(len(group) for group in chosen)
            after = done.files_after - merged + len(chosen)
            return replace(done, combined=merged, into=len(chosen), files_after=after)
        try:
            for group in chosen:
                staged = upkeep.combine(snapshot, group, sort_by=layout.sort_by, apart_by=layout.apart_by)
                done = replace(
                    _sized(done, snapshot), combined=done.combined + len(group), into=done.into + len(staged)
                )
            return done
        except CommitConflict:
            snapshot = table.snapshot()
    return replace(
        _sized(done, snapshot), skipped="writers were faster; its small files are taken up next time"
    )


def _choose(job: _Job, table: Table, snapshot: Snapshot) -> tuple[list[list[str]], Layout]:
    """The files to combine, and how their rows shall lie."""
    pipeline = job.pipelines.get(table.name) if table.layer == "silver" else None
    layout = layout_of(table.layer, snapshot.schema(), pipeline.contract.key if pipeline else ())
    if len(snapshot.uris()) < job.min_files and not snapshot.has_deletions:
        return [], layout
    chosen = groups(
        snapshot.files(),
        layout,
        target_bytes=table.target_file_bytes,
        max_rows=_max_rows(job, snapshot, layout),
        min_files=job.min_files,
    )
    return chosen, layout


def _max_rows(job: _Job, snapshot: Snapshot, layout: Layout) -> int | None:
    """How many rows may be sorted in memory; no limit for what is streamed."""
    if not layout.sort_by:
        return None
    widest = snapshot.files().sort("size_bytes")["path"][-1]
    width = upkeep.row_width_bytes(snapshot, widest)
    return int(job.settings.memory_limit_bytes / (_SORT_COPIES * width))


def _checkpoint(job: _Job, table: Table, done: Maintained) -> Maintained:
    snapshot = table.snapshot()
    if not upkeep.checkpoint_is_due(snapshot):
        return done
    if not job.dry_run:
        upkeep.write_checkpoint(snapshot)
    return replace(done, checkpoint=True)


def _vacuum(job: _Job, table: Table, done: Maintained) -> Maintained:
    kept = sorted(job.kept.get(names.table_path(table.layer, table.name), ()))
    files = upkeep.unneeded_files(table, kept_versions=kept, retention=job.retention)
    files += upkeep.expired_log(table, kept_versions=kept)
    if not job.dry_run and files:
        hold.refuse(job.lake)
        upkeep.remove_files(table, files)
    return replace(done, removed=len(files), removed_bytes=sum(info.size_bytes for info in files))
