"""Which groups of a model the news touches: two versions of what it reads, compared where the log says that they differ.

The log names the files that came and went between the two, and which rows were taken out of files that stayed. Each group's rows
before are set against its rows after. So upserts, deletes, late rows, rows that move from one group to another and groups
that vanish are all seen; compaction, which only moves rows between files, touches nothing and is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.gold.project import Model
from lakehouse.gold.relations import source_of
from lakehouse.storage import Part, Snapshot, difference, duckdb_type, quote_identifier

#: Schema of the tables that hold the touched groups; the macro ``touched_groups`` names them alike.
SCHEMA = "lakehouse_build"
#: Rows of files that stayed are handed to DuckDB so many at a time; it keeps them within its own limit of memory.
_HANDED_OVER = 100_000
_SAMPLE_ROWS = 1_000
#: How DuckDB's expressions name columns without their names.
_BY_POSITION = re.compile(r"#\s*\d|\bcolumns\s*\(|unnamed_subquery")


def touched_table(model: str, *, of: str = "") -> str:
    """Where the touched groups of a model are, in the build's own database; or what is known of one of its inputs."""
    return f"{SCHEMA}.{quote_identifier(f'touched {model}' + (of and f' by {of}'))}"


def are_comparable(old: Snapshot, new: Snapshot) -> bool:
    """Same columns, and nothing that would be read of the two versions has been vacuumed."""
    return old.schema() == new.schema() and difference(old, new).is_readable()


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
        columns = [quote_identifier(column) for column in now[name].schema()]
        found = difference(before[name], now[name])
        came_and_went = [*_rows_of_files(found.came, 1), *_rows_of_files(found.went, -1)]
        wanted = _named_in(groups, now[name])
        table, is_set = touched_table(model.name, of=name), not isinstance(groups, str)
        marked = _rows_marked(cursor, found.changed, wanted, table, is_set=is_set)
        if isinstance(groups, str):
            if both := [*came_and_went, *marked]:
                parts.append(_by_query(groups, columns, key, " UNION ALL ".join(both)))
            continue
        if found.came and found.went:
            parts.append(_by_key(groups, columns, key, " UNION ALL ".join(came_and_went)))
        else:
            # Files came and none went, or the other way round: nothing to set their rows against.
            marked = [*came_and_went, *marked]
        # Rows are marked because they changed: their groups are touched, whatever else the rows hold. To compare them
        # whole took three times as long (measured: 100,000 rows of 10 million, 14 columns).
        parts += [f"SELECT DISTINCT {_renamed(groups, key)} FROM ({rows})" for rows in marked]
    if not parts:
        # Nothing differs: the groups have the types of the table that is built upon, and there are none.
        parts = [f"SELECT {', '.join(key)} FROM gold.{quote_identifier(model.name)} WHERE false"]
    cursor.execute(f"CREATE OR REPLACE TABLE {touched_table(model.name)} AS {' UNION '.join(parts)}")
    for name in model.touched_by:
        cursor.execute(f"DROP TABLE IF EXISTS {touched_table(model.name, of=name)}")


def _rows_of_files(parts: Sequence[Part], sign: int) -> list[str]:
    """SQL for the rows of files that only one version has: ``__sign`` is 1 for the new one's, -1 for the old one's."""
    by_version: dict[int, list[Part]] = {}
    for part in parts:
        by_version.setdefault(part.snapshot.version, []).append(part)
    return [
        f"SELECT *, {sign} AS __sign FROM {source_of(group[0].snapshot, [part.uri for part in group])}"
        for group in by_version.values()
    ]


def _named_in(groups: str | Sequence[str], snapshot: Snapshot) -> list[str]:
    """Columns that must be read to tell a row's group: a query may name any, an expression only what stands in its text."""
    schema = snapshot.schema()
    if isinstance(groups, str):
        return list(schema)
    text = "\n".join(groups).casefold()
    if _BY_POSITION.search(text):
        return list(schema)
    stand_there = [name for name in schema if name.replace('"', '""').casefold() in text]
    return stand_there or list(schema)[:1]


