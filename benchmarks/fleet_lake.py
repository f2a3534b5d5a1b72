"""The benchmark fleet: 47 declared pipelines and ten gold models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PIPELINES = 47


@dataclass(frozen=True)
class Kind:
    """A kind of table: how many pipelines there are of it, and how they take their rows."""

    name: str
    count: int
    contract: str
    format: str
    suffix: str
    mode: str
    row_bytes: int  # of the file, about; measured
    weight: float  # share of one pipeline's bytes, relative to the others
    sequence_by: str | None = None
    keys: int = 0  # how many keys a table of uniform keys has at the start


KINDS = (
    Kind("orders", 8, "Orders", "csv", ".csv", "upsert", 95, 8.0, "updated_at_utc"),
    Kind("lines", 6, "Lines", "csv", ".csv", "append", 56, 8.0),
    Kind("events", 8, "Events", "jsonl", ".jsonl", "append", 132, 6.0),
    Kind("clicks", 5, "Events", "csv", ".csv.gz", "append", 14, 2.0),
    Kind("readings", 6, "Readings", "parquet", ".parquet", "append", 16, 3.0),
    Kind("customers", 6, "Customers", "csv", ".csv", "upsert", 64, 0.5, "changed_at_utc", 300_000),
    Kind("products", 8, "Products", "csv", ".csv", "history", 57, 0.2, "since_utc", 20_000),
)
assert sum(kind.count for kind in KINDS) == PIPELINES


def pipelines() -> Iterator[tuple[str, Kind, float]]:
    """Name, kind and share of a tick's bytes of every pipeline. Within a kind the first is the largest."""
    weights = {
        f"{kind.name}_{number:02d}": (kind, kind.weight / number**0.7)
        for kind in KINDS
        for number in range(1, kind.count + 1)
    }
    total = sum(weight for _, weight in weights.values())
    for name, (kind, weight) in weights.items():
        yield name, kind, weight / total


# -- declarations ----------------------------------------------------------------------------------


def declare(folder: Path) -> None:
    """Write a ``defs.yaml`` per pipeline and the dbt project below ``folder``."""
    for name, kind, _ in pipelines():
        silver = f"mode: {kind.mode}" + (f", sequence_by: [{kind.sequence_by}]" if kind.sequence_by else "")
        path = folder / "pipelines" / name / "defs.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(
            f"type: lakehouse.defs.component.PipelineComponent\n"
            f"attributes:\n"
            f"  name: {name}\n"
            f"  description: Fleet benchmark, {kind.name}.\n"
            f"  group: {kind.name}\n"
            f"  source: {{kind: files, path: '{name}/*', format: {kind.format}}}\n"
            f"  contract: benchmarks.fleet_contracts.{kind.contract}\n"
            f"  silver: {{{silver}}}\n"
        )
    _dbt_project(folder / "dbt")


def _dbt_project(folder: Path) -> None:
    marts = folder / "models" / "marts"
    marts.mkdir(parents=True)
    real = Path(__file__).resolve().parent.parent / "dbt_project"
    (folder / "macros").symlink_to(real / "macros")
    (folder / "dbt_project.yml").write_text((real / "dbt_project.yml").read_text())
    names = "".join(f"      - name: {name}\n" for name, _, _ in pipelines())
    (folder / "models" / "sources.yml").write_text(f"sources:\n  - name: silver\n    tables:\n{names}")
    models = {}
    for number in (1, 2, 3, 4):
        models[f"mart_orders_{number}"] = _by_minute(
            f"orders_{number:02d}", "ordered_at_utc", "country", "amount_eur"
        )
    for number in (1, 2):
        models[f"mart_lines_{number}"] = _by_minute(
            f"lines_{number:02d}", "sold_at_utc", "product", "price_eur * quantity"
        )
    for number in (1, 2):
        models[f"mart_events_{number}"] = _by_batch(f"events_{number:02d}")
    models["dim_customer"] = (
        "select customer_id, name, city, segment from {{ source('silver', 'customers_01') }}\n"
    )
    models["dim_product"] = (
        "select product, title, price_eur, stock from {{ source('silver', 'products_01') }} where is_current\n"
    )
    for name, sql in models.items():
        (marts / f"{name}.sql").write_text(sql)


def _by_minute(table: str, instant: str, group: str, amount: str) -> str:
    """Sums by minute, of rows that may change later: the minutes that the news touches are computed again."""
    minute = f"utc_trunc('minute', '{instant}')"
    return f"""{{{{ config(strategy='replace_groups', group_key=['minute'], touched_by={{'silver/{table}': [{minute}]}}) }}}}
select {{{{ {minute} }}}} as minute, {group} as slice, count(*) as rows_of_minute, round(sum({amount}), 2)::double as amount_eur
from {{{{ source('silver', '{table}') }}}}
{{% if is_incremental() %}}
where {{{{ may_be_touched('{instant}', 'minute') }}}} and {{{{ is_touched([{minute}]) }}}}
{{% endif %}}
group by all
"""


def _by_batch(table: str) -> str:
    """Sums by minute and batch, of rows that never change: those of the new batches are added."""
    return f"""{{{{ config(strategy='append') }}}}
select {{{{ utc_trunc('minute', 'at_utc') }}}} as minute, kind, _batch_id as batch_id, count(*) as events,
       sum(duration_ms)::bigint as duration_ms
from {{{{ source('silver', '{table}') }}}}
{{% if is_incremental() %}} where _batch_id > (select max(batch_id) from {{{{ this }}}}) {{% endif %}}
group by all
"""
