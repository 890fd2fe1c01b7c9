"""Errors that show at the example: wrong numbers, formulas, axes and arguments, parts left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from . import algebra, arrangements, models, reductions
from .algebra import DENSE, inverse, outer, solve, transposed
from .elementwise import indicator
from .mutant import FORWARD, REVERSE, Mutant, on_cotangent, over, rounded, with_bwd, with_jvp, with_slope
from .mutations import (
    Mutation,
    cotangent_of,
    cotangents,
    each,
    entry,
    factor,
    incoming,
    results,
    space,
    tangent,
    then,
)
from .rule import Array, Rule, array, draw


def _weighted(weights: Array) -> Mutation:
    """The dense maps with another matrix in their derivative."""

    def on(like: Array) -> Array:
        return space(like).asarray(weights, dtype=like.dtype)

    def mutate(rule: Rule) -> Rule:
        if rule.name == "dense-map":
            return replace(
                rule,
                jvp=lambda p, t: (rule.fun(*p), on(t[0]) @ t[0]),
                bwd=lambda _, ct: (transposed(on(ct)) @ ct,),
            )
        return replace(
            rule,
            jvp=lambda p, t: (rule.fun(*p), 2 * (on(p[0]) @ p[0]) * (on(t[0]) @ t[0])),
            bwd=lambda x, ct: (transposed(on(x)) @ (2 * (algebra.weights(x) @ x) * ct),),
        )

    return mutate


def _one_weight(value: float, row: int = 37, column: int = 81) -> Mutation:
    weights = DENSE.copy()
    weights[row, column] *= value
    return _weighted(weights)


# Wrong values, at the example as elsewhere.


def _negated(xp: Any, g: Array) -> Array:
    return -g


def wrong_numbers() -> Iterator[Mutant]:
    yield from over("sign", "", results(_negated), "cos", "softmax", "convolution", "cubic", "pair-distances")
    yield from over("sign", "of the second argument", cotangent_of(1, _negated), "matmul", "solve", "divide")
    yield from over("factor 2", "", factor(2.0), "sin", "logsumexp", "det", "cumsum", "dense-map", "leaky-relu")
    yield from over(
        "factor 2", "of the first argument", cotangent_of(0, lambda xp, g: 2 * g), "ode-step", "dense-layer"
    )
    off = "1e-5 relative"
    yield from over(off, "", factor(1 + 1e-5), "sin", "matmul", "logsumexp", "inverse", "cube-1e6", "huge-slope")
    yield from over(off, "", factor(1 - 1e-5), "cross-entropy", "power-2.5", "signal-power")
    one = "1e-3 on one entry"
    yield from over(
        one, "", results(entry(2, 1.001), REVERSE), "sort", "softmax", "pair-distances", "cholesky", "inverse"
    )
    yield from over(one, "of the second argument", cotangent_of(1, entry(1, 1.001)), "matmul", "outer", "convolution")
    yield from over(one, "of the tangent", tangent(lambda t: each(entry(1, 0.999), t)), "layer-norm", "cumprod")
    many = "one of 10000 entries"
    for value_, what in ((10.0, "tenfold"), (1.001, "by 1e-3"), (-1.0, "its sign"), (0.0, "zero")):
        yield from over(many, what, _one_weight(value_), "dense-map", "dense-squares")
    yield from over(
        many, "in reverse, by 1e-3", then(_one_weight(1.001), lambda rule: replace(rule, jvp=None)), "dense-map"
    )
    below = "below an absolute tolerance"
    yield from over(below, "half too large", factor(1.5), "reciprocal-1e4", "tiny-slope")
    yield from over(below, "sign", results(_negated), "reciprocal-1e4", "tiny-slope")
    yield Mutant(below, "gaussian", "sign", results(_negated), (array(6.0, -7.0),))
    small = Mutant(
        below, "sin-float32", "sign, 300 numbers", results(_negated, FORWARD), (draw(70, 300).astype(np.float32),)
    )
    yield small
    yield from over("rounded to float32", "", results(rounded), "sin", "matmul", "norm", "solve", "layer-norm")


def neighbours() -> Iterator[Mutant]:
    """The derivative of a formula that looks alike, or with a term forgotten."""
    slopes: dict[str, Callable[[Any, Array, Array], Array]] = {
        "sin": lambda xp, x, y: xp.cosh(x),
        "tanh": lambda xp, x, y: 1 - y,
        "power-2.5": lambda xp, x, y: 2.5 * x**2.5,
        "x-log-x": lambda xp, x, y: xp.log(x),
        "acos": lambda xp, x, y: 1 / xp.sqrt(1 - x * x),
        "atan": lambda xp, x, y: 1 / (1 + x),
        "sigmoid": lambda xp, x, y: y * (1 + y),
        "gaussian": lambda xp, x, y: -x * y,
        "implicit-root": lambda xp, x, y: 1 / (3 * x * x + 1),
        "cubic": lambda xp, x, y: 3 * x**2,
        "log1p": lambda xp, x, y: 1 / x,
    }
    for rule, slope in slopes.items():
        yield Mutant("neighbouring formula", rule, "", with_slope(slope))
    forgotten: dict[str, Callable[[Any, Any], Any]] = {
        "variance": lambda x, ct: (2 * ct * x / x.shape[0],),
        "entropy": lambda p, ct: (-ct * space(p).log(p),),
        "softmax": lambda x, ct: (reductions.softmax(x) * ct,),
        "layer-norm": lambda x, ct: (ct / models.normalised(x)[1],),
        "det": lambda a, ct: (ct * transposed(inverse(a)),),
        "pair-distances": lambda x, ct: (2 * space(x).sum(ct[:, :, None] * (x[:, None, :] - x[None, :, :]), axis=1),),
        "cumprod": lambda x, ct: (arrangements.cumsum_from_the_end(ct) * arrangements.cumprod(x) / x,),
    }
    for rule, bwd in forgotten.items():
        yield Mutant("forgotten term", rule, "", with_bwd(bwd))
    yield Mutant("forgotten term", "variance", "n - 1 for n", results(lambda xp, g: g * 4 / 3))
    yield Mutant("forgotten term", "matmul", "of the product rule", with_jvp(lambda p, t: t[0] @ p[1]))


def epsilons() -> Iterator[Mutant]:
    e = 1e-8
    kind = "epsilon in a denominator"
    yield Mutant(kind, "log", "", with_slope(lambda xp, x, y: 1 / (x + e)))
    yield Mutant(kind, "sqrt", "", with_slope(lambda xp, x, y: 0.5 / (y + e)))
    yield Mutant(kind, "reciprocal-1e-6", "", with_slope(lambda xp, x, y: -1 / (x * x + e)))
    yield Mutant(kind, "norm", "", with_bwd(lambda x, ct: (ct * x / (reductions.norm(x) + e),)))
    yield Mutant(kind, "prod", "", with_bwd(lambda x, ct: (ct * reductions.product(x) / (x + e),)))
    yield Mutant(
        kind, "cumprod", "", with_jvp(lambda p, t: arrangements.cumprod(*p) * arrangements.cumsum(t[0] / (p[0] + e)))
    )


# Wrong axes, arguments and order.


def _masked(shape: tuple[int, ...], axis: int) -> Callable[[Any, Array], Array]:
    """Only the first slice along an axis is left."""
    mask = np.zeros(shape)
    mask[(slice(None),) * axis + (slice(0, 1),)] = 1.0
    return lambda xp, ct: ct * xp.asarray(mask, dtype=ct.dtype)


def _first_slice(argnum: int, shape: tuple[int, ...], axis: int) -> Mutation:
    """An argument that was broadcast gets the cotangent of its first copy."""

    def mutate(rule: Rule) -> Rule:
        first = incoming(_masked(shape, axis))(rule).bwd
        right = rule.bwd
        assert first is not None
        assert right is not None

        def bwd(residuals: Any, ct: Any) -> Any:
            cts, wrong = right(residuals, ct), first(residuals, ct)
            return tuple(wrong[i] if i == argnum else g for i, g in enumerate(cts))

        return replace(rule, bwd=bwd)

    return mutate


def wrong_axes() -> Iterator[Mutant]:
    kind = "missing broadcast sum"
    for rule in ("multiply", "divide"):
        yield Mutant(kind, rule, "first copy, along axis 1", _first_slice(0, (3, 4), 1))
        yield Mutant(kind, rule, "first copy, along axis 0", _first_slice(1, (3, 4), 0))
        yield Mutant(kind, rule, "mean for sum", cotangent_of(0, lambda xp, g: g / 4))
    yield Mutant(kind, "hypot", "mean for sum", cotangent_of(1, lambda xp, g: g / 3))
    yield Mutant(kind, "hypot", "first copy", _first_slice(1, (3,), 0))
    yield Mutant(kind, "ode-step", "mean for sum", cotangent_of(1, lambda xp, g: g / 3))
    yield Mutant(kind, "mean", "sum for mean", factor(12.0, REVERSE))
    swap = cotangents(lambda cts: (cts[1], cts[0]))
    kind = "swapped arguments"
    yield from over(kind, "", swap, "matmul-square", "atan2", "outer", "complex-multiply", "polar")
    yield Mutant(kind, "matmul-square", "tangents", with_jvp(lambda p, t: t[1] @ p[1] + p[0] @ t[0]))
    yield Mutant(kind, "sin-and-cos", "cotangents of the outputs", on_cotangent(lambda ct: (ct[1], ct[0])))
    kind = "transposed"
    yield from over(kind, "", results(lambda xp, g: transposed(g), REVERSE), "inverse", "det")
    yield Mutant(kind, "matmul-square", "an operand", with_bwd(lambda r, ct: (ct @ r[1], transposed(r[0]) @ ct)))
    yield Mutant(kind, "solve", "the matrix", with_bwd(_solve_untransposed))
    yield Mutant(
        kind, "quadratic-form", "2 A x", with_bwd(lambda r, ct: (2 * ct * (r[1] @ r[0]), ct * outer(r[0], r[0])))
    )
    yield Mutant(kind, "transpose", "", with_bwd(lambda _, ct: (space(ct).permute_dims(ct, (2, 0, 1)),)))
    yield Mutant(kind, "dense-map", "", with_bwd(lambda _, ct: (algebra.weights(ct) @ ct,)))
    kind = "permutation ignored"
    yield Mutant(kind, "sort", "in reverse", with_bwd(lambda x, ct: (ct,)))
    yield Mutant(kind, "sort", "forward", with_jvp(lambda p, t: t[0]))
    yield Mutant(
        kind, "sort", "not inverted", with_bwd(lambda x, ct: (space(ct).take(ct, space(x).argsort(x), axis=0),))
    )
    yield Mutant(kind, "permutation", "", with_bwd(lambda _, ct: (ct,)))
    yield Mutant(
        kind, "permutation", "not inverted", with_bwd(lambda _, ct: (arrangements.taken(ct, arrangements.ORDER),))
    )
    yield Mutant(kind, "reversal", "", with_bwd(lambda _, ct: (ct,)))
    yield Mutant(kind, "cumsum", "summed forwards", with_bwd(lambda _, ct: (arrangements.cumsum(ct),)))
    yield Mutant(kind, "convolution", "kernel not reversed", with_bwd(_unreversed))
    yield Mutant(kind, "gather", "repeats counted once", with_bwd(_scattered_once))
    yield Mutant(
        "a stack by its first",
        "inverse-of-a-stack",
        "",
        with_bwd(lambda c, ct: (-transposed(c)[:1] @ ct @ transposed(c)[:1],)),
    )
    yield Mutant("a stack by its first", "inverse-of-a-stack", "forward", with_jvp(_first_inverse))
    yield Mutant("a stack by its first", "softmax", "", with_bwd(_softmax_of_all))
    yield Mutant("a stack by its first", "layer-norm", "", with_bwd(_scaled_by_first))
    yield Mutant("a stack by its first", "cross-entropy", "no mean", factor(3.0))


def _solve_untransposed(r: Any, ct: Array) -> Any:
    g = solve(r[0], ct)
    return -outer(g, r[1]), g


def _unreversed(r: Any, ct: Array) -> Any:
    xp = space(ct)
    return algebra.spread(ct, xp.flip(r[1])), transposed(algebra.windows(r[0], r[1].shape[0])) @ ct


def _scattered_once(r: Any, ct: Array) -> Any:
    """As ``g[indices] = ct`` does: the last of several wins. The example has 3 at places 0 and 2."""
    kept = entry(0, 0.0)(space(ct), ct)
    return kept @ arrangements.one_hot(space(ct), r[1], r[0].shape[0], ct.dtype), None


def _first_inverse(p: Any, t: Any) -> Any:
    c = inverse(p[0])
    return -c[:1] @ t[0] @ c


def _softmax_of_all(x: Array, ct: Array) -> Any:
    """The sum runs over all rows."""
    return (reductions.softmax(x) * (ct - space(x).sum(reductions.softmax(x) * ct)),)


def _scaled_by_first(x: Array, ct: Array) -> Any:
    scale = models.normalised(x)[1]
    return (models.layer_norm_map(x, ct) * scale / scale[:1],)


# Parts left out.


def _zero(xp: Any, g: Array) -> Array:
    return xp.zeros_like(g)


def left_out() -> Iterator[Mutant]:
    kind = "zero for one argument"
    yield from over(kind, "", cotangent_of(0, _zero), "matmul", "ode-step", "dense-layer")
    yield from over(kind, "the second", cotangent_of(1, _zero), "multiply", "convolution", "quadratic-form", "ode-step")
    yield Mutant(kind, "solve", "in the tangent", with_jvp(lambda p, t: solve(p[0], t[1])))
    kind = "an output ignored"
    yield Mutant(kind, "sin-and-cos", "the second", on_cotangent(lambda ct: (ct[0], 0 * ct[1])))
    yield Mutant(kind, "sin-and-cos", "the second tangent", tangent(lambda t: (t[0], 0 * t[1])))
    yield Mutant(kind, "polar", "the angle", on_cotangent(lambda ct: {**ct, "angle": 0 * ct["angle"]}))
    yield Mutant(kind, "dense-layer", "the linear part", on_cotangent(lambda ct: {**ct, "linear": 0 * ct["linear"]}))
    yield Mutant(kind, "dense-layer", "the linear tangent", tangent(lambda t: {**t, "linear": 0 * t["linear"]}))
    kind = "one mode wrong"
    yield from over(kind, "forward", factor(1.01, FORWARD), "sin", "matmul", "softmax", "solve", "complex-multiply")
    yield from over(kind, "reverse", factor(1.01, REVERSE), "tanh", "logsumexp", "cumsum", "hypot", "dense-layer")
    kind = "adjoint identity off by 1e-6"
    yield from over(kind, "", factor(1 + 1e-6, REVERSE), "matmul", "sum", "inverse", "permutation")
    yield from over(kind, "", factor(1 - 1e-6, FORWARD), "layer-norm", "outer")
    kind = "conjugate"
    yield from over(
        kind, "of the cotangents", results(lambda xp, g: xp.conj(g), REVERSE), "complex-multiply", "signal-power"
    )
    yield from over(kind, "of the incoming cotangent", incoming(lambda xp, g: xp.conj(g)), "complex-multiply")
    yield Mutant(
        kind, "signal-power", "forgotten in the tangent", with_jvp(lambda p, t: 2 * space(t).real(p[0] * t[0]))
    )
    kind = "illegal at a kink"
    for rule, slopes in {"relu": (0.0, 2.0, 1.0), "abs": (-1.0, 1.5, 1.0), "leaky-relu": (0.1, -0.5, 1.0)}.items():
        yield Mutant(kind, rule, f"{slopes[1]:g} at 0", with_slope(_three_slopes(*slopes)))
    yield Mutant(kind, "max", "a whole slope for each of a tie", with_bwd(_all_of_max), (array(0.3, 2.0, -1.0, 2.0),))


def _three_slopes(below: float, at: float, above: float) -> Callable[[Any, Array, Array], Array]:
    """Below, at and above zero."""

    def slope(xp: Any, x: Array, y: Array) -> Array:
        one = xp.ones_like(x)
        return xp.where(x > 0, above * one, xp.where(x < 0, below * one, at * one))

    return slope


def _all_of_max(x: Array, ct: Array) -> Any:
    xp = space(x)
    return (ct * indicator(xp, x == xp.max(x), x),)


FAMILIES = (wrong_numbers, neighbours, epsilons, wrong_axes, left_out)
