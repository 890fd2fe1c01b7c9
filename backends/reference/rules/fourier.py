"""Discrete Fourier transforms: four linear primitives, on arrays whose axes already have their lengths.

A cotangent is paired without conjugation (Re sum(c y)), so that a transform of complex numbers, whose matrix
is symmetric, is its own transpose. `norm` is NumPy's: where the factor 1/n goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, Spec, deflinear, primitive
from adbridge.backends.reference.rules.elementwise import conj

# The norm under which the inverse transform has the factor of the forward one, and the other way round.
SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _complex_spec(x: Any, axes: tuple[int, ...], norm: str) -> Spec:
    return Spec(x.shape, np.result_type(x.dtype, np.complex64))


fft: Primitive = deflinear(
    primitive("fft", lambda x, axes, norm: np.fft.fftn(x, axes=axes, norm=norm)),
    _complex_spec,
    lambda ct, x, axes, norm: fft(ct, axes=axes, norm=norm),
)
ifft: Primitive = deflinear(
    primitive("ifft", lambda x, axes, norm: np.fft.ifftn(x, axes=axes, norm=norm)),
    _complex_spec,
    lambda ct, x, axes, norm: ifft(ct, axes=axes, norm=norm),
)


# Of real numbers only the first half of the spectrum is kept, along one axis: X_k, 0 <= k <= n/2, stands for
# X_{n-k} = conj(X_k) too. With e = exp(2 pi i / n) and m_k = 1 for the k that stand for themselves, 2 for the
# others, and but for the factors of `norm`:
#   rfft   X_k = sum_j e^{-jk} x_j             irfft   x_j = Re sum_k m_k e^{jk} X_k
# and Re sum_k C_k X_k = sum_j x_j Re sum_k C_k e^{-jk} gives x the cotangent irfft(conj(C) / m);
# sum_j c_j x_j = Re sum_k X_k m_k conj(rfft(c))_k gives X the cotangent m conj(rfft(c)).


def _multiplicity(n: int, like: Any, axis: int) -> Any:
    """m, broadcast along `axis`."""
    m = np.full(n // 2 + 1, 2, dtype=like.dtype.type(0).real.dtype)
    m[0] = 1
    if n % 2 == 0:
        m[-1] = 1
    return m.reshape((-1,) + (1,) * (len(like.shape) - axis - 1))


def _half_spec(x: Any, axis: int, norm: str) -> Spec:
    shape = (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :])
    return Spec(shape, np.result_type(x.dtype, np.complex64))


def _whole_spec(x: Any, n: int, axis: int, norm: str) -> Spec:
    return Spec((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype.type(0).real.dtype)


def _rfft_transpose(ct: Any, x: Any, axis: int, norm: str) -> Any:
    n = x.shape[axis]
    return irfft(conj(ct) / _multiplicity(n, ct, axis), n=n, axis=axis, norm=SWAPPED[norm])


def _irfft_transpose(ct: Any, x: Any, n: int, axis: int, norm: str) -> Any:
    return conj(rfft(ct, axis=axis, norm=SWAPPED[norm])) * _multiplicity(n, ct, axis)


rfft: Primitive = deflinear(
    primitive("rfft", lambda x, axis, norm: np.fft.rfft(x, axis=axis, norm=norm)), _half_spec, _rfft_transpose
)
irfft: Primitive = deflinear(
    primitive("irfft", lambda x, n, axis, norm: np.fft.irfft(x, n, axis=axis, norm=norm)),
    _whole_spec,
    _irfft_transpose,
)
