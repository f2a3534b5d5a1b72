"""From YAML files to ``Pipeline`` objects; every problem is found, with file, line and field."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from pydantic import ValidationError

from lakehouse.errors import DeclarationError, LakehouseError, SettingsError
from lakehouse.pipelines.model import PipelineSpec
from lakehouse.pipelines.taken import name_trouble
from lakehouse.settings import Settings

if TYPE_CHECKING:
    import polars as pl

    from lakehouse.contracts import CompiledContract

COMPONENT_TYPE = "lakehouse.defs.component.PipelineComponent"
FILE_NAME = "defs.yaml"

Transform = Callable[["pl.LazyFrame"], "pl.LazyFrame"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one declaration."""

    file: str
    line: int | None
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


@dataclass(frozen=True)
class Pipeline:
    """A declaration, with its contract and transform imported when first used."""

    spec: PipelineSpec
    file: str

    @property
    def name(self) -> str:
        return self.spec.name

    @cached_property
    def contract(self) -> CompiledContract:
        """The compiled contract. Raises ``DeclarationError`` when it cannot be imported or is wrong."""
        from lakehouse.contracts import compile_contract

        model = self._import(self.spec.contract, "contract")
        try:
            contract = compile_contract(model)
        except LakehouseError as error:
            raise DeclarationError(
                error.message, file=self.file, field="contract", hint=error.hint
            ) from error
        if reason := name_trouble(contract, self.spec):
            raise DeclarationError(
                f"{reason}; rename it in a transform and in the contract (or leave it out of the contract), and where the table "
                "has it already, give the pipeline a new name: its table is then built from all its files",
                file=self.file,
                field="contract",
                hint="docs/pipelines.md, Names that are taken",
            )
        return contract

    @cached_property
    def transform(self) -> Transform | None:
        """The transform, or None. Raises ``DeclarationError`` when it cannot be imported."""
        if self.spec.transform is None:
            return None
        function = self._import(self.spec.transform, "transform")
        if not callable(function):
            raise DeclarationError(
                f"{self.spec.transform} is not a function LazyFrame -> LazyFrame",
                file=self.file,
                field="transform",
            )
        return cast(Transform, function)

    def _import(self, dotted: str, field: str) -> Any:
        module_name, _, attribute = dotted.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise DeclarationError(
                f"cannot import {module_name}: {type(error).__name__}: {error}; "
                f"write the module's path from the project's root, for example lakehouse.contracts.my_table.MyTable",
                file=self.file,
                field=field,
            ) from error
        try:
            return getattr(module, attribute)
        except AttributeError:
            near = difflib.get_close_matches(attribute, [name for name in vars(module) if name[0] != "_"], 1)
            suggestion = f"; did you mean {near[0]}?" if near else ""
            raise DeclarationError(
                f"{module_name} has no {attribute}{suggestion}", file=self.file, field=field
            ) from None


def declaration_files(folder: str | Path) -> list[Path]:
    """Every ``defs.yaml`` below ``folder``, sorted.

    Raises:
        SettingsError: there is no such folder. An empty one declares nothing, which is right.
    """
    if not Path(folder).is_dir():
        raise SettingsError(
            f"LAKEHOUSE_PIPELINES_DIR: {folder} is not a folder",
            hint="correct the variable, or make the folder; without the variable the project's own is taken",
        )
    return sorted(Path(folder).rglob(FILE_NAME))


def load_pipelines(settings: Settings) -> dict[str, Pipeline]:
    """Every declared pipeline by name, sorted. Contracts and transforms are not imported yet.

    Raises:
        DeclarationError: some declaration is wrong; the message has every problem, one a line.
        SettingsError: the folder of the declarations is not there.
    """
    pipelines, problems = read_all(settings)
    if problems:
        raise DeclarationError("\n".join(str(problem) for problem in problems), hint="lakehouse validate")
    return pipelines


def find_problems(settings: Settings) -> list[Problem]:
    """Everything wrong with every declaration: YAML, fields, names, contracts, transforms, references."""
    pipelines, problems = read_all(settings)
    for pipeline in pipelines.values():
        problems += list(_deep_problems(pipeline, pipelines))
    return problems


