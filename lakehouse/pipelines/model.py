"""The typed form of a pipeline's YAML. Unknown keys are errors: a misspelt option must never be ignored."""

from __future__ import annotations

import codecs
import re
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from lakehouse import names, validation

Identifier = Annotated[str, AfterValidator(lambda value: validation.check_identifier(value))]

FileFormat = Literal["csv", "jsonl", "json", "parquet"]
NewColumns = Literal["evolve", "rescue", "fail"]
ChangedTypes = Literal["rescue", "fail"]
OnChange = Literal["alert", "ignore", "append"]
SameContent = Literal["skip", "land"]
WriteMode = Literal["append", "upsert", "history"]

_OWNER = re.compile(r"^(?:[^@\s:]+@[^@\s:]+\.[^@\s:]+|team:[A-Za-z0-9_-]+)$")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CsvOptions(_Part):
    """How the CSV files of a source are written."""

    delimiter: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    header: bool = True
    columns: tuple[Identifier, ...] = ()

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_byte(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or ord(value) > 127 or value in "\r\n"):
            raise ValueError(f"{value!r} is not one ASCII character; write for example ',' or ';' or \"\\t\"")
        return value

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            return codecs.lookup(value).name
        except LookupError:
            raise ValueError(
                f"{value!r} is not a known encoding; write for example utf-8, latin-1 or cp1252"
            ) from None

    @model_validator(mode="after")
    def _columns_without_header(self) -> CsvOptions:
        if not self.header and not self.columns:
            raise ValueError("header is false, so columns must list the column names, in order")
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote are both {self.delimiter!r}; they must differ")
        return self


class SourceSpec(_Part):
    """Where a pipeline's data comes from, and how strict to be about it."""

    kind: Literal["files"]
    path: str
    format: FileFormat
    csv: CsvOptions = CsvOptions()
    null_markers: dict[str, tuple[str, ...]] | tuple[str, ...] = Field(default_factory=dict)
    new_columns: NewColumns = "evolve"
    changed_types: ChangedTypes = "rescue"
    on_change: OnChange = "alert"
    same_content: SameContent | None = None
    path_columns: dict[Identifier, str] = Field(default_factory=dict)
    expected_every: str | None = None

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return validation.check_storage_url(value, "path")

    @field_validator("on_change", mode="before")
    @classmethod
    def _no_replace(cls, value: Any) -> Any:
        # What a row of the old version displaced in silver (another file's row of the same key, a version in a
        # history) would have to come back: only a rebuild of the table from bronze does that whole.
        if value == "replace":
            raise ValueError(
                "'replace' is not offered: rows that the old version displaced in silver could not come back. Use "
                "append (with silver mode upsert or history the new version's rows win), or alert and lakehouse accept"
            )
        return value

    @field_validator("null_markers", mode="before")
    @classmethod
    def _markers_per_column(cls, value: Any) -> Any:
        """A list holds for every column (``*``); a mapping says which markers which column has."""
        lists = value if isinstance(value, dict) else {"*": value}
        for column, markers in lists.items():
            if not isinstance(markers, list | tuple) or not all(isinstance(text, str) for text in markers):
                raise ValueError(
                    f'{markers!r} is not a list of texts; write ["NA"] for all columns, or one list per column: '
                    '{amount: ["NA"]}, where "*" stands for the columns not named'
                )
            if column != "*":
                validation.check_identifier(column, "column")
        return lists

    @field_validator("path_columns")
    @classmethod
    def _one_group(cls, value: dict[str, str]) -> dict[str, str]:
        for column, pattern in value.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{column}: {pattern!r} is not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError(
                    f"{column}: {pattern!r} has {groups} groups; put exactly one (…) around the value"
                )
        return value

    @field_validator("expected_every")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            validation.parse_duration(value, "expected_every")
        return value

    @model_validator(mode="after")
    def _csv_only_for_csv(self) -> SourceSpec:
        if self.format != "csv" and "csv" in self.model_fields_set:
            raise ValueError(
                f"csv options are given, but format is {self.format}; remove them or write format: csv"
            )
        return self

    @property
    def skips_same_content(self) -> bool:
        """Is a file with the content of another one passed over? Not by default where the path means something."""
        return (self.same_content or ("land" if self.path_columns else "skip")) == "skip"

    @property
    def markers_by_column(self) -> dict[str, tuple[str, ...]]:
        """Null markers per column of the contract; ``*`` has those of every other column."""
        assert isinstance(self.null_markers, dict)  # the validator has brought a list to this form
        return self.null_markers

    @property
    def cadence(self) -> timedelta | None:
        """How often this source is expected to bring something."""
        return validation.parse_duration(self.expected_every) if self.expected_every else None


