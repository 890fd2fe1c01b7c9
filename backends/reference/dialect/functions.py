"""NumPy's functions on tracers: which function of ours each of them is, and how a call that does not fit fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.dialect import numeric, shapes, statistics
from adbridge.backends.reference.dialect.ufuncs import in_place, missing, named
from adbridge.errors import NotDifferentiable

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **xp.fft.NUMPY,
    **xp.linalg.NUMPY,
    **shapes.FUNCTIONS,
    **statistics.FUNCTIONS,
    **numeric.FUNCTIONS,
}


_CREATION = frozenset({"arange", "empty", "eye", "full", "identity", "ones", "tri", "zeros"})


def array_function(self: Any, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `__array_function__` does: our function of that name, if it takes these arguments."""
    name = f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
    if name in _CREATION:  # asked for with like=self
        return xp.constant(self, func(*args, **kwargs))
    if (call := _found(name)) is None:
        raise missing(name)
    kwargs = {key: value for key, value in kwargs.items() if not _says_nothing(key, value)}
    if "out" in kwargs:
        raise in_place(name, {"out"})
    try:
        return call(*args, **kwargs)
    except TypeError:
        if (refusal := _unknown_arguments(name, call, args, kwargs)) is None:
            raise
        raise refusal from None


def _found(name: str) -> Callable[..., Any] | None:
    return FUNCTIONS.get(name) or (None if "." in name else named(name))


def _says_nothing(key: str, value: Any) -> bool:
    """Whether an argument is what NumPy takes it for when it is left out."""
    return (key == "out" and value is None) or (key == "order" and isinstance(value, str) and value in "CKA")


def _unknown_arguments(name: str, call: Any, args: Any, kwargs: Any) -> NotDifferentiable | None:
    try:
        inspect.signature(call).bind(*args, **kwargs)
    except TypeError as exc:
        return NotDifferentiable(
            f"the reference engine's numpy.{name}: {exc}; it takes {inspect.signature(call)}: write it so, or choose "
            "another backend"
        )
    return None
