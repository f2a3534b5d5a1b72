"""A step's place in its pool, taken and given back with a few statements where nobody else wants it.

Dagster asks eight questions for a place and five to give it back, each a statement and a transaction of its own: a
sixth of what a run of many small tables spends in Dagster (measured). Who has to wait is Dagster's own business.
"""

from __future__ import annotations

from datetime import UTC, datetime

from dagster._utils.concurrency import ConcurrencyClaimStatus, ConcurrencySlotStatus
from sqlalchemy import Connection

#: One statement, so that of two processes one gets the place: it takes the lock, then looks, then writes.
_TAKE = (
    "UPDATE concurrency_slots SET run_id = ?, step_key = ? WHERE id = (SELECT id FROM concurrency_slots WHERE "
    "concurrency_key = ? AND step_key IS NULL AND deleted = 0 LIMIT 1) "
    "AND NOT EXISTS (SELECT 1 FROM pending_steps WHERE concurrency_key = ?)"
)
_NOTE = (
    "INSERT INTO pending_steps (concurrency_key, run_id, step_key, priority, assigned_timestamp) "
    "VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP)"
)
_GIVE = "UPDATE concurrency_slots SET run_id = NULL, step_key = NULL WHERE run_id = ? AND step_key = ? AND deleted = 0"
_DROP = "DELETE FROM concurrency_slots WHERE run_id = ? AND step_key = ? AND deleted = 1"
_FORGET = "DELETE FROM pending_steps WHERE run_id = ? AND step_key = ? RETURNING concurrency_key, assigned_timestamp"


def take(
    index: Connection, pool: str, run_id: str, step_key: str, priority: int
) -> ConcurrencyClaimStatus | None:
    """The claim of a free place that nobody waits for; None otherwise, with nothing changed."""
    if index.exec_driver_sql(_TAKE, (run_id, step_key, pool, pool)).rowcount != 1:
        return None
    index.exec_driver_sql(_NOTE, (pool, run_id, step_key, priority))
    now = datetime.now(UTC).replace(tzinfo=None)
    return ConcurrencyClaimStatus(
        concurrency_key=pool, slot_status=ConcurrencySlotStatus.CLAIMED, priority=priority or None,
        assigned_timestamp=now, enqueued_timestamp=now,
    )  # fmt: skip


def give_back(index: Connection, run_id: str, step_key: str) -> list[str]:
    """Give the step's place back; the pools in which somebody who waits may come forward."""
    index.exec_driver_sql(_GIVE, (run_id, step_key))
    index.exec_driver_sql(_DROP, (run_id, step_key))
    left = index.exec_driver_sql(_FORGET, (run_id, step_key)).fetchall()
    pools = [str(pool) for pool, assigned in left if assigned is not None]
    waiting = "SELECT 1 FROM pending_steps WHERE concurrency_key = ? LIMIT 1"
    return [pool for pool in pools if index.exec_driver_sql(waiting, (pool,)).fetchone() is not None]
