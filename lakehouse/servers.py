"""Dagster's web server and daemon as child processes: started together, stopped together.

Both read their settings from the environment, as everything does; their state is below the lake's state folder.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lakehouse.doctor import Finding
from lakehouse.errors import LakehouseError, PermanentError, TransientError
from lakehouse.settings import PROJECT_DIR, Settings

HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
#: How long a sensor may look at its sources, and send what is owed.
_LOOK_TIMEOUT_S = 600
#: The daemon's heart beats every half minute; a busy machine may be late with it.
_HEARTBEAT_S = 120.0
#: A log of more than this is put aside at the next start, in the place of the one before.
_LOG_BYTES = 16 << 20


@dataclass(frozen=True)
class Servers:
    """Both processes while they run. ``logs`` is the folder with their output."""

    webserver: subprocess.Popen[bytes]
    daemon: subprocess.Popen[bytes]
    url: str
    logs: Path

    def dead(self) -> str | None:
        """Name of a server that has ended by itself, or None."""
        ended = {"web server": self.webserver, "daemon": self.daemon}
        return next((name for name, process in ended.items() if process.poll() is not None), None)


@contextmanager
def running(
    settings: Settings, port: int, *, variables: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """Start both, wait until the page answers, and stop both on the way out, whatever happened.

    Raises:
        PermanentError: the port is taken, or another `up` runs on this lake.
        TransientError: a server ended or did not answer in two minutes; the message has its last lines.
    """
    home = settings.dagster_home
    _refuse_taken(port)
    _refuse_second(settings)
    from lakehouse.defs.instance import ensure_home

    ensure_home(settings)
    logs = Path(settings.state_dir, "logs")
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**_environment(settings), **(variables or {}), "DAGSTER_HOME": str(home)}
    workspace = str(PROJECT_DIR / "workspace.yaml")
    children: list[subprocess.Popen[bytes]] = []
    before = _end_with_us()
    try:
        for module, arguments in (
            ("dagster_webserver", ["-h", HOST, "-p", str(port), "-w", workspace]),
            ("dagster._daemon", ["run", "-w", workspace]),
        ):
            children.append(_spawn(module, arguments, environment, logs))
        servers = Servers(children[0], children[1], f"http://{HOST}:{port}", logs)
        _pid_file(settings).write_text(json.dumps({"pid": os.getpid(), "url": servers.url}))
        _wait_until_up(servers)
        yield servers
    finally:
        _pid_file(settings).unlink(missing_ok=True)
        _stop(children)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_us() -> dict[signal.Signals, Any]:
    """However this process is told to end, it stops its children first; returns the handlers to put back.

    SIGINT too: a process that a script started in the background ignores it otherwise.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    return {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }


