"""One object store for the fault tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import ServerMissing, Store, seaweedfs


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """SeaweedFS; skipped where its package is not installed."""
    try:
        with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as running:
            yield running
    except ServerMissing as missing:
        pytest.skip(str(missing))
