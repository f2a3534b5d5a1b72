"""Dagster's events of a run, collected into what the command line shows and returns."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterEventType, EventLogEntry

from lakehouse.defs.outcome import CheckLine, Progress, StepOutcome

_STEP_NAMES = {
    "bronze_": "bronze/",
    "backfill_": "backfill/",
    "silver_": "silver/",
    "references_of_": "references/",
}


def step_name(key: str) -> str:
    """``bronze/flights`` of Dagster's step key ``bronze_flights``."""
    for prefix, layer in _STEP_NAMES.items():
        if key.startswith(prefix):
            return layer + key.removeprefix(prefix)
    return key


class Recorder:
    """Listens to one or two runs. Later outcomes of a step replace earlier ones."""

    def __init__(self, progress: Callable[[Progress], None] | None) -> None:
        self._progress = progress or (lambda _: None)
        self._started: dict[str, float] = {}
        self.run_ids: list[str] = []
        self.steps: dict[str, StepOutcome] = {}
        self.checks: dict[tuple[str, str], CheckLine] = {}
        self.rows: dict[str, int] = {}
        self._remedies: dict[str, str] = {}

    @property
    def success(self) -> bool:
        return bool(self.steps) and all(step.status == "success" for step in self.steps.values())

    @property
    def steps_that_ran(self) -> set[str]:
        return {name for name, step in self.steps.items() if step.status != "skipped"}

    @property
    def failed_sources(self) -> set[str]:
        """Pipelines of which a step failed."""
        failed = [name for name, step in self.steps.items() if step.status == "failed" and "/" in name]
        return {name.split("/", 1)[1] for name in failed}

    def begin(self, run_id: str, keys: Sequence[dg.AssetKey]) -> None:
        self.run_ids.append(run_id)
        gold = any(key.path[0] == "gold" for key in keys)
        steps = sum(key.path[0] != "gold" for key in keys) + gold
        self._progress(Progress("run", run_id, steps_total=steps))

    def on_event(self, entry: EventLogEntry) -> None:
        """Dagster calls this for every event of the run, from the thread that runs it."""
        event = entry.dagster_event
        if event is None:
            return
        kind = event.event_type
        if event.step_key is None and kind not in (DagsterEventType.ASSET_CHECK_EVALUATION,):
            return
        name = step_name(event.step_key or "")
        if kind == DagsterEventType.STEP_START:
            self._started[name] = entry.timestamp
            self._progress(Progress("start", name))
        elif kind == DagsterEventType.STEP_SUCCESS:
            self._end(name, StepOutcome(name, "success", self._seconds(name, entry)))
        elif kind == DagsterEventType.STEP_FAILURE:
            self._end(name, self._failure(name, event, self._seconds(name, entry)))
        elif kind == DagsterEventType.STEP_SKIPPED:
            self.steps.setdefault(name, StepOutcome(name, "skipped"))
        elif kind == DagsterEventType.ASSET_MATERIALIZATION:
            self._materialized(event)
        elif kind == DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event)

    def _seconds(self, name: str, entry: EventLogEntry) -> float:
        return max(0.0, entry.timestamp - self._started.get(name, entry.timestamp))

    def _end(self, name: str, outcome: StepOutcome) -> None:
        self.steps[name] = outcome
        passed = outcome.status == "success"
        self._progress(Progress("end", name, seconds=outcome.seconds, passed=passed, message=outcome.message))

    def _failure(self, name: str, event: dg.DagsterEvent, seconds: float) -> StepOutcome:
        data = event.step_failure_data
        user = data.user_failure_data
        if user is not None:
            hint = user.metadata.get("next")
            text = str(hint.value) if hint is not None else ""
            return StepOutcome(name, "failed", seconds, user.description or "", text)
        asset = name
        closed = [
            c for c in self.checks.values() if not c.passed and c.severity == "ERROR" and self._of(c, asset)
        ]
        if closed:
            message = "; ".join(f"check {c.name} of {c.asset}: {c.message}" for c in closed)
            return StepOutcome(name, "failed", seconds, message, self._remedies.get(closed[0].asset, ""))
        error = data.error
        cause = error.cause if error is not None and error.cause is not None else error
        return StepOutcome(
            name, "failed", seconds, (cause.message if cause else "").strip(), "lakehouse doctor"
        )

    @staticmethod
    def _of(check: CheckLine, step: str) -> bool:
        if step == "gold":
            return check.asset.startswith("gold/")
        return check.asset == step or (
            step.startswith("references/") and check.asset == f"silver/{step.split('/')[1]}"
        )

    def _materialized(self, event: dg.DagsterEvent) -> None:
        asset = event.asset_key.to_user_string() if event.asset_key else ""
        value = event.step_materialization_data.materialization.metadata.get("dagster/row_count")
        rows = value.value if value is not None and isinstance(value.value, int) else None
        if rows is not None:
            self.rows[asset] = rows
        self._progress(Progress("materialized", asset, rows=rows))

    def _checked(self, event: dg.DagsterEvent) -> None:
        data = event.asset_check_evaluation_data
        line = CheckLine(
            data.asset_key.to_user_string(),
            data.check_name,
            data.passed,
            data.severity.value,
            data.description or "",
        )
        self.checks[(line.asset, line.name)] = line
        if not data.passed and (recovery := data.metadata.get("recovery")) is not None:
            self._remedies[line.asset] = str(recovery.value)
        self._progress(
            Progress("check", f"{line.asset}: {line.name}", passed=line.passed, message=line.message)
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Dagster without its own log lines and beta notices: the caller shows progress and failures itself."""
    loggers = [logging.getLogger(name) for name in ("dagster", "sqlglot")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
