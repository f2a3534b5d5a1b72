"""``lakehouse rollback`` and ``lakehouse resume``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakehouse.gold.restore_points import RestorePoint
    from lakehouse.hold import Hold
    from lakehouse.ops.rollback import Step
    from lakehouse.settings import Settings
    from lakehouse.storage import Lake

_LOOK_S = 0.5


def rollback(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="POINT|TIME",
            help="A restore point (or how its name begins), or a time: the newest point of then. UTC unless it says otherwise. "
            "Without it the points are listed.",
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="Why; kept with the point, the tables and the hold.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for runs that are going.")
    ] = 300.0,
    limit: Annotated[int, typer.Option(min=1, help="How many points to list.")] = 20,
    actor: Annotated[str | None, typer.Option(help="Who does it. Default: the system's user.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take the whole lake back to an earlier restore point: what readers see first, then every table with its positions.

    Bronze stays. Afterwards runs are held: correct what was wrong, then `lakehouse resume`, and the next run takes
    again, once, what had come since. A rollback is no loss: the point that was left can be gone back to in the same way.

    Example: lakehouse rollback --to 2026-11-30T14:00 --note "wrong prices since 14:05"
    """
    from lakehouse.cli.output import print_json, say
    from lakehouse.cli.quarantine_actions import current_user
    from lakehouse.ops import rollback as work
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    lake = Lake.from_settings(settings)
    if to is None:
        _list(lake, limit, as_json=as_json)
        return
    point = work.find_point(lake, to)
    steps = work.plan(lake, point)
    if dry_run:
        if as_json:
            print_json(_document(point, steps, None, None))
            return
        _print_steps(point, steps)
        say("Nothing was done. To do it: the same without --dry-run")
        return
    held, made, steps = _roll_back(
        settings, lake, point, steps, actor or current_user(), note, wait, quiet=as_json
    )
    if as_json:
        print_json(_document(point, steps, made, held))
        return
    _print_steps(point, steps)
    say("Published: restore point ", (made.id, "bold"), f", which has the rows of {point.id}.")
    say("Runs are held. Correct what was wrong, then: lakehouse resume")
    _say_then(held)


def _roll_back(
    settings: Settings,
    lake: Lake,
    point: RestorePoint,
    steps: Sequence[Step],
    actor: str,
    note: str,
    wait_s: float,
    *,
    quiet: bool,
) -> tuple[Hold, RestorePoint, list[Step]]:
    """The hold, the point that is published then, and the plan with the versions that it came to."""
    import time
    from dataclasses import replace

    from lakehouse.cli.output import say
    from lakehouse.ops import rollback as work

    started = time.monotonic()
    held = work.readers_first(lake, settings, point, by=actor, note=note, steps=steps)
    if not quiet:
        say(f"Readers see point {point.id} ({time.monotonic() - started:.1f} s). Runs are held.")
    _await_runs(settings, lake, held, wait_s, quiet=quiet)
    started = time.monotonic()
    restored = list(work.restore_tables(lake, held, point))
    made = work.finish(lake, settings, held, point, restored)
    if settings.dagster_home.exists():
        from lakehouse.defs.rollback import tell_history

        tell_history(settings, restored, made)
    if not quiet:
        say(f"The tables have followed ({time.monotonic() - started:.1f} s).")
        say()
    versions = {step.name: step.restored for step in restored}
    return held, made, [replace(step, restored=versions.get(step.name)) for step in steps]


def _await_runs(settings: Settings, lake: Lake, held: Hold, wait_s: float, *, quiet: bool) -> None:
    """Runs that are going end at their next step. Tables are not touched before."""
    import time

    from lakehouse.cli.output import say
    from lakehouse.errors import CommitConflict

    if not settings.dagster_home.exists():
        return
    from lakehouse.defs.rollback import runs_going

    last, told = time.monotonic() + wait_s, False
    while going := runs_going(settings, lake):
        if time.monotonic() >= last:
            raise CommitConflict(
                f"readers see point {held.point_id}, the tables have not followed: {len(going)} runs are still going "
                f"({', '.join(going)})",
                hint=f"end them in the UI or wait, then: {held.next_step}",
            )
        if not told and not quiet:
            say(f"Waiting for {len(going)} runs that are going: they end at their next step …")
            told = True
        time.sleep(_LOOK_S)


