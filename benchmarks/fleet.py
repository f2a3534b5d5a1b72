"""47 pipelines, everything on: how much input the whole lakehouse takes, whether it stays so, and how late gold is.

    python benchmarks/fleet.py --docs docs/performance.md         # 100 ticks, then twice five minutes at the mission's rate
    python benchmarks/fleet.py --quick                            # 4 small ticks and 8 seconds, under a minute

Three phases on one lake. *Saturated*: every tick lands a file for each pipeline (upserts of recent and of any keys,
histories, keyed and keyless appends; CSV, gzip, JSON lines, Parquet) and runs what is due; landing is not measured.
*Paced*: files arrive one by one at the mission's rate, whatever the lake does, and a run starts when the one before it
has ended. *Shipped* (not with --quick): the same, and `lakehouse up` takes them, by its sensors and a process per run. Everything is on: Dagster run, ledger, contracts, quarantine, checks, gold, publishing; maintenance works
beside the runs in a process of its own, and removes what was taken out more than four minutes ago. The first tick is the first load
of a lake, four rounds of every source: as many orders are young then as ever, and tables of few keys nearly full. It counts for memory and for what is
stored, not for times. The files of every second one of the first and the last ten ticks also go through bare Polars (text into Delta, types into Delta),
in a process beside it that gets its time before the tick: what it takes is the limit of this machine in these minutes, and how that changes, with
whatever the lake leaves of the disk and its cache, stands beside how the ticks change. Sizes are those of the files as they arrive. What is published is deleted from the landing folder, as sources do.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import fleet_figures, fleet_lake, harness  # noqa: E402
from benchmarks.fleet_arrivals import Arrivals  # noqa: E402
from benchmarks.fleet_daemon import shipped  # noqa: E402
from benchmarks.fleet_figures import Paced, Start, Tick  # noqa: E402
from benchmarks.fleet_pace import Feed  # noqa: E402
from benchmarks.fleet_worker import Done, Worker, settings_of  # noqa: E402

#: Ticks from one maintenance to the next, and seconds in the paced phase.
_MAINTAIN_EVERY = 10
_MAINTAIN_EVERY_S = 60.0
_MEMORY_EVERY_S = 0.2
_PACKAGES = ("dagster", "polars", "deltalake", "duckdb", "dbt-duckdb")
#: Rounds of every source that come with the first tick.
_FIRST_LOAD = 4
#: Bytes of disk that a lake needs for a byte of input, and ticks of input that lie beside it.
_STORED, _BESIDE = 0.6, 4


def main(arguments: Sequence[str] | None = None) -> int:
    parser = harness.options(__doc__)
    parser.add_argument("--ticks", type=int, help="how many ticks (default 100; quick: 4)")
    parser.add_argument("--tick-mb", type=float, help="input of one tick (default 1600; quick: 60)")
    parser.add_argument(
        "--paced-seconds", type=float, help="how long at the mission's rate (default 300; quick: 8)"
    )
    parser.add_argument(
        "--folder", type=Path, help="where the lake is made (default: the system's temporary folder)"
    )
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    count = chosen.ticks or (4 if chosen.quick else 100)
    tick_bytes = 1e6 * (chosen.tick_mb or (60 if chosen.quick else 1600))
    paced_s = chosen.paced_seconds if chosen.paced_seconds is not None else (8.0 if chosen.quick else 300.0)
    with tempfile.TemporaryDirectory(prefix="fleet-", dir=chosen.folder) as name:
        _refuse_small_disk(Path(name), (_STORED * (count + _FIRST_LOAD) + _BESIDE) * tick_bytes)
        with _Fleet(Path(name), chosen.json) as fleet:
            ticks = fleet.saturate(count, tick_bytes, 1 if chosen.quick else _FIRST_LOAD)
            # Twice: maintenance has just written to every table, and the first has to read that.
            empty = (fleet.tick(), fleet.tick())
            stored_per_byte = fleet.stored_bytes() / sum(tick.landed_bytes for tick in ticks)
            start = fleet.start()
            paced = fleet.pace(paced_s) if paced_s else None
        by_daemon = shipped(Path(name), fleet.sources, paced_s) if paced_s and not chosen.quick else None
    phases = (paced, by_daemon)
    figures = fleet_figures.figures(
        ticks, *phases, empty, start, fleet.maintained, fleet.bare, stored_per_byte
    )
    figures["peak_rss_together_gib"] = round(fleet.together.peak_bytes / 2**30, 2)
    harness.finish(
        "fleet", chosen, fleet_figures.table(figures, ticks, *phases), {}, _PACKAGES, started,
        targets=fleet_figures.targets(figures), figures=figures, ticks=[asdict(tick) for tick in ticks],
        paced=asdict(paced) if paced else None, shipped=asdict(by_daemon) if by_daemon else None,
        maintenance=[asdict(done) for done in fleet.maintained],
        bare={number: asdict(done) for number, done in fleet.bare.items()},
    )  # fmt: skip
    return 0


def _refuse_small_disk(folder: Path, needed_bytes: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise SystemExit(
            f"{folder} has {free / 1e9:.0f} GB free, and this needs about {needed_bytes / 1e9:.0f}: fewer --ticks, "
            "smaller ones (--tick-mb), or another --folder"
        )


class _Together(threading.Thread):
    """The most memory that some processes held at one moment."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(name="memory", daemon=True)
        self._files = [Path(f"/proc/{pid}/statm") for pid in pids]
        self.peak_bytes = 0
        self._ended = threading.Event()

    def run(self) -> None:
        page = resource.getpagesize()
        while not self._ended.wait(_MEMORY_EVERY_S):
            with suppress(OSError):
                now = sum(int(file.read_text().split()[1]) * page for file in self._files)
                self.peak_bytes = max(self.peak_bytes, now)

    def end(self) -> None:
        self._ended.set()


