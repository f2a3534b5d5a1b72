"""What happens to a row that breaks a rule: quarantine (the default), warn, or fail.

A field's ``on_failure`` is one word for all of its rules, or a dict from rule kind (castable, not_null, unique,
an option of ``pa.Field``, or a custom check's name) to a word, with ``default`` for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pandera.api.checks import Check

from lakehouse.contracts.columns import OnFailure
from lakehouse.contracts.rules import KINDS
from lakehouse.errors import DeclarationError


def chosen_on_failure(kind: str, metadata: Mapping[str, Any], check: Check | None) -> OnFailure:
    """The word for one rule; ``metadata`` was checked before. Pandera's ``raise_warning`` means warn."""
    wanted = metadata.get("on_failure")
    if isinstance(wanted, Mapping):
        own = str(check.name) if check is not None and kind == "custom" else kind
        choice = wanted.get(own, wanted.get("default"))
        if choice is not None:
            return choice  # type: ignore[no-any-return] # checked with the metadata
    elif wanted is not None and not (wanted == "warn" and kind == "castable"):
        # "warn" for a whole field does not reach castable: the row would go in with its value replaced by
        # null. Who wants that says {"castable": "warn"}.
        return wanted  # type: ignore[no-any-return] # checked with the metadata
    return "warn" if check is not None and check.raise_warning else "quarantine"


def check_rule_kinds(
    contract: str, field: str | None, metadata: Mapping[str, Any], checks: Sequence[Check]
) -> None:
    """Raises DeclarationError when a dict names a rule that does not exist: a typo would protect nothing."""
    wanted = metadata.get("on_failure")
    if not isinstance(wanted, Mapping):
        return
    known = {KINDS.get(str(check.name), str(check.name)) for check in checks} | {"default"}
    if field is not None:
        known |= {"castable", "not_null", "unique"}
    for kind in wanted:
        if kind not in known:
            raise DeclarationError(
                f"on_failure names {kind!r}; the rules here are {', '.join(sorted(known))}",
                file=contract,
                field=field,
            )
