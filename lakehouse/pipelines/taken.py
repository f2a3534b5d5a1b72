"""Column names that a silver table cannot have: it writes such columns itself, or readers need the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse import names

if TYPE_CHECKING:
    from lakehouse.contracts import CompiledContract
    from lakehouse.pipelines.model import PipelineSpec


def name_trouble(contract: CompiledContract, spec: PipelineSpec) -> str | None:
    """Why columns of the contract, or of ``sequence_by``, cannot be called so; None where all can."""
    columns = dict.fromkeys([*contract.schema, *spec.silver.sequence_by])
    clash = names.taken_in_silver(spec.silver.mode, columns)
    if not clash:
        return None
    return (
        f"a silver table in mode {spec.silver.mode} cannot have {', '.join(clash)}: the lakehouse and its readers need "
        f"{'this name' if len(clash) == 1 else 'these names'} for themselves"
    )