def _spawn(
    module: str, arguments: list[str], environment: Mapping[str, str], logs: Path
) -> subprocess.Popen[bytes]:
    """A child in a session of its own: Ctrl-C reaches us alone, and we stop it in order."""
    path = logs / f"{module.rpartition('_')[2]}.log"
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with open(path, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=dict(environment),
            cwd=PROJECT_DIR,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment, with the root that was resolved here (a child may have another folder)."""
    # Dagster ends a sensor's look after a minute, and the next one would begin the same listing again.
    patience = {"DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": str(_LOOK_TIMEOUT_S)}
    return {**patience, **_inherited(), "LAKEHOUSE_ROOT": settings.root}


def _inherited() -> dict[str, str]:
    return dict(os.environ)  # noqa: TID251  handed on to children, not read


def _wait_until_up(servers: Servers) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if name := servers.dead():
            raise TransientError(
                f"the {name} ended while it started:\n{_tail(servers.logs)}", hint="lakehouse doctor"
            )
        try:
            with urllib.request.urlopen(f"{servers.url}/server_info", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise TransientError(
        f"the web server did not answer in {_START_TIMEOUT_S:.0f} s:\n{_tail(servers.logs)}",
        hint="lakehouse doctor",
    )


def _tail(logs: Path, lines: int = 15) -> str:
    text = [
        line
        for file in sorted(logs.glob("*.log"))
        for line in file.read_text(errors="replace").splitlines()[-lines:]
    ]
    return "\n".join(f"  {line}" for line in text)


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    """Ask each process group to end; after half a minute, end it."""
    for child in children:
        _signal(child, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(child, signal.SIGKILL)
            child.wait()
        _signal(child, signal.SIGKILL)  # what it had started itself, such as code servers


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PermanentError(
                f"port {port} is taken: {error.strerror}", hint="choose another: --port 3001"
            ) from error


def _pid_file(settings: Settings) -> Path:
    return Path(settings.state_dir, "servers.json")


def _refuse_second(settings: Settings) -> None:
    owner = running_url(settings)
    if owner is not None:
        raise PermanentError(
            f"the servers of this lake are running already: {owner}",
            hint="open it, or stop them there (Ctrl-C)",
        )


def running_url(settings: Settings) -> str | None:
    """Address of the servers that run on this lake on this machine, or None."""
    try:
        noted = json.loads(_pid_file(settings).read_text())
        os.kill(int(noted["pid"]), 0)
    except (OSError, ValueError, KeyError):
        return None
    return str(noted["url"])


def daemon_state(settings: Settings) -> Finding:
    """For the doctor: does somebody look for new arrivals? Fresh heartbeats, told from the daemon's own database.

    Where no daemon was started, what waits decides: a scheduler that calls `lakehouse run` leaves nothing waiting.
    """
    if running_url(settings) is None:
        return _without_daemon(settings)
    from lakehouse.defs.heartbeat import heartbeat_age_s

    age_s = heartbeat_age_s(settings)
    if age_s is None or age_s > _HEARTBEAT_S:
        return Finding(
            "daemon",
            "warn",
            "started, no heartbeat yet"
            if age_s is None
            else f"started, but without a heartbeat for {age_s / 60:.0f} minutes",
            f"if it stays so: stop `lakehouse up` (Ctrl-C), read {settings.state_dir}/logs, start it again",
        )
    return Finding("daemon", "ok", f"alive, last heartbeat {age_s:.0f} s ago")


def _without_daemon(settings: Settings) -> Finding:
    from lakehouse.defs.heartbeat import heartbeat_age_s, newest_run_age_s
    from lakehouse.ops import backlog
    from lakehouse.pipelines import load_pipelines
    from lakehouse.storage import Lake

    now = datetime.now(UTC)
    try:
        seen = backlog.look(Lake.from_settings(settings), settings, load_pipelines(settings), now_utc=now)
    except LakehouseError as error:
        return Finding(
            "daemon", "warn", f"not running; what waits for a run cannot be told: {error.message}",
            error.hint or "lakehouse up",
        )  # fmt: skip
    if unseen := sorted(name for name, item in seen.news.items() if item.error):
        return Finding(
            "daemon", "warn", f"not running; {', '.join(unseen)} cannot be listed, so nobody knows what waits",
            "lakehouse status says why",
        )  # fmt: skip
    oldest = min(seen.waiting.values(), key=lambda held: held.oldest_arrival_utc, default=None)
    if oldest is None:
        return Finding(
            "daemon", "ok", "not running; new arrivals are taken by `lakehouse run` only, and nothing waits"
        )
    since = f"{oldest.source} waits since {oldest.oldest_arrival_utc:%Y-%m-%d %H:%M:%SZ}"
    if now - oldest.oldest_arrival_utc < timedelta(minutes=settings.sla_warn_minutes):
        return Finding(
            "daemon", "ok", f"not running; new arrivals are taken by `lakehouse run` only; {since}"
        )
    # Late, although somebody looks: a scheduler, or a daemon that was not started by `lakehouse up`.
    beat_s, run_s = heartbeat_age_s(settings), newest_run_age_s(settings)
    if beat_s is not None and beat_s <= _HEARTBEAT_S:
        return Finding("daemon", "ok", f"alive, last heartbeat {beat_s:.0f} s ago")
    if run_s is not None and run_s < settings.sla_fail_minutes * 60:
        return Finding(
            "daemon", "ok",
            f"not running; the last run was {run_s / 60:.0f} minutes ago; {since}: `lakehouse status` says why",
        )  # fmt: skip
    return Finding(
        "daemon", "warn", f"not running, and nobody looks for new arrivals: {since}",
        "lakehouse up, or `lakehouse run` from a scheduler",
    )  # fmt: skip
