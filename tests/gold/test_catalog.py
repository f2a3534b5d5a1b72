"""Any DuckDB opens the catalog read-only and offline, sees one point whole, and reads what it means."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from lakehouse.errors import QueryError
from lakehouse.gold import catalog
from lakehouse.gold.query import connect_read_only, query
from lakehouse.storage import duck
from tests.gold.conftest import Workshop, order
from tests.gold.groups import rewrite

pytestmark = pytest.mark.slow

#: Folder with other releases, one a subfolder: <folder>/<version>/duckdb. ``make setup`` fills it.
OTHER_RELEASES = Path(__file__).parents[2] / ".make" / "other-duckdb"
RELEASES = ("1.1.3", "1.4.4")
OFFLINE = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
YML = """
models:
  - name: daily
    description: "One row per day; it's the shop's \\"calendar\\"."
    columns: [{name: day, description: The day it was.}, {name: total, description: Sum of amounts.}]
"""


@pytest.fixture
def daily(shop: Workshop) -> Workshop:
    shop.mart(
        "daily", "select day, sum(amount)::bigint as total from {{ ref('stg_orders') }} group by day", YML
    )
    return shop


def test_gold_is_in_main_and_silver_in_silver_with_plain_utc_timestamps(daily: Workshop) -> None:
    daily.publish()
    assert query(daily.settings, "select day, total from daily order by day").rows() == [("a", 30), ("b", 30)]
    types = query(
        daily.settings,
        "select column_name, data_type from duckdb_columns() where table_name = 'orders' and column_name like '%utc'",
    )
    assert types.rows() == [("placed_at_utc", "TIMESTAMP")]
    assert (
        str(query(daily.settings, "select min(placed_at_utc) from silver.orders").item())
        == "2024-01-01 12:00:00"
    )


def test_instants_within_lists_and_structs_are_plain_too(shop: Workshop) -> None:
    instant = datetime(2024, 1, 1, 10, tzinfo=UTC)
    shop.land(
        [{"seen": [instant, None], "span": {"from": instant, "deep": [{"at": instant, "n": 1}]}}],
        table="customers",
    )
    shop.write("models/staging/stg_customers.sql", "select * from {{ source('silver', 'customers') }}")
    shop.mart("customers", "select count(*) as n from {{ ref('stg_customers') }}")
    shop.publish()
    naive = instant.replace(tzinfo=None)
    found = query(shop.settings, "select seen, span from silver.customers").rows()
    assert found == [([naive, None], {"from": naive, "deep": [{"at": naive, "n": 1}]})]


def test_every_description_is_a_comment(daily: Workshop) -> None:
    daily.publish()
    found = query(daily.settings, "select comment from duckdb_views() where view_name = 'daily'")
    assert found.item() == "One row per day; it's the shop's \"calendar\"."
    columns = query(
        daily.settings, "select column_name, comment from duckdb_columns() where table_name = 'daily'"
    )
    assert dict(columns.rows()) == {"day": "The day it was.", "total": "Sum of amounts."}


def test_the_catalog_says_which_point_it_shows(daily: Workshop) -> None:
    point = daily.publish()
    assert query(daily.settings, "select id, run_id from lakehouse_info.restore_point").rows() == [
        (point.id, "run-1")
    ]
    tables = query(
        daily.settings,
        'select "schema", "table", version, rows, watermark_utc::varchar from lakehouse_info.tables order by all',
    )
    assert tables.rows() == [
        ("main", "daily", 0, 2, "2024-01-01 01:00:00"),
        ("silver", "orders", 0, 3, "2024-01-01 01:00:00"),
    ]


def test_an_empty_table_has_its_columns(shop: Workshop) -> None:
    shop.mart("nothing", "select order_id, day from {{ ref('stg_orders') }} where false")
    shop.publish()
    found = query(shop.settings, "select * from nothing")
    assert (found.columns, found.height) == (["order_id", "day"], 0)


def test_silver_that_gained_a_column_shows_it_for_old_rows_too(daily: Workshop) -> None:
    table = daily.lake.table("silver", "orders")
    import polars as pl

    daily.vouch(table.snapshot().add_columns({"note": pl.String()}).version)
    daily.publish()
    assert query(daily.settings, "select count(*), count(note) from silver.orders").rows() == [(3, 0)]


def test_an_open_reader_keeps_its_point_and_a_new_one_sees_the_next(daily: Workshop) -> None:
    daily.publish()
    with connect_read_only(daily.settings) as reader:
        daily.land([order(4, "c", 1)])
        daily.publish()
        assert reader.execute("select count(*) from daily").fetchone() == (2,)
        with connect_read_only(daily.settings) as newer:
            assert newer.execute("select count(*) from daily").fetchone() == (3,)
        assert reader.execute("select count(*) from silver.orders").fetchone() == (3,)


@pytest.mark.parametrize(
    "sql", ["create table x (i int)", "drop view daily", "insert into lakehouse_info.restore_point select *"]
)
def test_nobody_writes_into_the_catalog(daily: Workshop, sql: str) -> None:
    daily.publish()
    before = daily.settings.catalog_path.read_bytes()
    with pytest.raises(QueryError):
        query(daily.settings, sql)
    assert daily.settings.catalog_path.read_bytes() == before


def test_an_attempt_to_write_is_explained(daily: Workshop) -> None:
    daily.publish()
    with pytest.raises(QueryError, match="the catalog is read-only"):
        query(daily.settings, "create table x (i int)")


def test_a_table_that_is_not_there_leads_to_the_list_of_tables(daily: Workshop) -> None:
    daily.publish()
    with pytest.raises(QueryError, match=r"lakehouse_info\.tables"):
        query(daily.settings, "select * from dialy")


def test_before_anything_is_published_a_query_says_what_to_run(shop: Workshop) -> None:
    with pytest.raises(QueryError, match="nothing is published yet") as caught:
        query(shop.settings, "select 1")
    assert "lakehouse demo" in str(caught.value)


def test_a_crash_while_the_catalog_is_written_leaves_the_one_before(
    daily: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = daily.publish()
    monkeypatch.setattr(
        "lakehouse.gold.catalog.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk"))
    )
    with pytest.raises(OSError, match="disk"):
        catalog.regenerate(daily.lake, daily.settings, point)
    assert catalog.is_current(daily.settings, point)
    assert [path.name for path in daily.settings.catalog_path.parent.glob("gold.duckdb*")] == ["gold.duckdb"]


def _run(release: Path | None, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with another release of DuckDB, or with the installed one, in a process without network proxies."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_PROXY": "*"}
    if release is not None:
        environment["PYTHONPATH"] = str(release)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("worn", ["whole", "a few files with deleted rows", "many"])
@pytest.mark.parametrize("version", RELEASES)
def test_another_release_opens_it_offline_without_extensions(
    daily: Workshop, version: str, worn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if worn != "whole":
        (path,) = daily.lake.table("silver", "orders").snapshot().files()["path"]
        last = daily.lake.table("silver", "orders").snapshot().scan().collect().row(-1, named=True)
        rewrite(daily, set(), [last], {path: [2]})
        monkeypatch.setattr(duck, "_FEW_WORN", 64 if worn.startswith("a few") else 0)
    release = OTHER_RELEASES / version
    if not (release / "duckdb").is_dir():
        pytest.skip(f"DuckDB {version} is not in {OTHER_RELEASES} (make setup puts it there)")
    daily.publish()
    done = _run(
        release,
        f"""
        import sys, duckdb
        sys.modules["pytz"] = None  # an analyst's machine may not have it
        assert duckdb.__version__ == "{version}", duckdb.__version__
        db = duckdb.connect(sys.argv[1], read_only=True, config={OFFLINE!r})
        print(db.execute("select day, total from daily order by day").fetchall())
        print(db.execute("select placed_at_utc from silver.orders limit 1").fetchall())
        print(db.execute("select comment from duckdb_columns() where column_name = 'total'").fetchall())
        other = duckdb.connect(config={OFFLINE!r})
        other.execute(f"attach '{{sys.argv[1]}}' as g (read_only)")
        print(other.execute("select count(*) from g.daily").fetchall())
        """,
        str(daily.settings.catalog_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[('a', 30), ('b', 30)]",
        "[(datetime.datetime(2024, 1, 1, 12, 0),)]",
        "[('Sum of amounts.',)]",
        "[(2,)]",
    ]


def test_a_reader_in_another_process_always_gets_one_whole_point_while_publishes_go_on(
    shop: Workshop,
) -> None:
    # total and check_total come from two tables: they agree within a point and in no mixture of two.
    shop.mart("total", "select sum(amount)::bigint as n from {{ ref('stg_orders') }}")
    shop.mart("check_total", "select sum(amount)::bigint as n from {{ ref('stg_orders') }}")
    shop.publish()
    reader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import sys, time, duckdb
                kept = duckdb.connect(sys.argv[1], read_only=True)
                first = kept.execute("select n from total").fetchall()
                seen, reads, end = set(), 0, time.time() + 60
                while time.time() < end and not (sys.argv[2:] and __import__("os").path.exists(sys.argv[2])):
                    with duckdb.connect() as fresh:
                        fresh.execute(f"attach '{sys.argv[1]}' as g (read_only)")
                        a, b, s = fresh.execute(
                            "select (select n from g.total), (select n from g.check_total), (select sum(amount) from g.silver.orders)"
                        ).fetchone()
                    assert a == b == s, (a, b, s)
                    assert kept.execute("select n from total").fetchall() == first
                    seen.add(a)
                    reads += 1
                print(len(seen), reads)
                """
            ),
            str(shop.settings.catalog_path),
            str(shop.project / "stop"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    for number in range(20):
        shop.land([order(100 + number, "n", 1)])
        shop.publish()
    (shop.project / "stop").touch()
    output, errors = reader.communicate(timeout=90)
    assert reader.returncode == 0, errors
    points, reads = map(int, output.split())
    assert points >= 5
    assert reads >= points


def test_a_hundred_comments_and_views_open_fast(shop: Workshop) -> None:
    for number in range(30):
        shop.mart(f"mart_{number:02d}", f"select {number} as n, day from {{{{ ref('stg_orders') }}}}")
    point = shop.publish()
    started = time.perf_counter()
    catalog.regenerate(shop.lake, shop.settings, point)
    assert time.perf_counter() - started < 5
    with duckdb.connect(str(shop.settings.catalog_path), read_only=True) as database:
        assert database.execute(
            "select count(*) from duckdb_views() where not internal and schema_name = 'main'"
        ).fetchone() == (30,)


def test_rows_deleted_at_the_source_are_shown_nowhere(tmp_path: Path) -> None:
    from lakehouse.gold.relations import source_of
    from tests.lakes import OrdersLake

    orders = OrdersLake(
        tmp_path / "lake", "upsert", sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    orders.arrive("1,5,alive,1", "2,5,gone,1")
    orders.arrive("2,5,D,2")
    snapshot = orders.lake.table("silver", "orders").snapshot()
    assert snapshot.num_rows() == 2
    assert duckdb.sql(f"SELECT id FROM {source_of(snapshot)}").fetchall() == [(1,)]
