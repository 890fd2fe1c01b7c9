"""Special functions under the names of `scipy.special`."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.axes import Axis, axes_of
from adbridge.backends.reference.namespace.creation import asarray
from adbridge.backends.reference.namespace.dtypes import as_float
from adbridge.backends.reference.namespace.reductions import sum
from adbridge.backends.reference.namespace.shapes import broadcast_arrays, squeeze
from adbridge.backends.reference.primitives import Primitive, Traced
from adbridge.backends.reference.rules import special
from adbridge.backends.reference.rules.elementwise import exp, isfinite, log, where
from adbridge.backends.reference.rules.special import gammaln
from adbridge.errors import NotDifferentiable


def logsumexp(a: Any, axis: Axis = None, b: Any = None, keepdims: bool = False) -> Any:
    """log(sum(b exp(a))), which does not overflow; the weights b may be negative, their sum not."""
    a = as_float(asarray(a))
    if b is None:
        return special.logsumexp(a, axis=axes_of(a, axis), keepdims=keepdims)
    b = asarray(b)
    a, b = broadcast_arrays(a, b)
    top = special.logsumexp(where(b == 0, -np.inf, a), axis=axes_of(a, axis), keepdims=True)
    top = where(isfinite(top), top, top.dtype.type(0))
    y = log(sum(b * exp(where(b == 0, 0.0, a - top)), axis=axis, keepdims=True)) + top
    return y if keepdims else squeeze(y, axes_of(y, axis))


def softmax(x: Any, axis: Axis = None) -> Any:
    x = as_float(asarray(x))
    return special.softmax(x, axis=axes_of(x, axis))


def log_softmax(x: Any, axis: Axis = None) -> Any:
    x = as_float(asarray(x))
    return special.log_softmax(x, axis=axes_of(x, axis))


def polygamma(n: int, x: Any) -> Any:
    return special.polygamma(as_float(asarray(x)), n=_order("polygamma", n))


def digamma(x: Any) -> Any:
    return polygamma(0, x)


def loggamma(x: Any) -> Any:
    """Of positive reals; `gammaln` goes by |gamma(x)| elsewhere."""
    return gammaln(x)


def beta(a: Any, b: Any) -> Any:
    """Of positive a and b."""
    return exp(special.betaln(a, b))


def _whole_order(name: str, family: Primitive) -> Any:
    def function(v: Any, z: Any) -> Any:
        return family(as_float(asarray(z)), order=_order(name, v))

    return function


def _order(name: str, n: Any) -> int:
    if isinstance(n, Traced) or np.ndim(n) or int(n) != n:
        raise NotDifferentiable(
            f"the reference engine has {name} of whole order only, got {n!r}; choose another backend, or give its "
            "derivative by a rule of your own"
        )
    return int(n)


jv = _whole_order("jv", special.bessel_j)
iv = _whole_order("iv", special.bessel_i)
ive = _whole_order("ive", special.bessel_ie)


def j0(x: Any) -> Any:
    return jv(0, x)


def j1(x: Any) -> Any:
    return jv(1, x)


def i0(x: Any) -> Any:
    return iv(0, x)


def i1(x: Any) -> Any:
    return iv(1, x)


def i0e(x: Any) -> Any:
    return ive(0, x)


def i1e(x: Any) -> Any:
    return ive(1, x)
