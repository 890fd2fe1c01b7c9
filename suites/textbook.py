"""Worked examples of the AD literature, with the answers that the books print.

The arguments are fixed, except where a problem's `free` says otherwise. Two problems have a derivative
inside the function, so that an operator is taken of an operator.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.bench.problem import (
    Answer,
    Instance,
    Maker,
    Problem,
    Suite,
    Vector,
    diagonal_answer,
    gradient_answer,
    matrix_answer,
)

GRIEWANK_WALTHER = "A. Griewank, A. Walther, Evaluating Derivatives, 2nd ed., SIAM (2008)"
NOCEDAL_WRIGHT = "J. Nocedal, S. J. Wright, Numerical Optimization, 2nd ed., Springer (2006)"
BAYDIN = (
    "A. G. Baydin, B. A. Pearlmutter, A. A. Radul, J. M. Siskind, Automatic differentiation in machine "
    "learning: a survey, Journal of Machine Learning Research 18 (2018)"
)
MARTINS = (
    "J. R. R. A. Martins, P. Sturdza, J. J. Alonso, The complex-step derivative approximation, "
    "ACM Transactions on Mathematical Software 29 (2003)"
)
MORE = (
    "J. J. Moré, B. S. Garbow, K. E. Hillstrom, Testing unconstrained optimization software, "
    "ACM Transactions on Mathematical Software 7 (1981)"
)

Function = Callable[[Any], Any]


def _at(fun: Function, answer: Callable[[Vector], Answer], *point: float) -> Maker:
    """The one instance at `point`: a 0-d argument for one number, a vector for more."""
    x = np.asarray(point[0] if len(point) == 1 else point, dtype=float)
    return lambda n, m, rng: Instance(fun, (x.copy(),), answer)


def _one(name: str, fun: Function, answer: Callable[[Vector], Answer], *point: float, source: str = "") -> Problem:
    """A scalar function at one point."""
    return Problem(name, _at(fun, answer, *point), sizes=((len(point), 1),), source=source)


# One variable.


def _cubic(x: Any) -> Any:
    return x**3 + 2.0 * x


def _square_plus_one(x: Any) -> Any:
    return x**2 + 1.0


def _exp_sin(x: Any) -> Any:
    xp = ad.array_namespace(x)
    return xp.exp(x) * xp.sin(x)


def _quotient(x: Any) -> Any:
    """e^x / sqrt(sin^3 x + cos^3 x)."""
    xp = ad.array_namespace(x)
    return xp.exp(x) / xp.sqrt(xp.sin(x) ** 3 + xp.cos(x) ** 3)


def _quotient_slope(x: Any) -> Any:
    """The derivative of `_quotient`, by the engine itself: its derivative is a second one."""
    return ad.grad(_quotient)(x)


def _quotient_derivatives(x: Vector) -> tuple[Vector, Vector, Vector]:
    """f, f' and f'': with g = sin^3 + cos^3, f = e^x g^(-1/2), and L = log(f)' = 1 - g' / (2 g),

    f' = f L and f'' = f (L^2 + L'), L' = (g'^2 / g - g'') / (2 g).
    """
    s, c = np.sin(x), np.cos(x)
    g, g1 = s**3 + c**3, 3 * s * c * (s - c)
    g2 = 3 * (c**2 - s**2) * (s - c) + 3 * s * c * (c + s)
    f, slope = np.exp(x) / np.sqrt(g), 1 - g1 / (2 * g)
    return f, f * slope, f * (slope**2 + (g1**2 / g - g2) / (2 * g))


def _quotient_answer(x: Vector) -> Answer:
    f, f1, _ = _quotient_derivatives(np.asarray(x, float))
    return diagonal_answer(f, f1)


def _quotient_slope_answer(x: Vector) -> Answer:
    _, f1, f2 = _quotient_derivatives(np.asarray(x, float))
    return diagonal_answer(f1, f2)


def _logistic(x: Any) -> Any:
    """Four terms of the logistic map, l -> 4 l (1 - l): 64 x (1-x) (1-2x)^2 (1 - 8x + 8x^2)^2."""
    for _ in range(3):
        x = 4.0 * x * (1.0 - x)
    return x


def _logistic_answer(x: Vector) -> Answer:
    """By the product rule on the expanded form."""
    x = np.asarray(x, float)
    y, c, d = x * (1 - x), 1 - 2 * x, 1 - 8 * x + 8 * x**2
    slope = 64 * c**3 * d**2 - 256 * y * c * d**2 + 128 * y * c**2 * d * (16 * x - 8)
    return diagonal_answer(64 * y * c**2 * d**2, slope)


def _heron(x: Any) -> Any:
    """The square root by ten steps of r -> (r + x / r) / 2: a loop whose derivative converges too."""
    root = 0.5 * (1.0 + x)
    for _ in range(9):
        root = 0.5 * (root + x / root)
    return root


def _confusable(x: Any) -> Any:
    """x times d(x + y)/dy at y = 1, which is x: an engine that confuses the two tangents gets slope 2."""
    one = ad.array_namespace(x).ones_like(x)
    return x * ad.grad(lambda y: x + y)(one)


# Several variables.


def _survey(x: Any) -> Any:
    """ln x1 + x1 x2 - sin x2."""
    xp = ad.array_namespace(x)
    return xp.log(x[0]) + x[0] * x[1] - xp.sin(x[1])


def _survey_answer(x: Vector) -> Answer:
    a, b = np.asarray(x, float)
    return gradient_answer(np.log(a) + a * b - np.sin(b), np.array([1 / a + b, a - np.cos(b)]))


def _square_of_sum(x: Any) -> Any:
    """(x y + sin x)^2."""
    return (x[0] * x[1] + ad.array_namespace(x).sin(x[0])) ** 2


def _square_of_sum_answer(x: Vector) -> Answer:
    a, b = np.asarray(x, float)
    s = a * b + np.sin(a)
    return gradient_answer(s**2, np.array([2 * s * (b + np.cos(a)), 2 * s * a]))


def _product_sine(x: Any) -> Any:
    """(x y + z) sin y."""
    return (x[0] * x[1] + x[2]) * ad.array_namespace(x).sin(x[1])


def _product_sine_answer(x: Vector) -> Answer:
    a, b, c = np.asarray(x, float)
    slope_b = a * np.sin(b) + (a * b + c) * np.cos(b)
    return gradient_answer((a * b + c) * np.sin(b), np.array([b * np.sin(b), slope_b, np.sin(b)]))


def _rall(x: Any) -> Any:
    """(x y + sin x + 4) (3 y^2 + 6)."""
    return (x[0] * x[1] + ad.array_namespace(x).sin(x[0]) + 4.0) * (3.0 * x[1] ** 2 + 6.0)


def _rall_answer(x: Vector) -> Answer:
    a, b = np.asarray(x, float)
    u, v = a * b + np.sin(a) + 4, 3 * b**2 + 6
    return gradient_answer(u * v, np.array([(b + np.cos(a)) * v, a * v + u * 6 * b]))


def _evaluation_trace(x: Any) -> Any:
    """(sin(x1/x2) + x1/x2 - e^x2) (x1/x2 - e^x2)."""
    xp = ad.array_namespace(x)
    ratio, growth = x[0] / x[1], xp.exp(x[1])
    return (xp.sin(ratio) + ratio - growth) * (ratio - growth)


def _evaluation_trace_answer(x: Vector) -> Answer:
    """With r = x1/x2 and w = r - e^x2: y = (sin r + w) w, dy = (w cos r) dr + (sin r + 2 w) dw."""
    a, b = np.asarray(x, float)
    r, w = a / b, a / b - np.exp(b)
    by_r, by_w = w * np.cos(r), np.sin(r) + 2 * w
    dr = np.array([1 / b, -a / b**2])
    return gradient_answer((np.sin(r) + w) * w, by_r * dr + by_w * (dr - np.array([0, np.exp(b)])))


def _graph(x: Any) -> Any:
    """(x1 x2 sin x3 + e^(x1 x2)) / x3."""
    xp = ad.array_namespace(x)
    product = x[0] * x[1]
    return (product * xp.sin(x[2]) + xp.exp(product)) / x[2]


def _graph_answer(x: Vector) -> Answer:
    a, b, c = np.asarray(x, float)
    value = (a * b * np.sin(c) + np.exp(a * b)) / c
    by_product = (np.sin(c) + np.exp(a * b)) / c
    return gradient_answer(value, np.array([b * by_product, a * by_product, (a * b * np.cos(c) - value) / c]))


def _rosenbrock(x: Any) -> Any:
    """100 (x2 - x1^2)^2 + (1 - x1)^2."""
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


def _rosenbrock_gradient(x: Vector) -> Vector:
    a, b = x
    return np.array([-400 * a * (b - a**2) - 2 * (1 - a), 200 * (b - a**2)])


def _rosenbrock_answer(x: Vector) -> Answer:
    a, b = x = np.asarray(x, float)
    return gradient_answer(100 * (b - a**2) ** 2 + (1 - a) ** 2, _rosenbrock_gradient(x))


def _rosenbrock_slope(x: Any) -> Any:
    """The gradient, by the engine itself: its Jacobian is the Hessian."""
    return ad.grad(_rosenbrock)(x)


def _rosenbrock_slope_answer(x: Vector) -> Answer:
    a, b = x = np.asarray(x, float)
    hessian = np.array([[1200 * a**2 - 400 * b + 2, -400 * a], [-400 * a, 200]])
    return matrix_answer(_rosenbrock_gradient(x), hessian)


def _powell(x: Any) -> Any:
    """(x1 + 10 x2)^2 + 5 (x3 - x4)^2 + (x2 - 2 x3)^4 + 10 (x1 - x4)^4."""
    return (x[0] + 10.0 * x[1]) ** 2 + 5.0 * (x[2] - x[3]) ** 2 + (x[1] - 2.0 * x[2]) ** 4 + 10.0 * (x[0] - x[3]) ** 4


def _powell_answer(x: Vector) -> Answer:
    a, b, c, d = np.asarray(x, float)
    p, q, r, s = a + 10 * b, c - d, b - 2 * c, a - d
    gradient = [2 * p + 40 * s**3, 20 * p + 4 * r**3, 10 * q - 8 * r**3, -10 * q - 40 * s**3]
    return gradient_answer(p**2 + 5 * q**2 + r**4 + 10 * s**4, np.array(gradient))


# Several outputs.


def _two_outputs(x: Any) -> Any:
    """(x1 x2 + sin x1, e^x2 + x1^2)."""
    xp = ad.array_namespace(x)
    return xp.stack([x[0] * x[1] + xp.sin(x[0]), xp.exp(x[1]) + x[0] ** 2])


def _two_outputs_answer(x: Vector) -> Answer:
    a, b = np.asarray(x, float)
    value = np.array([a * b + np.sin(a), np.exp(b) + a**2])
    return matrix_answer(value, np.array([[b + np.cos(a), a], [2 * a, np.exp(b)]]))


def _polar(x: Any) -> Any:
    """(r cos t, r sin t) of (r, t)."""
    xp = ad.array_namespace(x)
    return xp.stack([x[0] * xp.cos(x[1]), x[0] * xp.sin(x[1])])


def _polar_answer(x: Vector) -> Answer:
    r, t = np.asarray(x, float)
    c, s = np.cos(t), np.sin(t)
    return matrix_answer(np.array([r * c, r * s]), np.array([[c, -r * s], [s, r * c]]))


# n variables.


def _product(x: Any) -> Any:
    return ad.array_namespace(x).prod(x)


def _product_answer(x: Vector) -> Answer:
    """At the points of Speelpenning's example, none of which is 0."""
    x = np.asarray(x, float)
    return gradient_answer(np.prod(x), np.prod(x) / x)


