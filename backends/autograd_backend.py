"""HIPS autograd, with an array API namespace over `autograd.numpy`.

autograd keeps one trace stack for the whole process and leaves it raised when a function fails: here
every run holds a lock and restores the stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any

import autograd.numpy as anp
import numpy as np
import numpy.typing as npt
from autograd.core import JVPNode, VJPNode, add_outgrads, vspace
from autograd.extend import defjvp, defvjp, notrace_primitive, primitive
from autograd.numpy.numpy_jvps import broadcast
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import Box, getval, isbox, new_box, toposort, trace_stack

from adbridge.protocol import PROCESS_WIDE, Array, Arrays, Backend, Capabilities, FlatFunction, LinearMap, read_only
from adbridge.rule_calls import RuleCall


class AutogradBackend(Backend):
    """Adapter of HIPS autograd."""

    name = "autograd"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(dtypes=("float32", "float64", "complex64", "complex128"))

    @property
    def engine_version(self) -> str:
        return version("autograd")

    @property
    def namespace(self) -> Any:
        return ArrayNamespace

    def owns(self, array: object) -> bool:
        return isinstance(array, Box)

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        return read_only(array)

    def to_numpy(self, array: Array) -> Any:
        return array if isbox(array) else np.array(array)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        outs, nodes, aux = _run(fun, primals, [JVPNode.new_root(tangent) for tangent in tangents])
        found = [vspace(out).zeros() if node is None else node.g for out, node in zip(outs, nodes, strict=True)]
        return outs, tuple(map(like, found, outs)), aux

    def vjp(self, fun: FlatFunction, primals: Arrays) -> tuple[Arrays, LinearMap, Arrays]:
        roots = [VJPNode.new_root() for _ in primals]
        outs, ends, aux = _run(fun, primals, roots)

        def pullback(cotangents: Arrays) -> Arrays:
            found = _backward(ends, cotangents, roots)
            return tuple(like(vspace(x).zeros() if g is None else g, x) for g, x in zip(found, primals, strict=True))

        return outs, pullback, aux

    def custom_rule(self, call: RuleCall, arrays: Arrays) -> Arrays:
        from adbridge.backends.autograd_rules import ruled

        return ruled(call, arrays)

    def stop_gradient(self, array: Array) -> Array:
        """Not to be written to: the box still holds it."""
        return read_only(np.asarray(getval(array)))


def _run(fun: FlatFunction, primals: Arrays, roots: Sequence[Any]) -> tuple[Arrays, list[Any], Arrays]:
    """Outputs, their graph nodes (None: independent of the primals) and aux, of `fun` on boxed primals."""
    with PROCESS_WIDE:
        top = trace_stack.top
        try:
            with trace_stack.new_trace() as trace:
                outs, aux = fun(*(new_box(x, trace, root) for x, root in zip(primals, roots, strict=True)))
        finally:
            trace_stack.top = top

    def ours(x: Any) -> bool:
        return bool(isbox(x) and x._trace == trace)

    return (
        tuple(out._value if ours(out) else out for out in outs),
        [out._node if ours(out) else None for out in outs],
        tuple(a._value if ours(a) else a for a in aux),
    )


def _backward(ends: Sequence[Any], cotangents: Arrays, roots: Sequence[Any]) -> list[Any]:
    """autograd's `backward_pass`, from several outputs to several inputs."""
    sink = VJPNode.new_root()
    sink.parents = [end for end in ends if end is not None]
    grads: dict[Any, Any] = {}
    for end, cotangent in zip(ends, cotangents, strict=True):
        if end is not None:
            grads[end] = add_outgrads(grads.get(end), cotangent)
    for node in islice(toposort(sink), 1, None):
        outgrad = grads[node] if node in roots else grads.pop(node)
        for parent, ingrad in zip(node.parents, node.vjp(outgrad[0]), strict=False):
            grads[parent] = add_outgrads(grads.get(parent), ingrad)
    return [grads[root][0] if root in grads else None for root in roots]


def like(array: Array, other: Array) -> Array:
    """autograd widens float32 in places, and gives Python floats for scalars."""
    if not isbox(array) and not isinstance(array, np.ndarray):
        array = np.asarray(array)
    return array if array.dtype == other.dtype else _cast(array, other.dtype)


def _part(x: Array, ans: Array) -> Array:
    """d hypot / dx = x / hypot; 0 at the origin, the middle of the cone's subgradients."""
    return x / anp.where(ans == 0, 1.0, ans)


