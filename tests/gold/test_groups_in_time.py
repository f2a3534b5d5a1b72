"""Groups cut from instants: bounds, time zones and clocks."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.gold.conftest import Workshop, order
from tests.gold.groups import DAILY

pytestmark = pytest.mark.slow

BY_MINUTE = """
{{ config(strategy='replace_groups', group_key=['minute'], touched_by={'silver/orders': [MINUTE]}) }}
select {{ MINUTE }} as minute, count(*) as orders from {{ source('silver', 'orders') }}
{% if is_incremental() %}
where {{ may_be_touched('placed_at_utc') }} and {{ is_touched([MINUTE]) }}
{% endif %}
group by all
"""


@pytest.mark.parametrize(
    "minute", ["utc_trunc('minute', 'placed_at_utc')", "\"date_trunc('minute', placed_at_utc)\""]
)
def test_groups_cut_from_an_instant_are_read_from_the_first_touched_one_on(
    shop: Workshop, minute: str
) -> None:
    shop.mart("by_minute", BY_MINUTE.replace("MINUTE", minute))
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    shop.land(
        [
            order(4, "a", 1, noon + timedelta(minutes=5, seconds=59)),
            order(5, "a", 1, noon + timedelta(hours=9)),
        ]
    )
    shop.build_well()
    shop.land([order(6, "a", 1, noon + timedelta(minutes=5)), order(7, "a", 1, noon + timedelta(hours=8))])
    result = shop.build_well().model("by_minute")
    assert (result.strategy, result.rows_written) == ("replace_groups", 2)
    # Three hours of room: a clock may go through them twice.
    assert "then '2024-01-01 09:05:00+00'::TIMESTAMP WITH TIME ZONE" in result.sql
    shop.land([{**order(8, "a", 1), "placed_at_utc": None}, order(9, "a", 1, noon + timedelta(hours=9))])
    result = shop.build_well().model("by_minute")
    assert (result.strategy, result.rows_written) == ("replace_groups", 2)
    counts = {row["minute"]: row["orders"] for row in shop.rows("by_minute")}
    assert counts[None] == 1
    assert [count for minute, count in sorted(counts.items(), key=str) if minute] == [3, 2, 1, 2]


@pytest.mark.parametrize("part", ["minute", "day", "week", "quarter"])
def test_groups_that_utc_trunc_cuts_are_bounded_on_both_sides(shop: Workshop, part: str) -> None:
    cut = f"utc_trunc('{part}', 'placed_at_utc')"
    bounded = BY_MINUTE.replace(
        "may_be_touched('placed_at_utc')", f"may_be_touched('placed_at_utc', '{part}')"
    )
    shop.mart("by_part", bounded.replace("MINUTE", cut))
    shop.mart(
        "whole",
        f"select {{{{ {cut} }}}} as minute, count(*) as orders from {{{{ ref('stg_orders') }}}} group by all",
    )
    start = datetime(2024, 10, 1, tzinfo=UTC)
    # A Tuesday: the first instant of a part and the one before it, and one far off on each side.
    last = start - timedelta(microseconds=1)
    instants = [start, last, start + timedelta(days=800), start - timedelta(days=800)]
    shop.land([order(10 + number, "a", 1, at) for number, at in enumerate(instants)])
    shop.build_well()
    shop.land([order(20, "a", 1, start), order(21, "a", 1, last)])
    result = shop.build_well().model("by_part")
    assert (result.strategy, result.rows_written) == ("replace_groups", 1 if part == "week" else 2)
    assert "placed_at_utc < '" in result.sql
    assert shop.rows("by_part") == shop.rows("whole")
    shop.land([{**order(22, "a", 1), "placed_at_utc": None}, order(23, "a", 1, start)])
    assert shop.build_well().model("by_part").strategy == "replace_groups"
    assert shop.rows("by_part") == shop.rows("whole")


def test_exact_bounds_of_groups_that_are_cut_otherwise_are_refused(shop: Workshop) -> None:
    sql = BY_MINUTE.replace("may_be_touched('placed_at_utc')", "may_be_touched('placed_at_utc', 'minute')")
    shop.mart("by_hour", sql.replace("MINUTE", "utc_trunc('hour', 'placed_at_utc')"))
    shop.build_well()
    shop.land([order(4, "a", 1)])
    assert "whose first expression is utc_trunc('minute', 'placed_at_utc')" in shop.build().failures[0]


#: A build of its own process: what DuckDB takes for the machine's zone it asks once.
BUILD_ELSEWHERE = """
import sys
from pathlib import Path
from lakehouse.gold.build import build
from lakehouse.settings import load_settings
from lakehouse.storage import Lake, connect_duckdb

