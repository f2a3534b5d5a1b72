"""Contracts of the benchmark fleet's 47 pipelines: seven kinds of table, as businesses have them."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts import Contract
from lakehouse.contracts.model import TimestampUtc


class Orders(Contract):
    """One row per order: its latest state."""

    order_id: pl.Int64 = pa.Field(ge=1, description="Number of the order.")
    customer_id: pl.Int64 = pa.Field(ge=1, description="Who ordered.")
    status: pl.String = pa.Field(isin=["new", "paid", "sent", "returned"], description="State of the order.")
    amount_eur: pl.Float64 = pa.Field(ge=0, description="Total in euros.")
    items: pl.Int32 = pa.Field(ge=1, le=1000, description="Number of items.")
    country: pl.String = pa.Field(str_matches=r"^[A-Z]{2}$", description="Country of delivery.")
    ordered_at_utc: TimestampUtc = pa.Field(description="When the order was placed (UTC).")
    updated_at_utc: TimestampUtc = pa.Field(description="When this state began (UTC).")
    note: pl.String = pa.Field(nullable=True, description="What the customer wrote.")

    class Config:
        unique = ["order_id"]


class Lines(Contract):
    """One row per order line; lines never change."""

    line_id: pl.Int64 = pa.Field(ge=1, description="Number of the line.")
    order_id: pl.Int64 = pa.Field(ge=1, description="Order of the line.")
    product: pl.String = pa.Field(description="Article number.")
    quantity: pl.Int32 = pa.Field(ge=1, le=1000, description="Pieces.")
    price_eur: pl.Float64 = pa.Field(ge=0, description="Price of a piece in euros.")
    sold_at_utc: TimestampUtc = pa.Field(description="When it was sold (UTC).")

    class Config:
        unique = ["line_id"]


class Events(Contract):
    """One row per event of a website or a device; without a key."""

    at_utc: TimestampUtc = pa.Field(description="When it happened (UTC).")
    session_id: pl.Int64 = pa.Field(ge=1, description="Session.")
    kind: pl.String = pa.Field(isin=["view", "click", "cart", "buy"], description="What happened.")
    path: pl.String = pa.Field(description="Page.")
    duration_ms: pl.Int64 = pa.Field(ge=0, description="How long it took.")
    agent: pl.String = pa.Field(nullable=True, description="Browser.")


class Readings(Contract):
    """One row per reading of a sensor; without a key."""

    at_utc: TimestampUtc = pa.Field(description="When it was read (UTC).")
    sensor_id: pl.Int64 = pa.Field(ge=1, description="Sensor.")
    temperature_c: pl.Float64 = pa.Field(ge=-60, le=120, description="Degrees Celsius.")
    humidity_pct: pl.Float64 = pa.Field(ge=0, le=100, description="Relative humidity.")
    battery_v: pl.Float64 = pa.Field(ge=0, le=10, description="Volts.")


class Customers(Contract):
    """One row per customer: the latest state; any customer may change at any time."""

    customer_id: pl.Int64 = pa.Field(ge=1, description="Number of the customer.")
    name: pl.String = pa.Field(description="Name.")
    city: pl.String = pa.Field(nullable=True, description="City.")
    segment: pl.String = pa.Field(isin=["consumer", "small", "large"], description="Kind of customer.")
    changed_at_utc: TimestampUtc = pa.Field(description="When this state began (UTC).")

    class Config:
        unique = ["customer_id"]


class Products(Contract):
    """One row per state of a product: its whole history."""

    product: pl.String = pa.Field(description="Article number.")
    title: pl.String = pa.Field(description="What it is.")
    price_eur: pl.Float64 = pa.Field(ge=0, description="List price in euros.")
    stock: pl.Int32 = pa.Field(ge=0, description="Pieces in stock.")
    since_utc: TimestampUtc = pa.Field(description="When this state began (UTC).")

    class Config:
        unique = ["product"]
