"""What a person sees while a run works: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lakehouse.cli.output import Piece, console, duration, is_terminal, line, say

if TYPE_CHECKING:
    from lakehouse.defs.execute import Progress, RunOutcome


class Display:
    """Takes the events of a run. ``close`` it, whatever happened."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._rows: dict[str, int] = {}
        self._begun = False
        self._bar: Any = None
        self._task: Any = None

    def _start(self, steps: int) -> None:
        """The first run begins: only now is there something to watch."""
        if self._begun:  # a second run: gold, for the pipelines that did not fail
            return
        self._begun = True
        if not is_terminal():
            say("Running, in this process; every run is recorded where the web UI shows it")
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console(), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=steps)
        self._bar.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def event(self, item: Progress) -> None:
        """One thing that happened."""
        if item.rows is not None:
            self._rows[item.name] = item.rows
        if self._quiet:
            return
        if item.kind == "run":
            self._start(item.steps_total)
        elif item.kind == "start" and self._bar is not None:
            self._bar.update(self._task, description=item.name)
        elif item.kind == "end":
            self._ended(item)
        elif item.kind == "check" and item.passed is False:
            self._print("  ", ("check", "yellow"), f" {item.name}: {_first_line(item.message)}")

    def _ended(self, item: Progress) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
        mark = ("ok  ", "green") if item.passed else ("FAIL", "red")
        rows = self._rows.get(item.name)
        amount = f"{rows:>12,} rows" if rows is not None else " " * 17
        self._print("  ", mark, f" {item.name:<28} {amount}  {duration(item.seconds):>7}")

    def _print(self, *pieces: Piece) -> None:
        target = self._bar.console if self._bar is not None else console()
        target.print(line(*pieces), soft_wrap=True)
        sys.stdout.flush()

    def conclude(self, outcome: RunOutcome) -> None:
        """The last lines: what failed and what to do, or what was published."""
        for step in outcome.failures:
            err = console(stderr=True)
            err.print(f"{step.name} failed:", style="bold red", end=" ")
            err.print(step.message or "see the run in the UI", soft_wrap=True)
            if step.next_step:
                err.print(f"  next: {step.next_step}", soft_wrap=True)
        held = f"; readers keep restore point {outcome.published}" if outcome.published else ""
        warned = sum(not check.passed and check.severity == "WARN" for check in outcome.checks)
        passed = sum(check.passed for check in outcome.checks)
        checks = f"{passed} checks passed, {warned} warned" if warned else f"{passed} checks passed"
        if outcome.success:
            say(
                ("Published", "green"),
                f" restore point {outcome.published} in {duration(outcome.seconds)}, {checks}",
            )
        else:
            skipped = sum(step.status == "skipped" for step in outcome.steps)
            say(
                (f"{len(outcome.failures)} of {len(outcome.steps)} steps failed", "red"),
                f", {skipped} waited for them{held}",
            )


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "did not pass"