class DeleteWhen(_Part):
    """An operation column whose value marks a deletion, as change feeds have."""

    column: Identifier
    value: str | int | bool


class PartitionBy(_Part):
    """The date or instant by which a table's past can be processed again, and in what pieces the UI offers it.

    ``start`` is the first day of the first piece; the last one is the running one.
    """

    column: Identifier
    grain: Literal["day", "month"] = "day"
    start: date = date(2000, 1, 1)


class SilverSpec(_Part):
    """How accepted rows are written. The key comes from the contract."""

    mode: WriteMode = "append"
    sequence_by: tuple[Identifier, ...] = ()
    delete_when: DeleteWhen | None = None
    partition_by: PartitionBy | None = None

    @field_validator("sequence_by", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_mode(self) -> SilverSpec:
        if self.mode == "history" and not self.sequence_by:
            raise ValueError("mode history needs sequence_by: the column that says when a row's state began")
        if self.mode == "history" and len(self.sequence_by) != 1:
            raise ValueError("mode history takes exactly one sequence_by column")
        if self.mode == "append" and (self.sequence_by or self.delete_when):
            raise ValueError(
                "mode append takes neither sequence_by nor delete_when; use mode upsert or history"
            )
        return self


class ReferenceSpec(_Part):
    """Rows whose ``columns`` are found in another silver table, and the share that may be missing there."""

    columns: tuple[Identifier, ...] = Field(min_length=1)
    to: Identifier
    to_columns: tuple[Identifier, ...] = ()
    max_orphan_share: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _same_length(self) -> ReferenceSpec:
        if self.to_columns and len(self.to_columns) != len(self.columns):
            raise ValueError(
                f"columns has {len(self.columns)} names and to_columns {len(self.to_columns)}; pair them"
            )
        return self

    @property
    def target_columns(self) -> tuple[str, ...]:
        return self.to_columns or self.columns


class ChecksSpec(_Part):
    """Bounds that this table's checks hold its data against."""

    references: tuple[ReferenceSpec, ...] = ()
    max_quarantined_share: float = Field(0.05, ge=0, le=1)
    min_rows_per_batch: int = Field(0, ge=0)


class PipelineSpec(_Part):
    """One source through bronze and silver. Field names are the YAML's."""

    name: Identifier
    description: str = Field(min_length=1)
    owners: tuple[str, ...] = ()
    group: Identifier = "default"
    source: SourceSpec
    contract: str
    transform: str | None = None
    silver: SilverSpec = SilverSpec()
    checks: ChecksSpec = ChecksSpec()
    tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("owners")
    @classmethod
    def _owners(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for owner in value:
            if not _OWNER.fullmatch(owner):
                raise ValueError(f"{owner!r} is not an owner; write an e-mail address or team:name")
        return value

    @field_validator("contract", "transform")
    @classmethod
    def _dotted(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
            raise ValueError(f"{value!r} is not an import path; write package.module.Name")
        return value

    @model_validator(mode="after")
    def _no_reserved_columns(self) -> PipelineSpec:
        reserved = {*names.LINEAGE, names.RESCUED}
        for column in (*self.source.path_columns, *self.source.csv.columns):
            if column in reserved:
                raise ValueError(f"column {column!r} is one that bronze adds itself; choose another name")
        return self
