"""The lake back to an earlier restore point, and on from there: nothing lost, nothing doubled, readers first."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest

from lakehouse import events, hold
from lakehouse.bronze import ingest
from lakehouse.errors import RunsHeld, StorageError, WrongUsage
from lakehouse.gold.build import build
from lakehouse.gold.catalog import shown_point_id
from lakehouse.gold.publish import heal, list_ids, load, publish
from lakehouse.gold.restore_points import RestorePoint, current_id
from lakehouse.ops import rollback, watch
from lakehouse.ops.maintenance import maintain
from lakehouse.ops.reconcile import reconcile
from lakehouse.storage import Lake, Objects, stands
from tests.faults import inventory, lab
from tests.faults.lab import Lab

pytestmark = pytest.mark.slow

#: Differ between two lakes that saw the same: the clock, who ran, and where the landing folder is.
_VOLATILE = inventory._VOLATILE | {"_source_file"}
#: The package has functions of these names.
refine_module = importlib.import_module("lakehouse.silver.refine")
publish_module = importlib.import_module("lakehouse.gold.publish")
_TABLES = [(layer, name) for layer, names in {
    "silver": ("orders", "prices", "clicks"), "gold": ("customers", "order_facts", "price_now", "click_log"),
}.items() for name in names]  # fmt: skip


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Path]:
    """Two deliveries, published one after the other, and a copy of all that. The second one's contract has a column more."""
    folder = tmp_path_factory.mktemp("rollback")
    the_lab = _lab(folder / "lab")
    for delivery in (1, 2):
        lab.arrive(the_lab, delivery)
        lab.run(the_lab, delivery)
    shutil.copytree(the_lab.folder, folder / "copy")
    return the_lab, folder / "copy"


@pytest.fixture
def two_deliveries(made_once: tuple[Lab, Path]) -> Lab:
    return _fresh(made_once)


def _fresh(made: tuple[Lab, Path]) -> Lab:
    """The lake as it was made: in its place, because the ledger knows files by where they are."""
    the_lab, copy = made
    shutil.rmtree(the_lab.folder)
    shutil.copytree(copy, the_lab.folder)
    return the_lab


def _lab(folder: Path) -> Lab:
    the_lab = Lab(folder, str(folder / "lake"), {})
    the_lab.write_project()
    return the_lab


def lake_of(the_lab: Lab) -> Lake:
    return Lake.from_settings(the_lab.settings())


def points(the_lab: Lab) -> list[RestorePoint]:
    """Oldest first."""
    lake = lake_of(the_lab)
    return [load(lake, point_id) for point_id in reversed(list_ids(lake))]


def tables(the_lab: Lab, at: RestorePoint | None = None) -> dict[str, Any]:
    """Rows and columns of silver and gold, as the library reads them: of the newest versions, or of a point's."""
    lake, found = lake_of(the_lab), {}
    for layer, name in _TABLES:
        version = None if at is None else at.tables[f"{layer}/{name}"]
        frame = pl.scan_delta(lake.table(layer, name).uri, version=version).collect()  # type: ignore[arg-type]
        kept = frame.select(pl.exclude(_VOLATILE))
        found[f"{layer}/{name}"] = (kept.columns, sorted(map(str, kept.rows())))
    return found


def shown(the_lab: Lab) -> dict[str, list[str]]:
    """What analysts see, through the catalog."""
    return inventory._published(the_lab.settings(), _VOLATILE)


def refused(the_lab: Lab) -> dict[str, list[str]]:
    lake = lake_of(the_lab)
    return {
        name: inventory._rows(lake.table("quarantine", name), _VOLATILE) for name in lake.tables("quarantine")
    }


def go_back(the_lab: Lab, point: RestorePoint, note: str = "") -> RestorePoint:
    """The whole of it, as the command does it."""
    settings, lake = the_lab.settings(), lake_of(the_lab)
    held = rollback.readers_first(lake, settings, point, by="ada", note=note)
    steps = list(rollback.restore_tables(lake, held, point))
    return rollback.finish(lake, settings, held, point, steps)


def assert_reconciled(the_lab: Lab, delivery: int = 2) -> None:
    declared = {pipeline.name: pipeline for pipeline in lab.pipelines(delivery)}
    wrong = [count for count in reconcile(lake_of(the_lab), the_lab.settings(), declared) if not count.ok]
    assert wrong == []


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
    undisturbed = _lab(tmp_path / "other")
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