@primitive  # type: ignore[untyped-decorator]  # autograd has no annotations
def _hypot(a: Array, b: Array) -> Array:
    """autograd's own has no JVP."""
    return np.hypot(a, b)


defvjp(
    _hypot,
    lambda ans, a, b: unbroadcast_f(a, lambda g: g * _part(a, ans)),
    lambda ans, a, b: unbroadcast_f(b, lambda g: g * _part(b, ans)),
)
defjvp(
    _hypot,
    lambda g, ans, a, b: broadcast(g * _part(a, ans), ans),
    lambda g, ans, a, b: broadcast(g * _part(b, ans), ans),
)


@primitive  # type: ignore[untyped-decorator]  # autograd has no annotations
def _copysign(a: Array, b: Array) -> Array:
    """autograd's own has no derivative."""
    return np.copysign(a, b)


defvjp(_copysign, lambda ans, a, b: unbroadcast_f(a, lambda g: g * (anp.sign(a) * anp.sign(ans))), None)
defjvp(_copysign, lambda g, ans, a, b: broadcast(g * (anp.sign(a) * anp.sign(ans)), ans), None)

# autograd's own astype has no JVP, and its VJP passes through integers.


@notrace_primitive  # type: ignore[untyped-decorator]  # autograd has no annotations
def _whole(x: Array, dtype: Any) -> Array:
    """A cast to integers or booleans is piecewise constant."""
    return x.astype(dtype)


@primitive  # type: ignore[untyped-decorator]  # autograd has no annotations
def _cast(x: Array, dtype: Any) -> Array:
    return x.astype(dtype)


def _cast_back(g: Array, x: Array) -> Array:
    """From real to complex a cotangent keeps its real part."""
    return _cast(anp.real(g) if anp.iscomplexobj(g) and not anp.iscomplexobj(x) else g, x.dtype)


defvjp(_cast, lambda ans, x, dtype: lambda g: _cast_back(g, x), argnums=(0,))
defjvp(_cast, lambda g, ans, x, dtype: _cast(g, dtype), argnums=(0,))

_OLD_NAMES = {
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "bitwise_invert": "invert",
    "concat": "concatenate",
    "permute_dims": "transpose",
    "pow": "power",
}


class _ArrayNamespace:
    """The array API standard's names over `autograd.numpy`; the rest falls through to it."""

    __name__ = "autograd.numpy"
    __array_api_version__ = "2024.12"

    def __getattr__(self, name: str) -> Any:
        return getattr(anp, _OLD_NAMES.get(name, name))

    def asarray(self, x: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
        if not isbox(x):
            return np.asarray(x, dtype=dtype, copy=copy)
        return x if dtype is None or x.dtype == np.dtype(dtype) else self.astype(x, dtype)

    def astype(self, x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
        return (_cast if np.dtype(dtype).kind in "fc" else _whole)(x, np.dtype(dtype))

    def broadcast_to(self, x: Any, /, shape: Any) -> Any:
        # autograd's VJP does not take new leading axes.
        return anp.broadcast_to(anp.reshape(x, (1,) * (len(shape) - x.ndim) + x.shape), tuple(shape))

    def copysign(self, x1: Any, x2: Any, /) -> Any:
        return _copysign(x1, x2)

    def flip(self, x: Any, /, *, axis: int | tuple[int, ...] | None = None) -> Any:
        axes = range(x.ndim) if axis is None else [a % x.ndim for a in np.atleast_1d(axis)]
        return x[tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))]

    def hypot(self, x1: Any, x2: Any, /) -> Any:
        return _hypot(x1, x2)

    def matrix_transpose(self, x: Any, /) -> Any:
        return anp.swapaxes(x, -1, -2)

    def vecdot(self, x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
        return anp.sum(anp.conj(x1) * x2, axis=axis)

    def take(self, x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
        axis = 0 if axis is None else axis % x.ndim
        return x[(slice(None),) * axis + (indices,)]

    def cumulative_sum(
        self, x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
    ) -> Any:
        axis = 0 if axis is None else axis % x.ndim
        total = anp.cumsum(x if dtype is None else self.astype(x, dtype), axis=axis)
        if not include_initial:
            return total
        first = anp.zeros(tuple(1 if i == axis else s for i, s in enumerate(x.shape)), dtype=total.dtype)
        return anp.concatenate([first, total], axis=axis)

    def square(self, x: Any, /) -> Any:
        return x * x


ArrayNamespace = _ArrayNamespace()
