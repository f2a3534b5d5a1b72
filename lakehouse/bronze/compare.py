"""What has become of a file whose content changed: truncated, grown, or rewritten, told by its records."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from lakehouse import names, scratch
from lakehouse.connectors import Batch, Care, SourceFile, connector_for
from lakehouse.errors import LakehouseError
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import Lake

#: Larger files are described by their size alone: a description must not cost as much as a run.
LIMIT_BYTES = 64 << 20


def describe(lake: Lake, settings: Settings, pipeline: Pipeline, before: SourceFile, file: SourceFile) -> str:
    """One sentence for the person who has to decide. Compares with the rows that bronze took of the old version."""
    sizes = f"{before.size_bytes} bytes were taken, {file.size_bytes} are there now"
    if max(file.size_bytes, before.size_bytes) > LIMIT_BYTES:
        return f"{_kind_by_size(before, file)}: {sizes}"
    spool = scratch.new_folder(settings.state_dir)
    try:
        return f"{_by_records(lake, settings, pipeline, file, spool)}; {sizes}"
    except (LakehouseError, pl.exceptions.PolarsError, OSError):
        return f"{_kind_by_size(before, file)}: {sizes}"
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _kind_by_size(before: SourceFile, file: SourceFile) -> str:
    return "shorter" if file.size_bytes < before.size_bytes else "changed"


def _by_records(lake: Lake, settings: Settings, pipeline: Pipeline, file: SourceFile, spool: Path) -> str:
    batch = Batch(pipeline.name, 0, (file,), file.modified_at_utc)
    extract = connector_for(pipeline.spec.source, settings).read(batch, spool, Care(frozenset({file.path})))
    new = extract.frame.collect(engine="streaming")
    old = lake.table("bronze", pipeline.name).snapshot().scan().filter(pl.col(names.SOURCE_FILE) == file.path)
    taken = old.filter(pl.col(names.BATCH_ID) == pl.col(names.BATCH_ID).max()).collect(engine="streaming")
    columns = [name for name in new.columns if name in taken.columns and not name.startswith("_source_")]
    pairs = new.join(taken, on=names.SOURCE_ROW, how="inner", suffix="__old")
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}__old")) for c in columns)
    equal = int(pairs.select(same.sum()).item()) if columns else 0
    if equal == new.height < taken.height:
        return f"truncated: its {equal} whole records are the first of the {taken.height} that were taken"
    if equal == taken.height < new.height:
        return f"grown: {new.height - equal} records behind the {equal} that were taken"
    if equal == taken.height == new.height and not extract.rejects.height:
        return f"the same {equal} records in other bytes"
    return f"rewritten: {equal} of {new.height} records are as before, where {taken.height} were taken"
