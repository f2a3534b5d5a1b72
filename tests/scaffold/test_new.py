"""What ``new pipeline`` writes is pleasant, valid, and never in anybody's way."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import yaml

from lakehouse.connectors.columns import clean_names
from lakehouse.contracts import Contract, compile_contract
from lakehouse.errors import DeclarationError
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.scaffold import new as new_module
from lakehouse.scaffold.new import NewPipeline, plan_pipeline, write_pipeline
from lakehouse.scaffold.render import render_contract
from lakehouse.settings import PROJECT_DIR, Settings, load_settings
from tests.lakes import OrdersLake

MESSY = 'Order ID;Zip;Amount;When;Note;class\n1;00123;NA;2024-01-01 10:00;"two\nlines";x\n2;04567;1.5;2024-01-02 11:00;"a ""b""";y\n'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(root=str(tmp_path / "lake"), pipelines_dir=str(tmp_path / "defs"))


def _texts(new: NewPipeline) -> tuple[str, str]:
    yaml_text = next(text for path, text in new.files.items() if path.suffix == ".yaml")
    return yaml_text, next(text for path, text in new.files.items() if path.suffix == ".py")


def _load(text: str, folder: Path) -> ModuleType:
    file = folder / "written_contract.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location("written_contract", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["written_contract"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    file = tmp_path / "web orders_2024-01-01.csv"
    file.write_text(MESSY, newline="")
    return file


def test_the_written_yaml_is_a_valid_declaration(settings: Settings, messy: Path) -> None:
    document = yaml.safe_load(_texts(plan_pipeline(settings, messy))[0])
    spec = PipelineSpec.model_validate(document["attributes"])
    assert spec.name == "web_orders"
    assert spec.source.csv.delimiter == ";"
    assert spec.source.markers_by_column == {"*": ("NA",)}
    assert spec.source.path == f"{messy.parent}/web orders_[0-9]*.csv"
    assert spec.silver.mode == "upsert"


def test_the_written_contract_compiles_to_the_types_that_were_seen(
    settings: Settings, messy: Path, tmp_path: Path
) -> None:
    module = _load(_texts(plan_pipeline(settings, messy))[1], tmp_path)
    contract = compile_contract(module.WebOrders)
    assert contract.key == ("Order_ID",)
    assert contract.schema == {
        "Order_ID": pl.Int64(),
        "Zip": pl.String(),
        "Amount": pl.Float64(),
        "When": pl.Datetime("us", "UTC"),
        "Note": pl.String(),
        "class": pl.String(),
    }
    assert [column.name for column in contract.columns if not column.nullable] == ["Order_ID"]


def test_a_nested_contract_compiles_too(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        json.dumps({"id": 1, "who": {"tags": ["a"], "at": [{"x": 1.5}]}, "from": "a", "_rev": 3}) + "\n"
    )
    contract = compile_contract(_load(_texts(plan_pipeline(settings, file))[1], tmp_path).Events)
    assert contract.schema["who"] == pl.Struct(
        {"tags": pl.List(pl.String()), "at": pl.List(pl.Struct({"x": pl.Float64()}))}
    )
    assert {"from", "_rev"} <= set(contract.schema)


@pytest.mark.parametrize(
    "columns",
    [
        ["id", "pa", "pl", "Contract", "Config", "Annotated", "TimestampUtc"],
        ["id", *(name for name in dir(Contract) if not name.startswith("__"))],
        ["id", "class", "class_", "class_2", "Class"],
        ["_2019", "2019", "_", "_rev", "rev_", "rev"],
    ],
)
def test_no_column_is_lost_however_it_is_called(
    settings: Settings, tmp_path: Path, columns: list[str]
) -> None:
    file = tmp_path / "events.jsonl"
    nested = {name: {"x": 1, "at": [1]} for name in columns}
    file.write_text(json.dumps(dict.fromkeys(columns, 1)) + "\n")
    flat = compile_contract(_load(_texts(plan_pipeline(settings, file))[1], tmp_path).Events)
    assert list(flat.schema) == clean_names(columns)
    file.write_text(json.dumps({**nested, "WHO_FIELDS": 1, "who": {"y": "a"}, "_who": {"z": 1}}) + "\n")
    deep = compile_contract(_load(_texts(plan_pipeline(settings, file))[1], tmp_path).Events)
    assert set(deep.schema) == {*clean_names(columns), "WHO_FIELDS", "who", "_who"}
    assert deep.schema["who"] == pl.Struct({"y": pl.String()})
    assert deep.schema["_who"] == pl.Struct({"z": pl.Int64()})


@pytest.mark.parametrize(
    "name", ["null", "no", "none", "contract", "annotated", "timestamp_utc", "pa", "pl", "_1", "class"]
)
def test_a_table_may_have_any_name(settings: Settings, tmp_path: Path, name: str) -> None:
    file = tmp_path / 'odd \\N""" name.jsonl'
    file.write_text(json.dumps({"id": 1, "who": {"x": 1}, "at": "2024-01-01T10:00:00Z"}) + "\n")
    new = plan_pipeline(settings, file, name=name, system="no")
    document = yaml.safe_load(_texts(new)[0])
    assert PipelineSpec.model_validate(document["attributes"]).name == name


