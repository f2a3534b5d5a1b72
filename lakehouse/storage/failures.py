"""What the storage libraries raise, translated into our own permanent and transient errors."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse.errors import CommitConflict, LakehouseError, StorageError, StorageUnavailable

#: Words in a store's message that mean "ask again later" (network, throttling, server trouble).
_TRANSIENT = re.compile(
    r"timed? ?out|connection (?:reset|refused|closed|error)|error sending request|slow ?down|throttl|too many requests"
    r"|\b(?:429|500|502|503|504)\b|temporarily unavailable|dns error|broken pipe|server error"
    r"|server returned nothing|could not (?:connect|establish connection)|error decoding response body|unexpected eof"
    r"|resource busy|text file busy|stale file handle",
    re.IGNORECASE,
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_SPACE = re.compile(r"no space left|quota exceeded|file too large", re.IGNORECASE)
_REFUSED = re.compile(
    r"permission denied|access ?denied|forbidden|\b403\b|read-only file system|operation not permitted",
    re.IGNORECASE,
)
#: What the operating system says of a file that somebody else holds for a moment.
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT}
#: How the engines begin what they say of files and stores: other messages may quote data, "503" included.
_FROM_A_STORE = re.compile(
    r"object-store error|generic \w+ error|\bHTTP\b|\bIO Error|os error \d", re.IGNORECASE
)
_MAKE_ROOM = "free some disk space, then run again: nothing was half-committed"
_HARDLY_ANYTHING_BYTES = 1 << 20
_NO_IDEA = "lakehouse doctor"
_TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
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


def is_out_of_space(error: BaseException) -> bool:
    """True when a disk is full, or a quota or a limit on files reached."""
    return (isinstance(error, OSError) and error.errno in _FULL) or bool(_NO_SPACE.search(str(error)))


def translate(error: BaseException, what: str) -> LakehouseError:
    """The error of ours that says what ``error`` means for a caller that was doing ``what``."""
    text = _TERMINAL_COLOURS.sub("", f"{what}: {error}")
    kind = type(error).__name__
    if isinstance(error, LakehouseError):
        return error
    if is_out_of_space(error):
        return StorageError(text, hint=_MAKE_ROOM)
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return StorageError(
            text, hint="check the permissions of the lake's root (lakehouse doctor), then run again"
        )
    if kind in ("CommitFailedError", "AlreadyExistsError", "PreconditionError") or (
        kind == "DeltaError" and _CONFLICT.search(text)
    ):
        return CommitConflict(text, hint="another run was faster; run again, what is done is skipped")
    busy = isinstance(error, OSError) and error.errno in _BUSY
    if busy or isinstance(error, (TimeoutError, ConnectionError)) or _TRANSIENT.search(text):
        return StorageUnavailable(text, hint="the store did not answer; run again in a moment")
    return StorageError(text, hint=_NO_IDEA)


@contextmanager
def translated(what: str, folder: Path | None = None) -> Iterator[None]:
    """Run a block of storage calls; whatever they raise comes out as one of our errors.

    ``folder`` is where the block writes: an error that nobody can read, on a disk that is full, means that.
    """
    try:
        yield
    except LakehouseError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:
        found = translate(error, what)
        if found.hint == _NO_IDEA and folder is not None and _is_full(folder):
            found = StorageError(f"{found.message} (no space left on the disk of {folder})", hint=_MAKE_ROOM)
        raise found from error


def _is_full(folder: Path) -> bool:
    """True when hardly a file more fits. A writer's last words often hide why it could not end its file."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free < _HARDLY_ANYTHING_BYTES


def store_trouble(error: BaseException, what: str) -> LakehouseError | None:
    """Our error for an engine's that speaks of a file or a store; None when it speaks of something else."""
    if isinstance(error, LakehouseError):
        return error
    if not isinstance(error, OSError) and not _FROM_A_STORE.search(str(error)):
        return None
    found = translate(error, what)
    return None if found.hint == _NO_IDEA else found


@contextmanager
def engine_translated(what: str) -> Iterator[None]:
    """Around a whole stage: an engine's error that means a store's trouble comes out as ours, every other as it is.

    The engines read remote files on their own, in the middle of a query, where nothing else translates.
    """
    try:
        yield
    except (LakehouseError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except Exception as error:
        found = store_trouble(error, what)
        if found is not None:
            raise found from error
        raise
