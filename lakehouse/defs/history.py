"""Dagster's SQLite storage with connections that stay open.

Dagster opens and closes a connection for every statement, and closing the last one of a database folds its
write-ahead log back with an ``fsync``: 25 ms of CPU an event, half the time of a run of many small tables
(measured). Here each database keeps one connection, statements are compiled once, and what a step tells at its end is
one transaction (``history_rows``). The files and their tables are Dagster's own: its plain storage reads them, and the
other way round.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import EventLogEntry, EventLogRecord
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from lakehouse.defs import history_pools
from lakehouse.defs.history_rows import MAY_WAIT, forget_checks, forget_events, is_plain, store

_INDEX = "index"
#: Databases of runs that stay open beside the index; each costs a few file handles.
_RUNS_OPEN = 3


class Kept:
    """Open connections by file. A file that was deleted or replaced meanwhile is opened again."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[tuple[int, int], Connection]] = {}

    def connection(self, path: str, url: Callable[[], str]) -> Connection | None:
        """The connection to this file, opened by its ``url`` where it has none yet; None when there is no file."""
        identity = _identity(path)
        kept = self._open.pop(path, None)
        if kept is not None and kept[0] == identity:
            self._open[path] = kept  # the newest is the last
            return kept[1]
        if kept is not None:
            _close(kept[1])
        if identity is None:
            return None
        connection = _open(url())
        self._open[path] = (identity, connection)
        return connection

    def close(self, path: str) -> None:
        """Close the connection to this file, if there is one."""
        if path in self._open:
            _close(self._open.pop(path)[1])

    def close_all_but(self, wanted: Sequence[str], newest: int) -> None:
        """Close what is neither wanted nor among the newest."""
        others = [path for path in self._open if path not in wanted]
        for path in others[: max(0, len(others) - newest)]:
            _close(self._open.pop(path)[1])


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _open(url: str) -> Connection:
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    connection = engine.connect()
    # Without an fsync per commit: a power cut loses the last events of the history, and never its consistency.
    connection.execute(text("PRAGMA synchronous=NORMAL"))
    connection.commit()
    return connection


def _close(connection: Connection) -> None:
    connection.close()
    connection.engine.dispose()


