"""Alerts reach real receivers, once each, whatever dies in between."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiosmtpd.controller import Controller

from lakehouse.errors import CommitConflict
from lakehouse.ops import alerts
from lakehouse.ops.channels import Email, LogChannel, Webhook
from lakehouse.ops.freshness import TableFreshness, Waiting, assess
from lakehouse.settings import Settings
from lakehouse.storage import Lake
from tests.ops.receivers import HttpReceiver

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


class Mailbox:
    """An SMTP handler that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.messages.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 OK"


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with HttpReceiver() as server:
        yield server


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, f"smtp://127.0.0.1:{port}"
    controller.stop()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def settings_of(lake: Lake, **changes: Any) -> Settings:
    return Settings(root=lake.root, **changes)


def late(minutes: float) -> tuple[list[TableFreshness], datetime]:
    now = START + timedelta(minutes=minutes)
    held = {"flights": Waiting("flights", "queue", START, files=1)} if minutes < 90 else {}
    feeds = {"fct_flights": {"flights"}, "daily_punctuality": {"flights"}}
    return assess(now, feeds, held, warn_after_s=2700, fail_after_s=3600), now


def test_the_webhook_gets_one_alert_each_on_warning_breach_and_recovery(
    lake: Lake, receiver: HttpReceiver
) -> None:
    settings = settings_of(lake, alert_webhook_url=receiver.url)

    for minute in (10, 44, 46, 50, 61, 70, 89, 95, 96):
        alerts.tick(lake, settings, *late(minute))

    assert [body["kind"] for body in receiver.bodies] == ["warn", "breach", "recovery"]
    warning = receiver.bodies[0]
    assert warning["tables"] == ["gold.daily_punctuality", "gold.fct_flights"]
    assert warning["hop"] == "queue"
    assert warning["breach_at_utc"] == "2026-01-05T09:00:00Z"
    for fact in ("gold.fct_flights", "2026-01-05T08:00:00Z", "46.0 min", "queue", "next: lakehouse run"):
        assert fact in warning["text"]


def test_mail_reaches_every_address_once_per_alert(lake: Lake, mailbox: tuple[Mailbox, str]) -> None:
    box, smtp_url = mailbox
    settings = settings_of(lake, smtp_url=smtp_url, alert_email_to="a@example.com, b@example.com")

    for minute in (46, 47, 61, 62, 95):
        alerts.tick(lake, settings, *late(minute))

    for address in ("a@example.com", "b@example.com"):
        subjects = [str(mail["Subject"]) for recipients, mail in box.messages if address in recipients]
        assert [subject.split(": ")[0] for subject in subjects] == [
            "[dev] WARNING",
            "[dev] SLA BREACH",
            "[dev] RECOVERED",
        ]
    assert "next: lakehouse run" in box.messages[0][1].get_body().get_content()


def test_the_log_always_gets_the_alert(lake: Lake, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="lakehouse.alerts"):
        alerts.tick(lake, settings_of(lake), *late(46))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "gold.fct_flights" in caplog.text


def test_a_channel_that_fails_is_tried_again_next_tick_and_the_others_are_not(
    lake: Lake, receiver: HttpReceiver
) -> None:
    log = RecordingChannel("log")
    to = [log, Webhook(receiver.url)]
    receiver.answer = 503
    states, now = late(46)

    first = alerts.tick(lake, settings_of(lake), states, now, to=to)
    receiver.answer = 200
    second = alerts.tick(lake, settings_of(lake), *late(47), to=to)
    third = alerts.tick(lake, settings_of(lake), *late(48), to=to)

    assert [(s.channel, bool(s.error)) for s in first] == [("log", False), ("webhook", True)]
    assert [(s.channel, s.error) for s in second] == [("webhook", "")]
    assert third == []
    assert len(log.messages) == 1
    assert [body["kind"] for body in receiver.bodies] == ["warn", "warn"]
    assert receiver.bodies[0]["id"] == receiver.bodies[1]["id"]


