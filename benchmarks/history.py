"""Histories (SCD type 2): 100,000 changes into tables of 1, 10 and 50 million versions, against merge and dbt snapshots.

    python benchmarks/history.py --quick
    python benchmarks/history.py --json history.json --docs docs/performance.md

Every contestant takes the same batches one after the other into a copy of the same table; the first one is shown by itself,
and the means are of the five (two with --quick) that follow. Each change ends its key's open version and begins another. At the
end all versions are compared, with the instants from and to which they hold: they are the same, or the benchmark fails.

Ours is the whole silver stage, and takes changes in any order of their instants. The other two are right only if every change
is news: none repeated, none late. So they are here, and neither looks whether it is so. dbt's source holds the batch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import change_sizes, dbt_runs
from benchmarks.change_lakes import digest, incoming, plain_table, read, step_name, zstd
from benchmarks.changes import KEY, SINCE, Case, case_of
from benchmarks.harness import Contestant, Steps

#: Above this dbt is left out: a snapshot of it goes through the whole table.
_DBT_ROWS = 10_000_000
_MERGE_KEY = "merge_key"


def main(arguments: Sequence[str] | None = None) -> int:
    return change_sizes.compare("history", __doc__, _contestants, arguments, ["dbt-core", "dbt-duckdb"])


def _contestants(case: Case) -> list[Contestant]:
    found = [
        case.contestant("ours", "benchmarks.change_lakes:ours"),
        case.contestant("merge, tuned", "benchmarks.history:merge"),
    ]
    if case.where == "uniform":
        found.append(case.contestant("every column decoded, nothing else", "benchmarks.history:decode"))
    # With --quick once a size: most of a small snapshot is dbt's start.
    if case.where != "hot" or case.changes >= 100_000:
        too_large = f"only up to {_DBT_ROWS:,} rows" if case.rows > _DBT_ROWS else None
        name = "dbt snapshot on DuckDB"
        found.append(case.contestant(name, "benchmarks.history:dbt_snapshot", absent=too_large))
    return found


def decode(raw: Mapping[str, Any]) -> Steps:
    """The bound of a uniform batch: one row of every page is changed, so every page has to be decoded. Nothing is done with it."""
    import polars as pl

    files = sorted(Path(case_of(raw).state, "plain").glob("*.parquet"))

    def read_all() -> None:
        for file in files:
            pl.read_parquet(file)

    yield step_name(0), read_all
    yield step_name(1), read_all


def merge(raw: Mapping[str, Any]) -> Steps:
    """deltalake's merge, one commit: each change is a row that ends the open version and a row that begins the next
    (without a key to match). Tuned as in `upsert`; that it need not look at the table first is in its favour."""
    import deltalake
    import polars as pl

    from lakehouse.names import IS_CURRENT, VALID_FROM, VALID_TO

    case = case_of(raw)
    path = plain_table(case)
    table = deltalake.DeltaTable(path)
    for number, file in enumerate(case.files):

        def batch(number: int = number, file: Path = file) -> None:
            begins = incoming(case, number, file).with_columns(
                pl.col(SINCE).alias(VALID_FROM),
                pl.lit(None, pl.Datetime("us", "UTC")).alias(VALID_TO),
                pl.lit(True).alias(IS_CURRENT),
            )
            columns = {name: f"s.{name}" for name in begins.columns}
            source = pl.concat(
                [
                    begins.with_columns(pl.col(KEY).alias(_MERGE_KEY)),
                    begins.with_columns(pl.lit(None, pl.Int64).alias(_MERGE_KEY)),
                ]
            )
            low, high = begins.select(pl.col(KEY).min().alias("low"), pl.col(KEY).max().alias("high")).row(0)
            same = f"t.{KEY} = s.{_MERGE_KEY} AND t.{IS_CURRENT} AND t.{KEY} >= {low} AND t.{KEY} <= {high}"
            (
                table.merge(
                    source,
                    same,
                    source_alias="s",
                    target_alias="t",
                    streamed_exec=False,
                    writer_properties=zstd(),
                )
                .when_matched_update({VALID_TO: f"s.{VALID_FROM}", IS_CURRENT: "false"})
                .when_not_matched_insert(columns, predicate=f"s.{_MERGE_KEY} IS NULL")
                .execute()
            )

        yield step_name(number), batch
    yield from read(lambda: pl.scan_delta(path))
    return {"rows": digest(pl.scan_delta(path), case)}


_SNAPSHOT = f"""
snapshots:
  - name: orders
    relation: source('landing', 'changes')
    config: {{unique_key: {KEY}, strategy: timestamp, updated_at: {SINCE}}}
"""
_SOURCES = "sources: [{name: landing, schema: main, tables: [{name: changes}]}]\n"
#: The columns that a snapshot adds; a version's identifier is made from its key and its instant.
_BASE = f"""
CREATE TABLE main.orders AS
SELECT * EXCLUDE (valid_from_utc, valid_to_utc, is_current) REPLACE ({SINCE}::TIMESTAMP AS {SINCE}),
       md5({KEY}::VARCHAR || '|' || {SINCE}::TIMESTAMP::VARCHAR) AS dbt_scd_id, {SINCE}::TIMESTAMP AS dbt_updated_at,
       valid_from_utc::TIMESTAMP AS dbt_valid_from, valid_to_utc::TIMESTAMP AS dbt_valid_to
FROM read_parquet('{{files}}')
"""


def dbt_snapshot(raw: Mapping[str, Any]) -> Steps:
    """dbt's snapshot with the timestamp strategy, in a DuckDB file."""
    import duckdb

    case = case_of(raw)
    project, database = Path(case.folder, "project"), Path(case.folder, "plain.duckdb")
    dbt_runs.write_project(project, {"snapshots/orders.yml": _SNAPSHOT, "models/sources.yml": _SOURCES})
    dbt_runs.write_profile(project, database)
    with duckdb.connect(str(database)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(_BASE.format(files=Path(case.state, "plain", "*.parquet")))
    for number, file in enumerate(case.files):
        incoming(case, number, file).write_parquet(project / "changes.parquet")
        with duckdb.connect(str(database)) as connection:
            rows = f"SELECT * REPLACE ({SINCE} AT TIME ZONE 'UTC' AS {SINCE}) FROM read_parquet('{project / 'changes.parquet'}')"
            connection.execute(f"CREATE OR REPLACE VIEW main.changes AS {rows}")
        if number == 0:
            dbt_runs.invoke(project, "parse")
        yield step_name(number), lambda: dbt_runs.invoke(project, "snapshot")
    yield "fixed", lambda: dbt_runs.invoke(project, "run", "--select", "nothing")
    return {"rows": digest(_versions(database), case)}


def _versions(database: Path) -> Any:
    """The snapshot's rows with our names."""
    import duckdb
    import polars as pl

    from lakehouse.names import VALID_FROM, VALID_TO

    target = database.with_name("versions.parquet")
    with duckdb.connect(str(database)) as connection:
        connection.execute(f"COPY main.orders TO '{target}'")
    names = {"dbt_valid_from": VALID_FROM, "dbt_valid_to": VALID_TO}
    return pl.scan_parquet(target).rename(names).with_columns(
        pl.col(SINCE, *names.values()).dt.replace_time_zone("UTC")
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
