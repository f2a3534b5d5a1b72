"""What a gold build did: one result per model and per test, ready for events, reports and checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lakehouse.errors import GoldBuildError, LakehouseError, TransientError

ModelStatus = Literal["built", "unchanged", "skipped", "failed"]
TestStatus = Literal["pass", "fail", "warn", "error", "skipped"]
Strategy = Literal["overwrite", "append", "merge", "replace_where", "replace_groups"]


@dataclass(frozen=True)
class ModelResult:
    """One dbt model.

    ``strategy`` is what was done, which is ``overwrite`` for the first build of any model. ``version`` is the
    table version that now holds the model's rows, None for views and for models that have no version.
    ``bytes`` are those written by this build, ``rows`` those that the version holds.
    """

    name: str
    unique_id: str
    status: ModelStatus
    materialized: str
    strategy: Strategy | None = None
    version: int | None = None
    rows: int = 0
    rows_written: int = 0
    bytes: int = 0
    files_added: int = 0
    files_removed: int = 0
    seconds: float = 0.0
    watermark_utc: str | None = None
    message: str = ""
    description: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    sql: str = ""


@dataclass(frozen=True)
class TestResult:
    """One dbt data test or unit test. ``failures`` counts rows at fault, ``sample`` holds up to five of them."""

    __test__ = False  # the name is dbt's word; pytest must not collect it

    name: str
    unique_id: str
    kind: Literal["data", "unit"]
    models: tuple[str, ...]
    status: TestStatus
    severity: Literal["error", "warn"]
    failures: int = 0
    column: str | None = None
    description: str = ""
    message: str = ""
    sample: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    sql: str = ""
    silver: tuple[str, ...] = ()

    @property
    def subjects(self) -> str:
        """``gold.daily, gold.orders``; the silver tables where it is a test of sources."""
        named = [f"gold.{model}" for model in self.models] or [f"silver.{table}" for table in self.silver]
        return ", ".join(named) or "nothing"

    @property
    def passed(self) -> bool:
        return self.status == "pass"

    @property
    def blocks(self) -> bool:
        """True when what this test looked at must not be published."""
        return self.status in ("fail", "error")


@dataclass(frozen=True)
class GoldResult:
    """One gold build over one version of each silver table.

    ``skipped`` says that nothing had changed and nothing was written. ``stale`` names models that were left out
    by the selection although their inputs have moved on: such a build is staged, not published.
    """

    models: tuple[ModelResult, ...]
    tests: tuple[TestResult, ...]
    silver_versions: dict[str, int]
    code_hash: str
    run_id: str
    skipped: bool = False
    stale: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    errors: tuple[LakehouseError, ...] = ()

    @property
    def failures(self) -> list[str]:
        """One line per failed model or test, empty when all is well."""
        lines = [f"model {model.name}: {model.message}" for model in self.models if model.status == "failed"]
        lines += [
            f"{test.kind} test {test.name} on {test.subjects}: {test.message}"
            for test in self.tests
            if test.blocks
        ]
        return lines

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def versions(self) -> dict[str, int]:
        """Model → table version, of every model that has one."""
        return {model.name: model.version for model in self.models if model.version is not None}

    def model(self, name: str) -> ModelResult:
        return next(model for model in self.models if model.name == name)

    def raise_for_failures(self) -> None:
        """Raise when a model or a blocking test failed.

        Raises:
            TransientError: every failure was one that may pass when it is tried again.
            GoldBuildError: something failed for good; names each model and test.
        """
        failures = self.failures
        if not failures:
            return
        failed_models = sum(model.status == "failed" for model in self.models)
        transient = [error for error in self.errors if isinstance(error, TransientError)]
        if transient and len(transient) == len(self.errors) == failed_models == len(failures):
            raise transient[0]
        raise GoldBuildError(
            f"gold: {len(failures)} failed, nothing is published\n  " + "\n  ".join(failures),
            hint="correct the model, its test or the data, then: lakehouse run --select gold",
        )