def _make_product(n: int, m: int, rng: np.random.Generator) -> Instance:
    """At x_i = i / (i + 1), where the product is 1 / (n + 1)."""
    i = np.arange(1.0, n + 1)
    return Instance(_product, (i / (i + 1),), _product_answer)


ROOT8, PLUS, MINUS = sqrt(8), 1 + sqrt(2), 1 - sqrt(2)


def _helmholtz(x: Any, matrix: Any, b: Any) -> Any:
    """The Helmholtz energy of a mixed fluid, scaled to R T = 1:

    sum_i x_i log(x_i / (1 - v)) - x.A x / (sqrt(8) v) log((1 + (1 + sqrt 2) v) / (1 + (1 - sqrt 2) v)), v = b.x.
    """
    xp = ad.array_namespace(x)
    volume = b @ x
    mixing = xp.sum(x * xp.log(x / (1.0 - volume)))
    excess = xp.log((1.0 + PLUS * volume) / (1.0 + MINUS * volume))
    return mixing - (x @ (matrix @ x)) / (ROOT8 * volume) * excess


def _helmholtz_answer(x: Vector, matrix: Vector, b: Vector) -> Answer:
    """With v = b.x, q = x.A x and E(v) the logarithm: E' = sqrt(8) / ((1 + PLUS v) (1 + MINUS v)), so

    df = log(x / (1 - v)) + 1 + b sum(x) / (1 - v)
         - (A + A') x E / (sqrt(8) v) - b q (E' / v - E / v^2) / sqrt(8).
    """
    x, matrix, b = (np.asarray(part, float) for part in (x, matrix, b))
    v, q = b @ x, x @ matrix @ x
    excess = np.log1p(PLUS * v) - np.log1p(MINUS * v)
    slope = ROOT8 / ((1 + PLUS * v) * (1 + MINUS * v))
    value = np.sum(x * np.log(x / (1 - v))) - q * excess / (ROOT8 * v)
    gradient = np.log(x / (1 - v)) + 1 + b * np.sum(x) / (1 - v)
    gradient -= (matrix + matrix.T) @ x * excess / (ROOT8 * v) + b * q * (slope / v - excess / v**2) / ROOT8
    return gradient_answer(value, gradient)


