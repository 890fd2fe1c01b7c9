"""What the standard and NumPy have beyond arithmetic: cube roots, remainders, shifts of bits, convolution."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import Primitive, Spec, deflinear, defpartials, defzero, primitive
from adbridge.backends.reference.rules.elementwise import trunc
from adbridge.backends.reference.rules.shaping import getitem

cbrt = defpartials(primitive("cbrt", np.cbrt), lambda y, x: 1 / (3 * (y * y)))
# a - trunc(a / b) b, exactly: with the sign of a, where the remainder has that of b.
fmod = defpartials(primitive("fmod", np.fmod), lambda y, a, b: 1, lambda y, a, b: -trunc(a / b))
# One unit in the last place beside a, which is nothing to a derivative.
nextafter = defpartials(primitive("nextafter", np.nextafter), lambda y, a, b: 1, None)

bitwise_left_shift = defzero(primitive("bitwise_left_shift", np.left_shift))
bitwise_right_shift = defzero(primitive("bitwise_right_shift", np.right_shift))


def _overlap(ct: Any, other: Any, size: int) -> Any:
    """y_k = sum_i a_i v_(k-i) gives a_i the cotangent sum_k c_k v_(k-i): the middle of c * reversed v."""
    start = other.shape[0] - 1
    return getitem(convolve(ct, getitem(other, key=slice(None, None, -1))), key=slice(start, start + size))


convolve: Primitive = deflinear(
    primitive("convolve", np.convolve),  # of two vectors, every overlap
    lambda a, v: Spec((a.shape[0] + v.shape[0] - 1,), np.result_type(a.dtype, v.dtype)),
    lambda ct, a, v: _overlap(ct, v, a.shape[0]),
    lambda ct, a, v: _overlap(ct, a, v.shape[0]),
)
