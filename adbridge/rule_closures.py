"""What functions may reach besides their arguments: closures, defaults, globals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_INERT = (int, float, complex, str, bytes, type(None), type, range, slice, ModuleType, BuiltinFunctionType)
_LIBRARIES = frozenset({"adbridge", "array_api_compat", "autograd", "builtins", "jax", "numpy", "scipy", "torch"})
_MANY = 200
"""Things looked at before it is left undecided."""


def may_reach(functions: Iterable[Any], suspect: Callable[[Any], bool]) -> bool:
    """Whether the functions may compute with an array that is `suspect`: False only where it is certain that none of
    what they, and the functions that they call, refer to is one. Objects of unknown kinds may hold anything."""
    todo, seen = list(functions), set()
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, _INERT) or _is_of_a_library(thing):
            continue
        seen.add(id(thing))
        if isinstance(thing, (np.ndarray, np.generic)):
            if thing.dtype.hasobject:
                return True
        elif hasattr(thing, "dtype") and hasattr(thing, "shape"):
            if suspect(thing):
                return True
        elif (parts := _parts(thing)) is None or len(seen) > _MANY:
            return True
        else:
            todo += parts
    return False


def _is_of_a_library(thing: Any) -> bool:
    if isinstance(thing, np.ufunc):
        return True
    return isinstance(thing, FunctionType) and _is_library(thing.__module__ or "") and not _cells(thing)


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES


def _cells(thing: Any) -> tuple[Any, ...]:
    return getattr(thing, "__closure__", None) or ()


def _parts(thing: Any) -> list[Any] | None:
    """What a thing is made of; None if that is unknown."""
    if isinstance(thing, FunctionType):
        return _of_function(thing)
    if isinstance(thing, MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, partial):
        return [thing.func, thing.args, thing.keywords]
    if type(thing) in (tuple, list, set, frozenset):
        return list(thing)
    if type(thing) is dict:
        return list(thing.values())
    return _of_ours(thing)


def _of_function(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in _cells(function) if _is_full(cell)]
    names = _names(function.__code__)
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    modules = [thing for thing in (*cells, *named) if isinstance(thing, ModuleType) and not _is_library(thing.__name__)]
    named += [vars(module)[name] for module in modules for name in names if name in vars(module)]
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return [*cells, *named, *defaults]


def _of_ours(thing: Any) -> list[Any] | None:
    from adbridge.operators import Operator
    from adbridge.rules import CustomRule

    if isinstance(thing, CustomRule):
        return [thing.primal, thing.jvp_rule, thing.fwd, thing.bwd]
    return [thing.fun] if isinstance(thing, Operator) else None


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (a variable may have no value yet)
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> set[str]:
    """The names that code looks up, and those of the functions within."""
    inner = (const for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*map(_names, inner))
