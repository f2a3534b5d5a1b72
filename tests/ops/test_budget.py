"""The error budget counts seconds of breach, however late somebody looked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from lakehouse.ops.budget import from_history

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def history(*rows: tuple[str, float, str]) -> pl.DataFrame:
    """(table, hours before now, status)"""
    return pl.DataFrame(
        [
            {"table": t, "since_utc": NOW - timedelta(hours=h), "observed_at_utc": NOW, "status": s}
            for t, h, s in rows
        ],
        schema={
            "table": pl.String(),
            "since_utc": pl.Datetime("us", "UTC"),
            "observed_at_utc": pl.Datetime("us", "UTC"),
            "status": pl.String(),
        },
    )


def test_a_lake_that_was_never_looked_at_has_its_whole_budget() -> None:
    budget = from_history(history(), NOW, 99.9)

    assert (budget.breach_s, budget.measured_s, budget.good_percent) == (0.0, 0.0, 100.0)
    assert budget.allowed_s == pytest.approx(43.2 * 60)


def test_time_in_breach_is_used_up_and_overlapping_tables_count_once() -> None:
    budget = from_history(
        history(
            ("a", 100, "fresh"),
            ("a", 10, "breach"),
            ("a", 9, "fresh"),
            ("b", 9.5, "breach"),
            ("b", 8.5, "fresh"),
        ),
        NOW,
        99.9,
    )

    assert budget.breach_s == pytest.approx(1.5 * 3600)
    assert budget.breach_s_by_table == {"a": pytest.approx(3600), "b": pytest.approx(3600)}
    assert budget.good_percent == pytest.approx(98.5)
    assert budget.remaining_s < 0


def test_a_breach_that_still_lasts_counts_up_to_now_and_one_before_the_window_does_not() -> None:
    budget = from_history(
        history(("a", 24 * 40, "breach"), ("a", 24 * 35, "fresh"), ("a", 2, "breach")), NOW, 99.9
    )

    assert budget.breach_s == pytest.approx(2 * 3600)
    assert budget.measured_s == pytest.approx(30 * 86400)
