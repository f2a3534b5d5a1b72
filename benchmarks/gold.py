"""Gold: full and incremental builds against the same dbt project on a plain DuckDB file.

    python benchmarks/gold.py --quick
    python benchmarks/gold.py --json gold.json --docs docs/performance.md

Silver is years of flights (30 years and 10 million rows; 4 with --quick). One mart aggregates them by day and airline, with medians
and quantiles. The news replaces the rows of 1 % of the days: the newest ones, days all over the years, or the newest ones just after
maintenance has made silver's files one. Both sides see the same rows before and after, plain DuckDB in a view over the same Parquet
files; every incremental result is compared with a full build, row by row, or the benchmark fails.
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
from benchmarks.dbt_runs import invoke, write_profile, write_project
from benchmarks.harness import Contestant, Target

Work = Callable[[], dict[str, Any]]
_PACKAGES = ["duckdb", "dbt-core", "dbt-duckdb", "deltalake", "polars"]
_AGGREGATES = """
    count(*) as flights,
    count(*) filter (where dep_delay is null) as cancelled,
    avg(dep_delay) as avg_dep_delay,
    median(arr_delay) as median_arr_delay,
    quantile_cont(arr_delay, 0.9) as p90_arr_delay,
    median(60.0 * distance / air_time) as median_speed,
    count(distinct dest) as destinations,
    max(_batch_id) as batch
"""
_OURS = """
{{ config(materialized='delta', strategy='replace_groups', group_key=['day', 'carrier'], touched_by={'silver/flights': ['day', 'carrier']}) }}
select day, carrier, AGGREGATES from {{ source('silver', 'flights') }}
{% if is_incremental() %} where {{ is_touched() }} {% endif %}
group by day, carrier order by day, carrier
"""
#: What dbt's own incremental models do: days that a newer batch brought, deleted and inserted.
_PLAIN = """
{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key=['day', 'carrier']) }}
select day, carrier, AGGREGATES from {{ source('silver', 'flights') }}
{% if is_incremental() %}
where day in (select distinct day from {{ source('silver', 'flights') }} where _batch_id > (select max(batch) from {{ this }}))
{% endif %}
group by day, carrier order by day, carrier
"""

_RESOLUTION_S = 0.05
_NAMES = {"ours": "ours", "plain": "plain DuckDB"}
_BUILDS = {"full": "full", "incremental": "incremental", "start": "dbt's fixed start"}
#: Where the news lies, and who builds it. A plain DuckDB file knows no maintenance: there the newest case tells.
_CASES = {"newest": ("ours", "plain"), "scattered": ("ours", "plain"), "compacted": ("ours",)}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = harness.options(__doc__).parse_args(arguments)
    started = time.monotonic()
    years, rounds = (4, 1) if chosen.quick else (30, 3)
    rounds = chosen.rounds or rounds
    work = data.DATA.parent / "runs"
    shutil.rmtree(work / "gold", ignore_errors=True)
    sections, texts, targets = {}, [], []
    here = "benchmarks.gold:"
    first = work / "gold" / "first"
    work.mkdir(parents=True, exist_ok=True)
    print("preparing", file=sys.stderr)
    case = {"years": years, "state": str(first)}
    prepared = harness.run(Contestant("prepare", here + "prepare", case), work).facts
    cpu: dict[str, float] = {}  # of dbt's start, which no case changes, only the first case measures
    for where, builders in _CASES.items():
        state = work / "gold" / where
        case = {"where": where, "state": str(state), "first": str(first)}
        print(f"{where}: preparing", file=sys.stderr)
        harness.run(Contestant("news", here + "news", case), work)
        contestants = [
            Contestant(f"{_NAMES[builder]}, {_BUILDS[build]}", here + builder, {**case, "build": build})
            for builder in builders
            for build in _BUILDS
            if build != "start" or where == "newest"
        ]
        results = harness.compare(contestants, rounds=rounds, folder=work)
        found = {result.name: result for result in results}
        digests = {name: found[name].facts["digest"] for name in found if "start" not in name}
        if len(set(digests.values())) != 1:
            raise RuntimeError(f"results differ: {digests}")
        sections[where] = results
        cpu |= {name: result.median("cpu_s") for name, result in found.items()}
        rows = []
        for name in map(_NAMES.__getitem__, builders):
            full, part, start = (cpu[f"{name}, {build}"] for build in _BUILDS.values())
            for label, off in (("with dbt's start", 0.0), ("the start taken off", start)):
                # Two measurements of half a second or more do not tell less than this apart.
                mark, less = ("", part - off) if part - off > _RESOLUTION_S else ("over ", _RESOLUTION_S)
                cheaper = (full - off) / less
                rows.append(
                    f"| {name}, {label} | {full - off:.2f} | {part - off:.2f} | {mark}{cheaper:.1f} |"
                )
                if name == _NAMES["ours"] and where != "compacted":
                    asked = f"1 % of the groups, {where}: 10 × cheaper than full, {label}"
                    targets.append(Target(asked, f"{mark}{cheaper:.1f}", cheaper >= 10))
        if "plain" in builders:
            ours, plain = (cpu[f"{_NAMES[name]}, incremental"] for name in ("ours", "plain"))
            rows += [
                "",
                f"Incremental against incremental, ours takes {ours / plain:.2f} of the CPU of plain DuckDB.",
            ]
        head = ["| | full, CPU s | incremental, CPU s | × cheaper |", "|---|--:|--:|--:|"]
        title = (
            f"**{prepared['rows']:,} rows, {prepared['groups']:,} groups, 1 % of the days replaced: {where}**"
        )
        reference = "plain DuckDB, full" if "plain" in builders else "ours, full"
        table = harness.table(results, reference=reference)
        texts.append("\n".join([title, "", table, "", *head, *rows]))
    harness.finish("gold", chosen, "\n\n".join(texts), sections, _PACKAGES, started, targets=targets)
    return 0


# -- the two states of silver -----------------------------------------------------------------------


def prepare(case: Mapping[str, Any]) -> Work:
    """A lake and a DuckDB file built from the first state of silver."""
    state = Path(case["state"])

    def work() -> dict[str, Any]:
        rows, groups = _first_state(case)
        _ours(state / "ours", build="full")
        _copy_for_plain(state)
        _plain(state / "plain", state, build="full")
        return {"groups": groups, "rows": rows}

    return work


def news(case: Mapping[str, Any]) -> Work:
    """The same with silver's second state, not yet built."""
    state = Path(case["state"])

    def work() -> dict[str, Any]:
        shutil.copytree(case["first"], state)
        _second_state(case)
        _copy_for_plain(state)
        return {}

    return work


