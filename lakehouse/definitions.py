"""The composition root that Dagster loads. Importing it declares; nothing is read or connected until it is called."""

from __future__ import annotations

import dagster as dg

from lakehouse.defs.compose import definitions_for
from lakehouse.pipelines import load_sound
from lakehouse.settings import load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Read settings, declarations and the dbt project, and wire together what can be loaded of them.

    A declaration that is wrong, or a dbt project that does not parse, leaves itself out and nothing else: arrivals are taken
    and the SLA is watched all the same; what comes for a pipeline that is left out counts as waiting, and each look at the SLA fails
    with what is wrong.
    """
    settings = load_settings()
    pipelines, left_out = load_sound(settings)
    return definitions_for(settings, pipelines, left_out=left_out)
