"""Does a store keep the promise that commits rest on: of several who create one object, exactly one succeeds?"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from lakehouse.storage.objects import Objects

ROUNDS = 6
WRITERS = 6


def broken_promises(
    objects: Objects, prefix: str, *, rounds: int = ROUNDS, writers: int = WRITERS
) -> list[str]:
    """Let ``writers`` race for one name, ``rounds`` times; what went wrong, empty when nothing did.

    A store may take the conditional header and ignore it: then all are told that they have won, one after the
    other as well as at the same time. Everything written below ``prefix`` is removed again.
    """
    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            path = f"{prefix}{uuid.uuid4().hex}"
            try:
                found = _race(objects, pool, path, writers)
            finally:
                objects.delete(path)
            if found:
                return [f"{text} (race {number + 1} of {rounds})" for text in found]
    return []


def _race(objects: Objects, pool: ThreadPoolExecutor, path: str, writers: int) -> list[str]:
    start = threading.Barrier(writers)

    def create(writer: int) -> bool:
        start.wait(30)
        return objects.put_if_absent(path, f"writer {writer}".encode())

    won = [writer for writer, first in enumerate(pool.map(create, range(writers))) if first]
    content = (objects.read(path) or b"").decode(errors="replace")
    late = objects.put_if_absent(path, b"late writer")
    problems = []
    if len(won) != 1:
        problems.append(f"{len(won)} of {writers} writers were told that they had created the same object")
    elif content != f"writer {won[0]}":
        problems.append(f"writer {won[0]} was told that it had created the object, which holds {content!r}")
    if late or (objects.read(path) or b"").decode(errors="replace") != content:
        problems.append("a later writer overwrote an object that was there")
    return problems
