"""The contract of silver.weather."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract, TimestampUtc

PUBLIC = {"sensitivity": "public"}


class Weather(Contract):
    """One row per airport of departure and hour: what the station at the airport observed.

    Bounds are what nature has ever done near the ground, with room: a value beyond them is an instrument's.
    """

    origin: pl.String = pa.Field(
        isin=["EWR", "JFK", "LGA"], description="Airport of the station, IATA code.", metadata=PUBLIC
    )
    observed_at_utc: TimestampUtc = pa.Field(
        description="Hour of the observation (UTC). Tells apart the two hours from 1 am of the autumn clock change.",
        metadata=PUBLIC,
    )
    observed_date: pl.Date = pa.Field(
        description="The observation's date at the airport (local).", metadata=PUBLIC
    )
    observed_hour: pl.Int16 = pa.Field(
        ge=0, le=23, description="The observation's hour on the airport's clocks (local).", metadata=PUBLIC
    )
    temp_f: pl.Float64 = pa.Field(
        ge=-80, le=135, nullable=True, description="Air temperature, degrees Fahrenheit.", metadata=PUBLIC
    )
    dewp_f: pl.Float64 = pa.Field(
        ge=-100, le=95, nullable=True, description="Dew point, degrees Fahrenheit.", metadata=PUBLIC
    )
    humid_pct: pl.Float64 = pa.Field(
        ge=0, le=100, nullable=True, description="Relative humidity, percent.", metadata=PUBLIC
    )
    wind_dir_deg: pl.Int16 = pa.Field(
        ge=0,
        le=360,
        nullable=True,
        description="Where the wind comes from, degrees clockwise from north; 0 in calm, null when variable.",
        metadata=PUBLIC,
    )
    # 253 mph is the strongest gust ever measured outside a tornado (Barrow Island, 1996).
    wind_speed_mph: pl.Float64 = pa.Field(
        ge=0, le=253, nullable=True, description="Wind's speed, miles per hour.", metadata=PUBLIC
    )
    wind_gust_mph: pl.Float64 = pa.Field(
        ge=0,
        le=253,
        nullable=True,
        description="Gusts' speed, miles per hour; null without gusts.",
        metadata=PUBLIC,
    )
    precip_in: pl.Float64 = pa.Field(
        ge=0, le=12, description="Precipitation in the hour, inches.", metadata=PUBLIC
    )
    pressure_hpa: pl.Float64 = pa.Field(
        ge=870,
        le=1085,
        nullable=True,
        description="Air pressure at sea level, hectopascals (the same as millibars).",
        metadata=PUBLIC,
    )
    visib_mi: pl.Float64 = pa.Field(
        ge=0, le=100, description="Visibility, statute miles; stations report at most 10.", metadata=PUBLIC
    )

    @pa.dataframe_check(name="dewp_f <= temp_f")
    def dew_point_below_temperature(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Air cannot hold more water than saturates it; 1 degree is left for rounding."""
        return data.lazyframe.select(pl.col("dewp_f") <= pl.col("temp_f") + 1)

    @pa.dataframe_check(name="wind_gust_mph >= wind_speed_mph")
    def gust_above_wind(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A gust is a peak of the wind, so it is never below it."""
        return data.lazyframe.select(pl.col("wind_gust_mph") >= pl.col("wind_speed_mph"))

    class Config:
        name = "weather"
        unique = ["origin", "observed_at_utc"]
