"""Read-only SQL over the published catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.errors import NothingPublished, QueryError
from lakehouse.settings import Settings
from lakehouse.storage import connect_duckdb, quote_literal

if TYPE_CHECKING:
    import duckdb
    import polars as pl


def connect_read_only(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the catalog as it is now. It stays with that restore point: reconnect for a newer one.

    Raises:
        NothingPublished: there is no catalog yet.
        QueryError: the catalog cannot be opened.
    """
    path = settings.catalog_path
    if not path.is_file():
        raise NothingPublished(
            f"nothing is published yet: there is no catalog at {path}",
            hint="lakehouse demo (with sample data), or: lakehouse run (with your own pipelines)",
        )
    import duckdb

    # Attached, not opened: DuckDB shares an open file by its path within a process, and a new catalog has the
    # path of the one before.
    connection = connect_duckdb(settings)
    try:
        connection.execute(f"ATTACH {quote_literal(str(path))} AS gold (READ_ONLY)")
        connection.execute("USE gold")
    except duckdb.Error as error:
        connection.close()
        raise QueryError(
            f"the catalog {path} cannot be opened: {error}", hint="lakehouse run (makes it again)"
        ) from error
    return connection


def query(settings: Settings, sql: str) -> pl.DataFrame:
    """The rows of one SQL query against the catalog.

    Raises:
        QueryError: there is no catalog, the SQL is wrong, or it tries to write.
    """
    import duckdb

    with connect_read_only(settings) as connection:
        try:
            return connection.execute(sql).pl()
        except duckdb.Error as error:
            raise explain(error) from error


def explain(error: Exception) -> QueryError:
    """DuckDB's error in words that help an analyst."""
    text = str(error).strip()
    if "read-only mode" in text:
        return QueryError(
            "the catalog is read-only: it shows what pipelines have published",
            hint="to keep a result while you work, open the catalog in DuckDB: CREATE TEMP TABLE x AS SELECT …",
        )
    if "does not exist" in text and "Table with name" in text:
        return QueryError(text, hint="list the tables: SELECT * FROM lakehouse_info.tables")
    if "No files found" in text or "Cannot open file" in text:
        return QueryError(
            f"a data file of the catalog is gone: {text}",
            hint="open the catalog again; if that does not help: lakehouse doctor",
        )
    return QueryError(text, hint="tables and columns: .tables and .schema TABLE in lakehouse sql")
