"""``lakehouse doctor``"""

from __future__ import annotations

from typing import Annotated

import typer

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False) -> None:
    """Examine this installation: versions, storage, clock, disk, declarations, models, catalog, servers.

    Example: lakehouse doctor
    """
    from dataclasses import asdict

    from lakehouse.cli import exits
    from lakehouse.cli.output import print_json, say
    from lakehouse.doctor import Finding, examine
    from lakehouse.servers import daemon_state
    from lakehouse.settings import load_settings

    settings = load_settings()
    findings = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if not as_json:
            say(_MARKS[finding.state], f" {finding.what:<14} {finding.detail}")
            if finding.next_step:
                say(f"                   next: {finding.next_step}")

    for found in examine(settings):
        tell(found)
    tell(daemon_state(settings))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(exits.FAILED)


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(doctor)