def _flights(years: int) -> Any:
    import polars as pl

    from lakehouse.demo import source

    raw = pl.read_csv(source.read_table("flights"), null_values="NA", infer_schema_length=None)
    one = raw.select(
        pl.date("year", "month", "day").alias("day"), "carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay",
        "air_time", "distance", "dep_time", "arr_time", "sched_dep_time", "sched_arr_time",
    ).sort("day")  # fmt: skip
    return pl.concat([one.with_columns(pl.col("day").dt.offset_by(f"{year}y")) for year in range(years)])


def _lake(root: Path) -> Any:
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings(root=str(root), pipelines_dir=str(root.parent / "pipelines"))
    return settings, Lake.from_settings(settings)


def _first_state(case: Mapping[str, Any]) -> tuple[int, int]:
    """Silver as an upsert pipeline and maintenance leave it: files in the order of the days, half a million rows in each."""
    import polars as pl

    from lakehouse import checks, names

    frame = _flights(case["years"]).with_columns(pl.lit(1, pl.Int64).alias(names.BATCH_ID))
    _, lake = _lake(Path(case["state"], "ours"))
    table = lake.table("silver", "flights")
    files = max(frame.height // 500_000, 2)
    staged = []
    for part in frame.iter_slices(frame.height // files + 1):
        staged += table.stage(part.lazy())
    table.create(frame.schema, add=staged, metadata=_METADATA, txns={names.app_id("silver", "flights"): 1})
    checks.record(lake, [checks.declared("silver", "flights", 0, [])])
    return frame.height, frame.select(pl.struct("day", "carrier").n_unique()).item()


_METADATA = {"stage": "silver", "watermark_utc": "2024-01-01T00:00:00+00:00", "contract_hash": "c"}


def _second_state(case: Mapping[str, Any]) -> None:
    """One commit as silver makes it: the rows of the touched days, whose delays were corrected, replace the old ones."""
    import polars as pl

    from lakehouse import checks, names
    from lakehouse.storage import upkeep

    _, lake = _lake(Path(case["state"], "ours"))
    snapshot = lake.table("silver", "flights").snapshot()
    if case["where"] == "compacted":
        upkeep.combine(snapshot, snapshot.files()["path"].to_list())
        snapshot = lake.table("silver", "flights").snapshot()
    days = snapshot.scan(["day"]).unique().sort("day").collect()["day"]
    count = max(len(days) // 100, 1)
    scattered = case["where"] == "scattered"
    chosen = days.gather_every(len(days) // count) if scattered else days.tail(count)
    touched = pl.col("day").is_in(chosen.implode())
    delete, corrected = {}, []
    for path, uri in snapshot.files().select("path", "uri").iter_rows():
        frame = pl.read_parquet(uri)
        gone = frame.select(touched.arg_true()).to_series()
        if len(gone):
            delete[path] = gone.to_numpy()
            corrected.append(frame[gone])
    rows = pl.concat(corrected).with_columns(
        pl.col("dep_delay") + 1, pl.lit(2, pl.Int64).alias(names.BATCH_ID)
    )
    txns = {names.app_id("silver", "flights"): 2}
    version = snapshot.commit(add=snapshot.stage(rows.lazy()), delete=delete, metadata=_METADATA, txns=txns)
    checks.record(lake, [checks.declared("silver", "flights", version, [])])


def _copy_for_plain(state: Path) -> None:
    """The rows of silver as Parquet files alone, one for each of the table's."""
    _, lake = _lake(state / "ours")
    snapshot = lake.table("silver", "flights").snapshot()
    shutil.rmtree(state / "silver", ignore_errors=True)
    (state / "silver").mkdir()
    for number, uri in enumerate(snapshot.uris()):
        frame = snapshot.scan(uris=[uri])
        frame.sink_parquet(state / "silver" / f"{number:04}.parquet", compression="zstd", compression_level=1)


# -- the contestants ----------------------------------------------------------------------------------


def ours(case: Mapping[str, Any]) -> Work:
    """The gold build as `lakehouse run` calls it, from a copy of the built lake."""
    lake = Path(case["folder"], "ours")
    shutil.copytree(Path(case["state"], "ours"), lake)
    import pandas  # noqa: F401  PyArrow imports it for the statistics of timestamps: by gold, a run has

    from lakehouse.gold.build import ensure_manifest

    ensure_manifest(_lake(lake)[0], lake / "project")  # parsed, as on every run but the first
    return lambda: _ours(lake, build=case["build"])


def _ours(root: Path, *, build: str) -> Any:
    from lakehouse.gold.build import build as build_gold

    settings, lake = _lake(root)
    project = root / "project"
    if not project.exists():
        _project(project, _OURS.replace("AGGREGATES", _AGGREGATES))
        shutil.copytree(data.ROOT / "dbt_project" / "macros", project / "macros")
    table = lake.table("gold", "daily")
    started = table.snapshot_or_none()
    if build == "start":
        result = build_gold(lake, settings, project_dir=project, select=["nothing"], force=True)
    else:
        result = build_gold(
            lake, settings, project_dir=project, select=["daily"], full_refresh=build == "full"
        )
    result.raise_for_failures()
    if build == "incremental" and started is not None:
        assert result.model("daily").strategy == "replace_groups", result.model("daily").message
    return {} if build == "start" else lambda: {"digest": _digest(_files(table.snapshot().uris()))}


def plain(case: Mapping[str, Any]) -> Work:
    """The same model in a DuckDB file, by dbt as it is: a view over the same Parquet files stands for silver."""
    folder = Path(case["folder"], "plain")
    shutil.copytree(Path(case["state"], "plain"), folder)
    write_profile(folder / "project", folder / "plain.duckdb")
    invoke(folder / "project", "parse")
    return lambda: _plain(folder, Path(case["state"]), build=case["build"])


def _plain(folder: Path, state: Path, *, build: str) -> Any:
    import duckdb

    project, database = folder / "project", folder / "plain.duckdb"
    if not project.exists():
        _project(project, _PLAIN.replace("AGGREGATES", _AGGREGATES))
    write_profile(project, database)
    with duckdb.connect(str(database)) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS silver")
        files = _files([str(path) for path in sorted(state.glob("silver/*.parquet"))])
        connection.execute(f"CREATE OR REPLACE VIEW silver.flights AS SELECT * FROM {files}")
    invoke(project, "run", "--select", "nothing" if build == "start" else "daily", *(["--full-refresh"] if build == "full" else []))  # fmt: skip

    def digest() -> dict[str, Any]:
        with duckdb.connect(str(database)) as connection:
            return {"digest": str(connection.execute(_DIGEST.format(rows="main.daily")).fetchone())}

    return {} if build == "start" else digest


_DIGEST = "SELECT count(*), sum(hash(daily)::HUGEINT) FROM (SELECT * REPLACE (round(avg_dep_delay, 9) AS avg_dep_delay) FROM {rows}) AS daily"


def _digest(rows: str) -> str:
    import duckdb

    return str(duckdb.execute(_DIGEST.format(rows=rows)).fetchone())


def _files(uris: Sequence[str]) -> str:
    return "read_parquet([" + ", ".join(f"'{uri}'" for uri in uris) + "])"


def _project(folder: Path, model: str) -> None:
    sources = "sources: [{name: silver, tables: [{name: flights}]}]\n"
    write_project(folder, {"models/sources.yml": sources, "models/daily.sql": model})


if __name__ == "__main__":
    raise SystemExit(main())
