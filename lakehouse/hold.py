"""The hold: after a rollback nothing of the lake moves on until a person says so.

What a rollback has undone is work for the next run, which would do it again within seconds, wrong as before. So the object
``restore_points/HOLD`` is there from the first moment of a rollback until ``lakehouse resume``: no stage, build, replay or backfill begins or
commits, and nothing is published. What arrives waits, and is late (the SLA goes on).

Whoever writes a table that a rollback restores asks after having read the version that the commit follows. The hold is written before any table is
restored, so "no hold" then means that the version is older, and Delta refuses the commit if a rollback comes in between.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from lakehouse.errors import RunsHeld
from lakehouse.storage import Lake

HOLD = "restore_points/HOLD"


@dataclass(frozen=True)
class Hold:
    """Why nothing moves on.

    point_id        the restore point that was gone back to
    from_point_id   what was published before, None when nothing was
    reached         how far the rollback came: what readers see, or the tables as well; ``torn``: nobody knows, the object cannot be read
    mark            tells this rollback from any other
    then            commands that ask again for what was undone, for after ``lakehouse resume``
    """

    point_id: str
    from_point_id: str | None
    since_utc: str
    by: str
    note: str
    mark: str
    then: tuple[str, ...] = ()
    reached: Literal["readers", "tables", "torn"] = "readers"

    @property
    def why(self) -> str:
        """For a message: ``rolled back to point … by … at …: …``."""
        if self.reached == "torn":
            return f"{HOLD} is there and cannot be read: a rollback was begun before {self.since_utc[:19]}Z"
        told = f"rolled back to point {self.point_id} by {self.by} at {self.since_utc[:19]}Z"
        told += f": {self.note}" if self.note else ""
        return told if self.is_done else f"{told} (the tables have not followed yet)"

    @property
    def is_done(self) -> bool:
        """False when tables may still be ahead of what readers see."""
        return self.reached == "tables"

    @property
    def next_step(self) -> str:
        """What ends the hold, or comes before it."""
        if self.is_done:
            return "lakehouse resume"
        return f"lakehouse rollback --to {'POINT' if self.reached == 'torn' else self.point_id}"


def current(lake: Lake) -> Hold | None:
    """The hold; None when nothing holds runs back. A torn one holds: that something is undone is all that is known."""
    raw = lake.objects.read(HOLD)
    if raw is None:
        return None
    try:
        found = json.loads(raw)
        return Hold(**{**found, "then": tuple(found["then"])})
    except (ValueError, TypeError, KeyError):
        info = lake.objects.info(HOLD)
        since = datetime.now(UTC) if info is None else info.modified_at_utc
        return Hold("", None, since.isoformat(), "", "", "", reached="torn")


def refuse(lake: Lake) -> None:
    """Raise ``RunsHeld`` while the lake is held."""
    held = current(lake)
    if held is not None:
        raise RunsHeld(f"runs are held: {held.why}; nothing was done", hint=held.next_step)


def write(lake: Lake, hold: Hold) -> None:
    """Hold the lake from now on."""
    lake.objects.write(HOLD, json.dumps(asdict(hold), indent=2).encode(), durable=True)


def lift(lake: Lake) -> None:
    """Let runs begin again."""
    lake.objects.delete(HOLD)
