"""What every step needs, built when it is first used, and how errors become Dagster's retries and failures."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NoReturn

import dagster as dg

from lakehouse import checks
from lakehouse.defs.ahead import Ahead
from lakehouse.errors import CheckFailed, LakehouseError, RunsHeld, TransientError
from lakehouse.gold.restore_points import RestorePoint, current_point
from lakehouse.gold.results import GoldResult
from lakehouse.ops import failures
from lakehouse.ops.profile import Profile
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.silver import Backfilled
from lakehouse.storage import Lake

#: The key of the resource in every definition of this project.
KEY = "lakehouse"
#: The step at the end of a run, which writes down what the steps before it have left to it.
GOLD_FOLLOWS = dg.AssetKey(["catalog", "gold"])
MAX_RETRIES = 3
FIRST_WAIT_S = 2.0


@dataclass
class Runtime:
    """The resource ``lakehouse``: settings, declarations and the lake. Creating it touches nothing.

    ``profile``, when there is one, measures every stage; they then run one after the other. ``gold`` hands the
    result of the gold step to the publishing step of the same process, ``backfilled`` that of a backfill to
    whoever asked for it, ``ahead`` has the run's workers; by run id.
    """

    settings: Settings
    pipelines: Mapping[str, Pipeline]
    gold: dict[str, GoldResult] = field(default_factory=dict)
    backfilled: dict[str, Backfilled] = field(default_factory=dict)
    ahead: dict[str, Ahead] = field(default_factory=dict)
    profile: Profile | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    _waiting: list[checks.CheckOutcome] = field(default_factory=list)
    _keeps_waiting: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def lake(self) -> Lake:
        return Lake.from_settings(self.settings)

    @cached_property
    def _open_failures(self) -> dict[tuple[str, str | None], failures.Failure]:
        return failures.open_failures(self.lake)

    def measured(self, stage: str) -> AbstractContextManager[None]:
        """Measures the block, when the run is profiled."""
        return nullcontext() if self.profile is None else self.profile.measure(stage)

    def point(self) -> RestorePoint | None:
        """The published restore point, as it is now."""
        return current_point(self.lake)

    def succeeded(self, stage: str, source: str | None, run_id: str) -> None:
        """Clear the stage's failure, if one is open."""
        if (stage, source) in self._open_failures:
            failures.clear(self.lake, [(stage, source)], run_id=run_id)
            del self._open_failures[(stage, source)]

    def checked(self, outcomes: Sequence[checks.CheckOutcome], run: dg.DagsterRun) -> None:
        """Write down what checks found: what blocks at once, all else in one commit for all tables of the run.

        Only what blocks keeps anything from being published, and what a killed run leaves unpublished is checked again.
        """
        later = run.asset_selection is not None and GOLD_FOLLOWS in run.asset_selection
        with self._lock:
            self._waiting += [replace(outcome, run_id=run.run_id) for outcome in outcomes]
        blocks = any(outcome.blocking and not outcome.passed for outcome in outcomes)
        if not later or not self._keeps_waiting or blocks:
            self.write_checks()

    def write_checks(self) -> None:
        """Commit the outcomes that wait for it."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        try:
            checks.record(self.lake, waiting)
        except LakehouseError:
            with self._lock:
                self._waiting = waiting + self._waiting
            raise

    def gate_failed(
        self, stage: str, source: str | None, messages: list[str], hint: str, run_id: str
    ) -> None:
        """Write that blocking checks of this stage failed. Dagster fails the step itself."""
        self._keeps_waiting = False
        error = CheckFailed("; ".join(messages), hint=hint)
        self._remember(stage, source, error, run_id, is_gate=True)

    def failed(
        self,
        context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
        stage: str,
        source: str | None,
        error: Exception,
        *,
        remember: bool = True,
    ) -> NoReturn:
        """Turn an error of the core into what Dagster shall do about it.

        Transient errors are tried again, with back-off and jitter, in the same run; after the last attempt, and
        for permanent errors, the failure is remembered and the step fails with the error's own hint.

        Args:
            remember: False for what nobody but its caller waits for: it must not hold up the source.
        """
        self._keeps_waiting = False  # Dagster may skip the step that would write them
        if isinstance(error, TransientError) and context.retry_number < MAX_RETRIES:
            wait_s = FIRST_WAIT_S * 2**context.retry_number * random.uniform(0.75, 1.25)
            context.log.warning(f"{error.message} (trying again in {wait_s:.1f} s)")
            raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait_s) from error
        if remember and not isinstance(error, RunsHeld):  # the hold itself says why, and ends
            self._remember(stage, source, error, context.run.run_id, is_gate=isinstance(error, CheckFailed))
        if isinstance(error, LakehouseError):
            hint = error.hint or "lakehouse status"
            raise dg.Failure(
                description=error.message,
                metadata={"next": dg.MetadataValue.text(hint), "error": type(error).__name__},
                allow_retries=False,
            ) from error
        raise error

    def _remember(
        self, stage: str, source: str | None, error: Exception, run_id: str, *, is_gate: bool
    ) -> None:
        """Best effort: a store that does not take the note must not hide the error itself."""
        try:
            failures.record(self.lake, stage, source, error, run_id=run_id, is_gate=is_gate)
        except LakehouseError as second:
            dg.get_dagster_logger("lakehouse").warning(f"the failure could not be noted: {second.message}")
        self.__dict__.pop("_open_failures", None)


def runtime_of(
    context: dg.AssetExecutionContext
    | dg.AssetCheckExecutionContext
    | dg.OpExecutionContext
    | dg.SensorEvaluationContext,
) -> Runtime:
    """The runtime of a step or a sensor tick."""
    found = getattr(context.resources, KEY)
    assert isinstance(found, Runtime)
    return found


def freshness_policy(settings: Settings) -> dg.FreshnessPolicy:
    """The SLA as Dagster's own policy, for the UI. Dagster takes no window below a minute."""
    from datetime import timedelta

    fail = timedelta(minutes=max(2.0, settings.sla_fail_minutes))
    warn = timedelta(minutes=max(1.0, settings.sla_warn_minutes))
    return dg.FreshnessPolicy.time_window(
        fail_window=fail, warn_window=min(warn, fail / 2) if warn >= fail else warn
    )
