"""What the same work costs as a team would first write it: CPU, bytes written, bytes stored.

    python benchmarks/cost.py --quick
    python benchmarks/cost.py --json cost.json --docs docs/performance.md

Ten years of flights (3.4 million rows; two with --quick) are there. Then weekly files come, one a tick: a new week, and the week
before again with corrected delays. Every tick lands in bronze, is typed, checked and upserted into silver, and ends in a daily mart.

- pandas, full refresh: bronze appended; silver read whole, deduplicated and overwritten; gold computed from all of it; snappy.
- Polars, merge: bronze appended; silver by deltalake's merge with its defaults; gold computed from all of silver; snappy.
- ours: the stages with everything on, ledger, contract, quarantine, both layers' checks, gold by touched groups, publish.

Stored is the whole lake: for ours the ledger, quarantine, restore points and catalog, too. The weeks' old versions are what the other
two store: *vacuumed* is what stays when everything that the newest versions do not need is removed from all of them.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data, harness
from benchmarks.harness import Contestant, Result, Target

Work = Callable[[], Any]
_PACKAGES = ["polars", "deltalake", "duckdb", "dbt-duckdb", "pandas"]
_KEY = ["day", "carrier", "flight", "sched_dep_time"]
_INTEGERS = ["flight", "sched_dep_time", "dep_delay", "arr_delay", "air_time", "distance", "sent_no"]
_MODEL = """
{{ config(materialized='delta', strategy='replace_groups', group_key=['day', 'carrier'], touched_by={'silver/flight': ['day', 'carrier']}) }}
select day, carrier, count(*) as flights, count(arr_delay) as arrived, avg(dep_delay) as avg_dep_delay,
       sum(arr_delay)::bigint as arr_delay, max(arr_delay) as max_arr_delay, count(distinct dest) as destinations
from {{ source('silver', 'flight') }}
{% if is_incremental() %} where {{ is_touched() }} {% endif %}
group by day, carrier order by day, carrier
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = harness.options(__doc__)
    parser.add_argument("--alone", action="store_true", help="ours only")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    years, ticks = (2, 3) if chosen.quick else (10, 6)
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    work = data.DATA.parent / "runs"
    state = work / "cost"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    case = {"years": years, "ticks": ticks, "state": str(state)}
    here = "benchmarks.cost:"
    print("preparing", file=sys.stderr)
    harness.run(Contestant("files", here + "make_files", case), work)
    contestants = [
        Contestant("ours", here + "ours", case),
        Contestant("ours, target_file_size 8MiB", here + "ours", {**case, "target_file_size": "8MiB"}),
        Contestant("pandas, full refresh", here + "pandas", case),
        Contestant("Polars, merge", here + "polars_merge", case),
    ]
    contestants = contestants[:2] if chosen.alone else contestants
    for one in contestants:
        harness.run(Contestant(one.name, one.function, {**one.case, "prepare": True}), work)
    results = harness.compare(contestants, rounds=rounds, folder=work)
    text = f"**{years} years there, then {ticks} weekly ticks**\n\n{_table(results)}"
    targets = []
    naive = next((result for result in results if result.name.startswith("pandas")), None)
    if naive is not None:
        for what, mine, theirs in zip(_WHAT, _numbers(results[0]), _numbers(naive), strict=True):
            saved = 1 - mine / theirs
            if what in ("CPU", "stored"):
                targets.append(Target(f"{what}: 62 % below the naive build", f"{saved:.0%}", saved >= 0.62))
    harness.finish("cost", chosen, text, {"cost": results}, _PACKAGES, started, targets=targets)
    return 0


_WHAT = ("CPU", "written", "stored", "vacuumed")


def _table(results: Sequence[Result]) -> str:
    ours = results[0]
    lines = [
        "| | CPU s | wall s | peak MiB | written MB | stored MB | vacuumed MB | our saving: CPU | written | stored | vacuumed |",
        "|---|" + "--:|" * 10,
    ]
    for result in results:
        numbers = _numbers(result)
        saving = [f"{1 - mine / theirs:.0%}" for mine, theirs in zip(_numbers(ours), numbers, strict=True)]
        lines.append(
            f"| {result.name} | {numbers[0]:.2f} | {result.median('wall_s'):.2f} | {result.median('peak_rss_bytes') / 2**20:.0f} | "
            f"{numbers[1]:.1f} | {numbers[2]:.1f} | {numbers[3]:.1f} | {' | '.join(saving if not result.name.startswith('ours') else [''] * 4)} |"
        )
    return "\n".join(lines)


def _numbers(result: Result) -> list[float]:
    facts = result.facts
    return [result.median("cpu_s"), result.median("written_bytes") / 1e6, facts["stored"] / 1e6, facts["current"] / 1e6]  # fmt: skip


