"""Patience with a store that does not answer: for operations that may be repeated, and for passing trouble only.

The storage libraries retry single requests for a few seconds. This is the layer above: it outlasts the restart of a
store, or an answer that breaks off half-way. Commits are not repeated here: whether one has happened must be read
first, which the stages do.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lakehouse.errors import CommitConflict, TransientError

P = ParamSpec("P")
T = TypeVar("T")

MAX_ATTEMPTS = 4
FIRST_WAIT_S = 0.5
MAX_WAIT_S = 8.0


def patient(function: Callable[P, T]) -> Callable[P, T]:
    """Repeat ``function`` while it raises a passing ``TransientError``: exponential back-off with full jitter.

    A ``CommitConflict`` is no matter of waiting, and a ``PermanentError`` is raised at once.
    """

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return function(*args, **options)
        except TransientError as error:
            if isinstance(error, CommitConflict):
                raise
            first = error
        return _again(first, lambda: function(*args, **options))

    return call


def _again(first: TransientError, act: Callable[[], T]) -> T:
    # Imported where something has gone wrong already: it costs every start of the command line otherwise.
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    failed: list[TransientError] = [first]

    def attempt() -> T:
        if failed:
            raise failed.pop()
        return act()

    retrying = Retrying(
        retry=retry_if_exception(_is_passing),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=MAX_WAIT_S),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        sleep=_sleep,
        reraise=True,
    )
    return retrying(attempt)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, TransientError) and not isinstance(error, CommitConflict)


def _sleep(seconds: float) -> None:
    # Never less than a moment: full jitter may draw nothing at all.
    time.sleep(max(seconds, random.uniform(0.02, 0.1)))