def _print_steps(point: RestorePoint, steps: Sequence[Step]) -> None:
    from lakehouse.cli.output import print_table, say

    moved = [step for step in steps if not step.is_there]
    same = len(steps) - len(moved)
    say("Restore point ", (point.id, "bold"), f", made {point.created_at_utc[:19].replace('T', ' ')}Z")
    if moved:
        numbers = ("version", "goes back to", "batches again")
        print_table(
            ("table", *numbers, "undone"),
            [
                (
                    step.name, step.version, "empty" if step.target is None else step.target,
                    step.batches or "", _undone(step),
                )
                for step in moved
            ],
            right=numbers,
        )  # fmt: skip
    say(f"{len(moved)} tables go back, {same} are as they were.")


def _undone(step: Step) -> str:
    told = [f"backfill of {days}" for days in step.backfills]
    if step.replays:
        told.append(f"{step.replays} replays")
    return ", ".join(told)


def _say_then(held: Hold) -> None:
    """What was undone and may be wanted again, for after the hold."""
    from lakehouse.cli.output import say

    for command in held.then:
        say(f"Then, if it was right: {command}")
    if held.then:
        say(
            "A replay or a backfill also carries out the releases that were undone; to call one off before: lakehouse quarantine resolve"
        )


def _list(lake: Lake, limit: int, *, as_json: bool) -> None:
    """The newest points, with what each has changed."""
    from datetime import UTC, datetime

    from lakehouse.cli.output import duration, print_json, print_table, say
    from lakehouse.errors import PointLost
    from lakehouse.gold.restore_points import current_id, list_ids, load

    ids, points = list_ids(lake), []
    for point_id in ids[: limit + 1]:
        try:
            points.append(load(lake, point_id))
        except PointLost as lost:
            if not as_json:
                say((point_id, "red"), f": {lost.message}")
    shown, current = points[:limit], current_id(lake)
    if as_json:
        print_json(
            [
                {
                    "id": p.id, "created_at_utc": p.created_at_utc, "run_id": p.run_id, "is_current": p.id == current,
                    "restored_from": p.restored_from, "by": p.made_by, "note": p.note,
                }
                for p in shown
            ]
        )  # fmt: skip
        return
    if not shown:
        say("Nothing was ever published: there is no restore point.")
        return
    now, rows = datetime.now(UTC), []
    for number, point in enumerate(shown):
        age = duration((now - datetime.fromisoformat(point.created_at_utc)).total_seconds())
        before = points[number + 1].tables if number + 1 < len(points) else None
        rows.append(
            (
                point.id, age, "published" if point.id == current else "",
                "" if before is None else _changed(point.tables, before), _origin(point),
            )
        )  # fmt: skip
    print_table(("restore point", "age", "", "changed since the one before", ""), rows, right=("age",))
    if len(ids) > limit:
        say(f"{len(ids) - limit:,} older ones: --limit {len(ids)}")
    say("To go back: lakehouse rollback --to POINT (with --dry-run it says what that does)")


def _changed(now: dict[str, int], before: dict[str, int]) -> str:
    """Tables of silver and gold that are at another version."""
    changed = [
        path.partition("/")[2]
        for path, version in now.items()
        if path.startswith(("silver/", "gold/")) and before.get(path) != version
    ]
    names = list(dict.fromkeys(changed))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _origin(point: RestorePoint) -> str:
    if point.restored_from is None:
        return ""
    return f"rows of {point.restored_from}, by {point.made_by}" + (f": {point.note}" if point.note else "")


def _document(
    point: RestorePoint, steps: Sequence[Step], made: RestorePoint | None, held: Hold | None
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "to": point.id,
        "published": None if made is None else made.id,
        "tables": [asdict(step) for step in steps],
        "then": [command for step in steps for command in step.again] if held is None else list(held.then),
    }


def resume(
    actor: Annotated[str | None, typer.Option(help="Who does it. Default: the system's user.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let runs begin again after a rollback: the next one takes again what had come since the restore point.

    Example: lakehouse resume
    """
    from lakehouse.cli.output import print_json, say
    from lakehouse.cli.quarantine_actions import current_user
    from lakehouse.ops import rollback as work
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    held = work.resume(Lake.from_settings(settings), settings, by=actor or current_user())
    if as_json:
        then = list(held.then) if held else []
        print_json({"was_held": held is not None, "point": held.point_id if held else None, "then": then})
    elif held is None:
        say("Nothing is held: runs begin as always.")
    else:
        say(f"Runs begin again; they were held: {held.why}.")
        say("Next: lakehouse run (the daemon's sensor does it by itself)")
        _say_then(held)


def register(app: typer.Typer) -> None:
    """Hang the verbs into the command tree."""
    app.command()(rollback)
    app.command()(resume)
