"""Files to bronze: the whole bronze stage against bare engines, per format.

    python benchmarks/ingest.py --quick
    python benchmarks/ingest.py --json ingest.json --docs docs/performance.md

Ours has everything on: listing, content hashes, the plan in the ledger, lineage columns, refusal of broken input,
counts that must add up, statistics, events. The others write the same rows; the columns that each adds are named
below. `polars` is what the target names: one lazy query from the files to Delta, without any promise. `polars, a query a file` is
the limit: what it takes at least to parse, encode and write the same rows, without a log.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data, harness
from benchmarks.environments import environment
from benchmarks.harness import Contestant, Result, Target

Work = Callable[[], dict[str, Any]]
_PACKAGES = ["polars", "deltalake", "duckdb", "pyarrow"]
#: Environments of the contestants that have one of their own: the packages in it that a figure depends on.
_OTHERS = {"dlt": ("dlt",), "spark": ("pyspark",)}
_SPARK = "Spark local → Parquet"
_FORMATS = {"csv": "csv", "csv.gz": "csv", "jsonl": "jsonl", "parquet": "parquet", "flights": "csv"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = harness.options(__doc__)
    parser.add_argument("--only", choices=list(_FORMATS), help="one format")
    parser.add_argument("--alone", action="store_true", help="ours and bare Polars only")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    scale = 0.1 if chosen.quick else 0.35
    rounds = chosen.rounds or (1 if chosen.quick else 3)
    sections, texts = {}, []
    for kind, form in _FORMATS.items():
        if chosen.only not in (None, kind):
            continue
        if kind == "flights":
            folder, title = data.flights(1), "CSV, many small files: the flights of 2013, one file a day"
        else:
            folder, title = data.lineitem(scale, kind), f"{kind}: TPC-H lineitem, 4 files"
        megabytes = data.size_mb(folder)
        print(f"{title}, {megabytes:.0f} MB", file=sys.stderr)
        case = {"input": str(folder), "format": form}
        # Of what takes long, one format tells it: dlt always, Spark with --quick.
        others = [name for name in _OTHERS if kind == "csv" or (name == "spark" and not chosen.quick)]
        contestants = _contestants(case, [] if chosen.alone else others, bare=chosen.alone)
        work = data.DATA.parent / "runs"
        work.mkdir(parents=True, exist_ok=True)
        results = harness.compare(contestants, rounds=rounds, folder=work)
        sections[kind] = results
        texts.append(
            f"**{title}, {megabytes:.0f} MB**\n\n{harness.table(results, reference='polars', size_mb=megabytes)}"
        )
    made = {} if chosen.alone else {name: _environment(name) for name in _OTHERS}
    others = {
        package: python for name, (python, absent) in made.items() if not absent for package in _OTHERS[name]
    }
    targets = [target for kind, results in sections.items() for target in _targets(kind, results)]
    harness.finish(
        "ingest", chosen, "\n\n".join(texts), sections, _PACKAGES, started, targets=targets, others=others
    )
    return 0


def _targets(kind: str, results: Sequence[Result]) -> Iterator[Target]:
    """0.85 of bare Polars' speed, and four times Spark's."""
    speed = {result.name: 1 / result.median("wall_s") for result in results if result.runs}
    for other, factor, name in (("polars", 0.85, "bare Polars"), (_SPARK, 4.0, "local Spark")):
        if other in speed:
            found = speed["ours"] / speed[other]
            yield Target(f"{kind}: {factor:g} × the speed of {name}", f"{found:.2f}", found >= factor)


#: Asked once: where there is no package index, every attempt to make one takes its time.
_environment = functools.cache(environment)


def _contestants(case: Mapping[str, Any], others: Sequence[str], *, bare: bool) -> list[Contestant]:
    here = "benchmarks.ingest:"
    found = [Contestant("ours", here + "ours", case), Contestant("polars", here + "bare_polars", case)]
    if bare:
        return found
    found.append(Contestant("polars, a query a file", here + "polars_files", case))
    if case["format"] != "parquet":
        absent = "it takes the first NA for a broken number" if "flights" in case["input"] else None
        found.append(
            Contestant("polars, typed", here + "bare_polars", {**case, "typed": True}, absent=absent)
        )
    found.append(Contestant("PyArrow → Delta", here + "arrow", case))
    for name, label in (("dlt", "dlt → Delta"), ("spark", _SPARK)):
        if name in others:
            python, absent = _environment(name)
            # dlt takes forty times as long as the others: one round tells it.
            found.append(
                Contestant(label, here + name, case, python=python, absent=absent, once=name == "dlt")
            )
    return found


# -- the contestants: each returns its work as a function, measured alone ---------------------------


def ours(case: Mapping[str, Any]) -> Work:
    """The bronze stage as `lakehouse run` calls it."""
    import pyarrow.parquet  # noqa: F401  what a run has loaded before its first batch

    from lakehouse.bronze import ingest
    from lakehouse.pipelines import Pipeline, PipelineSpec
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings(root=str(Path(case["folder"], "lake")))
    spec = {
        "name": "input", "description": "Benchmark.", "contract": "lakehouse.contracts.flights.Flights",
        "source": {"kind": "files", "path": f"{case['input']}/**/*{_SUFFIX[case['format']]}", "format": case["format"]},
    }  # fmt: skip
    pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
    lake = Lake.from_settings(settings)

    def work() -> dict[str, Any]:
        result = ingest(lake, settings, pipeline)
        return {
            "rows": result.accepted,
            "stored": harness.folder_bytes(Path(case["folder"], "lake", "bronze")),
        }

    return work


_SUFFIX = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}


def bare_polars(case: Mapping[str, Any]) -> Work:
    """Adds the same lineage columns (file, row within the whole scan, batch, instant). Text, or types inferred."""
    import deltalake
    import polars  # noqa: F401  not measured

    files = [str(path) for path in data.files_of(Path(case["input"]))]
    typed = bool(case.get("typed"))
    target = Path(case["folder"], "table")

    def work() -> dict[str, Any]:
        frame = _scanned(files, case["format"], typed=typed)
        properties = deltalake.WriterProperties(compression="ZSTD", compression_level=1)
        frame.sink_delta(target, delta_write_options={"writer_properties": properties})
        return _table_facts(target)

    return work


def _scanned(files: Sequence[str], form: str, *, typed: bool) -> Any:
    """One lazy query with lineage; the caller is a contestant, which has imported Polars."""
    from datetime import UTC, datetime

    import polars as pl

    lineage: dict[str, Any] = {
        "row_index_name": "_source_row",
        "row_index_offset": 1,
        "include_file_paths": "_source_file",
    }
    if form == "csv":
        frame = pl.scan_csv(files, infer_schema=typed, **lineage)
    elif form == "jsonl":
        names = list(pl.scan_ndjson(files[0]).collect_schema())
        frame = pl.scan_ndjson(files, schema=None if typed else dict.fromkeys(names, pl.String()), **lineage)
    else:
        frame = pl.scan_parquet(files, **lineage)
    return frame.with_columns(
        pl.col("_source_row").cast(pl.Int64),
        pl.lit(1, pl.Int64).alias("_batch_id"),
        pl.lit(datetime.now(UTC)).dt.cast_time_unit("us").alias("_ingested_at_utc"),
    )


def polars_files(case: Mapping[str, Any]) -> Work:
    """A query for each file, to Parquet: rows are numbered within their file, and no table has a log."""
    import polars as pl

    files = [str(path) for path in data.files_of(Path(case["input"]))]
    target = Path(case["folder"], "table")
    target.mkdir()

    def work() -> dict[str, Any]:
        queries = [
            _scanned([file], case["format"], typed=False).sink_parquet(
                target / f"{number}.parquet", compression="zstd", compression_level=1, lazy=True
            )
            for number, file in enumerate(files)
        ]
        pl.collect_all(queries, engine="streaming")
        return _parquet_facts(target)

    return work


def _parquet_facts(target: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    rows = sum(pq.read_metadata(path).num_rows for path in target.glob("*.parquet"))
    return {"rows": rows, "stored": harness.folder_bytes(target)}


def _table_facts(target: Path) -> dict[str, Any]:
    import deltalake
    import pyarrow as pa

    actions = pa.table(deltalake.DeltaTable(target).get_add_actions(flatten=True))
    return {"rows": sum(actions["num_records"].to_pylist()), "stored": harness.folder_bytes(target)}


def arrow(case: Mapping[str, Any]) -> Work:
    """PyArrow's streaming readers into write_deltalake; adds file, batch and instant (it knows no row numbers)."""
    from datetime import UTC, datetime

    import deltalake
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.json as pa_json
    import pyarrow.parquet as pq

    files = data.files_of(Path(case["input"]))
    target = Path(case["folder"], "table")

    def batches(path: Path) -> Any:
        if case["format"] == "csv":
            names = path.open("rb").readline().decode().strip().split(",") if path.suffix == ".csv" else None
            names = names or pa_csv.open_csv(path).schema.names
            types = dict.fromkeys(names, pa.string())
            return pa_csv.open_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))
        if case["format"] == "jsonl":
            return pa_json.open_json(path)
        return pq.ParquetFile(path).iter_batches()

    def stream(now: datetime) -> Any:
        for path in files:
            for batch in batches(path):
                height = batch.num_rows
                columns = {
                    "_source_file": pa.repeat(str(path), height),
                    "_batch_id": pa.repeat(1, height),
                    "_ingested_at_utc": pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), height),
                }
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, *columns.values()], names=[*batch.schema.names, *columns]
                )

    def work() -> dict[str, Any]:
        made = stream(datetime.now(UTC))
        first = next(made)

        def everything() -> Any:
            yield first
            yield from made

        reader = pa.RecordBatchReader.from_batches(first.schema, everything())
        properties = deltalake.WriterProperties(compression="ZSTD", compression_level=1)
        deltalake.write_deltalake(target, reader, writer_properties=properties)
        return _table_facts(target)

    return work


