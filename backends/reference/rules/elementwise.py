"""Elementwise operations.

In a rule: t the tangent, y the result, x (or a, b) the arguments. At kinks one convention holds:
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
    Rule,
    Spec,
    defjvp,
    deflinear,
    deftranspose,
    defzero,
    elementwise_spec,
    primitive,
)


def unary(name: str, impl: Callable[..., Any], rule: Callable[..., Any]) -> Primitive:
    return defjvp(primitive(name, impl), rule)


def binary(name: str, impl: Callable[..., Any], *rules: Rule) -> Primitive:
    return defjvp(primitive(name, impl), *rules)


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
negative = deflinear(primitive("negative", np.negative), elementwise_spec, lambda ct, x: -ct)
add = binary("add", np.add, lambda t, y, a, b: t, lambda t, y, a, b: t)
deftranspose(add, elementwise_spec, lambda ct, a, b: ct, lambda ct, a, b: ct)
subtract = binary("subtract", np.subtract, lambda t, y, a, b: t, lambda t, y, a, b: -t)
deftranspose(subtract, elementwise_spec, lambda ct, a, b: ct, lambda ct, a, b: -ct)
multiply = deflinear(
    primitive("multiply", np.multiply), elementwise_spec, lambda ct, a, b: ct * b, lambda ct, a, b: a * ct
)
divide = binary("divide", np.divide, lambda t, y, a, b: t / b, lambda t, y, a, b: t * (-y / b))
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
square = unary("square", np.square, lambda t, y, x: t * (2 * x))
sqrt = unary("sqrt", np.sqrt, lambda t, y, x: t / (2 * y))
reciprocal = unary("reciprocal", np.reciprocal, lambda t, y, x: t * -(y * y))
exp = unary("exp", np.exp, lambda t, y, x: t * y)
exp2 = unary("exp2", np.exp2, lambda t, y, x: t * (y * math.log(2)))
expm1 = unary("expm1", np.expm1, lambda t, y, x: t * (y + 1))
log = unary("log", np.log, lambda t, y, x: t / x)
log1p = unary("log1p", np.log1p, lambda t, y, x: t / (1 + x))
log2 = unary("log2", np.log2, lambda t, y, x: t / (x * math.log(2)))
log10 = unary("log10", np.log10, lambda t, y, x: t / (x * math.log(10)))
pow = binary(
    "pow",
    np.power,
    lambda t, y, a, b: t * _pow_slope(a, b),
    lambda t, y, a, b: t * (y * log(where(a == 0, 1.0, a))),  # 0^b is flat in b > 0
)

# Trigonometric and hyperbolic functions.
sin = unary("sin", np.sin, lambda t, y, x: t * cos(x))
cos: Primitive = unary("cos", np.cos, lambda t, y, x: t * -sin(x))
tan = unary("tan", np.tan, lambda t, y, x: t * (1 + y * y))
asin = unary("asin", np.arcsin, lambda t, y, x: t / sqrt((1 - x) * (1 + x)))
acos = unary("acos", np.arccos, lambda t, y, x: t / -sqrt((1 - x) * (1 + x)))
atan = unary("atan", np.arctan, lambda t, y, x: t / (1 + x * x))
sinh = unary("sinh", np.sinh, lambda t, y, x: t * cosh(x))
cosh: Primitive = unary("cosh", np.cosh, lambda t, y, x: t * sinh(x))
tanh = unary("tanh", np.tanh, lambda t, y, x: t * (1 - y * y))
asinh = unary("asinh", np.arcsinh, lambda t, y, x: t / (sqrt(1 + x * x) if _is_complex(x) else hypot(x, 1.0)))
acosh = unary("acosh", np.arccosh, lambda t, y, x: t / (sqrt(x - 1) * sqrt(x + 1)))
atanh = unary("atanh", np.arctanh, lambda t, y, x: t / ((1 - x) * (1 + x)))
atan2 = binary(
    "atan2",
    np.arctan2,
    lambda t, y, a, b: t * (b / (a * a + b * b)),
    lambda t, y, a, b: t * (-a / (a * a + b * b)),
)
hypot: Primitive = binary(
    "hypot",
    np.hypot,
    lambda t, y, a, b: t * (a / _nonzero(y)),
    lambda t, y, a, b: t * (b / _nonzero(y)),
)
logaddexp = binary("logaddexp", np.logaddexp, lambda t, y, a, b: t * exp(a - y), lambda t, y, a, b: t * exp(b - y))

# Kinks.
sign = unary("sign", np.sign, lambda t, y, z: _turn(t, y, z))
sign.jvp = _if_complex(sign.jvp)
abs = unary("abs", np.abs, lambda t, y, x: t * sign(x) if not _is_complex(x) else real(conj(x) * t) / _nonzero(y))
maximum = binary("maximum", np.maximum, lambda t, y, a, b: t * _share(a, b), lambda t, y, a, b: t * _share(b, a))
minimum = binary("minimum", np.minimum, lambda t, y, a, b: t * _share(b, a), lambda t, y, a, b: t * _share(a, b))
remainder = binary("remainder", np.remainder, lambda t, y, a, b: t, lambda t, y, a, b: t * -floor_divide(a, b))
copysign = binary("copysign", np.copysign, lambda t, y, a, b: t * (sign(a) * sign(y)), None)

# Piecewise constant, boolean and integer results.
floor = zero("floor", np.floor)
ceil = zero("ceil", np.ceil)
round = zero("round", np.round)
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


def _turn(t: Any, y: Any, z: Any) -> Any:
    """y = z / |z| turns only: what t has along y is taken out, the rest is over |z|; 0 at the origin."""
    return where(z == 0, 0.0, t - y * real(conj(y) * t)) / _nonzero(abs(z))


def _pow_slope(a: Any, b: Any) -> Any:
    """b a^(b-1), and 0 where b = 0, at a = 0 too."""
    if isinstance(b, (int, float)):
        return b * pow(a, b - 1) if b != 0 else 0.0 * a
    safe = where(b == 0, 1.0, b)
    return where(b == 0, 0.0, b * pow(a, safe - 1))


def _share(a: Any, b: Any) -> Any:
    """1 where a > b, 1/2 where they tie, 0 elsewhere."""
    return where(a > b, 1.0, where(a == b, 0.5, 0.0))


def _nonzero(y: Any) -> Any:
    return where(y == 0, 1.0, y)


def _is_complex(x: Any) -> bool:
    return x.dtype.kind == "c"  # type: ignore[no-any-return]
