"""What arrives for the benchmark fleet: a file per pipeline and round, as source systems would send them.

Business time passes as data does at the mission's rate: a gigabyte is 38 seconds, however long the lake takes for it.
So the newest orders, lines and minutes are the newest data in every phase, whatever the size of a round.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.fleet_lake import Kind, pipelines

#: The mission: 2.3 TB of raw input a day, in bytes a second.
MISSION_BYTES_S = 26.6e6
_START = datetime(2026, 1, 1, tzinfo=UTC)
#: One value in so many is wrong, so that the quarantine is never idle.
_BAD_EVERY = 5_000
#: New rows among the orders of a file; the others change orders of the last rounds.
_NEW_ORDERS = 0.4
#: So many files' worth of new orders are young enough to change.
_YOUNG = 3


@dataclass(frozen=True)
class _Part:
    """One file to be: ``first`` is the first new number of its table, of which ``per_s`` are given out in a second."""

    kind: Kind
    rows: int
    first: int
    per_s: float
    start: datetime
    span: timedelta
    rng: np.random.Generator


class Arrivals:
    """The sources. Two of them that make the same rounds make the same files."""

    def __init__(self) -> None:
        self.round = 0
        self.at = _START
        self._given: Counter[str] = Counter()

    def make(self, folder: Path, round_bytes: float) -> list[Path]:
        """One round, a file per pipeline below ``folder``: written under another name, then renamed."""
        span = timedelta(seconds=round_bytes / MISSION_BYTES_S)
        made = []
        for index, (name, kind, share) in enumerate(pipelines()):
            rows = max(int(round_bytes * share / kind.row_bytes), 20)
            per_s = MISSION_BYTES_S * share / kind.row_bytes
            rng = np.random.default_rng([index, self.round])
            part = _Part(kind, rows, 1 + self._given[name], per_s, self.at, span, rng)
            frame = _ROWS[kind.name](part)
            self._given[name] += int(rows * _NEW_ORDERS) if kind.name == "orders" else rows
            path = folder / name / f"{self.round:05d}{kind.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            hidden = folder / f".{name}{kind.suffix}"
            _write(frame, hidden, kind)
            hidden.rename(path)
            made.append(path)
        self.round += 1
        self.at += span
        return made


def arrive(waiting: Path, landing: Path) -> None:
    """Move a file that was made before to where it is looked for; its time is the time of its arrival."""
    landing.parent.mkdir(parents=True, exist_ok=True)
    os.utime(waiting)
    waiting.rename(landing)


def _write(frame: pl.DataFrame, path: Path, kind: Kind) -> None:
    if kind.format == "parquet":
        frame.write_parquet(path, compression="snappy")
    elif kind.format == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.lazy().sink_csv(
            path, compression="gzip" if path.suffix == ".gz" else "uncompressed", check_extension=False
        )


def _instants(part: _Part) -> pl.Series:
    """Instants within the round, in order."""
    start_ms = int(part.start.timestamp() * 1000)
    offsets = np.sort(part.rng.integers(0, max(int(part.span.total_seconds() * 1000), 1), part.rows))
    return pl.from_epoch(pl.Series(start_ms + offsets), time_unit="ms")


def _text(instants: pl.Series) -> pl.Series:
    return instants.dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")


def _pick(values: list[str], part: _Part) -> pl.Series:
    return pl.Series(values).gather(part.rng.integers(0, len(values), part.rows))


def _spoil(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some values out of range."""
    spoilt = values.copy()
    spoilt[rng.integers(0, _BAD_EVERY, len(values)) == 0] = -1
    return spoilt


def _orders(part: _Part) -> pl.DataFrame:
    rng, rows = part.rng, part.rows
    new = int(rows * _NEW_ORDERS)
    fresh = np.arange(part.first, part.first + new)
    changed = rng.integers(max(1, part.first - _YOUNG * new), part.first + new, rows - new)
    ids = np.concatenate([fresh, changed])
    placed_ms = (_START.timestamp() + ids / (part.per_s * _NEW_ORDERS)) * 1000
    return pl.DataFrame(
        {
            "order_id": ids,
            "customer_id": rng.integers(1, 2_000_000, rows),
            "status": _pick(["new", "paid", "sent", "returned"], part),
            "amount_eur": _spoil(rng.integers(100, 90_000, rows) / 100, rng),
            "items": rng.integers(1, 30, rows),
            "country": _pick(["DE", "FR", "PL", "IT", "ES", "AT", "NL"], part),
            "ordered_at_utc": _text(pl.from_epoch(pl.Series(placed_ms.astype(np.int64)), time_unit="ms")),
            "updated_at_utc": _text(_instants(part)),
            "note": _pick(["", "leave at the door", "gift, please wrap", "call before"], part),
        }
    )


def _lines(part: _Part) -> pl.DataFrame:
    rng, rows = part.rng, part.rows
    return pl.DataFrame(
        {
            "line_id": np.arange(part.first, part.first + rows),
            "order_id": rng.integers(1, 10_000_000, rows),
            "product": pl.Series(rng.integers(0, 500, rows)).cast(pl.String).str.zfill(6),
            "quantity": rng.integers(1, 20, rows),
            "price_eur": _spoil(rng.integers(100, 90_000, rows) / 100, rng),
            "sold_at_utc": _text(_instants(part)),
        }
    )


def _events(part: _Part) -> pl.DataFrame:
    rng, rows = part.rng, part.rows
    return pl.DataFrame(
        {
            "at_utc": _text(_instants(part)),
            "session_id": rng.integers(1, 1_000_000, rows),
            "kind": _pick(["view", "click", "cart", "buy"], part),
            "path": _pick([f"/shop/page-{n}" for n in range(200)], part),
            "duration_ms": _spoil(rng.integers(0, 60_000, rows), rng),
            "agent": _pick(["firefox", "chromium", "safari", "app"], part),
        }
    )


def _readings(part: _Part) -> pl.DataFrame:
    rng, rows = part.rng, part.rows
    return pl.DataFrame(
        {
            "at_utc": _instants(part).dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
            "sensor_id": rng.integers(1, 5_000, rows),
            "temperature_c": rng.integers(-200, 400, rows) / 10,
            "humidity_pct": _spoil(rng.integers(0, 1_000, rows) / 10, rng),
            "battery_v": rng.integers(20, 42, rows) / 10,
        }
    )


def _customers(part: _Part) -> pl.DataFrame:
    ids = part.rng.integers(1, part.kind.keys, part.rows)
    return pl.DataFrame(
        {
            "customer_id": _spoil(ids, part.rng),
            "name": pl.Series(ids).cast(pl.String) + pl.Series([" Smith & Sons"]),
            "city": _pick(["Graz", "Lyon", "Turin", "Porto", "Gdansk"], part),
            "segment": _pick(["consumer", "small", "large"], part),
            "changed_at_utc": _text(_instants(part)),
        }
    )


def _products(part: _Part) -> pl.DataFrame:
    ids = pl.Series(part.rng.integers(1, part.kind.keys, part.rows)).cast(pl.String).str.zfill(6)
    return pl.DataFrame(
        {
            "product": ids,
            "title": "Product " + ids,
            "price_eur": _spoil(part.rng.integers(100, 9_000, part.rows) / 100, part.rng),
            "stock": part.rng.integers(0, 500, part.rows),
            "since_utc": _text(_instants(part)),
        }
    )


_ROWS: dict[str, Callable[[_Part], pl.DataFrame]] = {
    "orders": _orders,
    "lines": _lines,
    "events": _events,
    "clicks": _events,
    "readings": _readings,
    "customers": _customers,
    "products": _products,
}
