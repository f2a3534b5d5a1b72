"""The dbt project as gold needs it: models, their inputs, their write strategy and their hashes.

Read from dbt's ``manifest.json`` without importing dbt, so that a run with no news costs milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lakehouse.errors import GoldBuildError
from lakehouse.gold.model_settings import constraints, group_settings, write_settings
from lakehouse.gold.results import Strategy
from lakehouse.validation import check_identifier

#: Materializations that live in one run's memory and are built again whenever something needs them.
IN_MEMORY = ("view", "ephemeral", "table", "seed")
#: The one schema that sources may name: gold reads silver.
SILVER = "silver"
#: What a text asks of the environment; a name that is computed is not seen.
_ENV_VAR = re.compile(r"env_var\(\s*['\"]([^'\"]+)['\"]")
_IGNORED_DIRS = {"target", "logs", "dbt_packages", "__pycache__", ".git"}


@dataclass(frozen=True)
class Model:
    """One dbt model (or seed). ``models`` and ``silver`` are its direct inputs. ``name`` is that of its table, its alias if it
    has one; dbt finds it by ``selector``.

    ``touched_by`` (strategy replace_groups) says for a table, ``silver/orders`` or ``gold/orders``, how a changed row
    tells its groups: expressions for ``group_key``, or a query over ``changed_rows``.
    """

    name: str
    unique_id: str
    resource: str
    materialized: str
    strategy: Strategy
    unique_key: tuple[str, ...]
    replace_where: str | None
    never_refresh: bool
    models: tuple[str, ...]
    silver: tuple[str, ...]
    description: str
    columns: Mapping[str, str]
    constraints: tuple[tuple[str, str], ...]
    own_hash: str
    docs_hash: str
    selector: str = ""
    group_key: tuple[str, ...] = ()
    touched_by: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_delta(self) -> bool:
        return self.materialized == "delta"


@dataclass(frozen=True)
class Test:
    """One data or unit test, and the models it looks at. One of a source has none; ``silver`` are the tables it names."""

    __test__ = False

    name: str
    unique_id: str
    kind: str
    models: tuple[str, ...]
    column: str | None
    description: str
    severity: str
    silver: tuple[str, ...] = ()

    @property
    def selector(self) -> str:
        """As dbt selects it: of a name with spaces, commas or colons it would make something else."""
        return re.sub(r"\W", "?", self.name)


class Project:
    """The parsed project. Building it checks every model's configuration.

    Args:
        folder: where its files lie, to hash what dbt does not: variables, large seeds. None: they are left out.

    Raises:
        GoldBuildError: a model's configuration cannot work; names the model, the value and what is allowed.
    """

    def __init__(self, manifest: Mapping[str, Any], code_hash: str, folder: Path | None = None) -> None:
        self.code_hash = code_hash
        self._folder = folder
        self._variables = {} if folder is None else _variables(folder)
        self._macros: Mapping[str, Any] = manifest["macros"]
        sources = {uid: node["identifier"] for uid, node in manifest["sources"].items()}
        for uid, node in manifest["sources"].items():
            if node["schema"] != SILVER:
                raise GoldBuildError(
                    f"source {uid}: schema is '{node['schema']}', and gold reads '{SILVER}' only",
                    hint=f"declare the source with `schema: {SILVER}` (or name the source '{SILVER}')",
                )
        names = {
            uid: node.get("alias") or node["name"]
            for uid, node in manifest["nodes"].items()
            if node["resource_type"] in ("model", "seed", "snapshot")
        }
        self.models: dict[str, Model] = {}
        for uid, name in names.items():
            model = self._model(manifest["nodes"][uid], name, names, sources)
            if name in self.models:
                raise GoldBuildError(
                    f"models {uid} and {self.models[name].unique_id} are both called '{name}'"
                )
            self.models[name] = model
        for model in self.models.values():
            self._check_touched_by(model)
        self.tests = tuple(self._tests(manifest, names, sources))

    @classmethod
    def load(cls, manifest_path: Path, code_hash: str, folder: Path | None = None) -> Project:
        return cls(json.loads(manifest_path.read_bytes()), code_hash, folder)

    @property
    def delta_models(self) -> list[Model]:
        """The models that are tables of the lake, inputs before what reads them."""
        return [self.models[name] for name in self.order if self.models[name].is_delta]

    @cached_property
    def order(self) -> list[str]:
        """Every model, inputs before what reads them; ties by name."""
        done: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in done:
                for parent in sorted(self.models[name].models):
                    visit(parent)
                done[name] = None

        for name in sorted(self.models):
            visit(name)
        return list(done)

    def ancestors(self, name: str, *, through_delta: bool = True) -> set[str]:
        """Everything upstream. Without ``through_delta`` the walk stops below each table of the lake."""
        found: set[str] = set()
        open_names = list(self.models[name].models)
        while open_names:
            parent = open_names.pop()
            if parent in found:
                continue
            found.add(parent)
            if through_delta or not self.models[parent].is_delta:
                open_names += self.models[parent].models
        return found

    def silver_inputs(self, name: str) -> set[str]:
        """Every silver table that the model reads, directly or through others."""
        return {table for model in (name, *self.ancestors(name)) for table in self.models[model].silver}

    def tables_read(self, name: str) -> set[str]:
        """The lake's tables that the model reads, directly or through views: ``silver/orders``, ``gold/fct_orders``."""
        through = {name, *self.ancestors(name, through_delta=False)}
        between = {model for model in through if model == name or not self.models[model].is_delta}
        tables = {f"silver/{table}" for model in between for table in self.models[model].silver}
        return tables | {f"gold/{model}" for model in through - between}

    def _check_touched_by(self, model: Model) -> None:
        unknown = sorted(set(model.touched_by) - self.tables_read(model.name)) if model.touched_by else []
        if unknown:
            raise GoldBuildError(
                f"model {model.name}: touched_by names {', '.join(unknown)}, which it does not read",
                hint=f"it reads {', '.join(sorted(self.tables_read(model.name)))}",
            )

    def definition_hash(self, name: str, silver_schemas: Mapping[str, str]) -> str:
        """Changes when the model's rows could come out differently from the same data: its SQL and settings, the
        macros and models upstream, or the columns of silver. Then an incremental model starts over."""
        parts = [self.models[name].own_hash]
        parts += [self.models[parent].own_hash for parent in sorted(self.ancestors(name))]
        parts += [f"{table}={silver_schemas.get(table, '')}" for table in sorted(self.silver_inputs(name))]
        return _digest(parts)

    def input_hash(self, name: str, silver_schemas: Mapping[str, str], silver_data: Mapping[str, int]) -> str:
        """Changes when a rebuild could change the table: its definition, its texts, or the data of silver."""
        parts = [self.definition_hash(name, silver_schemas), self.models[name].docs_hash]
        parts += [f"{table}@{silver_data.get(table)}" for table in sorted(self.silver_inputs(name))]
        return _digest(parts)

    # -- reading the manifest ---------------------------------------------------------------------

    def _model(
        self, node: Mapping[str, Any], name: str, names: Mapping[str, str], sources: Mapping[str, str]
    ) -> Model:
        config = node["config"]
        resource = node["resource_type"]
        materialized = "seed" if resource == "seed" else str(config.get("materialized"))
        where = f"model {node['name']} ({node.get('original_file_path', '')})"
        if resource == "snapshot" or materialized not in ("delta", *IN_MEMORY):
            raise GoldBuildError(
                f"{where}: materialized is '{materialized}'; allowed: delta (a table of the lake), view, ephemeral, table "
                "(both in memory, for one run)",
                hint="set materialized: delta, and a strategy when it is not to be rewritten whole",
            )
        try:
            check_identifier(name, "model name")
        except ValueError as error:
            raise GoldBuildError(f"{where}: {error}") from error
        depends = node.get("depends_on", {}).get("nodes", [])
        columns = {
            column["name"]: column.get("description", "") for column in node.get("columns", {}).values()
        }
        strategy, unique_key, replace_where = (
            write_settings(where, config) if materialized == "delta" else ("overwrite", (), None)
        )
        settings = {
            key: config.get(key)
            for key in ("materialized", "strategy", "unique_key", "replace_where", "contract")
        }
        group_key, touched_by = group_settings(where, config) if strategy == "replace_groups" else ((), {})
        if group_key:
            settings |= {"group_key": group_key, "touched_by": touched_by}
        # Only where there are any: what had none keeps its hash.
        settings |= {key: config[key] for key in ("pre-hook", "post-hook") if config.get(key)}
        types = [
            (column["name"], column.get("data_type"))
            for column in node.get("columns", {}).values()
            if column.get("data_type")
        ]
        macros = self._macro_texts(node)
        enforced = tuple(constraints(where, node)) if materialized == "delta" else ()
        return Model(
            name=name,
            unique_id=node["unique_id"],
            resource=resource,
            materialized=materialized,
            strategy=strategy,  # type: ignore[arg-type]
            unique_key=unique_key,
            replace_where=replace_where,
            never_refresh=config.get("full_refresh") is False,
            models=tuple(names[uid] for uid in depends if uid in names),
            silver=tuple(sources[uid] for uid in depends if uid in sources),
            description=node.get("description", ""),
            columns=columns,
            constraints=enforced,
            own_hash=_digest(
                [
                    self._content(node),
                    settings,
                    types,
                    *macros,
                    *self._asked(str(node.get("raw_code") or ""), *macros),
                    *([enforced] if enforced else []),
                ]
            ),
            docs_hash=_digest(
                [node.get("description", ""), {name: text for name, text in columns.items() if text}]
            ),
            selector=f"file:{Path(node['original_file_path']).name}",
            group_key=group_key,
            touched_by=touched_by,
        )

    def _content(self, node: Mapping[str, Any]) -> str:
        """dbt's checksum of the file; of a large seed that is its path, and its content may be another."""
        checksum = node["checksum"]
        if checksum["name"] != "path" or self._folder is None:
            return str(checksum["checksum"])
        try:
            with open(self._folder / node["original_file_path"], "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # of a package, whose version says what is in it
            return str(checksum["checksum"])

    def _asked(self, *texts: str) -> list[Any]:
        """The project's variables and those of the environment that a model's text, or its macros', may ask for."""
        names = sorted({name for text in texts for name in _ENV_VAR.findall(text)})
        asked: list[Any] = [{name: os.environ.get(name) for name in names}] if names else []  # noqa: TID251  dbt reads them
        if self._variables and any("var(" in text for text in texts):
            asked.append(self._variables)
        return asked

    def _macro_texts(self, node: Mapping[str, Any]) -> list[str]:
        """The text of every macro of ours that the node uses (dbt's own change with its version only)."""
        texts: dict[str, str] = {}
        open_ids = list(node.get("depends_on", {}).get("macros", []))
        while open_ids:
            uid = open_ids.pop()
            macro = self._macros.get(uid)
            if macro is None or uid in texts or macro["package_name"] in ("dbt", "dbt_duckdb"):
                continue
            texts[uid] = macro["macro_sql"]
            open_ids += macro.get("depends_on", {}).get("macros", [])
        return [texts[uid] for uid in sorted(texts)]

    def _tests(
        self, manifest: Mapping[str, Any], names: Mapping[str, str], sources: Mapping[str, str]
    ) -> Iterator[Test]:
        for node in [*manifest["nodes"].values(), *manifest.get("unit_tests", {}).values()]:
            if node["resource_type"] not in ("test", "unit_test"):
                continue
            is_unit = node["resource_type"] == "unit_test"
            uids = node.get("depends_on", {}).get("nodes", [])
            models = tuple(names[uid] for uid in uids if uid in names)
            attached = names.get(node.get("attached_node") or "", node.get("model"))
            if attached in models:  # the tested model first
                models = (attached, *(model for model in models if model != attached))
            yield Test(
                name=node["name"],
                unique_id=node["unique_id"],
                kind="unit" if is_unit else "data",
                models=models[:1] if is_unit else models,
                column=node.get("column_name"),
                description=node.get("description") or "",
                severity=str(node["config"].get("severity", "error")).lower(),
                silver=tuple(sources[uid] for uid in uids if uid in sources),
            )


def _variables(folder: Path) -> dict[str, Any]:
    """The block ``vars`` of dbt_project.yml; nothing where that cannot be read, which dbt says better."""
    try:
        found = yaml.safe_load((folder / "dbt_project.yml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    variables = found.get("vars") if isinstance(found, dict) else None
    return variables if isinstance(variables, dict) else {}


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code_hash(project_dir: Path) -> str:
    """Hash of every file of the dbt project: when it is unchanged, so is what dbt would parse."""
    digest = hashlib.sha256()
    for path in sorted(project_dir.rglob("*")):
        relative = path.relative_to(project_dir)
        if (
            path.is_file()
            and not _IGNORED_DIRS.intersection(relative.parts)
            and not relative.name.startswith(".")
        ):
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
