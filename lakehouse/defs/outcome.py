"""What a run did, without Dagster's types: for the command line, its displays and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EventKind = Literal["run", "start", "end", "materialized", "check"]


@dataclass(frozen=True)
class Progress:
    """One thing that happened, for a display. ``name`` is a step (``silver/flights``) or a check.

    ``rows`` is set for materializations; ``passed`` for checks and ended steps.
    """

    kind: EventKind
    name: str
    seconds: float = 0.0
    rows: int | None = None
    passed: bool | None = None
    message: str = ""
    steps_total: int = 0


@dataclass(frozen=True)
class StepOutcome:
    """One step of a run, ``bronze/flights`` or ``gold`` or ``publish``."""

    name: str
    status: Literal["success", "failed", "skipped"]
    seconds: float = 0.0
    message: str = ""
    next_step: str = ""


@dataclass(frozen=True)
class CheckLine:
    """One check as it came out."""

    asset: str
    name: str
    passed: bool
    severity: str
    message: str


@dataclass(frozen=True)
class RunOutcome:
    """What a run did. ``success`` is about everything asked for; ``published`` names the point analysts read now.

    ``run_ids`` has two entries when a pipeline failed and the others were taken to gold without it.
    """

    run_ids: tuple[str, ...] = ()
    success: bool = True
    nothing_new: bool = False
    seconds: float = 0.0
    steps: tuple[StepOutcome, ...] = ()
    checks: tuple[CheckLine, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    published: str | None = None

    @property
    def run_id(self) -> str:
        return self.run_ids[0] if self.run_ids else ""

    @property
    def failures(self) -> tuple[StepOutcome, ...]:
        return tuple(step for step in self.steps if step.status == "failed")
