"""DuckDB over the lake: a bounded connection, and SQL that reads exactly one version of a table."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lakehouse import scratch
from lakehouse.names import DUCKDB_POSITION
from lakehouse.storage.deletion import FILE, ROW
from lakehouse.storage.failures import translated

if TYPE_CHECKING:
    import duckdb

    from lakehouse.settings import Settings
    from lakehouse.storage.snapshot import Snapshot

#: DuckDB's own 3 gave up within a second; a query cannot be resumed, so its requests are asked more patiently.
_HTTP_RETRIES = 8
#: A row's file and position as DuckDB shows them, and the file's number among those that are read. The second
#: and the third name are DuckDB's own.
_FILE, _ROW = "__file", DUCKDB_POSITION
_INDEX, _NUMBER = "file_index", "__file_number"
#: Columns of a table that are called so, in whatever case, are taken for DuckDB's own.
_OWN_NAMES = frozenset({_ROW, _INDEX, "filename"})
#: Rows whose bits are kept together.
BLOCK_ROWS = 8_192
_AT_ONCE = 16
#: So many files with deleted rows are read one by one: to compare numbers costs a fifth of comparing names and numbers.
_FEW_WORN = 64
#: A folder above the lake that is called ``env=prod`` is no column of its files, nor one that hides theirs.
_OWN_COLUMNS = "hive_partitioning=false"
_TYPES: dict[Any, str] = {
    pl.Boolean: "BOOLEAN",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.String: "VARCHAR",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
}


def quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def duckdb_type(dtype: pl.DataType) -> str:
    """The DuckDB type of a stored Polars type."""
    if isinstance(dtype, pl.Struct):
        fields = ", ".join(f"{quote_identifier(f.name)} {duckdb_type(f.dtype)}" for f in dtype.fields)  # type: ignore[arg-type]
        return f"STRUCT({fields})"
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(dtype.inner)}[]"  # type: ignore[arg-type]
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL({dtype.precision or 38}, {dtype.scale})"
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else "TIMESTAMP"
    return _TYPES[dtype if isinstance(dtype, type) else type(dtype)]


def deletion_bits(snapshot: Snapshot) -> pl.DataFrame:
    """Which rows of the version's files are gone, for ``duckdb_source`` as a table with ``gone`` as BIT.

    A row for each ``block`` of ``BLOCK_ROWS`` rows of a ``file`` with deleted rows, both counted from 0, the file as DuckDB counts them: a bit
    for each row, 1 where it is gone. In blocks, because DuckDB carries them along with the rows that it has found: a whole file's bits
    with each took 0.4 GB and twice the CPU where one row in a hundred was wanted (measured, 12 million rows).
    """
    gone = snapshot.vectors()
    names = dict(snapshot.files().select("uri", "path").iter_rows())
    worn = [names[uri] for uri in snapshot.uris() if uri in gone]
    on_disk = snapshot.rows_on_disk(worn)
    # From a store every vector is a request of its own.
    with ThreadPoolExecutor(_AT_ONCE if snapshot.table.objects.is_remote else 1) as pool:
        bits = list(pool.map(lambda path: snapshot.deleted_rows(path).bits(on_disk[path]), worn))
    step = BLOCK_ROWS // 8
    blocks = [
        (number, start // step, whole[start : start + step])
        for number, whole in enumerate(bits)
        for start in range(0, len(whole), step)
    ]
    return pl.DataFrame(
        blocks, schema={"file": pl.UInt64, "block": pl.Int64, "gone": pl.Binary}, orient="row"
    )


def duckdb_source(snapshot: Snapshot, uris: Sequence[str] | None = None, deleted: str | None = None) -> str:
    """A parenthesised SELECT over the version's own Parquet files (or some), with exact columns, order and types.

    Args:
        deleted: name of a table with the rows of ``deletion_bits``, which are of all files. Without it the lists beside the vectors are read
            by every query, for all files with deleted rows, whether it wants rows of them or not: some minutes of a table of 100
            such files took 0.24 CPU seconds, and take 0.01; the whole table 0.9, and 0.6 (measured, 30 million rows).

    It needs no extension, and it is a typed empty relation without files. Files written before a column was
    added lack it: the empty typed branch supplies name and type. Where the statistics show that every file has
    every column they are read as they are: ``count(*)`` over 8 files took 4 ms, and 194 ms through the union.
    """
    if uris is not None and deleted is not None:
        raise ValueError("the table of deleted rows counts all of the version's files")
    columns = snapshot.schema()
    uris = snapshot.uris() if uris is None else uris
    if not uris:
        return _nothing(columns)
    names = ", ".join(quote_identifier(name) for name in columns)
    gone = snapshot.vectors()
    whole, worn = [uri for uri in uris if uri not in gone], [uri for uri in uris if uri in gone]
    parts = [f"SELECT {names} FROM {_parquet(snapshot, whole)}"] if whole else []
    lower = {name.lower() for name in columns}
    if worn and deleted is not None and _OWN_NAMES.isdisjoint(lower):
        own = ", ".join(f"t.{quote_identifier(name)}" for name in columns)
        parts.append(
            f"SELECT {own} FROM {_parquet(snapshot, worn, _Place.NUMBER)} AS t "
            f"JOIN {deleted} AS d ON d.file = t.{_NUMBER} AND d.block = t.{_ROW} // {BLOCK_ROWS} "
            f"WHERE get_bit(d.gone, (t.{_ROW} % {BLOCK_ROWS})::INTEGER) = 0"
        )
    elif (
        len(worn) <= _FEW_WORN or "filename" in lower
    ):  # a filter on such a column would be asked of the files' names
        parts += [
            f"SELECT {names} FROM {_parquet(snapshot, [uri], _Place.ROW)} AS t "
            f"WHERE t.{_ROW} NOT IN {_deleted(snapshot, uri)}"
            for uri in worn
        ]
    else:
        # NOT IN, not NOT EXISTS: the other way round DuckDB may build its hash table from the table's rows (measured with
        # 10 million rows, 1 million of them deleted: 3.6 CPU-s and 1.7 GB against 0.8 CPU-s; 0.2 without deleted rows).
        parts.append(
            f"SELECT {names} FROM {_parquet(snapshot, worn, _Place.NAME)} AS t "
            f"WHERE (t.{_FILE}, t.{_ROW}) NOT IN (SELECT ({FILE}, {ROW}) FROM {_listed(snapshot, worn)})"
        )
    return f"({' UNION ALL '.join(parts)})"


def _name(snapshot: Snapshot, uri: str) -> str:
    """The data file as the lists of deleted rows name it."""
    return uri.removeprefix(snapshot.table.uri.rstrip("/") + "/")


def _deleted(snapshot: Snapshot, uri: str) -> str:
    """A parenthesised SELECT of the positions of a file's deleted rows: ``row``, from 0."""
    lists = _list([snapshot.vectors()[uri]])
    return f"(SELECT {ROW} FROM read_parquet({lists}, {_OWN_COLUMNS}) WHERE {FILE} = {quote_literal(_name(snapshot, uri))})"


