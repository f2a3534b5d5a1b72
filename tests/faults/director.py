"""The other end of a campaign: starts it as a process of its own, sends it runs, reads what came out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.faults.boundaries import Boundary

PROJECT = Path(__file__).parents[2]


@dataclass
class Director:
    """A campaign that has made its undisturbed lake and waits for runs."""

    process: subprocess.Popen[str]
    seconds: dict[int, float]
    boundaries: dict[int, list[Boundary]]

    def at(self, delivery: int, boundary: Boundary) -> dict[str, Any]:
        return self._ask({"delivery": delivery, "boundary": vars(boundary)})

    def at_random(self, delivery: int, seed: int) -> dict[str, Any]:
        return self._ask({"delivery": delivery, "seed": seed})

    def whole_life(self, seed: int) -> dict[str, Any]:
        return self._ask({"whole": True, "seed": seed})

    def _ask(self, item: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(item) + "\n")
        self.process.stdin.flush()
        return _answer(self.process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise RuntimeError(f"the campaign ended: {process.stderr.read()[-6000:]}")
    return json.loads(line)  # type: ignore[no-any-return]


@contextmanager
def campaign(
    folder: Path, root: str | None = None, options: dict[str, str] | None = None
) -> Iterator[Director]:
    """A campaign in ``folder``; the lake itself is at ``root`` when that is given."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.campaign"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(
            json.dumps({"folder": str(folder), "root": root, "options": options or {}}) + "\n"
        )
        process.stdin.flush()
        ready = _answer(process)
        yield Director(
            process,
            {int(delivery): seconds for delivery, seconds in ready["seconds"].items()},
            {int(d): [Boundary(**b) for b in found] for d, found in ready["boundaries"].items()},
        )
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.terminate()
        process.wait(30)


def spread(boundaries: dict[int, list[Boundary]], count: int) -> list[tuple[int, Boundary]]:
    """``count`` boundaries, every kind in turn, at ever other tables and deliveries; fewer when there are no more."""
    kinds: dict[str, list[tuple[int, Boundary]]] = {}
    for delivery, found in boundaries.items():
        for boundary in found:
            kinds.setdefault(boundary.label, []).append((delivery, boundary))
    rng = random.Random(0)
    for places in kinds.values():
        rng.shuffle(places)
    rounds = zip_longest(*kinds.values())
    return [place for turn in rounds for place in turn if place is not None][:count]
