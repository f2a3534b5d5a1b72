"""The vocabulary: layers, table paths, asset keys, transaction ids and lineage columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Layer = Literal["bronze", "silver", "gold", "quarantine", "ops"]
LAYERS: tuple[Layer, ...] = get_args(Layer)

BATCH_ID = "_batch_id"
SOURCE_FILE = "_source_file"
SOURCE_ROW = "_source_row"
INGESTED_AT = "_ingested_at_utc"
RESCUED = "_rescued"
#: Columns that bronze adds to every row, and that no source may bring itself.
LINEAGE: tuple[str, ...] = (BATCH_ID, SOURCE_FILE, SOURCE_ROW, INGESTED_AT)

#: Columns that a silver table of mode ``history`` has besides its contract's.
VALID_FROM = "valid_from_utc"
VALID_TO = "valid_to_utc"
IS_CURRENT = "is_current"
#: Instants at which a version was seen. A late row between two of them splits the version.
OBSERVED_AT = "_observed_at_utc"
_HISTORY = frozenset({VALID_FROM, VALID_TO, IS_CURRENT, OBSERVED_AT})

#: What DuckDB calls the position of a row in its file: nobody can ask for it where a column has that name.
DUCKDB_POSITION = "file_row_number"

#: True for a silver row whose key was deleted at the source: it stays, so that an older row that comes later does
#: not raise it again; gold and the catalog do not show it.
IS_DELETED = "_is_deleted"

#: Stage of a commit that rearranges files and changes no row: whoever asks what changed looks past it.
MAINTENANCE = "maintenance"

#: Key of our JSON document in a Delta commit's metadata.
COMMIT_KEY = "lakehouse"


def table_path(layer: Layer, table: str) -> str:
    """Path of a table below the lake's root: ``silver/flights``."""
    return f"{layer}/{table}"


def asset_key(layer: Layer, table: str) -> list[str]:
    """Key of a table in the asset graph: ``["silver", "flights"]``."""
    return [layer, table]


def is_history(columns: Iterable[str]) -> bool:
    """True for the columns of a silver table of mode ``history``; a source may well have some of that name of its own."""
    return set(columns) >= _HISTORY


def taken_in_silver(mode: str, columns: Iterable[str]) -> list[str]:
    """Those of a table's columns whose names silver needs for what it writes itself, or readers for where a row stands.

    Lineage is not among them: bronze renames a source's column of such a name, so a contract may well name bronze's. All columns of a
    history together make one, whatever the mode says.
    """
    columns = list(columns)
    taken = {IS_DELETED, DUCKDB_POSITION}
    if mode == "history" or is_history(name.lower() for name in columns):
        taken |= _HISTORY
    return [name for name in columns if name.lower() in taken]


def app_id(stage: str, source: str) -> str:
    """Delta application-transaction id under which a stage commits the batches of one source."""
    return f"{stage}/{source}"