def dlt(case: Mapping[str, Any]) -> Work:
    """dlt's own file readers and Delta destination; adds its load id and row id. Its start-up is not measured."""
    import os

    os.environ.update(
        RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR", DLT_DATA_DIR=case["folder"]
    )
    import dlt
    from dlt.sources.filesystem import filesystem, read_csv_duckdb, read_jsonl, read_parquet

    folder = Path(case["input"])
    reader = {"csv": read_csv_duckdb, "jsonl": read_jsonl, "parquet": read_parquet}[case["format"]]
    options = {
        "read_csv_duckdb": {"use_pyarrow": True, "all_varchar": True, "chunk_size": 100_000},
        "read_parquet": {"use_pyarrow": True},
    }
    pattern = f"**/*{data.files_of(folder)[0].suffixes[-1]}"
    lake = Path(case["folder"], "lake")

    def work() -> dict[str, Any]:
        found = filesystem(bucket_url=folder.as_uri(), file_glob=pattern)
        resource = found | reader(**options.get(reader.__name__, {}))
        pipeline = dlt.pipeline(
            "bench", destination=dlt.destinations.filesystem(lake.as_uri()), dataset_name="bronze",
            pipelines_dir=str(Path(case["folder"], "pipelines")),
        )  # fmt: skip
        pipeline.run(resource.with_name("input"), table_format="delta", write_disposition="append")
        return _table_facts(lake / "bronze" / "input")

    return work