def test_nothing_moves_on_until_somebody_says_so(two_deliveries: Lab) -> None:
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    built = build(lake, settings, project_dir=two_deliveries.project, run_id="lab")
    held = rollback.readers_first(lake, settings, first, by="ada")
    seen = shown(two_deliveries)
    with pytest.raises(RunsHeld, match=f"rolled back to point {first.id} by ada") as refused_publish:
        publish(lake, settings, gold=built, run_id="lab")
    assert refused_publish.value.hint == f"lakehouse rollback --to {first.id}"
    with pytest.raises(RunsHeld, match="tables have not followed"):
        rollback.resume(lake, two_deliveries.settings(), by="ada")
    assert shown(two_deliveries) == seen
    assert heal(lake, settings) == first
    rollback.finish(lake, settings, held, first, list(rollback.restore_tables(lake, held, first)))
    with pytest.raises(RunsHeld, match="runs are held") as still:
        hold.refuse(lake)
    assert still.value.hint == "lakehouse resume"
    assert rollback.resume(lake, two_deliveries.settings(), by="grace") is not None
    hold.refuse(lake)
    assert rollback.resume(lake, two_deliveries.settings(), by="grace") is None


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
        the_lab = _fresh(made_once)
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
    assert at > len(_TABLES) + 4, (
        "the hold, the pointer, a commit each, the point, the pointer, the hold, the event"
    )


def test_a_table_of_after_the_point_is_made_again_from_bronze(tmp_path: Path) -> None:
    the_lab = _lab(tmp_path / "lab")
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


@pytest.mark.parametrize("back_to", [0, 1])
def test_a_stage_at_work_does_not_do_again_what_is_undone(
    two_deliveries: Lab, monkeypatch: pytest.MonkeyPatch, back_to: int
) -> None:
    """Its commit is refused, also behind a table that is as the point has it; and it does not begin anew, as it would after others' commits."""
    point, settings, lake = (
        points(two_deliveries)[back_to],
        two_deliveries.settings(),
        lake_of(two_deliveries),
    )
    then = tables(two_deliveries, point)
    lab.arrive(two_deliveries, 3)
    clicks = next(pipeline for pipeline in lab.pipelines(3) if pipeline.name == "clicks")
    ingest(lake, settings, clicks)
    real, met = refine_module._Work._commit, []

    def commit(self: Any, *arguments: Any) -> int:
        if not met:
            met.append(go_back(two_deliveries, point))
        return real(self, *arguments)

    monkeypatch.setattr(refine_module._Work, "_commit", commit)
    with pytest.raises(RunsHeld):
        refine_module.refine(lake, settings, clicks)
    assert met
    assert tables(two_deliveries) == then


def test_a_publisher_on_another_machine_does_not_bring_the_undone_point_back(
    two_deliveries: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is one machine's: the other's rollback falls between the look at the hold and the pointer."""
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    lab.arrive(two_deliveries, 3)
    elsewhere = settings.model_copy(update={"catalog_dir": str(two_deliveries.folder / "elsewhere")})
    real = publish_module.save

    def save(lake: Lake, point: RestorePoint) -> None:
        monkeypatch.setattr(publish_module, "save", real)
        rollback.readers_first(lake, elsewhere, first, by="ada")
        real(lake, point)

    monkeypatch.setattr(publish_module, "save", save)
    with pytest.raises(RunsHeld):
        lab.run(two_deliveries, 3)
    assert current_id(lake) == first.id
    heal(lake, settings)
    assert shown_point_id(settings) == first.id


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


def test_maintenance_removes_nothing_while_the_lake_is_held(two_deliveries: Lab) -> None:
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    table = lake.table("silver", "orders")
    [stray] = table.stage(table.snapshot().scan())
    rollback.readers_first(lake, settings, first, by="ada")

    def removed() -> int:
        done = list(maintain(lake, settings, {}, compact=False, retention=timedelta(0)))
        assert [table.error for table in done if table.error] == []
        return sum(table.removed for table in done)

    assert removed() == 0
    assert table.objects.info(stray.path) is not None
    hold.lift(lake)
    assert removed() > 0
    assert table.objects.info(stray.path) is None


def test_what_was_published_all_the_time_is_not_late_in_the_past(two_deliveries: Lab) -> None:
    """The files arrived years ago."""
    lake, first = lake_of(two_deliveries), points(two_deliveries)[0]
    settings = two_deliveries.settings().model_copy(update={"dbt_project": str(two_deliveries.project)})
    pipelines = {pipeline.name: pipeline for pipeline in lab.pipelines(2)}
    watch.record(lake, settings, watch.observe(lake, settings, pipelines, listing=False))
    began = datetime.now(UTC)
    go_back(two_deliveries, first)
    seen = watch.observe(lake, settings, pipelines, listing=False)
    assert {state.status for state in seen.tables} == {"breach"}
    watch.record(lake, settings, seen)
    late = lake.table("ops", "freshness").snapshot().scan().filter(pl.col("status") == "breach").collect()
    assert late.height == len(seen.tables)
    assert late["since_utc"].min() >= began  # type: ignore[operator]


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


def test_a_torn_hold_still_holds_and_another_rollback_mends_it(two_deliveries: Lab) -> None:
    lake, first = lake_of(two_deliveries), points(two_deliveries)[0]
    lake.objects.write(hold.HOLD, b"")
    with pytest.raises(RunsHeld, match="is there and cannot be read"):
        hold.refuse(lake)
    with pytest.raises(RunsHeld, match="cannot be read"):
        rollback.resume(lake, two_deliveries.settings(), by="ada")
    go_back(two_deliveries, first)
    assert rollback.resume(lake, two_deliveries.settings(), by="ada") is not None
    hold.refuse(lake)