def _make_helmholtz(n: int, m: int, rng: np.random.Generator) -> Instance:
    """Mole fractions of order 1/n and a volume b.x below 1."""
    matrix = rng.uniform(0.0, 1.0, (n, n))
    args = rng.uniform(0.5, 1.5, n) / n, (matrix + matrix.T) / 2, rng.uniform(0.2, 0.6, n)
    return Instance(_helmholtz, args, _helmholtz_answer)


def _broyden(x: Any) -> Any:
    """f_i = (3 - 2 x_i) x_i - x_{i-1} - 2 x_{i+1} + 1, with x_0 = x_{n+1} = 0."""
    xp = ad.array_namespace(x)
    zero = xp.zeros_like(x[:1])
    before, after = xp.concat([zero, x[:-1]]), xp.concat([x[1:], zero])
    return (3.0 - 2.0 * x) * x - before - 2.0 * after + 1.0


def _broyden_answer(x: Vector) -> Answer:
    """J is tridiagonal: -1, 3 - 4 x_i, -2."""
    x = np.asarray(x, float)
    value = (3 - 2 * x) * x + 1
    value[1:] -= x[:-1]
    value[:-1] -= 2 * x[1:]
    return matrix_answer(value, np.diag(3 - 4 * x) - np.eye(len(x), k=-1) - 2 * np.eye(len(x), k=1))


