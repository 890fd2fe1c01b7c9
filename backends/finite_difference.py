"""The finite-difference backend: numeric differentiation, with no rule and no engine.

The function runs on NumPy arrays, at points beside the one that is asked for. Forward mode is native: a directional
derivative costs a few runs whatever the number of inputs; reverse mode costs that for every input.

- forward: (f(x + h v) - f(x)) / h, error O(h) + eps/h, so h ~ eps^(1/2);
- central: (f(x + h v) - f(x - h v)) / 2h, error O(h^2) + eps/h, so h ~ eps^(1/3): J. E. Dennis, R. B. Schnabel,
  Numerical Methods for Unconstrained Optimization and Nonlinear Equations, SIAM (1996), 5.4, with their scale of x,
  max(|x|, 1);
- richardson, the default: central differences extrapolated to h = 0, C. J. F. Ridders, "Accurate computation of F'(x)
  and F'(x) F''(x)", Advances in Engineering Software 4(2), 1982 (`dfridr` of Numerical Recipes, 5.7). What they leave
  to the caller, the length over which f changes, is found here, output by output (`differences.py`);
- complex-step: Im f(x + i h v) / h, exact to rounding for analytic f (`complex_step.py`).

A step at which the function is not finite (or raises a ValueError or ArithmeticError) has left its domain. It is
never used: the step shrinks or is taken on the other side, and what is left undetermined is an error or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from adbridge.backends import complex_step
from adbridge.backends.differences import Line, Vector, extrapolated, fixed, with_error
from adbridge.errors import CapabilityError, SignatureMismatch
from adbridge.protocol import Array, Arrays, Backend, Capabilities, FlatFunction, read_only

SCHEMES = ("richardson", "central", "forward", "complex-step")

_depth: ContextVar[int] = ContextVar("finite_difference_depth", default=0)
"""How many derivatives of this backend are being taken of each other."""


class Estimate(NamedTuple):
    """A directional derivative, a bound on its error, and the step, all in the output's shape."""

    derivative: Any
    error: Any
    step: Any


class FiniteDifferenceBackend(Backend):
    """Derivatives by differences of values.

    `scheme` is one of `SCHEMES`; `step` its step h along the tangent (of "richardson" the largest), by default
    chosen from the dtype, x and f.
    """

    name = "finite-difference"

    def __init__(self, device: str = "cpu", scheme: str = "richardson", step: float | None = None) -> None:
        super().__init__(device)
        self.scheme = _checked(scheme, step)
        self.step = step

    def __repr__(self) -> str:
        return f"<backend {self.name!r} ({self.scheme}) on {self.device}>"

    @property
    def capabilities(self) -> Capabilities:
        """Second order by differences of differences is worth having of extrapolated ones alone."""
        dtypes = ("float32", "float64") if self.scheme == "complex-step" else _DTYPES
        order = 2 if self.scheme == "richardson" else 1
        return Capabilities(("forward",), dtypes=dtypes, max_order=order, accuracy=_ACCURACY[self.scheme])

    @property
    def engine_version(self) -> str:
        return np.__version__

    @property
    def namespace(self) -> Any:
        return np

    def owns(self, array: object) -> bool:
        return False

    def from_numpy(self, array: npt.NDArray[Any]) -> Array:
        return read_only(array)

    def to_numpy(self, array: Array) -> Any:
        return np.array(array)

    def jvp(self, fun: FlatFunction, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays, Arrays]:
        with _deeper(self):
            if self.scheme == "complex-step":
                return complex_step.jvp(fun, primals, tangents, self.step or complex_step.step_of(primals))
            slopes = self._slopes(Line(fun, primals, tangents))
            outs, aux = fun(*primals)  # last: `fun` remembers the aux of its last run
            return outs, _shaped(slopes, outs), aux

    def _slopes(self, line: Line) -> Vector:
        if line.is_still:
            return np.zeros_like(line.center)
        if self.scheme != "richardson":
            return fixed(line, self.scheme == "forward", self.step)[0].slope
        return extrapolated(line, self.step).slope


_DTYPES = ("float32", "float64", "complex64", "complex128")