def test_a_server_that_is_not_there_is_an_error_of_that_channel_only(lake: Lake) -> None:
    dead = Webhook("http://127.0.0.1:9/")
    mail = Email("smtp://127.0.0.1:9", "lake@example.com", ("a@example.com",))

    sent = alerts.tick(lake, settings_of(lake), *late(46), to=[LogChannel(), dead, mail])

    assert {s.channel: bool(s.error) for s in sent} == {"log": False, "webhook": True, "email": True}


def test_an_answer_that_breaks_off_after_its_status_is_a_delivery(lake: Lake, receiver: HttpReceiver) -> None:
    receiver.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok"
    to = [LogChannel(), Webhook(receiver.url), mail := RecordingChannel("email")]

    for minute in (46, 48, 50):
        alerts.tick(lake, settings_of(lake), *late(minute), to=to)

    assert len(receiver.bodies) == 1
    assert [message["kind"] for message in mail.messages] == ["warn"]


def test_an_answer_that_is_no_http_is_an_error_of_that_channel_only(
    lake: Lake, receiver: HttpReceiver
) -> None:
    receiver.raw = b"what?\r\n\r\n"
    to = [log := RecordingChannel("log"), Webhook(receiver.url), mail := RecordingChannel("email")]

    first = alerts.tick(lake, settings_of(lake), *late(46), to=to)
    receiver.raw = b""
    second = alerts.tick(lake, settings_of(lake), *late(48), to=to)

    assert {s.channel: bool(s.error) for s in first} == {"log": False, "webhook": True, "email": False}
    assert [(s.channel, s.error) for s in second] == [("webhook", "")]
    assert (len(log.messages), len(mail.messages)) == (1, 1)


def test_an_address_that_cannot_be_one_is_an_error_of_that_channel_only(lake: Lake) -> None:
    to = [Webhook("http://no such host:x/"), mail := RecordingChannel("email")]

    sent = alerts.tick(lake, settings_of(lake), *late(46), to=to)

    assert {s.channel: bool(s.error) for s in sent} == {"webhook": True, "email": False}
    assert len(mail.messages) == 1


