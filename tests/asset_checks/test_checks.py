"""Each check passes on what the stages wrote, and fails on what it is there to catch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from asset_checks.base import Check, Finding, Subject, evaluate
from asset_checks.bronze import bronze_checks
from asset_checks.references import reference_checks
from asset_checks.silver import silver_checks
from lakehouse import quarantine
from lakehouse.bronze import ingest
from lakehouse.errors import StorageUnavailable
from lakehouse.pipelines import Pipeline, load_pipelines
from lakehouse.settings import Settings
from lakehouse.silver import refine
from lakehouse.storage import Lake

AIRPORTS = "faa,name,lat,lon,alt,tz,dst,tzone\n" + "".join(
    f"{code},Airport {code},40,-74,10,-5,A,America/New_York\n" for code in ("EWR", "JFK", "LGA")
)
WEATHER_HEADER = (
    "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
)


def weather(origin: str, hour: int) -> str:
    return f"{origin},2013,1,1,{hour},39,26,59,270,10.35702,NA,0,1012,10,2013-01-01T{hour + 5:02d}:00:00Z\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(root=str(tmp_path))


@pytest.fixture
def subject(settings: Settings) -> Callable[[str, str], Subject]:
    """Lands and refines airports and weather, and gives the subject of one table."""
    landing = Path(settings.landing)
    for path, text in {
        "airports/airports_2013-01-01.csv": AIRPORTS,
        "weather/2013/01/weather_2013-01-01.csv": WEATHER_HEADER
        + "\n"
        + "".join(weather(origin, hour) for origin in ("EWR", "JFK", "LGA") for hour in range(4)),
    }.items():
        (landing / path).parent.mkdir(parents=True, exist_ok=True)
        (landing / path).write_text(text)
    pipelines = load_pipelines(settings)
    lake = Lake.from_settings(settings)
    for name in ("airports", "weather"):
        ingest(lake, settings, pipelines[name])
        refine(lake, settings, pipelines[name])

    def make(layer: str, name: str) -> Subject:
        return Subject(lake, pipelines[name], lake.table(layer, name).snapshot())  # type: ignore[arg-type]

    return make


def outcome(check_name: str, checks: Callable[[Pipeline], list[Check]], subject: Subject) -> Finding:
    chosen = [check for check in checks(subject.pipeline) if check.name == check_name]
    [(_, _, finding)] = evaluate(chosen, subject)
    return finding


def tamper(subject: Subject, frame: pl.DataFrame, mode: str = "append") -> Subject:
    """What a writer that is not ours does to the table; the subject at the version after it."""
    write_deltalake(subject.snapshot.table.uri, frame.to_arrow(), mode=mode)  # type: ignore[call-overload]
    return Subject(subject.lake, subject.pipeline, subject.snapshot.table.snapshot())


def rows_of(subject: Subject) -> pl.DataFrame:
    found = pl.from_arrow(DeltaTable(subject.snapshot.table.uri).to_pyarrow_table())
    assert isinstance(found, pl.DataFrame)
    return found


@pytest.mark.parametrize("name", ["airports", "weather"])
def test_every_check_passes_on_what_the_stages_wrote(
    subject: Callable[[str, str], Subject], name: str
) -> None:
    for layer, checks in (("bronze", bronze_checks), ("silver", silver_checks), ("silver", reference_checks)):
        target = subject(layer, name)
        for check, found, _ in evaluate(checks(target.pipeline), target):
            assert found.passed, f"{check.layer}.{check.table} {check.name}: {found.message}"


def test_a_row_that_bronze_lost_is_noticed(subject: Callable[[str, str], Subject]) -> None:
    bronze = subject("bronze", "weather")

    found = outcome(
        "rows_conserved", bronze_checks, tamper(bronze, rows_of(bronze).head(11), mode="overwrite")
    )

    assert not found.passed
    assert found.sample[0] == {"batch": 1, "rows in": 12, "landed + quarantined": 11}


def test_rows_that_no_batch_speaks_of_are_noticed(subject: Callable[[str, str], Subject]) -> None:
    bronze = subject("bronze", "weather")
    forged = rows_of(bronze).head(2).with_columns(pl.lit(7, pl.Int64).alias("_batch_id"))

    found = outcome("rows_conserved", bronze_checks, tamper(bronze, forged))

    assert not found.passed
    assert found.sample[0]["batch"] == 7


def test_a_key_that_is_there_twice_is_noticed(subject: Callable[[str, str], Subject]) -> None:
    silver = subject("silver", "weather")

    found = outcome("key_unique", silver_checks, tamper(silver, rows_of(silver).head(1)))

    assert not found.passed
    assert found.count == 1
    assert found.sample[0]["len"] == 2


def test_two_current_rows_of_one_key_are_noticed_in_a_history(subject: Callable[[str, str], Subject]) -> None:
    silver = subject("silver", "airports")
    later = rows_of(silver).head(1).with_columns(pl.col("valid_from_utc").dt.offset_by("1d"))

    found = outcome("key_unique", silver_checks, tamper(silver, later))

    assert not found.passed
    assert found.count == 1


def test_only_files_that_may_overlap_with_new_ones_are_read_for_the_key(
    subject: Callable[[str, str], Subject],
) -> None:
    silver = subject("silver", "weather")
    other = rows_of(silver).head(1).with_columns(pl.lit("ZZZ").alias("origin"))
    after = tamper(silver, other)
    published = Subject(after.lake, after.pipeline, after.snapshot, 1, silver.snapshot.version)

    found = outcome("key_unique", silver_checks, published)

    assert found.passed
    assert found.facts["files read"] == 1


def test_a_refused_row_is_counted_and_shown(
    settings: Settings, subject: Callable[[str, str], Subject]
) -> None:
    subject("silver", "weather")
    bad = weather("EWR", 5).replace(",39,26,59,", ",39,26,459,")
    Path(settings.landing, "weather/2013/01/weather_2013-01-02.csv").write_text(
        f"{WEATHER_HEADER}\n{bad}{weather('JFK', 6)}"
    )
    pipeline = load_pipelines(settings)["weather"]
    lake = Lake.from_settings(settings)
    ingest(lake, settings, pipeline)
    refine(lake, settings, pipeline)
    after = Subject(lake, pipeline, lake.table("silver", "weather").snapshot(), 1, 0)

    rules = outcome("contract_rules", silver_checks, after)
    share = outcome("quarantined_share", silver_checks, after)
    conserved = outcome("rows_conserved", silver_checks, after)

    assert not rules.passed
    assert rules.count == 1
    assert "459" in str(rules.sample[0]["raw"])
    assert share.passed, "one row of two is no reason to stop"
    assert share.facts["rows checked"] == 2
    assert conserved.passed, conserved.message


def test_orphans_are_counted_and_held_against_the_bound(subject: Callable[[str, str], Subject]) -> None:
    silver = subject("silver", "weather")
    orphan = rows_of(silver).head(1).with_columns(pl.lit("ZZZ").alias("origin"))

    found = outcome("origin_in_airports", reference_checks, tamper(silver, orphan))

    assert not found.passed, "the bound is zero"
    assert found.count == 1
    assert found.facts["orphan share"] == pytest.approx(1 / 13, abs=1e-6)
    assert found.sample[0]["origin"] == "ZZZ"


def test_a_null_refers_to_nothing_and_is_no_orphan(subject: Callable[[str, str], Subject]) -> None:
    silver = subject("silver", "weather")
    nothing = rows_of(silver).head(1).with_columns(pl.lit(None, pl.String).alias("origin"))

    assert outcome("origin_in_airports", reference_checks, tamper(silver, nothing)).passed


def test_a_check_that_breaks_has_failed_and_one_that_cannot_reach_the_store_is_tried_again(
    subject: Callable[[str, str], Subject],
) -> None:
    silver = subject("silver", "airports")

    def broken(_: Subject) -> Finding:
        raise ZeroDivisionError("a bug")

    def unreachable(_: Subject) -> Finding:
        raise StorageUnavailable("no answer")

    [(_, found, _)] = evaluate([Check("silver", "airports", "broken", "", "", broken, True)], silver)
    assert not found.passed
    assert "a bug" in found.message
    with pytest.raises(StorageUnavailable):
        evaluate([Check("silver", "airports", "unreachable", "", "", unreachable, True)], silver)


def test_refused_rows_that_were_dealt_with_close_no_gate(
    settings: Settings, subject: Callable[[str, str], Subject]
) -> None:
    seen = subject("silver", "weather")
    lake, pipeline = seen.lake, seen.pipeline
    landing = Path(settings.landing)
    broken = "".join(weather("EWR", hour).replace(",59,", ",5900,") for hour in range(4, 24)) * 4
    (landing / "weather/2013/01/weather_2013-01-02.csv").write_text(WEATHER_HEADER + "\n" + broken)
    ingest(lake, settings, pipeline)
    refine(lake, settings, pipeline)
    share = next(check for check in silver_checks(pipeline) if check.name == "quarantined_share")
    assert not share.look(subject("silver", "weather")).passed
    quarantine.resolve(lake, "weather", quarantine.Selection(), note="a test", actor="x", apply=True)
    finding = share.look(subject("silver", "weather"))
    assert finding.passed
    assert (finding.facts["open"], finding.facts["resolved"]) == (0, 80)
    conserved = next(check for check in silver_checks(pipeline) if check.name == "rows_conserved")
    assert conserved.look(subject("silver", "weather")).passed


def test_batches_that_bronze_landed_while_silver_stayed_behind_are_accounted_for(
    settings: Settings, subject: Callable[[str, str], Subject]
) -> None:
    """Points of other sources name the newest bronze version meanwhile, beside the batch that silver had reached."""
    seen = subject("bronze", "weather")
    for day in (2, 3):
        Path(settings.landing, f"weather/2013/01/weather_2013-01-0{day}.csv").write_text(
            f"{WEATHER_HEADER}\n{weather('EWR', 4 + day)}"
        )
        ingest(seen.lake, settings, seen.pipeline)
    newest = seen.snapshot.table.snapshot()

    found = outcome(
        "rows_conserved", bronze_checks, Subject(seen.lake, seen.pipeline, newest, 1, newest.version)
    )

    assert found.passed, found.sample
    assert found.facts == {"batches checked": 2, "rows checked": 2}
