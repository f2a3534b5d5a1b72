"""What was done about refused rows: ``ops.replays``, append-only like the rows themselves.

An action concerns one table and some of its rows, and is numbered 1, 2, 3 … per table under the Delta
transaction ``plan-replay/<table>``. A *release* counts when silver's transaction ``replay/<table>`` has reached
its number: until then it is a plan, which the next replay carries out. *resolve* counts at once. *reopen* takes
an earlier action (``of_action``) back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import polars as pl

from lakehouse import names
from lakehouse.quarantine.rows import IDENTITY
from lakehouse.storage import Lake, Snapshot

TABLE = "replays"
Action = Literal["release", "resolve", "reopen"]

#: One row per table, action and refused row.
SCHEMA: dict[str, pl.DataType] = {
    "table": pl.String(),
    "action_id": pl.Int64(),
    "action": pl.String(),
    "of_action": pl.Int64(),
    "stage": pl.String(),
    "batch_id": pl.Int64(),
    "source_file": pl.String(),
    "source_row": pl.Int64(),
    "source_position": pl.String(),
    "note": pl.String(),
    "actor": pl.String(),
    "contract_hash": pl.String(),
    "run_id": pl.String(),
    "recorded_at_utc": pl.Datetime("us", "UTC"),
}


def snapshot_of(lake: Lake) -> Snapshot | None:
    """``ops.replays`` as it is now; None when nothing was ever done."""
    return lake.table("ops", TABLE).snapshot_or_none()


def record(
    lake: Lake,
    seen: Snapshot | None,
    table: str,
    action: Action,
    rows: pl.DataFrame,
    *,
    actor: str,
    note: str = "",
    of_action: int | None = None,
    contract_hash: str | None = None,
    run_id: str = "",
) -> int:
    """Write one action on ``rows`` (their identity columns) after what ``seen`` has; its number.

    Raises:
        CommitConflict: somebody else acted on this table meanwhile: look again before acting.
    """
    app = names.app_id("plan-replay", table)
    action_id = (seen.txn(app) if seen else 0) + 1
    fixed: dict[str, object] = {
        "table": table,
        "action_id": action_id,
        "action": action,
        "of_action": of_action,
        "note": note,
        "actor": actor,
        "contract_hash": contract_hash,
        "run_id": run_id,
        "recorded_at_utc": datetime.now(UTC),
    }
    missing = [name for name in IDENTITY if name not in rows.columns]
    frame = rows.lazy().with_columns(pl.lit(None).alias(name) for name in missing)
    frame = frame.select(pl.col(name).alias(name.removeprefix("_")) for name in IDENTITY)
    frame = frame.with_columns(pl.lit(value).alias(name) for name, value in fixed.items())
    handle = lake.table("ops", TABLE)
    staged = handle.stage(frame.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()))
    metadata = {
        "stage": "quarantine",
        "table": table,
        "action": action,
        "action_id": action_id,
        "rows": rows.height,
    }
    if seen is None:
        handle.create(
            SCHEMA, add=staged, txns={app: action_id}, metadata=metadata,
            description="One row per refused row and what was done about it.",
        )  # fmt: skip
    else:
        seen.commit(add=staged, txns={app: action_id}, metadata=metadata)
    return action_id


def latest(seen: Snapshot | None, table: str, *, until_utc: datetime | None = None) -> pl.DataFrame:
    """The newest action on each refused row of a table: identity, action, action_id, note, actor, time.

    Args:
        until_utc: only actions up to this instant; default is all.
    """
    columns = ["action", "action_id", "note", "actor", "recorded_at_utc"]
    identity = [name.removeprefix("_") for name in IDENTITY]
    if seen is None:
        frame = pl.DataFrame(schema={name: SCHEMA[name] for name in [*identity, *columns]})
    else:
        frame = (
            seen.scan()
            .filter(
                pl.col("table") == table,
                pl.lit(True) if until_utc is None else pl.col("recorded_at_utc") <= until_utc,
            )
            .select(*identity, *columns)
            .sort("action_id")
            .unique(identity, keep="last", maintain_order=True)
            .collect()
        )
    return frame.rename({name.removeprefix("_"): name for name in IDENTITY})
