"""The hash names what a contract accepts: stable across processes, new with every change that matters."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse.contracts import compile_contract
from lakehouse.contracts.fingerprint import canonical

BASE = '''
import pandera.polars as pa
import polars as pl
from lakehouse.contracts.model import Contract

LIMIT = 3

def helper(column):
    return pl.col(column) < LIMIT

class Things(Contract):
    """One row per thing."""

    a: pl.Int32 = pa.Field(ge=0, isin={0, 1, 2, 7}, description="A number")
    b: str = pa.Field(str_matches="^x", nullable=True, metadata={"sensitivity": "public"})

    @pa.check("a")
    def small(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Small ones only."""
        return data.lazyframe.select(helper(data.key))

    class Config:
        unique = ["a"]
'''

PRINT_HASH = "\nfrom lakehouse.contracts import compile_contract\nprint(compile_contract(Things).hash)\n"


def hash_of(source: str, folder: Path) -> str:
    """Hash of the contract in a module of its own, compiled in this process."""
    folder.mkdir(exist_ok=True)
    path = folder / f"contract_{abs(hash(source))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return compile_contract(module.Things).hash


@pytest.mark.slow
def test_the_hash_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "things.py"
    path.write_text(BASE + PRINT_HASH)
    hashes = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd())}
        run = subprocess.run(
            [sys.executable, str(path)], capture_output=True, text=True, check=True, env=environment
        )
        hashes.add(run.stdout.strip())
    assert hashes == {hash_of(BASE, tmp_path)}
    assert all(len(value) == 64 for value in hashes)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pl.Int32", "pl.Int64"),
        ("ge=0", "ge=1"),
        ("ge=0", "gt=0"),
        ("{0, 1, 2, 7}", "{0, 1, 2, 8}"),
        ('"^x"', '"^y"'),
        ("nullable=True, ", ""),
        ('unique = ["a"]', 'unique = ["a", "b"]'),
        ("LIMIT = 3", "LIMIT = 4"),
        ("pl.col(column) < LIMIT", "pl.col(column) <= LIMIT"),
        ('"sensitivity": "public"', '"on_failure": "warn"'),
        ('@pa.check("a")', '@pa.check("a", ignore_na=False)'),
        ("class Config:", "class Config:\n        strict = True"),
    ],
)
def test_the_hash_changes_with_every_type_rule_and_key(old: str, new: str, tmp_path: Path) -> None:
    assert old in BASE
    assert hash_of(BASE.replace(old, new), tmp_path) != hash_of(BASE, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("A number", "Another number"),
        ("One row per thing.", "One row per thing, now and then."),
        ("Small ones only.", "Only small ones."),
        ('"sensitivity": "public"', '"sensitivity": "internal"'),
        ("return data", "# a comment\n        return data"),
        ("{0, 1, 2, 7}", "{7, 2, 1, 0}"),
    ],
)
def test_the_hash_does_not_change_with_words(old: str, new: str, tmp_path: Path) -> None:
    assert old in BASE
    assert hash_of(BASE.replace(old, new), tmp_path) == hash_of(BASE, tmp_path)


def test_constants_are_described_without_addresses() -> None:
    assert canonical({"b": {2, 1}, "a": object()}) == {"a": "object", "b": [1, 2]}
