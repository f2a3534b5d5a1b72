"""The benchmark fleet: 47 declared pipelines, ten gold models, and what arrives for them in each tick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

PIPELINES = 47
START = datetime(2026, 1, 1, tzinfo=UTC)
#: One tick of the simulated business.
TICK = timedelta(minutes=5)
#: One value in so many is wrong, so that the quarantine is never idle.
_BAD_EVERY = 5_000

Rows = Callable[["Kind", int, int, np.random.Generator], pl.DataFrame]


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
        models[f"mart_daily_orders_{number}"] = _daily(
            f"orders_{number:02d}", "ordered_at_utc", "country", "amount_eur"
        )
    for number in (1, 2):
        models[f"mart_daily_lines_{number}"] = _daily(
            f"lines_{number:02d}", "sold_at_utc", "product", "price_eur * quantity"
        )
    for number in (1, 2):
        models[f"mart_hourly_events_{number}"] = _hourly(f"events_{number:02d}")
    models["dim_customer"] = (
        "select customer_id, name, city, segment from {{ source('silver', 'customers_01') }}\n"
    )
    models["dim_product"] = (
        "select product, title, price_eur, stock from {{ source('silver', 'products_01') }} where is_current\n"
    )
    for name, sql in models.items():
        (marts / f"{name}.sql").write_text(sql)


def _daily(table: str, instant: str, group: str, amount: str) -> str:
    return f"""{{{{ config(strategy='replace_where', replace_where='day in (select day from new_rows)') }}}}
with touched as (
    select distinct {instant}::date as day from {{{{ source('silver', '{table}') }}}}
    {{% if is_incremental() %}} where _batch_id > (select max(batch_id) from {{{{ this }}}}) {{% endif %}}
)
select {instant}::date as day, {group} as slice, count(*) as rows_of_day,
       round(sum({amount}), 2)::double as amount_eur, max(_batch_id) as batch_id
from {{{{ source('silver', '{table}') }}}}
where {instant}::date in (select day from touched)
group by all
"""


def _hourly(table: str) -> str:
    return f"""{{{{ config(strategy='append') }}}}
select date_trunc('hour', at_utc) as hour, kind, _batch_id as batch_id, count(*) as events,
       sum(duration_ms)::bigint as duration_ms
from {{{{ source('silver', '{table}') }}}}
{{% if is_incremental() %}} where _batch_id > (select max(batch_id) from {{{{ this }}}}) {{% endif %}}
group by all
"""


# -- arrivals --------------------------------------------------------------------------------------


def land(landing: Path, tick: int, tick_bytes: int) -> int:
    """Write one file per pipeline, as a source system would (another name, then a rename); bytes landed."""
    total = 0
    for index, (name, kind, share) in enumerate(pipelines()):
        rows = max(int(tick_bytes * share / kind.row_bytes), 20)
        rng = np.random.default_rng([index, tick])
        frame = _ROWS[kind.name](kind, tick, rows, rng)
        folder = landing / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{tick:05d}{kind.suffix}"
        hidden = folder.parent / f".{name}{kind.suffix}"
        _write(frame, hidden, kind)
        hidden.rename(path)
        total += path.stat().st_size
    return total


def _write(frame: pl.DataFrame, path: Path, kind: Kind) -> None:
    if kind.format == "parquet":
        frame.write_parquet(path, compression="snappy")
    elif kind.format == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.lazy().sink_csv(
            path, compression="gzip" if path.suffix == ".gz" else "uncompressed", check_extension=False
        )


def _instants(tick: int, rows: int, rng: np.random.Generator) -> pl.Series:
    """Instants within the tick, as ISO text with milliseconds."""
    start_ms = int((START + tick * TICK).timestamp() * 1000)
    offsets = np.sort(rng.integers(0, int(TICK.total_seconds() * 1000), rows))
    return pl.from_epoch(pl.Series(start_ms + offsets), time_unit="ms")


def _text(instants: pl.Series) -> pl.Series:
    return instants.dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")


def _pick(values: list[str], rows: int, rng: np.random.Generator) -> pl.Series:
    return pl.Series(values).gather(rng.integers(0, len(values), rows))


def _spoil(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some values out of range."""
    spoilt = values.copy()
    spoilt[rng.integers(0, _BAD_EVERY, len(values)) == 0] = -1
    return spoilt


