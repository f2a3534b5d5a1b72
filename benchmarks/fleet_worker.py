"""The measured processes of the fleet benchmark: one that runs what is due, one that keeps the tables in order, and one that
does the least that could be called bronze and silver.

Each is started once, takes a line (JSON) per order and answers with one. In production the daemon starts a process per
run: `fleet_daemon` measures that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lakehouse.settings import load_settings  # noqa: E402

load_settings().tune_process()  # as the command does, before anything imports Polars
from benchmarks import harness  # noqa: E402

#: A worker without an order ends at once; one in the middle of one is ended.
_CLOSE_S = 5.0


@dataclass(frozen=True)
class Done:
    """What one order took. ``kernel_s`` is the kernel's part of the CPU seconds. ``busy`` has seconds per stage, added up over threads; ``published`` the files that analysts
    see since, ``ended_at`` the time of day of that; ``rows`` are those of all silver tables then."""

    wall_s: float
    cpu_s: float
    ended_at: float
    peak_rss_bytes: int
    written_bytes: int
    nothing_new: bool = False
    busy: dict[str, float] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    rows: int = 0
    kernel_s: float = 0.0


class Worker:
    """A process that does one thing when told. ``start`` returns at once, ``wait`` has the answer."""

    def __init__(self, what: str, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        # What Polars has noted there for the process that feeds this one.
        environment.pop("_RJEM_MALLOC_CONF", None)
        self._process = subprocess.Popen(
            [sys.executable, __file__, what, str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def wait(self) -> Done:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with {self._process.wait()}")
        return Done(**json.loads(line))

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Its process gets no time meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, and whatever it is doing."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(60)


def main(what: str, folder: Path) -> None:
    serve = {"runs": _runs, "maintenance": _maintenance, "bare": _bare}[what](folder)
    for _ in sys.stdin:
        written, cpu, wall = harness.written_bytes(), time.process_time(), time.perf_counter()
        kernel_s = os.times().system
        with contextlib.redirect_stdout(sys.stderr):
            tell = serve()
        ended_at, wall, cpu = time.time(), time.perf_counter() - wall, time.process_time() - cpu
        written = harness.written_bytes() - written
        done = Done(
            wall, cpu, ended_at, harness.peak_rss(), written, kernel_s=os.times().system - kernel_s, **tell()
        )
        print(json.dumps(asdict(done)), flush=True)


#: How long what nobody reads any more is kept: so short that as many files go as come, as in a lake that is older than a
#: real one's days of retention.
_KEPT = timedelta(minutes=4)
#: Does one order, which is measured; what it returns tells of it, which is not.
_Serve = Callable[[], Callable[[], dict[str, Any]]]


def _runs(folder: Path) -> _Serve:
    from lakehouse.defs.execute import run_pipelines
    from lakehouse.storage import Lake

    settings = settings_of(folder)
    lake = Lake.from_settings(settings)
    seen: dict[str, int] = {}

    def serve() -> Callable[[], dict[str, Any]]:
        outcome = run_pipelines(settings)
        if not (outcome.success or outcome.nothing_new):
            broken = [check for check in outcome.checks if not check.passed and check.severity == "ERROR"]
            raise SystemExit(f"a run failed: {[*outcome.failures, *broken][:3]}")

        def tell() -> dict[str, Any]:
            steps = {step.name: step.seconds for step in outcome.steps if "/" not in step.name}
            fresh = [] if outcome.nothing_new else published(lake, seen)
            busy = {**_stage_seconds(lake, outcome.run_ids), **steps}
            rows = sum(lake.table("silver", name).snapshot().num_rows() for name in lake.tables("silver"))
            return {"nothing_new": outcome.nothing_new, "busy": busy, "published": fresh, "rows": rows}

        return tell

    return serve


def published(lake: Any, seen: dict[str, int]) -> list[str]:
    """Paths of the files whose batches analysts see now and did not see the last time."""
    from lakehouse.gold.restore_points import current_point
    from lakehouse.ledger import Ledger

    point, ledger = current_point(lake), Ledger(lake)
    paths = []
    for source, position in (point.sources if point else {}).items():
        for batch in ledger.batches(source, above=seen.get(source, 0)):
            if batch.batch_id <= position["batch_id"]:
                seen[source] = batch.batch_id
                paths += [file.path for file in batch.files]
    return paths


def _stage_seconds(lake: Any, run_ids: tuple[str, ...]) -> dict[str, float]:
    """Seconds in bronze and silver, over all threads, as the ledger has them."""
    import polars as pl

    ledger = lake.table("ops", "batches").snapshot_or_none()
    if ledger is None or not run_ids:
        return {}
    rows = ledger.scan(["run_id", "stage", "seconds"]).filter(
        pl.col("run_id").is_in(run_ids), pl.col("stage").is_in(["bronze", "silver"])
    )
    return dict(rows.group_by("stage").agg(pl.col("seconds").sum()).collect().iter_rows())


def _maintenance(folder: Path) -> _Serve:
    from lakehouse.ops.maintenance import maintain
    from lakehouse.pipelines import load_pipelines
    from lakehouse.storage import Lake

    settings = settings_of(folder)
    lake, pipelines = Lake.from_settings(settings), load_pipelines(settings)

    def serve() -> Callable[[], dict[str, Any]]:
        everything = maintain(lake, settings, pipelines, retention=_KEPT)
        troubles = [done.error for done in everything if done.error]
        if troubles:
            raise SystemExit(f"maintenance: {troubles[:3]}")
        return dict

    return serve


def _bare(folder: Path) -> _Serve:
    """The limit: what lies in the landing folders as text into Delta, and from there in the contract's types into Delta again.

    With Polars alone, a table in each of two threads: no row is looked at, none is looked up, and nothing else is done.
    """
    import deltalake
    import polars as pl

    from benchmarks import fleet_lake, ingest
    from lakehouse.pipelines import load_pipelines

    settings = settings_of(folder)
    schemas = {name: found.contract.schema for name, found in load_pipelines(settings).items()}
    properties = deltalake.WriterProperties(compression="ZSTD", compression_level=1)

    def typed(column: str, found: pl.DataType, wanted: pl.DataType) -> pl.Expr:
        if isinstance(wanted, pl.Datetime) and found == pl.String:
            return pl.col(column).str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        return pl.col(column).cast(wanted, strict=False)

    def copy(name: str, form: str, target: Path) -> None:
        landed = str(Path(settings.landing, name))
        ingest.bare_polars({"input": landed, "format": form, "folder": str(target)})()
        bronze = pl.scan_delta(target / "table")
        found = bronze.collect_schema()
        columns = [typed(column, found[column], dtype) for column, dtype in schemas[name].items()]
        silver = bronze.select(*columns, "_batch_id", "_source_file", "_source_row")
        silver.sink_delta(target / "silver", delta_write_options={"writer_properties": properties})

    def serve() -> Callable[[], dict[str, Any]]:
        target = Path(tempfile.mkdtemp(dir=folder))
        with ThreadPoolExecutor(2) as pool:
            work = [
                pool.submit(copy, name, kind.format, target / name)
                for name, kind, _ in fleet_lake.pipelines()
            ]
            for one in work:
                one.result()

        def tell() -> dict[str, Any]:
            shutil.rmtree(target)
            return {}

        return tell

    return serve


def settings_of(folder: Path) -> Any:
    return load_settings(
        root=str(folder / "lake"), pipelines_dir=str(folder / "pipelines"), dbt_project=str(folder / "dbt"),
        restore_points_days=_KEPT / timedelta(days=1),
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
