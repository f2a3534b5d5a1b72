"""Columns get the type that every value fits, and nothing is guessed silently."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from lakehouse.connectors.columns import clean_names
from lakehouse.scaffold.content import load
from lakehouse.scaffold.profile import TIMESTAMP, Profile, profile
from lakehouse.scaffold.sniff import sniff


def look_at(file: Path, *key: str) -> Profile:
    found = sniff(file)
    return profile(found, load(found), key=key)


def types(result: Profile) -> dict[str, pl.DataType]:
    return {column.name: column.dtype for column in result.columns}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["1", "-2", "0"], pl.Int64()),
        (["1", "2.5", "1e3"], pl.Float64()),
        (["0", "1e-05"], pl.Float64()),
        (["12E4", "55E2", "123"], pl.String()),
        (["007", "010"], pl.String()),
        (["+4912345", "+4998765"], pl.String()),
        (["12345678901234567890"], pl.String()),
        (["true", "False"], pl.Boolean()),
        (["2024-02-29"], pl.Date()),
        (["2024-02-29T10:00:00Z", "2024-02-29 10:00"], TIMESTAMP),
        (["31/12/2024"], pl.String()),
        (["1,234.50"], pl.String()),
        (["1", "two"], pl.String()),
    ],
)
def test_a_column_gets_the_narrowest_type_that_every_value_fits(
    tmp_path: Path, values: list[str], dtype: pl.DataType
) -> None:
    file = tmp_path / "data.csv"
    file.write_text("name,v\n" + "".join(f'x{i},"{value}"\n' for i, value in enumerate(values)))
    assert types(look_at(file))["v"] == dtype


def test_a_null_marker_counts_only_where_it_hides_a_type(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,amount,region\n1,NA,EU\n2,3.5,NA\n3,-,AP\n")
    result = look_at(file)
    assert types(result) == {"id": pl.Int64(), "amount": pl.Float64(), "region": pl.String()}
    assert result.null_markers == {"amount": ("NA", "-")}
    assert any("region" in note and "NA" in note for note in result.assumptions)


def test_na_that_is_only_a_text_stays_a_text(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,continent\n1,EU\n2,NA\n3,AS\n")
    assert look_at(file).null_markers == ()


def test_a_key_is_proposed_where_the_name_and_the_values_say_so(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("amount,order_id\n" + "".join(f"{i * 2},{i}\n" for i in range(50)))
    assert look_at(file).key == ("order_id",)


def test_a_float_is_no_key_however_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("part_no,word\n1.5,a\n2.5,a\n")
    assert look_at(file).key == ()


@pytest.mark.parametrize("header", [",word", ",word,word"])
def test_row_numbers_without_a_name_are_no_key(tmp_path: Path, header: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text(f"{header}\n0,a,x\n1,a,x\n")
    assert look_at(file).key == ()


@pytest.mark.parametrize("rows", ["1,a\n1,b\n", "1,a\n,b\n"])
def test_a_repeated_or_missing_value_is_no_key(tmp_path: Path, rows: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,word\n" + rows)
    result = look_at(file)
    assert result.key == ()
    assert any(note.startswith("no key") for note in result.assumptions)


def test_combinations_are_never_guessed_as_a_key(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("day,shop\n1,a\n1,b\n2,a\n2,b\n")
    assert look_at(file).key == ()


def test_columns_are_called_as_bronze_will_call_them(tmp_path: Path) -> None:
    header, *rows = [
        ["", "name", "name", "name ", "2020"],
        ["0", "a", "b", "c", "1.5"],
        ["1", "a", "b", "c", "2.5"],
    ]
    file = tmp_path / "data.csv"
    file.write_text("".join(",".join(row) + "\n" for row in [header, *rows]))
    assert list(types(look_at(file))) == clean_names(header)


def test_nested_json_becomes_structs_and_lists(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    rows = [
        {
            "id": 1,
            "who": {"name": "a", "tags": ["x"], "at": {"lat": 1, "lon": 2.5}},
            "when": "2024-01-01T00:00:00Z",
        },
        {"id": 2, "who": {"name": "b", "age": 7}, "items": [{"sku": "k", "n": 1}], "zip": "0123"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = types(look_at(file))
    assert found["who"] == pl.Struct(
        {
            "name": pl.String(),
            "tags": pl.List(pl.String()),
            "at": pl.Struct({"lat": pl.Int64(), "lon": pl.Float64()}),
            "age": pl.Int64(),
        }
    )
    assert found["items"] == pl.List(pl.Struct({"sku": pl.String(), "n": pl.Int64()}))
    assert found["when"] == TIMESTAMP
    assert found["zip"] == pl.String()


def test_embedded_newlines_and_quotes_do_not_shift_rows(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,note\n" + "".join(f'{i},"line one\nline ""{i}"", done"\n' for i in range(100)))
    result = look_at(file)
    assert result.rows == 100
    assert types(result)["id"] == pl.Int64()


def test_parquet_types_that_tables_do_not_have_become_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "data.parquet"
    pl.DataFrame(
        {
            "id": pl.Series([1, 2], dtype=pl.UInt32),
            "c": pl.Series(["a", "b"], dtype=pl.Categorical),
            "n": [1.5, None],
        }
    ).write_parquet(file)
    assert types(look_at(file)) == {"id": pl.Int64(), "c": pl.String(), "n": pl.Float64()}


def test_values_of_personal_columns_are_not_written_down(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("id,email\n1,ada@example.com\n")
    assert {column.name: column.seen for column in look_at(file).columns}["email"] is None
