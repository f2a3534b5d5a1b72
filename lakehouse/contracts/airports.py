"""The contract of silver.airports."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract

PUBLIC = {"sensitivity": "public"}


class Airports(Contract):
    """One row per airport of the United States and snapshot; silver keeps the history of each airport."""

    faa: pl.String = pa.Field(
        str_matches=r"^[A-Z0-9]{3}$", description="Airport, three-character FAA code.", metadata=PUBLIC
    )
    snapshot_date: pl.Date = pa.Field(
        description="Day of the snapshot, from the file's name.", metadata=PUBLIC
    )
    name: pl.String = pa.Field(
        str_length={"min_value": 1}, description="The airport's usual name.", metadata=PUBLIC
    )
    lat: pl.Float64 = pa.Field(
        ge=-90, le=90, description="Latitude, degrees; north is positive.", metadata=PUBLIC
    )
    lon: pl.Float64 = pa.Field(
        ge=-180, le=180, description="Longitude, degrees; east is positive.", metadata=PUBLIC
    )
    # From the shore of the Dead Sea to the highest airfield on Earth.
    alt: pl.Int32 = pa.Field(
        ge=-1_300, le=15_000, description="Altitude above sea level, feet.", metadata=PUBLIC
    )
    tz: pl.Int16 = pa.Field(
        ge=-12, le=14, nullable=True, description="Standard time's offset from UTC, hours.", metadata=PUBLIC
    )
    dst: pl.String = pa.Field(
        isin=["A", "U", "N"],
        nullable=True,
        description="Daylight saving time: A the United States' rules, U unknown, N none.",
        metadata=PUBLIC,
    )
    tzone: pl.String = pa.Field(
        nullable=True,
        str_matches=r"^[A-Za-z]+(/[A-Za-z_\-]+){1,2}$",
        description="IANA time zone; null where the source does not know it.",
        metadata=PUBLIC,
    )

    @pa.check("lon", name="lon is in the United States")
    def longitude_is_american(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """From Guam (144° E) across the date line to Puerto Rico (65° W).

        Catches lost minus signs (an airfield in San Diego placed in China, with China's time zone).
        """
        lon = pl.col(data.key)
        return data.lazyframe.select(lon.is_between(-180, -60) | lon.is_between(144, 180))

    class Config:
        name = "airports"
        unique = ["faa"]
