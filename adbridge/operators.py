"""The operators: argnums, aux, pytrees, dtypes and NumPy in/out, on top of a backend's flat jvp and vjp.

A call is read once (`calls.py`); an operator is then a function of that call and its arrays, so that
`prepared.py` can hand the very same function to an engine's compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any

import numpy as np

from adbridge.calls import Argnums, Call, read_call
from adbridge.errors import CapabilityError, SignatureMismatch
from adbridge.jacobians import MODES, dense_jacobian
from adbridge.protocol import Arrays, read_only
from adbridge.readings import function_name
from adbridge.registry import BackendLike
from adbridge.trees import PyTree, flatten, unflatten


@dataclass(frozen=True)
class Operator:
    """A derivative of a function, callable like the function; remembers operator, fun and backend.

    `grad`, `value_and_grad` and `jacobian` return one. The operators at a point are called with
    ``(primals, seeds)``: ``Operator("jvp", fun)(primals, tangents)``; a Taylor series with
    ``(x, direction)``: ``Operator("taylor", fun, order=10)(x, direction)``. All of them can be prepared.
    """

    name: str
    fun: Callable[..., Any]
    argnums: Argnums = 0
    has_aux: bool = False
    mode: str = ""
    backend: BackendLike | None = None
    scalar_for: str = ""
    """The operator whose step this one is, where that needs a function with one real scalar output."""
    order: int = 0
    """Of a Taylor series."""

    def __post_init__(self) -> None:
        # An iterator would be used up by the first call.
        object.__setattr__(self, "argnums", _as_argnums(self.name, self.argnums))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call, seeds = self.read(args, kwargs)
        if not call.reading.scoped:
            return call.finish(self.apply(call, call.arrays, seeds))
        with call.scope():
            return call.finish(self.apply(call, call.arrays, seeds))

    def __repr__(self) -> str:
        where = "" if self.backend is None else f" on {getattr(self.backend, 'name', self.backend)}"
        return f"<{self.name} of {function_name(self.fun)}{where}>"

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Arrays]:
        """The call as flat engine arrays, and its tangents or cotangents as engine arrays."""
        if self.name not in ("jvp", "vjp", "taylor"):
            return read_call(self, args, kwargs), ()
        primals, seeds = args
        return _read_at_point(self, (primals,) if self.name == "taylor" else primals, seeds)

    def apply(self, call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
        """The result in engine arrays; a pure function of `arrays` and `seeds`."""
        return _APPLY[self.name](call, arrays, seeds)


def grad(
    fun: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    backend: BackendLike | None = None,
) -> Operator:
    """Gradient of a scalar function, as a callable with `fun`'s arguments.

    Args:
        fun: returns an array of shape () and real floating dtype; or ``(that, aux)`` if `has_aux`.
        argnums: the argument(s) to differentiate with respect to; each may be a pytree.
        has_aux: return ``(gradient, aux)``.
        backend: a name, a Backend, or None to choose by context and inputs.

    Returns:
        A callable whose result has the tree, shapes and dtypes of argument `argnums`
        (a tuple of such for a tuple of argnums); NumPy arrays if NumPy came in.
        Complex inputs: df/dx - i df/dy, as in JAX.

    Raises:
        NotDifferentiable: integer inputs, output not a real floating scalar.
        MixedBackends, BackendNotFound, BackendUnavailable, CapabilityError: see `get_backend`.

    >>> print(grad(lambda x: x**3 + 2 * x, backend="reference")(3.0))
    29.0
    """
    return Operator("grad", fun, argnums, has_aux, backend=backend)


def value_and_grad(
    fun: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    backend: BackendLike | None = None,
) -> Operator:
    """As `grad`, returning ``(value, gradient)``, or ``((value, aux), gradient)`` if `has_aux`.

    >>> value, g = value_and_grad(lambda x: x * x, backend="reference")(3.0)
    >>> print(value, g)
    9.0 6.0
    """
    return Operator("value_and_grad", fun, argnums, has_aux, backend=backend)


def jacobian(
    fun: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    mode: str = "auto",
    sparsity: None = None,
    backend: BackendLike | None = None,
) -> Operator:
    """Dense Jacobian, as a callable with `fun`'s arguments.

    Args:
        mode: ``"forward"`` (n sweeps), ``"reverse"`` (m sweeps) or ``"auto"`` (forward if n <= m).
        sparsity: not supported yet; must be None.

    Returns:
        A callable whose result is the output's tree of the input's tree; the leaf for an output of shape
        s and an input of shape t has shape ``s + t``.

    Raises:
        CapabilityError: unknown mode. NotDifferentiable: complex inputs with mode ``"forward"``, complex
        outputs with ``"reverse"``, or both (one matrix of complex numbers holds no more than a holomorphic
        function's derivative). Else as `grad`, but the output may be of any shape.

    >>> import numpy as np
    >>> print(jacobian(lambda x: x * x, backend="reference")(np.array([1.0, 2.0])))
    [[2. 0.]
     [0. 4.]]
    """
    check_dense("jacobian", mode, MODES, sparsity)
    return Operator("jacobian", fun, argnums, mode=mode, backend=backend)


def jvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    has_aux: bool = False,
    backend: BackendLike | None = None,
) -> Any:
    """``(fun(*primals), J @ tangents)`` by one forward sweep; ``(out, tangent_out, aux)`` if `has_aux`.

    Args:
        primals: tuple of the arguments of `fun`, all differentiated.
        tangents: tuple of the same tree, shapes and dtypes (Python numbers fit any scalar).

    Raises:
        SignatureMismatch: tangents unlike primals. Else as `grad`.

    >>> out, tangent = jvp(lambda x: x * x, (3.0,), (1.0,), backend="reference")
    >>> print(out, tangent)
    9.0 6.0
    """
    check_sequences("jvp", primals, tangents)
    return Operator("jvp", fun, tuple(range(len(primals))), has_aux, backend=backend)(tuple(primals), tuple(tangents))


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False, backend: BackendLike | None = None) -> Any:
    """``(fun(*primals), vjp_fn)``, or ``(out, vjp_fn, aux)`` if `has_aux`.

    ``vjp_fn(cotangents)``, with the tree, shapes and dtypes of the output, gives the tuple of the primals'
    cotangents, J^T @ cotangents, by one reverse sweep; it may be called any number of times. Arrays that `fun`
    makes or closes over are kept, not copied, until then: `fun` must not write to one after it has used it
    (``w = 2 * w`` in a loop, not ``w *= 2``). Arguments are safe.

    Raises:
        SignatureMismatch (from vjp_fn): cotangents unlike the output. Else as `grad`.

    >>> out, vjp_fn = vjp(lambda x, y: x * y, 3.0, 4.0, backend="reference")
    >>> print(out, *vjp_fn(1.0))
    12.0 4.0 3.0
    """
    call = _read_to_keep(Operator("vjp", fun, tuple(range(len(primals))), has_aux, backend=backend), primals)
    with call.scope():
        outs, pullback, aux = call.backend.vjp(call.flat_function(call.arrays), call.primals(call.arrays))
        result = call.finish(call.out(outs)), call.finish(call.aux(aux))
    out_tree = call.out_tree
    assert out_tree is not None

    def vjp_fn(cotangents: Any) -> Any:
        with call.scope():
            seeds = call.seeds("cotangents", cotangents, out_tree, outs, "the output")
            return call.finish(call.like_primals(pullback(seeds)))

    return (result[0], vjp_fn, result[1]) if has_aux else (result[0], vjp_fn)


def linearize(fun: Callable[..., Any], *primals: Any, backend: BackendLike | None = None) -> Any:
    """``(fun(*primals), jvp_fn)``: ``jvp_fn(*tangents)`` is J @ tangents, any number of times.

    The reference engine and JAX run `fun` once and keep the linear part; the others run it again each time.

    Raises:
        SignatureMismatch (from jvp_fn): tangents unlike the primals. Else as `grad`.

    >>> out, jvp_fn = linearize(lambda x: x * x, 3.0, backend="reference")
    >>> print(out, jvp_fn(1.0), jvp_fn(10.0))
    9.0 6.0 60.0
    """
    call = _read_to_keep(Operator("linearize", fun, tuple(range(len(primals))), backend=backend), primals)
    points = call.primals(call.arrays)
    with call.scope():
        outs, pushforward, _ = call.backend.linearize(call.flat_function(call.arrays), points)
        out = call.finish(call.out(outs))

    def jvp_fn(*tangents: Any) -> Any:
        with call.scope():
            seeds = call.seeds("tangents", tangents, call.active_tree, points, "primals")
            return call.finish(call.out(pushforward(seeds)))

    return out, jvp_fn


def _read_to_keep(operator: Operator, primals: tuple[Any, ...]) -> Call:
    """The call, with copies of NumPy arrays: its caller may change them before it uses the linear map."""
    call = read_call(operator, primals, {})
    call.arrays = tuple(read_only(np.array(a)) if isinstance(a, np.ndarray) else a for a in call.arrays)
    return call


def check_dense(operator: str, mode: str, modes: Sequence[str], sparsity: object) -> None:
    """Raises CapabilityError: an unknown mode, or a sparsity."""
    if mode not in modes:
        raise CapabilityError(f"{operator} has no mode {mode!r}; choose one of {', '.join(map(repr, modes))}")
    if sparsity is not None:
        raise CapabilityError(f"{operator}(sparsity=...) is not supported yet; leave it out for a dense result")


def _as_argnums(name: str, argnums: Any) -> Argnums:
    try:
        return index(argnums) if hasattr(argnums, "__index__") else tuple(index(a) for a in argnums)
    except TypeError:
        raise SignatureMismatch(f"{name} needs argnums as an int or a tuple of ints; got {argnums!r}") from None


def check_sequences(operator: str, primals: Any, tangents: Any) -> None:
    """Raises SignatureMismatch: primals or tangents that are neither tuple nor list."""
    for name, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, (tuple, list)):
            raise SignatureMismatch(f"{operator} needs {name} as a tuple, one per argument; got {type(value).__name__}")


def _read_at_point(operator: Operator, primals: tuple[Any, ...], seeds: Any) -> tuple[Call, Arrays]:
    seed_leaves, seed_tree = flatten(seeds)
    call = read_call(operator, primals, {}, also=seed_leaves)
    call.seed_tree = seed_tree
    with call.scope():
        if operator.name == "jvp":
            like = call.primals(call.arrays)
            return call, call.seeds("tangents", seeds, call.active_tree, like, "primals")
        if operator.name == "taylor":
            like = call.primals(call.arrays)
            return call, call.seeds("direction", seeds, call.active_tree.child(0), like, "x")
        return call, tuple(call.to_engine(leaf) for leaf in seed_leaves)


# The operators proper: (call, arrays, seeds) -> result in engine arrays.


def _value(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    outs, _ = call.flat_function(arrays)(*call.primals(arrays))
    return call.out(outs)


def _value_and_grad(call: Call, arrays: Arrays, seeds: Arrays) -> tuple[PyTree, PyTree]:
    outs, grads, aux = call.backend.value_and_grad(call.flat_function(arrays), call.primals(arrays))
    call.check_real(outs)
    value = call.out(outs)
    return (value, call.aux(aux)) if call.operator.has_aux else value, call.like_primals(grads)


def _grad(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    value, grads = _value_and_grad(call, arrays, seeds)
    return (grads, value[1]) if call.operator.has_aux else grads


def _jvp(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    outs, tangents, aux = call.backend.jvp(call.flat_function(arrays), call.primals(arrays), seeds)
    result = call.out(outs), call.out(tangents)
    return (*result, call.aux(aux)) if call.operator.has_aux else result


def _vjp(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    outs, pullback, _ = call.backend.vjp(call.flat_function(arrays), call.primals(arrays))
    assert call.out_tree is not None and call.seed_tree is not None
    cotangents = call.seeds("cotangents", unflatten(call.seed_tree, seeds), call.out_tree, outs, "the output")
    return call.like_primals(pullback(cotangents))


def _taylor(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    points = call.primals(arrays)
    coefficients = call.backend.taylor(call.flat_function(arrays), points, seeds, call.operator.order)
    return [call.out(outs) for outs in coefficients]


def _hessian(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    asked = call.operator
    outer, inner = asked.mode.split("-over-")
    first = "grad" if inner == "reverse" else "jacobian"
    gradient = Operator(first, asked.fun, asked.argnums, mode=inner, scalar_for="hessian")
    return dense_jacobian(replace(call, operator=replace(asked, fun=gradient, mode=outer)), arrays, seeds)


_APPLY: dict[str, Callable[[Call, Arrays, Arrays], PyTree]] = {
    "value": _value,
    "grad": _grad,
    "value_and_grad": _value_and_grad,
    "jvp": _jvp,
    "vjp": _vjp,
    "jacobian": dense_jacobian,
    "hessian": _hessian,
    "taylor": _taylor,
}
