"""dbt's results turned into ours: per model, per test, and as rows of ``ops.checks``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from lakehouse import checks
from lakehouse.checks import MAX_SAMPLE_ROWS, CheckOutcome
from lakehouse.errors import LakehouseError
from lakehouse.gold.plan import BuildPlan
from lakehouse.gold.project import Model, Test
from lakehouse.gold.results import GoldResult, ModelResult, TestResult, TestStatus
from lakehouse.gold.session import BuildSession
from lakehouse.gold.versions import BUILD_CHECK
from lakehouse.storage import Lake

_STATUS: dict[str, TestStatus] = {
    "pass": "pass",
    "success": "pass",
    "fail": "fail",
    "warn": "warn",
    "error": "error",
}


def assemble(plan: BuildPlan, session: BuildSession, results: Sequence[Any], run_id: str) -> GoldResult:
    """The build's result, from the plan, what the plugin wrote, and dbt's own results."""
    by_id = {result.node.unique_id: result for result in results}
    models = tuple(
        model_result(plan, session, plan.project.models[name], by_id.get(plan.project.models[name].unique_id))
        for name in plan.project.order
        if plan.project.models[name].is_delta or plan.project.models[name].unique_id in by_id
    )
    tests = tuple(
        _test_result(session, test, by_id[test.unique_id])
        if test.unique_id in by_id
        else _told(test, "skipped", "dbt did not run it")
        for test in plan.project.tests
        # dbt selects by name, and two may have one: what was not planned looked at what was not built.
        if results and test.unique_id in plan.tests
    )
    return GoldResult(
        models=models,
        tests=tests,
        silver_versions=plan.silver_versions,
        code_hash=plan.project.code_hash,
        run_id=run_id,
        skipped=not results,
        stale=tuple(sorted(plan.stale)),
        notes=tuple(plan.notes),
        errors=tuple(error for error in session.errors.values() if isinstance(error, LakehouseError)),
    )


def model_result(plan: BuildPlan, session: BuildSession, model: Model, result: Any) -> ModelResult:
    """One model: what was written, or why not. ``result`` is dbt's, None when dbt was not asked."""
    common: dict[str, Any] = {
        "name": model.name,
        "unique_id": model.unique_id,
        "materialized": model.materialized,
        "watermark_utc": plan.watermarks.get(model.name),
        "description": model.description,
        "columns": dict(model.columns),
    }
    base = plan.bases.get(model.name, (None, None))[0]
    held: dict[str, Any] = {} if base is None else {"version": base.version, "rows": base.num_rows()}
    if result is None:
        if model.name in plan.unavailable:
            return ModelResult(status="skipped", message=plan.unavailable[model.name], **common, **held)
        if model.name in plan.build:
            message = "dbt did not run it; dbt's log says why (lakehouse doctor)"
            return ModelResult(status="failed", message=message, **common, **held)
        message = "left out by the selection, and behind silver" if model.name in plan.stale else ""
        return ModelResult(status="unchanged", strategy=model.strategy, message=message, **common, **held)
    common |= {
        "seconds": float(result.execution_time or 0),
        "sql": getattr(result.node, "compiled_code", None) or "",
    }
    written = session.written.get(model.name)
    status = str(result.status)
    if status == "success":
        if written is None:
            return ModelResult(status="built", message="in memory", **common)
        return ModelResult(
            status="built",
            strategy=written.strategy,  # type: ignore[arg-type]
            version=written.version,
            rows=written.rows,
            rows_written=written.rows_written,
            bytes=written.bytes,
            files_added=written.files_added,
            files_removed=written.files_removed,
            message=written.message,
            **common,
        )
    if status == "skipped":
        return ModelResult(status="skipped", message="something it reads failed", **common, **held)
    error = session.errors.get(model.name)
    return ModelResult(
        status="failed", message=str(error) if error else _tidy(result.message), **common, **held
    )


def _test_result(session: BuildSession, test: Test, result: Any) -> TestResult:
    status = _STATUS.get(str(result.status), "skipped")
    sql = getattr(result.node, "compiled_code", None) or ""
    sample: tuple[dict[str, Any], ...] = ()
    if test.kind == "data" and status in ("fail", "warn") and session.connected:
        sample = _sample(session, sql)
    return _told(test, status, result.message, result.failures, result.execution_time, sample=sample, sql=sql)


def _told(
    test: Test, status: TestStatus, message: str | None, failures: Any = 0, seconds: Any = 0, **more: Any
) -> TestResult:
    """What is known of every test, and how this one ended."""
    return TestResult(
        name=test.name,
        unique_id=test.unique_id,
        kind="unit" if test.kind == "unit" else "data",
        models=test.models,
        silver=test.silver,
        status=status,
        severity="warn" if test.severity == "warn" else "error",
        failures=int(failures or 0),
        column=test.column,
        description=test.description,
        message=_tidy(message) if status != "pass" else "",
        seconds=float(seconds or 0),
        **more,
    )


