"""Released rows are news for gold, although no batch is."""

from __future__ import annotations

from pathlib import Path

from lakehouse.gold.restore_points import RestorePoint, save
from lakehouse.ops import backlog
from tests.quarantine.bench import Bench


def test_released_rows_wait_for_gold_until_a_point_has_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake")
    bench.land("a.csv", (1, 10, "2024-01-01"), (2, -5, "2024-01-01"))
    bench.take()

    def publish(point_id: str, replayed: int) -> None:
        txns = {"silver/orders": {"silver/orders": 1, "replay/orders": replayed}}
        sources = {"orders": {"batch_id": 1}}
        save(bench.lake, RestorePoint(id=point_id, created_at_utc="", tables={}, txns=txns, sources=sources))

    def unpublished() -> list[str]:
        return backlog.look(bench.lake, bench.settings, {"orders": bench.pipeline}).unpublished

    publish("a", 0)
    assert unpublished() == []
    bench.use("Open").replay()
    assert unpublished() == ["orders"]
    publish("b", 1)
    assert unpublished() == []
