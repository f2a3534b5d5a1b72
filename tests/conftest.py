"""Every test runs with settings of its own: no variable of the machine, no lake but the one in its folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lakehouse.settings import Settings, load_settings
from tests.servers import ServerMissing, Store, s3rver, seaweedfs

PROJECT = Path(__file__).resolve().parent.parent
_FOREIGN = ("LAKEHOUSE_", "DAGSTER_", "DBT_", "AWS_")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, whole lakes with their servers and crashes: at the end it would leave cores idle."""
    items.sort(key=lambda item: not {"e2e", "faults"} & set(item.path.parts))


@pytest.fixture(autouse=True)
def _isolated_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine's own variables are gone; a root that a test forgets to set is below its tmp_path."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))


def run_cli(
    *arguments: str, root: Path, timeout_s: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``lakehouse …`` as a process of its own, as a person would run it. Never raises for an exit code."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return subprocess.run(
        [sys.executable, "-m", "lakehouse.cli", *arguments],
        env={**clean, "LAKEHOUSE_ROOT": str(root), **variables},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def loaded_by(arguments: Sequence[str], root: Path) -> set[str]:
    """Modules that a process has imported when the command has ended well."""
    code = (
        "import sys; from lakehouse.cli.app import app\n"
        f"try: app({list(arguments)!r})\n"
        "except SystemExit as ended: assert not ended.code\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "LAKEHOUSE_ROOT": str(root)}, cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    return loaded


@dataclass(frozen=True)
class DemoLake:
    """The lake after one whole ``lakehouse demo``. Shared: tests read it, and copy it before they write."""

    root: Path
    settings: Settings
    output: str

    @property
    def catalog(self) -> Path:
        """The analysts' database."""
        return self.settings.catalog_path

    def copy_to(self, folder: Path) -> DemoLake:
        """A lake of one's own with the same content. The catalog still reads the shared one's files."""
        shutil.copytree(self.root, folder)
        return DemoLake(folder, load_settings(root=str(folder)), self.output)


@pytest.fixture(scope="session")
def demo_lake(tmp_path_factory: pytest.TempPathFactory) -> DemoLake:
    """The real demo, run once for all workers of a test session, through the command line."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    root, log = shared / "demo-lake", shared / "demo-lake.log"
    with open(shared / "demo-lake.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.exists():
            done = run_cli("demo", root=root, timeout_s=600)
            if done.returncode != 0:
                pytest.fail(
                    f"lakehouse demo exited with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
                )
            log.write_text(done.stdout)
    return DemoLake(root, load_settings(root=str(root)), log.read_text())


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """SeaweedFS, one a worker: each test takes a root of its own. Skipped where its package is not installed."""
    try:
        with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
            yield running
    except ServerMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def careless_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """s3rver, which ignores the condition of a conditional write; skipped where npm has not installed it."""
    try:
        with s3rver(tmp_path_factory.mktemp("s3rver")) as running:
            yield running
    except ServerMissing as missing:
        pytest.skip(str(missing))
