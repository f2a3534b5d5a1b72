"""Gold on an object store: the same build, commit, publish and query, by settings alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lakehouse.gold.publish import current_point
from lakehouse.gold.query import query
from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from tests.gold.conftest import Workshop, order
from tests.servers import Store

pytestmark = pytest.mark.slow


def test_gold_is_built_published_and_queried_on_an_object_store(
    shop: Workshop, store: Store, tmp_path: Path
) -> None:
    settings = load_settings(
        root=store.root("gold-test"),
        storage_options=store.options,
        catalog_dir=str(tmp_path / "catalog"),
        state_dir=str(tmp_path / "state"),
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    remote = dataclasses.replace(shop, settings=settings, lake=Lake.from_settings(settings), batches={})
    remote.mart(
        "orders",
        "{{ config(strategy='merge', unique_key='order_id') }} select order_id, amount, _batch_id from {{ ref('stg_orders') }}"
        "{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}",
    )
    remote.land([order(1, "a", 10), order(2, "a", 20)])
    first = remote.publish()
    remote.land([order(2, "a", 21), order(3, "b", 30)])
    result = remote.build_well()
    second = remote.publish(result)
    assert result.model("orders").strategy == "merge"
    assert second.parent_id == first.id
    assert current_point(remote.lake) == second
    rows = query(settings, "select order_id, amount from orders order by order_id").rows()
    assert rows == [(1, 10), (2, 21), (3, 30)]
    assert query(settings, "select count(*) from silver.orders").item() == 4
    assert remote.build_well().skipped
