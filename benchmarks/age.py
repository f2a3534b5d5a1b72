"""A lake of 47 pipelines that is old, against the same lake when it was young: what a look at it and a plan cost.

    python benchmarks/age.py --quick
    python benchmarks/age.py --json age.json --docs docs/performance.md

The old lake has 10,000 ticks behind it (2,000 with --quick): 470,000 files in the ledger, 3.5 million outcomes of checks and 200,000
changes of freshness, written into the same tables in the same form; its data is the same. Measured in a process of its own each, one
after the other: *status*, as the command computes it; *look*, the sensor's second look; *judge*, the outcomes that publishing
asks for; *plan*, with a new file for every pipeline; *known*, what a look at sources that keep their files asks the ledger: which of
all the files that were ever sent are known.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import polars as pl

from benchmarks import data, fleet_lake, harness
from benchmarks.fleet_arrivals import Arrivals
from benchmarks.harness import Contestant, Result, Steps
from lakehouse import checks
from lakehouse.defs.execute import run_pipelines
from lakehouse.gold.dbt_run import load_project
from lakehouse.gold.restore_points import current_point
from lakehouse.ledger import Ledger
from lakehouse.ops import report, watch
from lakehouse.pipelines import load_pipelines
from lakehouse.planning import plan
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake

_PACKAGES = ["polars", "deltalake", "dagster"]
_STEPS = ("status", "look", "judge", "plan", "known")
_TICK_BYTES = 2e6


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = harness.options(__doc__).parse_args(arguments)
    started = time.monotonic()
    ticks = 2_000 if chosen.quick else 10_000
    data.DATA.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="age-", dir=data.DATA.parent) as name:
        young, old = Path(name, "young"), Path(name, "old")
        _make(young)
        shutil.copytree(young, old)
        _age(_settings(old), ticks)
        found = harness.compare(
            [Contestant(lake.name, "benchmarks.age:looks", {"lake": str(lake)}) for lake in (young, old)],
            rounds=chosen.rounds or 3,
            folder=Path(name),
        )
    text = f"**{ticks:,} ticks of 47 pipelines behind it, and one**\n\n{_table(found)}"
    harness.finish("age", chosen, text, {"age": found}, _PACKAGES, started)
    return 0


def looks(case: Mapping[str, Any]) -> Steps:
    """The steps, on a copy of the lake, because planning writes to it."""
    folder = Path(case["folder"], "copy")
    shutil.copytree(case["lake"], folder)
    settings = _settings(folder)
    lake, pipelines = Lake.from_settings(settings), load_pipelines(settings)
    load_project(settings)  # dbt reads a project at a new place once, whatever the lake's age
    yield "status", lambda: report.overview(lake, settings, pipelines)
    yield "look", lambda: watch.record(lake, settings, watch.observe(lake, settings, pipelines))
    point = current_point(lake)
    assert point is not None
    yield "judge", lambda: checks.outcomes(lake, point.tables)
    sources = Arrivals()
    sources.make(folder / "passed over", _TICK_BYTES)  # its content has landed
    sources.make(Path(settings.landing), _TICK_BYTES)
    yield "plan", lambda: plan(lake, settings, pipelines.values())
    sent = _rows(lake, "batches").filter(pl.col("stage") == "planned").select("source", pl.col("files").list.eval(pl.element().struct.field("path"))).explode("files")  # fmt: skip
    kept = {name: set(paths["files"]) for (name,), paths in sent.partition_by("source", as_dict=True).items()}

    def known() -> None:
        ledger = Ledger(lake)
        for name, paths in kept.items():
            assert len(ledger.known_fingerprints(str(name), paths)) == len(paths)

    yield "known", known
    return {"rows": sum(len(Ledger(lake).batches(name, above=1)) for name in pipelines)}


def _settings(folder: Path) -> Settings:
    return load_settings(
        root=str(folder / "lake"), pipelines_dir=str(folder / "pipelines"), dbt_project=str(folder / "dbt")
    )


def _make(folder: Path) -> None:
    """A lake with one published tick, whose files are gone from the landing folder."""
    folder.mkdir()
    fleet_lake.declare(folder)
    settings = _settings(folder)
    Arrivals().make(Path(settings.landing), _TICK_BYTES)
    if not run_pipelines(settings).success:
        raise SystemExit("the tick failed")
    lake = Lake.from_settings(settings)
    watch.record(lake, settings, watch.observe(lake, settings, load_pipelines(settings)))
    shutil.rmtree(settings.landing)


def _age(settings: Settings, ticks: int) -> None:
    """Write what so many ticks before it would have left in the tables below ``ops/``."""
    lake = Lake.from_settings(settings)
    tick = pl.int_range(1, ticks + 1, dtype=pl.Int64)
    before = pl.duration(minutes=5 * pl.col("tick"))
    own = {  # every tick had files of its own, with contents of their own
        "path": pl.concat_str(pl.col("path"), pl.lit("."), pl.col("tick")),
        "content_hash": pl.concat_str(
            pl.lit("blake3:"), *(pl.struct("path", "tick").hash(seed).cast(pl.String) for seed in range(3))
        ),
    }
    planned = (
        _rows(lake, "batches")
        .filter(pl.col("stage") == "planned", pl.col("batch_id") == 1)
        .join(pl.select(tick=tick), how="cross")
        .explode("files")
        .unnest("files")
        .with_columns(**own)
        .with_columns(
            files=pl.concat_list(pl.struct("path", "size_bytes", "modified_at_utc", "fingerprint", "content_hash")),
            batch_id=-pl.col("tick"),
            recorded_at_utc=pl.col("recorded_at_utc") - before,
        )
    )  # fmt: skip
    _append(lake, "batches", planned)
    found = _rows(lake, "checks").join(pl.select(tick=tick), how="cross")
    earlier = pl.col("version") - pl.col("tick") - 100
    _append(
        lake, "checks", found.with_columns(version=earlier, checked_at_utc=pl.col("checked_at_utc") - before)
    )
    changes = _rows(lake, "freshness").join(pl.select(tick=tick), how="cross")
    times = {name: pl.col(name) - before for name in ("since_utc", "observed_at_utc")}
    _append(
        lake,
        "freshness",
        pl.concat(
            [changes.with_columns(hop=pl.lit(hop), **times) for hop in (None, "gold")], how="vertical_relaxed"
        ),
    )


def _rows(lake: Lake, table: str) -> pl.DataFrame:
    return lake.table("ops", table).snapshot().scan().collect()


def _append(lake: Lake, name: str, rows: pl.DataFrame) -> None:
    table = lake.table("ops", name)
    snapshot = table.snapshot()
    schema = snapshot.schema()
    snapshot.commit(add=table.stage(rows.select(*schema).cast(dict(schema)).lazy()))


def _table(found: Sequence[Result]) -> str:
    young, old = found
    lines = ["| CPU s | young | old | old ÷ young |", "|---|--:|--:|--:|"]
    for step in _STEPS:
        one, other = young.mean(step, "cpu_s") or 0.0, old.mean(step, "cpu_s") or 0.0
        lines.append(f"| {step} | {one:.2f} | {other:.2f} | {other / max(one, 0.005):.1f} |")
    peaks = [result.median("peak_rss_bytes") / 2**20 for result in found]
    lines.append(f"| peak MiB | {peaks[0]:.0f} | {peaks[1]:.0f} | {peaks[1] / peaks[0]:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
