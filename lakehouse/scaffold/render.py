"""The texts of a new pipeline: its YAML and its contract."""

from __future__ import annotations

import json
from dataclasses import dataclass

import polars as pl
import yaml

from lakehouse.scaffold.attributes import attributes, class_name
from lakehouse.scaffold.profile import TIMESTAMP, Column, Profile
from lakehouse.scaffold.seen import is_personal
from lakehouse.scaffold.sniff import Sniffed

_CHANGED = ("updated_at", "modified_at", "last_modified", "changed_at", "last_updated")


@dataclass(frozen=True)
class Plan:
    """Everything that the texts are made of."""

    name: str
    system: str
    path: str
    mode: str
    sniffed: Sniffed
    profile: Profile

    @property
    def class_name(self) -> str:
        """``web_orders`` → ``WebOrders``"""
        return class_name(self.name)

    @property
    def renames(self) -> dict[str, str]:
        """File's name → table's name, for the columns where they differ."""
        return {c.source_name: c.name for c in self.profile.columns if c.source_name != c.name}

    @property
    def sequence_by(self) -> str | None:
        """A column that says when a row changed last."""
        times = [
            c.name
            for c in self.profile.columns
            if c.dtype.is_temporal() and c.name.lower().startswith(_CHANGED)
        ]
        return times[0] if times and self.mode != "append" else None


def render_yaml(plan: Plan) -> str:
    """``defs.yaml``, every line with what it is for."""
    sniffed, profile = plan.sniffed, plan.profile
    lines = [
        f"# First written from {_shown(sniffed.path.name)}; it is yours now. Every option: docs/pipelines.md",
        "type: lakehouse.defs.component.PipelineComponent",
        "",
        "attributes:",
        f"  name: {_word(plan.name)}  # the table's name in bronze and silver",
        f"  description: {_text('Rows of ' + sniffed.path.name + '. Say here what one row is, and who makes it.')}",
        "  owners: [team:data]  # e-mail addresses or team:name",
        f"  group: {_word(plan.system)}",
        "  source:",
        "    kind: files",
        f"    path: {_text(plan.path)}  # every file that matches is taken once; relative paths are below the landing folder",
        f"    format: {sniffed.format}",
    ]
    lines += _csv_lines(sniffed)
    if profile.null_markers:
        lines.append(f"    null_markers: {_markers(profile.null_markers)}  # these texts mean: no value")
    lines += [
        "    new_columns: evolve  # a new column: evolve = add it to bronze, rescue = keep it aside, fail = stop",
        "    on_change: alert  # a file that came before comes again, changed: alert | ignore | append",
        f"  contract: lakehouse.contracts.{plan.name}.{plan.class_name}",
    ]
    lines += ["  silver:", f"    mode: {plan.mode}  # {_MODES[plan.mode]}"]
    if plan.sequence_by:
        lines.append(
            f"    sequence_by: [{plan.sequence_by}]  # of two rows with one key, the later one counts"
        )
    lines += [
        "  checks:",
        "    max_quarantined_share: 0.05  # more than this share refused in a batch stops publishing",
    ]
    return "\n".join(lines) + "\n"


_LEFT_OUT = "two underscores in front belong to the lakehouse"
_MODES = {
    "append": "rows are added; with a key, one that is there already is not added again",
    "upsert": "one row per key: the latest that came",
    "history": "every state of a key, with valid_from_utc and valid_to_utc",
}


def _markers(markers: tuple[str, ...] | dict[str, tuple[str, ...]]) -> str:
    if isinstance(markers, dict):
        return (
            "{" + ", ".join(f"{_word(column)}: {_markers(texts)}" for column, texts in markers.items()) + "}"
        )
    return f"[{', '.join(map(_text, markers))}]"


def _csv_lines(sniffed: Sniffed) -> list[str]:
    dialect = sniffed.dialect
    if dialect is None or (dialect.delimiter, dialect.quote, dialect.encoding, dialect.header) == (
        ",",
        '"',
        "utf-8",
        True,
    ):
        return []
    lines = ["    csv:"]
    if dialect.delimiter != ",":
        lines.append(f"      delimiter: {_text(dialect.delimiter)}")
    if dialect.quote != '"':
        lines.append(f"      quote: {_text(dialect.quote)}")
    if dialect.encoding != "utf-8":
        lines.append(f"      encoding: {dialect.encoding}")
    if not dialect.header:
        lines += ["      header: false", f"      columns: [{', '.join(dialect.columns)}]"]
    return lines


