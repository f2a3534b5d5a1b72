"""The contract of silver.planes."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract

PUBLIC = {"sensitivity": "public"}
# The register names the makers of home-built aircraft, who are persons: "KILDALL GARY", "MARZ BARRY".
PERSONAL = {"sensitivity": "personal"}
INTERNAL = {"sensitivity": "internal"}


class Planes(Contract):
    """One row per aircraft and snapshot of the register; silver keeps the history of each tail number."""

    tailnum: pl.String = pa.Field(
        str_matches=r"^N[0-9][0-9A-Z]{1,4}$",
        description="Tail number (United States register).",
        metadata=INTERNAL,
    )
    snapshot_date: pl.Date = pa.Field(
        description="Day of the register's snapshot, from the file's name.", metadata=PUBLIC
    )
    # 1903 is the first powered flight.
    year: pl.Int16 = pa.Field(
        ge=1903, le=2100, nullable=True, description="Year of manufacture.", metadata=PUBLIC
    )
    type: pl.String = pa.Field(
        isin=["Fixed wing multi engine", "Fixed wing single engine", "Rotorcraft"],
        nullable=True,
        description="Type of aircraft.",
        metadata=PUBLIC,
    )
    manufacturer: pl.String = pa.Field(
        nullable=True, description="Maker; a person's name for home-built aircraft.", metadata=PERSONAL
    )
    model: pl.String = pa.Field(nullable=True, description="Model, as the maker calls it.", metadata=PUBLIC)
    engines: pl.Int16 = pa.Field(
        ge=1, le=12, nullable=True, description="Number of engines.", metadata=PUBLIC
    )
    # 853 is the largest airliner's certified limit.
    seats: pl.Int16 = pa.Field(ge=1, le=853, nullable=True, description="Number of seats.", metadata=PUBLIC)
    speed: pl.Int16 = pa.Field(
        ge=30,
        le=1500,
        nullable=True,
        description="Average cruising speed, miles per hour; null for 99 % of aircraft.",
        metadata=PUBLIC,
    )
    engine: pl.String = pa.Field(nullable=True, description="Kind of engine.", metadata=PUBLIC)

    @pa.dataframe_check(name="year <= year(snapshot_date) + 1")
    def built_before_its_snapshot(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A register may list next year's model, never one of the year after."""
        return data.lazyframe.select(pl.col("year") <= pl.col("snapshot_date").dt.year() + 1)

    class Config:
        name = "planes"
        unique = ["tailnum"]
