"""Contracts of the pipelines that are killed: an upsert whose contract grows, a history, and a stream of events."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts import Contract


class Orders(Contract):
    """One row per order: its latest state."""

    order_id: pl.Int64 = pa.Field(description="Number of the order.")
    customer: pl.String = pa.Field(description="Who ordered.")
    amount_eur: pl.Float64 = pa.Field(ge=0, description="Total in euros.")
    changed: pl.Int64 = pa.Field(description="Sequence of the change.")

    class Config:
        unique = ["order_id"]


class OrdersWithChannel(Orders):
    """One row per order: its latest state, and the channel that the second delivery brings."""

    channel: pl.String = pa.Field(nullable=True, description="How the order came.")

    class Config:
        unique = ["order_id"]


class Prices(Contract):
    """One row per state of an item's price."""

    item: pl.String = pa.Field(description="What is sold.")
    price_eur: pl.Float64 = pa.Field(gt=0, description="Price in euros.")
    since: pl.Datetime("us", "UTC") = pa.Field(description="When the price began to hold (UTC).")  # type: ignore[valid-type]

    class Config:
        unique = ["item"]


class Clicks(Contract):
    """One row per click; without a key, so that nothing but the protocol keeps it from being doubled."""

    at_s: pl.Int64 = pa.Field(ge=0, description="Second of the click.")
    page: pl.String = pa.Field(description="Page.")