# Less than each scheme's best step leaves (eps^(1/2), eps^(2/3), about eps^0.9 of extrapolated ones, and eps^0.8 in
# second order), for f may be rounded worse than in its last place, and change over less than |x|.
_ACCURACY = {"richardson": 0.45, "central": 0.5, "forward": 0.375, "complex-step": 1.0}


def _checked(scheme: str, step: float | None) -> str:
    """Raises CapabilityError: no such scheme. SignatureMismatch: a step that is none."""
    if scheme not in SCHEMES:
        raise CapabilityError(
            f"backend 'finite-difference' has no scheme {scheme!r}; choose one of {', '.join(map(repr, SCHEMES))}"
        )
    if step is not None and not 0 < step < math.inf:
        raise SignatureMismatch(f"backend 'finite-difference' needs a positive step, got {step!r}")
    return scheme


@contextmanager
def _deeper(backend: FiniteDifferenceBackend) -> Iterator[None]:
    """Raises CapabilityError: derivatives are nested deeper than the scheme is good for."""
    depth, most = _depth.get() + 1, backend.capabilities.max_order
    if most is not None and depth > most:
        raise CapabilityError(
            f"backend 'finite-difference' with scheme={backend.scheme!r} nests derivatives to order {most}, and order "
            f"{depth} was asked for: differences of differences keep too few digits; "
            + ("use scheme='richardson' or another backend" if most == 1 else "use another backend")
        )
    token = _depth.set(depth)
    try:
        yield
    finally:
        _depth.reset(token)


def derivative(
    fun: Callable[[Any], Any], x: Any, v: Any, scheme: str = "richardson", step: float | None = None
) -> Estimate:
    """The derivative of `fun` at `x` along `v`, with an estimate of its error.

    Args:
        fun: takes an array like `x`, returns one array; plain NumPy.
        v: a tangent, of `x`'s shape and dtype.
        scheme, step: as for `FiniteDifferenceBackend`.

    Returns:
        Estimate. `error` is the sum of what extrapolation (of the fixed schemes: another run at h/2) shows of
        truncation, and of rounding, if `fun` is right to a unit in the last place of its value. It cannot see
        features of `fun` that no step meets.

    Raises:
        As `FiniteDifferenceBackend`; NotDifferentiable: no step of a fixed scheme stays inside the domain.

    >>> slope, error, step = derivative(np.exp, 1.0, 1.0)
    >>> print(bool(abs(slope - np.e) <= error < 1e-12))
    True
    """
    _checked(scheme, step)
    x = np.asarray(x)
    x = x if x.dtype.kind in "fc" else x.astype(float)
    v = np.asarray(v, x.dtype)

    def flat(point: Any) -> tuple[Arrays, Arrays]:
        return (np.asarray(fun(point)),), ()

    if scheme == "complex-step":
        return _by_complex_step(flat, x, v, step or complex_step.step_of((x,)))
    line = Line(flat, (read_only(x),), (v,))
    like = flat(read_only(x))[0][0]
    if line.is_still:
        return Estimate(np.zeros_like(like), np.zeros(like.shape), np.zeros(like.shape))
    found = extrapolated(line, step) if scheme == "richardson" else with_error(line, scheme == "forward", step)
    error, steps = (np.reshape(part, like.shape)[()] for part in (found.error, found.step))
    return Estimate(_shaped(found.slope, (like,))[0][()], error, steps)


def _by_complex_step(fun: FlatFunction, x: Any, v: Any, step: float) -> Estimate:
    (out,), (slope,), _ = complex_step.jvp(fun, (x,), (v,), step)
    rounding = 8 * np.finfo(out.dtype).eps * np.abs(slope)
    return Estimate(slope[()], rounding[()], np.full(out.shape, step)[()])


def _shaped(flat: Vector, outs: Arrays) -> Arrays:
    """One vector of all outputs' elements, split and cast to their shapes and dtypes."""
    stops = np.cumsum([out.size for out in outs])[:-1]
    return tuple(
        np.asarray(part if out.dtype.kind == "c" else part.real, out.dtype).reshape(out.shape)
        for part, out in zip(np.split(flat, stops) if outs else (), outs, strict=True)
    )
