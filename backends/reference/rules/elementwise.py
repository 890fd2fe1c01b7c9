"""Elementwise operations.

A row gives the partial derivatives: y is the result, x (or a, b) the arguments. At kinks one convention holds:
abs'(0) = 0, ties of maximum and minimum share evenly, and 0 where a factor 1/0 meets a zero numerator
by symmetry (hypot at the origin).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from adbridge.backends.reference.primitives import (
    Primitive,
    Spec,
    constant,
    defjvp,
    deflinear,
    deftranspose,
    defzero,
    elementwise,
    elementwise_spec,
    primitive,
)

LN2 = constant("ln 2", math.log(2))
LN10 = constant("ln 10", math.log(10))


def zero(name: str, impl: Callable[..., Any]) -> Primitive:
    return defzero(primitive(name, impl))


def _unless_whole(jvp: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tangents, y, args, params: jvp(tangents, y, args, params) if y.dtype.kind in "fc" else None


def _if_complex(jvp: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tangents, y, args, params: jvp(tangents, y, args, params) if y.dtype.kind == "c" else None


def _astype_spec(x: Any, dtype: Any) -> Spec:
    return Spec(x.shape, np.dtype(dtype))


def _real_spec(x: Any) -> Spec:
    return Spec(x.shape, x.dtype.type(0).real.dtype)


def _where_spec(c: Any, a: Any, b: Any) -> Spec:
    like = elementwise_spec(a, b)
    return Spec(np.broadcast_shapes(np.shape(c), like.shape), like.dtype)


# Linear ones.
astype = deflinear(
    primitive("astype", lambda x, dtype: np.asarray(x).astype(dtype)), _astype_spec, lambda ct, x, dtype: ct
)
astype.jvp = _unless_whole(astype.jvp)  # a cast to integers is piecewise constant
negative = deftranspose(elementwise("negative", np.negative, lambda y, x: -1), elementwise_spec, lambda ct, x: -ct)
add = elementwise("add", np.add, lambda y, a, b: 1, lambda y, a, b: 1)
deftranspose(add, elementwise_spec, lambda ct, a, b: ct, lambda ct, a, b: ct)
subtract = elementwise("subtract", np.subtract, lambda y, a, b: 1, lambda y, a, b: -1)
deftranspose(subtract, elementwise_spec, lambda ct, a, b: ct, lambda ct, a, b: -ct)
multiply = elementwise("multiply", np.multiply, lambda y, a, b: b, lambda y, a, b: a)
deftranspose(multiply, elementwise_spec, lambda ct, a, b: ct * b, lambda ct, a, b: a * ct)
divide = elementwise("divide", np.divide, lambda y, a, b: _one_over(b), lambda y, a, b: -y / b)
deftranspose(divide, elementwise_spec, lambda ct, a, b: ct / b, None)
where: Primitive = defjvp(
    primitive("where", np.where),
    None,
    lambda t, y, c, a, b: where(c, t, 0.0),
    lambda t, y, c, a, b: where(c, 0.0, t),
)
deftranspose(where, _where_spec, None, lambda ct, c, a, b: where(c, ct, 0.0), lambda ct, c, a, b: where(c, 0.0, ct))

# Complex numbers: a cotangent follows d/dx - i d/dy, as in JAX, so that no product is conjugated.
real = deflinear(primitive("real", np.real), _real_spec, lambda ct, x: ct)
imag = deflinear(primitive("imag", np.imag), _real_spec, lambda ct, x: ct * -1j)
conj: Primitive = deflinear(primitive("conj", np.conj), elementwise_spec, lambda ct, x: conj(ct))

# Powers, exponentials and logarithms.
square = elementwise("square", np.square, lambda y, x: 2 * x)
sqrt = elementwise("sqrt", np.sqrt, lambda y, x: 1 / (2 * y))
reciprocal = elementwise("reciprocal", np.reciprocal, lambda y, x: -(y * y))
exp = elementwise("exp", np.exp, lambda y, x: y)
exp2 = elementwise("exp2", np.exp2, lambda y, x: y * LN2)
expm1 = elementwise("expm1", np.expm1, lambda y, x: exp(x))  # y + 1 has no digits left where y is -1
log = elementwise("log", np.log, lambda y, x: 1 / x)
log1p = elementwise("log1p", np.log1p, lambda y, x: 1 / (1 + x))
log2 = elementwise("log2", np.log2, lambda y, x: 1 / (x * LN2))
log10 = elementwise("log10", np.log10, lambda y, x: 1 / (x * LN10))
pow = elementwise(
    "pow",
    np.power,
    lambda y, a, b: _pow_slope(a, b),
    lambda y, a, b: y * log(where(a == 0, 1.0, a)),  # 0^b is flat in b > 0
)

# Trigonometric and hyperbolic functions.
sin = elementwise("sin", np.sin, lambda y, x: cos(x))
cos: Primitive = elementwise("cos", np.cos, lambda y, x: -sin(x))
tan = elementwise("tan", np.tan, lambda y, x: 1 + y * y)
asin = elementwise("asin", np.arcsin, lambda y, x: 1 / sqrt((1 - x) * (1 + x)))
acos = elementwise("acos", np.arccos, lambda y, x: 1 / -sqrt((1 - x) * (1 + x)))
atan = elementwise("atan", np.arctan, lambda y, x: 1 / (1 + x * x))
sinh = elementwise("sinh", np.sinh, lambda y, x: cosh(x))
cosh: Primitive = elementwise("cosh", np.cosh, lambda y, x: sinh(x))
tanh = elementwise("tanh", np.tanh, lambda y, x: 1 - y * y)
asinh = elementwise("asinh", np.arcsinh, lambda y, x: 1 / (sqrt(1 + x * x) if _is_complex(x) else hypot(x, 1.0)))
acosh = elementwise("acosh", np.arccosh, lambda y, x: 1 / (sqrt(x - 1) * sqrt(x + 1)))
atanh = elementwise("atanh", np.arctanh, lambda y, x: 1 / ((1 - x) * (1 + x)))
atan2 = elementwise(
    "atan2",
    np.arctan2,
    lambda y, a, b: b / _nonzero(h := hypot(a, b)) / _nonzero(h),
    lambda y, a, b: -a / _nonzero(h := hypot(a, b)) / _nonzero(h),
)
hypot: Primitive = elementwise(
    "hypot",
    np.hypot,
    lambda y, a, b: a / _nonzero(y),
    lambda y, a, b: b / _nonzero(y),
)
logaddexp = elementwise("logaddexp", np.logaddexp, lambda y, a, b: exp(a - y), lambda y, a, b: exp(b - y))

# Kinks.
sign = defjvp(primitive("sign", np.sign), lambda t, y, z: _turn(t, y, z))
sign.jvp = _if_complex(sign.jvp)
abs = defjvp(
    primitive("abs", np.abs), lambda t, y, x: real(conj(x) * t) / _nonzero(y) if _is_complex(x) else t * sign(x)
)
maximum = elementwise("maximum", np.maximum, lambda y, a, b: _share(a, b), lambda y, a, b: _share(b, a))
minimum = elementwise("minimum", np.minimum, lambda y, a, b: _share(b, a), lambda y, a, b: _share(a, b))
remainder = elementwise("remainder", np.remainder, lambda y, a, b: 1, lambda y, a, b: -floor_divide(a, b))
copysign = elementwise("copysign", np.copysign, lambda y, a, b: sign(a) * sign(y), None)

# Piecewise constant, boolean and integer results.
floor = zero("floor", np.floor)
ceil = zero("ceil", np.ceil)
round = zero("round", lambda x: np.round(x))  # to whole numbers alone: decimals are scaled by the dialect
trunc = zero("trunc", np.trunc)
floor_divide: Primitive = zero("floor_divide", np.floor_divide)
equal = zero("equal", np.equal)
not_equal = zero("not_equal", np.not_equal)
less = zero("less", np.less)
less_equal = zero("less_equal", np.less_equal)
greater = zero("greater", np.greater)
greater_equal = zero("greater_equal", np.greater_equal)
logical_and = zero("logical_and", np.logical_and)
logical_or = zero("logical_or", np.logical_or)
logical_xor = zero("logical_xor", np.logical_xor)
logical_not = zero("logical_not", np.logical_not)
bitwise_and = zero("bitwise_and", np.bitwise_and)
bitwise_or = zero("bitwise_or", np.bitwise_or)
bitwise_xor = zero("bitwise_xor", np.bitwise_xor)
bitwise_invert = zero("bitwise_invert", np.invert)
isnan = zero("isnan", np.isnan)
isinf = zero("isinf", np.isinf)
isfinite = zero("isfinite", np.isfinite)
signbit = zero("signbit", np.signbit)


def _one_over(b: Any) -> Any:
    """Of a Python number, by NumPy's rules: no error at 0."""
    return math.copysign(math.inf, b) if type(b) in (int, float) and b == 0 else 1 / b


def _turn(t: Any, y: Any, z: Any) -> Any:
    """y = z / |z| turns only: what t has along y is taken out, the rest is over |z|; 0 at the origin."""
    return where(z == 0, 0.0, t - y * real(conj(y) * t)) / _nonzero(abs(z))


def _pow_slope(a: Any, b: Any) -> Any:
    """b a^(b-1), and 0 where b = 0, at a = 0 too."""
    if isinstance(b, (int, float)):
        return 0.0 if b == 0 else 1.0 if b == 1 else 2 * a if b == 2 else b * pow(a, b - 1)
    return b * pow(a, where((a == 0) & (b == 0), 1.0, b) - 1)  # b may still move where it is 0 and a is not


def _share(a: Any, b: Any) -> Any:
    """1 where a > b, 1/2 where they tie, 0 elsewhere."""
    return where(a > b, 1.0, where(a == b, 0.5, 0.0))


def _nonzero(y: Any) -> Any:
    return where(y == 0, 1.0, y)


def _is_complex(x: Any) -> bool:
    return x.dtype.kind == "c"  # type: ignore[no-any-return]
