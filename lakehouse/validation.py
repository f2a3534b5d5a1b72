"""Input validation, in one place: names, URLs, cron expressions, sizes and durations.

Every function returns the value in its canonical form, or raises ``ValueError`` saying what was wrong and
what would be right. Callers add file and field.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
STORAGE_SCHEMES = ("s3", "gs", "abfss")
CONNECTION_SCHEMES = ("postgresql", "postgres", "mysql", "sqlite", "duckdb", "http", "https", "kafka", "nats")

_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$")
_SIZE_UNITS = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*$")
_DURATION_UNITS = {
    "s": 1, "second": 1, "seconds": 1,
    "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "week": 604800, "weeks": 604800,
}  # fmt: skip


def check_identifier(value: str, what: str = "name") -> str:
    """A table, column or schema name: ``^[A-Za-z_][A-Za-z0-9_]*$``, at most 128 characters."""
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise ValueError(
            f"{what} {value!r} is not a valid name; use letters, digits and underscores, "
            f"not starting with a digit, for example {_suggest_identifier(str(value))!r}"
        )
    if len(value) > 128:
        raise ValueError(f"{what} {value[:20]!r}… has {len(value)} characters; use at most 128")
    return value


def _suggest_identifier(value: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", value).strip("_").lower() or "my_table"
    return f"_{cleaned}" if cleaned[0].isdigit() else cleaned


def is_remote(value: str) -> bool:
    """True for ``scheme://…`` other than ``file://``."""
    return "://" in value and not value.startswith("file://")


def check_storage_url(value: str, what: str = "path", *, for_tables: bool = False) -> str:
    """A local path or an ``s3://``, ``gs://`` or ``abfss://`` URL, without traversal or control characters.

    Args:
        for_tables: refuse ``%`` and two hex digits in a local path. The Delta library decodes them where it reads, and not where
            it writes: nobody can open such a table (measured, deltalake 1.6.6).
    """
    if not value or not value.strip():
        raise ValueError(
            f"{what} is empty; give a folder such as 'data' or a URL such as 's3://bucket/prefix'"
        )
    if any(ord(char) < 32 for char in value):
        raise ValueError(f"{what} {value!r} holds a control character; remove it")
    if "://" not in value:
        if ".." in PurePosixPath(value.replace("\\", "/")).parts:
            raise ValueError(
                f"{what} {value!r} climbs with '..'; give the folder itself, absolute if need be"
            )
        if for_tables and (found := _PERCENT_ENCODED.search(value)):
            raise ValueError(
                f"{what} {value!r} holds {found.group()!r}, which the Delta library takes for an encoded character; "
                "give the folder another name, a space or a '%' before other characters is fine"
            )
        return value
    scheme, _, rest = value.partition("://")
    if scheme == "file":
        return check_storage_url(rest, what, for_tables=for_tables)
    if scheme not in STORAGE_SCHEMES:
        raise ValueError(
            f"{what} {value!r} has the scheme {scheme!r}; use s3://, gs://, abfss:// or a local path"
        )
    host, _, path = rest.partition("/")
    if not host:
        raise ValueError(f"{what} {value!r} names no bucket; write {scheme}://bucket/prefix")
    if ".." in path.split("/"):
        raise ValueError(f"{what} {value!r} climbs with '..'; give the prefix itself")
    if scheme == "abfss" and "@" not in host:
        raise ValueError(
            f"{what} {value!r} names no account; write abfss://container@account.dfs.core.windows.net/prefix"
        )
    if scheme != "abfss" and "@" in host:
        raise ValueError(
            f"{what} must not carry credentials; set them in the environment or LAKEHOUSE_STORAGE_OPTIONS"
        )
    return value.rstrip("/")


def check_connection_url(value: str, what: str = "url") -> str:
    """A connection URL with a known scheme and a host (or a file, for sqlite and duckdb)."""
    parts = urlsplit(value)
    if parts.scheme not in CONNECTION_SCHEMES:
        raise ValueError(
            f"{what} has the scheme {parts.scheme!r}; use one of {', '.join(CONNECTION_SCHEMES)}"
        )
    if parts.scheme in ("sqlite", "duckdb"):
        if not parts.path.strip("/"):
            raise ValueError(f"{what} names no file; write {parts.scheme}:///path/to/file")
    elif not parts.hostname:
        raise ValueError(f"{what} names no host; write {parts.scheme}://host:port/name")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"{what} has a port that is not a number from 0 to 65535") from None
    return value


def check_cron(value: str, what: str = "cron") -> str:
    """A five-field cron expression within its ranges."""
    fields = value.split()
    if len(fields) != 5:
        raise ValueError(
            f"{what} {value!r} has {len(fields)} fields; write five (minute hour day month weekday), for example '0 * * * *'"
        )
    ranges = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
    for field, (label, low, high) in zip(fields, ranges, strict=True):
        for part in field.split(","):
            match = re.fullmatch(r"(\*|\d+(?:-\d+)?)(?:/(\d+))?", part)
            if match is None:
                raise ValueError(
                    f"{what} {value!r}: {label} {part!r} is not a number, a range, '*' or a step like '*/5'"
                )
            numbers = [int(number) for number in re.findall(r"\d+", match.group(1))]
            if any(not low <= number <= high for number in numbers) or match.group(2) == "0":
                raise ValueError(f"{what} {value!r}: {label} {part!r} is outside {low}-{high}")
            if len(numbers) == 2 and numbers[0] > numbers[1]:
                raise ValueError(
                    f"{what} {value!r}: {label} {part!r} runs backwards; write {numbers[1]}-{numbers[0]}"
                )
    return value


def parse_size(value: str | int, what: str = "size") -> int:
    """Bytes of ``512MiB``, ``2 GB`` or a plain number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(str(value))
        unit = match.group(2).lower() if match else ""
        if match is None or (unit and unit not in _SIZE_UNITS):
            raise ValueError(
                f"{what} {value!r} is not a size; write a number and a unit, for example '512MiB' or '2GB'"
            )
        size = int(float(match.group(1)) * _SIZE_UNITS.get(unit, 1))
    if size <= 0:
        raise ValueError(f"{what} {value!r} must be more than zero, for example '512MiB'")
    return size


def parse_duration(value: str | int | float, what: str = "duration") -> timedelta:
    """A time span of ``90 s``, ``15 min``, ``1 hour`` or ``1 day``."""
    match = _DURATION.fullmatch(str(value))
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in _DURATION_UNITS:
        raise ValueError(
            f"{what} {value!r} is not a duration; write a number and a unit, for example '15 min' or '1 day'"
        )
    seconds = float(match.group(1)) * _DURATION_UNITS[unit]
    if seconds <= 0:
        raise ValueError(f"{what} {value!r} must be more than zero, for example '15 min'")
    return timedelta(seconds=seconds)


def join_url(base: str, *parts: str) -> str:
    """``base/part/part`` for local paths and URLs alike."""
    if is_remote(base):
        return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])
    return str(Path(base, *parts))
