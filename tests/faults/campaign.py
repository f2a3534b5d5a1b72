"""Kill a real process at a boundary or at a random instant, start it again, compare with an undisturbed lake.

``python -m tests.faults.campaign FOLDER`` imports everything once and forks a child for every run, so that a run
costs a fraction of a second of start-up. This process itself never computes anything: a fork after a thread pool
has been used would hang. Plans come as JSON lines on standard input, results go out as JSON lines.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults import boundaries, inventory, lab
from tests.faults.boundaries import Boundary, Tripwire

_CHILD_LIMIT_S = 120.0


class ChildFailed(Exception):
    """A child that should have ended well did not; carries its output."""


class Campaign:
    """One lab, its undisturbed lake after each delivery, and the runs that are compared with it."""

    def __init__(self, folder: Path, root: str | None = None, options: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.root = root or str(folder / "lake")
        self.lab = lab.Lab(folder, self.root, options or {})
        self.expected: dict[int, dict[str, Any]] = {}
        self.boundaries: dict[int, list[Boundary]] = {}
        self.seconds: dict[int, float] = {}

    # -- processes ---------------------------------------------------------------------------------

    def _fork(self, act: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.setsid()
            log = os.open(self.folder / "child.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            act()
            code = 0
        except BaseException:  # noqa: BLE001  whatever it was, the parent is told
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, pid: int, kill_after_s: float | None = None) -> int:
        """The child's status; it is killed after ``kill_after_s``, or when it hangs."""
        deadline = time.monotonic() + (kill_after_s if kill_after_s is not None else _CHILD_LIMIT_S)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                if kill_after_s is None:
                    raise ChildFailed(f"a child hung for {_CHILD_LIMIT_S:.0f} s\n{self._log()}")
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)

    def _do(self, act: Callable[[], None]) -> None:
        if self._wait(self._fork(act)) != 0:
            raise ChildFailed(self._log())

    def _log(self) -> str:
        return (self.folder / "child.log").read_text()[-6000:]

    def _run(self, delivery: int, wire: Tripwire | None = None) -> Callable[[], None]:
        def act() -> None:
            if wire is not None:
                boundaries.install(wire)
            lab.run(self.lab, delivery)

        return act

    def _inventory(self, *, same_batches: bool = True) -> dict[str, Any]:
        path = self.folder / "inventory.json"
        self._do(
            lambda: (
                path.write_text(json.dumps(inventory.take(self.lab, same_batches=same_batches)), "utf-8")
                and None
            )
        )  # type: ignore[func-returns-value]
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    # -- checkpoints: the lake as it was before a delivery --------------------------------------------

    def prepare(self) -> None:
        """Run all deliveries undisturbed; keep the lake before each, its contents after it, and the boundaries."""
        self.lab.write_project()
        self._reset()
        for delivery in lab.DELIVERIES:
            self._keep(delivery)
            lab.arrive(self.lab, delivery)
            log = self.folder / f"boundaries-{delivery}"
            started = time.monotonic()
            self._do(self._run(delivery, Tripwire(log=log)))
            self.seconds[delivery] = time.monotonic() - started
            self.boundaries[delivery] = boundaries.read_log(log)
            self.expected[delivery] = self._inventory()
        self.loose = self._inventory(same_batches=False)

    @property
    def _remote(self) -> bool:
        return "://" in self.root

    def _places(self) -> list[Path]:
        return [*self.lab.local_state, self.lab.landing, *([] if self._remote else [Path(self.root)])]

    def _reset(self) -> None:
        for place in self._places():
            shutil.rmtree(place, ignore_errors=True)
        if self._remote:
            self._do(lambda: _copy_objects(self.lab, None))

    def _keep(self, delivery: int) -> None:
        kept = self.folder / "kept" / str(delivery)
        for place in self._places():
            if place.exists():
                shutil.copytree(place, kept / place.name)
        if self._remote:
            self._do(lambda: _copy_objects(self.lab, kept / "objects", out=True))

    def _restore(self, delivery: int) -> None:
        kept = self.folder / "kept" / str(delivery)
        for place in self._places():
            shutil.rmtree(place, ignore_errors=True)
            if (kept / place.name).exists():
                shutil.copytree(kept / place.name, place)
        # The parsed dbt project may stay: it is a cache, and parsing takes longer than everything else.
        cache = self.folder / "kept" / "2" / "state"
        if delivery == 1 and cache.exists():
            shutil.copytree(cache / "dbt", self.folder / "state" / "dbt")
        if self._remote:
            self._do(lambda: _copy_objects(self.lab, kept / "objects"))

    # -- disturbed runs ---------------------------------------------------------------------------------

    def at_boundary(self, delivery: int, boundary: Boundary) -> dict[str, Any]:
        """Kill there, start again, compare."""
        self._restore(delivery)
        lab.arrive(self.lab, delivery)
        code = self._wait(self._fork(self._run(delivery, Tripwire(kill_at=boundary))))
        return self._judge(
            delivery, boundary.label, f"delivery {delivery}, {boundary}", code, -signal.SIGKILL
        )

    def at_random(self, delivery: int, rng: random.Random) -> dict[str, Any]:
        """Kill at one to three random instants in a row, start again, compare."""
        self._restore(delivery)
        lab.arrive(self.lab, delivery)
        instants = [rng.uniform(0.02, 1.0) * self.seconds[delivery] for _ in range(rng.choice([1, 1, 2, 3]))]
        code = 0
        for instant in instants:
            code = self._wait(self._fork(self._run(delivery)), kill_after_s=instant)
        where = ", ".join(f"{instant:.2f} s" for instant in instants)
        return self._judge(delivery, "random instant", f"delivery {delivery}, after {where}", code, code)

    def whole_life(self, rng: random.Random) -> dict[str, Any]:
        """All deliveries, each run killed, the next delivery there before the restart; compared at the end."""
        self._restore(1)
        for delivery in lab.DELIVERIES:
            lab.arrive(self.lab, delivery)
            self._wait(
                self._fork(self._run(delivery)), kill_after_s=rng.uniform(0.05, 1.0) * self.seconds[delivery]
            )
        return self._judge(
            3, "random instant of every delivery", "no restart between deliveries", 0, 0, same_batches=False
        )

    def _judge(
        self, delivery: int, label: str, where: str, code: int, wanted: int, *, same_batches: bool = True
    ) -> dict[str, Any]:
        lines: list[str] = []
        started = time.monotonic()
        if code != wanted:
            lines.append(f"the disturbed run ended with {code}, not {wanted}: {self._log()}")
        try:
            self._do(self._run(delivery))
            recovered_s = time.monotonic() - started
            expected = self.expected[delivery] if same_batches else self.loose
            lines += inventory.differences(expected, self._inventory(same_batches=same_batches))
        except ChildFailed as failure:
            recovered_s = time.monotonic() - started
            lines.append(str(failure))
        return {
            "label": label,
            "where": where,
            "recovered_s": round(recovered_s, 2),
            "differences": lines[:20],
        }


