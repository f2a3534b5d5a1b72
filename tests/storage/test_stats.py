"""What the log says of a file's smallest and largest values."""

from __future__ import annotations

from datetime import UTC, datetime

from lakehouse.storage.stats import lower_bound, upper_bound


def test_years_have_four_digits_in_statistics_too() -> None:
    assert lower_bound(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000Z"
    assert upper_bound(datetime(999, 2, 3, 4, 5, 6, 7001)) == "0999-02-03T04:05:06.008"  # noqa: DTZ001 - meant
