"""Publishing names one consistent set of versions, or leaves the last good one in place."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import deltalake
import pytest

from lakehouse import checks
from lakehouse.checks import CheckOutcome
from lakehouse.errors import CommitConflict, PublishBlocked
from lakehouse.gold import catalog, restore_points
from lakehouse.gold.publish import current_point, heal, list_ids
from lakehouse.gold.query import query
from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from tests.gold.conftest import Workshop, order
from tests.gold.models import DAILY

pytestmark = pytest.mark.slow

UNIQUE_DAY = "models: [{name: orders, columns: [{name: day, data_tests: [unique]}]}]"


@pytest.fixture
def daily(shop: Workshop) -> Workshop:
    shop.mart("daily", DAILY)
    return shop


def test_a_point_names_versions_transactions_positions_and_hashes(daily: Workshop) -> None:
    daily.land([order(4, "c", 1)])
    point = daily.publish()
    assert point.tables == {"gold/daily": 0, "silver/orders": 1}
    assert point.txns == {"silver/orders": {"silver/orders": 2}}
    assert point.sources == {"orders": {"batch_id": 2, "watermark_utc": "2024-01-01T02:00:00+00:00"}}
    assert point.contract_hashes == {"orders": "c1"}
    assert point.watermarks == {"daily": "2024-01-01T02:00:00+00:00"}
    assert point.run_id == "run-1"
    assert current_point(daily.lake) == point


def test_the_next_point_names_the_one_before(daily: Workshop) -> None:
    first = daily.publish()
    daily.land([order(4, "c", 1)])
    second = daily.publish()
    assert second.parent_id == first.id
    assert list_ids(daily.lake) == [second.id, first.id], "ids sort by time"
    assert restore_points.load(daily.lake, first.id) == first


def test_nothing_new_makes_no_point(daily: Workshop) -> None:
    assert daily.publish() == daily.publish()
    assert len(list_ids(daily.lake)) == 1


def test_a_failing_test_blocks_and_readers_keep_the_last_good_point(shop: Workshop) -> None:
    shop.mart("orders", "select order_id as day from {{ ref('stg_orders') }}", UNIQUE_DAY)
    good = shop.publish()
    shop.land([order(1, "a", 1)])
    result = shop.build()
    with pytest.raises(PublishBlocked, match="unique_orders_day"):
        shop.publish(result)
    assert current_point(shop.lake) == good
    assert query(shop.settings, "select count(*) as n from orders").item() == 3


@pytest.mark.parametrize("tests", ["[{accepted_values: {arguments: {values: [1, 2, 3]}}}]", "[]"])
def test_a_test_that_was_renamed_or_removed_does_not_block_the_version_that_it_refused(
    shop: Workshop, tests: str
) -> None:
    """dbt makes a test's name from its arguments: correcting them gives another test."""
    yml = "models: [{name: orders, columns: [{name: day, data_tests: %s}]}]"
    shop.mart("orders", "select order_id as day from {{ ref('stg_orders') }}")
    shop.publish()
    shop.mart(
        "orders",
        "select order_id as day from {{ ref('stg_orders') }}",
        yml % "[{accepted_values: {arguments: {values: [1, 2]}}}]",
    )
    with pytest.raises(PublishBlocked, match="accepted_values_orders_day"):
        shop.publish(shop.build())
    with pytest.raises(PublishBlocked, match="accepted_values_orders_day"):
        shop.publish(shop.build())
    shop.write("models/marts/orders.yml", yml % tests)
    assert shop.publish().tables["gold/orders"] == 0


def test_a_check_of_silver_that_is_declared_no_more_does_not_block(daily: Workshop) -> None:
    daily.publish()
    version = daily.land_unchecked([order(4, "c", 1)])
    refused = CheckOutcome("silver", "orders", version, "day_in_days", passed=False)
    checks.record(daily.lake, [checks.declared("silver", "orders", version, ["day_in_days"]), refused])
    assert daily.build_well().silver_versions == {"orders": 0}
    daily.vouch(version)
    assert daily.publish().tables["silver/orders"] == version


def test_a_blocking_check_recorded_by_anyone_blocks(daily: Workshop) -> None:
    good = daily.publish()
    version = daily.land([order(4, "c", 1)])
    result = daily.build_well()
    outcome = CheckOutcome(
        "silver",
        "orders",
        version,
        "volume",
        passed=False,
        message="1 row, expected 1000",
        recovery="lakehouse quarantine show orders",
    )
    checks.record(daily.lake, [outcome])
    with pytest.raises(
        PublishBlocked, match="silver/orders version 1: volume 1 row, expected 1000"
    ) as caught:
        daily.publish(result)
    assert caught.value.hint == "lakehouse quarantine show orders"
    assert current_point(daily.lake) == good


