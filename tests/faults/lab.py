"""A small lakehouse for fault tests: three pipelines, four gold tables, three deliveries with bad rows in each.

Everything is deterministic, so that two lakes that saw the same deliveries must hold the same rows.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DELIVERIES = (1, 2, 3)
_ROWS = {"orders": 120, "prices": 40, "clicks": 150}
_FIRST_ARRIVAL_S = 1_700_000_000
_REAL_MACROS = Path(__file__).parents[2] / "dbt_project" / "macros"

_PROJECT = {
    "dbt_project.yml": """
name: fault_lab
version: "1.0"
profile: lakehouse
models: {fault_lab: {+materialized: delta}}
""",
    "models/sources.yml": """
sources:
  - {name: silver, tables: [{name: orders}, {name: prices}, {name: clicks}]}
models:
  - name: customers
    columns: [{name: customer, data_tests: [not_null, unique]}]
""",
    "models/customers.sql": "select customer, count(*) as orders, round(sum(amount_eur), 2) as amount_eur\n"
    "from {{ source('silver', 'orders') }} group by customer\n",
    "models/order_facts.sql": """{{ config(strategy='merge', unique_key='order_id') }}
select order_id, customer, amount_eur, _batch_id from {{ source('silver', 'orders') }}
{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}
""",
    "models/price_now.sql": "select item, price_eur from {{ source('silver', 'prices') }} where is_current\n",
    "models/click_log.sql": """{{ config(strategy='append') }}
select at_s, page, _batch_id from {{ source('silver', 'clicks') }}
{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}
""",
}


@dataclass(frozen=True)
class Lab:
    """Where one lab's things are. The lake may be remote; landing, catalog, state and dbt project are local."""

    folder: Path
    root: str
    options: dict[str, str]

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    @property
    def project(self) -> Path:
        return self.folder / "dbt_project"

    @property
    def local_state(self) -> list[Path]:
        """What a machine keeps beside the lake."""
        return [self.folder / "catalog", self.folder / "state"]

    def settings(self) -> Any:
        from lakehouse.settings import load_settings

        return load_settings(
            root=self.root,
            storage_options=self.options,
            landing=str(self.landing),
            catalog_dir=str(self.folder / "catalog"),
            state_dir=str(self.folder / "state"),
            pipelines_dir=str(self.folder / "pipelines"),
            threads=2,
            # However small a table is, changed rows are marked as deleted and found by the index.
            deletion_vector_min_rows=0,
            key_index_min_rows=0,
        )

    def write_project(self) -> None:
        shutil.copytree(_REAL_MACROS, self.project / "macros", dirs_exist_ok=True)
        for name, text in _PROJECT.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def pipelines(delivery: int) -> list[Any]:
    """The declarations as they are when this delivery arrives: the second one's contract has a column more."""
    from lakehouse.pipelines import Pipeline, PipelineSpec

    orders = "Orders" if delivery < 2 else "OrdersWithChannel"
    declared: list[dict[str, Any]] = [
        {
            "name": "orders",
            "source": {"path": "orders/*.csv", "format": "csv"},
            "contract": f"tests.faults.contracts.{orders}",
            "silver": {"mode": "upsert", "sequence_by": "changed"},
        },
        {
            "name": "prices",
            "source": {"path": "prices/*.csv", "format": "csv"},
            "contract": "tests.faults.contracts.Prices",
            "silver": {"mode": "history", "sequence_by": "since"},
        },
        {
            "name": "clicks",
            "source": {"path": "clicks/*.jsonl", "format": "jsonl"},
            "contract": "tests.faults.contracts.Clicks",
            "silver": {"mode": "append"},
        },
    ]
    for item in declared:
        item["description"] = f"Fault lab: {item['name']}."
        item["source"]["kind"] = "files"
    return [Pipeline(PipelineSpec.model_validate(item), f"{item['name']}.yaml") for item in declared]


def arrive(lab: Lab, delivery: int) -> None:
    """Put the delivery's three files into the landing folder, with an arrival time of their own."""
    for table, name, text in _files(delivery):
        path = lab.landing / table / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        arrived_s = _FIRST_ARRIVAL_S + 3600 * delivery
        os.utime(path, (arrived_s, arrived_s))


def _files(delivery: int) -> list[tuple[str, str, str]]:
    rng = random.Random(delivery)
    return [
        ("orders", f"{delivery:03d}.csv", _orders(delivery, rng)),
        ("prices", f"{delivery:03d}.csv", _prices(delivery, rng)),
        ("clicks", f"{delivery:03d}.jsonl", _clicks(delivery, rng)),
    ]


def _orders(delivery: int, rng: random.Random) -> str:
    channel = delivery >= 2
    lines = ["order_id,customer,amount_eur,changed" + (",channel" if channel else "")]
    for index in range(_ROWS["orders"]):
        # Half of the keys have come before: they are updates, some of them late.
        order_id = rng.randrange(1, 90 * delivery)
        amount = (
            "a lot" if index % 29 == 0 else "-1" if index % 31 == 0 else f"{rng.randrange(1, 9000) / 100}"
        )
        line = f"{order_id},customer-{order_id % 17},{amount},{delivery * 1000 + index - rng.randrange(900)}"
        lines.append(line + (f",{rng.choice(['web', 'shop'])}" if channel else ""))
    lines.insert(40, "7,torn")  # a ragged line: bronze refuses it
    return "\n".join(lines) + "\n"


def _prices(delivery: int, rng: random.Random) -> str:
    lines = ["item,price_eur,since"]
    for index in range(_ROWS["prices"]):
        day = rng.randrange(1, 28)
        price = "0" if index % 13 == 0 else f"{rng.randrange(100, 400) / 100}"
        lines.append(f"item-{rng.randrange(10)},{price},2024-0{rng.randrange(1, 4)}-{day:02d}T00:00:00Z")
    return "\n".join(lines) + "\n"


def _clicks(delivery: int, rng: random.Random) -> str:
    lines = []
    for index in range(_ROWS["clicks"]):
        at_s = -5 if index % 37 == 0 else rng.randrange(10_000)
        lines.append(json.dumps({"at_s": at_s, "page": f"/{delivery}/{rng.randrange(20)}"}))
    lines.insert(30, '{"at_s": 12, "page": "/torn')
    return "\n".join(lines) + "\n"


def run(lab: Lab, delivery: int) -> None:
    """Everything that has arrived, through bronze, silver and gold to the published catalog: the real functions."""
    from asset_checks.tables import carry_out
    from lakehouse import ledger
    from lakehouse.bronze import ingest
    from lakehouse.gold.build import build
    from lakehouse.gold.publish import publish
    from lakehouse.silver import refine
    from lakehouse.storage import Lake

    settings = lab.settings()
    lake = Lake.from_settings(settings)
    declared = pipelines(delivery)
    for pipeline in declared:
        ingest(lake, settings, pipeline, run_id="lab")
        refine(lake, settings, pipeline, run_id="lab")
    ledger.sync(lake, declared)
    for pipeline in declared:
        carry_out(lake, pipeline, run_id="lab")
    gold = build(lake, settings, project_dir=lab.project, run_id="lab")
    publish(lake, settings, gold=gold, run_id="lab")
