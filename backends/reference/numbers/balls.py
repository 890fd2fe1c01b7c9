"""Elementwise functions on Arb balls, a row each. See `conversions.py`, `decisions.py`, `scalars.py`, `special.py`.

F. Johansson, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic", IEEE Trans. Comput. 66(8), 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flint import acb, arb

from adbridge.backends.reference.numbers import decisions, scalars, special
from adbridge.backends.reference.numbers.conversions import (
    NAMED,
    ball,
    imaginary_part,
    real_part,
    rounded,
    working_precision,
)
from adbridge.backends.reference.numbers.decisions import equal, less, less_equal, truth
from adbridge.backends.reference.numbers.scalars import cut_outside, from_border, log, method, with_values

__all__ = ["ELEMENTWISE", "NAMED", "acb", "arb", "ball", "rounded", "working_precision"]

_NOWHERE = {math.inf: math.nan, -math.inf: math.nan}
_ENDS = {math.inf: 1.0, -math.inf: -1.0}

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    **{name: method(name) for name in ("atan", "sinh", "cosh", "tanh", "asinh", "exp", "expm1", "erfinv", "erfcinv")},
    **{name: with_values(method(name), _NOWHERE) for name in ("sin", "cos", "tan")},
    "asin": cut_outside(from_border(from_border(method("asin"), 1, -1), -1, 1)),
    "acos": cut_outside(from_border(from_border(method("acos"), 1, -1), -1, 1)),
    "acosh": from_border(method("acosh"), 1, 1),
    "atanh": cut_outside(with_values(method("atanh"), {1.0: math.inf, -1.0: -math.inf})),
    "log": log,
    "log1p": scalars.log1p,
    "log2": lambda x: log(x) / arb.const_log2(),
    "log10": lambda x: log(x) / arb.const_log10(),
    "sqrt": scalars.square_root,
    "erf": with_values(method("erf"), _ENDS),
    "erfc": special.complementary_error,
    "gamma": with_values(method("gamma"), {0.0: math.inf}),
    "add": lambda a, b: ball(a) + ball(b),
    "subtract": scalars.subtract,
    "multiply": lambda a, b: ball(a) * ball(b),
    "divide": scalars.divide,
    "negative": lambda x: -ball(x),
    "square": lambda x: ball(x) * ball(x),
    "reciprocal": lambda x: scalars.divide(1, x),
    "exp2": lambda x: scalars.power(2, x),
    "pow": scalars.power,
    "cbrt": scalars.cube_root,
    "atan2": scalars.atan2,
    "hypot": scalars.hypot,
    "logaddexp": scalars.log_of_sum,
    "abs": scalars.absolute,
    "real": real_part,
    "imag": imaginary_part,
    "conj": lambda x: x.conjugate() if isinstance(x, acb) else ball(x),
    "sign": scalars.sign,
    "maximum": scalars.greater_of,
    "minimum": scalars.less_of,
    "copysign": scalars.copysign,
    "floor": decisions.floor,
    "ceil": decisions.ceil,
    "trunc": decisions.trunc,
    "round": decisions.round_half_even,
    "floor_divide": scalars.floor_divide,
    "remainder": scalars.remainder,
    "fmod": scalars.fmod,
    "equal": equal,
    "not_equal": lambda a, b: not equal(a, b),
    "less": less,
    "less_equal": less_equal,
    "greater": lambda a, b: less(b, a),
    "greater_equal": lambda a, b: less_equal(b, a),
    "logical_and": lambda a, b: truth(a) and truth(b),
    "logical_or": lambda a, b: truth(a) or truth(b),
    "logical_xor": lambda a, b: truth(a) != truth(b),
    "logical_not": lambda x: not truth(x),
    "isnan": decisions.is_nan,
    "isinf": decisions.is_infinite,
    "isfinite": decisions.is_finite,
    "signbit": lambda x: less(x, 0, "the sign of a"),
    "nextafter": lambda a, b: ball(a),  # a unit in the last place: of what dtype?
    "expit": scalars.expit,
    "log_expit": scalars.log_expit,
    "logit": lambda x: log(ball(x)) - scalars.log1p(-ball(x)),
    "xlogy": scalars.times_log,
    "xlog1py": lambda x, y: scalars.times_log(x, y, scalars.log1p),
    "entr": scalars.entropy,
    "erfcx": special.scaled_erfc,
    "ndtr": special.normal_distribution,
    "ndtri": lambda x: -arb(2).sqrt() * (2 * ball(x)).erfcinv(),
    "log_ndtr": special.log_normal_distribution,
    "gammaln": special.log_gamma,
    "polygamma": special.polygamma,
    "betaln": special.log_beta,
    "bessel_j": lambda x, order: ball(x).bessel_j(order),
    "bessel_i": lambda x, order: ball(x).bessel_i(order),
    "bessel_ie": special.scaled_bessel_i,
    "sinc": with_values(special.sinc, _NOWHERE),
}
"""Functions of single numbers; parameters follow by keyword."""