def render_contract(plan: Plan) -> str:
    """The contract: types as seen, every column but the key's nullable, what was seen as comments."""
    profile = plan.profile
    seen = f"{profile.rows_seen:,} rows" + ("" if profile.complete else ", not the whole file")
    uses_timestamps = any(column.dtype == TIMESTAMP for column in profile.columns)
    annotated = any(
        column.dtype.is_nested() or isinstance(column.dtype, pl.Decimal) for column in profile.columns
    )
    attribute = attributes(column.name for column in profile.columns)
    constants = [line for column in profile.columns for line in _nested_type(column, attribute[column.name])]
    if constants:
        constants.append("")
    imported = "Contract, TimestampUtc" if uses_timestamps else "Contract"
    lines = [
        f'"""The contract of silver.{plan.name}, first written from {_shown(plan.sniffed.path.name)} ({seen}).',
        "",
        "It is yours: describe the columns, and tighten it with rules such as",
        "``pa.Field(ge=0)``, ``pa.Field(isin=[...])`` or ``pa.Field(str_matches=...)``. A row that breaks a rule goes",
        "to quarantine whole; ``lakehouse quarantine list`` shows how many and why. See docs/contracts.md.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *(["from typing import Annotated", ""] if annotated else []),
        "import pandera.polars as pa",
        "import polars as pl",
        "",
        f"from lakehouse.contracts.model import {imported}",
        "",
        *constants,
        "",
        f"class {plan.class_name}(Contract):",
        f'    """One row per {" and ".join(profile.key) if profile.key else "line of the source"}."""',
        "",
    ]
    for column in profile.columns:
        lines += _field(column, attribute[column.name], is_key=column.name in profile.key)
    if profile.left_out:
        lines += ["", *(f"    # {name} is in bronze only: {_LEFT_OUT}" for name in profile.left_out)]
    lines += ["", "    class Config:", f'        name = "{plan.name}"']
    if profile.key:
        keys = ", ".join(f'"{name}"' for name in profile.key)
        lines.append(f"        unique = [{keys}]")
    return "\n".join(lines) + "\n"


def _field(column: Column, attribute: str, *, is_key: bool) -> list[str]:
    remarks = [text for text in (column.note, f"seen: {column.seen}" if column.seen else None) if text]
    options = [] if attribute == column.name else [f"alias={_text(column.name)}"]
    if not is_key:
        options.append("nullable=True")
    options.append(f"description={_text(_words(column.name))}")
    if is_personal(column.name):
        options.append('metadata={"sensitivity": "personal"}')
    start = f"    {attribute}: {_annotation(column, attribute)} = pa.Field("
    line = f"{start}{', '.join(options)})"
    lines = [f"    # {remark[:100]}" for remark in remarks]
    if len(line) <= 110:
        return [*lines, line]
    return [*lines, start, *(f"        {option}," for option in options), "    )"]


def _words(name: str) -> str:
    words = name.strip("_").replace("_", " ").strip() or name
    return f"{words[:1].upper()}{words[1:]}."


def _annotation(column: Column, attribute: str) -> str:
    dtype = column.dtype
    if dtype == TIMESTAMP:
        return "TimestampUtc"
    if isinstance(dtype, pl.Decimal):
        return f"Annotated[pl.Decimal, {dtype.precision or 38}, {dtype.scale}]"
    if dtype.is_nested():
        return f"Annotated[pl.{dtype.base_type().__name__}, {_type_name(column, attribute)}]"
    return f"pl.{dtype.base_type().__name__}"


def _type_name(column: Column, attribute: str) -> str:
    return f"{attribute.upper()}_{'FIELDS' if isinstance(column.dtype, pl.Struct) else 'ITEM'}"


def _nested_type(column: Column, attribute: str) -> list[str]:
    """The inside of a nested type, as a constant above the class: lines would grow without end in it."""
    if isinstance(column.dtype, pl.Struct):
        return [*f"{_type_name(column, attribute)} = {_fields(column.dtype, '')}".split("\n")]
    if isinstance(column.dtype, pl.List):
        return [*f"{_type_name(column, attribute)} = {_dtype(column.dtype.inner, '')}".split("\n")]  # type: ignore[arg-type]
    return []


def _fields(dtype: pl.Struct, indent: str) -> str:
    inner = "".join(
        f"{indent}    {_text(item.name)}: {_dtype(item.dtype, indent + '    ')},\n"  # type: ignore[arg-type]
        for item in dtype.fields
    )
    return f"{{\n{inner}{indent}}}"


def _dtype(dtype: pl.DataType, indent: str) -> str:
    """Source text of a type inside another one, laid out as the formatter would."""
    deeper = indent + "    "
    if dtype == TIMESTAMP:
        return 'pl.Datetime("us", "UTC")'
    if isinstance(dtype, pl.Struct):
        return f"pl.Struct(\n{deeper}{_fields(dtype, deeper)}\n{indent})"
    if isinstance(dtype, pl.List):
        inner = _dtype(dtype.inner, deeper)  # type: ignore[arg-type]
        return f"pl.List(\n{deeper}{inner}\n{indent})" if "\n" in inner else f"pl.List({inner})"
    if isinstance(dtype, pl.Decimal):
        return f"pl.Decimal({dtype.precision or 38}, {dtype.scale})"
    return f"pl.{dtype.base_type().__name__}()"


def _text(value: str) -> str:
    """A double-quoted text that YAML and Python read alike."""
    return json.dumps(value, ensure_ascii=False)


def _word(name: str) -> str:
    """A name as YAML reads it as text: bare, unless that would mean something else, as ``no`` does."""
    return name if yaml.safe_load(name) == name else _text(name)


def _shown(name: str) -> str:
    """A file's name within a comment or docstring, whatever characters it has."""
    return "".join(char if char.isprintable() and char not in '\\"' else "_" for char in name)
