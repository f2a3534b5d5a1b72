"""The dbt-duckdb plugin behind the ``delta`` materialization.

It prepares dbt's in-memory database with the pinned relations and writes each model's rows as one Delta commit.
"""

from __future__ import annotations

from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import TargetConfig

from lakehouse.errors import GoldBuildError
from lakehouse.gold import session as sessions
from lakehouse.gold.strategies import write_model
from lakehouse.storage import store_trouble


class Plugin(BasePlugin):
    """Looked up by dbt-duckdb by this name."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        # dbt opens plugins for commands without a build, too (parse, ls): those have no session.
        self._session = sessions.find(str(plugin_config.get("session") or ""))

    def configure_connection(self, conn: Any) -> None:
        if self._session is not None:
            self._session.prepare(conn)

    def store(self, target_config: TargetConfig) -> None:
        """Write one model. ``config`` is the macro's request; the answer is put into it under ``written``."""
        request = target_config.config
        session = self._session
        if session is None:
            raise GoldBuildError(
                "the delta materialization runs inside a lakehouse build only", hint="lakehouse run"
            )
        name = request["model"]
        try:
            written = write_model(session, session.plans[name], request["sql"])
        except BaseException as error:
            session.errors[name] = store_trouble(error, f"gold.{name}") or error
            raise
        session.written[name] = written
        session.settle()
        request["message"] = written.message
        request["rows"] = written.rows_written