def make_files(case: Mapping[str, Any]) -> Work:
    """``base/<year>.csv`` and ``ticks/<n>.csv``."""
    import polars as pl

    from lakehouse.demo import source

    folder = Path(case["state"], "files")
    raw = pl.read_csv(source.read_table("flights"), infer_schema=False)
    day = pl.date(*(pl.col(name).cast(pl.Int32) for name in ("year", "month", "day"))).alias("day")
    one = raw.select(day, *(name for name in ["carrier", "flight", "sched_dep_time", "origin", "dest", "tailnum", "dep_delay", "arr_delay", "air_time", "distance"]))  # fmt: skip

    def later(years: int, sent_no: int) -> pl.DataFrame:
        return one.with_columns(pl.col("day").dt.offset_by(f"{years}y"), pl.lit(sent_no).alias("sent_no")).sort("day")  # fmt: skip

    def work() -> dict[str, Any]:
        (folder / "base").mkdir(parents=True)
        (folder / "ticks").mkdir(parents=True)
        for year in range(case["years"]):
            later(year, 0).write_csv(folder / "base" / f"{year:02d}.csv")
        for tick in range(case["ticks"]):
            # The last year's last week is corrected by the first tick, then each tick corrects the one before.
            start = pl.date(2013 + case["years"], 1, 1).dt.offset_by(f"{7 * tick}d")
            new = pl.col("day").is_between(start, start.dt.offset_by("6d"))
            again = pl.col("day").is_between(start.dt.offset_by("-7d"), start.dt.offset_by("-1d"))
            rows = pl.concat([later(case["years"] - 1, tick + 1), later(case["years"], tick + 1)])
            delay = pl.col("arr_delay").cast(pl.Int32, strict=False) + 1
            rows = rows.filter(new | again).with_columns(
                pl.when(again)
                .then(delay.cast(pl.String))
                .otherwise("arr_delay")
                .fill_null("NA")
                .alias("arr_delay")
            )
            rows.write_csv(folder / "ticks" / f"{tick:02d}.csv")
        return {}

    return work


def _files(case: Mapping[str, Any]) -> list[list[Path]]:
    """What each tick brings: when preparing, everything there is at first as one; else the ticks one by one."""
    folder = Path(case["state"], "files")
    if case.get("prepare"):
        return [sorted((folder / "base").glob("*.csv"))]
    return [[path] for path in sorted((folder / "ticks").glob("*.csv"))]


def _root(case: Mapping[str, Any], name: str) -> Path:
    """The contestant's own lake; a copy of the prepared one, unless it is being prepared."""
    prepared = Path(case["state"], name)
    if case.get("prepare"):
        return prepared
    root = Path(case["folder"], name)
    shutil.copytree(prepared, root)
    return root


def _facts(root: Path, layers: Mapping[str, str]) -> dict[str, Any]:
    """Sizes, and what the gold table says: every contestant's must say the same."""
    import deltalake
    import polars as pl
    import pyarrow as pa

    current = 0
    for path in layers.values():
        actions = pa.table(deltalake.DeltaTable(root / path).get_add_actions(flatten=True))
        current += sum(actions["size_bytes"].to_pylist())
    gold = pl.scan_delta(str(root / layers["gold"])).select(
        pl.len(), pl.col("flights", "arrived", "arr_delay", "destinations").sum(), pl.col("avg_dep_delay").sum().round(3)
    )  # fmt: skip
    # All that lies in the lake but the input; of it the versions of data that are not the newest are not needed.
    stored = harness.folder_bytes(root) - harness.folder_bytes(root / "landing")
    tables = sum(harness.folder_bytes(root / path, suffix=".parquet") for path in layers.values())
    current += stored - tables
    return {"rows": [int(v) if isinstance(v, int) else float(v) for v in gold.collect().row(0)], "stored": stored, "current": current}  # fmt: skip


def ours(case: Mapping[str, Any]) -> Work:
    """Every stage as `lakehouse run` calls it, one tick after the other."""
    import dbt.adapters.duckdb.connections
    import dbt.cli.main  # noqa: F401  imports are nobody's work here: a fleet's process has them once

    from asset_checks import tables as table_checks
    from lakehouse import ledger
    from lakehouse.bronze import ingest
    from lakehouse.gold.build import build, ensure_manifest
    from lakehouse.gold.publish import publish
    from lakehouse.pipelines import Pipeline, PipelineSpec
    from lakehouse.settings import load_settings
    from lakehouse.silver import refine
    from lakehouse.storage import Lake

    size = case.get("target_file_size", "32MiB")
    root = _root(case, f"ours-{size}")
    project = Path(case["state"], "project")
    if not project.exists():
        shutil.copytree(data.ROOT / "dbt_project" / "macros", project / "macros")
        (project / "models").mkdir()
        (project / "dbt_project.yml").write_text('name: bench\nversion: "1.0"\nprofile: lakehouse\n')
        (project / "models" / "sources.yml").write_text(
            "sources: [{name: silver, tables: [{name: flight}]}]\n"
        )
        (project / "models" / "daily.sql").write_text(_MODEL)
    landing = root / "landing"
    landing.mkdir(parents=True, exist_ok=True)
    settings = load_settings(
        root=str(root), landing=str(landing), pipelines_dir=str(root / "pipelines"), target_file_size=size
    )
    lake = Lake.from_settings(settings)
    spec = {
        "name": "flight", "description": "Flights.", "contract": "benchmarks.tables.Flight",
        "source": {"kind": "files", "path": "*.csv", "format": "csv", "null_markers": ["NA"]},
        "silver": {"mode": "upsert", "sequence_by": ["sent_no"]},
    }  # fmt: skip
    pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
    _ = pipeline.contract
    ensure_manifest(settings, project)
    ticks = _files(case)

    def work() -> Any:
        for files in ticks:
            for path in files:
                shutil.copyfile(path, landing / f"{path.parent.name}-{path.name}")
            ingest(lake, settings, pipeline)
            refine(lake, settings, pipeline)
            ledger.sync(lake, [pipeline])
            table_checks.carry_out(lake, pipeline)
            result = build(lake, settings, project_dir=project)
            result.raise_for_failures()
            publish(lake, settings, gold=result)
        return lambda: _facts(root, _LAYERS)

    return work


