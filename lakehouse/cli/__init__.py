"""The command line: parsing and printing only. What a verb does lives in the packages that it calls.

Nothing heavy is imported before a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``lakehouse`` command."""
    from lakehouse.cli.app import app

    app()
