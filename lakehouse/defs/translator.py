"""How dbt's nodes appear in the asset graph: keys, groups, descriptions and columns of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator

from lakehouse import names

#: Folder of the dbt project → group. The folders are the usual dbt ones.
_GROUPS = {"staging": "gold_staging", "intermediate": "gold_intermediate", "marts": "gold"}


class LakehouseTranslator(DagsterDbtTranslator):
    """A model is ``gold/<name>``; a source is the silver table that the pipelines write."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return dg.AssetKey(names.asset_key("silver", dbt_resource_props["identifier"]))
        return dg.AssetKey(
            names.asset_key("gold", dbt_resource_props.get("alias") or dbt_resource_props["name"])
        )

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        folder = next((part for part in dbt_resource_props["fqn"][1:-1] if part in _GROUPS), "marts")
        return _GROUPS[folder]

    def get_description(self, dbt_resource_props: Mapping[str, Any]) -> str:
        return str(dbt_resource_props.get("description") or "")

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        columns = [
            dg.TableColumn(
                column["name"],
                column.get("data_type") or "unknown",
                description=column.get("description") or None,
            )
            for column in dbt_resource_props.get("columns", {}).values()
        ]
        schema = {"dagster/column_schema": dg.TableSchema(columns=columns)} if columns else {}
        return {**schema, "declared in": f"dbt_project/{dbt_resource_props.get('original_file_path', '')}"}

    def get_tags(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, str]:
        return {"layer": "gold"}
