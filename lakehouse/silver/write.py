"""Finding the rows that a change touches, and rewriting only the files that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from lakehouse.storage import Snapshot, StagedFile, Table

_FILE = "__file"


@dataclass(frozen=True)
class Rewrite:
    """Files to adopt and paths to remove, for one commit."""

    add: list[StagedFile]
    remove: list[str]


def candidate_files(
    snapshot: Snapshot, changes: pl.DataFrame | pl.LazyFrame, key: Sequence[str]
) -> list[str]:
    """URIs of the files whose statistics allow a key of ``changes``."""
    files = snapshot.files()
    if files.is_empty():
        return []
    ends = [
        end for column in key for end in (pl.col(column).min(), pl.col(column).max().name.suffix("__max"))
    ]
    found = changes.lazy().select(ends).collect(engine="streaming")
    if found.is_empty() or found[key[0]][0] is None:
        return []
    possible = pl.lit(True)
    for column in key:
        low, high = f"min.{column}", f"max.{column}"
        if low not in files.columns or high not in files.columns:
            continue
        dtype = files.schema[low]
        bounds = found.select(pl.col(column).cast(dtype), pl.col(f"{column}__max").cast(dtype))
        smallest, largest = bounds.row(0)
        outside = (pl.col(high) < smallest) | (pl.col(low) > largest)
        possible = possible & outside.not_().fill_null(True)
    return files.filter(possible)["uri"].to_list()


def existing_rows(
    snapshot: Snapshot, changes: pl.DataFrame, key: Sequence[str], columns: Sequence[str]
) -> pl.DataFrame:
    """The table's rows whose key is among the changes' keys: ``columns`` of them, streamed."""
    wanted = [*dict.fromkeys([*key, *columns])]
    uris = candidate_files(snapshot, changes, key)
    keys = changes.lazy().select(key).unique()
    found = snapshot.scan(wanted, uris=uris).join(keys, on=key, how="semi")
    return found.collect(engine="streaming")


def rewrite(
    table: Table,
    snapshot: Snapshot | None,
    rows: list[pl.DataFrame | pl.LazyFrame],
    replaced: pl.DataFrame,
    key: Sequence[str],
) -> Rewrite:
    """Stage ``rows``, and the files that hold replaced keys without them; other files stay as they are."""
    pieces = [frame.lazy() for frame in rows]
    remove: list[str] = []
    if snapshot is not None and not replaced.is_empty():
        uris = candidate_files(snapshot, replaced, key)
        touched = (
            pl.scan_parquet(
                uris, schema=snapshot.schema(), missing_columns="insert", extra_columns="ignore",
                include_file_paths=_FILE, glob=False, storage_options=table.options or None,
            )
            .select(*key, _FILE)
            .join(replaced.lazy(), on=key, how="semi")
            .select(pl.col(_FILE).unique())
            .collect(engine="streaming")
            .to_series()
            .to_list()
            if uris
            else []
        )  # fmt: skip
        files = snapshot.files()
        chosen = files.filter(pl.col("uri").is_in(touched))
        remove = chosen["path"].to_list()
        if remove:
            kept = snapshot.scan(uris=chosen["uri"].to_list()).join(replaced.lazy(), on=key, how="anti")
            pieces.append(kept)
    if not pieces:
        return Rewrite([], remove)
    columns = pieces[0].collect_schema().names()
    return Rewrite(table.stage(pl.concat([piece.select(columns) for piece in pieces])), remove)
