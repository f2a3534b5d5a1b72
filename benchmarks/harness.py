"""What every benchmark shares: contestants side by side in fresh processes, medians, one JSON, one Markdown table.

A contestant is a module-level function that takes one dictionary (the case), imports and prepares what it needs, and
returns the work as a function without arguments. Only the work is measured, in a process of its own, and what it
returns (rows, say) is kept beside the numbers. Rounds are interleaved: every contestant once, then again, so that
a machine that slows down slows all of them.

A contestant may be a generator instead: it yields named steps, each measured alone, and what it does between them is
nobody's. What it returns are its facts. That is for work whose n-th part needs the one before.

    @contestant seconds, CPU seconds of the process and everything it started, peak memory, bytes written
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_RESULT = "benchmark-result: "

#: Named works, measured one by one; what the generator returns are the facts.
Steps = Generator[tuple[str, Callable[[], Any]], None, Mapping[str, Any]]


@dataclass(frozen=True)
class Step:
    """One measured part of a run."""

    name: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    written_bytes: int


@dataclass(frozen=True)
class Run:
    """One measurement: the sum of its steps, and their highest peak. ``facts`` is what the work returned."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    written_bytes: int
    facts: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, steps: Sequence[Step], facts: Mapping[str, Any]) -> Run:
        return cls(
            sum(step.wall_s for step in steps), sum(step.cpu_s for step in steps),
            max(step.peak_rss_bytes for step in steps), sum(step.written_bytes for step in steps),
            dict(facts), list(steps),
        )  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> Run:
        found = json.loads(text)
        return cls(**{**found, "steps": [Step(**step) for step in found["steps"]]})


@dataclass(frozen=True)
class Contestant:
    """``function`` is ``package.module:name``; another ``python`` makes it run in another environment.

    ``absent`` says why it cannot run here: it is then named, not measured. ``once``: it takes minutes, so the first round is its only one.
    """

    name: str
    function: str
    case: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    absent: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    once: bool = False


@dataclass
class Result:
    """All rounds of one contestant."""

    name: str
    runs: list[Run] = field(default_factory=list)
    absent: str | None = None

    def median(self, what: str) -> float:
        return float(statistics.median(getattr(run, what) for run in self.runs))

    def mean(self, step: str, what: str) -> float | None:
        """``what`` of the steps of this name on average (work that only some of them pay counts for all), the
        median of the rounds; None where there is no such step."""
        means = []
        for run in self.runs:
            found = [getattr(one, what) for one in run.steps if one.name == step]
            if found:
                means.append(statistics.mean(found))
        return float(statistics.median(means)) if means else None

    @property
    def facts(self) -> dict[str, Any]:
        return self.runs[-1].facts if self.runs else {}


# -- one measurement, in a process of its own ------------------------------------------------------


def run(contestant: Contestant, folder: Path) -> Run:
    """Run it once. ``case["folder"]`` is an empty folder of this run's own."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as own:
        case = {**contestant.case, "folder": own}
        ended = subprocess.run(
            [contestant.python, "-m", "benchmarks.harness", contestant.function, json.dumps(case)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **contestant.environment},
            capture_output=True,
            text=True,
            check=False,
        )
    found = next((line for line in reversed(ended.stdout.splitlines()) if line.startswith(_RESULT)), None)
    # A process may abort while it shuts down, after its work was done: the result counts.
    if found is None:
        raise RuntimeError(f"{contestant.name} failed ({ended.returncode}):\n{ended.stderr[-4000:]}")
    return Run.parse(found.removeprefix(_RESULT))


def _child(function: str, case: Mapping[str, Any]) -> None:
    module, _, name = function.partition(":")
    made: Callable[[], Any] | Steps = getattr(importlib.import_module(module), name)(case)
    run = _stepwise(made) if isinstance(made, Generator) else _at_once(made)
    print(f"\n{_RESULT}{json.dumps(asdict(run), default=str)}", flush=True)


def _at_once(work: Callable[[], Any]) -> Run:
    step, found = _measured("all", work)
    # Work may hand back a function: what it finds out about the result is not part of the measurement.
    return Run.of([step], (found() if callable(found) else found) or {})


def _stepwise(steps: Steps) -> Run:
    measured = []
    while True:
        try:
            name, work = next(steps)
        except StopIteration as end:
            return Run.of(measured, end.value or {})
        # The peak is that of the steps, not of what was prepared for them.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        measured.append(_measured(name, work)[0])


def _measured(name: str, work: Callable[[], Any]) -> tuple[Step, Any]:
    written, cpu, wall = written_bytes(), _cpu_seconds(), time.perf_counter()
    found = work()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return Step(name, wall, cpu, peak_rss(), written_bytes() - written), found


def _children() -> list[Any]:
    import psutil

    return psutil.Process().children(recursive=True)


def _family() -> list[Any]:
    import psutil

    return [psutil.Process(), *_children()]


def _cpu_seconds() -> float:
    """User and system time of this process, of its living descendants, and of those that have ended.

    The kernel tells other processes' time in hundredths of a second, and one's own to the nanosecond.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for process in _children():
        times = process.cpu_times()
        total += times.user + times.system
        total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def peak_rss() -> int:
    """Most memory that each living process ever held, together."""
    return sum(_status(process.pid, "VmHWM") or process.memory_info().rss for process in _family())


def written_bytes() -> int:
    """Bytes given to write calls, whether or not they have reached the disk."""
    total = 0
    for process in _family():
        try:
            text = Path(f"/proc/{process.pid}/io").read_text()
        except OSError:
            continue
        total += int(re.search(r"wchar: (\d+)", text)[1])  # type: ignore[index]
    return total


def settle() -> None:
    """Write out what was prepared, so that the measured work does not pay for it."""
    os.sync()


