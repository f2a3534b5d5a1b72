"""What failed and has not succeeded since: the reason in an alert, and the clock of a retry.

One open failure per stage and source. Kept beside the data, so that a retry's back-off and an alert's "since
when" survive the loss of the orchestrator's database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import polars as pl

from lakehouse.errors import LakehouseError
from lakehouse.ops.freshness import HOPS, Hop, Obstacle
from lakehouse.ops.journal import Journal
from lakehouse.storage import Lake

SCHEMA: dict[str, pl.DataType] = {
    "at_utc": pl.Datetime("us", "UTC"),
    "stage": pl.String(),  # bronze | silver | references | gold | publish
    "source": pl.String(),  # empty: every source
    "event": pl.String(),  # failed | cleared
    "error": pl.String(),
    "message": pl.String(),
    "next_step": pl.String(),
    "is_gate": pl.Boolean(),
    "run_id": pl.String(),
}
#: What can fail. ``references``: the checks of a silver table against its partners, a step after silver itself.
Stage = Hop | Literal["references"]
STAGES: tuple[Stage, ...] = (*HOPS, "references")
#: Retries of what keeps failing: 1, 2, 4 … times the first wait, up to this.
MAX_WAIT = timedelta(minutes=30)


@dataclass(frozen=True)
class Failure:
    """An open failure. ``attempts`` counts its failures since it last succeeded."""

    stage: Stage
    source: str | None
    error: str
    message: str
    next_step: str
    is_gate: bool
    first_at_utc: datetime
    last_at_utc: datetime
    attempts: int

    def retry_at_utc(self, first_wait_s: float) -> datetime:
        """When an automatic retry is due. The jitter is fixed per attempt, so that every look agrees.

        At once after a failure that a clock, set back since, has put far ahead: nobody waits for that day to come.
        """
        if self.last_at_utc - datetime.now(UTC) > MAX_WAIT:
            return datetime.now(UTC) - MAX_WAIT
        wait_s = min(MAX_WAIT.total_seconds(), first_wait_s * 2 ** min(self.attempts - 1, 16))
        seed = f"{self.stage}{self.source}{self.last_at_utc.isoformat()}".encode()
        jitter = hashlib.sha256(seed).digest()[0] / 255 * 0.2
        return self.last_at_utc + timedelta(seconds=wait_s * (1 + jitter))

    def obstacle(self) -> Obstacle:
        what = (
            self.message.splitlines()[0] if self.is_gate else f"{self.error}: {self.message.splitlines()[0]}"
        )
        hop: Hop = "silver" if self.stage == "references" else self.stage
        return Obstacle(hop, self.source, what, self.first_at_utc, self.next_step, self.is_gate)


def _journal(lake: Lake) -> Journal:
    return Journal(lake, "failures", SCHEMA, "Failures of stages and gates, and when they were cleared.")


def open_failures(lake: Lake) -> dict[tuple[str, str | None], Failure]:
    """The failures that have not been cleared, by stage and source.

    Only of stages that can succeed again and clear theirs. Once, a killed backfill was noted under its step's name: that
    stayed, and was given as the reason of whatever was late.
    """
    found: dict[tuple[str, str | None], Failure] = {}
    for row in _journal(lake).read().rows.sort("at_utc", maintain_order=True).iter_rows(named=True):
        if row["stage"] not in STAGES:
            continue
        key = (row["stage"], row["source"] or None)
        if row["event"] == "cleared":
            found.pop(key, None)
            continue
        before = found.get(key)
        found[key] = Failure(
            stage=row["stage"],
            source=key[1],
            error=row["error"],
            message=row["message"],
            next_step=row["next_step"],
            is_gate=row["is_gate"],
            first_at_utc=before.first_at_utc if before else row["at_utc"],
            last_at_utc=row["at_utc"],
            attempts=before.attempts + 1 if before else 1,
        )
    return found


def record(
    lake: Lake, stage: str, source: str | None, error: BaseException, *, run_id: str, is_gate: bool = False
) -> None:
    """Write that a stage failed."""
    message = error.message if isinstance(error, LakehouseError) else str(error)
    hint = error.hint if isinstance(error, LakehouseError) else None
    _append(
        lake,
        [
            {
                "stage": stage,
                "source": source or "",
                "event": "failed",
                "error": type(error).__name__,
                "message": (message or type(error).__name__)[:2000],
                "next_step": hint or _default_step(stage, source),
                "is_gate": is_gate,
                "run_id": run_id,
            }
        ],
    )


def clear(lake: Lake, cleared: Sequence[tuple[str, str | None]], *, run_id: str) -> None:
    """Write that these stages have succeeded again; nothing is written for an empty list."""
    _append(
        lake,
        [
            {"stage": stage, "source": source or "", "event": "cleared", "run_id": run_id}
            for stage, source in cleared
        ],
    )


def _append(lake: Lake, rows: Sequence[dict[str, object]]) -> None:
    if not rows:
        return
    log = _journal(lake)
    at_utc = log.read().later_than_all(datetime.now(UTC))
    log.append_always([dict.fromkeys(SCHEMA) | {"at_utc": at_utc} | row for row in rows])


def _default_step(stage: str, source: str | None) -> str:
    if source is None:
        return "lakehouse run --select gold"
    return f"lakehouse run --select {source}"