root, pipelines, project = sys.argv[1:]
settings = load_settings(root=root, pipelines_dir=pipelines, threads=2)
result = build(Lake.from_settings(settings), settings, project_dir=Path(project))
result.raise_for_failures()
with connect_duckdb(settings) as connection:
    zone = connection.cursor().execute("SELECT current_setting('TimeZone')").fetchone()
print(zone[0], result.model("by_day").strategy)
"""


def build_elsewhere(shop: Workshop, zone: str) -> list[str]:
    """A build on a machine of that zone: the zone of a cursor there, and how the model was written."""
    settings = shop.settings
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ELSEWHERE, settings.root, settings.pipelines_dir, str(shop.project)],
        env={**os.environ, "TZ": zone}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("day", ["placed_at_utc::date", "date_trunc('day', placed_at_utc)"])
def test_days_are_those_of_utc_wherever_the_machine_is(shop: Workshop, day: str) -> None:
    shop.mart("by_day", BY_MINUTE.replace("MINUTE", f'"{day}"').replace("minute", "day"))
    night = datetime(2024, 1, 3, 2, tzinfo=UTC)
    shop.land([order(4, "a", 1, night), order(5, "a", 1, night + timedelta(hours=20))])
    assert build_elsewhere(shop, "America/New_York") == ["UTC", "overwrite"]
    shop.land([order(6, "a", 1, night + timedelta(hours=1))])
    assert build_elsewhere(shop, "America/New_York") == ["UTC", "replace_groups"]
    assert [(row["day"].day, row["orders"]) for row in shop.rows("by_day")] == [(1, 3), (3, 3)]


BERLIN = "placed_at_utc at time zone 'Europe/Berlin'"

REPEATED = f"date_trunc('hour', {BERLIN}) at time zone 'Europe/Berlin'"

PLAIN = "placed_at_utc at time zone 'UTC'"


@pytest.mark.parametrize(
    ("group", "column", "first"),
    [
        (f"({BERLIN})::date", "placed_at_utc", "2024-06-01 22:30"),
        (f"date_trunc('hour', {BERLIN})", "placed_at_utc", "2024-06-01 22:30"),
        # The hour from two to three comes twice; turned back into an instant it is the later one's.
        (REPEATED, "placed_at_utc", "2024-10-27 00:30"),
        # A local time read as if it were an instant.
        (f"date_trunc('hour', ({PLAIN}) at time zone 'America/New_York')", PLAIN, "2024-06-01 22:30"),
    ],
)
def test_groups_cut_by_a_local_clock_lose_no_rows(
    shop: Workshop, group: str, column: str, first: str
) -> None:
    """The first row of a touched group reads earlier in UTC than the group itself."""
    sql = BY_MINUTE.replace("MINUTE", f'"{group}"').replace("'placed_at_utc'", f'"{column}"')
    shop.mart("by_group", sql)
    shop.mart(
        "whole", f"select {group} as minute, count(*) as orders from {{{{ ref('stg_orders') }}}} group by all"
    )
    at = datetime.fromisoformat(f"{first}+00:00")
    shop.land([order(4, "a", 1, at)])
    shop.build_well()
    shop.land([order(5, "a", 1, at + timedelta(minutes=1))])
    result = shop.build_well().model("by_group")
    assert (result.strategy, result.rows_written) == ("replace_groups", 1)
    assert shop.rows("by_group") == shop.rows("whole")


def test_a_bound_of_groups_that_are_no_instants_is_refused(shop: Workshop) -> None:
    shop.mart(
        "daily",
        DAILY.replace("where {{ is_touched() }}", "where {{ may_be_touched('day') }} and {{ is_touched() }}"),
    )
    shop.build_well()
    shop.land([order(4, "b", 40)])
    assert "not a date or an instant" in shop.build().failures[0]
