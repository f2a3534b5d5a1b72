"""The lakes that take the changes: ours, a plain Delta table of the same rows in the same files, and how both are read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.changes import DEEP, KEY, SINCE, WHERE, Case, batch_of, case_of, table_before
from benchmarks.harness import Steps


def prepare(raw: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """Below ``state``: our lake, a plain Delta table of the same rows in the same files, and the batches."""
    case = case_of(raw)

    def work() -> dict[str, Any]:
        import deltalake
        import polars as pl

        from lakehouse.names import OBSERVED_AT
        from lakehouse.silver.refine import table_schema
        from lakehouse.silver.write import ended

        schema = table_schema(_pipeline(case))
        table = _lake(Path(case.state, "ours"))[1].table("silver", "orders")
        rows = table_before(case).select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        staged = table.stage(rows, apart=ended(schema))
        table.create(schema, add=staged, metadata={"stage": "silver"})
        for path, rows in (
            table.snapshot().files().sort(f"min.{KEY}").select("uri", "num_records").iter_rows()
        ):
            frame = pl.read_parquet(path).drop(OBSERVED_AT, strict=False)
            deltalake.write_deltalake(
                Path(case.state, "plain"), frame.to_arrow(), mode="append", writer_properties=zstd(),
                target_file_size=1 << 40, configuration={"delta.checkpointInterval": "1000"},
            )  # fmt: skip
            assert frame.height == rows
        for where in [DEEP] if case.where == DEEP else WHERE:
            Path(case.state, where).mkdir(parents=True)
            for number in range(case.batches + 1):
                batch_of(case, where, number).write_parquet(Path(case.state, where, f"{number:02d}.parquet"))
        snapshot = table.snapshot()
        return {"rows": snapshot.num_rows(), "bytes": snapshot.size_bytes(), "files": len(snapshot.uris())}

    return work


def zstd() -> Any:
    """How every contestant compresses."""
    import deltalake

    return deltalake.WriterProperties(compression="ZSTD", compression_level=1)


def ours(raw: Mapping[str, Any]) -> Steps:
    """The silver stage as `lakehouse run` calls it: each batch lands in bronze (not measured), then is refined."""
    import polars as pl

    from lakehouse.bronze import ingest
    from lakehouse.ops.maintenance import maintain
    from lakehouse.silver import refine

    case = case_of(raw)
    root = Path(case.folder, "ours")
    _copy(Path(case.state, "ours"), root)
    settings, lake = _lake(root)
    pipeline = _pipeline(case)
    table = lake.table("silver", "orders")
    (root / "landing").mkdir()
    counts = {"accepted": 0, "late": 0}
    for number, file in enumerate(case.files):
        shutil.copyfile(file, root / "landing" / file.name)
        ingest(lake, settings, pipeline)

        def batch() -> None:
            result = refine(lake, settings, pipeline)
            counts["accepted"] += result.accepted
            counts["late"] += result.late

        yield step_name(number), batch
    assert sum(counts.values()) == case.changes * (case.batches + 1), counts
    yield from read(lambda: table.snapshot().scan())
    found = digest(table.snapshot().scan(), case)
    assert digest(pl.scan_delta(table.uri), case) == found, "another reader of the same table sees other rows"

    def upkeep() -> None:
        counts["combined"] = sum(
            done.combined
            for done in maintain(lake, settings, {"orders": pipeline}, select=["silver/orders"], vacuum=False)
        )

    yield "upkeep", upkeep
    assert digest(table.snapshot().scan(), case) == found, "maintenance changed the rows"
    return {**counts, "rows": found}


def step_name(number: int) -> str:
    """The first batch may build what the later ones use."""
    return "first" if number == 0 else "batch"


def plain_table(case: Case) -> str:
    """A copy of the plain Delta table, for this run alone."""
    target = Path(case.folder, "plain")
    _copy(Path(case.state, "plain"), target)
    return str(target)


def incoming(case: Case, number: int, file: Path) -> Any:
    """A batch with the lineage columns that ours writes, too."""
    import polars as pl

    from lakehouse import names
    from lakehouse.silver.prepare import LINEAGE_SCHEMA

    lineage = {
        names.BATCH_ID: pl.lit(number + 1),
        names.SOURCE_FILE: pl.lit(file.name),
        names.SOURCE_ROW: pl.int_range(1, pl.len() + 1),
    }
    assert set(lineage) == set(LINEAGE_SCHEMA)
    return pl.read_parquet(file).with_columns(
        value.cast(LINEAGE_SCHEMA[name]).alias(name) for name, value in lineage.items()
    )


def read(open_table: Callable[[], Any]) -> Steps:
    """A column of the whole table, measured the second time, when its reader has been imported."""
    import polars as pl

    def once() -> None:
        open_table().select(pl.col("o_totalprice").sum()).collect(engine="streaming")

    once()
    yield "read", once
    return {}


def digest(rows: Any, case: Case) -> str:
    """Number of rows and a sum over all of them that does not depend on their order."""
    import polars as pl

    columns = [pl.col(name).cast(dtype) for name, dtype in case.columns.items()]
    hashed = pl.struct(columns).hash(seed=1).alias("hash")
    low, high = pl.col("hash") % 2**32, pl.col("hash") // 2**32
    found = rows.select(hashed).select(pl.len(), low.sum().alias("low"), high.sum().alias("high"))
    return str(found.collect(engine="streaming").row(0))


def _copy(source: Path, target: Path) -> None:
    """A copy whose data files, never changed by anyone, are the same on disk."""

    def link(one: str, other: str) -> None:
        is_data = one.endswith(".parquet") and "_delta_log" not in one
        (os.link if is_data else shutil.copyfile)(one, other)

    shutil.copytree(source, target, copy_function=link)


def _lake(root: Path) -> Any:
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings(
        root=str(root), landing=str(root / "landing"), pipelines_dir=str(root / "pipelines")
    )
    return settings, Lake.from_settings(settings)


def _pipeline(case: Case) -> Any:
    from lakehouse.pipelines import Pipeline, PipelineSpec

    spec = {
        "name": "orders", "description": "Benchmark.", "contract": "benchmarks.tables.Order",
        "source": {"kind": "files", "path": "*.parquet", "format": "parquet"},
        "silver": {"mode": case.mode, "sequence_by": [SINCE]},
    }  # fmt: skip
    return Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
