"""The hold: after a rollback nothing of the lake moves on until a person says so.

What a rollback has undone is work for the next run, which would do it again within seconds, wrong as before. So the object
``restore_points/HOLD`` is there from the first moment of a rollback until ``lakehouse resume``: no stage, build, replay or backfill begins,
and nothing is published. What arrives waits, and is late (the SLA goes on).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from lakehouse.errors import PointLost, RunsHeld
from lakehouse.gold.restore_points import FOLDER
from lakehouse.storage import Lake

HOLD = f"{FOLDER}/HOLD"


@dataclass(frozen=True)
class Hold:
    """Why nothing moves on.

    point_id        the restore point that was gone back to
    from_point_id   what was published before, None when nothing was
    reached         how far the rollback came: what readers see, or the tables as well
    mark            tells this rollback from any other
    """

    point_id: str
    from_point_id: str | None
    since_utc: str
    by: str
    note: str
    mark: str
    reached: Literal["readers", "tables"] = "readers"

    @property
    def why(self) -> str:
        """For a message: ``rolled back to point … by … at …: …``."""
        told = f"rolled back to point {self.point_id} by {self.by} at {self.since_utc[:19]}Z"
        told += f": {self.note}" if self.note else ""
        return told if self.is_done else f"{told} (the tables have not followed yet)"

    @property
    def is_done(self) -> bool:
        """False when tables are still ahead of what readers see."""
        return self.reached == "tables"

    @property
    def next_step(self) -> str:
        """What ends the hold."""
        return "lakehouse resume" if self.is_done else f"lakehouse rollback --to {self.point_id}"


def current(lake: Lake) -> Hold | None:
    """The hold; None when nothing holds runs back.

    Raises:
        PointLost: the object is torn. It holds until it is replaced or removed: that something was undone is all that is known.
    """
    raw = lake.objects.read(HOLD)
    if raw is None:
        return None
    try:
        return Hold(**json.loads(raw))
    except (ValueError, TypeError) as error:
        raise PointLost(
            f"{HOLD} cannot be read, so runs are held and nobody knows what for: {error}",
            hint="lakehouse rollback --to the point that readers should see, then: lakehouse resume",
        ) from error


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
