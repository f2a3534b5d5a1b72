"""What a model's configuration says of how its table is written, checked when the project is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from lakehouse.errors import GoldBuildError
from lakehouse.gold.results import Strategy

STRATEGIES: tuple[str, ...] = get_args(Strategy)


def write_settings(where: str, config: Mapping[str, Any]) -> tuple[str, tuple[str, ...], str | None]:
    """strategy, unique_key, replace_where of a delta model, after checking that they fit together."""
    strategy = config.get("strategy") or "overwrite"
    if strategy not in STRATEGIES:
        raise GoldBuildError(f"{where}: strategy is '{strategy}'; allowed: {', '.join(STRATEGIES)}")
    if config.get("incremental_strategy"):
        raise GoldBuildError(
            f"{where}: incremental_strategy belongs to dbt's own incremental models; write `strategy`"
        )
    raw_key = config.get("unique_key") or ()
    unique_key = (raw_key,) if isinstance(raw_key, str) else tuple(raw_key)
    predicate = config.get("replace_where")
    if (strategy == "merge") != bool(unique_key):
        needs = (
            "needs unique_key: a column or a list of columns"
            if strategy == "merge"
            else "takes no unique_key (merge does)"
        )
        raise GoldBuildError(f"{where}: strategy '{strategy}' {needs}")
    if (strategy == "replace_where") != bool(predicate):
        needs = (
            "needs replace_where: an SQL predicate over its columns"
            if strategy == "replace_where"
            else "takes no replace_where"
        )
        raise GoldBuildError(f"{where}: strategy '{strategy}' {needs}")
    return strategy, unique_key, str(predicate) if predicate else None


def group_settings(
    where: str, config: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, str | tuple[str, ...]]]:
    """group_key and touched_by of a model whose touched groups are replaced."""
    raw_key, raw = config.get("group_key") or (), config.get("touched_by") or {}
    key = (raw_key,) if isinstance(raw_key, str) else tuple(raw_key)
    if not key or not isinstance(raw, Mapping) or not raw:
        raise GoldBuildError(
            f"{where}: strategy 'replace_groups' needs group_key and touched_by",
            hint="group_key=['day'], touched_by={'silver/orders': ['placed_on']}; see docs/gold.md",
        )
    touched: dict[str, str | tuple[str, ...]] = {}
    for table, groups in raw.items():
        touched[table] = groups if isinstance(groups, str) else tuple(map(str, groups))
        if not isinstance(groups, str) and len(groups) != len(key):
            raise GoldBuildError(
                f"{where}: touched_by of {table} has {len(groups)} expressions, group_key has {len(key)} columns"
            )
    return key, touched


def constraints(where: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, SQL expression that every row must satisfy) of an enforced contract's constraints.

    not_null and check are enforced on the rows that a build writes; the others would need the whole table,
    which is what data tests are for: refused rather than ignored.
    """
    if not node["config"].get("contract", {}).get("enforced"):
        return
    for column in node.get("columns", {}).values():
        for constraint in column.get("constraints", []):
            yield _constraint(where, constraint, column["name"])
    for constraint in node.get("constraints", []):
        columns = constraint.get("columns") or [None]
        for name in columns if constraint["type"] == "not_null" else columns[:1]:
            yield _constraint(where, constraint, name)


def _constraint(where: str, constraint: Mapping[str, Any], column: str | None) -> tuple[str, str]:
    kind = constraint["type"]
    if kind == "not_null" and column:
        return f"not_null({column})", f'"{column}" IS NOT NULL'
    if kind == "check" and constraint.get("expression"):
        return str(
            constraint.get("name") or f"check({constraint['expression']})"
        ), f"({constraint['expression']})"
    raise GoldBuildError(
        f"{where}: constraint '{kind}' cannot be enforced on a Delta table; allowed: not_null, check",
        hint="use a data test (unique, relationships), which looks at the whole table",
    )
