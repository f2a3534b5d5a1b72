"""Data that this project has never seen, taken in by following docs/pipelines.md and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from lakehouse.settings import PROJECT_DIR

pytestmark = pytest.mark.slow
ROWS = 1_000


@dataclass(frozen=True)
class Checkout:
    """A copy of the project with a lake of its own, where a newcomer may write."""

    folder: Path
    data: Path

    def lakehouse(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lakehouse.cli", *arguments],
            env={**os.environ, "LAKEHOUSE_ROOT": str(self.folder / ".lake"), "PYTHONPATH": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ask(self, sql: str) -> list[dict[str, object]]:
        done = self.lakehouse("query", sql, "--json")
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("lakehouse", "asset_checks", "dbt_project"):
        shutil.copytree(PROJECT_DIR / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(PROJECT_DIR / name, folder / name)
    data = tmp_path_factory.mktemp("data")
    _write_messy_csv(data / "web orders_2024-01-01.csv", first_id=0)
    _write_nested_json(data / "events.jsonl.gz")
    pl.DataFrame(
        {
            "reading_id": pl.int_range(200_000, eager=True),
            "value": [1.5, None] * 100_000,
            "site": ["007", "042"] * 100_000,
        }
    ).write_parquet(data / "readings.parquet")
    return Checkout(folder, data)


def _write_messy_csv(file: Path, *, first_id: int) -> None:
    dice = random.Random(7)
    lines = ["Order ID;Zip;Region;Amount;Ordered At;Note\n"]
    for number in range(first_id, first_id + ROWS):
        amount = "-" if number % 10 == 3 else f"{dice.random() * 100:.2f}"
        lines.append(
            f"{number};{number % 900:05d};{('NA', 'EU', 'AP')[number % 3]};{amount};"
            f'2024-01-{number % 28 + 1:02d} 10:00:00;"line one\nsaid ""{number}""; done"\n'
        )
    file.write_text("".join(lines), newline="")


def _write_nested_json(file: Path) -> None:
    with gzip.open(file, "wt") as stream:
        for number in range(ROWS):
            row = {
                "id": number,
                "user": {"name": "ada", "tags": ["x", "y"], "geo": {"lat": 52.5, "lon": 13}},
                "lines": [{"sku": "a-1", "n": number}],
                "at": "2024-05-01T10:00:00Z",
                **({"coupon": "0815"} if number % 3 else {}),
            }
            stream.write(json.dumps(row) + "\n")


@pytest.fixture(scope="module")
def taken_in(checkout: Checkout) -> Checkout:
    """All three files, as the documentation says: new pipeline, validate, run."""
    for file in sorted(checkout.data.iterdir()):
        done = checkout.lakehouse("new", "pipeline", "--from", str(file), "--source-system", "shop")
        assert done.returncode == 0, done.stderr
    done = checkout.lakehouse("validate")
    assert done.returncode == 0, done.stderr
    done = checkout.lakehouse("run", "--select", "web_orders,events,readings")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return checkout


def test_a_messy_csv_arrives_as_it_was_meant(taken_in: Checkout) -> None:
    counted = taken_in.ask(
        "select count(*) n, count(distinct Order_ID) ids, count(*) filter (Region = 'NA') na, count(Amount) amounts, "
        "count(*) filter (length(Zip) = 5) zips, typeof(any_value(Amount)) amount_type, min(Ordered_At) earliest "
        "from silver.web_orders"
    )
    assert counted == [
        {
            "n": ROWS,
            "ids": ROWS,
            "na": 334,
            "amounts": 900,
            "zips": ROWS,
            "amount_type": "DOUBLE",
            "earliest": "2024-01-01T10:00:00",
        }
    ]
    notes = taken_in.ask("select Note from silver.web_orders where Order_ID = 5")
    assert notes == [{"Note": 'line one\nsaid "5"; done'}]


def test_nested_json_keeps_its_structure(taken_in: Checkout) -> None:
    found = taken_in.ask(
        'select "user".geo.lat lat, "user".tags[2] tag, lines[1].n n, coupon, "at" from silver.events where id = 4'
    )
    assert found == [{"lat": 52.5, "tag": "y", "n": 4, "coupon": "0815", "at": "2024-05-01T10:00:00"}]


def test_parquet_keeps_its_types_and_texts(taken_in: Checkout) -> None:
    found = taken_in.ask("select count(*) n, count(value) v, min(site) site from silver.readings")
    assert found == [{"n": 200_000, "v": 100_000, "site": "007"}]


def test_nothing_of_it_is_refused_and_every_row_is_accounted_for(taken_in: Checkout) -> None:
    states = json.loads(taken_in.lakehouse("status", "--json").stdout)["pipelines"]
    mine = {p["name"]: p for p in states if p["name"] in ("web_orders", "events", "readings")}
    assert {name: p["quarantined_rows"] for name, p in mine.items()} == {
        "web_orders": 0,
        "events": 0,
        "readings": 0,
    }
    assert all(p["bronze_rows"] == p["silver_rows"] and p["lag_s"] == 0 for p in mine.values())


def test_another_file_like_it_is_taken_by_the_next_run_and_only_once(taken_in: Checkout) -> None:
    _write_messy_csv(taken_in.data / "web orders_2024-01-02.csv", first_id=ROWS - 10)  # ten orders come again
    done = taken_in.lakehouse("run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert taken_in.ask("select count(*) n from silver.web_orders") == [{"n": 2 * ROWS - 10}]
    again = taken_in.lakehouse("run")
    assert again.returncode == 0
    assert "Nothing new" in again.stdout


def test_a_second_new_pipeline_of_the_same_name_changes_nothing(taken_in: Checkout) -> None:
    file = taken_in.folder / "lakehouse" / "contracts" / "web_orders.py"
    before = file.read_text()
    done = taken_in.lakehouse(
        "new",
        "pipeline",
        "--from",
        str(taken_in.data / "web orders_2024-01-01.csv"),
        "--source-system",
        "shop",
    )
    assert done.returncode == 2
    assert "exists already; nothing was written" in done.stderr
    assert file.read_text() == before


def test_the_mart_of_the_documentation_works_as_it_is_written(taken_in: Checkout) -> None:
    page = (PROJECT_DIR / "docs" / "pipelines.md").read_text()
    orders = taken_in.data / "orders.csv"
    orders.write_text(
        "order_id,ordered_at,amount\n1,2024-01-01 10:00:00,2.5\n2,2024-01-01 11:00:00,3.5\n3,2024-01-02 09:00:00,1\n"
    )
    assert (
        taken_in.lakehouse("new", "pipeline", "--from", str(orders), "--source-system", "shop").returncode
        == 0
    )
    section = page.split("## 5.")[1].split("\n## ")[0]
    files = re.findall(r"`(dbt_project/[^`]+\.(?:yml|sql))`.*?```(?:yaml|sql)\n(.*?)```", section, re.DOTALL)
    assert len(files) == 3
    for name, text in files:
        (taken_in.folder / name).write_text(text)
    done = taken_in.lakehouse("run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert taken_in.ask("select * from mart_daily_orders order by order_date") == [
        {"order_date": "2024-01-01", "orders": 2, "amount_eur": 6.0},
        {"order_date": "2024-01-02", "orders": 1, "amount_eur": 1.0},
    ]