def _orders(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    # Two rows of five are new orders; the others change one of the last three ticks.
    new = rows * 2 // 5
    first = 1 + tick * new
    fresh = np.arange(first, first + new)
    changed = rng.integers(max(1, first - 3 * new), first + new, rows - new)
    ids = np.concatenate([fresh, changed])
    placed_ms = int(START.timestamp() * 1000) + (ids // max(new, 1)) * int(TICK.total_seconds() * 1000)
    return pl.DataFrame(
        {
            "order_id": ids,
            "customer_id": rng.integers(1, 2_000_000, rows),
            "status": _pick(["new", "paid", "sent", "returned"], rows, rng),
            "amount_eur": _spoil(rng.integers(100, 90_000, rows) / 100, rng),
            "items": rng.integers(1, 30, rows),
            "country": _pick(["DE", "FR", "PL", "IT", "ES", "AT", "NL"], rows, rng),
            "ordered_at_utc": _text(pl.from_epoch(pl.Series(placed_ms), time_unit="ms")),
            "updated_at_utc": _text(_instants(tick, rows, rng)),
            "note": _pick(["", "leave at the door", "gift, please wrap", "call before"], rows, rng),
        }
    )


def _lines(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    first = 1 + tick * rows
    return pl.DataFrame(
        {
            "line_id": np.arange(first, first + rows),
            "order_id": rng.integers(1, 10_000_000, rows),
            "product": pl.Series(rng.integers(0, 500, rows)).cast(pl.String).str.zfill(6),
            "quantity": rng.integers(1, 20, rows),
            "price_eur": _spoil(rng.integers(100, 90_000, rows) / 100, rng),
            "sold_at_utc": _text(_instants(tick, rows, rng)),
        }
    )


def _events(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "at_utc": _text(_instants(tick, rows, rng)),
            "session_id": rng.integers(1, 1_000_000, rows),
            "kind": _pick(["view", "click", "cart", "buy"], rows, rng),
            "path": _pick([f"/shop/page-{n}" for n in range(200)], rows, rng),
            "duration_ms": _spoil(rng.integers(0, 60_000, rows), rng),
            "agent": _pick(["firefox", "chromium", "safari", "app"], rows, rng),
        }
    )


def _readings(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "at_utc": _instants(tick, rows, rng).dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
            "sensor_id": rng.integers(1, 5_000, rows),
            "temperature_c": rng.integers(-200, 400, rows) / 10,
            "humidity_pct": _spoil(rng.integers(0, 1_000, rows) / 10, rng),
            "battery_v": rng.integers(20, 42, rows) / 10,
        }
    )


def _customers(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    ids = rng.integers(1, kind.keys, rows)
    return pl.DataFrame(
        {
            "customer_id": _spoil(ids, rng),
            "name": pl.Series(ids).cast(pl.String) + pl.Series([" Smith & Sons"]),
            "city": _pick(["Graz", "Lyon", "Turin", "Porto", "Gdansk"], rows, rng),
            "segment": _pick(["consumer", "small", "large"], rows, rng),
            "changed_at_utc": _text(_instants(tick, rows, rng)),
        }
    )


def _products(kind: Kind, tick: int, rows: int, rng: np.random.Generator) -> pl.DataFrame:
    ids = pl.Series(rng.integers(1, kind.keys, rows)).cast(pl.String).str.zfill(6)
    return pl.DataFrame(
        {
            "product": ids,
            "title": "Product " + ids,
            "price_eur": _spoil(rng.integers(100, 9_000, rows) / 100, rng),
            "stock": rng.integers(0, 500, rows),
            "since_utc": _text(_instants(tick, rows, rng)),
        }
    )


_ROWS: dict[str, Rows] = {
    "orders": _orders,
    "lines": _lines,
    "events": _events,
    "clicks": _events,
    "readings": _readings,
    "customers": _customers,
    "products": _products,
}