def _listed(snapshot: Snapshot, uris: Sequence[str]) -> str:
    """The lists that name the deleted rows of these files (and of others), with URIs in the place of names."""
    gone = snapshot.vectors()
    folder = quote_literal(snapshot.table.uri.rstrip("/") + "/")
    lists = _list(dict.fromkeys(gone[uri] for uri in uris))
    return f"(SELECT {folder} || {FILE} AS {FILE}, {ROW} FROM read_parquet({lists}, {_OWN_COLUMNS}))"


class _Place(Enum):
    """What is told of a row beside its columns: its position in its file, and by what its file is known."""

    ROW = auto()
    NAME = auto()
    NUMBER = auto()


def _parquet(snapshot: Snapshot, uris: Sequence[str], place: _Place | None = None) -> str:
    """The files' rows, as SQL."""
    columns = snapshot.schema()
    options = _OWN_COLUMNS if place is None else f"{_OWN_COLUMNS}, {_ROW}=true"
    # Numbers never come with names: a filter on a column that is called like the name makes DuckDB count the files anew
    # (https://github.com/duckdb/duckdb/issues/26044). And releases before 1.3 have none: the catalog goes without.
    if place is _Place.NAME:
        options += f", filename='{_FILE}'"
    every = f"*, {_INDEX} AS {_NUMBER}" if place is _Place.NUMBER else "*"
    if _have_every_column(snapshot, columns):
        return f"(SELECT {every} FROM read_parquet({_list(uris)}, {options}))"
    parquet = f"read_parquet({_list(uris)}, union_by_name=true, {options})"
    return f"({_nothing(columns)} UNION ALL BY NAME (SELECT {every} FROM {parquet}))"