_LAYERS = {"bronze": "bronze/flight", "silver": "silver/flight", "gold": "gold/daily"}


def pandas(case: Mapping[str, Any]) -> Work:
    """Read all, deduplicate, overwrite."""
    import deltalake
    import pandas as pd

    root = _root(case, "pandas")
    ticks = _files(case)
    paths = {layer: str(root / path) for layer, path in _LAYERS.items()}

    def work() -> Any:
        for files in ticks:
            for path in files:
                frame = pd.read_csv(path, dtype=str, keep_default_na=False)
                frame["source_file"], frame["ingested_at"] = str(path), pd.Timestamp.now(tz="UTC")
                deltalake.write_deltalake(paths["bronze"], frame, mode="append")
            silver = deltalake.DeltaTable(paths["bronze"]).to_pandas()
            silver["day"] = pd.to_datetime(silver["day"])
            for column in _INTEGERS:
                silver[column] = pd.to_numeric(silver[column], errors="coerce").astype("Int64")
            silver["tailnum"] = silver["tailnum"].replace({"NA": None, "": None})
            silver = (
                silver.dropna(subset=_KEY)
                .sort_values("sent_no")
                .drop_duplicates(_KEY, keep="last")
                .reset_index(drop=True)
            )
            deltalake.write_deltalake(paths["silver"], silver, mode="overwrite")
            daily = silver.groupby(["day", "carrier"]).agg(
                flights=("flight", "size"), arrived=("arr_delay", "count"), avg_dep_delay=("dep_delay", "mean"),
                arr_delay=("arr_delay", "sum"), max_arr_delay=("arr_delay", "max"), destinations=("dest", "nunique"),
            )  # fmt: skip
            deltalake.write_deltalake(paths["gold"], daily.reset_index(), mode="overwrite")
        return lambda: _facts(root, _LAYERS)

    return work


def polars_merge(case: Mapping[str, Any]) -> Work:
    """A merge per tick, gold from everything."""
    import deltalake
    import polars as pl

    root = _root(case, "polars")
    ticks = _files(case)
    paths = {layer: str(root / path) for layer, path in _LAYERS.items()}
    same = " AND ".join(f"s.{column} = t.{column}" for column in _KEY)

    def work() -> Any:
        for files in ticks:
            frame = pl.read_csv(files, infer_schema=False, include_file_paths="source_file")
            frame.write_delta(paths["bronze"], mode="append")
            typed = (
                frame.with_columns(
                    pl.col("day").str.to_date(), pl.col(_INTEGERS).cast(pl.Int64, strict=False)
                )
                .with_columns(pl.col("tailnum").replace({"NA": None}))
                .drop_nulls(_KEY)
                .sort("sent_no")
                .unique(_KEY, keep="last")
            )
            if deltalake.DeltaTable.is_deltatable(paths["silver"]):
                (
                    deltalake.DeltaTable(paths["silver"])
                    .merge(typed.to_arrow(), same, source_alias="s", target_alias="t")
                    .when_matched_update_all()
                    .when_not_matched_insert_all()
                    .execute()
                )
            else:
                typed.write_delta(paths["silver"])
            daily = pl.scan_delta(paths["silver"]).group_by("day", "carrier").agg(
                pl.len().cast(pl.Int64).alias("flights"), pl.col("arr_delay").count().cast(pl.Int64).alias("arrived"),
                pl.col("dep_delay").mean().alias("avg_dep_delay"), pl.col("arr_delay").sum(),
                pl.col("arr_delay").max().alias("max_arr_delay"), pl.col("dest").n_unique().cast(pl.Int64).alias("destinations"),
            )  # fmt: skip
            daily.collect().write_delta(paths["gold"], mode="overwrite")
        return lambda: _facts(root, _LAYERS)

    return work


if __name__ == "__main__":
    raise SystemExit(main())
