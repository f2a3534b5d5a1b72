"""Settings: one setting moves the whole lake; a wrong value names its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.errors import SettingsError
from lakehouse.settings import PROJECT_DIR, load_settings


def test_the_root_moves_everything_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "elsewhere"))
    settings = load_settings()
    for path in (settings.landing, settings.catalog_dir, settings.state_dir, str(settings.dagster_home)):
        assert path.startswith(str(tmp_path / "elsewhere"))


def test_the_default_root_is_in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKEHOUSE_ROOT")
    assert load_settings().root == str(PROJECT_DIR / ".lake")
    assert load_settings().catalog_path == PROJECT_DIR / ".lake/catalog/gold.duckdb"


def test_a_remote_root_keeps_local_things_local() -> None:
    settings = load_settings(root="s3://bucket/lake")
    assert settings.landing == "s3://bucket/lake/landing"
    assert settings.catalog_path.is_absolute()
    assert settings.dagster_home.is_absolute()


def test_a_local_folder_may_be_written_as_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ROOT", "LANDING", "STATE_DIR"):
        monkeypatch.setenv(f"LAKEHOUSE_{variable}", f"file://{tmp_path}/{variable}")
    settings = load_settings()
    assert (settings.root, settings.landing, settings.state_dir) == (
        f"{tmp_path}/ROOT", f"{tmp_path}/LANDING", f"{tmp_path}/STATE_DIR",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("LAKEHOUSE_ROOT", "http://host/lake", "s3://"),
        ("LAKEHOUSE_ROOT", "../../etc", "climbs"),
        ("LAKEHOUSE_MEMORY_LIMIT", "lots", "LAKEHOUSE_MEMORY_LIMIT"),
        ("LAKEHOUSE_THREADS", "-1", "LAKEHOUSE_THREADS"),
        ("LAKEHOUSE_SLA_WARN_MINUTES", "61", "must be below"),
        ("LAKEHOUSE_ENVIRONMENT", "staging", "LAKEHOUSE_ENVIRONMENT"),
        ("LAKEHOUSE_STORAGE_OPTIONS", "not json", "LAKEHOUSE|storage_options"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=says):
        load_settings()


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(root=str(tmp_path)).threads = 4  # type: ignore[misc]
