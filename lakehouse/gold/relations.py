"""SQL that reads exactly one version of a table."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse import names
from lakehouse.storage import Snapshot, duckdb_source, quote_identifier, quote_literal


def source_of(snapshot: Snapshot, uris: Sequence[str] | None = None, deleted: str | None = None) -> str:
    """A parenthesised SELECT over the version's own files (or some of them), with its columns in order.

    ``deleted``: see ``duckdb_source``; without ``uris``.

    Every file of a gold table has the table's columns (a change of schema rewrites the table), so its files are read
    as they are: ``count(*)`` over 8 files took 4 ms, and 194 ms through the union that tables with grown columns need.
    """
    if deleted is not None:
        return _without_deleted(snapshot, duckdb_source(snapshot, uris, deleted))
    uris = snapshot.uris() if uris is None else uris
    # A gold table has deleted rows where another engine has deleted some.
    if snapshot.table.layer != "gold" or not uris or snapshot.has_deletions:
        return _without_deleted(snapshot, duckdb_source(snapshot, uris))
    columns = ", ".join(quote_identifier(name) for name in snapshot.schema())
    files = ", ".join(quote_literal(uri) for uri in uris)
    return f"(SELECT {columns} FROM read_parquet([{files}], hive_partitioning = false))"


def _without_deleted(snapshot: Snapshot, source: str) -> str:
    """Without the rows that stand for a key that was deleted in the source."""
    if names.IS_DELETED not in snapshot.schema():
        return source
    columns = ", ".join(quote_identifier(name) for name in snapshot.schema())
    return f"(SELECT {columns} FROM {source} WHERE {quote_identifier(names.IS_DELETED)} IS NOT TRUE)"


def view_sql(name: str, snapshot: Snapshot, deleted: str | None = None) -> str:
    """A view of that name over the version. ``deleted``: see ``duckdb_source``."""
    return f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM {source_of(snapshot, deleted=deleted)}"