def _copy_objects(the_lab: lab.Lab, folder: Path | None, *, out: bool = False) -> None:
    """Make the remote lake what ``folder`` holds (None: empty), or the other way round."""
    from lakehouse.storage import Objects

    objects = Objects(the_lab.root, the_lab.options)
    if out:
        assert folder is not None
        for info in objects.list():
            path = folder / info.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(objects.read(info.path) or b"")
        return
    objects.remove_tree("")
    for path in sorted(folder.rglob("*")) if folder is not None and folder.exists() else []:
        if path.is_file():
            objects.write(str(path.relative_to(folder)), path.read_bytes())  # type: ignore[arg-type]


def _warm_up() -> None:
    """Import what the children need, without starting a thread pool."""
    import dbt.cli.main
    import deltalake
    import duckdb
    import obstore
    import pyarrow.parquet

    import tests.faults.contracts  # noqa: F401  so that children have it

    _ = dbt, deltalake, duckdb, obstore, pyarrow


def main() -> None:
    order = json.loads(sys.stdin.readline())
    _warm_up()
    campaign = Campaign(Path(order["folder"]), order.get("root"), order.get("options"))
    campaign.prepare()
    tell: dict[str, Any] = {
        "seconds": campaign.seconds,
        "boundaries": {d: [asdict(b) for b in found] for d, found in campaign.boundaries.items()},
    }
    print(json.dumps(tell), flush=True)  # noqa: T201
    for line in sys.stdin:
        item = json.loads(line)
        rng = random.Random(item.get("seed"))
        if "boundary" in item:
            result = campaign.at_boundary(item["delivery"], Boundary(**item["boundary"]))
        elif item.get("whole"):
            result = campaign.whole_life(rng)
        else:
            result = campaign.at_random(item["delivery"], rng)
        print(json.dumps(result), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
