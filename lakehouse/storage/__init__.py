"""The only door to Delta tables and to objects: nothing else in the project imports a storage library."""

from lakehouse.storage.commits import CommitInfo, StagedFile
from lakehouse.storage.differences import Part, difference
from lakehouse.storage.duck import (
    connect_duckdb,
    deletion_bits,
    duckdb_source,
    duckdb_type,
    prepare_connection,
    quote_identifier,
    quote_literal,
)
from lakehouse.storage.failures import engine_translated, store_trouble
from lakehouse.storage.lake import Lake
from lakehouse.storage.objects import ObjectInfo, Objects, sync_file
from lakehouse.storage.restore import (
    RESTORED,
    fence,
    missing_files,
    refuse_restoring,
    restore,
    standing_commits,
    stands,
)
from lakehouse.storage.snapshot import Snapshot
from lakehouse.storage.table import Table

__all__ = [
    "RESTORED",
    "CommitInfo",
    "Lake",
    "ObjectInfo",
    "Objects",
    "Part",
    "Snapshot",
    "StagedFile",
    "Table",
    "connect_duckdb",
    "deletion_bits",
    "difference",
    "duckdb_source",
    "duckdb_type",
    "engine_translated",
    "fence",
    "missing_files",
    "prepare_connection",
    "quote_identifier",
    "quote_literal",
    "refuse_restoring",
    "restore",
    "standing_commits",
    "stands",
    "store_trouble",
    "sync_file",
]
