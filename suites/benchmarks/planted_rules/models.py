"""Right rules of layers and steps, of trees, with static arguments, several outputs or complex numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from .algebra import outer, transposed
from .arrangements import one_hot
from .elementwise import POSITIVE
from .reductions import softmax
from .rule import REALS, Array, Rule, array, draw, space

SOFTMAX = Rule(
    "softmax",
    softmax,
    (draw(51, 3, 4),),
    jvp=lambda p, t: (
        softmax(*p),
        softmax(*p) * (t[0] - space(*p).sum(softmax(*p) * t[0], axis=-1, keepdims=True)),
    ),
    fwd=lambda x: (softmax(x), x),
    bwd=lambda x, ct: (softmax(x) * (ct - space(x).sum(softmax(x) * ct, axis=-1, keepdims=True)),),
)


def _cross_entropy(logits: Array, labels: Array) -> Array:
    """The mean over rows of -log softmax at the row's label."""
    xp = space(logits, labels)
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    return -xp.sum(log_p * one_hot(xp, labels, logits.shape[-1], logits.dtype)) / logits.shape[0]


def _cross_entropy_bwd(r: tuple[Array, Array], ct: Array) -> tuple[Array, None]:
    logits, labels = r
    hit = one_hot(space(logits, labels), labels, logits.shape[-1], logits.dtype)
    return ct * (softmax(logits) - hit) / logits.shape[0], None


CROSS_ENTROPY = Rule(
    "cross-entropy",
    _cross_entropy,
    (draw(52, 3, 4), np.array([2, 0, 2])),
    fwd=lambda logits, labels: (_cross_entropy(logits, labels), (logits, labels)),
    bwd=_cross_entropy_bwd,
)

EPSILON = 1e-5


def normalised(x: Array) -> tuple[Array, Array]:
    """Rows without their mean, over their standard deviation; and that."""
    xp = space(x)
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    scale = xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    return centred / scale, scale


def layer_norm_map(x: Array, t: Array) -> Array:
    """The Jacobian of each row, which is symmetric."""
    xp = space(x)
    y, scale = normalised(x)
    return (t - xp.mean(t, axis=-1, keepdims=True) - y * xp.mean(y * t, axis=-1, keepdims=True)) / scale


LAYER_NORM = Rule(
    "layer-norm",
    lambda x: normalised(x)[0],
    (draw(53, 2, 5, low=-2.0, high=2.0),),
    jvp=lambda p, t: (normalised(*p)[0], layer_norm_map(*p, *t)),
    fwd=lambda x: (normalised(x)[0], x),
    bwd=lambda x, ct: (layer_norm_map(x, ct),),
    source="J. L. Ba, J. R. Kiros, G. E. Hinton, Layer normalization, arXiv:1607.06450",
)

STEP = 0.1


def _heun(y: Array, r: Array) -> Array:
    """One step of Heun's method for y' = r y (1 - y)."""
    k1 = r * y * (1 - y)
    z = y + STEP * k1
    return y + STEP / 2 * (k1 + r * z * (1 - z))


def _heun_slopes(y: Array, r: Array) -> tuple[Array, Array]:
    """The partial derivatives in y and r, by the chain rule through the stages."""
    z = y + STEP * r * y * (1 - y)
    k1_y, k1_r = r * (1 - 2 * y), y * (1 - y)
    k2_z = r * (1 - 2 * z)
    k2_y, k2_r = k2_z * (1 + STEP * k1_y), z * (1 - z) + k2_z * STEP * k1_r
    return 1 + STEP / 2 * (k1_y + k2_y), STEP / 2 * (k1_r + k2_r)


def _heun_jvp(p: tuple[Array, Array], t: tuple[Array, Array]) -> tuple[Array, Array]:
    in_y, in_r = _heun_slopes(*p)
    return _heun(*p), in_y * t[0] + in_r * t[1]


def _heun_bwd(r: tuple[Array, Array], ct: Array) -> tuple[Array, Array]:
    in_y, in_r = _heun_slopes(*r)
    return ct * in_y, space(ct).sum(ct * in_r)


ODE_STEP = Rule(
    "ode-step",
    _heun,
    (array(0.2, 0.5, 0.9), np.array(1.5)),
    _heun_jvp,
    lambda y, r: (_heun(y, r), (y, r)),
    _heun_bwd,
)


def _distances(x: Array) -> Array:
    """Squared distances of all pairs of rows."""
    xp = space(x)
    return xp.sum((x[:, None, :] - x[None, :, :]) ** 2, axis=-1)


DISTANCES = Rule(
    "pair-distances",
    _distances,
    (draw(54, 4, 2),),
    fwd=lambda x: (_distances(x), x),
    bwd=lambda x, ct: (2 * space(x).sum((ct + transposed(ct))[:, :, None] * (x[:, None, :] - x[None, :, :]), axis=1),),
)

