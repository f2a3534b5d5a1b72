"""The composition root that Dagster loads. Importing it declares; nothing is read or connected until it is called."""

from __future__ import annotations

import dagster as dg

from lakehouse.defs.compose import definitions_for
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Read settings, declarations and the dbt project, and wire them together.

    Raises:
        DeclarationError: some pipeline's YAML is wrong; names file, line, field and what would be right.
    """
    settings = load_settings()
    return definitions_for(settings, load_pipelines(settings))
