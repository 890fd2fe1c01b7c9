"""Taylor series along a line, to any order: taylor."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

from adbridge.errors import SignatureMismatch
from adbridge.operators import Operator
from adbridge.registry import BackendLike
from adbridge.trees import PyTree


def taylor(
    fun: Callable[..., Any], x: PyTree, direction: PyTree, order: int, *, backend: BackendLike | None = None
) -> list[PyTree]:
    """The Taylor coefficients, to `order`, of t -> fun(x + t direction): its derivatives at t = 0 over k!.

    Args:
        fun: takes one argument, a pytree of arrays, and returns one.
        direction: of the same tree, shapes and dtypes as `x` (Python numbers fit any scalar).
        order: 0 or more.

    Returns:
        A list of `order` + 1 trees like the output, in its shapes and dtypes; the first is ``fun(x)``. On the
        reference engine by one run, at a cost that grows as order ** 2; on the other backends by nested forward
        mode, at about 2 ** order runs. What is smooth in pieces only (abs, maximum, where, sort, ...) is followed
        on the piece of t = 0; at a kink, by the convention of its derivative.

    Called again and again, prepare it: ``prepare(Operator("taylor", fun, order=10), x, direction)`` is compiled on
    the reference engine and JAX.

    Raises:
        SignatureMismatch: a direction unlike `x`, or an order that is not a natural number. CapabilityError: an
        order beyond what the backend nests. Else as `jvp`.

    >>> import numpy as np
    >>> print(*taylor(np.exp, 0.0, 1.0, 4, backend="reference"))
    1.0 1.0 0.5 0.16666666666666666 0.041666666666666664
    """
    order = _natural("taylor", "order", order)
    return Operator("taylor", fun, 0, backend=backend, order=order)(x, direction)  # type: ignore[no-any-return]


def _natural(operator: str, name: str, value: Any) -> int:
    try:
        number = index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise SignatureMismatch(f"{operator} needs {name} as a natural number, 0 or more; got {value!r}")
    return number
