"""A wrong contract is refused when it is compiled, with the place, the fault and the way out."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse.contracts import Contract, compile_contract
from lakehouse.errors import DeclarationError


def contract_of(*, config: dict[str, Any] | None = None, **fields: tuple[Any, Any]) -> type[Contract]:
    """A contract class made at run time: field → (type, pa.Field(...))."""
    body: dict[str, Any] = {"__module__": __name__, "__doc__": "One row per thing.", "__annotations__": {}}
    for name, (dtype, field) in fields.items():
        body["__annotations__"][name] = dtype
        body[name] = field
    body["Config"] = type("Config", (), config or {})
    return type("Things", (Contract,), body)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (contract_of(a=(int, pa.Field(metadata={"on_failure": "explode"}))),
         "Things: a: on_failure is 'explode'; it can be quarantine, warn, fail"),
        (contract_of(a=(int, pa.Field(metadata={"on_failure": {"ge": "explode"}}, ge=0))),
         "Things: a: on_failure['ge'] is 'explode'"),
        (contract_of(a=(int, pa.Field(metadata={"on_failure": {"gee": "warn"}}, ge=0))),
         "Things: a: on_failure names 'gee'; the rules here are castable, default, ge, not_null, unique"),
        (contract_of(a=(int, pa.Field(metadata={"sensitivity": "secret"}))),
         "Things: a: sensitivity is 'secret'; it can be public, internal, personal"),
        (contract_of(a=(int, pa.Field(metadata={"sensitivty": "public"}))),
         "Things: a: metadata key 'sensitivty' is unknown; did you mean 'sensitivity'?"),
        (contract_of(a=(int, pa.Field(metadata={"remedy": 3}))), "Things: a: metadata 'remedy' must be a sentence"),
        (contract_of(config={"unique": ["b"]}, a=(int, pa.Field())),
         "Things: b: Config.unique names 'b', which is no column; the columns are a"),
        (contract_of(config={"unique": [["a"]]}, a=(int, pa.Field())), "a table has one key"),
        (contract_of(config={"unique": ["a", "a"]}, a=(int, pa.Field())), "names a column twice"),
        (contract_of(config={"unique": ["a"]}, a=(int, pa.Field(metadata={"on_failure": {"castable": "warn"}}))),
         "Things: a: a row whose key cannot be read cannot be let in"),
        (contract_of(config={"unique": ["a"]}, a=(int, pa.Field(metadata={"on_failure": "warn"}))),
         "Things: a: a row without its key cannot be let in"),
        (contract_of(a=(int, pa.Field(alias="two words"))), "column name 'two words' is not a plain identifier"),
        (contract_of(a=(int, pa.Field(alias="1st"))), "column name '1st' is not a plain identifier"),
        (contract_of(a=(int, pa.Field(alias="__hidden"))), "start with two underscores belong to the lakehouse"),
        (contract_of(a=(int, pa.Field(alias="a.+", regex=True))), "name each column"),
        (contract_of(a=(pl.Object, pa.Field())), "Things: a: type Object"),
        (contract_of(a=(pl.List, pa.Field())), "Things: a: type List needs arguments"),
        (contract_of(a=(pl.Struct, pa.Field())), "Things: a: type Struct needs arguments"),
        (contract_of(a=(pl.Array(pl.Int64, 2), pa.Field())), "use pl.List"),
        (contract_of(a=(str, pa.Field(ge=5))), "Things: a: rule 'a >= 5' cannot be computed on a column of type String"),
        (contract_of(a=(str, pa.Field(str_matches="(?=x)"))), "cannot be computed on a column of type String"),
        (contract_of(a=(int, pa.Field(default="x"))), "Things: a: default 'x' is not a value of type Int64"),
        (contract_of(config={"drop_invalid_rows": True}, a=(int, pa.Field())), "Config.drop_invalid_rows"),
        (contract_of(), "Things: the contract declares no columns"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_says_where_what_and_what_would_be_right(
    contract: type[Contract], message: str
) -> None:
    with pytest.raises(DeclarationError) as error:
        compile_contract(contract)
    assert message in str(error.value)
    assert error.value.file == "Things"


def test_an_unknown_type_is_refused_with_the_contract_s_name() -> None:
    class NotAType:
        pass

    with pytest.raises(DeclarationError, match="Things"):
        compile_contract(contract_of(a=(NotAType, pa.Field())))


def test_what_is_no_contract_is_refused() -> None:
    with pytest.raises(DeclarationError, match="is not a contract"):
        compile_contract(pa.DataFrameModel)  # type: ignore[arg-type]


def test_a_check_that_returns_an_expression_is_told_what_to_return() -> None:
    class Wrong(Contract):
        """One row per thing."""

        a: int

        @pa.check("a")
        def positive(cls, data: pa.PolarsData) -> pl.Expr:
            return pl.col(data.key) > 0

    with pytest.raises(
        DeclarationError, match=r"Wrong: a: check 'positive': .* return `data.lazyframe.select"
    ):
        compile_contract(Wrong)


def test_a_check_that_is_not_boolean_is_refused() -> None:
    class Wrong(Contract):
        """One row per thing."""

        a: int

        @pa.dataframe_check
        def doubled(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("a") * 2)

    with pytest.raises(DeclarationError, match=r"check 'doubled': it gives Int64 values"):
        compile_contract(Wrong)


def test_a_check_of_a_column_that_does_not_exist_is_refused() -> None:
    class Wrong(Contract):
        """One row per thing."""

        a: int

        @pa.dataframe_check
        def ordered(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("a") < pl.col("b"))

    with pytest.raises(DeclarationError, match=r"rule 'ordered' cannot be computed: .*b"):
        compile_contract(Wrong)


def test_rules_are_named_as_people_read_them() -> None:
    class Named(Contract):
        """One row per thing.

        Second paragraph.
        """

        a: int = pa.Field(
            ge=-120, in_range={"min_value": 0, "max_value": 9, "include_max": False}, unique=True
        )
        b: str = pa.Field(isin=["x", "y"], str_length=(1, 3), str_startswith="x", nullable=True)
        c: int = pa.Field(notin=list(range(10)), raise_warning=True)
        d: int

        @pa.check("a", "d", name="is even")
        def even(cls, data: pa.PolarsData) -> pl.LazyFrame:
            """Odd ones are for the other plant."""
            return data.lazyframe.select(pl.col(data.key) % 2 == 0)

        @pa.dataframe_check
        def rising(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("a") <= pl.col("c"))

        class Config:
            name = "named"
            metadata = {"on_failure": {"rising": "fail"}}

    contract = compile_contract(Named)
    assert [rule.name for rule in contract.rules] == [
        "castable(a)", "not_null(a)", "unique(a)", "a >= -120", "0 <= a < 9", "a: is even",
        "castable(b)", "b in ['x', 'y']", "1 <= length(b) <= 3", "b starts with 'x'",
        "castable(c)", "not_null(c)", "c not in [0, 1, 2, 3, 4, 5, … 10 values]",
        "castable(d)", "not_null(d)", "d: is even",
        "rising",
    ]  # fmt: skip
    assert contract.description == "One row per thing.\n\nSecond paragraph."
    assert contract.rule("a: is even").description == "Odd ones are for the other plant."
    assert contract.rule("rising").columns == ("a", "c")
    assert contract.rule("rising").on_failure == "fail"
    assert contract.rule("c not in [0, 1, 2, 3, 4, 5, … 10 values]").on_failure == "warn"
    assert contract.rule("a >= -120").on_failure == "quarantine"
    assert "replay the quarantine" in contract.rule("a >= -120").remedy


def test_warn_on_a_field_lets_nulls_in_but_never_a_value_turned_into_null() -> None:
    contract = compile_contract(contract_of(a=(int, pa.Field(ge=0, metadata={"on_failure": "warn"}))))
    assert {rule.kind: rule.on_failure for rule in contract.rules} == {
        "castable": "quarantine", "not_null": "warn", "ge": "warn",
    }  # fmt: skip
    assert contract.column("a").nullable
    lenient = contract_of(a=(int, pa.Field(metadata={"on_failure": {"castable": "warn", "default": "fail"}})))
    assert [rule.on_failure for rule in compile_contract(lenient).rules] == ["warn", "fail"]


def test_sensitivity_is_internal_unless_said_otherwise() -> None:
    contract = compile_contract(
        contract_of(a=(int, pa.Field()), b=(int, pa.Field(metadata={"sensitivity": "personal", "team": "x"})))
    )
    assert [column.sensitivity for column in contract.columns] == ["internal", "personal"]


def test_importing_the_package_imports_neither_pandera_nor_polars() -> None:
    code = "import sys, lakehouse.contracts; print([m for m in ('pandera', 'pandas', 'polars') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
