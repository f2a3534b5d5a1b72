"""What the storage libraries raise, translated into our own permanent and transient errors."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lakehouse.errors import CommitConflict, LakehouseError, StorageError, StorageUnavailable

#: Words in a store's message that mean "ask again later" (network, throttling, server trouble).
_TRANSIENT = re.compile(
    r"timed? ?out|connection (?:reset|refused|closed|error)|error sending request|slow ?down|throttl|too many requests"
    r"|\b(?:429|500|502|503|504)\b|temporarily unavailable|dns error|broken pipe|server error",
    re.IGNORECASE,
)
_CONFLICT = re.compile(
    r"concurrent|conflict|already exists|version .* exists|max(?:imum)? commit attempts|failed to commit transaction",
    re.IGNORECASE,
)


def is_missing(error: BaseException) -> bool:
    """True when the store says that the thing is not there, and nothing else."""
    return isinstance(error, FileNotFoundError) or type(error).__name__ in (
        "NotFoundError",
        "TableNotFoundError",
    )


def translate(error: BaseException, what: str) -> LakehouseError:
    """The error of ours that says what ``error`` means for a caller that was doing ``what``."""
    text = f"{what}: {error}"
    kind = type(error).__name__
    if isinstance(error, LakehouseError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(text, hint="free some disk space, then run again: nothing was half-committed")
    if isinstance(error, PermissionError) or re.search(
        r"permission denied|access ?denied|forbidden|\b403\b", text, re.I
    ):
        return StorageError(
            text, hint="check the permissions of the lake's root (lakehouse doctor), then run again"
        )
    if re.search(r"no space left", text, re.I):
        return StorageError(text, hint="free some disk space, then run again: nothing was half-committed")
    if kind in ("CommitFailedError", "AlreadyExistsError", "PreconditionError") or (
        kind == "DeltaError" and _CONFLICT.search(text)
    ):
        return CommitConflict(text, hint="another run was faster; run again, what is done is skipped")
    if isinstance(error, (TimeoutError, ConnectionError)) or _TRANSIENT.search(text):
        return StorageUnavailable(text, hint="the store did not answer; run again in a moment")
    return StorageError(text, hint="lakehouse doctor")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Run a block of storage calls; whatever they raise comes out as one of our errors."""
    try:
        yield
    except LakehouseError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:
        raise translate(error, what) from error
