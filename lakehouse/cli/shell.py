"""The SQL shell: statements end with a semicolon, commands start with a dot. Reads the published catalog only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.cli.output import console, print_table, say
from lakehouse.cli.query import print_result
from lakehouse.errors import LakehouseError

if TYPE_CHECKING:
    from lakehouse.settings import Settings

_HELP = """  .tables            the published tables, with what one row is
  .schema TABLE      its columns, with what they mean
  .point             which restore point this is
  .quit              leave (or Ctrl-D)
  select … ;         any query, over several lines if you like"""


def run_shell(settings: Settings) -> None:
    """Read, ask, print, until `.quit` or the end of input. An error is printed, the shell goes on.

    Every statement opens the catalog anew, so that what is published meanwhile is seen.
    """
    from lakehouse.gold.query import query as ask

    ask(settings, "select 1")  # nothing published: say so before a prompt appears
    interactive = sys.stdin.isatty()
    if interactive:
        _remember(Path(settings.state_dir, "sql_history"))
        say(("lakehouse sql", "bold"), "  .tables lists what there is, .help explains, .quit leaves")
    statement: list[str] = []
    while True:
        try:
            line = _read(interactive, bool(statement))
        except EOFError:
            break
        except KeyboardInterrupt:
            statement = []
            say("")
            continue
        if not statement and line.strip().startswith("."):
            if not _command(settings, line.strip()):
                return
            continue
        if not line.strip() and not statement:
            continue
        statement.append(line)
        if line.rstrip().endswith(";"):
            _ask(settings, "\n".join(statement))
            statement = []
    if statement:  # piped input may end without a semicolon
        _ask(settings, "\n".join(statement))


def _read(interactive: bool, continued: bool) -> str:
    if not interactive:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")
    return input("   ...> " if continued else "lake> ")


def _remember(history: Path) -> None:
    """Line editing, and a history that is kept between sessions."""
    try:
        import readline
    except ImportError:  # a Python built without it: plain input still works
        return
    import atexit

    history.parent.mkdir(parents=True, exist_ok=True)
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(1000)
    atexit.register(readline.write_history_file, history)


def _ask(settings: Settings, sql: str) -> None:
    from lakehouse.gold.query import query as ask

    try:
        result = ask(settings, sql.strip().rstrip(";"))
    except LakehouseError as error:
        console().print(str(error), style="red", soft_wrap=True)
        return
    print_result(result.columns, result.rows())


def _command(settings: Settings, line: str) -> bool:
    """Run a dot command; False means leave."""
    word, _, argument = line.partition(" ")
    if word in (".quit", ".exit", ".q"):
        return False
    if word == ".tables":
        _ask(settings, 'select "schema", "table", rows, description from lakehouse_info.tables '
                       "order by \"schema\" <> 'main', \"schema\", \"table\"")  # fmt: skip
    elif word == ".schema" and argument:
        schema, _, table = argument.strip().rstrip(";").rpartition(".")
        wanted = table.replace("'", "''"), (schema or "main").replace("'", "''")
        _ask(settings, "select column_name as column, data_type as type, comment as meaning from duckdb_columns() "
                       f"where table_name = '{wanted[0]}' and schema_name = '{wanted[1]}' order by column_index")  # fmt: skip
    elif word == ".point":
        _ask(settings, "select * from lakehouse_info.restore_point")
    else:
        print_table(("command", ""), [part.strip().split("  ", 1) for part in _HELP.splitlines()])
    return True
