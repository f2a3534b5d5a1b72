"""The examples of docs/contracts.md run, one after the other, as they stand."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "contracts.md"


def test_the_guide_s_examples_run_as_they_stand(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    script = tmp_path / "guide.py"
    script.write_text("\n".join(blocks))
    names = runpy.run_path(str(script))
    assert names["payments"].key == ("payment_id",)


def test_the_guide_names_every_option_that_a_field_s_rule_can_have() -> None:
    from lakehouse.contracts.rules import KINDS

    text = GUIDE.read_text()
    others = (
        "in_range",
        "isin",
        "notin",
        "str_matches",
        "str_contains",
        "str_startswith",
        "str_endswith",
        "str_length",
    )
    for option in (*KINDS.values(), *others, "castable", "not_null", "unique", "default", "ignore_na"):
        assert f"`{option}" in text, option
