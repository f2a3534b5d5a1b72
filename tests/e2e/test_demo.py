"""The demo, run once for real through the command line, and what a person does with it afterwards."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import deltalake
import duckdb
import pytest

from lakehouse.cli.exits import OK
from tests.conftest import DemoLake, loaded_by, run_cli

pytestmark = pytest.mark.slow


def _state(root: Path) -> dict[str, int]:
    """Every file of the lake's data with its time of change; caches and logs of the tools are no data."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] != "state"
    }


def test_the_five_tables_land_with_every_row(demo_lake: DemoLake) -> None:
    rows = {"flights": 336_776, "weather": 26_115, "planes": 3_322, "airports": 1_458, "airlines": 16}
    counted = {
        table: sum(json.loads(add)["numRecords"] for add in _stats(demo_lake.root / "bronze" / table))
        for table in rows
    }
    assert counted == rows


def _stats(table: Path) -> list[str]:
    actions = deltalake.DeltaTable(str(table)).get_add_actions(flatten=True)
    return [json.dumps({"numRecords": count}) for count in actions.column("num_records").to_pylist()]


def test_rows_landed_are_silver_plus_deduplicated_plus_quarantined(demo_lake: DemoLake) -> None:
    for table in ("flights", "weather", "planes", "airports", "airlines"):
        metadata = [
            json.loads(commit["lakehouse"])
            for commit in deltalake.DeltaTable(str(demo_lake.root / "silver" / table)).history()
            if "lakehouse" in commit
        ]
        done = [m for m in metadata if m.get("stage") == "silver"]
        assert sum(m["rows_in"] for m in done) == sum(
            m["accepted"] + m["deduplicated"] + m["superseded"] + m["late"] + m["quarantined"] for m in done
        )
        bronze = sum(
            deltalake.DeltaTable(str(demo_lake.root / "bronze" / table))
            .get_add_actions(flatten=True)["num_records"]
            .to_pylist()
        )
        assert sum(m["rows_in"] for m in done) == bronze


def test_the_summary_says_what_a_newcomer_wants_to_know(demo_lake: DemoLake) -> None:
    for words in (
        "336,776", "Refused rows, by the rule", "Checks", "passed", "everything that has arrived is published",
        str(demo_lake.catalog), "An analyst asks", "Try next", "lakehouse new pipeline",
    ):  # fmt: skip
        assert words in demo_lake.output


def test_a_second_demo_and_a_second_run_say_that_nothing_is_new_and_write_nothing(
    demo_lake: DemoLake, tmp_path: Path
) -> None:
    before = _state(demo_lake.root)
    for verb in ("demo", "run"):
        done = run_cli(verb, root=demo_lake.root)
        assert done.returncode == OK
        assert "Nothing new" in done.stdout
    assert _state(demo_lake.root) == before


def test_a_second_run_does_not_even_import_dagster_or_dbt(demo_lake: DemoLake) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from lakehouse.settings import load_settings; from lakehouse.cli.run import execute;"
        "outcome = execute(load_settings());"
        "print(outcome.nothing_new, [m for m in ('dagster', 'dbt.cli') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LAKEHOUSE_ROOT": str(demo_lake.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True []"


def test_status_is_quick_and_complete(demo_lake: DemoLake) -> None:
    done = run_cli("status", "--json", root=demo_lake.root)
    seen = json.loads(done.stdout)
    assert {p["name"] for p in seen["pipelines"]} == {"flights", "weather", "planes", "airports", "airlines"}
    assert all(table["status"] == "fresh" and table["lag_s"] == 0 for table in seen["gold"])
    assert seen["point"]["id"]
    # What it takes is what it imports: by a clock, a busy machine could not be told from that.
    assert loaded_by(["status"], demo_lake.root).isdisjoint(
        {"dagster", "dbt.cli", "pandas", "pandera", "pyarrow"}
    )


def test_query_prints_tables_csv_and_json(demo_lake: DemoLake) -> None:
    sql = "select count(*) as flights, 'a,b' as text from fct_flights"
    assert "336776" in run_cli("query", sql, root=demo_lake.root).stdout
    assert json.loads(run_cli("query", sql, "--json", root=demo_lake.root).stdout) == [
        {"flights": 336_776, "text": "a,b"}
    ]
    rows = list(csv.reader(io.StringIO(run_cli("query", sql, "-f", "csv", root=demo_lake.root).stdout)))
    assert rows == [["flights", "text"], ["336776", "a,b"]]


def test_a_wrong_query_is_one_message_without_a_traceback(demo_lake: DemoLake) -> None:
    done = run_cli("query", "select nope from fct_flights", root=demo_lake.root)
    assert done.returncode == 1
    assert "nope" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_can_be_changed_by_a_query(demo_lake: DemoLake) -> None:
    done = run_cli("query", "create table x as select 1", root=demo_lake.root)
    assert done.returncode == 1
    assert "read-only" in done.stderr


def test_the_shell_answers_lists_tables_and_survives_a_mistake(
    demo_lake: DemoLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    text = ".tables\n.schema dim_airline\nselect nope;\nselect count(*) as n\nfrom dim_airline;\n.quit\n"
    done = subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", "sql"],
        env={**os.environ, "LAKEHOUSE_ROOT": str(demo_lake.root)},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == OK
    for words in ("fct_flights", "airline_name", "nope", "\n16"):
        assert words in done.stdout.replace(" ", "")


def test_quarantine_shows_refused_rows_whole(demo_lake: DemoLake) -> None:
    listed = json.loads(run_cli("quarantine", "list", "--json", root=demo_lake.root).stdout)
    weather = next(item for item in listed if item["table"] == "weather")
    shown = json.loads(run_cli("quarantine", "show", "weather", "--json", root=demo_lake.root).stdout)
    assert len(shown) == weather["rows"]
    row = json.loads(shown[0]["_raw"])
    line = Path(shown[0]["_source_file"]).read_text().splitlines()[shown[0]["_source_row"]]
    assert row["wind_speed"] in line.split(",")


def test_every_published_table_and_column_carries_its_description(demo_lake: DemoLake) -> None:
    with duckdb.connect(str(demo_lake.catalog), read_only=True) as connection:
        bare = connection.execute(
            "select schema_name, view_name from duckdb_views() where not internal and comment is null"
        ).fetchall()
        columns = connection.execute(
            "select schema_name, table_name, column_name from duckdb_columns() where not internal and comment is null "
            "and schema_name in ('main', 'silver')"
        ).fetchall()
    assert bare == []
    assert columns == []