def test_a_webhook_setting_that_is_no_address_leaves_the_other_channels(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    sent = alerts.tick(lake, settings_of(lake, alert_webhook_url="https://[::1"), *late(46))

    assert [(s.channel, s.error) for s in sent] == [("log", "")]
    assert "LAKEHOUSE_ALERT_WEBHOOK_URL is not an http(s) address" in caplog.text


class RecordingChannel:
    """A channel of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)


class DyingChannel(RecordingChannel):
    """A process that is killed in the middle of sending."""

    def send(self, message: Any) -> None:
        super().send(message)
        raise KeyboardInterrupt


def test_a_process_that_dies_while_sending_leaves_the_alert_owed(lake: Lake) -> None:
    with pytest.raises(KeyboardInterrupt):
        alerts.tick(lake, settings_of(lake), *late(46), to=[DyingChannel("webhook")])
    after = RecordingChannel("webhook")

    alerts.tick(lake, settings_of(lake), *late(46.5), to=[after])
    assert after.messages == [], "another process may still be sending it"
    alerts.tick(lake, settings_of(lake), *late(48), to=[after])
    alerts.tick(lake, settings_of(lake), *late(49), to=[after])

    assert [message["kind"] for message in after.messages] == ["warn"]


class BrokenChannel(RecordingChannel):
    """A channel with an error in it."""

    def send(self, message: Any) -> None:
        raise RuntimeError("not so")


def test_a_channel_with_an_error_in_it_does_not_keep_the_next_one_from_being_served(lake: Lake) -> None:
    to = [log := RecordingChannel("log"), BrokenChannel("webhook"), mail := RecordingChannel("email")]

    sent = alerts.tick(lake, settings_of(lake), *late(46), to=to)
    alerts.tick(lake, settings_of(lake), *late(48), to=to)

    assert [s.error for s in sent] == ["", "RuntimeError: not so", ""]
    assert (len(log.messages), len(mail.messages)) == (1, 1)


def test_what_was_delivered_before_a_process_died_does_not_come_again(lake: Lake) -> None:
    log = RecordingChannel("log")
    with pytest.raises(KeyboardInterrupt):
        alerts.tick(lake, settings_of(lake), *late(46), to=[log, DyingChannel("webhook")])

    after = RecordingChannel("webhook")
    alerts.tick(lake, settings_of(lake), *late(48), to=[log, after])

    assert (len(log.messages), len(after.messages)) == (1, 1)


def test_two_processes_that_look_at_the_same_moment_send_one_alert(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    alerts.tick(lake, settings_of(lake), *late(46), to=[RecordingChannel("log")])
    mine, theirs = RecordingChannel("log"), RecordingChannel("log")
    read = alerts.Journal.read

    def read_then_lose(self: alerts.Journal, *predicates: pl.Expr) -> Any:
        page = read(self, *predicates)
        monkeypatch.setattr(alerts.Journal, "read", read)
        alerts.tick(lake, settings_of(lake), *late(61), to=[theirs])
        return page

    monkeypatch.setattr(alerts.Journal, "read", read_then_lose)
    alerts.tick(lake, settings_of(lake), *late(61), to=[mine])

    assert (len(mine.messages), len(theirs.messages)) == (0, 1)


def test_a_recovery_names_the_tables_that_recovered_before_the_last_one(lake: Lake) -> None:
    log = RecordingChannel("log")
    feeds = {"fct_flights": {"flights"}, "dim_airport": {"airports"}}

    for minute, sources in ((46, ("flights", "airports")), (50, ("airports",)), (55, ())):
        now = START + timedelta(minutes=minute)
        held = {source: Waiting(source, "queue", START, files=1) for source in sources}
        states = assess(now, feeds, held, warn_after_s=2700, fail_after_s=3600)
        alerts.tick(lake, settings_of(lake), states, now, to=[log])

    assert [(message["kind"], message["tables"]) for message in log.messages] == [
        ("warn", ["gold.dim_airport", "gold.fct_flights"]),
        ("recovery", ["gold.dim_airport", "gold.fct_flights"]),
    ]


def test_nothing_is_written_while_nothing_is_late(lake: Lake) -> None:
    for minute in (1, 2, 100):
        assert alerts.tick(lake, settings_of(lake), *late(minute)) == []

    assert not lake.table("ops", "alerts").exists()


def test_the_history_of_an_incident_can_be_read_from_the_table(lake: Lake) -> None:
    for minute in (46, 61, 95):
        alerts.tick(lake, settings_of(lake), *late(minute), to=[LogChannel()])

    rows = alerts.journal(lake).read().rows.sort("seq")
    assert rows["event"].to_list() == [
        "opened", "decided", "attempt", "delivered",
        "updated", "decided", "attempt", "delivered",
        "decided", "closed", "attempt", "delivered",
    ]  # fmt: skip
    assert json.loads(rows.filter(event="decided")["message"][0])["kind"] == "warn"
    stale = alerts.journal(lake).read()
    alerts.journal(lake).append_always(rows.head(1).to_dicts())
    with pytest.raises(CommitConflict):
        alerts.journal(lake).append(rows.head(1).to_dicts(), after=stale)


def test_a_channel_that_does_not_answer_is_asked_once_a_look_and_keeps_nobody_waiting(lake: Lake) -> None:
    class Dead(RecordingChannel):
        def send(self, message: Any) -> None:
            super().send(message)
            raise TimeoutError("timed out")

    dead, alive = Dead("dead"), RecordingChannel("alive")
    for minutes in (50, 65, 70, 95):  # warning, breach, nothing new, recovery
        states, now = late(minutes)
        asked = len(dead.messages)
        alerts.tick(lake, settings_of(lake), states, now, to=[dead, alive])
        assert len(dead.messages) == asked + 1
    assert [message["kind"] for message in alive.messages] == ["warn", "breach", "recovery"]


def test_a_message_that_a_channel_never_takes_keeps_no_other_from_it(lake: Lake) -> None:
    class Picky(RecordingChannel):
        def send(self, message: Any) -> None:
            if message["kind"] == "warn":
                raise ValueError("HTTP 400: too long")
            super().send(message)

    picky = Picky("picky")
    for minutes in (50, 55, 65, 95):
        states, now = late(minutes)
        alerts.tick(lake, settings_of(lake), states, now, to=[picky])
    assert [message["kind"] for message in picky.messages] == ["breach", "recovery"]
