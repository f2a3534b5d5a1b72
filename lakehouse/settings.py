"""One frozen ``Settings``, read from the environment (prefix ``LAKEHOUSE_``) by ``load_settings`` alone."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from lakehouse import machine, validation
from lakehouse.errors import SettingsError

PROJECT_DIR = Path(__file__).resolve().parent.parent
#: With 4 GiB a run of 47 pipelines and maintenance beside it held 4.17 GiB together (docs/decisions/0004-memory-follows-a-setting.md).
_MOST_BYTES = 3 << 30


class Settings(BaseSettings):
    """Everything that may differ between two installations. Immutable; sizes in bytes once parsed."""

    model_config = SettingsConfigDict(env_prefix="LAKEHOUSE_", frozen=True, extra="ignore")

    root: str = Field(".lake", description="Lake root: a folder (relative to the project) or s3://….")
    catalog_dir: str = Field(
        "",
        description="Local folder of gold.duckdb. Default: <root>/catalog, or .lake/catalog for a remote root.",
    )
    landing: str = Field(
        "",
        description="Folder or URL below which relative source paths are looked up. Default: <root>/landing.",
    )
    pipelines_dir: str = Field(
        "", description="Folder searched for defs.yaml files. Default: lakehouse/defs in the project."
    )
    dbt_project: str = Field(
        "", description="Folder of the dbt project that makes gold. Default: dbt_project in the project."
    )
    state_dir: str = Field(
        "",
        description="Local folder for caches, spool files and Dagster's home; losing it loses no data. Default: <root>/state, or .lake/state for a remote root.",
    )
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        description="Object-store options as JSON, e.g. AWS_ENDPOINT_URL; AWS_* variables work as well.",
    )
    memory_limit: str = Field(
        "",
        description="Memory that one run's DuckDB may use, and from which stages derive how many rows they hold at once. "
        "Default: a quarter of what this process may use (its container's limit, if any), 512MiB to 3GiB.",
    )
    threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads for stages, Polars, DuckDB and dbt; 0 = the cores this process may use.",
    )
    # A weekly tick into ten years of flights: 5.7 CPU-s with 8 MiB, 17.8 with 128 MiB (benchmarks/cost.py).
    target_file_size: str = Field(
        "32MiB",
        description="Parquet files are cut at about this size; those below a quarter of it are small, and maintenance "
        "combines them.",
    )
    deletion_vector_min_rows: int = Field(
        20_000,
        ge=0,
        description="A data file of silver with at least so many rows stays when some of them change: they are marked as "
        "deleted. Smaller ones are written again.",
    )
    key_index_min_rows: int = Field(
        2_000_000,
        ge=0,
        description="When the files that may hold a batch's keys have at least so many rows, an index in the state folder "
        "tells where each key is (24 to 40 bytes a row, made again when lost). With fewer rows the files' keys are read.",
    )
    row_copies_size: str = Field(
        "20GiB",
        description="Room in the state folder for rows of large histories laid out singly, so that a batch does not decode the "
        "whole table to find a few of them (about four times what they take in the table); 1B = none.",
    )
    compression_level: int = Field(1, ge=1, le=19, description="zstd level of Parquet files.")
    max_batch_size: str = Field(
        "512MiB", description="Input of one batch; a single larger file is a batch of its own."
    )
    settle_seconds: float = Field(
        0.0, ge=0, description="A file younger than this is left for the next run (it may still be written)."
    )
    sla_warn_minutes: float = Field(45.0, gt=0, description="Arrival lag at which the warning is sent.")
    sla_fail_minutes: float = Field(60.0, gt=0, description="Arrival lag that breaches the SLA.")
    sla_target_percent: float = Field(
        99.9,
        gt=0,
        le=100,
        description="Share of time that gold must be within the SLA; the rest is the error budget.",
    )
    sensor_interval_s: int = Field(10, ge=1, description="Seconds between two looks for new arrivals.")
    run_interval_s: int = Field(
        30,
        ge=0,
        description="Seconds from one run to the next, about and at least, so that a trickle makes few small runs. What failed waits twice as long for its first retry (or two looks).",
    )
    sla_interval_s: int = Field(30, ge=1, description="Seconds between two looks at the freshness SLA.")
    compact_cron: str = Field(
        "17 * * * *", description="When the daemon combines small files and writes overdue checkpoints (UTC)."
    )
    vacuum_cron: str = Field(
        "37 3 * * *", description="When the daemon also removes files that no kept version needs (UTC)."
    )
    retention_days: float = Field(
        7.0,
        ge=1,
        description="How long maintenance spares a file that was taken out or never committed; longer than any run or query.",
    )
    restore_points_days: float = Field(
        2.0, gt=0, description="How long every restore point is kept, with the versions that it names."
    )
    restore_points_hourly_days: float = Field(
        14.0, gt=0, description="How long the last restore point of each hour is kept (UTC)."
    )
    restore_points_daily_days: float = Field(
        90.0, gt=0, description="How long the last restore point of each day is kept (UTC)."
    )
    run_history_runs: int = Field(
        1_000,
        ge=1,
        description="How many runs that succeeded Dagster's history keeps, and how many that did not; maintenance deletes older ones.",
    )
    run_history_days: float = Field(
        30.0, gt=0, le=36_500, description="How long Dagster's history keeps any run."
    )
    alert_webhook_url: str = Field(
        "", description="Alerts are POSTed here as JSON (Slack-compatible 'text' plus fields)."
    )
    alert_email_to: str = Field("", description="Comma-separated addresses that get alerts by e-mail.")
    alert_email_from: str = Field("lakehouse@localhost", description="Sender of alert e-mails.")
    smtp_url: str = Field(
        "",
        description="Mail server: smtp+starttls://[user:password@]host[:port] or smtps://…; smtp://… is not encrypted.",
    )
    environment: Literal["dev", "prod", "test"] = Field(
        "dev", description="dev, prod or test; shown in alerts and reports."
    )
    ui_url: str = Field(
        "http://127.0.0.1:3000", description="Address of the Dagster UI, for links in alerts."
    )

    @field_validator("memory_limit", "target_file_size", "max_batch_size", "row_copies_size")
    @classmethod
    def _size(cls, value: str, info: Any) -> str:
        if value or info.field_name != "memory_limit":
            validation.parse_size(value, info.field_name)
        return value

    @field_validator("compact_cron", "vacuum_cron")
    @classmethod
    def _cron(cls, value: str, info: Any) -> str:
        return validation.check_cron(value, info.field_name)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Derive every folder from the root, so that one setting moves the whole lake."""
        for name in ("root", "landing"):
            if values.get(name):
                validation.check_storage_url(str(values[name]), name)
        root = str(values.get("root") or ".lake").rstrip("/") or "/"
        if not validation.is_remote(root):
            root = str((PROJECT_DIR / root.removeprefix("file://")).resolve())
            validation.check_storage_url(root, "root", for_tables=True)
        local = root if not validation.is_remote(root) else str(PROJECT_DIR / ".lake")
        values["root"] = root
        values["catalog_dir"] = _local(values.get("catalog_dir") or Path(local, "catalog"))
        values["state_dir"] = _local(values.get("state_dir") or Path(local, "state"))
        landing = str(values.get("landing") or validation.join_url(root, "landing"))
        values["landing"] = landing if validation.is_remote(landing) else _local(landing)
        values["pipelines_dir"] = _local(
            values.get("pipelines_dir") or Path(PROJECT_DIR, "lakehouse", "defs")
        )
        values["dbt_project"] = _local(values.get("dbt_project") or Path(PROJECT_DIR, "dbt_project"))
        return values

    @model_validator(mode="after")
    def _warn_before_fail(self) -> Settings:
        if self.sla_warn_minutes >= self.sla_fail_minutes:
            raise ValueError(
                f"sla_warn_minutes ({self.sla_warn_minutes:g}) must be below sla_fail_minutes ({self.sla_fail_minutes:g})"
            )
        return self

    @property
    def memory_limit_bytes(self) -> int:
        if self.memory_limit:
            return validation.parse_size(self.memory_limit)
        return min(max(machine.memory_bytes() // 4, 512 << 20), _MOST_BYTES)

    @cached_property
    def target_file_bytes(self) -> int:
        return validation.parse_size(self.target_file_size)

    @property
    def row_copies_bytes(self) -> int:
        return validation.parse_size(self.row_copies_size)

    @cached_property
    def max_batch_bytes(self) -> int:
        return validation.parse_size(self.max_batch_size)

    @property
    def thread_count(self) -> int:
        return self.threads or machine.cores()

    def shared_by(self, workers: int) -> Settings:
        """The same with a part of the memory, for one who works beside others in this process: gold beside stages."""
        share = max(self.memory_limit_bytes // max(workers, 1), 64 << 20)
        return self.model_copy(update={"memory_limit": f"{share}B"})

    def tune_process(self) -> None:
        """Tell Polars how many threads it may have, where that is set, and what to do with freed memory.

        Works before Polars is imported, and in child processes; what the environment says already stays. Memory is left alone
        where somebody has said how much of it a run may use.
        """
        if self.threads:
            machine.limit_polars(self.threads)
        if not self.memory_limit:
            machine.keep_freed_memory()

    @property
    def catalog_path(self) -> Path:
        """The analysts' database."""
        return Path(self.catalog_dir, "gold.duckdb")

    @property
    def dagster_home(self) -> Path:
        return Path(self.state_dir, "dagster")


def _local(path: str | Path) -> str:
    return str((PROJECT_DIR / str(path).removeprefix("file://")).resolve())


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with ``overrides`` on top.

    Raises:
        SettingsError: a value cannot work; names the variable, the value and what would be right.
    """
    try:
        return Settings(**overrides)
    except UnreadableSetting as error:
        raise SettingsError(
            f'{error}: write it as JSON, for example LAKEHOUSE_STORAGE_OPTIONS=\'{{"AWS_REGION": "eu-central-1"}}\'',
            hint="see docs/settings.md, then correct the variable",
        ) from error
    except ValidationError as error:
        lines = []
        for issue in error.errors():
            name = "_".join(str(part) for part in issue["loc"]).upper()
            text = issue["msg"].removeprefix("Value error, ")
            lines.append(f"LAKEHOUSE_{name}: {text}" if name else text)
        raise SettingsError(
            "; ".join(lines), hint="see docs/settings.md, then correct the variable"
        ) from error
