"""Write one model's rows as one Delta commit: overwrite, append, merge, replace_where or replace_groups.

The query runs once, in a ``COPY`` that writes Parquet files into the table's folder; everything else (contract
constraints, duplicate keys, which old files are touched) is asked of those files. Files without a touched row stay as
they are. One commit then adds and removes files together, so a reader sees the model before or after.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import GoldBuildError
from lakehouse.gold.changes import is_touched_sql
from lakehouse.gold.project import Model
from lakehouse.gold.relations import view_sql
from lakehouse.gold.row_checks import check_constraints, check_group_key, check_inside, check_keys
from lakehouse.gold.session import BuildSession, WritePlan, Written
from lakehouse.gold.types import delta_columns
from lakehouse.storage import Snapshot, StagedFile, Table, duckdb_type, quote_identifier, quote_literal

#: An incremental build folds files below a quarter of the target size together when it finds this many.
MAX_SMALL_FILES = 32


@dataclass
class _Change:
    """What the commit will do to the base version: files that go, files that come."""

    strategy: str
    added: list[StagedFile] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)


def write_model(session: BuildSession, plan: WritePlan, sql: str) -> Written:
    """Run ``sql``, commit its rows to the model's table by the model's strategy, and point the model's view there.

    Raises:
        GoldBuildError: a type that Delta does not hold, a broken constraint, duplicate or missing merge keys, rows
            outside replace_where, or new columns in an incremental build. Nothing is committed then.
        CommitConflict: another build has written the table meanwhile.
    """
    model = plan.model
    table = session.lake.table("gold", model.name)
    cursor = session.cursor()
    try:
        schema = delta_columns(cursor, model.name, sql)
        incremental = plan.incremental and plan.base is not None and model.strategy != "overwrite"
        if incremental and plan.base is not None and plan.base.schema() != schema:
            raise GoldBuildError(
                f"model {model.name}: its columns have changed, which an incremental build cannot write: "
                f"{_difference(plan.base.schema(), schema)}",
                hint="remove `full_refresh: false` from the model: the next run then builds it from scratch",
            )
        new_files = _copy(session, cursor, table, sql)
        try:
            change = _plan_change(session, cursor, plan, new_files, schema, incremental=incremental)
        except GoldBuildError:
            # Nothing names these files, and nothing will: no need to wait for a vacuum.
            for file in new_files:
                table.objects.delete(file.path)
            raise
        inputs = {name: found.version for name in plan.inputs if (found := session.snapshot_of(name))}
        written = _commit(
            plan, table, schema, change, sum(file.num_records for file in new_files), {"inputs": inputs}
        )
        snapshot = table.snapshot(written.version)
        cursor.execute(view_sql(f"gold.{quote_identifier(model.name)}", snapshot))
        return written
    finally:
        cursor.close()


def _plan_change(
    session: BuildSession,
    cursor: Any,
    plan: WritePlan,
    new_files: list[StagedFile],
    schema: dict[str, pl.DataType],
    *,
    incremental: bool,
) -> _Change:
    """Check the new rows, and work out what they do to the base version."""
    model, base = plan.model, plan.base
    new_rows = _parquet(session.lake.table("gold", model.name), new_files, schema)
    check_constraints(cursor, model, new_rows)
    if model.strategy == "replace_groups":
        check_group_key(model.name, model.group_key, schema)
    if model.strategy == "merge":
        check_keys(cursor, model.name, model.unique_key, new_rows)
    if base is None or not incremental:
        return _Change("overwrite", list(new_files), set() if base is None else set(base.files()["path"]))
    return _incremental(session, cursor, model, base, new_files, new_rows)


def _incremental(
    session: BuildSession,
    cursor: Any,
    model: Model,
    base: Snapshot,
    new_files: list[StagedFile],
    new_rows: str,
) -> _Change:
    """Old files that hold a replaced row are written again without it; the others stay."""
    if model.strategy == "append":
        replaced = "false"
    elif model.strategy == "merge":
        condition = " AND ".join(f"old.{k} = new_rows.{k}" for k in map(quote_identifier, model.unique_key))
        replaced = f"EXISTS (SELECT 1 FROM new_rows WHERE {condition})"
    elif model.strategy == "replace_groups":
        replaced = is_touched_sql(model, "old")
        check_inside(cursor, model.name, is_touched_sql(model, "new_rows"), new_rows, "the touched groups")
    else:
        replaced = f"coalesce(({model.replace_where}), false)"
        check_inside(cursor, model.name, str(model.replace_where), new_rows)
    change = _Change(model.strategy, list(new_files))
    touched = {} if model.strategy == "append" else _touched(cursor, base, new_rows, replaced)
    small = _too_many_small_files(base, session.lake.target_file_bytes, ignore=set(touched))
    paths = dict(zip(base.files()["uri"], base.files()["path"], strict=True))
    change.dropped = {paths[uri] for uri in (*touched, *small)}
    columns = ", ".join(f"old.{quote_identifier(name)}" for name in base.schema())
    # File by file: rows that lie together stay together, and files go on pruning (measured: no slower than at once).
    for uris in [[uri] for uri, kept in touched.items() if kept] + ([small] if small else []):
        rest = f"SELECT {columns} FROM {_read(uris)} AS old WHERE NOT {replaced}"
        # Room to spare, or a file of the target size would come back as one and a bit, and again next time.
        change.added += _copy(session, cursor, base.table, f"WITH new_rows AS ({new_rows}) {rest}", room=2)
    return change


def _touched(cursor: Any, base: Snapshot, new_rows: str, replaced: str) -> dict[str, int]:
    """URI → rows to keep, of each file that holds at least one replaced row."""
    if not base.uris():
        return {}
    files = _read(base.uris(), "filename = '__file'")
    counts = cursor.execute(
        f"WITH new_rows AS ({new_rows}), old AS (SELECT * FROM {files}), "
        f"marked AS (SELECT __file, ({replaced}) AS replaced FROM old) "
        "SELECT __file, count(*) FILTER (WHERE NOT replaced) FROM marked GROUP BY 1 HAVING bool_or(replaced)"
    ).fetchall()
    return dict(counts)


def _too_many_small_files(base: Snapshot, target_bytes: int, ignore: set[str]) -> list[str]:
    """Small files to fold into one, once there are many: a build an hour leaves 8,760 of them a year otherwise."""
    files = base.files()
    small = files.filter(pl.col("size_bytes") < target_bytes // 4)["uri"].to_list()
    small = [uri for uri in small if uri not in ignore]
    return small if len(small) >= MAX_SMALL_FILES else []


def _commit(
    plan: WritePlan,
    table: Table,
    schema: dict[str, pl.DataType],
    change: _Change,
    rows_written: int,
    read: dict[str, Any],
) -> Written:
    """One commit that leaves the table with the base's files, less those dropped, plus those added.

    Usually the base is the table's newest version and the commit names just the difference. After a failed build the
    newest version holds rows that no test has passed: the same commit takes them out and names the base's files again.
    """
    base_files = [] if plan.base is None else plan.base.files()["path"].to_list()
    kept = [path for path in base_files if path not in change.dropped]
    latest_files = set() if plan.latest is None else set(plan.latest.files()["path"])
    metadata = {
        **plan.metadata,
        **read,
        "strategy": change.strategy,
        "base_version": None if plan.base is None else plan.base.version,
        "rows_written": rows_written,
        "bytes_written": sum(file.size_bytes for file in change.added),
    }
    # A turn of one's own: to Delta two appends are no conflict, and two builds at once would append the same rows.
    app = names.app_id("gold", plan.model.name)
    turn = {app: 1 if plan.latest is None else plan.latest.txn(app) + 1}
    if plan.latest is None:
        snapshot = table.create(
            schema, add=change.added, txns=turn, metadata=metadata, description=plan.model.description or None
        )
    elif plan.latest.schema() != schema:
        snapshot = plan.latest
        snapshot.commit(
            add=[*table.adopt(kept), *change.added], txns=turn, metadata=metadata, overwrite_schema=schema
        )
    else:
        snapshot = plan.latest
        back = [path for path in kept if path not in latest_files]
        snapshot.commit(
            add=[*table.adopt(back), *change.added],
            remove=sorted(latest_files.difference(kept)),
            txns=turn,
            metadata=metadata,
        )
    return Written(
        strategy=change.strategy,
        version=snapshot.version,
        rows=snapshot.num_rows(),
        rows_written=rows_written,
        bytes=sum(file.size_bytes for file in change.added),
        files_added=len(change.added),
        files_removed=len(change.dropped),
    )


def _copy(session: BuildSession, cursor: Any, table: Table, sql: str, *, room: int = 1) -> list[StagedFile]:
    """Run the query once, straight into data files of about the target size. No rows give no file."""
    if not table.objects.is_remote:
        Path(table.uri).mkdir(parents=True, exist_ok=True)
    rows = cursor.execute(
        f"COPY (\n{sql.rstrip().rstrip(';')}\n) TO {quote_literal(table.uri)} (FORMAT parquet, COMPRESSION zstd, "
        f"COMPRESSION_LEVEL {session.lake.compression_level}, FILE_SIZE_BYTES {room * session.lake.target_file_bytes}, "
        f"FILENAME_PATTERN 'gold-{uuid.uuid4().hex[:8]}-{{uuid}}', APPEND true, RETURN_STATS true)"
    ).fetchall()
    for path in (row[0] for row in rows if not row[1]):
        table.objects.delete(_relative(table, path))
    return table.adopt(_relative(table, row[0]) for row in rows if row[1])


def _relative(table: Table, path: str) -> str:
    return path.removeprefix(table.uri).lstrip("/")


def _parquet(table: Table, files: Iterable[StagedFile], schema: dict[str, pl.DataType]) -> str:
    """A query over staged files; typed and empty when there are none."""
    uris = [f"{table.uri.rstrip('/')}/{file.path}" for file in files]
    if uris:
        return f"SELECT * FROM {_read(uris)}"
    columns = ", ".join(
        f"CAST(NULL AS {duckdb_type(dtype)}) AS {quote_identifier(name)}" for name, dtype in schema.items()
    )
    return f"SELECT {columns} WHERE false"


def _read(uris: Sequence[str], *options: str) -> str:
    """The files' own columns: a folder above the lake that is called ``env=prod`` is no column of theirs."""
    files = ", ".join(quote_literal(uri) for uri in uris)
    return f"read_parquet({', '.join([f'[{files}]', 'hive_partitioning = false', *options])})"


def _difference(old: dict[str, pl.DataType], new: dict[str, pl.DataType]) -> str:
    parts = [f"+{name} {dtype}" for name, dtype in new.items() if name not in old]
    parts += [f"-{name}" for name in old if name not in new]
    parts += [f"{name} {old[name]} → {new[name]}" for name in old if name in new and old[name] != new[name]]
    return ", ".join(parts) or "the order of columns"