def _status(pid: int, key: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


# -- contestants against each other ---------------------------------------------------------------


def compare(contestants: Sequence[Contestant], *, rounds: int, folder: Path) -> list[Result]:
    """``rounds`` of everyone in turn. Every ``rows`` fact must be the same: they did the same work."""
    results = [Result(contestant.name, absent=contestant.absent) for contestant in contestants]
    for number in range(rounds):
        for contestant, result in zip(contestants, results, strict=True):
            if result.absent or (contestant.once and number):
                continue
            try:
                measured = run(contestant, folder)
            except RuntimeError as error:
                if contestant.python == sys.executable:
                    raise
                result.absent = f"it failed: {str(error).strip().splitlines()[-1][:200]}"
                continue
            result.runs.append(measured)
            _say(
                f"  {number + 1}/{rounds} {contestant.name:<40} {measured.wall_s:8.2f} s "
                f"{measured.cpu_s:8.2f} CPU-s {measured.peak_rss_bytes >> 20:6} MiB"
            )
    rows = {result.name: str(result.facts["rows"]) for result in results if "rows" in result.facts}
    if len(set(rows.values())) > 1:
        raise RuntimeError(f"not the same work: rows {rows}")
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


#: What a table may show of a run: heading, scale and digits.
_COLUMNS = {
    "wall_s": ("wall s", 1.0, 2),
    "cpu_s": ("CPU s", 1.0, 2),
    "peak_rss_bytes": ("peak MiB", 2.0**20, 0),
    "written_bytes": ("written MB", 1e6, 1),
}


def table(
    results: Sequence[Result],
    *,
    reference: str,
    size_mb: float | None = None,
    columns: Sequence[str] = tuple(_COLUMNS),
) -> str:
    """Markdown: medians, and how often faster than ``reference`` (above 1 is better), by wall and by CPU."""
    base = next(result for result in results if result.name == reference)
    heads = [*(["MB/s"] if size_mb else []), *(_COLUMNS[column][0] for column in columns)]
    heads += [f"speed, × {reference}", f"CPU economy, × {reference}"]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for result in results:
        if not result.runs:
            continue
        cells = [f"{size_mb / result.median('wall_s'):.1f}"] if size_mb else []
        for column in columns:
            _, scale, digits = _COLUMNS[column]
            cells.append(f"{result.median(column) / scale:.{digits}f}")
        cells += [f"{base.median(what) / result.median(what):.2f}" for what in ("wall_s", "cpu_s")]
        lines.append(f"| {result.name} | {' | '.join(cells)} |")
    absent = [f"Not measured: {r.name} ({r.absent})." for r in results if r.absent]
    return "\n".join(lines + ([""] if absent else []) + absent)


@dataclass(frozen=True)
class Target:
    """What was asked of a figure, what was found, and whether that is enough."""

    asked: str
    found: str
    is_met: bool


def verdicts(targets: Sequence[Target]) -> str:
    """Markdown: every target, and whether it is met. Nothing is rounded in favour of anybody."""
    lines = ["| asked | found | |", "|---|--:|---|"]
    lines += [f"| {one.asked} | {one.found} | {'met' if one.is_met else '**missed**'} |" for one in targets]
    return "\n".join(lines)


# -- the options, the page ------------------------------------------------------------


def _end(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def options(description: str | None) -> argparse.ArgumentParser:
    """``--quick --json --docs --rounds``: the same for every benchmark.

    From here on a benchmark that is told to end (SIGTERM) ends as if by Ctrl-C: its contestant is killed, its folders go.
    """
    signal.signal(signal.SIGTERM, _end)
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="small data, under a minute; ratios stay telling"
    )
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--docs", type=Path, help="replace this benchmark's table in this page")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs")
    return parser


def finish(
    name: str,
    chosen: argparse.Namespace,
    text: str,
    sections: Mapping[str, Sequence[Result]],
    packages: Sequence[str],
    started: float,
    *,
    targets: Sequence[Target] = (),
    others: Mapping[str, str] | None = None,
    **more: Any,
) -> None:
    """Print the tables and what they say of the targets, and write them where the options say."""
    from benchmarks import machine  # not in other interpreters' contestants

    here = machine.describe(packages, others or {})
    versions = ", ".join(f"{package} {version}" for package, version in here["packages"].items())
    caption = (
        f"{datetime.now(UTC):%Y-%m-%d}, {'quick, ' if chosen.quick else ''}{here['cores']} cores ({here['processor']}), "
        f"{here['memory_gib']:.0f} GiB; Python {here['python']}, {versions}; code {here['code']}; {time.monotonic() - started:.0f} s."
    )
    judged = [verdicts(targets)] if targets and not chosen.quick else []
    if targets and chosen.quick:
        judged = ["What is asked is asked of the full size: run it without --quick."]
    text = "\n\n".join([text, *judged, caption])
    print(text)
    document = {
        "benchmark": name,
        "quick": chosen.quick,
        "at_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": here,
        "sections": {title: [asdict(result) for result in results] for title, results in sections.items()},
        "targets": [asdict(target) for target in targets],
        **more,
    }
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1, default=str))
    if chosen.docs:
        publish(chosen.docs, name, text)


def publish(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the benchmark's marks; the rest of the page stays. Raises ``SystemExit`` without marks."""
    begin, end = f"<!-- bench {name} -->", f"<!-- /bench {name} -->"
    before = page.read_text()
    if begin not in before or end not in before:
        raise SystemExit(f"{page} has no {begin} … {end}")
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", before, flags=re.DOTALL))


def folder_bytes(folder: Path | str, *, suffix: str = "") -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob(f"*{suffix}") if path.is_file())


if __name__ == "__main__":
    _child(sys.argv[1], json.loads(sys.argv[2]))
