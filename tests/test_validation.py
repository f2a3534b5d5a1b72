"""Input validation: every refusal says what was wrong and what would be right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lakehouse import validation
from lakehouse.errors import SettingsError
from lakehouse.settings import load_settings


@pytest.mark.parametrize("name", ["a", "_a", "A9_b", "x" * 128])
def test_good_identifiers_pass(name: str) -> None:
    assert validation.check_identifier(name) == name


@pytest.mark.parametrize("name", ["", "9a", "a-b", "a b", "a.b", "é", "a;drop", 'a"', "x" * 129, "a\n"])
def test_bad_identifiers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        validation.check_identifier(name)


def test_a_refused_identifier_comes_with_a_good_one() -> None:
    with pytest.raises(ValueError, match="'flight_no'"):
        validation.check_identifier("Flight No.")


@pytest.mark.parametrize(
    "url",
    ["data", "/abs/data", "s3://bucket/a/b", "gs://bucket", "abfss://c@acct.dfs.core.windows.net/x", "file:///abs/x"],
)  # fmt: skip
def test_good_storage_urls_pass(url: str) -> None:
    validation.check_storage_url(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("../secret", r"'\.\.'"),
        ("a/../../b", r"'\.\.'"),
        ("s3://bucket/../other", r"'\.\.'"),
        ("s3://", "no bucket"),
        ("http://host/x", "s3://, gs://, abfss://"),
        ("ftp://host/x", "s3://, gs://, abfss://"),
        ("s3://key:secret@bucket/x", "credentials"),
        ("abfss://container/x", "account"),
        ("a\x00b", "control character"),
    ],
)
def test_bad_storage_urls_are_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        validation.check_storage_url(url)


@pytest.mark.parametrize("root", ["/data/a%20b", "file:///data/%C3%a9"])
def test_a_local_root_that_the_delta_library_would_decode_is_refused(root: str) -> None:
    """A table was made there that nobody could open."""
    assert validation.check_storage_url(root)  # files for a source may lie there
    with pytest.raises(ValueError, match="encoded character"):
        validation.check_storage_url(root, "root", for_tables=True)
    with pytest.raises(SettingsError, match="encoded character"):
        load_settings(root=root)


@pytest.mark.parametrize("root", ["/data/100%", "/data/a b", "/data/5%zz", "s3://bucket/a%20b"])
def test_other_roots_with_a_percent_sign_are_fine(root: str) -> None:
    assert load_settings(root=root).root == root


@pytest.mark.parametrize(
    "url", ["postgresql://u:p@h:5432/db", "sqlite:///x.db", "https://api.example.com/v1"]
)
def test_good_connection_urls_pass(url: str) -> None:
    assert validation.check_connection_url(url) == url


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("db", "scheme"),
        ("gopher://h/x", "scheme"),
        ("postgresql:///db", "no host"),
        ("postgresql://h:99999/db", "port"),
        ("sqlite://", "no file"),
    ],
)
def test_bad_connection_urls_are_refused(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        validation.check_connection_url(url)


@pytest.mark.parametrize("cron", ["0 * * * *", "*/15 8-18 * * 1-5", "0,30 0 1 1 *"])
def test_good_cron_expressions_pass(cron: str) -> None:
    assert validation.check_cron(cron) == cron


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("* * * *", "4 fields"),
        ("60 * * * *", "outside 0-59"),
        ("* 24 * * *", "outside 0-23"),
        ("* * 0 * *", "outside 1-31"),
        ("* * * 13 *", "outside 1-12"),
        ("a * * * *", "not a number"),
        ("30-10 * * * *", "backwards"),
        ("*/0 * * * *", "outside"),
    ],
)
def test_bad_cron_expressions_are_refused(cron: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        validation.check_cron(cron)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("1", 1), ("2GiB", 2 << 30), ("2 GB", 2_000_000_000), ("1.5 kib", 1536), (7, 7)]
)
def test_sizes_with_units_are_read(text: str | int, size_bytes: int) -> None:
    assert validation.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90), ("15 min", 900), ("1 hour", 3600), ("2 days", 172_800), ("0.5h", 1800)],
)
def test_durations_with_units_are_read(text: str, seconds: float) -> None:
    assert validation.parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("parse", [validation.parse_size, validation.parse_duration])
@pytest.mark.parametrize("text", ["", "abc", "10 parsecs", "-1 GB", "-1 day", "0", "0 min"])
def test_bad_quantities_are_refused_with_an_example(parse: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(ValueError, match="example"):
        parse(text)
