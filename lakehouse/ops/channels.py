"""Where alerts go: a webhook, e-mail, the log. Each sends one message, or raises ``DeliveryError``."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

from lakehouse.errors import TransientError
from lakehouse.settings import Settings

LOGGER = logging.getLogger("lakehouse.alerts")
TIMEOUT_S = 10.0


class DeliveryError(TransientError):
    """A channel did not take the message; it is tried again with the next tick, on that channel only."""


class Channel(Protocol):
    """One way to reach somebody."""

    @property
    def name(self) -> str:
        """``webhook``, ``email``, ``log``: the channel's name in ops.alerts."""
        ...

    def send(self, message: Mapping[str, Any]) -> None:
        """Deliver one message. Raises DeliveryError when it was not taken."""
        ...


@dataclass(frozen=True)
class LogChannel:
    """The process's log: a warning, an error for a breach, an info for a recovery."""

    name: str = "log"

    def send(self, message: Mapping[str, Any]) -> None:
        level = {"warn": logging.WARNING, "breach": logging.ERROR}.get(str(message["kind"]), logging.INFO)
        LOGGER.log(level, "%s", message["text"])


@dataclass(frozen=True)
class Webhook:
    """POSTs JSON: Slack's ``text`` plus our own fields. ``id`` is the same if a message ever comes twice."""

    url: str
    name: str = "webhook"

    def send(self, message: Mapping[str, Any]) -> None:
        request = urllib.request.Request(
            self.url,
            data=json.dumps(message).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "lakehouse-alerts"},
            method="POST",
        )
        try:
            # The status says that it was taken; the body is not read, for a broken one would make it come twice.
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as error:
            raise DeliveryError(f"the webhook answered {error.code} {error.reason}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DeliveryError(f"the webhook did not answer: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class Email:
    """Plain-text mail to every address, through the SMTP server of the settings."""

    smtp_url: str
    sender: str
    recipients: tuple[str, ...]
    name: str = "email"

    def send(self, message: Mapping[str, Any]) -> None:
        import apprise

        target = apprise.Apprise()
        if not target.add(self._apprise_url()):
            raise DeliveryError("LAKEHOUSE_SMTP_URL or the addresses are not usable; see docs/settings.md")
        if not target.notify(title=str(message["subject"]), body=str(message["text"]), body_format="text"):
            raise DeliveryError(
                f"the mail server {urlsplit(self.smtp_url).hostname} did not take the message"
            )

    def _apprise_url(self) -> str:
        parts = urlsplit(self.smtp_url)
        secure = parts.scheme == "smtps"
        login = ""
        if parts.username:
            login = (
                f"{quote(unquote(parts.username), safe='')}:{quote(unquote(parts.password or ''), safe='')}@"
            )
        port = parts.port or {"smtps": 465, "smtp+starttls": 587}.get(parts.scheme, 25)
        query = urlencode(
            {
                "from": self.sender,
                "to": ",".join(self.recipients),
                "smtp": parts.hostname or "",
                "mode": "ssl" if secure else "starttls" if parts.scheme == "smtp+starttls" else "insecure",
                "format": "text",
            }
        )
        return f"{'mailtos' if secure else 'mailto'}://{login}{parts.hostname}:{port}/?{query}"


def channels(settings: Settings) -> list[Channel]:
    """The channels that the settings name; the log is always one of them."""
    found: list[Channel] = [LogChannel()]
    if settings.alert_webhook_url:
        if not _is_http(settings.alert_webhook_url):
            LOGGER.error(
                "LAKEHOUSE_ALERT_WEBHOOK_URL is not an http(s) address; alerts go to the other channels"
            )
        else:
            found.append(Webhook(settings.alert_webhook_url))
    recipients = tuple(part.strip() for part in settings.alert_email_to.split(",") if part.strip())
    if recipients and settings.smtp_url:
        found.append(Email(settings.smtp_url, settings.alert_email_from, recipients))
    elif recipients:
        LOGGER.error("LAKEHOUSE_ALERT_EMAIL_TO is set and LAKEHOUSE_SMTP_URL is not; no mail can be sent")
    return found


def _is_http(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
