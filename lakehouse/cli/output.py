"""Printing: tables and lines for people, JSON for programs. Errors go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from lakehouse.errors import LakehouseError

#: In a log or a pipe nothing is folded or cut.
_LOG_WIDTH = 240


#: A piece of a line: text, or text and the style that it is shown in.
Piece = str | tuple[str, str]


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr, as wide as the terminal; in a log without colours and wide.

    Text is printed as it is: what stands in square brackets or between colons may be data, and is no style or emoji.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() else _LOG_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def is_terminal() -> bool:
    """True when a person is watching."""
    return sys.stdout.isatty()


def line(*pieces: Piece) -> Text:
    """Pieces as one line of text: ``line(("Published", "green"), " restore point 7")``."""
    from rich.text import Text

    return Text.assemble(*pieces)


def say(*pieces: Piece) -> None:
    """One line on stdout, its pieces one behind the other, as they are."""
    console().print(line(*pieces), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, default=_plain, indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
) -> None:
    """A small table; the columns of ``right`` are aligned to the right (numbers)."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def cell(value: Any) -> str:
    """A value as a person reads it; NULL is shown as a dot."""
    if value is None:
        return "·"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}{'Z' if value.tzinfo else ''}"
    return str(value)


def duration(seconds: float | None) -> str:
    """``3 s``, ``12 min``, ``5.5 h``, ``3 days``."""
    if seconds is None:
        return "·"
    if seconds < 0.95:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def size(count: float) -> str:
    """Bytes in binary units: ``33.8 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def report_error(error: LakehouseError) -> None:
    """What and where, then what to run next; on stderr, without a traceback."""
    err = console(stderr=True)
    err.print("error:", style="bold red", end=" ")
    err.print(error.message, soft_wrap=True)
    if error.hint:
        err.print(f"  next: {error.hint}", soft_wrap=True)
