"""NumPy's products, differences, interpolation and rounding, by its own signatures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.dialect.shapes import ravel
from adbridge.backends.reference.namespace.axes import Axis, along, axes_of, one_axis
from adbridge.backends.reference.namespace.dtypes import as_float
from adbridge.backends.reference.rules import numeric
from adbridge.errors import NotDifferentiable

# Products.


def dot(a: Any, b: Any) -> Any:
    a, b = xp.asarray(a), xp.asarray(b)
    if not a.shape or not b.shape:
        return a * b
    return xp.matmul(a, b) if len(b.shape) == 1 else xp.tensordot(a, b, axes=((-1,), (-2,)))


def outer(a: Any, b: Any) -> Any:
    return xp.reshape(xp.asarray(a), (-1, 1)) * ravel(xp.asarray(b))


def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    a, v = xp.asarray(a), xp.asarray(v)
    every, short = numeric.convolve(a, v), min(a.shape[0], v.shape[0])
    cuts = {"full": (0, 0), "same": ((short - 1) // 2, short // 2), "valid": (short - 1, short - 1)}
    if mode not in cuts:
        raise ValueError(f"convolve takes mode='full', 'same' or 'valid', got {mode!r}")
    first, last = cuts[mode]
    return every[first : every.shape[0] - last]


def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    return convolve(a, xp.conj(xp.flip(xp.asarray(v))), mode)


# Differences and integrals.


def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """A number at an end stands for a whole slice of it."""
    axis = one_axis("diff", a, axis)
    ends = (None if end is None else _slice_of(xp.asarray(end), a, axis) for end in (prepend, append))
    first, last = ends
    return xp.diff(a, axis=axis, n=n, prepend=first, append=last)


def _slice_of(end: Any, a: Any, axis: int) -> Any:
    return end if end.shape else xp.broadcast_to(end, (*a.shape[:axis], 1, *a.shape[axis + 1 :]))


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = as_float(xp.asarray(y))
    axis = one_axis("trapezoid", y, axis)
    if x is not None:
        x = xp.asarray(x)
        dx = xp.diff(x, axis=axis if len(x.shape) > 1 else 0)
        dx = xp.reshape(dx, (-1, *(1,) * (len(y.shape) - axis - 1))) if len(x.shape) == 1 else dx
    after, before = (xp.getitem(y, along(axis, part)) for part in (slice(1, None), slice(0, -1)))
    return xp.sum(dx * (after + before) / 2, axis=axis)


def gradient(f: Any, *varargs: Any, axis: Axis = None, edge_order: int = 1) -> Any:
    """Of evenly spaced data: varargs are one distance, or one for each axis."""
    axes = axes_of(f, axis)
    steps = varargs * len(axes) if len(varargs) == 1 else varargs or (1.0,) * len(axes)
    if edge_order != 1 or any(np.ndim(step) for step in steps):
        raise NotDifferentiable(
            "the reference engine's numpy.gradient takes one distance per axis, and edge_order=1; write other "
            "differences with numpy.diff, or choose another backend"
        )
    out = tuple(_slope(as_float(f), step, i) for step, i in zip(steps, axes, strict=True))
    return out[0] if len(out) == 1 else out


def _slope(f: Any, step: Any, axis: int) -> Any:
    """Central inside, one-sided at the ends."""

    def part(*bounds: int | None) -> Any:
        return xp.getitem(f, along(axis, slice(*bounds)))

    inside = (part(2, None) - part(None, -2)) / 2
    return xp.concat([part(1, 2) - part(0, 1), inside, part(-1, None) - part(-2, -1)], axis=axis) / step


def interp(x: Any, samples: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    """Differentiable in all three; at a sample, but the last, the slope is that of the interval to its right."""
    x, at, values = (as_float(xp.asarray(part)) for part in (x, samples, fp))
    last = at.shape[0] - 1
    if last == 0:
        inside = values[0] + 0 * x
    else:
        i = xp.clip(xp.searchsorted(at, x, side="right") - 1, 0, last - 1)
        a, b, fa, fb = (xp.take(part, k, axis=0) for part in (at, values) for k in (i, i + 1))
        inside = fa + (fb - fa) / (b - a) * (x - a)
    inside = xp.where(x < at[0], values[0] if left is None else left, inside)
    return xp.where(x > at[-1], values[-1] if right is None else right, inside)


# Elementwise, with parameters.


def clip(a: Any, a_min: Any = None, a_max: Any = None, **bounds: Any) -> Any:
    low, high = bounds.pop("min", a_min), bounds.pop("max", a_max)
    if bounds:
        raise NotDifferentiable(f"the reference engine's numpy.clip takes bounds alone, got {', '.join(bounds)}")
    return xp.clip(xp.asarray(a), low, high)


def round(a: Any, decimals: int = 0) -> Any:
    """As NumPy does it, bit by bit: scaled, rounded to whole numbers, and scaled back."""
    if decimals == 0 or (decimals > 0 and a.dtype.kind not in "fc"):
        return xp.round(a)
    if a.dtype.kind == "c":
        return round(xp.real(a), decimals) + 1j * round(xp.imag(a), decimals)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return xp.round(a * scale) / scale
    return xp.astype(xp.round(a / scale) * scale, a.dtype)


def angle(z: Any, deg: bool = False) -> Any:
    z = xp.asarray(z)
    real, imag = (xp.real(z), xp.imag(z)) if z.dtype.kind == "c" else (z, xp.zeros_like(z))
    turn = xp.atan2(imag, real)
    return turn * (180 / np.pi) if deg else turn


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Any:
    like = a.dtype if dtype is None else dtype
    return xp.full(a.shape if shape is None else shape, fill_value, dtype=like)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None
) -> Any:
    out = xp.linspace(start, stop, num, endpoint=endpoint, dtype=dtype)
    return (out, (stop - start) / (num - 1 if endpoint else num)) if retstep else out


def logspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0) -> Any:
    return xp.pow(base, xp.linspace(start, stop, num, endpoint=endpoint))


def polyval(p: Any, x: Any) -> Any:
    """Horner's scheme, the highest power first."""
    y: Any = xp.zeros_like(xp.asarray(x))
    for i in range(len(p)):
        y = y * x + p[i]
    return y


def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    count = x.shape[0] if N is None else N
    powers = np.arange(count) if increasing else np.arange(count)[::-1]
    return xp.pow(x[:, None], powers)


def tensordot(a: Any, b: Any, axes: int | Sequence[Any] = 2) -> Any:
    return xp.tensordot(xp.asarray(a), xp.asarray(b), axes=axes)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        angle, clip, convolve, correlate, diff, dot, full_like, gradient, interp, linspace, logspace,
        outer, polyval, round, tensordot, trapezoid, vander,
    )
}  # fmt: skip
FUNCTIONS |= {
    "around": round,
    "interp": lambda x, xp, fp, left=None, right=None: interp(x, xp, fp, left, right),
    "astype": lambda x, dtype, copy=True: xp.astype(x, dtype),
    "iscomplexobj": lambda x: x.dtype.kind == "c",
    "isrealobj": lambda x: x.dtype.kind != "c",
    "result_type": xp.result_type,
}
