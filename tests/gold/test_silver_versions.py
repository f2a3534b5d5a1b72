"""Which version of each silver table a gold build reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse import checks
from lakehouse.checks import CheckOutcome
from lakehouse.errors import CheckFailed, StorageError
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.gold.results import ModelResult, TestResult
from lakehouse.gold.versions import pin_silver
from lakehouse.storage import upkeep
from lakehouse.storage.log import commit_file
from tests.gold.conftest import Workshop, order
from tests.gold.models import DAILY

pytestmark = pytest.mark.slow


def test_silver_is_pinned_at_the_version_asked_for(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.land([order(4, "c", 1)])
    result = shop.build_well(silver_versions={"orders": 0})
    assert result.silver_versions == {"orders": 0}
    assert [row["day"] for row in shop.rows("daily")] == ["a", "b"]


def test_rows_that_land_while_a_build_runs_are_left_for_the_next(shop: Workshop) -> None:
    shop.mart("a_first", "select count(*) as n from {{ ref('stg_orders') }}")
    shop.mart(
        "b_second",
        "select (select n from {{ ref('a_first') }}) as n_first, count(*) as n from {{ ref('stg_orders') }}",
    )
    landed: list[int] = []

    def land_once(result: ModelResult | TestResult) -> None:
        if result.name == "a_first" and not landed:
            landed.append(shop.land([order(9, "z", 1)]))

    result = shop.build_well(on_event=land_once)
    assert landed == [1]
    assert result.silver_versions == {"orders": 0}
    assert shop.rows("b_second") == [{"n_first": 3, "n": 3}]


def test_a_published_version_that_is_lost_is_told_with_the_way_out(shop: Workshop) -> None:
    table = shop.lake.table("silver", "orders")
    point = RestorePoint(id="p", created_at_utc="", tables={"silver/orders": 0})
    shop.land_unchecked([order(4, "c", 1)])
    assert pin_silver(shop.lake, ["orders"], point, None)[0]["orders"].snapshot.version == 0
    upkeep.write_checkpoint(table.snapshot())
    Path(table.uri, commit_file(0)).unlink()
    with pytest.raises(StorageError, match=r"silver.orders has lost its published version 0") as error:
        pin_silver(shop.lake, ["orders"], point, None)
    assert "lakehouse run --select orders" in str(error.value.hint)


def test_a_silver_version_that_failed_a_blocking_check_is_not_read(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.publish()
    bad = shop.land([order(4, "c", 1)])
    checks.record(shop.lake, [CheckOutcome("silver", "orders", bad, "conservation", passed=False)])
    result = shop.build_well()
    assert result.silver_versions == {"orders": 0}
    assert "silver.orders stays at the published version 0: version 1 failed conservation" in result.notes[0]
    assert [row["day"] for row in shop.rows("daily")] == ["a", "b"]


def test_without_any_good_silver_version_the_build_says_so(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    checks.record(shop.lake, [CheckOutcome("silver", "orders", 0, "keys_unique", passed=False)])
    with pytest.raises(
        CheckFailed, match=r"silver\.orders version 0 failed blocking checks \(keys_unique"
    ) as caught:
        shop.build()
    assert caught.value.hint == "lakehouse quarantine show orders"


def test_a_model_whose_silver_table_is_not_there_yet_waits_and_the_others_are_built(shop: Workshop) -> None:
    shop.write("models/staging/stg_customers.sql", "select * from {{ source('silver', 'customers') }}")
    shop.mart("customers", "select * from {{ ref('stg_customers') }}")
    shop.mart("joined", "select 1 as one from {{ ref('customers') }}, {{ ref('daily') }}")
    shop.mart("daily", DAILY)
    result = shop.build_well()
    assert result.model("daily").status == "built"
    for name in ("customers", "joined"):
        assert result.model(name).status == "skipped"
        assert "silver.customers has no version yet" in result.model(name).message
    assert list(shop.publish(result).versions("gold")) == ["daily"]
