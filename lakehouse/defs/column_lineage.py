"""Which columns a gold column is made of, read from the SQL that dbt compiled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from lakehouse import names
from lakehouse.gold.results import ModelResult
from lakehouse.settings import Settings

_Columns = dict[str, list[tuple[str, str, str]]]


def column_lineage(settings: Settings, model: ModelResult) -> dg.TableColumnLineage | None:
    """Lineage of the model's declared columns; None when it has none or the SQL cannot be taken apart.

    Taking SQL apart costs up to a second, so the answer is kept under the state folder by the hash of the SQL.
    """
    if not model.columns:
        return None
    digest = hashlib.sha256(json.dumps([model.sql, sorted(model.columns)]).encode()).hexdigest()[:24]
    path = Path(settings.state_dir, "column_lineage", f"{digest}.json")
    try:
        found: _Columns = {c: [(d[0], d[1], d[2]) for d in deps] for c, deps in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError):
        found = _trace(model.sql, model.columns)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    if not any(found.values()):
        return None
    return dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(dg.AssetKey([layer, table]), source) for layer, table, source in deps]
            for column, deps in found.items()
        }
    )


def _trace(sql: str, columns: Mapping[str, str]) -> _Columns:
    """Column → (layer, table, column) of everything that it reads. A column that cannot be traced is left out."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.scope import build_scope

    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
        scope = build_scope(tree)
    except SqlglotError:
        return {}
    found: _Columns = {}
    for column in columns:
        try:
            node = lineage(column, tree, dialect="duckdb", scope=scope, copy=False)
        except (SqlglotError, ValueError, RecursionError):
            continue
        deps: dict[tuple[str, str, str], None] = {}
        for leaf in node.walk():
            table = leaf.expression
            if isinstance(table, exp.Table) and table.name:
                layer: names.Layer = "silver" if table.db == "silver" else "gold"
                deps[(layer, table.name, leaf.name.rsplit(".", 1)[-1].strip('"'))] = None
        found[column] = list(deps)
    return found
