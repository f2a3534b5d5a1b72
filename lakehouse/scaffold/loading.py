"""The texts of a new pipeline are loaded before anybody writes them: none that cannot be is ever on disk."""

from __future__ import annotations

import sys
from types import ModuleType

import yaml

from lakehouse.contracts import CompiledContract, compile_contract
from lakehouse.errors import DeclarationError, LakehouseError
from lakehouse.pipelines import PipelineSpec, name_trouble
from lakehouse.scaffold.render import Plan

_MODULE = "_lakehouse_contract_to_be"


def check_loads(plan: Plan, declaration: str, contract: str) -> None:
    """Raises DeclarationError with the reason when one of the texts does not load, or says something else than the plan."""
    try:
        (declaration + contract).encode()
        spec = PipelineSpec.model_validate(yaml.safe_load(declaration)["attributes"])
        compiled = _compiled(plan, contract)
    except Exception as error:  # whatever the text does when it is run
        reason = error.message if isinstance(error, LakehouseError) else f"{type(error).__name__}: {error}"
        raise _refused(plan, reason) from error
    if trouble := name_trouble(compiled, spec):
        raise _refused(plan, trouble)
    wanted = {column.name: column.dtype for column in plan.profile.columns}
    if (spec.name, spec.source.path, spec.silver.mode) != (plan.name, plan.path, plan.mode):
        raise _refused(plan, "the YAML reads otherwise than it was meant")
    if compiled.schema != wanted or compiled.key != plan.profile.key:
        lost = [name for name, dtype in wanted.items() if compiled.schema.get(name) != dtype]
        raise _refused(plan, f"the contract loses {', '.join(lost) or 'the key'}")


def _compiled(plan: Plan, text: str) -> CompiledContract:
    module = ModuleType(_MODULE)
    sys.modules[_MODULE] = module  # Pandera looks there for what the annotations name
    try:
        exec(compile(text, f"{plan.name}.py", "exec"), vars(module))
        return compile_contract(getattr(module, plan.class_name))
    finally:
        del sys.modules[_MODULE]


def _refused(plan: Plan, reason: str) -> DeclarationError:
    return DeclarationError(
        f"what would be written for {plan.sniffed.path.name} does not load: {reason}; nothing was written",
        hint="rename what is named here in a copy of the file, or choose another --name",
    )