class _Fleet:
    """The lake, its processes, and its sources. Ticks are written to ``notes`` as they come: a long run may be cut off."""

    def __init__(self, folder: Path, notes: Path | None) -> None:
        fleet_lake.declare(folder)
        self.folder, self.landing, self._notes = folder, folder / "lake" / "landing", notes
        self.sources = Arrivals()
        self.maintained: list[Done] = []
        self._runs, self._maintainer = Worker("runs", folder), Worker("maintenance", folder)
        self._bare = Worker("bare", folder)
        self.bare: dict[int, Done] = {}
        self._maintaining = False
        self.together = _Together([self._runs.pid, self._maintainer.pid])
        self.together.start()

    def __enter__(self) -> _Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.together.end()
        for worker in (self._runs, self._maintainer, self._bare):
            worker.close()

    def saturate(self, count: int, tick_bytes: float, first_load: int) -> list[Tick]:
        ticks = []
        every = min(_MAINTAIN_EVERY, max(2, count // 2))
        first, last = fleet_figures.compared(range(count))
        beside_bare = {*first[::2], *last[::-2]}
        for number in range(count):
            with self._maintainer.stopped():  # it gets no time but what is measured
                rounds = [
                    self.sources.make(self.landing, tick_bytes) for _ in range(1 if number else first_load)
                ]
                landed = sum(path.stat().st_size for paths in rounds for path in paths)
                harness.settle()  # what is measured is the lakehouse, not the debt of this writer
                if number in beside_bare:  # side by side: the machine is another in an hour
                    self._bare.start()
                    self.bare[number] = self._bare.wait()
                    harness.settle()
            began = time.perf_counter()
            is_due = number % every == every - 1
            if is_due:
                self._maintained()
                self._maintain()
            done = self.tick()
            if number == count - 1:
                self._maintained()
            tick = Tick(number, landed, time.perf_counter() - began, is_due, done)
            ticks.append(tick)
            _say(tick)
            if self._notes is not None:
                self._notes.write_text(json.dumps({"ticks": [asdict(one) for one in ticks]}))
        return ticks

    def start(self) -> Start:
        """A process that finds nothing new: what the daemon pays for every run before it begins."""
        settings = settings_of(self.folder)
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "LAKEHOUSE_ROOT": settings.root,
            "LAKEHOUSE_PIPELINES_DIR": settings.pipelines_dir, "LAKEHOUSE_DBT_PROJECT": settings.dbt_project,
        }  # fmt: skip
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "lakehouse.cli", "run"]
        subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return Start(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    def tick(self) -> Done:
        """What is due, in one run. What it published goes from the landing folder."""
        self._runs.start()
        done = self._runs.wait()
        for path in done.published:
            Path(path).unlink()
        return done

    def pace(self, seconds: float) -> Paced:
        """Files that arrive at the mission's rate for so long, and runs one after the other until all are published."""
        feed = Feed(self.sources, self.folder / "waiting", self.landing, seconds)
        harness.settle()
        done: list[Done] = []
        began = maintained = time.monotonic()
        feed.start()
        while not feed.is_over or feed.unpublished:
            if self._maintaining and time.monotonic() - maintained > _MAINTAIN_EVERY_S:
                self._maintained()
            if not self._maintaining and time.monotonic() - maintained > _MAINTAIN_EVERY_S:
                self._maintain()
                maintained = time.monotonic()
            one = self.tick()
            feed.published(one.published, one.ended_at)
            done += [] if one.nothing_new else [one]
            print(
                f"  paced {time.monotonic() - began:6.1f} s  {one.wall_s:5.1f} s  {one.cpu_s:5.1f} CPU-s  "
                f"{len(one.published):>4} files",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        wall_s = time.monotonic() - began
        self._maintained()
        return Paced(feed.landed_bytes, wall_s, feed.late_s, done)

    def stored_bytes(self) -> int:
        """The lake with all that lies in it, but for what the landing folder has."""
        return harness.folder_bytes(self.folder / "lake") - harness.folder_bytes(self.landing)

    def _maintain(self) -> None:
        self._maintainer.start()
        self._maintaining = True

    def _maintained(self) -> None:
        if self._maintaining:
            self.maintained.append(self._maintainer.wait())
            self._maintaining = False


def _say(tick: Tick) -> None:
    landed_mb, done = tick.landed_bytes / 1e6, tick.done
    print(
        f"  tick {tick.number:>3}  {landed_mb:6.0f} MB  {tick.wall_s:6.1f} s  {done.cpu_s:6.1f} CPU-s  "
        f"{landed_mb / tick.wall_s:5.1f} MB/s  {done.peak_rss_bytes >> 20} MiB",
        file=sys.stderr, flush=True,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
