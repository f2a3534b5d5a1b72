"""The base class of every contract.

A contract is a Pandera ``DataFrameModel`` (Polars): one class per silver table. The docstring's first lines
say the grain; fields carry types, rules and metadata; ``Config.unique`` names the key.

    import pandera.polars as pa
    from lakehouse.contracts.model import Contract, TimestampUtc

    class Orders(Contract):
        \"\"\"One row per order.\"\"\"

        order_id: int = pa.Field(ge=1, description="Number of the order")
        placed_at_utc: TimestampUtc = pa.Field(description="When the customer confirmed")

        class Config:
            unique = ["order_id"]
"""

from __future__ import annotations

from typing import Annotated

import pandera.polars as pa
import polars as pl
from pandera.backends.polars.register import register_polars_backends
from pandera.config import CONFIG

# Pandera registers its Polars checks on first validation, and copies a model's checks when its schema is
# built. A schema built before the registration keeps checks that know no Polars: so register first.
register_polars_backends(use_narwhals_backend=CONFIG.use_narwhals_backend)

#: An instant: microseconds, UTC. The type of every timestamp in silver.
TimestampUtc = Annotated[pl.Datetime, "us", "UTC"]


class Contract(pa.DataFrameModel):
    """Base of all contracts; it has no columns of its own.

    Field metadata: ``sensitivity`` (public, internal, personal), ``on_failure`` (quarantine, warn, fail; or a
    dict from rule kind to one of these), ``remedy`` (a sentence shown with the field's failures). Config
    metadata takes ``on_failure`` and ``remedy`` for the checks of the whole frame.
    """