def _nothing(columns: Mapping[str, pl.DataType]) -> str:
    typed = ", ".join(
        f"CAST(NULL AS {duckdb_type(dtype)}) AS {quote_identifier(name)}" for name, dtype in columns.items()
    )
    return f"(SELECT {typed} WHERE false)"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(quote_literal(text) for text in texts)}]"


def _have_every_column(snapshot: Snapshot, columns: Mapping[str, pl.DataType]) -> bool:
    """Do statistics of every column stand in the log for every file? A file without the column has none."""
    known = snapshot.files()
    counts = [f"null_count.{name}" for name in columns]
    return set(counts) <= set(known.columns) and not any(known[count].null_count() for count in counts)


def connect_duckdb(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A connection to a database in memory, with the lake's limits: memory, threads, spill folder, no progress bar, no network extensions.

    For a remote root the httpfs extension is loaded from its installed wheel, and a secret made from the
    storage options.
    """
    import duckdb

    config: dict[str, Any] = {
        "memory_limit": f"{settings.memory_limit_bytes // (1 << 20)}MiB",
        "threads": str(settings.thread_count),
        "temp_directory": _spill_folder(settings),
        "autoinstall_known_extensions": "false",
        "preserve_insertion_order": "false",
    }
    with translated("open DuckDB"):
        connection = duckdb.connect(config=config)
        prepare_connection(connection, settings)
    return connection


def _spill_folder(settings: Settings) -> str:
    """One of this connection alone, in the folder of its process: DuckDB leaves what it has spilled where it is killed, and
    clears its folder when it ends, whoever else spills there."""
    try:
        return str(scratch.new_folder(settings.state_dir))
    except (
        OSError
    ):  # an analyst may read without being allowed to write there, as long as nothing has to be spilled
        return str(Path(settings.state_dir, "spool", uuid.uuid4().hex))


def prepare_connection(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Make a connection that somebody else opened (dbt) read the lake: no progress bar, UTC, object stores."""
    from lakehouse import validation

    # Of the whole database: a cursor is a connection of its own, and takes over nothing that only this one was told.
    connection.execute("SET enable_progress_bar = false; SET GLOBAL TimeZone = 'UTC'")
    if validation.is_remote(settings.root):
        _load_httpfs(connection, settings)


def _load_httpfs(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    import os

    import duckdb_extension_httpfs

    binary = next(Path(duckdb_extension_httpfs.__file__).parent.rglob("httpfs.duckdb_extension"))
    connection.execute(f"LOAD {quote_literal(str(binary))}")
    connection.execute(
        f"SET GLOBAL http_retries = {_HTTP_RETRIES}; SET GLOBAL http_retry_wait_ms = 100; "
        "SET GLOBAL http_retry_backoff = 2"
    )
    options = {**{k: v for k, v in os.environ.items() if k.startswith("AWS_")}, **settings.storage_options}
    options = {key.upper(): value for key, value in options.items()}
    endpoint = options.get("AWS_ENDPOINT_URL", "")
    parts = ["TYPE s3", f"KEY_ID {quote_literal(options.get('AWS_ACCESS_KEY_ID', ''))}"]
    parts.append(f"SECRET {quote_literal(options.get('AWS_SECRET_ACCESS_KEY', ''))}")
    parts.append(f"REGION {quote_literal(options.get('AWS_REGION', 'us-east-1'))}")
    if endpoint:
        parts.append(f"ENDPOINT {quote_literal(endpoint.split('://')[-1].rstrip('/'))}")
        parts.append(f"URL_STYLE 'path', USE_SSL {'true' if endpoint.startswith('https') else 'false'}")
    connection.execute(f"CREATE OR REPLACE SECRET lakehouse ({', '.join(parts)})")
