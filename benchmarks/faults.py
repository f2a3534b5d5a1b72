"""Kill the pipeline many times, restart it, and compare: the crash matrix of docs/faults.md.

    python benchmarks/faults.py --runs 200
    python benchmarks/faults.py --runs 100 --store seaweedfs --json faults.json --docs docs/faults.md

Half of the runs are killed at commit boundaries (every kind, at ever other tables and deliveries; with ``--every``
at every boundary of every table and delivery, beside the others), the others at random instants, one in ten in all
three deliveries without a restart between them. Exits with 1 when a row was
lost, doubled or changed anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults.director import Director, campaign, spread
from tests.servers import seaweedfs


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="how many processes to kill")
    parser.add_argument(
        "--every", action="store_true", help="every boundary there is, beside RUNS random instants"
    )
    parser.add_argument("--store", choices=["local", "seaweedfs"], default="local", help="where the lake is")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the random instants")
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--docs", type=Path, help="replace the store's table in this page")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        _campaign(chosen.store, Path(folder)) as director,
    ):
        results = _kill(director, chosen.runs, chosen.seed, every=chosen.every)
    seconds = time.monotonic() - started
    table = _table(results)
    print(table)
    broken = [result for result in results if result["differences"]]
    summary = f"{len(results)} runs on {chosen.store}, {len(broken)} with a difference, {seconds:.0f} s"
    print(f"\n{summary}")
    for result in broken:
        print(f"\n{result['where']}\n  " + "\n  ".join(result["differences"]))
    if chosen.json:
        document = {"store": chosen.store, "seed": chosen.seed, "seconds": round(seconds), "runs": results}
        chosen.json.write_text(json.dumps(document, indent=1))
    if chosen.docs:
        _publish(chosen.docs, chosen.store, f"{summary}, {datetime.now(UTC):%Y-%m-%d}.\n\n{table}")
    return 1 if broken else 0


@contextmanager
def _campaign(store: str, folder: Path) -> Iterator[Director]:
    with contextlib.ExitStack() as stack:
        if store == "local":
            yield stack.enter_context(campaign(folder / "lab"))
        else:
            server = stack.enter_context(seaweedfs(folder / "seaweedfs"))
            yield stack.enter_context(campaign(folder / "lab", server.root("lab"), server.options))


def _kill(director: Director, runs: int, first_seed: int, *, every: bool) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    there = sum(len(found) for found in director.boundaries.values())
    print(f"{there} boundaries", file=sys.stderr, flush=True)

    def keep(result: dict[str, Any]) -> None:
        results.append(result)
        mark = "ok" if not result["differences"] else "DIFFERENT"
        print(f"{len(results):>4} {mark:<10}{result['where']}", file=sys.stderr, flush=True)

    for delivery, boundary in spread(director.boundaries, there if every else runs // 2):
        keep(director.at(delivery, boundary))
    lives = runs // 10
    instants = runs - lives if every else runs - len(results) - lives
    for seed in range(first_seed, first_seed + instants):
        keep(director.at_random(seed % 3 + 1, seed))
    for seed in range(first_seed, first_seed + lives):
        keep(director.whole_life(seed))
    return results


def _table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: one row per kind of kill, in the order in which a run comes to them."""
    lines = ["| killed | runs | same as undisturbed | slowest recovery (s) |", "|---|---:|---:|---:|"]
    for label in dict.fromkeys(result["label"] for result in results):
        mine = [result for result in results if result["label"] == label]
        same = sum(not result["differences"] for result in mine)
        lines.append(f"| {label} | {len(mine)} | {same} | {max(r['recovered_s'] for r in mine):.1f} |")
    return "\n".join(lines)


def _publish(page: Path, store: str, text: str) -> None:
    """Put the table between the store's marks."""
    begin, end = f"<!-- faults {store} -->", f"<!-- /faults {store} -->"
    before = page.read_text()
    if begin not in before:
        raise SystemExit(f"{page} has no {begin}")
    page.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", before, flags=re.DOTALL))


if __name__ == "__main__":
    raise SystemExit(main())
