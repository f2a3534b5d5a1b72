"""One gold build: pinned inputs, the write plan of each model, and what was written.

The dbt plugin finds its session by id, in this process: dbt's profile holds no paths, versions or credentials.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lakehouse import scratch
from lakehouse.errors import GoldBuildError
from lakehouse.gold.changes import find_touched
from lakehouse.gold.project import Model
from lakehouse.gold.relations import view_sql
from lakehouse.settings import Settings
from lakehouse.storage import (
    Lake,
    Snapshot,
    deletion_bits,
    prepare_connection,
    quote_identifier,
    quote_literal,
    store_trouble,
)

_log = logging.getLogger(__name__)
#: Schema and table in which SQL can look up whether a model is built incrementally (macro ``is_incremental``).
PLAN_SCHEMA = "lakehouse_build"


@dataclass(frozen=True)
class WritePlan:
    """How one model will be written.

    ``base`` is the version whose rows the build starts from: the newest one that passed its tests. ``latest``
    is where the commit goes; it differs from ``base`` after a build that failed, whose rows are then dropped.
    ``incremental`` is False for the first build, a full refresh and a changed definition. ``inputs`` names the tables
    of the lake that are read, ``before`` has those that ``touched_by`` names as the base has read them.
    """

    model: Model
    base: Snapshot | None
    latest: Snapshot | None
    incremental: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    before: Mapping[str, Snapshot] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What one model's commit did."""

    strategy: str
    version: int
    rows: int
    rows_written: int
    bytes: int
    files_added: int
    files_removed: int

    @property
    def message(self) -> str:
        return (
            f"{self.strategy}: {self.rows_written:,} rows written, version {self.version} holds {self.rows:,}"
        )


class BuildSession:
    """State shared between ``build`` and the plugin for the time of one dbt command."""

    def __init__(
        self,
        lake: Lake,
        settings: Settings,
        *,
        silver: dict[str, Snapshot],
        gold: dict[str, Snapshot],
        plans: dict[str, WritePlan],
    ) -> None:
        self.id = secrets.token_hex(8)
        self.lake = lake
        self.settings = settings
        self.silver = silver
        self.gold = gold
        self.plans = plans
        self.written: dict[str, Written] = {}
        self.errors: dict[str, BaseException] = {}
        self._connection: Any = None
        self._lock = threading.Lock()
        self._touched: set[str] = set()
        self._settling = threading.Lock()

    def __enter__(self) -> BuildSession:
        _SESSIONS[self.id] = self
        return self

    def __exit__(self, *_: object) -> None:
        _SESSIONS.pop(self.id, None)
        if self._connection is not None:
            self._connection.close()

    def cursor(self) -> Any:
        """A connection of its own to the run's in-memory database."""
        with self._lock:
            if self._connection is None:
                raise GoldBuildError("the gold build has no database connection: dbt did not open one")
            return self._connection.cursor()

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def prepare(self, connection: Any) -> None:
        """Give dbt's fresh in-memory database its relations: silver and gold at their versions, and the plan."""
        prepare_connection(connection, self.settings)
        # Not in dbt's profile: where that is another, dbt parses the whole project again, and this folder is the build's own.
        spill = scratch.new_folder(self.settings.state_dir)
        connection.execute(f"SET GLOBAL temp_directory = {quote_literal(str(spill))}")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {PLAN_SCHEMA}")
        inputs = {table for plan in self.plans.values() for table in plan.inputs}
        for schema, snapshots in (("silver", self.silver), ("gold", self.gold)):
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            for name, snapshot in snapshots.items():
                is_read = f"{schema}/{name}" in inputs and snapshot.has_deletions
                deleted = _note_deleted(connection, f"{schema}.{name}", snapshot) if is_read else None
                connection.execute(view_sql(f"{schema}.{quote_identifier(name)}", snapshot, deleted))
        connection.execute(
            f"CREATE OR REPLACE TABLE {PLAN_SCHEMA}.models (model VARCHAR, incremental BOOLEAN)"
        )
        for name, plan in self.plans.items():
            # No parameters: to convert one DuckDB imports pandas, 0.3 s of CPU where it is installed (measured).
            connection.execute(
                f"INSERT INTO {PLAN_SCHEMA}.models VALUES ({quote_literal(name)}, {plan.incremental})"
            )
        with self._lock:
            self._connection = connection.cursor()
        self.settle()

    def snapshot_of(self, table: str) -> Snapshot | None:
        """The version of ``silver/<name>`` or ``gold/<name>`` that this build reads; None while it is being built."""
        layer, _, name = table.partition("/")
        if layer == "silver":
            return self.silver.get(name)
        if name in self.written:
            return self.lake.table("gold", name).snapshot(self.written[name].version)
        return None if name in self.plans else self.gold.get(name)

    def settle(self) -> None:
        """Find the touched groups of every model whose inputs are all there by now.

        A model whose groups cannot be told fails itself, when it asks for them; not the model before it.
        """
        with self._settling:
            for name, plan in self.plans.items():
                if not plan.before or name in self._touched:
                    continue
                now = {table: self.snapshot_of(table) for table in plan.before}
                ready = {table: snapshot for table, snapshot in now.items() if snapshot is not None}
                if len(ready) == len(now):
                    self._touched.add(name)
                    cursor = self.cursor()
                    try:
                        find_touched(cursor, plan.model, plan.before, ready)
                    except Exception as error:  # noqa: BLE001  whatever it was, it is this model's
                        self.errors[name] = store_trouble(error, f"gold.{name}") or GoldBuildError(
                            f"model {name}: touched_by does not work: {error}"
                        )
                    finally:
                        cursor.close()


def _note_deleted(connection: Any, name: str, snapshot: Snapshot) -> str | None:
    """Make the table of a version's deleted rows that its view reads; the table's name.

    None where they cannot be read: then the view reads the lists beside them, or fails whoever asks it.
    """
    table = f"{PLAN_SCHEMA}.{quote_identifier(f'deleted from {name}')}"
    try:
        bits = deletion_bits(snapshot)
    except Exception as error:  # noqa: BLE001  whatever it is, it concerns this table alone
        _log.warning("gold reads the lists of deleted rows of %s: %s", name, error)
        return None
    connection.register("handed_over", bits.to_arrow())
    connection.execute(
        f"CREATE OR REPLACE TABLE {table} AS SELECT file, block, gone::BIT AS gone FROM handed_over"
    )
    connection.unregister("handed_over")
    return table


def find(session_id: str) -> BuildSession | None:
    return _SESSIONS.get(session_id)


_SESSIONS: dict[str, BuildSession] = {}
