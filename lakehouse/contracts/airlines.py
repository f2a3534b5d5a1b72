"""The contract of silver.airlines."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract

PUBLIC = {"sensitivity": "public"}


class Airlines(Contract):
    """One row per airline; silver keeps its latest name."""

    carrier: pl.String = pa.Field(
        str_matches=r"^[A-Z0-9]{2}$", description="Airline, two-character IATA code.", metadata=PUBLIC
    )
    snapshot_date: pl.Date = pa.Field(
        description="Day of the snapshot, from the file's name.", metadata=PUBLIC
    )
    name: pl.String = pa.Field(
        str_length={"min_value": 1}, description="The airline's full name.", metadata=PUBLIC
    )

    class Config:
        name = "airlines"
        unique = ["carrier"]
