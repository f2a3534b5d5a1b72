"""Incidents: one warning, one breach, one recovery; one incident for one cause."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.ops.freshness import Obstacle, TableFreshness, Waiting, assess
from lakehouse.ops.incidents import Incident, Notice, step

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
FEEDS: Mapping[str, set[str]] = {
    "fct_flights": {"flights"},
    "daily_punctuality": {"flights", "airlines"},
    "dim_weather": {"weather"},
}


def waiting(source: str, arrived: datetime = START, hop: str = "queue") -> dict[str, Waiting]:
    return {source: Waiting(source, hop, arrived, files=1)}  # type: ignore[arg-type]


def at(
    minutes: float, held: Mapping[str, Waiting], obstacles: tuple[Obstacle, ...] = ()
) -> tuple[datetime, list[TableFreshness]]:
    now = START + timedelta(minutes=minutes)
    return now, assess(now, FEEDS, held, obstacles, warn_after_s=2700, fail_after_s=3600)


def play(
    *moments: tuple[datetime, list[TableFreshness]], incidents: list[Incident] | None = None
) -> tuple[list[Incident], list[Notice]]:
    """All notices of a sequence of looks."""
    incidents, told = incidents or [], []
    for now, states in moments:
        incidents, notices = step(now, incidents, states, warn_after_s=2700, fail_after_s=3600)
        told += notices
    return incidents, told


def test_a_late_source_is_told_of_once_on_warning_once_on_breach_and_once_on_recovery() -> None:
    held = waiting("flights")
    looks = [at(minute, held) for minute in range(120)] + [at(120, {}), at(121, {})]

    incidents, told = play(*looks)

    assert [notice.kind for notice in told] == ["warn", "breach", "recovery"]
    assert incidents == []


def test_tables_that_are_late_because_of_one_source_are_one_incident() -> None:
    _, told = play(at(46, waiting("flights")))

    assert len(told) == 1
    assert told[0].incident.tables == ("daily_punctuality", "fct_flights")
    assert told[0].incident.sources == ("flights",)


def test_different_sources_with_the_same_cause_are_one_incident() -> None:
    _, told = play(at(46, waiting("flights") | waiting("weather")))

    assert len(told) == 1
    assert set(told[0].incident.tables) == set(FEEDS)


def test_different_sources_with_different_causes_are_two_incidents() -> None:
    obstacle = Obstacle("bronze", "weather", "SourceError: truncated gzip", START, "lakehouse run")

    _, told = play(at(46, waiting("flights") | waiting("weather"), (obstacle,)))

    assert sorted(notice.incident.tables for notice in told) == [
        ("daily_punctuality", "fct_flights"),
        ("dim_weather",),
    ]


def test_a_table_within_five_minutes_of_the_threshold_is_told_of_in_the_same_alert() -> None:
    held = waiting("flights") | waiting("weather", START + timedelta(minutes=4))

    incidents, told = play(*[at(minute, held) for minute in range(44, 100)])

    assert [notice.kind for notice in told] == ["warn", "breach"]
    assert set(told[0].incident.tables) == set(FEEDS)
    assert len(incidents) == 1


def test_a_table_that_joins_a_known_incident_sends_no_alert_of_its_own() -> None:
    held = waiting("flights") | waiting("weather", START + timedelta(minutes=9))

    incidents, told = play(*[at(minute, held) for minute in range(44, 59)])

    assert [notice.kind for notice in told] == ["warn"]
    assert set(incidents[0].tables) == set(FEEDS)


def test_a_breach_seen_at_first_sight_is_told_of_as_a_breach_only() -> None:
    _, told = play(at(200, waiting("flights")), at(201, waiting("flights")))

    assert [notice.kind for notice in told] == ["breach"]


def test_recovery_waits_for_every_table_of_the_incident() -> None:
    both = waiting("flights") | waiting("weather")

    incidents, told = play(at(46, both), at(47, waiting("weather")), at(48, waiting("weather")))
    assert [notice.kind for notice in told] == ["warn"]

    _, later = play(at(49, {}), incidents=incidents)
    assert [notice.kind for notice in later] == ["recovery"]


def test_a_backlog_that_moves_on_but_stays_late_is_the_same_incident() -> None:
    looks = [at(46 + m, waiting("flights", START + timedelta(minutes=m), hop="silver")) for m in range(30)]

    _, told = play(*looks)

    assert [notice.kind for notice in told] == ["warn"]


def test_an_idle_source_is_never_late() -> None:
    _, states = at(60 * 24 * 7, {})

    assert {state.status for state in states} == {"fresh"}
    assert play(at(60 * 24 * 7, {})) == ([], [])


def test_a_new_delay_after_recovery_is_a_new_incident() -> None:
    again = waiting("flights", START + timedelta(hours=3))

    _, told = play(at(46, waiting("flights")), at(50, {}), at(180 + 46, again))

    assert [notice.kind for notice in told] == ["warn", "recovery", "warn"]
    assert told[0].incident.id != told[2].incident.id


def poisoned(source: str) -> Obstacle:
    return Obstacle(
        "silver", source, f"check quarantined_share of silver.{source}", START, "look", is_gate=True
    )


def test_a_table_that_recovered_in_an_open_incident_is_told_of_when_it_is_late_again() -> None:
    both = waiting("flights") | waiting("weather")
    stuck = waiting("weather")
    week = 7 * 24 * 60
    again = stuck | waiting("flights", START + timedelta(minutes=week))

    incidents, told = play(at(61, both), at(70, stuck, (poisoned("weather"),)))
    assert [notice.kind for notice in told] == ["breach"]
    assert [incident.tables for incident in incidents] == [("dim_weather",)]

    looks = [at(week + minute, again, (poisoned("weather"),)) for minute in range(100)]
    incidents, told = play(*looks, incidents=incidents)
    assert [(notice.kind, notice.incident.tables) for notice in told] == [
        ("warn", ("daily_punctuality", "fct_flights")),
        ("breach", ("daily_punctuality", "fct_flights")),
    ]

    _, told = play(at(week + 100, stuck, (poisoned("weather"),)), at(week + 101, {}), incidents=incidents)
    assert [(notice.kind, notice.incident.tables) for notice in told] == [
        ("recovery", ("daily_punctuality", "fct_flights")),
        ("recovery", tuple(sorted(FEEDS))),
    ]


def test_a_table_that_recovered_is_told_of_again_even_where_the_cause_is_the_same() -> None:
    both = waiting("flights") | waiting("weather")
    again = waiting("flights", START + timedelta(minutes=80)) | waiting("weather")

    _, told = play(at(61, both), at(70, waiting("weather")), at(126, again))

    assert [(notice.kind, notice.incident.tables) for notice in told] == [
        ("breach", tuple(sorted(FEEDS))),
        ("warn", ("daily_punctuality", "fct_flights")),
    ]


def test_a_source_that_is_late_beside_the_first_one_is_an_incident_of_its_own() -> None:
    """daily_punctuality waits for both: that must not make fct_flights a part of what airlines did."""
    stuck = waiting("airlines")
    later = stuck | waiting("flights", START + timedelta(hours=5))

    _, told = play(
        at(61, stuck, (poisoned("airlines"),)),
        *[at(300 + minute, later, (poisoned("airlines"),)) for minute in range(70)],
    )

    assert [(notice.kind, notice.incident.tables) for notice in told] == [
        ("breach", ("daily_punctuality",)),
        ("warn", ("fct_flights",)),
        ("breach", ("fct_flights",)),
    ]


def test_standing_at_the_same_hop_is_not_enough_to_join_a_breach_that_was_told_of() -> None:
    later = waiting("flights", hop="gold") | waiting("weather", START + timedelta(hours=5), hop="gold")

    _, told = play(at(61, waiting("flights", hop="gold")), at(346, later), at(361, later))

    assert [(notice.kind, notice.incident.tables) for notice in told] == [
        ("breach", ("daily_punctuality", "fct_flights")),
        ("warn", ("dim_weather",)),
        ("breach", ("dim_weather",)),
    ]


def test_what_arrives_behind_a_stopped_daemon_is_one_incident_however_late_it_comes() -> None:
    later = waiting("flights") | waiting("weather", START + timedelta(hours=5))

    incidents, told = play(at(61, waiting("flights")), at(346, later), at(370, later))

    assert [notice.kind for notice in told] == ["breach"]
    assert [set(incident.tables) for incident in incidents] == [set(FEEDS)]


def test_one_failure_that_holds_up_every_table_is_one_incident_however_late_they_join() -> None:
    broken = (Obstacle("publish", None, "StorageError: disk full", START, "free disk"),)
    later = waiting("flights") | waiting("weather", START + timedelta(hours=5))

    incidents, told = play(at(61, waiting("flights"), broken), at(346, later, broken), at(370, later, broken))

    assert [notice.kind for notice in told] == ["breach"]
    assert [set(incident.tables) for incident in incidents] == [set(FEEDS)]


@pytest.mark.parametrize(
    ("obstacle", "hop", "words"),
    [
        (None, "queue", "no run has taken it"),
        (
            Obstacle("bronze", "flights", "SourceError: no such file", START, "fix it"),
            "bronze",
            "no such file",
        ),
        (
            Obstacle("silver", "flights", "check key_unique fails", START, "look", is_gate=True),
            "failed gate",
            "key_unique",
        ),
        (Obstacle("publish", None, "StorageError: disk full", START, "free disk"), "publish", "disk full"),
        (
            Obstacle("bronze", "weather", "somebody else's trouble", START, "no"),
            "queue",
            "no run has taken it",
        ),
    ],
)
def test_a_late_table_says_at_which_hop_it_stands_and_why(
    obstacle: Obstacle | None, hop: str, words: str
) -> None:
    _, states = at(50, waiting("flights"), (obstacle,) if obstacle else ())

    late = next(state for state in states if state.table == "fct_flights")
    assert late.hop == hop
    assert words in late.reason
    assert late.breach_at_utc == START + timedelta(hours=1)
