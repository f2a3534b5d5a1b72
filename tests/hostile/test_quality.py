"""The quality benchmark in a small form: two dozen days of real data, every kind of corruption."""

from __future__ import annotations

import pytest

from benchmarks.corruptions import KINDS
from benchmarks.quality import run
from benchmarks.spoilt_files import FILE_KINDS

pytestmark = pytest.mark.slow


def test_the_catalogue_has_at_least_forty_kinds_and_no_name_twice() -> None:
    for table in ("flights", "weather"):
        names = [kind.name for kind in KINDS if kind.table == table]
        assert len(names) == len(set(names))
    assert len([kind for kind in KINDS if kind.expect != "sometimes"]) + len(FILE_KINDS) >= 80


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return run(tmp_path_factory.mktemp("quality"), files=12)


def test_every_corruption_is_caught_at_its_place(result: dict[str, object]) -> None:
    missed = [
        kind
        for kind in result["kinds"]
        if kind["expect"] != "sometimes" and kind["caught"] < kind["injected"]
    ]  # type: ignore[attr-defined]
    assert missed == []
    assert result["injected"] == 740


def test_no_sound_row_is_refused_or_changed(result: dict[str, object]) -> None:
    assert result["false_positive_samples"] == []
    assert result["sound_rows_with_other_values"] == 0


def test_every_spoilt_file_ends_as_it_must(result: dict[str, object]) -> None:
    assert [found for found in result["files"] if not found["right"]] == []  # type: ignore[attr-defined]
    assert len(result["files"]) == len(FILE_KINDS)  # type: ignore[arg-type]