@pytest.mark.parametrize("options", [{"blocking": False}, {"passed": True}])
def test_a_check_that_passed_or_does_not_block_lets_through(
    daily: Workshop, options: dict[str, bool]
) -> None:
    checks.record(daily.lake, [CheckOutcome("silver", "orders", 0, "volume", **{"passed": False, **options})])
    assert daily.publish().tables["silver/orders"] == 0


def test_the_newest_outcome_of_a_check_is_the_one_that_counts(daily: Workshop) -> None:
    checks.record(daily.lake, [CheckOutcome("silver", "orders", 0, "volume", passed=False)])
    checks.record(daily.lake, [CheckOutcome("silver", "orders", 0, "volume", passed=True)])
    assert daily.publish().tables["silver/orders"] == 0


def test_a_partial_build_is_staged_and_not_published(daily: Workshop) -> None:
    daily.mart("other", "select count(*) as n from {{ ref('stg_orders') }}")
    good = daily.publish()
    daily.land([order(4, "c", 1)])
    with pytest.raises(PublishBlocked, match="left out other"):
        daily.publish(daily.build_well(select=["daily"]))
    assert current_point(daily.lake) == good
    assert daily.publish().tables == {"gold/daily": 1, "gold/other": 1, "silver/orders": 1}


def test_a_version_that_no_finished_build_vouches_for_is_refused(daily: Workshop) -> None:
    result = daily.build_well()
    daily.lake.objects.remove_tree("ops/checks")
    with pytest.raises(PublishBlocked, match=r"no finished build vouches for gold\.daily"):
        daily.publish(result)


def test_a_slow_publisher_does_not_take_readers_back(daily: Workshop) -> None:
    slow = daily.build_well()
    daily.land([order(4, "c", 1)])
    newer = daily.publish()
    with pytest.raises(CommitConflict, match="already names newer versions of gold/daily, silver/orders"):
        daily.publish(slow)
    assert current_point(daily.lake) == newer


