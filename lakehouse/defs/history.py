"""Dagster's SQLite storage with connections that stay open.

Dagster opens and closes a connection for every statement, and closing the last one of a database folds its
write-ahead log back with an ``fsync``: 25 ms of CPU an event, half the time of a run of many small tables
(measured). Here each database keeps one connection, statements are compiled once, and a batch of events is one
transaction. The files and their tables are Dagster's own: its plain storage reads them, and the other way round.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

_INDEX = "index"
#: Databases of runs that stay open beside the index; each costs a few file handles.
_RUNS_OPEN = 3


class Kept:
    """Open connections by file. A file that was deleted or replaced meanwhile is opened again."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[tuple[int, int], Connection]] = {}

    def connection(self, path: str, url: str) -> Connection | None:
        """The connection to this file; None when there is no file."""
        identity = _identity(path)
        kept = self._open.pop(path, None)
        if kept is not None and kept[0] == identity:
            self._open[path] = kept  # the newest is the last
            return kept[1]
        if kept is not None:
            _close(kept[1])
        if identity is None:
            return None
        connection = _open(url)
        self._open[path] = (identity, connection)
        return connection

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
        with _one_maker(base_dir):
            super().__init__(base_dir, inst_data)
        self._db_lock = threading.RLock()  # type: ignore[assignment]  # a batch holds it over its events

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> EventLog:
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            path, url = self.path_for_shard(shard), self.conn_string_for_shard(shard)
            connection = self._kept.connection(path, url)
            if connection is None or shard not in self._initialized_dbs:
                self._initdb(create_engine(url, poolclass=NullPool))
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

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """One transaction for the events of a run, and one for their part of the index."""
        if len({event.run_id for event in events}) != 1:
            super().store_event_batch(events)
            return
        with self._connect(events[0].run_id), self._connect(_INDEX):
            super().store_event_batch(events)


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
                self._conn_string.removeprefix("sqlite:///"), self._conn_string
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
