"""Errors that show elsewhere: at other points, cotangents, calls, dtypes, layouts and orders; broken contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import adbridge as ad

from .elementwise import indicator
from .mutant import FORWARD, REVERSE, Mutant, moved, over, rounded, with_bwd, with_slope
from .mutations import (
    as_if_contiguous,
    at_the_example,
    cotangents,
    counted,
    incoming,
    move_input_in_place,
    noisy,
    primals,
    results,
    scale_in_place,
    stale,
    tangent,
    then,
    value,
    where_input,
)
from .rule import Array, Rule, array, draw

# Not linear in what is pulled back or pushed forward.


def _clipped(limit: float) -> Callable[[Any, Array], Array]:
    """As gradient clipping does, put into a rule."""
    return lambda xp, g: xp.where(g > limit, limit + 0 * g, xp.where(g < -limit, 0 * g - limit, g))


def _thresholded(limit: float) -> Callable[[Any, Array], Array]:
    return lambda xp, g: xp.where(xp.abs(g) < limit, xp.zeros_like(g), g)


def _shrunk(xp: Any, g: Array) -> Array:
    """Clipped to norm 10."""
    norm = xp.sqrt(xp.sum(g * g) + 1e-30)
    return g * xp.where(norm > 10, 10 / norm, xp.ones_like(norm))


def _lopsided(xp: Any, g: Array) -> Array:
    return xp.where(g < 0, 0.5 * g, g)


def _magnitude(xp: Any, g: Array) -> Array:
    return xp.abs(g)


def nonlinear() -> Iterator[Mutant]:
    for side, modes in (("cotangent", REVERSE), ("tangent", FORWARD)):
        names = ("sin", "matmul", "dense-map", "softmax", "sum") if modes == REVERSE else ("tanh", "outer", "cubic")
        yield from over(f"abs of the {side}", "", incoming(_magnitude, modes), *names[:3])
        yield from over(f"{side} clipped", "at 10", incoming(_clipped(10.0), modes), *names[:3])
        yield from over(f"{side} clipped", "at 1000", incoming(_clipped(1e3), modes), *names[1:3])
        yield from over(f"{side} clipped", "at norm 10", incoming(_shrunk, modes), *names[-2:])
        yield from over(f"{side} below a threshold", "1e-3", incoming(_thresholded(1e-3), modes), *names[:2])
        yield from over(f"{side} below a threshold", "1e-5", incoming(_thresholded(1e-5), modes), *names[-2:])
        yield from over(f"sign of the {side}", "", incoming(_lopsided, modes), *names[-3:])
        off = incoming(lambda xp, g: g + 1e-3, modes)
        yield from over(f"{side} offset or curved", "g + 1e-3", off, *names[:2])
        curved = incoming(lambda xp, g: g + 1e-4 * g * g, modes)
        yield from over(f"{side} offset or curved", "g + 1e-4 g^2", curved, *names[-2:])


# Right at the example, wrong elsewhere.


def _scaled_where(condition: Callable[[Any, Array], Array], value_: float) -> Callable[[Any, Array, Array], Array]:
    return lambda xp, x, g: xp.where(condition(xp, x), value_ * g, g)


def _beyond(limit: float) -> Callable[[Any, Array], Array]:
    return lambda xp, x: xp.abs(x) > limit


def _within(limit: float) -> Callable[[Any, Array], Array]:
    return lambda xp, x: xp.abs(x) < limit


def elsewhere() -> Iterator[Mutant]:
    kind = "only right at the example"
    names = (
        "sin",
        "exp",
        "tanh",
        "softmax",
        "det",
        "norm",
        "matmul",
        "cubic",
        "solve",
        "hypot",
        "dense-squares",
        "power-2.5",
    )
    yield from over(kind, "", at_the_example(), *names)
    kind = "wrong for negative input"
    negative = where_input(_scaled_where(lambda xp, x: x < 0, 0.9))
    up = array(0.4, 1.3, 2.2)
    yield from moved(kind, "", negative, sin=up, gaussian=up, atan=up, cubic=up, static_power=up, tanh=up, abs=up)
    yield from moved(kind, "in reverse", where_input(_scaled_where(lambda xp, x: x < 0, -1.0), REVERSE), norm=up)
    kind = "wrong on one branch"
    yield Mutant(kind, "elu", "below 0", with_slope(lambda xp, x, y: xp.ones_like(x)), (up,))
    yield Mutant(kind, "elu", "above 0", with_slope(lambda xp, x, y: xp.exp(-xp.abs(x))), (-up,))
    yield Mutant(kind, "huber", "outside", with_slope(lambda xp, x, y: x), (array(0.1, -0.4, 0.8),))
    yield Mutant(kind, "huber", "above 1", with_slope(lambda xp, x, y: xp.where(x < -1, -xp.ones_like(x), x)), (-up,))
    yield Mutant(
        kind, "clip", "above 1", with_slope(lambda xp, x, y: indicator(xp, x > -1, x)), (array(0.1, -2.4, 0.8),)
    )
    yield Mutant(kind, "softsign", "below 0", with_slope(lambda xp, x, y: 1 / (1 + x) ** 2), (up,))
    yield Mutant(kind, "leaky-relu", "below 0", with_slope(lambda xp, x, y: indicator(xp, x > 0, x)), (up,))
    yield Mutant(kind, "relu", "below 0", with_slope(lambda xp, x, y: xp.ones_like(x)), (up,))
    middle = (array(0.5, 1.5),)
    kind = "wrong for large input"
    for rule, limit in {
        "sin": 1e3,
        "atan": 1e3,
        "huber": 1e3,
        "log": 1e6,
        "abs": 1e6,
        "exp": 5.0,
        "implicit-root": 5.0,
    }.items():
        yield Mutant(kind, rule, f"beyond {limit:g}", where_input(_scaled_where(_beyond(limit), 0.0)), middle)
    kind = "wrong for small input"
    for rule, limit in {"sin": 1e-3, "log": 1e-3, "cubic": 1e-3, "sqrt": 1e-6, "x-log-x": 1e-6, "tanh": 1e-6}.items():
        yield Mutant(kind, rule, f"below {limit:g}", where_input(_scaled_where(_within(limit), 0.5)), middle)
    kind = "NaN at 0"
    yield from moved(
        kind, "", where_input(lambda xp, x, g: g * x / x), sin=up, gaussian=up, atan=up, cubic=up, huber=up
    )
    yield from moved(kind, "", where_input(lambda xp, x, g: g * x / x, REVERSE), cumsum=draw(71, 5))
    kind = "zero at 0"
    at_0 = where_input(_scaled_where(lambda xp, x: x == 0, 0.0))
    yield from moved(kind, "", at_0, sin=up, tanh=up, atan=up, softplus=up)
    yield Mutant(kind, "pair-distances", "", where_input(_scaled_where(lambda xp, x: x == 0, 0.0), REVERSE))
    kind = "infinite slope masked"
    for name, mask in {"0": 0.0, "1e8": 1e8}.items():
        yield Mutant(kind, "sqrt", f"{name} at 0", where_input(_instead(0.0, mask)))
        yield Mutant(kind, "acos", f"-{name} at 1", where_input(_instead(1.0, -mask)))


def _instead(place: float, slope: float) -> Callable[[Any, Array, Array], Array]:
    return lambda xp, x, g: xp.where(x == place, slope + xp.zeros_like(g), g)


# State, chance, and arrays that are not the rule's own.


def impure() -> Iterator[Mutant]:
    kind = "stale state"
    yield from over(kind, "of the first call", stale(), "sin", "matmul", "softmax", "cubic", "inverse")
    yield from over(kind, "of the first call of a shape", stale(by_shape=True), "tanh", "norm", "polar")
    yield from over(kind, "the first cotangent", _first_cotangent, "sum", "outer")
    kind = "depends on the call"
    yield from over(kind, "first right", counted(lambda i: i > 0), "sin", "matmul")
    yield from over(kind, "every second", counted(lambda i: i % 2 == 1), "logsumexp", "cubic")
    yield from over(kind, "from the sixth", counted(lambda i: i >= 5), "tanh", "cumsum")
    kind = "random"
    yield from over(kind, "noise 1e-3", noisy(1e-3), "sin", "solve", "cubic")
    yield from over(kind, "noise 1e-7", noisy(1e-7), "matmul", "softmax", "log")
    kind = "writes to its input"
    yield from over(kind, "the cotangent", scale_in_place(REVERSE), "sin", "matmul", "softmax", "cumsum")
    yield from over(kind, "the tangent", scale_in_place(FORWARD), "cubic", "outer")
    yield from over(kind, "the primals", move_input_in_place(1e-3), "tanh", "solve", "logsumexp", "cubic")
    kind = "ignores strides"
    yield from over(kind, "of the primals", primals(as_if_contiguous), "sin", "gaussian", "matmul", "softmax", "prod")
    yield from over(
        kind, "of the cotangent", incoming(lambda xp, g: as_if_contiguous(g)), "matmul", "transpose", "multiply"
    )


def _first_cotangent(rule: Rule) -> Rule:
    old = rule.bwd
    assert old is not None
    memory: dict[str, Any] = {}
    return replace(rule, bwd=lambda residuals, ct: old(residuals, memory.setdefault("ct", ct)))


# Dtypes, shapes, structure, values.


def _narrow(xp: Any, g: Array) -> Array:
    return xp.astype(g, xp.float32)


def _wide(xp: Any, g: Array) -> Array:
    return xp.astype(g, xp.float64)


def _off_in_float32(off: float) -> Callable[[Any, Array], Array]:
    return lambda xp, g: off * g if g.dtype == xp.float32 else g


def structure() -> Iterator[Mutant]:
    kind = "wrong dtype"
    yield from over(kind, "float32 for float64", results(_narrow, REVERSE), "sin", "matmul", "logsumexp", "sum")
    yield from over(kind, "float32 for float64", results(_narrow, FORWARD), "cubic", "softmax")
    yield from over(kind, "float64 for float32", results(_wide), "sin-float32", "exp-20-float32", "norm", "solve")
    kind = "wrong in float32"
    yield from over(kind, "by 1%", results(_off_in_float32(1.01)), "sin", "matmul", "cubic")
    yield from over(kind, "by 1e-3", results(_off_in_float32(1.001)), "softmax", "logsumexp")
    yield from over(kind, "sign", results(_off_in_float32(-1.0)), "dense-map", "tanh")
    kind = "wrong shape"
    yield from over(kind, "an axis more", results(lambda xp, g: g[None, ...], REVERSE), "sin", "matmul", "norm")
    yield from over(kind, "an axis more, forward", results(lambda xp, g: g[None, ...], FORWARD), "cubic", "logsumexp")
    yield from over(kind, "summed", results(lambda xp, g: xp.sum(g), REVERSE), "tanh", "multiply")
    yield from over(kind, "not summed", with_bwd(lambda r, ct: (ct * r[1], ct * r[0])), "multiply")
    yield from over(kind, "flat", results(lambda xp, g: xp.reshape(g, (-1,)), REVERSE), "softmax", "inverse")
    kind = "wrong number of cotangents"
    yield from over(kind, "one", cotangents(lambda cts: cts[:1]), "matmul", "gather", "solve")
    yield from over(kind, "three", cotangents(lambda cts: (*cts, cts[0])), "multiply", "sin")
    yield from over(kind, "not a tuple", cotangents(lambda cts: cts[0]), "tanh", "logsumexp")
    yield from over(kind, "None", cotangents(lambda cts: (None, *cts[1:])), "sin", "matmul", "dense-layer")
    yield from over(kind, "nothing", cotangents(lambda cts: None), "exp")
    yield from over(kind, "at the index", cotangents(lambda cts: (cts[1], cts[0])), "gather", "cross-entropy")
    yield Mutant(kind, "cubic", "no tangent", tangent(lambda t: None))
    kind = "another value"
    yield from over(kind, "by 1e-6", value(lambda xp, y: y * (1 + 1e-6)), "sin", "matmul", "logsumexp", "cubic")
    yield from over(kind, "rounded", value(rounded), "tanh", "norm")
    yield from over(kind, "abs", value(_magnitude), "cumsum", "transpose")


# Right at first order.


def _stopped(rule: Rule) -> Rule:
    return primals(ad.stop_gradient)(rule)


def _curved(rule: Rule) -> Rule:
    """Residuals of the right value whose own derivative is doubled."""
    return primals(lambda x: 2 * x - ad.stop_gradient(x))(rule)


def second_order() -> Iterator[Mutant]:
    kind = "right at first order only"
    names = ("sin", "exp", "matmul", "softmax", "inverse", "det", "norm", "cubic", "dense-layer", "quadratic-form")
    yield from over(kind, "stopped", _stopped, *names)
    yield from over(kind, "doubled", _curved, "tanh", "logsumexp", "solve", "ode-step")
    kind = "second order vacuous"
    yield Mutant(
        kind, "exp", "at x = 0", then(_stopped, lambda rule: replace(rule, fwd=None, bwd=None)), (np.array(0.0),)
    )
    yield Mutant(kind, "cubic", "at f(x) = 0", _stopped, (np.array(np.sqrt(2.0)),))
    yield Mutant(kind, "log", "at f(x) = 0", then(_stopped, lambda rule: replace(rule, jvp=None)), (np.array(1.0),))
    kind = "cotangent stopped"
    yield from over(kind, "", incoming(lambda xp, g: ad.stop_gradient(g)), "sin", "matmul", "sum")


FAMILIES = (nonlinear, elsewhere, impure, structure, second_order)
