"""Everything that two lakes must agree on after the same deliveries, whatever happened on the way.

Read independently of the lakehouse's own readers where that is possible: Delta's files through ``deltalake`` and
pyarrow, the published point through plain SQL on the catalog.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.faults.lab import Lab

#: Differ between any two runs: the clock, and who ran.
_VOLATILE = {
    "_ingested_at_utc",
    "_quarantined_at_utc",
    "_run_id",
    "recorded_at_utc",
    "run_id",
    "seconds",
    "bytes_written",
    "table_version",
}
#: Differ when what was delivered apart is planned or refined together, as after a crash: of two equal rows, which
#: one a history version names as its origin; which contract refused a row; the null columns of its ``_raw``.
_BATCHING = {"_batch_id", "batch_id", "_source_file", "_source_row", "_contract_hash", "_raw"}


def take(lab: Lab, *, same_batches: bool = True) -> dict[str, Any]:
    """The lake's contents as plain JSON: rows of every table as sorted texts, conservation, the published point.

    ``same_batches`` False leaves out what depends on how deliveries were cut into batches.
    """
    from lakehouse.gold.publish import current_point
    from lakehouse.storage import Lake

    settings = lab.settings()
    lake = Lake.from_settings(settings)
    dropped = _VOLATILE if same_batches else _VOLATILE | _BATCHING
    found: dict[str, Any] = {}
    for layer in ("bronze", "silver", "quarantine", "gold"):
        for name in lake.tables(layer):  # type: ignore[arg-type]
            found[f"{layer}/{name}"] = _rows(lake.table(layer, name), dropped)  # type: ignore[arg-type]
    if same_batches:
        found["ops/batches"] = _rows(lake.table("ops", "batches"), dropped)
    for source in ("orders", "prices", "clicks"):
        found[f"conservation/{source}"] = _conservation(lake, source)
    point = current_point(lake)
    assert point is not None
    found["published/sources"] = point.sources if same_batches else sorted(point.sources)
    found["published/rows"] = _published(settings, dropped)
    return found


def _rows(table: Any, dropped: set[str]) -> list[str]:
    import polars as pl

    # The engine's own reader of Delta, not the project's.
    rows = pl.scan_delta(table.uri, storage_options=table.options or None).collect().to_dicts()
    if "_raw" in dropped:
        rows = [{**row, "_raw": _without_nulls(row["_raw"])} if "_raw" in row else row for row in rows]
        dropped = dropped - {"_raw"}
    return sorted(
        json.dumps({k: v for k, v in row.items() if k not in dropped}, default=str, sort_keys=True)
        for row in rows
    )


def _without_nulls(raw: str) -> str:
    """The record without columns that it does not have: a later delivery may have added them to bronze meanwhile."""
    try:
        record = json.loads(raw)
    except ValueError:
        return raw
    return json.dumps({key: value for key, value in record.items() if value is not None})


def _conservation(lake: Any, source: str) -> dict[str, Any]:
    """Counts that every commit carries, summed, and recounted from the tables themselves."""
    totals: dict[str, Any] = {}
    for stage in ("bronze", "silver"):
        counts: Counter[str] = Counter()
        batches: list[int] = []
        for commit in lake.table(stage, source).snapshot().history():
            if commit.metadata.get("stage") != stage:
                continue
            batches += commit.metadata["batches"]
            for name in ("rows_in", "accepted", "deduplicated", "superseded", "late", "quarantined"):
                counts[name] += commit.metadata[name]
        accounted = sum(counts.values()) - counts["rows_in"]
        assert accounted == counts["rows_in"], f"{stage}.{source}: {counts}"
        assert len(batches) == len(set(batches)), (
            f"{stage}.{source}: batches committed twice: {sorted(batches)}"
        )
        refused = lake.table("quarantine", source).snapshot().scan().collect().filter(_stage=stage).height
        assert refused == counts["quarantined"], (
            f"{stage}.{source}: {refused} in quarantine, commits say {counts}"
        )
        # Which rows count as superseded or late depends on the batching; how many came in does not.
        totals[stage] = [counts["rows_in"], counts["quarantined"]]
    landed = lake.table("bronze", source).snapshot().scan().collect().height
    assert landed == totals["bronze"][0] - totals["bronze"][1]
    assert landed == totals["silver"][0]
    return totals


def _published(settings: Any, dropped: set[str]) -> dict[str, list[str]]:
    from lakehouse.gold.query import connect_read_only

    with connect_read_only(settings) as connection:
        names = connection.execute(
            "select table_schema, table_name from information_schema.tables "
            "where table_catalog = 'gold' and table_schema in ('main', 'silver')"
        ).fetchall()
        result = {}
        for schema, name in names:
            frame = connection.execute(f'select * from gold."{schema}"."{name}"').pl()
            rows = frame.drop([column for column in dropped if column in frame.columns]).to_dicts()
            result[f"{schema}.{name}"] = sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)
    return result


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """What is not the same, a line each; empty when nothing is lost, doubled or changed."""
    if isinstance(expected, dict) and isinstance(found, dict):
        lines = []
        for key in sorted({*expected, *found}):
            if key not in expected or key not in found:
                lines.append(
                    f"{path}/{key}: only in the {'disturbed' if key in found else 'undisturbed'} lake"
                )
            else:
                lines += differences(expected[key], found[key], f"{path}/{key}")
        return lines
    if isinstance(expected, list) and isinstance(found, list):
        want, have = Counter(map(str, expected)), Counter(map(str, found))
        lines = [f"{path}: lost {count} x {row}" for row, count in (want - have).items()]
        return lines + [f"{path}: too many {count} x {row}" for row, count in (have - want).items()]
    return [] if expected == found else [f"{path}: {expected} became {found}"]
