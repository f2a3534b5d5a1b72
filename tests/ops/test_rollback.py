"""The lake back to an earlier restore point, and on from there: nothing lost, nothing doubled, readers first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import pytest

from lakehouse import events, hold
from lakehouse.errors import StorageError, WrongUsage
from lakehouse.gold.publish import heal
from lakehouse.gold.restore_points import current_id
from lakehouse.ops import rollback
from lakehouse.storage import Objects, stands
from tests.faults import lab
from tests.faults.lab import Lab
from tests.ops.two_deliveries import (
    TABLES,
    assert_reconciled,
    fresh,
    go_back,
    lake_of,
    new_lab,
    points,
    refused,
    shown,
    tables,
)

pytestmark = pytest.mark.slow


def test_everything_is_as_it_was_and_the_next_run_takes_the_rest_once(two_deliveries: Lab) -> None:
    first, second = points(two_deliveries)
    then, now = tables(two_deliveries, first), tables(two_deliveries)
    before, kept = shown(two_deliveries), refused(two_deliveries)
    assert then != now
    bronze = {
        name: lake_of(two_deliveries).table("bronze", name).snapshot().version
        for name in ("orders", "clicks")
    }

    made = go_back(two_deliveries, first, "wrong prices")
    assert tables(two_deliveries) == then, "rows and columns, also of tables whose contract has grown since"
    assert (made.restored_from, made.made_by, made.note) == (first.id, "ada", "wrong prices")
    assert (made.sources, made.watermarks) == (first.sources, first.watermarks)
    assert current_id(lake_of(two_deliveries)) == made.id
    assert shown(two_deliveries) != before
    lake = lake_of(two_deliveries)
    assert bronze == {name: lake.table("bronze", name).snapshot().version for name in bronze}, (
        "what arrived stays"
    )
    assert refused(two_deliveries) == kept, "what was refused stays"
    assert [event.kind for event in events.recent(lake, limit=1)] == ["rollback"]

    rollback.resume(lake, two_deliveries.settings(), by="ada")
    lab.run(two_deliveries, 2)
    assert tables(two_deliveries) == now
    assert shown(two_deliveries) == before
    assert refused(two_deliveries) == kept
    assert points(two_deliveries)[-1].sources == second.sources
    assert_reconciled(two_deliveries)


def test_what_was_left_can_be_gone_back_to(two_deliveries: Lab) -> None:
    first, second = points(two_deliveries)
    now, before = tables(two_deliveries), shown(two_deliveries)
    go_back(two_deliveries, first)
    go_back(two_deliveries, second)
    assert tables(two_deliveries) == now
    assert shown(two_deliveries) == before
    rollback.resume(lake_of(two_deliveries), two_deliveries.settings(), by="ada")
    lab.arrive(two_deliveries, 3)
    lab.run(two_deliveries, 3)
    assert_reconciled(two_deliveries, 3)


def test_rows_of_a_history_of_rollbacks_are_those_of_a_lake_that_was_never_rolled_back(
    two_deliveries: Lab, tmp_path: Path
) -> None:
    undisturbed = new_lab(tmp_path / "other")
    for delivery in (1, 2, 3):
        lab.arrive(undisturbed, delivery)
        lab.run(undisturbed, delivery)
    first = points(two_deliveries)[0]
    for _ in range(2):
        go_back(two_deliveries, first)
        rollback.resume(lake_of(two_deliveries), two_deliveries.settings(), by="ada")
        lab.run(two_deliveries, 2)
    lab.arrive(two_deliveries, 3)
    lab.run(two_deliveries, 3)
    assert tables(two_deliveries) == tables(undisturbed)
    assert refused(two_deliveries) == refused(undisturbed)
    assert shown(two_deliveries) == shown(undisturbed)


class _Cut(BaseException):
    """The process ends here."""


def _cuts(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], None]:
    """From the ``at``-th write on nothing is written any more; the returned function undoes that."""
    done = 0
    real = {name: getattr(Objects, name) for name in ("write", "put_if_absent", "delete")}

    def cut(name: str) -> Any:
        def act(self: Objects, *arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done >= at:
                raise _Cut
            return real[name](self, *arguments, **options)

        return act

    for name in real:
        monkeypatch.setattr(Objects, name, cut(name))

    def undo() -> None:
        for name, function in real.items():
            monkeypatch.setattr(Objects, name, function)

    return undo


def test_killed_anywhere_the_same_rollback_again_ends_it(
    made_once: tuple[Lab, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    at, ended = 0, False
    while not ended:
        at += 1
        the_lab = fresh(made_once)
        first, now, before = points(the_lab)[0], tables(the_lab), shown(the_lab)
        then = tables(the_lab, first)
        undo = _cuts(monkeypatch, at)
        try:
            go_back(the_lab, first)
            ended = True
        except _Cut:
            pass
        undo()
        lake = lake_of(the_lab)
        heal(lake, the_lab.settings())
        assert (hold.current(lake) is None) == (at == 1), "held from the first write on"
        if not ended:
            go_back(the_lab, first)
        assert tables(the_lab) == then
        if at in (2, 4, 7, 11):
            rollback.resume(lake, the_lab.settings(), by="ada")
            lab.run(the_lab, 2)
            assert tables(the_lab) == now
            assert shown(the_lab) == before
            assert_reconciled(the_lab)
    assert at > len(TABLES) + 4, (
        "the hold, the pointer, a commit each, the point, the pointer, the hold, the event"
    )


def test_a_table_of_after_the_point_is_made_again_from_bronze(tmp_path: Path) -> None:
    the_lab = new_lab(tmp_path / "lab")
    late = {name: (the_lab.project / "models" / name) for name in ("click_log.sql", "order_facts.sql")}
    texts = {path: path.read_text() for path in late.values()}
    for path in texts:
        path.unlink()
    lab.arrive(the_lab, 1)
    lab.run(the_lab, 1)
    first = points(the_lab)[0]
    for path, text in texts.items():
        path.write_text(text)
    lab.arrive(the_lab, 2)
    lab.run(the_lab, 2)
    now = tables(the_lab)
    go_back(the_lab, first)
    lake = lake_of(the_lab)
    assert [lake.table("gold", name).snapshot().num_rows() for name in ("click_log", "order_facts")] == [0, 0]
    assert "main.click_log" not in shown(the_lab)
    assert not stands(lake.table("gold", "click_log").snapshot(), 0)
    rollback.resume(lake, the_lab.settings(), by="ada")
    lab.run(the_lab, 2)
    assert tables(the_lab) == now, "an appending model would count twice what it had"


def test_only_what_a_version_goes_on_from_stands(two_deliveries: Lab) -> None:
    first, second = points(two_deliveries)
    lake = lake_of(two_deliveries)
    made = go_back(two_deliveries, first)
    newest = lake.table("silver", "orders").snapshot()
    versions = [point.tables["silver/orders"] for point in (first, second, made)]
    assert [stands(newest, version) for version in [*versions, newest.version + 1]] == [
        True,
        False,
        True,
        False,
    ]


def test_a_point_whose_files_are_gone_changes_nothing(two_deliveries: Lab) -> None:
    first, lake = points(two_deliveries)[0], lake_of(two_deliveries)
    table = lake.table("silver", "orders")
    then, now = (set(table.snapshot(v).files()["path"]) for v in (first.tables["silver/orders"], None))
    gone = sorted(then - now) or sorted(then)
    table.objects.delete(gone[0])
    with pytest.raises(StorageError, match="are not there any more"):
        rollback.plan(lake, first)
    assert hold.current(lake) is None


def test_the_plan_says_what_is_undone(two_deliveries: Lab) -> None:
    first, second = points(two_deliveries)
    lake = lake_of(two_deliveries)
    steps = {step.name: step for step in rollback.plan(lake, first)}
    assert steps["silver.orders"].batches == 1
    assert steps["silver.orders"].target == first.tables["silver/orders"]
    assert not steps["gold.customers"].is_there
    assert all(step.is_there for step in rollback.plan(lake, second))
    go_back(two_deliveries, first)
    assert all(step.is_there for step in rollback.plan(lake, first)), (
        "restored versions have the point's rows"
    )


def test_points_are_found_by_name_beginning_and_time(two_deliveries: Lab) -> None:
    lake, (first, second) = lake_of(two_deliveries), points(two_deliveries)
    assert rollback.find_point(lake, first.id) == first
    assert rollback.find_point(lake, second.id[:22]) == second
    assert rollback.find_point(lake, first.created_at_utc) == first
    assert rollback.find_point(lake, "2999-01-01") == second
    with pytest.raises(WrongUsage, match="no restore point was made at or before 2001-01-01"):
        rollback.find_point(lake, "2001-01-01T00:00")
    with pytest.raises(WrongUsage, match=f"may be {first.id}, {second.id}"):
        rollback.find_point(lake, "20")
    with pytest.raises(WrongUsage, match="write more of the name"):
        rollback.find_point(lake, second.id[:15])
    with pytest.raises(WrongUsage, match="no restore point, and no time, is 'yesterday'"):
        rollback.find_point(lake, "yesterday")


def test_other_readers_of_delta_see_the_restored_rows(two_deliveries: Lab) -> None:
    """Of a table with deletion vectors, whose restored files have others than the newest had."""
    first, lake = points(two_deliveries)[0], lake_of(two_deliveries)
    assert lake.table("silver", "orders").snapshot().has_deletions
    go_back(two_deliveries, first)
    restored = deltalake.DeltaTable(lake.table("silver", "orders").uri)
    assert restored.metadata().configuration["delta.enableDeletionVectors"] == "true", (
        "later commits write them"
    )
    assert restored.history(1)[0]["operation"] == "RESTORE"
    query = deltalake.QueryBuilder().register("orders", restored)
    rows = query.execute("select count(*) as n from orders").read_all()["n"][0].as_py()
    assert rows == lake.table("silver", "orders").snapshot(first.tables["silver/orders"]).num_rows()
    assert restored.transaction_version("silver/orders") == first.txns["silver/orders"]["silver/orders"]
