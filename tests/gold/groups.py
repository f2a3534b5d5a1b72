"""Marts by day, and what upserts, deletes and compaction do to the orders that they read."""

from __future__ import annotations

import random
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.storage import upkeep
from tests.gold.conftest import Workshop

DAILY = """
{{ config(strategy='replace_groups', group_key=['day'], touched_by={'silver/orders': ['day']}) }}
select day, count(*) as orders, sum(amount)::bigint as amount, max(order_id) as newest
from {{ ref('stg_orders') }}
{% if is_incremental() %} where {{ is_touched() }} {% endif %}
group by day
"""

WHOLE = "select day, count(*) as orders, sum(amount)::bigint as amount, max(order_id) as newest from {{ ref('stg_orders') }} group by day"


def rewrite(
    shop: Workshop, drop: set[str], rows: list[dict[str, Any]], marked: dict[str, list[int]] | None = None
) -> None:
    """One silver commit that takes files and rows out and adds rows, as upserts, deletes and compaction do."""
    table = shop.lake.table("silver", "orders")
    snapshot = table.snapshot()
    batch = shop.batches["orders"] = shop.batches["orders"] + 1
    frame = pl.DataFrame(rows, schema=snapshot.schema(), orient="row") if rows else None
    staged = table.stage(frame.lazy()) if frame is not None else []
    version = snapshot.commit(
        add=staged, remove=drop, delete=marked, metadata={"stage": "silver", "contract_hash": "c1"}, txns={names.app_id("silver", "orders"): batch}
    )  # fmt: skip
    shop.vouch(version)


def compact(shop: Workshop, chance: random.Random | None = None) -> None:
    """What maintenance does: some files (all of them without ``chance``) become one."""
    snapshot = shop.lake.table("silver", "orders").snapshot()
    files = snapshot.files()["path"].to_list()
    upkeep.combine(snapshot, chance.sample(files, chance.randint(1, len(files))) if chance else files)
