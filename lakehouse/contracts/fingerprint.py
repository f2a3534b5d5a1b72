"""A contract's hash: the same in every process, another one as soon as what it accepts may change.

Descriptions and sensitivities do not count; types, key, rules with their constants, what happens on failure,
and the code of custom checks (without comments, layout and docstrings) do.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from lakehouse.contracts.columns import ColumnSpec
from lakehouse.contracts.rules import Rule


def contract_hash(
    columns: Sequence[ColumnSpec],
    key: Sequence[str],
    rules: Sequence[Rule],
    code: Mapping[str, Any],
    options: Any,
) -> str:
    """Sha256 of the canonical description. ``code`` holds, per rule name, its constants and source."""
    document = {
        "columns": [[c.name, str(c.dtype), c.nullable, c.required, canonical(c.default)] for c in columns],
        "key": list(key),
        "rules": [[r.name, r.kind, r.on_failure, code.get(r.name)] for r in rules],
        "options": options,
    }
    text = json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(value: Any) -> Any:
    """A constant as JSON that does not depend on the process (sets sorted, no addresses)."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(v) for v in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if hasattr(value, "pattern"):
        return [value.pattern, int(getattr(value, "flags", 0))]
    return f"{type(value).__name__}:{value!r}" if _prints_itself(value) else f"{type(value).__name__}"


def source_of(function: Callable[..., Any]) -> Any:
    """What a function does: its code, the constants it closes over or finds in its module, and functions of
    the same package that it calls."""
    return _source(inspect.unwrap(function), set())


def _source(function: Any, seen: set[int]) -> Any:
    if not isinstance(function, FunctionType) or id(function) in seen:
        return getattr(function, "__name__", type(function).__name__)
    seen.add(id(function))
    return [_code(function), {name: _outside(function, v, seen) for name, v in _names(function).items()}]


def _code(function: FunctionType) -> str:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        # Typed into a console, or a lambda in the middle of a line: the bytecode and its constants remain.
        plain = [c for c in function.__code__.co_consts if not inspect.iscode(c)]
        return f"{function.__code__.co_code.hex()} {canonical(plain)}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _names(function: FunctionType) -> dict[str, Any]:
    """Values that the code refers to and that are defined outside of it, by name."""
    found = inspect.getclosurevars(function)
    names = {**found.globals, **found.nonlocals}
    return {name: names[name] for name in sorted(names)}


def _outside(function: FunctionType, value: Any, seen: set[int]) -> Any:
    if isinstance(value, FunctionType):
        package = str(function.__module__).partition(".")[0]
        own = str(value.__module__).partition(".")[0] == package
        return _source(value, seen) if own else f"{value.__module__}.{value.__qualname__}"
    if inspect.ismodule(value) or inspect.isclass(value):
        return value.__name__
    return canonical(value)


def _prints_itself(value: Any) -> bool:
    """Whether ``repr`` says the value, not where it lies in memory."""
    return " at 0x" not in repr(value)