def _make_broyden(n: int, m: int, rng: np.random.Generator) -> Instance:
    return Instance(_broyden, (np.full(n, -1.0),), _broyden_answer)


# The suite.

SUITE = Suite(
    "textbook",
    (
        _one("cubic", _cubic, lambda x: diagonal_answer(x**3 + 2 * x, 3 * x**2 + 2), 3.0),
        _one("square-plus-one", _square_plus_one, lambda x: diagonal_answer(x**2 + 1, 2 * x), 3.0),
        _one(
            "exp-sin",
            _exp_sin,
            lambda x: diagonal_answer(np.exp(x) * np.sin(x), np.exp(x) * (np.sin(x) + np.cos(x))),
            0.0,
        ),
        _one("complex-step", _quotient, _quotient_answer, 1.5, source=MARTINS),
        _one(
            "complex-step-second",
            _quotient_slope,
            _quotient_slope_answer,
            1.5,
            source=f"{MARTINS}, differentiated once more",
        ),
        _one("logistic-map", _logistic, _logistic_answer, 0.2, source=BAYDIN),
        _one(
            "heron",
            _heron,
            lambda x: diagonal_answer(np.sqrt(x), 0.5 / np.sqrt(x)),
            2.0,
            source="A. Edelman, Automatic differentiation in 10 minutes with Julia (lecture)",
        ),
        _one(
            "perturbation-confusion",
            _confusable,
            lambda x: diagonal_answer(x, np.ones_like(x)),
            1.0,
            source="J. M. Siskind, B. A. Pearlmutter, Perturbation confusion and referential transparency: "
            "correct functional implementation of forward-mode AD, IFL (2005)",
        ),
        _one("survey", _survey, _survey_answer, 2.0, 5.0, source=BAYDIN),
        _one("square-of-sum", _square_of_sum, _square_of_sum_answer, 1.0, 2.0),
        _one("product-sine", _product_sine, _product_sine_answer, 2.0, 3.0, 4.0),
        _one(
            "rall",
            _rall,
            _rall_answer,
            1.0,
            2.0,
            source="L. B. Rall, Automatic Differentiation: Techniques and Applications, Springer (1981)",
        ),
        _one(
            "evaluation-trace",
            _evaluation_trace,
            _evaluation_trace_answer,
            1.5,
            0.5,
            source=GRIEWANK_WALTHER,
        ),
        _one("graph", _graph, _graph_answer, 1.0, 2.0, np.pi / 2, source=NOCEDAL_WRIGHT),
        _one("rosenbrock", _rosenbrock, _rosenbrock_answer, -1.2, 1.0, source=MORE),
        Problem(
            "rosenbrock-hessian",
            _at(_rosenbrock_slope, _rosenbrock_slope_answer, -1.2, 1.0),
            sizes=((2, 2),),
            source=NOCEDAL_WRIGHT,
        ),
        _one("powell-singular", _powell, _powell_answer, 3.0, -1.0, 0.0, 1.0, source=MORE),
        Problem("two-outputs", _at(_two_outputs, _two_outputs_answer, 1.0, 0.0), sizes=((2, 2),)),
        Problem("polar", _at(_polar, _polar_answer, 2.0, np.pi / 6), sizes=((2, 2),)),
        Problem(
            "speelpenning",
            _make_product,
            sizes=((10, 1),),
            free="n",
            source="B. Speelpenning, Compiling fast partial derivatives of functions given by algorithms, thesis "
            f"(1980); {GRIEWANK_WALTHER}",
        ),
        Problem(
            "helmholtz",
            _make_helmholtz,
            sizes=((10, 1),),
            free="n",
            source="A. Griewank, On automatic differentiation, in Mathematical Programming, Kluwer (1989)",
        ),
        Problem(
            "broyden-tridiagonal",
            _make_broyden,
            sizes=((10, 10),),
            free="n",
            source=MORE,
        ),
    ),
    "worked examples of the literature, with their printed answers",
)