# Trees, static arguments, several outputs.


def _sincos(x: Array) -> tuple[Array, Array]:
    xp = space(x)
    return xp.sin(x), xp.cos(x)


def _sincos_jvp(p: tuple[Array], t: tuple[Array]) -> tuple[Any, Any]:
    sin, cos = _sincos(*p)
    return (sin, cos), (cos * t[0], -sin * t[0])


SINCOS = Rule(
    "sin-and-cos",
    _sincos,
    (array(0.3, 1.1, -2.0),),
    _sincos_jvp,
    lambda x: (_sincos(x), x),
    lambda x, ct: (ct[0] * space(x).cos(x) - ct[1] * space(x).sin(x),),
)


def _polar(x: Array, y: Array) -> dict[str, Array]:
    xp = space(x, y)
    return {"angle": xp.atan2(y, x), "radius": xp.sqrt(x * x + y * y)}


def _polar_bwd(r: tuple[Array, Array], ct: dict[str, Array]) -> tuple[Array, Array]:
    x, y = r
    square = x * x + y * y
    radius = space(x, y).sqrt(square)
    return ct["radius"] * x / radius - ct["angle"] * y / square, ct["radius"] * y / radius + ct["angle"] * x / square


POLAR = Rule(
    "polar",
    _polar,
    (array(0.8, 1.5), array(-0.6, 2.0)),
    fwd=lambda x, y: (_polar(x, y), (x, y)),
    bwd=_polar_bwd,
    domain=(POSITIVE, REALS),
)


def _layer(parameters: dict[str, Array], x: Array) -> dict[str, Array]:
    z = parameters["weight"] @ x + parameters["bias"]
    return {"linear": z, "active": space(z).tanh(z)}


def _layer_jvp(p: tuple[Any, Array], t: tuple[Any, Array]) -> tuple[Any, Any]:
    out = _layer(*p)
    dz = t[0]["weight"] @ p[1] + p[0]["weight"] @ t[1] + t[0]["bias"]
    return out, {"linear": dz, "active": (1 - out["active"] ** 2) * dz}


def _layer_bwd(r: tuple[Any, Array], ct: dict[str, Array]) -> tuple[Any, Array]:
    parameters, x = r
    g = ct["linear"] + ct["active"] * (1 - _layer(*r)["active"] ** 2)
    return {"weight": outer(g, x), "bias": g}, transposed(parameters["weight"]) @ g


LAYER = Rule(
    "dense-layer",
    _layer,
    ({"weight": draw(55, 2, 3), "bias": draw(56, 2)}, draw(57, 3)),
    _layer_jvp,
    lambda parameters, x: (_layer(parameters, x), (parameters, x)),
    _layer_bwd,
)
POWER = Rule(
    "static-power",
    lambda x, *, power=3: x**power,
    (array(-1.2, 0.4, 2.0),),
    jvp=lambda p, t, *, power=3: (p[0] ** power, power * p[0] ** (power - 1) * t[0]),
    fwd=lambda x, *, power=3: (x**power, x),
    bwd=lambda x, ct, *, power=3: (ct * power * x ** (power - 1),),
)
MONOMIAL = Rule(
    "monomial",
    lambda x, power: x**power,
    (array(-1.2, 0.4, 2.0), 4),
    jvp=lambda p, t: (p[0] ** p[1], p[1] * p[0] ** (p[1] - 1) * t[0]),
    nondiff_argnums=(1,),
)

# Complex numbers. A cotangent is pulled back without conjugation: <ct, J t> = <J^T ct, t>.

COMPLEX_MULTIPLY = Rule(
    "complex-multiply",
    lambda z, w: z * w,
    (np.array([1.0 + 2.0j, -0.5 + 0.3j]), np.array([0.7 - 1.0j, 2.0 + 0.1j])),
    jvp=lambda p, t: (p[0] * p[1], t[0] * p[1] + p[0] * t[1]),
    fwd=lambda z, w: (z * w, (z, w)),
    bwd=lambda r, ct: (ct * r[1], ct * r[0]),
)


def _power_of(z: Array) -> Array:
    xp = space(z)
    return xp.real(z) ** 2 + xp.imag(z) ** 2


SIGNAL_POWER = Rule(
    "signal-power",
    _power_of,
    (np.array([1.0 + 2.0j, -0.5 + 0.3j]),),
    jvp=lambda p, t: (_power_of(*p), 2 * space(*p).real(space(*p).conj(p[0]) * t[0])),
    fwd=lambda z: (_power_of(z), z),
    bwd=lambda z, ct: (2 * ct * space(z).conj(z),),
)

MODELS = (
    *(SOFTMAX, CROSS_ENTROPY, LAYER_NORM, ODE_STEP, DISTANCES),
    *(SINCOS, POLAR, LAYER, POWER, MONOMIAL, COMPLEX_MULTIPLY, SIGNAL_POWER),
)
