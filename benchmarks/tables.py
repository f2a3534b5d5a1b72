"""Contracts of the benchmarks' tables, as a team would write them."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts import Contract
from lakehouse.contracts.model import TimestampUtc


class LineItem(Contract):
    """One row per line of an order: TPC-H's lineitem without its comment, 15 columns."""

    l_orderkey: pl.Int64 = pa.Field(gt=0, description="Order.")
    l_partkey: pl.Int64 = pa.Field(gt=0, description="Part.")
    l_suppkey: pl.Int64 = pa.Field(gt=0, description="Supplier.")
    l_linenumber: pl.Int32 = pa.Field(ge=1, le=7, description="Line within its order.")
    l_quantity: pl.Float64 = pa.Field(ge=1, le=50, description="Pieces.")
    l_extendedprice: pl.Float64 = pa.Field(gt=0, description="Price of all pieces.")
    l_discount: pl.Float64 = pa.Field(ge=0, le=0.1, description="Share taken off.")
    l_tax: pl.Float64 = pa.Field(ge=0, le=0.08, description="Share added.")
    l_returnflag: pl.String = pa.Field(isin=["A", "N", "R"], description="Accepted, none, returned.")
    l_linestatus: pl.String = pa.Field(isin=["F", "O"], description="Finished or open.")
    l_shipdate: pl.Date = pa.Field(description="Shipped.")
    l_commitdate: pl.Date = pa.Field(description="Promised.")
    l_receiptdate: pl.Date = pa.Field(description="Received.")
    l_shipinstruct: pl.String = pa.Field(str_length={"min_value": 1, "max_value": 25}, description="How.")
    l_shipmode: pl.String = pa.Field(
        isin=["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"], description="By what."
    )

    @pa.dataframe_check(name="received after shipped")
    def received_after_shipped(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Nothing arrives before it leaves."""
        return data.lazyframe.select(pl.col("l_receiptdate") >= pl.col("l_shipdate"))

    class Config:
        name = "lineitem"
        unique = ["l_orderkey", "l_linenumber"]


class Flight(Contract):
    """One row per scheduled departure; a row that is sent again replaces the one before."""

    day: pl.Date = pa.Field(description="Local date.")
    carrier: pl.String = pa.Field(str_length={"min_value": 2, "max_value": 2}, description="Airline.")
    flight: pl.Int32 = pa.Field(gt=0, description="Number.")
    sched_dep_time: pl.Int32 = pa.Field(ge=0, le=2400, description="Clock reading.")
    origin: pl.String = pa.Field(isin=["EWR", "JFK", "LGA"], description="From.")
    dest: pl.String = pa.Field(description="To.")
    tailnum: pl.String = pa.Field(nullable=True, description="Aircraft.")
    dep_delay: pl.Int32 = pa.Field(ge=-120, le=2880, nullable=True, description="Minutes.")
    arr_delay: pl.Int32 = pa.Field(ge=-240, le=2880, nullable=True, description="Minutes.")
    air_time: pl.Int32 = pa.Field(gt=0, nullable=True, description="Minutes.")
    distance: pl.Int32 = pa.Field(gt=0, description="Miles.")
    sent_no: pl.Int64 = pa.Field(ge=0, description="Which sending it is from.")

    class Config:
        name = "flight"
        unique = ["day", "carrier", "flight", "sched_dep_time"]


class Order(Contract):
    """One row per order: TPC-H's orders without their comment, and when the row's state began."""

    o_orderkey: pl.Int64 = pa.Field(gt=0, description="Order.")
    o_custkey: pl.Int64 = pa.Field(gt=0, description="Customer.")
    o_orderstatus: pl.String = pa.Field(isin=["F", "O", "P"], description="Finished, open, in part.")
    o_totalprice: pl.Float64 = pa.Field(gt=0, description="Price of all lines.")
    o_orderdate: pl.Date = pa.Field(description="Ordered.")
    o_orderpriority: pl.String = pa.Field(str_length={"min_value": 5, "max_value": 15}, description="How urgent.")  # fmt: skip
    o_clerk: pl.String = pa.Field(str_length={"min_value": 15, "max_value": 15}, description="Who took it.")
    o_shippriority: pl.Int32 = pa.Field(ge=0, description="How urgent to ship.")
    updated_at_utc: TimestampUtc = pa.Field(description="When this state began.")

    class Config:
        name = "orders"
        unique = ["o_orderkey"]