def _sample(session: BuildSession, sql: str) -> tuple[dict[str, Any], ...]:
    """A few of the rows that a test found, as plain JSON values; none when the test's SQL cannot be run again."""
    import duckdb

    cursor = session.cursor()
    try:
        found = cursor.execute(f"SELECT * FROM (\n{sql}\n) LIMIT {MAX_SAMPLE_ROWS}")
        names = [column[0] for column in found.description]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        return tuple(json.loads(json.dumps(rows, default=str)))
    except duckdb.Error:
        return ()
    finally:
        cursor.close()


def listener(
    plan: BuildPlan, session: BuildSession, on_event: Callable[[ModelResult | TestResult], None] | None
) -> Callable[[Any], None] | None:
    """A dbt callback that passes each node's outcome on as it ends. Test samples come with the final result only."""
    if on_event is None:
        return None
    models = {model.unique_id: model for model in plan.project.models.values()}
    tests = {test.unique_id: test for test in plan.project.tests if test.unique_id in plan.tests}

    def on_dbt_event(event: Any) -> None:
        if event.info.name != "NodeFinished":
            return
        uid, found = event.data.node_info.unique_id, event.data.run_result
        if uid in models:
            on_event(model_result(plan, session, models[uid], _Finished(found)))
        elif uid in tests:
            test, status = tests[uid], _STATUS.get(found.status, "skipped")
            on_event(_told(test, status, found.message, found.num_failures, found.execution_time))

    return on_dbt_event


class _Finished:
    """dbt's event message with the attributes of its result object."""

    def __init__(self, found: Any) -> None:
        self.status, self.message, self.execution_time, self.node = (
            found.status,
            found.message,
            found.execution_time,
            None,
        )


def record(lake: Lake, result: GoldResult, plan: BuildPlan) -> None:
    """Keep every test's outcome beside the version that it looked at, and which tests the project has of it now: what
    one found that was renamed or removed since must not stand against a version that stays.

    Each built version also gets ``gold_build``: passed means that the build ended and every test of the version ran
    and held. A version without it (the process was killed) is never published nor built upon.
    """
    rows: list[CheckOutcome] = []
    versions = {model.name: model for model in result.models if model.version is not None}
    for test in result.tests:
        subjects = [name for name in test.models[:1] if name in versions]
        if not subjects and test.blocks:
            # The test of a view, or of a source, stands for the tables of this build: what reads it came out of it.
            subjects = [model.name for model in versions.values() if model.status == "built"]
        rows += [
            _outcome(test, name, versions[name].version or 0) for name in subjects if test.status != "skipped"
        ]
    for model in versions.values():
        if model.status != "built":
            continue
        open_tests = [
            t.name for t in result.tests if model.name in t.models[:1] and (t.blocks or t.status == "skipped")
        ]
        rows.append(
            CheckOutcome(
                layer="gold",
                table=model.name,
                version=model.version or 0,
                check=BUILD_CHECK,
                passed=not open_tests,
                count=len(open_tests),
                message=f"not passed: {', '.join(open_tests)}"
                if open_tests
                else "built, and every test held",
                recovery=recovery(f"gold.{model.name}"),
            )
        )
    for name in sorted((plan.build | plan.retest) & set(versions)):
        tests = [_check_name(test) for test in plan.project.tests if test.models[:1] == (name,)]
        rows.append(checks.declared("gold", name, versions[name].version or 0, tests))
    checks.record(lake, rows, run_id=result.run_id)


def _check_name(test: Test | TestResult) -> str:
    """A unit test may be called like a data test of its model: neither may hide the other."""
    return f"unit_{test.name}" if test.kind == "unit" else test.name


def _outcome(test: TestResult, table: str, version: int) -> CheckOutcome:
    severity: Literal["error", "warn"] = test.severity
    return CheckOutcome(
        layer="gold",
        table=table,
        version=version,
        check=_check_name(test),
        passed=test.passed,
        # dbt says "warn" for what a test's own thresholds forgive: that blocks nothing.
        blocking=test.blocks or (test.passed and severity == "error"),
        severity=severity,
        count=test.failures,
        sample=test.sample,
        message=test.message,
        recovery=recovery(f"gold.{table}"),
    )


def recovery(subject: str) -> str:
    """What to do when a test of ``subject`` (``gold.daily``) fails."""
    return f"correct {subject} or its input, then: lakehouse run --select gold"


def _tidy(message: str | None) -> str:
    """dbt's message without its indentation and blank lines."""
    return "\n".join(line.strip() for line in (message or "").splitlines() if line.strip())
