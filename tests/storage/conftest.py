"""Object stores for the storage tests: a good one and a bad one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import ServerMissing, Store, s3rver, seaweedfs


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """SeaweedFS; skipped where its package is not installed."""
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
