"""The array API's `fft` extension: lengths and axes settled, then the primitives of `rules/fourier.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.shapes import concat
from adbridge.backends.reference.rules import fourier
from adbridge.backends.reference.rules.elementwise import conj

Axes = Sequence[int] | None
Norm = str | None


def fft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    return _along(fourier.fft, x, None if n is None else (n,), (axis,), norm)


def ifft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    return _along(fourier.ifft, x, None if n is None else (n,), (axis,), norm)


def fftn(x: Any, /, s: Sequence[int] | None = None, axes: Axes = None, norm: Norm = "backward") -> Any:
    return _along(fourier.fft, x, s, axes, norm)


def ifftn(x: Any, /, s: Sequence[int] | None = None, axes: Axes = None, norm: Norm = "backward") -> Any:
    return _along(fourier.ifft, x, s, axes, norm)


def rfft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    return rfftn(x, None if n is None else (n,), (axis,), norm)


def irfft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    return irfftn(x, None if n is None else (n,), (axis,), norm)


def rfftn(x: Any, /, s: Sequence[int] | None = None, axes: Axes = None, norm: Norm = "backward") -> Any:
    """Real along the last of the axes, complex along the others."""
    places, sizes = _settled(x, s, axes)
    half = fourier.rfft(_resized(x, sizes, places), axis=places[-1], norm=_norm(norm))
    return fourier.fft(half, axes=places[:-1], norm=_norm(norm)) if places[1:] else half


def irfftn(x: Any, /, s: Sequence[int] | None = None, axes: Axes = None, norm: Norm = "backward") -> Any:
    """Complex along all axes but the last, whose default length is even."""
    places, sizes = _settled(x, s, axes)
    n = 2 * (x.shape[places[-1]] - 1) if s is None or s[-1] == -1 else sizes[-1]
    x = _resized(x, (*sizes[:-1], n // 2 + 1), places)
    x = fourier.ifft(x, axes=places[:-1], norm=_norm(norm)) if places[1:] else x
    return fourier.irfft(x, n=n, axis=places[-1], norm=_norm(norm))


def hfft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    """A signal whose spectrum is real, from its first half: the conjugate's inverse transform, unscaled."""
    return irfft(conj(x), n, axis, fourier.SWAPPED[_norm(norm)])


def ihfft(x: Any, /, n: int | None = None, axis: int = -1, norm: Norm = "backward") -> Any:
    return conj(rfft(x, n, axis, fourier.SWAPPED[_norm(norm)]))


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    return np.fft.fftfreq(n, d, device=device).astype(dtype or np.float64)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    return np.fft.rfftfreq(n, d, device=device).astype(dtype or np.float64)


def fftshift(x: Any, /, axes: int | Axes = None) -> Any:
    return _rolled(x, axes, lambda size: (size + 1) // 2)


def ifftshift(x: Any, /, axes: int | Axes = None) -> Any:
    return _rolled(x, axes, lambda size: size // 2)


def _rolled(x: Any, axes: int | Axes, first: Callable[[int], int]) -> Any:
    """Along each axis, the part from `first` on, then the part before it."""
    for axis in np.lib.array_utils.normalize_axis_tuple(range(len(x.shape)) if axes is None else axes, len(x.shape)):
        before = (slice(None),) * axis
        cut = first(x.shape[axis])
        x = concat([x[(*before, slice(cut, None))], x[(*before, slice(None, cut))]], axis=axis)
    return x


def _along(transform: Any, x: Any, s: Sequence[int] | None, axes: Axes, norm: Norm) -> Any:
    places, sizes = _settled(x, s, axes)
    return transform(_resized(x, sizes, places), axes=places, norm=_norm(norm))


def _norm(norm: Norm) -> str:
    if norm not in (None, *fourier.SWAPPED):
        raise ValueError(f"norm={norm!r} is not a norm of Fourier transforms; choose {', '.join(fourier.SWAPPED)}")
    return norm or "backward"


def _settled(x: Any, s: Sequence[int] | None, axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Axes, non-negative, and lengths; without axes the last ones, and -1 for the length as it is."""
    rank = len(x.shape)
    if axes is None:
        axes = range(rank) if s is None else range(rank - len(s), rank)
    places = tuple(np.lib.array_utils.normalize_axis_index(axis, rank) for axis in axes)
    sizes = (-1,) * len(places) if s is None else tuple(s)
    if len(sizes) != len(places):
        raise ValueError(f"{len(sizes)} lengths s={sizes} for {len(places)} axes {places}; give one per axis")
    return places, tuple(x.shape[i] if n == -1 else n for i, n in zip(places, sizes, strict=True))


def _resized(x: Any, sizes: Sequence[int], places: Sequence[int]) -> Any:
    """Cropped, or padded with zeros at the end, to these sizes."""
    for n, axis in zip(sizes, places, strict=True):
        if n < x.shape[axis]:
            x = x[(*(slice(None),) * axis, slice(0, n))]
        elif n > x.shape[axis]:
            zeros = np.zeros((*x.shape[:axis], n - x.shape[axis], *x.shape[axis + 1 :]), x.dtype)
            x = concat([x, zeros], axis=axis)
    return x


NUMPY = {
    f"fft.{function.__name__}": function
    for function in (fft, ifft, fftn, ifftn, rfft, irfft, rfftn, irfftn, hfft, ihfft, fftshift, ifftshift)
}
NUMPY |= {
    "fft.fft2": lambda a, s=None, axes=(-2, -1), norm=None: fftn(a, s, axes, norm),
    "fft.ifft2": lambda a, s=None, axes=(-2, -1), norm=None: ifftn(a, s, axes, norm),
    "fft.rfft2": lambda a, s=None, axes=(-2, -1), norm=None: rfftn(a, s, axes, norm),
    "fft.irfft2": lambda a, s=None, axes=(-2, -1), norm=None: irfftn(a, s, axes, norm),
}