def spark(case: Mapping[str, Any]) -> Callable[[], Callable[[], dict[str, Any]]]:
    """Spark in local mode, to Parquet: its Delta library is no Python package, so it has no log to write."""
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as f

    session = (
        SparkSession.builder.master("local[*]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "3g")
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.local.dir", case["folder"])
        .config("spark.sql.warehouse.dir", str(Path(case["folder"], "warehouse")))
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.range(10).count()  # the virtual machine is warm: what is measured is the work
    files = [str(path) for path in data.files_of(Path(case["input"]))]
    target = str(Path(case["folder"], "table"))

    def work() -> Callable[[], dict[str, Any]]:
        reader = session.read
        if case["format"] == "csv":
            frame = reader.option("header", "true").csv(files)
        elif case["format"] == "jsonl":
            frame = reader.option("primitivesAsString", "true").json(files)
        else:
            frame = reader.parquet(*files)
        frame = (
            frame.withColumn("_source_file", f.input_file_name())
            .withColumn("_source_row", f.monotonically_increasing_id())
            .withColumn("_batch_id", f.lit(1))
            .withColumn("_ingested_at_utc", f.current_timestamp())
        )
        frame.write.parquet(target)
        # Counted apart: it is no part of the work.
        return lambda: {
            "rows": session.read.parquet(target).count(),
            "stored": harness.folder_bytes(target),
        }

    return work


if __name__ == "__main__":
    raise SystemExit(main())
