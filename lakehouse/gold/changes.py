"""Which groups of a model the news touches: two versions of what it reads, compared where their files differ.

The Delta log names every file of a version. Files that both versions have hold the same rows; in the others, each
group's rows before are set against its rows after. So upserts, deletes, late rows, rows that move from one group to
another and groups that vanish are all seen, and compaction, which only moves rows between files, touches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lakehouse.gold.project import Model
from lakehouse.gold.relations import source_of
from lakehouse.storage import Snapshot, quote_identifier

#: Schema of the tables that hold the touched groups; the macro ``touched_groups`` names them alike.
SCHEMA = "lakehouse_build"


def touched_table(model: str) -> str:
    """Where the touched groups of a model are, in the build's own database."""
    return f"{SCHEMA}.{quote_identifier(f'touched {model}')}"


def differing_files(old: Snapshot, new: Snapshot) -> tuple[list[str], list[str]]:
    """(URIs that only the old version has, URIs that only the new one has)."""
    before, after = set(old.uris()), set(new.uris())
    return sorted(before - after), sorted(after - before)


def are_comparable(old: Snapshot, new: Snapshot) -> bool:
    """Same columns, and no file of the old version that would be read has been vacuumed."""
    if old.schema() != new.schema():
        return False
    root = old.table.uri.rstrip("/") + "/"
    return all(
        old.table.objects.info(uri.removeprefix(root)) is not None for uri in differing_files(old, new)[0]
    )


def is_touched_sql(model: Model, row: str) -> str:
    """True for rows of ``row`` (an alias) whose group is touched. A null in the key is a value like any other."""
    pairs = (
        f"touched.{column} IS NOT DISTINCT FROM {row}.{column}"
        for column in map(quote_identifier, model.group_key)
    )
    return f"EXISTS (SELECT 1 FROM {touched_table(model.name)} AS touched WHERE {' AND '.join(pairs)})"


def find_touched(
    cursor: Any, model: Model, before: Mapping[str, Snapshot], now: Mapping[str, Snapshot]
) -> None:
    """Make the model's table of touched groups. Both mappings have every input of ``model.touched_by``."""
    key = [quote_identifier(column) for column in model.group_key]
    parts = []
    for name, groups in model.touched_by.items():
        removed, added = differing_files(before[name], now[name])
        if removed or added:
            columns = [quote_identifier(column) for column in now[name].schema()]
            both = (
                f"SELECT *, 1 AS __sign FROM {source_of(now[name], added)} "
                f"UNION ALL SELECT *, -1 AS __sign FROM {source_of(before[name], removed)}"
            )
            parts.append(_by_query(groups, columns, key, both) if isinstance(groups, str) else _by_key(groups, columns, key, both))  # fmt: skip
    if not parts:
        # Nothing differs: the groups have the types of the table that is built upon, and there are none.
        parts = [f"SELECT {', '.join(key)} FROM gold.{quote_identifier(model.name)} WHERE false"]
    cursor.execute(f"CREATE OR REPLACE TABLE {touched_table(model.name)} AS {' UNION '.join(parts)}")


def _by_key(groups: Sequence[str], columns: Sequence[str], key: Sequence[str], both: str) -> str:
    """Groups whose rows are others than before, as multisets: told by the sum of the rows' 64-bit hashes.

    A change would go unseen when its hashes cancel out by chance: once in 10^19 changed groups.
    """
    wanted = ", ".join(f"({expression}) AS {name}" for expression, name in zip(groups, key, strict=True))
    return (
        f"SELECT {', '.join(key)} FROM (SELECT {wanted}, sum(__sign) AS __rows, "
        f"sum(__sign * hash({', '.join(columns)})::HUGEINT) AS __hashes FROM ({both}) GROUP BY ALL) "
        "WHERE __rows <> 0 OR __hashes <> 0"
    )


def _by_query(query: str, columns: Sequence[str], key: Sequence[str], both: str) -> str:
    """The groups that a query of the model finds for ``changed_rows``: every row that came, went or changed."""
    names = ", ".join(columns)
    changed = f"SELECT {names} FROM ({both}) GROUP BY {names} HAVING sum(__sign) <> 0"
    return f"SELECT {', '.join(key)} FROM (WITH changed_rows AS ({changed}) {query})"
