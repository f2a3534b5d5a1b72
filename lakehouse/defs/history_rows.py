"""Dagster's events as rows of its own tables, many in one go.

Dagster composes several statements per event, serializes it two or three times and commits each statement: half of
what a run of many small tables spends in Dagster (measured). Here an event is serialized once and a step's events are
one transaction. The tables and what stands in them are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from dagster import AssetCheckEvaluation, DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.event_api import EventLogRecord
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
)
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._serdes import serialize_value
from sqlalchemy import Connection
from sqlalchemy import text as sql

_INSERT_EVENT = (
    "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_MATERIALIZED = (
    "INSERT INTO asset_keys (asset_key, last_materialization, last_run_id, last_materialization_timestamp) "
    "VALUES (?, ?, ?, ?) ON CONFLICT (asset_key) DO UPDATE SET last_materialization = excluded.last_materialization, "
    "last_run_id = excluded.last_run_id, last_materialization_timestamp = excluded.last_materialization_timestamp"
)
_PLANNED = (
    "INSERT INTO asset_keys (asset_key, last_run_id, last_materialization_timestamp) VALUES (?, ?, ?) "
    "ON CONFLICT (asset_key) DO UPDATE SET last_run_id = excluded.last_run_id, "
    "last_materialization_timestamp = excluded.last_materialization_timestamp"
)
_INSERT_CHECK = (
    "INSERT INTO asset_check_executions (execution_status, evaluation_event, evaluation_event_timestamp, "
    "evaluation_event_storage_id, materialization_event_storage_id, asset_key, check_name, run_id) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
#: Dagster's own indexes of that table begin with the asset: to find a run's rows it would be read whole, for every run.
_CHECKS_OF_RUN = "CREATE INDEX IF NOT EXISTS lakehouse_checks_of_run ON asset_check_executions (run_id)"
#: What a run only planned is nothing that it found. That goes, and is no reason for what an earlier run found to go.
_FORGET_CHECKS = (
    "DELETE FROM asset_check_executions AS old WHERE run_id = :run AND (execution_status = :planned OR EXISTS ("
    "SELECT 1 FROM asset_check_executions AS later WHERE later.asset_key = old.asset_key "
    "AND later.check_name = old.check_name AND later.id > old.id AND later.execution_status <> :planned))"
)
_FORGET_EVENTS = "DELETE FROM event_logs WHERE run_id = :run AND (partition IS NULL OR dagster_event_type <> :materialized)"
_FORGET_TAGS = (
    "DELETE FROM asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE run_id = :run "
    "AND (partition IS NULL OR dagster_event_type <> :materialized))"
)
_UPDATE_CHECK = (
    "UPDATE asset_check_executions SET execution_status = ?, evaluation_event = ?, evaluation_event_timestamp = ?, "
    "evaluation_event_storage_id = ?, materialization_event_storage_id = ? "
    "WHERE asset_key = ? AND check_name = ? AND run_id = ? AND partition IS NULL"
)

#: Of these, what is written here is what Dagster would write. Everything else goes Dagster's own way.
_WHOLE = (DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
#: What a step tells between its work and its end. Nobody misses it for those milliseconds.
MAY_WAIT = frozenset(
    {
        DagsterEventType.STEP_OUTPUT,
        DagsterEventType.HANDLED_OUTPUT,
        DagsterEventType.ASSET_CHECK_EVALUATION,
        DagsterEventType.ASSET_MATERIALIZATION,
    }
)


@dataclass(frozen=True)
class _Row:
    event: EventLogEntry
    text: str
    kind: DagsterEventType | None

    @property
    def values(self) -> tuple[object, ...]:
        event, step, asset = self.event, self.event.step_key, None
        if event.dagster_event is not None:
            step = event.dagster_event.step_key
            key = event.dagster_event.asset_key
            asset = None if key is None else key.to_string()
        return event.run_id, self.text, self.kind and self.kind.value, self.at, step, asset, None

    @property
    def at(self) -> str:
        """The time as SQLAlchemy writes it."""
        moment = datetime.fromtimestamp(self.event.timestamp, UTC).replace(tzinfo=None)
        return moment.isoformat(" ", "microseconds")


#: Called with the key of an asset, the stored text of its newest materialization, and that materialization.
Seen = Callable[[str, str, EventLogRecord], None]


def is_plain(event: EventLogEntry) -> bool:
    """True when ``store`` knows how to write the event: no partition, no tags that Dagster would index."""
    found = event.dagster_event
    if found is None:
        return True
    if not event.run_id or found.partition is not None:
        return False
    if found.event_type in ASSET_EVENTS:
        return found.event_type in _WHOLE and found.asset_key is not None and found.partitions_subset is None
    if found.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
        return cast(AssetCheckEvaluation, found.event_specific_data).partition is None
    if found.event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
        return cast(AssetCheckEvaluationPlanned, found.event_specific_data).partitions_subset is None
    return True


def store(
    run: Connection,
    index: Connection,
    events: Sequence[EventLogEntry],
    *,
    tag: Callable[[Connection, EventLogEntry, int], None],
    seen: Seen,
) -> None:
    """Write the events of one run into its database and, where Dagster mirrors them, into the index.

    Args:
        tag: writes the tags of a materialization that Dagster indexes, given the number of its event.
        seen: told of every materialization as it is stored.
    """
    rows = [_row(event) for event in events]
    _insert(run, rows)
    for row in rows:
        if row.kind is None or row.kind not in _MIRRORED:
            continue
        number = _insert(index, [row])
        if row.kind in _WHOLE:
            _store_asset(index, row, number, seen)
            if row.kind == DagsterEventType.ASSET_MATERIALIZATION:
                tag(index, row.event, number)
        elif row.kind in ASSET_CHECK_EVENTS:
            _store_check(index, row, number)


_MIRRORED = frozenset({*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS})


def _row(event: EventLogEntry) -> _Row:
    return _Row(event, serialize_value(event), event.dagster_event_type if event.is_dagster_event else None)


def _insert(connection: Connection, rows: Iterable[_Row]) -> int:
    """Number of the last row."""
    number = 0
    for row in rows:
        number = int(connection.exec_driver_sql(_INSERT_EVENT, row.values).lastrowid)
    return number


def _store_asset(index: Connection, row: _Row, number: int, seen: Seen) -> None:
    event = row.event
    assert event.dagster_event is not None
    assert event.dagster_event.asset_key is not None
    key = event.dagster_event.asset_key.to_string()
    if row.kind == DagsterEventType.ASSET_MATERIALIZATION:
        record = EventLogRecord(storage_id=number, event_log_entry=event)
        text = serialize_value(record)
        index.exec_driver_sql(_MATERIALIZED, (key, text, event.run_id, row.at))
        seen(key, text, record)
    else:
        index.exec_driver_sql(_PLANNED, (key, event.run_id, row.at))


def forget_checks(index: Connection, run_id: str) -> None:
    """Delete what a run found of the checks that a later run has looked at again. Dagster would keep that for ever.

    In SQLite and PostgreSQL; elsewhere it stays.
    """
    if index.dialect.name not in ("sqlite", "postgresql"):
        return
    index.execute(sql(_CHECKS_OF_RUN))
    planned = AssetCheckExecutionRecordStatus.PLANNED.value
    index.execute(sql(_FORGET_CHECKS), {"run": run_id, "planned": planned})


def forget_events(index: Connection, run_id: str) -> None:
    """Delete a run's events, but for the materializations of partitions: that they were ever made is known by nothing else."""
    of_run = {"run": run_id, "materialized": DagsterEventType.ASSET_MATERIALIZATION.value}
    index.execute(sql(_FORGET_TAGS), of_run)
    index.execute(sql(_FORGET_EVENTS), of_run)


def _store_check(index: Connection, row: _Row, number: int) -> None:
    assert row.event.dagster_event is not None
    data = row.event.dagster_event.event_specific_data
    if row.kind == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
        planned = cast(AssetCheckEvaluationPlanned, data)
        where = (planned.asset_key.to_string(), planned.check_name, row.event.run_id)
        status = AssetCheckExecutionRecordStatus.PLANNED.value
        index.exec_driver_sql(_INSERT_CHECK, (status, row.text, row.at, number, None, *where))
        return
    found = cast(AssetCheckEvaluation, data)
    where = (found.asset_key.to_string(), found.check_name, row.event.run_id)
    outcome = (
        AssetCheckExecutionRecordStatus.SUCCEEDED if found.passed else AssetCheckExecutionRecordStatus.FAILED
    )
    target = found.target_materialization_data
    values = (outcome.value, row.text, row.at, number, target.storage_id if target else None, *where)
    if index.exec_driver_sql(_UPDATE_CHECK, values).rowcount == 0:
        index.exec_driver_sql(_INSERT_CHECK, values)
