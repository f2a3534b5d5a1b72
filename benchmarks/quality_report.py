"""The quality benchmark's result as the tables of docs/quality.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "quality.md"
BEGIN, END = "<!-- result -->\n", "<!-- end -->\n"


def as_markdown(result: Mapping[str, Any]) -> str:
    """The tables of docs/quality.md."""
    lines = [
        f"{result['rows']['flights']:,} flights and {result['rows']['weather']:,} observations, seed {result['seed']}: "
        f"**{result['caught']:,} of {result['injected']:,} corruptions caught ({result['recall']:.3%})**, "
        f"{result['false_positives']} of {result['sound_rows']:,} sound rows refused, "
        f"{result['sound_rows_with_other_values']} changed.",
        "",
        "| table | level | corruption | injected | must be | caught | recall | sound rows refused |",
        "|---|---|---|--:|---|--:|--:|--:|",
    ]
    for kind in result["kinds"]:
        share = kind["caught"] / kind["injected"] if kind["injected"] else 0.0
        lines.append(
            f"| {kind['table']} | {kind['level']} | {kind['kind']} | {kind['injected']} | {kind['expect']} "
            f"| {kind['caught']} | {share:.1%} | {kind['false_positives']} |"
        )
    lines += ["", "| corruption of a whole file | must be | files | right |", "|---|---|--:|--:|"]
    for name in dict.fromkeys(found["kind"] for found in result["files"]):
        mine = [found for found in result["files"] if found["kind"] == name]
        lines.append(
            f"| {name} | {mine[0]['expect']} | {len(mine)} | {sum(found['right'] for found in mine)} |"
        )
    return "\n".join(lines) + "\n"


def write_page(result: Mapping[str, Any]) -> None:
    """Put the tables between the page's marks; the text around them stays."""
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(head + BEGIN + as_markdown(result) + END + rest.partition(END)[2])