@contextmanager
def _one_maker(folder: str) -> Iterator[None]:
    """One process at a time: the web server and the daemon start together, and both make what is not there.

    The loser would end with "table … already exists" (seen when Dagster's home was deleted before a start).
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class EventLog(SqliteEventLogStorage):
    """The events of runs: a database per run, and the index of assets and checks."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept = Kept()
        self._waiting: list[EventLogEntry] = []
        self._newest: dict[str, tuple[str, EventLogRecord]] = {}
        self._known: set[str] = set()
        with _one_maker(base_dir):
            super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]  # a batch holds it over its events

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> EventLog:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            self._flush()  # whoever looks sees everything
            path = self.path_for_shard(shard)
            # To make the URL asks the disk about every folder of the path.
            url = partial(self.conn_string_for_shard, shard)
            connection = self._kept.connection(path, url)
            if connection is None or shard not in self._initialized_dbs:
                self._initdb(create_engine(url(), poolclass=NullPool))
                self._initialized_dbs.add(shard)
                connection = self._kept.connection(path, url)
                assert connection is not None
            self._kept.close_all_but([self.path_for_shard(_INDEX), path], _RUNS_OPEN - 1)
            if connection.in_transaction():
                yield connection
                return
            with connection.begin():
                yield connection

    @property
    def supports_asset_checks(self) -> bool:
        """Always: the tables are made by this release of Dagster. It would look for them at every event."""
        return True

    def has_table(self, table_name: str) -> bool:
        """Asked once for each: what is there stays."""
        return self._there(f"table {table_name}", lambda: super(EventLog, self).has_table(table_name))

    def has_asset_key_col(self, column_name: str) -> bool:
        """Asked once for each."""
        return self._there(
            f"column {column_name}", lambda: super(EventLog, self).has_asset_key_col(column_name)
        )

    def has_secondary_index(self, name: str) -> bool:
        """Asked once for each."""
        return self._there(f"index {name}", lambda: super(EventLog, self).has_secondary_index(name))

    def _there(self, what: str, look: Callable[[], bool]) -> bool:
        if what not in self._known and look():
            self._known.add(what)
        return what in self._known

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        with self._connect(_INDEX) as index:
            claimed = history_pools.take(index, concurrency_key, run_id, step_key, priority or 0)
        return claimed or super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)

    def free_concurrency_slot_for_step(self, run_id: str, step_key: str) -> None:
        with self._connect(_INDEX) as index:
            pools = history_pools.give_back(index, run_id, step_key)
        if pools:
            self.assign_pending_steps(pools)

    def store_event(self, event: EventLogEntry) -> None:
        """Written at once, but for what a step tells between its work and its end: that is written with the end."""
        with self._db_lock:
            if self._waiting and self._waiting[0].run_id != event.run_id:
                self._flush()
            if not is_plain(event):
                super().store_event(event)
                return
            self._waiting.append(event)
            if event.is_dagster_event and event.dagster_event_type in MAY_WAIT:
                return
            self._flush()

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """One transaction for the events of a run, and one for their part of the index."""
        with self._db_lock:
            self._flush()
            if len({event.run_id for event in events}) != 1 or not all(map(is_plain, events)):
                super().store_event_batch(events)
                return
            self._waiting = list(events)
            self._flush()

    def _flush(self) -> None:
        events, self._waiting = self._waiting, []
        if not events:
            return
        with self._connect(events[0].run_id) as run, self._connect(_INDEX) as index:
            store(run, index, events, tag=self._tag, seen=self._remember)

    def _tag(self, index: Connection, event: EventLogEntry, number: int) -> None:
        self._store_asset_event_tags(index, [event], [number])

    def _remember(self, asset: str, text: str, record: EventLogRecord) -> None:
        self._newest[asset] = (text, record)

    def _get_latest_materialization_records(
        self, raw_asset_rows: Sequence[Mapping[str, Any]]
    ) -> Mapping[dg.AssetKey, EventLogRecord | None]:
        """Every step asks for those of its inputs. What was written here need not be made from its text again."""
        found: dict[dg.AssetKey, EventLogRecord | None] = {}
        others = []
        for row in raw_asset_rows:
            text, record = self._newest.get(row["asset_key"], (None, None))
            key = dg.AssetKey.from_db_string(row["asset_key"])
            if (
                key is not None
                and text is not None
                and row["last_materialization"] == text
                and not row["asset_details"]
            ):
                found[key] = record
            else:
                others.append(row)
        return {**found, **super()._get_latest_materialization_records(others)} if others else found

    def delete_events(self, run_id: str) -> None:
        """The run's database goes as a whole, and its part of the index.

        What the UI still shows stays: each check's newest outcome, and which partitions were ever materialized.
        """
        with self._connect(_INDEX) as index:
            forget_events(index, run_id)
            forget_checks(index, run_id)
        with self._db_lock:
            path = self.path_for_shard(run_id)
            self._kept.close(path)
            self._initialized_dbs.discard(run_id)
            for ending in ("", "-wal", "-shm", "-journal"):
                Path(path + ending).unlink(missing_ok=True)
        self.free_concurrency_slots_for_run(run_id)

    def dispose(self) -> None:
        with self._db_lock:
            self._flush()
        super().dispose()


class Runs(SqliteRunStorage):
    """The list of runs."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept = Kept()
        self._lock = threading.RLock()
        super().__init__(conn_string, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Runs:
        with _one_maker(config_value["base_dir"]):
            return cls.from_local(inst_data=inst_data, **config_value)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._lock:
            connection = self._kept.connection(
                self._conn_string.removeprefix("sqlite:///"), lambda: self._conn_string
            )
            if connection is None:  # the file is gone: as Dagster has it, an empty one is opened
                with super().connect() as connection:
                    yield connection
                return
            if connection.in_transaction():
                yield connection
                return
            with connection.begin():
                yield connection


class Schedules(SqliteScheduleStorage):
    """Ticks of sensors and schedules."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        with _one_maker(config_value["base_dir"]):
            return cls.from_local(inst_data=inst_data, **config_value)