def test_columns_of_the_lakehouses_own_kind_stay_in_bronze_and_the_rest_goes_through(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text(
        "".join(json.dumps({"__v": n, "__typename": "User", "_id": f"u{n}"}) + "\n" for n in (1, 2))
    )
    new = plan_pipeline(settings, file)
    yaml_text, contract_text = _texts(new)
    assert new.plan.profile.key == ("_id",)
    assert any("left out of the contract: __v, __typename" in note for note in new.assumptions)
    assert "# __v is in bronze only" in contract_text
    lake = OrdersLake(tmp_path / "lake", contract=_load(contract_text, tmp_path).Users)
    attributes = yaml.safe_load(yaml_text)["attributes"]
    attributes |= {"name": "orders", "contract": "orders_of_test.Orders"}
    lake.pipeline = Pipeline(PipelineSpec.model_validate(attributes), "defs.yaml")
    lake.run()
    assert lake.rows("_id") == [("u1",), ("u2",)]
    bronze = lake.lake.table("bronze", "orders").snapshot().scan().collect()
    assert bronze.select("__v", "__typename").sort("__v").rows() == [("1", "User"), ("2", "User")]


def test_what_does_not_load_is_never_written(
    settings: Settings, messy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_module, "render_contract", lambda plan: "class WebOrders: pass\n")
    with pytest.raises(DeclarationError, match=r"does not load: .* is not a contract.*; nothing was written"):
        plan_pipeline(settings, messy)
    monkeypatch.setattr(
        new_module, "render_contract", lambda plan: render_contract(plan).replace("    Zip", "    # Zip")
    )
    with pytest.raises(DeclarationError, match="the contract loses Zip"):
        plan_pipeline(settings, messy)


def test_a_name_that_readers_need_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("id,file_row_number\n1,5\n2,6\n")
    with pytest.raises(DeclarationError, match=r"cannot have file_row_number: .*; nothing was written"):
        plan_pipeline(settings, file, key=("id",))


def test_what_is_written_passes_the_projects_own_format_and_lint(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(
        json.dumps({"id": 1, "who": {"tags": ["a"], "long_" * 15: {"b": {"c": [1]}}}, "e_mail": "x"}) + "\n"
    )
    target = tmp_path / "events.py"
    target.write_text(_texts(plan_pipeline(settings, file))[1])
    config = str(PROJECT_DIR / "pyproject.toml")
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", config, str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_ever_overwritten(settings: Settings, messy: Path, tmp_path: Path) -> None:
    new = plan_pipeline(settings, messy)
    redirected = NewPipeline(
        new.plan, {tmp_path / "out" / path.name: text for path, text in new.files.items()}, new.assumptions
    )
    contract = tmp_path / "out" / "web_orders.py"
    contract.parent.mkdir()
    contract.write_text("mine")
    with pytest.raises(DeclarationError, match=r"web_orders\.py exists already; nothing was written"):
        write_pipeline(redirected)
    assert contract.read_text() == "mine"
    assert not (tmp_path / "out" / "defs.yaml").exists()


def test_a_file_below_the_landing_folder_gets_a_relative_path(settings: Settings) -> None:
    file = Path(settings.landing, "shop", "orders_1.csv")
    file.parent.mkdir(parents=True)
    file.write_text("id\n1\n")
    assert plan_pipeline(settings, file).plan.path == "shop/orders_[0-9]*.csv"


def test_every_guess_is_said(settings: Settings, messy: Path) -> None:
    notes = " | ".join(plan_pipeline(settings, messy).assumptions)
    for word in (
        "name: web_orders",
        "path: web orders_[0-9]*.csv (2024-01-01 changes from file to file)",
        "source system: files",
        "'NA' means no value",
        "key: Order_ID",
        "mode: upsert",
        "plain names",
    ):
        assert word in notes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "web-orders"}, "not a valid name"),
        ({"key": ("order",)}, "is not a column; the columns are Order_ID"),
        ({"mode": "merge"}, "append, upsert, history"),
        ({"mode": "history"}, "sequence_by"),
        ({"system": "my shop"}, "not a valid name"),
    ],
)
def test_a_wrong_option_says_what_would_be_right(
    settings: Settings, messy: Path, options: dict[str, object], says: str
) -> None:
    with pytest.raises(DeclarationError, match=says):
        plan_pipeline(settings, messy, **options)  # type: ignore[arg-type]


def test_parquet_of_a_million_rows_is_profiled_in_seconds_and_its_key_verified(
    settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "big.parquet"
    ids = pl.int_range(1_000_000, eager=True)
    pl.DataFrame({"id": ids, "dup_id": ids.replace(500_000, 7)}).write_parquet(file)
    new = plan_pipeline(settings, file)
    assert new.plan.profile.key == ("id",)
    assert new.plan.profile.rows == 1_000_000
