"""What a newcomer sees after the demo: what came in, what was refused, what was checked, where it is, what next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.cli.output import console, duration, print_table, say

if TYPE_CHECKING:
    from lakehouse.settings import Settings

QUERY = """select airline_name, sum(scheduled_flights) as flights,
       round(100.0 * sum(on_time_arrivals) / sum(scheduled_flights), 1) as on_time_pct
from mart_daily_airline_punctuality
group by all order by on_time_pct desc limit 5"""


def print_summary(settings: Settings) -> None:
    """Print the state of the lake in words that need no knowledge of it."""
    from lakehouse.cli.query import print_result
    from lakehouse.gold.query import query
    from lakehouse.ops import refused, report
    from lakehouse.pipelines import load_pipelines
    from lakehouse.storage import Lake

    lake = Lake.from_settings(settings)
    seen = report.overview(lake, settings, load_pipelines(settings))
    say(
        "\n",
        ("What came in", "bold"),
        ": bronze keeps every row as it came, silver the typed rows that keep their contract",
    )
    print_table(
        ("table", "bronze rows", "silver rows", "refused", "kept as"),
        [(p.name, p.bronze_rows, p.silver_rows, p.quarantined_rows, _MODES[p.mode]) for p in seen.pipelines],
        right=("bronze rows", "silver rows", "refused"),
    )
    say("\n", ("What came out", "bold"), ": gold, ready to ask")
    print_table(("table", "rows"), [(g.table, g.rows) for g in seen.gold], right=("rows",))
    rules = refused.summary(lake).to_dicts()
    if rules:
        say("\n", ("Refused rows, by the rule they broke", "bold"), " (kept whole in quarantine)")
        print_table(
            ("table", "rule", "rows"), [(r["table"], r["rule"], r["rows"]) for r in rules], right=("rows",)
        )
    if seen.point is not None:
        counts = report.check_counts(lake, seen.point)
        say(
            "\n",
            ("Checks", "bold"),
            f": {counts.passed} passed, {counts.warned} warned, {counts.failed} failed",
        )
    lag_s = max((g.lag_s for g in seen.gold), default=0.0)
    late = (
        "everything that has arrived is published"
        if lag_s == 0
        else f"the oldest waits for {duration(lag_s)}"
    )
    say(("Lag", "bold"), f": {late} (promise: within {settings.sla_fail_minutes:g} minutes)")
    say(("Where", "bold"), f": {settings.root} (Delta tables), {settings.catalog_path} (for any DuckDB)")
    say("\n", ("An analyst asks", "bold"), ": which airlines arrive on time?")
    console().print("\n".join(f"  {line}" for line in QUERY.splitlines()), style="dim")
    answer = query(settings, QUERY)
    print_result(answer.columns, answer.rows())
    say(
        "\n",
        ("Try next", "bold"),
        "\n"
        '  1. lakehouse query "select * from mart_route_performance limit 10"    or a shell: lakehouse sql\n'
        "  2. lakehouse up                                                       the graph, runs and checks in a browser\n"
        "  3. lakehouse new pipeline --from FILE                                 a table of your own",
    )


_MODES = {"append": "new rows", "upsert": "latest per key", "history": "every version per key"}
