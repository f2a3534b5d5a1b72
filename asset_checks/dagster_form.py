"""Checks as Dagster sees them: specs for the asset graph, results with the remedy in their metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from asset_checks.base import Check
from lakehouse import names
from lakehouse.checks import CheckOutcome


def spec(check: Check) -> dg.AssetCheckSpec:
    """The check as it is declared in the asset graph."""
    return dg.AssetCheckSpec(
        check.name,
        asset=names.asset_key(check.layer, check.table),
        description=check.description,
        blocking=check.blocking,
        metadata={"recovery": check.recovery},
    )


def result(outcome: CheckOutcome, facts: Mapping[str, Any] | None = None) -> dg.AssetCheckResult:
    """The outcome as an event: what was seen, how many rows, a sample of them, and what to run."""
    metadata: dict[str, Any] = {"version": outcome.version, "rows at fault": outcome.count, **(facts or {})}
    if not outcome.passed:
        metadata["recovery"] = dg.MetadataValue.text(outcome.recovery)
    if outcome.sample:
        metadata["sample rows"] = _table(outcome.sample)
    return dg.AssetCheckResult(
        asset_key=names.asset_key(outcome.layer, outcome.table),
        check_name=outcome.check,
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity.ERROR if outcome.severity == "error" else dg.AssetCheckSeverity.WARN,
        description=outcome.message,
        metadata=metadata,
    )


def _table(sample: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a table; every cell as text, because Dagster's tables take no nested values."""
    columns = list(dict.fromkeys(name for row in sample for name in row))
    records = [dg.TableRecord({name: _cell(row.get(name)) for name in columns}) for row in sample]
    return dg.MetadataValue.table(
        records, schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns])
    )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:197] + "…"
