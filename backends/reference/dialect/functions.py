"""NumPy's functions on tracers: which function of ours each of them is, and how a call that does not fit fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.dialect import numeric, shapes, statistics
from adbridge.backends.reference.dialect.ufuncs import in_place, missing, named
from adbridge.backends.reference.primitives import Traced
from adbridge.errors import NotDifferentiable

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **xp.fft.NUMPY,
    **xp.linalg.NUMPY,
    **shapes.FUNCTIONS,
    **statistics.FUNCTIONS,
    **numeric.FUNCTIONS,
}


def _array(object: Any, dtype: Any = None) -> Any:
    made = xp.asarray(object, dtype=dtype)
    return xp.astype(made, made.dtype)  # a copy


# Asked for with like=x. What they are filled with may be tracers.
_CREATION: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("arange", "empty", "eye", "identity", "ones", "tri", "zeros")},
    "array": _array,
    "asarray": xp.asarray,
    "full": xp.full,
}


def array_function(self: Any, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `__array_function__` does: our function of that name, if it takes these arguments."""
    name = f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
    if (call := _CREATION.get(name) or _found(name)) is None:
        raise missing(name)
    kwargs = {key: value for key, value in kwargs.items() if not _says_nothing(key, value)}
    if "out" in kwargs:
        raise in_place(name, {"out"})
    try:
        made = call(*args, **kwargs)
    except TypeError:
        if (refusal := _unknown_arguments(name, call, args, kwargs)) is None:
            raise
        raise refusal from None
    return xp.constant(self, made) if name in _CREATION and not isinstance(made, Traced) else made


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
            f"the reference engine's numpy.{name}: {exc}; it takes {_parameters(call)}: write it so, or choose "
            "another backend"
        )
    return None


def _parameters(call: Any) -> inspect.Signature:
    """Their names and defaults, without annotations."""
    signature = inspect.signature(call)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return inspect.Signature(bare)
