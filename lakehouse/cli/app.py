"""The command tree, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lakehouse.cli import exits
from lakehouse.errors import LakehouseError


class _Reporting(TyperGroup):
    """A command group that turns our errors into one message, a next step and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. A traceback is shown with --debug only."""
        try:
            return super().invoke(ctx)
        except LakehouseError as error:
            from lakehouse.cli.output import report_error

            if ctx.params.get("debug"):
                raise
            report_error(error)
            raise typer.Exit(exits.exit_code(error)) from error
        except KeyboardInterrupt:
            sys.stderr.write("\nstopped; what was committed stays, the rest is taken up by the next run\n")
            raise typer.Exit(exits.INTERRUPTED) from None
        except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
            sys.stderr.close()
            raise typer.Exit(exits.OK) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # the last line of defence before a person
            if ctx.params.get("debug") or _is_usage_error(error):
                raise
            sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
            sys.stderr.write(
                "  next: this is a defect of lakehouse; run again with `lakehouse --debug …` for the traceback\n"
            )
            raise typer.Exit(exits.FAILED) from error


def _is_usage_error(error: Exception) -> bool:
    return any(kind.__name__ in ("ClickException", "UsageError") for kind in type(error).__mro__)


app = typer.Typer(
    name="lakehouse",
    cls=_Reporting,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Files in, published tables out: bronze, silver and gold on Delta, checked before anybody reads them.",
    epilog="Settings are environment variables (docs/settings.md); LAKEHOUSE_ROOT says where the lake is. "
    "Exit codes: 0 good, 1 something failed, 2 wrong usage or declaration, 3 nothing there yet, 75 try again later.",
)


@app.callback()
def _global(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every verb."""


def _register() -> None:
    from lakehouse.cli import (
        accept,
        backfill,
        demo,
        doctor,
        maintain,
        new,
        quarantine,
        query,
        reconcile,
        rollback,
        run,
        status,
        up,
        validate,
    )

    for module in (
        demo,
        run,
        status,
        query,
        quarantine,
        backfill,
        accept,
        reconcile,
        rollback,
        maintain,
        new,
        validate,
        doctor,
        up,
    ):
        module.register(app)


_register()
