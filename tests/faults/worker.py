"""One of several processes that work on the same lake at the same time: ``python -m tests.faults.worker``.

Reads one JSON order from standard input, waits for the common start, prints what it committed and how it ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import lab

PROJECT = Path(__file__).parents[2]
_IMPORTS_S = 4.0


@dataclass(frozen=True)
class Report:
    """What one process did: table → batches that it committed; ``error`` is empty when it ended well."""

    committed: dict[str, list[int]] = field(default_factory=dict)
    error: str = ""
    message: str = ""


def at_once(the_lab: lab.Lab, orders: Sequence[dict[str, Any]], *, timeout_s: float = 240) -> list[Report]:
    """Run these orders as processes that start together; their reports, in the same order.

    An order: ``delivery``; optionally ``pipelines`` (names; default all), ``gold`` (build and publish, too),
    ``maintain`` (seconds of maintenance instead).
    """
    start_at = time.time() + _IMPORTS_S
    processes = []
    for order in orders:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT,
        )  # fmt: skip
        assert process.stdin is not None
        place = {"folder": str(the_lab.folder), "root": the_lab.root, "options": the_lab.options}
        process.stdin.write(json.dumps({**order, **place, "start_at": start_at}))
        process.stdin.close()
        process.stdin = None
        processes.append(process)
    reports = []
    for process in processes:
        out, err = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"ended with {process.returncode}: {err[-4000:]}"
        reports.append(Report(**json.loads(out.splitlines()[-1])))
    return reports


def _work(order: dict[str, Any]) -> Report:
    from lakehouse import ledger
    from lakehouse.bronze import ingest
    from lakehouse.errors import LakehouseError
    from lakehouse.silver import refine
    from lakehouse.storage import Lake

    the_lab = lab.Lab(Path(order["folder"]), order["root"], order["options"])
    settings = the_lab.settings()
    lake = Lake.from_settings(settings)
    declared = [p for p in lab.pipelines(order["delivery"]) if p.name in order.get("pipelines", [p.name])]
    for pipeline in declared:
        _ = pipeline.contract
    time.sleep(max(0.0, order["start_at"] - time.time()))
    committed: dict[str, list[int]] = {}
    try:
        for pipeline in declared:
            for stage in (ingest, refine):
                result = stage(lake, settings, pipeline, run_id=str(time.time_ns()))
                if result.batches:
                    committed[f"{result.stage}/{result.table}"] = list(result.batches)
        ledger.sync(lake, declared)
        if order.get("gold"):
            _publish(lake, settings, the_lab, declared)
    except LakehouseError as error:
        return Report(committed, type(error).__name__, str(error))
    return Report(committed)


def _publish(lake: Any, settings: Any, the_lab: lab.Lab, declared: list[Any]) -> None:
    from asset_checks.tables import carry_out
    from lakehouse.gold.build import build
    from lakehouse.gold.publish import publish

    for pipeline in declared:
        carry_out(lake, pipeline)
    publish(lake, settings, gold=build(lake, settings, project_dir=the_lab.project))


def _maintain(order: dict[str, Any]) -> Report:
    """Maintenance of every table again and again, while others write; the tables that it changed."""
    from lakehouse.ops.maintenance import maintain
    from lakehouse.storage import Lake

    the_lab = lab.Lab(Path(order["folder"]), order["root"], order["options"])
    settings = the_lab.settings()
    lake = Lake.from_settings(settings)
    declared = {pipeline.name: pipeline for pipeline in lab.pipelines(order["delivery"])}
    time.sleep(max(0.0, order["start_at"] - time.time()))
    compacted: dict[str, list[int]] = {}
    until = time.time() + order["maintain"]
    while time.time() < until:
        for done in maintain(lake, settings, declared, min_files=2):
            if done.error:
                return Report(compacted, "Maintenance", f"{done.name}: {done.error}")
            if done.combined:
                compacted.setdefault(done.name, []).append(done.version)
    return Report(compacted)


def main() -> None:
    order = json.loads(sys.stdin.read())
    report = _maintain(order) if "maintain" in order else _work(order)
    print(json.dumps(vars(report)))  # noqa: T201


if __name__ == "__main__":
    main()
