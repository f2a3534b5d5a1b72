"""The command line: parsing and printing only. What a verb does lives in the packages that it calls.

Nothing heavy is imported before a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import gc
import os


def main() -> None:
    """Entry point of the ``lakehouse`` command."""
    # What modules are made of stays: to look for cycles among it takes a tenth of `lakehouse status`.
    gc.set_threshold(20_000, 10, 10)
    # Pydantic would read what every installed package declares, in search of plugins that none of ours is: as much again.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # noqa: TID251  written, not read
    from lakehouse.cli.app import app

    app()