def _rows_marked(
    cursor: Any, changed: Sequence[tuple[Part, Part]], columns: Sequence[str], table: str, *, is_set: bool
) -> list[str]:
    """SQL for the rows of files that both versions have and that are gone from one of them only; signs as above.

    The positions come from the deletion vectors, and the rows from whoever decodes nothing but these columns of their row groups: DuckDB
    took five times the CPU for both (100,000 rows among 10 million, two columns).

    Args:
        table: name of a table to make: these rows.
        is_set: how often a row comes does not matter.
    """
    if not changed:
        return []
    schema = changed[0][1].snapshot.schema()
    typed = [f"{quote_identifier(name)} {duckdb_type(schema[name])}" for name in columns]
    cursor.execute(f"CREATE OR REPLACE TABLE {table} ({', '.join(typed)}, __sign INTEGER)")
    frames = _read_marked(changed, columns)
    for rows in _some_at_a_time(frames):
        cursor.register("handed_over", (_distinct(rows) if is_set else rows).to_arrow())
        cursor.execute(f"INSERT INTO {table} FROM handed_over")
        cursor.unregister("handed_over")
    return [f"SELECT * FROM {table}"]


def _read_marked(changed: Sequence[tuple[Part, Part]], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    for parts in changed:
        was, is_ = (part.snapshot.deleted_rows(part.path) for part in parts)
        snapshot, path = parts[1].snapshot, parts[1].path
        # Rows that stand for a key that was deleted in the source are not part of the relation.
        marks = [names.IS_DELETED] if names.IS_DELETED in snapshot.schema() else []
        for sign, positions in ((-1, is_.beyond(was)), (1, was.beyond(is_))):
            if not len(positions):
                continue
            rows = snapshot.rows_at(path, positions, list(dict.fromkeys([*columns, *marks])))
            for mark in marks:
                rows = rows.filter(pl.col(mark).fill_null(False).not_()).select(columns)
            yield rows.hstack([pl.repeat(sign, rows.height, dtype=pl.Int32, eager=True).alias("__sign")])


def _distinct(rows: pl.DataFrame) -> pl.DataFrame:
    """Each row once, where some look as if most came again: what differs in every row would be hashed for nothing."""
    sample = rows.gather_every(max(1, len(rows) // _SAMPLE_ROWS))
    return rows.unique() if sample.n_unique() <= len(sample) // 2 else rows


def _some_at_a_time(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= _HANDED_OVER:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _renamed(groups: Sequence[str], key: Sequence[str]) -> str:
    return ", ".join(f"({expression}) AS {name}" for expression, name in zip(groups, key, strict=True))


def _by_key(groups: Sequence[str], columns: Sequence[str], key: Sequence[str], both: str) -> str:
    """Groups whose rows are others than before, as multisets: told by the sum of the rows' 64-bit hashes.

    A change would go unseen when its hashes cancel out by chance: once in 10^19 changed groups.
    """
    return (
        f"SELECT {', '.join(key)} FROM (SELECT {_renamed(groups, key)}, sum(__sign) AS __rows, "
        f"sum(__sign * hash({', '.join(columns)})::HUGEINT) AS __hashes FROM ({both}) GROUP BY ALL) "
        "WHERE __rows <> 0 OR __hashes <> 0"
    )


def _by_query(query: str, columns: Sequence[str], key: Sequence[str], both: str) -> str:
    """The groups that a query of the model finds for ``changed_rows``: every row that came, went or changed."""
    names = ", ".join(columns)
    changed = f"SELECT {names} FROM ({both}) GROUP BY {names} HAVING sum(__sign) <> 0"
    return f"SELECT {', '.join(key)} FROM (WITH changed_rows AS ({changed}) {query})"