def read_all(settings: Settings) -> tuple[dict[str, Pipeline], list[Problem]]:
    """Every declaration that can be read, by name, and what is wrong with the others. Imports nothing."""
    pipelines: dict[str, Pipeline] = {}
    problems: list[Problem] = []
    for path in declaration_files(settings.pipelines_dir):
        file = display(path)
        for spec, line, found in _read_file(path, file):
            problems += found
            if spec is None:
                continue
            if spec.name.lower() in {name.lower() for name in pipelines}:
                other = next(p.file for name, p in pipelines.items() if name.lower() == spec.name.lower())
                problems.append(
                    Problem(file, line, "name", f"{spec.name!r} is declared in {other} too; names are unique")
                )
                continue
            pipelines[spec.name] = Pipeline(spec, file)
    return dict(sorted(pipelines.items())), problems


def display(path: Path) -> str:
    """The path as it is shown: from where somebody stands, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_file(path: Path, file: str) -> Iterator[tuple[PipelineSpec | None, int | None, list[Problem]]]:
    """One item per YAML document that declares a pipeline."""
    try:
        text = path.read_text(encoding="utf-8")
        documents = list(_documents(text))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        yield None, line, [Problem(file, line, "", f"is not valid YAML: {error.problem}")]
        return
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        yield None, None, [Problem(file, None, "", f"cannot be read: {error}")]
        return
    if not documents:
        yield None, 1, [Problem(file, 1, "", "is empty; write type and attributes (docs/pipelines.md)")]
    for node, document in documents:
        yield _read_document(node, document, file)


def _documents(text: str) -> Iterator[tuple[Any, Any]]:
    """Each document as nodes, which know their lines, and as values. The C library parses ten times as fast."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            yield node, loader.construct_document(node)
    finally:
        loader.dispose()


def _read_document(
    node: Any, document: Any, file: str
) -> tuple[PipelineSpec | None, int | None, list[Problem]]:
    line = node.start_mark.line + 1
    if not isinstance(document, Mapping):
        return None, line, [Problem(file, line, "", "is not a mapping; write type: and attributes:")]
    kind = document.get("type")
    if kind != COMPONENT_TYPE:
        if isinstance(kind, str) and kind.startswith("dagster"):  # another component: not ours to judge
            return None, line, []
        return None, line, [Problem(file, line, "type", f"is {kind!r}; write type: {COMPONENT_TYPE}")]
    attributes = document.get("attributes")
    if not isinstance(attributes, Mapping):
        return (
            None,
            line,
            [Problem(file, line, "attributes", "is missing or not a mapping; see docs/pipelines.md")],
        )
    extra = set(document) - {"type", "attributes", "requirements", "template_vars_module", "post_processing"}
    problems = [
        Problem(
            file,
            line_of(node, (key,)),
            str(key),
            "is not known beside type and attributes; indent it under attributes",
        )
        for key in sorted(extra, key=str)
    ]
    try:
        spec = PipelineSpec.model_validate(attributes)
    except ValidationError as error:
        return None, line, problems + [_problem(issue, node, file) for issue in error.errors()]
    return (None if problems else spec), line, problems


def _problem(issue: Any, node: Any, file: str) -> Problem:
    location = tuple(issue["loc"])
    message = str(issue["msg"]).removeprefix("Value error, ")
    if issue["type"] == "extra_forbidden":
        message = "is not a known option" + _suggest(location)
    elif issue["type"] == "missing":
        message = "is required"
    elif issue["type"] == "literal_error":
        message = f"is {issue['input']!r}; write one of {issue['ctx']['expected']}"
    elif "input" in issue and not issue["type"].startswith("value_error"):
        message = f"is {issue['input']!r}: {message[0].lower()}{message[1:]}"
    return Problem(file, line_of(node, ("attributes", *location)), ".".join(map(str, location)), message)


def _suggest(location: tuple[Any, ...]) -> str:
    model: Any = PipelineSpec
    for part in location[:-1]:
        info = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        annotation = info.annotation if info else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next((c for c in candidates if hasattr(c, "model_fields")), None)
    if not hasattr(model, "model_fields"):
        return ""
    near = difflib.get_close_matches(str(location[-1]), list(model.model_fields), 1)
    known = ", ".join(model.model_fields)
    return f"; did you mean {near[0]}?" if near else f"; known are {known}"


