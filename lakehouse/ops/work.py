"""What the next run should do: every pipeline with news in one run, without those that keep failing.

A pure decision over the backlog and the open failures. One poisoned source must not keep the others from
gold: it is retried on its own, with exponential back-off, while the rest goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lakehouse.ops.backlog import Backlog
from lakehouse.ops.failures import Failure

#: An open failure waits this many intervals (of looks or of runs, the longer) before its first retry, then twice as long each time.
FIRST_WAIT_INTERVALS = 2


@dataclass(frozen=True)
class Work:
    """``sources`` go through bronze and silver in one run, followed by gold and publish when ``with_gold``.

    ``retries`` are run apart, bronze and silver only. ``postponed`` says when what keeps failing is due.
    """

    sources: tuple[str, ...] = ()
    with_gold: bool = False
    retries: tuple[str, ...] = ()
    postponed: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def has_main(self) -> bool:
        return bool(self.sources) or self.with_gold


def next_tries(
    open_failures: Mapping[tuple[str, str | None], Failure], first_wait_s: float
) -> dict[str, datetime]:
    """When each source that fails, or stage without a source, is tried again: when all that failed of it may be."""
    tries: dict[str, datetime] = {}
    for (stage, source), failure in open_failures.items():
        name, at = source or stage, failure.retry_at_utc(first_wait_s)
        tries[name] = max(at, tries.get(name, at))
    return tries


def decide(
    seen: Backlog,
    open_failures: Mapping[tuple[str, str | None], Failure],
    now_utc: datetime,
    *,
    gold_code_hash: str | None,
    first_wait_s: float,
) -> Work:
    """What is due now.

    Args:
        gold_code_hash: hash of the dbt project; other than the published one, gold is due without any arrival.
            None: not known (the project does not parse), which is no reason to build.
    """
    outstanding = sorted({*seen.unstaged, *seen.unpublished})
    # What failed last in a pipeline that has been deleted since cannot be run again, and holds up nothing.
    still = {key: found for key, found in open_failures.items() if key[1] is None or key[1] in seen.positions}
    tries = next_tries(still, first_wait_s)
    due = {name: at <= now_utc for name, at in tries.items()}
    postponed = {name: at for name, at in tries.items() if at > now_utc}
    failing = {source for _, source in still if source is not None}
    healthy = tuple(source for source in outstanding if source not in failing)
    gold_may_run = all(due.get(stage, True) for stage in ("gold", "publish"))
    code_changed = (
        seen.point is not None and gold_code_hash is not None and seen.point.gold_code_hash != gold_code_hash
    )
    # A gold failure that is due again is work even when every source that it concerns is published.
    gold_due = gold_may_run and (bool(healthy) or code_changed or "gold" in due or "publish" in due)
    unstaged = tuple(source for source in healthy if source in seen.unstaged)
    return Work(
        sources=healthy if gold_due else unstaged,
        with_gold=gold_due,
        retries=tuple(sorted(source for source in failing if due.get(source, True))),
        postponed=postponed,
    )
