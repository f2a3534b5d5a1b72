"""Which columns a gold column is made of, read from the SQL that dbt compiled (a few milliseconds a model)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from lakehouse import names
from lakehouse.gold.results import ModelResult
from lakehouse.pipelines import Pipeline


def column_lineage(
    model: ModelResult, models: Iterable[ModelResult], pipelines: Mapping[str, Pipeline]
) -> dg.TableColumnLineage | None:
    """Lineage of the model's columns; None when the SQL cannot be taken apart.

    ``models`` and ``pipelines`` say which columns the relations have, so that ``select *`` can be followed.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    try:
        tree = sqlglot.parse_one(model.sql, read="duckdb")
        schema = _schema({table.catalog for table in tree.find_all(exp.Table)}, models, pipelines)
        nodes: Mapping[str, Any] = lineage(None, tree, schema, dialect="duckdb")
    except (SqlglotError, ValueError, RecursionError):
        return None
    found: dict[str, list[dg.TableColumnDep]] = {}
    for column, node in nodes.items():
        deps: dict[tuple[str, str, str], None] = {}
        for leaf in node.walk():
            table = leaf.expression
            source = leaf.name.rsplit(".", 1)[-1].strip('"')
            if isinstance(table, exp.Table) and table.name and table.name != model.name and source != "*":
                deps[(table.db, table.name, source)] = None
        if deps:
            found[column] = [_dep(*dep) for dep in sorted(deps)]
    return dg.TableColumnLineage(found) if found else None


def _dep(schema: str, table: str, column: str) -> dg.TableColumnDep:
    layer: names.Layer = "silver" if schema == "silver" else "gold"
    return dg.TableColumnDep(dg.AssetKey(names.asset_key(layer, table)), column)


def _schema(
    catalogs: set[str], models: Iterable[ModelResult], pipelines: Mapping[str, Pipeline]
) -> dict[str, Any]:
    """Columns of every relation, in the nesting that sqlglot takes; types do not matter to lineage."""
    gold = {model.name: dict.fromkeys(model.columns, "text") for model in models if model.columns}
    silver = {name: dict.fromkeys(pipeline.contract.schema, "text") for name, pipeline in pipelines.items()}
    return {catalog: {"gold": gold, "silver": silver} for catalog in catalogs if catalog}