def line_of(node: Any, location: tuple[Any, ...]) -> int | None:
    """Line (1-based) of the deepest part of ``location`` that the document has."""
    line = int(node.start_mark.line) + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _can_be(dtype: pl.DataType, value: str | int | bool) -> bool:
    """Whether a value of this type may be what YAML gave."""
    import polars as pl

    from lakehouse.contracts.casting import FALSE_TEXTS, TRUE_TEXTS

    if dtype.is_numeric():
        try:
            return math.isfinite(float(value))
        except ValueError:
            return False
    return not isinstance(dtype, pl.Boolean) or str(value).lower() in (*TRUE_TEXTS, *FALSE_TEXTS)


def _deep_problems(pipeline: Pipeline, pipelines: Mapping[str, Pipeline]) -> Iterator[Problem]:
    """What only the contract and the other pipelines can tell."""
    import polars as pl

    def problem(field: str, message: str) -> Problem:
        node = next(
            (n for n in yaml.compose_all(Path(pipeline.file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
             if line_of(n, ("attributes", "name"))), None,
        )  # fmt: skip
        line = line_of(node, ("attributes", *field.split("."))) if node is not None else None
        return Problem(pipeline.file, line, field, message)

    spec = pipeline.spec
    try:
        contract = pipeline.contract
    except DeclarationError as error:
        yield problem("contract", error.detail)
        return
    try:
        _ = pipeline.transform
    except DeclarationError as error:
        yield problem("transform", error.detail)
    columns = set(contract.schema)
    if spec.silver.mode != "append" and not contract.key:
        yield problem(
            "silver.mode",
            f"{spec.silver.mode} needs a key, and the contract {contract.name} has none; "
            "add class Config: unique = [...] to the contract, or use mode append",
        )
    available = columns | set(spec.source.path_columns)
    for column in spec.silver.sequence_by:
        if column not in available:
            yield problem("silver.sequence_by", _unknown_column(column, contract.name, columns))
        elif (
            spec.silver.mode == "history"
            and column in columns
            and not isinstance(contract.schema[column], pl.Date | pl.Datetime)
        ):
            # A number may be seconds or milliseconds, and a day or a month may come first in text: nothing is guessed.
            yield problem(
                "silver.sequence_by",
                f"{column!r} is {contract.schema[column]}; a history needs a column of type Date or Datetime: since when "
                "a row's state holds. Make one in the transform, or use mode upsert, which takes any order",
            )
    delete = spec.silver.delete_when
    if (
        delete is not None
        and delete.column in columns
        and not _can_be(contract.schema[delete.column], delete.value)
    ):
        yield problem(
            "silver.delete_when",
            f"{delete.column!r} is {contract.schema[delete.column]} and never {delete.value!r}: no row would be deleted",
        )
    if spec.silver.partition_by is not None:
        column = spec.silver.partition_by.column
        if column not in columns:
            yield problem("silver.partition_by.column", _unknown_column(column, contract.name, columns))
        elif not isinstance(contract.schema[column], pl.Date | pl.Datetime):
            yield problem(
                "silver.partition_by.column",
                f"{column!r} is {contract.schema[column]}; days need a column of type Date or Datetime",
            )
    for index, reference in enumerate(spec.checks.references):
        field = f"checks.references.{index}"
        for column in reference.columns:
            if column not in columns:
                yield problem(field, _unknown_column(column, contract.name, columns))
        target = pipelines.get(reference.to)
        if target is None:
            near = difflib.get_close_matches(reference.to, list(pipelines), 1)
            yield problem(
                field,
                f"no pipeline is named {reference.to!r}" + (f"; did you mean {near[0]}?" if near else ""),
            )
            continue
        try:
            known = set(target.contract.schema)
        except DeclarationError:
            continue  # reported where it stands
        for column in reference.target_columns:
            if column not in known:
                yield problem(field, _unknown_column(column, target.contract.name, known))


def _unknown_column(column: str, contract: str, columns: set[str]) -> str:
    near = difflib.get_close_matches(column, columns, 1)
    return f"{column!r} is not a column of the contract {contract}" + (
        f"; did you mean {near[0]}?" if near else ""
    )