def test_publishing_at_once_ends_with_one_point_and_its_catalog(daily: Workshop) -> None:
    result = daily.build_well()
    threads = [threading.Thread(target=lambda: daily.publish(result)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    point = current_point(daily.lake)
    assert point is not None
    assert list_ids(daily.lake) == [point.id]
    assert catalog.is_current(daily.settings, point)


def test_a_crash_before_the_catalog_heals_with_the_next_publish(
    daily: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    daily.publish()
    daily.land([order(4, "c", 1)])
    result = daily.build_well()
    with monkeypatch.context() as patch:
        patch.setattr(catalog, "regenerate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            daily.publish(result)
    point = current_point(daily.lake)
    assert point is not None
    assert not catalog.is_current(daily.settings, point), "readers still see the point before, whole"
    assert daily.publish(daily.build_well()) == point
    assert catalog.is_current(daily.settings, point)


def test_a_removed_or_broken_catalog_is_made_again(daily: Workshop) -> None:
    point = daily.publish()
    for damage in (
        daily.settings.catalog_path.unlink,
        lambda: daily.settings.catalog_path.write_bytes(b"not a database"),
    ):
        damage()
        assert not catalog.is_current(daily.settings, point)
        assert heal(daily.lake, daily.settings) == point
        assert catalog.is_current(daily.settings, point)


def test_a_lake_that_was_moved_gets_a_catalog_of_its_new_place(daily: Workshop, tmp_path: Path) -> None:
    point = daily.publish()
    moved = tmp_path / "moved"
    shutil.move(daily.settings.root, moved)
    settings = load_settings(root=str(moved), pipelines_dir=daily.settings.pipelines_dir)
    assert not catalog.is_current(settings, point)
    assert heal(Lake.from_settings(settings), settings) == point
    assert query(settings, "select sum(total) as n from daily").item() == 60


def test_a_crash_between_point_and_pointer_leaves_the_point_before(
    daily: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = daily.publish()
    daily.land([order(4, "c", 1)])
    result = daily.build_well()
    write = daily.lake.objects.write

    def fail_on_pointer(path: str, data: bytes, **options: Any) -> None:
        if path == restore_points.CURRENT:
            raise KeyboardInterrupt
        write(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(daily.lake.objects, "write", fail_on_pointer)
        with pytest.raises(KeyboardInterrupt):
            daily.publish(result)
    assert current_point(daily.lake) == before
    assert daily.publish(result).tables["gold/daily"] == 1


@pytest.mark.parametrize("torn", ["point", "pointer"])
def test_the_next_publish_puts_right_what_a_loss_of_power_left(daily: Workshop, torn: str) -> None:
    first = daily.publish()
    daily.land([order(4, "c", 1)])
    second = daily.publish()
    path = restore_points.CURRENT if torn == "pointer" else f"restore_points/{second.id}.json"
    daily.lake.objects.write(path, b"")
    assert heal(daily.lake, daily.settings) == (first if torn == "point" else second)
    point = daily.publish()
    assert point.tables == second.tables
    assert restore_points.current_id(daily.lake) == point.id
    assert current_point(daily.lake) == point


def test_a_model_that_was_removed_leaves_the_catalog_and_not_the_older_points(daily: Workshop) -> None:
    daily.mart("gone", "select 1 as one")
    before = daily.publish()
    (daily.project / "models/marts/gone.sql").unlink()
    after = daily.publish()
    assert "gold/gone" in before.tables
    assert "gold/gone" not in after.tables
    assert (
        query(daily.settings, "select count(*) from lakehouse_info.tables where \"table\" = 'gone'").item()
        == 0
    )


def test_an_unfinished_result_is_refused(daily: Workshop) -> None:
    result = daily.build_well()
    failed = dataclasses.replace(result.models[0], status="failed", message="broken")
    with pytest.raises(PublishBlocked, match="broken"):
        daily.publish(dataclasses.replace(result, models=(failed,)))
    assert current_point(daily.lake) is None


def test_a_silver_table_that_no_model_reads_is_published_at_its_newest_good_version(daily: Workshop) -> None:
    daily.land([{"customer": "x"}], table="customers")
    assert daily.publish().tables["silver/customers"] == 0
    refused = daily.land([{"customer": "y"}], table="customers")
    checks.record(daily.lake, [CheckOutcome("silver", "customers", refused, "volume", passed=False)])
    daily.land([order(4, "c", 1)])
    assert daily.publish().tables == {"gold/daily": 1, "silver/customers": 0, "silver/orders": 1}
    assert query(daily.settings, "select customer from silver.customers").rows() == [("x",)]


def test_a_silver_table_without_any_good_version_stays_out(daily: Workshop) -> None:
    version = daily.land([{"customer": "x"}], table="customers")
    checks.record(daily.lake, [CheckOutcome("silver", "customers", version, "volume", passed=False)])
    assert daily.publish().tables == {"gold/daily": 0, "silver/orders": 0}


def test_silver_that_nobody_has_checked_yet_stays_at_the_published_version(daily: Workshop) -> None:
    """A run was killed before its checks, or a backfill or a replay has just committed, while others publish."""
    daily.land([{"customer": "x"}], table="customers")
    before = daily.publish()
    daily.land_unchecked([order(4, "c", 1)])
    daily.land_unchecked([{"customer": "y"}], table="customers")
    result = daily.build_well()
    assert result.notes == (
        "silver.orders stays at the published version 0: version 1 has not been checked yet",
    )
    assert daily.publish(result) == before
    daily.vouch(1)
    assert daily.publish().tables == {"gold/daily": 1, "silver/customers": 0, "silver/orders": 1}


def test_silver_of_which_nothing_was_ever_checked_is_not_there_yet(daily: Workshop) -> None:
    daily.land_unchecked([{"customer": "x"}], table="customers")
    daily.mart("customers", "select * from {{ source('silver', 'customers') }}")
    result = daily.build_well()
    assert result.model("customers").status == "skipped"
    assert "silver.customers is left out: version 0 has not been checked yet" in result.notes[0]
    assert daily.publish(result).tables == {"gold/daily": 0, "silver/orders": 0}


def test_a_version_counts_as_checked_when_every_declared_check_has_an_outcome(daily: Workshop) -> None:
    """Checks against other tables are a step of their own, after those of the stage."""
    daily.publish()
    version = daily.land_unchecked([order(4, "c", 1)])
    checks.record(
        daily.lake,
        [
            checks.declared("silver", "orders", version, ["key_unique", "day_in_days"]),
            CheckOutcome("silver", "orders", version, "key_unique", passed=True),
        ],
    )
    assert daily.build_well().silver_versions == {"orders": 0}
    checks.record(daily.lake, [CheckOutcome("silver", "orders", version, "day_in_days", passed=True)])
    assert daily.publish().tables["silver/orders"] == version


def test_a_build_of_named_versions_is_not_published_before_they_are_checked(daily: Workshop) -> None:
    before = daily.publish()
    version = daily.land_unchecked([order(4, "c", 1)])
    result = daily.build_well(silver_versions={"orders": version})
    with pytest.raises(PublishBlocked, match="silver/orders version 1 has not passed") as caught:
        daily.publish(result)
    assert caught.value.hint == "lakehouse run --select orders"
    assert current_point(daily.lake) == before


def test_what_was_published_before_versions_were_recorded_as_checked_stays_and_may_be_compacted(
    daily: Workshop,
) -> None:
    daily.land([order(4, "c", 1)])
    daily.publish()
    daily.lake.objects.remove_tree("ops/checks")
    deltalake.DeltaTable(daily.lake.table("silver", "orders").uri).optimize.compact()
    assert daily.build_well().silver_versions == {"orders": 2}
    assert daily.publish().tables["silver/orders"] == 2
