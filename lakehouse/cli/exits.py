"""Exit codes, and which error has which. They are part of the interface: docs/cli.md."""

from __future__ import annotations

from lakehouse import errors

OK = 0
#: A pipeline, a model or a check failed; what was published stays as it was.
FAILED = 1
#: The command line, a setting or a declaration is wrong: trying again changes nothing.
USAGE = 2
#: What was asked for is not there (yet): nothing published, no such table, nothing quarantined.
NOTHING = 3
#: A store or a source did not answer, or another run holds the lake: try again later (EX_TEMPFAIL).
TRANSIENT = 75
#: Stopped by Ctrl-C.
INTERRUPTED = 130


def exit_code(error: errors.LakehouseError) -> int:
    """The code that tells a caller what to do about ``error``."""
    if isinstance(error, errors.TransientError):
        return TRANSIENT
    if isinstance(error, errors.DeclarationError | errors.SettingsError | errors.WrongUsage):
        return USAGE
    if isinstance(error, errors.TableNotFound | errors.NothingPublished):
        return NOTHING
    return FAILED
