"""Column names that a contract cannot have: silver writes such columns itself, or readers need the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse import names

if TYPE_CHECKING:
    from lakehouse.contracts import CompiledContract
    from lakehouse.pipelines.model import PipelineSpec


def name_trouble(contract: CompiledContract, spec: PipelineSpec) -> str | None:
    """Why columns of the contract cannot be called so; None where all can."""
    taken = names.taken_in_silver(spec.silver.mode, deletes=spec.silver.delete_when is not None)
    clash = [name for name in contract.schema if name.lower() in taken]
    if not clash:
        return None
    return (
        f"the contract {contract.name} has {', '.join(clash)}, which the lakehouse and its readers need for themselves "
        f"in mode {spec.silver.mode}"
    )
