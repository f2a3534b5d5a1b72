"""dbt in this process, on a project of the benchmark's own and a plain DuckDB file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_project(folder: Path, files: Mapping[str, str]) -> None:
    """A project with these files, and a model without rows: what it takes is dbt's own start."""
    nothing = "{{ config(materialized='view') }} select 1 as one where false"
    project = 'name: bench\nversion: "1.0"\nprofile: lakehouse\n'
    for name, text in {"dbt_project.yml": project, "models/nothing.sql": nothing, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_profile(folder: Path, database: Path) -> None:
    """The project's profile, with ``database`` as its DuckDB file."""
    output = {"type": "duckdb", "path": str(database), "threads": 2}
    profile = {"lakehouse": {"target": "d", "outputs": {"d": output}}}
    (folder / "profiles.yml").write_text(json.dumps(profile))


def invoke(folder: Path, *arguments: str) -> None:
    """Run dbt on the project. Raises ``RuntimeError`` when it did not succeed."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    project = str(folder)
    ended = dbtRunner().invoke([*arguments, "--quiet", "--project-dir", project, "--profiles-dir", project])
    DuckDBConnectionManager.close_all_connections()
    if not ended.success:
        raise RuntimeError(str(ended.exception or [result.message for result in ended.result]))
