"""Second derivatives, by nesting the first-order operators: hessian and hvp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adbridge.calls import Argnums
from adbridge.operators import Operator, check_dense, check_sequences, grad, jvp, vjp
from adbridge.registry import BackendLike

MODES = ("forward-over-reverse", "reverse-over-forward", "reverse-over-reverse", "forward-over-forward")


def hessian(
    fun: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    mode: str = "forward-over-reverse",
    sparsity: None = None,
    backend: BackendLike | None = None,
) -> Operator:
    """Dense Hessian of a scalar function, as a callable with `fun`'s arguments.

    Args:
        mode: the outer over the inner sweep, one of ``"forward-over-reverse"``, ``"reverse-over-forward"``,
            ``"reverse-over-reverse"``, ``"forward-over-forward"``; each costs O(n) sweeps.
        sparsity: not supported yet; must be None.

    Returns:
        A callable whose result is the input's tree of the input's tree; the leaf for inputs of shapes s and
        t has shape ``s + t``.

    Raises:
        CapabilityError: unknown mode, or a sparsity. Else as `grad`.

    >>> import numpy as np
    >>> print(hessian(lambda x: x[0] ** 2 * x[1], backend="reference")(np.array([1.0, 2.0])))
    [[4. 2.]
     [2. 0.]]
    """
    check_dense("hessian", mode, MODES, sparsity)
    return Operator("hessian", fun, argnums, mode=mode, backend=backend)


def hvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    mode: str = "forward-over-reverse",
    backend: BackendLike | None = None,
) -> Any:
    """Hessian-vector product ``H @ tangents`` of a scalar function, a tuple like `primals`.

    Args:
        primals: tuple of the arguments of `fun`, all differentiated.
        tangents: tuple of the same tree, shapes and dtypes.
        mode: as for `hessian`; all cost O(1) sweeps but ``"forward-over-forward"``, which costs n.

    Raises:
        As `jvp` and `grad`.

    >>> print(*hvp(lambda x: x**3, (2.0,), (1.0,), backend="reference"))
    12.0
    """
    check_dense("hvp", mode, MODES, None)
    check_sequences("hvp", primals, tangents)
    every = tuple(range(len(primals)))

    def first(operator: str) -> Operator:
        return Operator(operator, fun, every, mode="forward", backend=backend, scalar_for="hvp")

    if mode == "forward-over-reverse":
        return jvp(first("grad"), primals, tangents, backend=backend)[1]
    if mode == "forward-over-forward":
        return jvp(first("jacobian"), primals, tangents, backend=backend)[1]
    if mode == "reverse-over-reverse":  # H is symmetric: H^T v = H v
        return vjp(first("grad"), *primals, backend=backend)[1](tuple(tangents))

    def directional(*xs: Any) -> Any:
        return first("jvp")(xs, tuple(tangents))[1]

    return grad(directional, every, backend=backend)(*primals)
