"""Taylor series: closed forms, every primitive against nested forward mode, composition with the other modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import primitives
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.taylor import taylor_kind
from adbridge.operators import Operator
from conftest import backend_params
from rule_rows import ROWS, Row
from test_reference import BINARY, KEYS, NUMPY, REDUCTIONS, UNARY, compose, operands, random

B = "reference"


def taylor(fun: Any, x: Any, direction: Any, order: int) -> list[Any]:
    return ad.taylor(fun, x, direction, order, backend=B)


def nested(fun: Any, x: Any, direction: Any, order: int) -> list[Any]:
    """By forward mode over forward mode: no series involved."""
    derivatives = [fun(x)]
    for k in range(1, order + 1):
        fun = (lambda f: lambda x: ad.jvp(f, (x,), (direction,), backend=B)[1])(fun)
        derivatives.append(fun(x) / math.factorial(k))
    return derivatives


def check(fun: Any, x: Any, direction: Any, order: int = 4, tolerance: float = 1e-11) -> None:
    expected = nested(fun, x, direction, order)
    for got, wanted in zip(taylor(fun, x, direction, order), expected, strict=True):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        np.testing.assert_allclose(
            got, wanted, rtol=tolerance, atol=tolerance * max(1.0, np.max(np.abs(wanted), initial=0))
        )


@pytest.mark.parametrize("row", [r for r in ROWS if not r.hermitian], ids=str)
def test_every_row(row: Row) -> None:
    """Every primitive of the rule tables, where it is smooth and well within its domain."""
    if taylor_kind(PRIMITIVES[row.name]) == "none":
        pytest.skip("has no derivative")
    args = [np.asarray(a) for a in row.args]
    if row.elementwise:
        tame = np.all([(np.abs(a) > 1e-3) & (np.abs(a) < 1e3) for a in args], axis=0)
        args = [a[tame] for a in args]
    tangents = [random(a.shape, i, a.dtype) * 1e-2 for i, a in enumerate(args)]
    with np.errstate(all="ignore"):
        expected = _nested_of_several(row.fun, args, tangents)
        got = ad.taylor(lambda args: row.fun(*args), args, tangents, 3, backend=B)
    for ours, wanted in zip(got, expected, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-8, atol=max(1e-14, 1e-8 * np.max(np.abs(wanted), initial=0)))


def _nested_of_several(fun: Any, args: list[Any], tangents: list[Any]) -> list[Any]:
    derivatives = [fun(*args)]
    for k in (1, 2, 3):
        fun = (lambda f: lambda *xs: ad.jvp(f, xs, tuple(tangents), backend=B)[1])(fun)
        derivatives.append(fun(*args) / math.factorial(k))
    return derivatives


# Closed forms, with rational coefficients where they are rational.


def binomial(p: float, k: int) -> float:
    return math.prod((p - i) / (i + 1) for i in range(k))


def tangent_numbers(k: int) -> Fraction:
    """Coefficients of tan, by tan' = 1 + tan^2 in rational numbers."""
    known = [Fraction(0)]
    for i in range(k):
        known.append((Fraction(i == 0) + sum(known[j] * known[i - j] for j in range(i + 1))) / (i + 1))
    return known[k]


CLOSED: dict[str, tuple[Callable[[Any], Any], float, Callable[[int], Any]]] = {
    "exp": (xp.exp, 0.0, lambda k: 1 / math.factorial(k)),
    "exp away": (xp.exp, 1.5, lambda k: math.exp(1.5) / math.factorial(k)),
    "log": (lambda x: xp.log(1 + x), 0.0, lambda k: 0 if k == 0 else (-1) ** (k + 1) / k),
    "log at 2": (xp.log, 2.0, lambda k: math.log(2) if k == 0 else -((-0.5) ** k) / k),
    "sin": (xp.sin, 0.0, lambda k: [0, 1, 0, -1][k % 4] / math.factorial(k)),
    "cos": (xp.cos, 0.0, lambda k: [1, 0, -1, 0][k % 4] / math.factorial(k)),
    "tan": (xp.tan, 0.0, lambda k: float(tangent_numbers(k))),
    "tanh": (xp.tanh, 0.0, lambda k: float(tangent_numbers(k)) * (1 if k % 4 == 1 else -1)),
    "sinh": (xp.sinh, 0.0, lambda k: (k % 2) / math.factorial(k)),
    "geometric": (lambda x: 1 / (1 - x), 0.0, lambda k: 1.0),
    "reciprocal": (xp.reciprocal, 1.0, lambda k: (-1) ** k),
    "sqrt": (xp.sqrt, 1.0, lambda k: binomial(0.5, k)),
    "pow": (lambda x: x**2.5, 1.0, lambda k: binomial(2.5, k)),
    "pow at 4": (lambda x: x**-1.5, 4.0, lambda k: binomial(-1.5, k) * 4.0 ** (-1.5 - k)),
    "2 ** x": (lambda x: 2.0**x, 0.0, lambda k: math.log(2) ** k / math.factorial(k)),
    "square": (lambda x: x**2, 3.0, lambda k: [9, 6, 1][k] if k < 3 else 0),
    "cube at 0": (lambda x: x**3, 0.0, lambda k: float(k == 3)),
    "cube": (lambda x: x**3, 2.0, lambda k: math.comb(3, k) * 2.0 ** (3 - k) if k < 4 else 0),
    "seventh power at 0": (lambda x: x**7, 0.0, lambda k: float(k == 7)),
    "array power at 0": (lambda x: x ** np.array(3), 0.0, lambda k: float(k == 3)),
    "zeroth power": (lambda x: x**0, 0.0, lambda k: float(k == 0)),
    "atan": (xp.atan, 0.0, lambda k: (-1) ** (k // 2) / k if k % 2 else 0),
    "asin": (xp.asin, 0.0, lambda k: math.comb(k - 1, k // 2) / 2 ** (k - 1) / k if k % 2 else 0),
    "atanh": (xp.atanh, 0.0, lambda k: 1 / k if k % 2 else 0),
    "hypot": (lambda x: xp.hypot(x, 1.0), 0.0, lambda k: 0 if k % 2 else binomial(0.5, k // 2)),
    "logaddexp": (  # log(1 + e^x) - log 2 = x / 2 + x^2 / 8 - x^4 / 192 + x^6 / 2880 - 17 x^8 / 645120 + ...
        lambda x: xp.logaddexp(x, 0.0),
        0.0,
        lambda k: {0: math.log(2), 1: 0.5, 2: 1 / 8, 4: -1 / 192, 6: 1 / 2880, 8: -17 / 645120}.get(k, 0),
    ),
    "abs": (xp.abs, -1.0, lambda k: [1, -1][k] if k < 2 else 0),
    "floor": (lambda x: xp.floor(x) * x, 2.5, lambda k: [5, 2][k] if k < 2 else 0),
    "constant": (lambda x: np.float64(3.0), 2.5, lambda k: 3.0 if k == 0 else 0),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str) -> None:
    fun, x, coefficient = CLOSED[name]
    got = taylor(fun, x, 1.0, 9)
    np.testing.assert_allclose(got, [coefficient(k) for k in range(10)], rtol=1e-13, atol=1e-15)
    # Along -2 t: coefficient k times (-2)^k.
    scaled = [coefficient(k) * (-2.0) ** k for k in range(10)]
    np.testing.assert_allclose(taylor(fun, x, -2.0, 9), scaled, rtol=1e-13, atol=1e-12)


def test_order_30() -> None:
    k = np.arange(31)
    np.testing.assert_allclose(taylor(lambda x: 1 / (1 - x), 0.5, 1.0, 30), 2.0 ** (k + 1), rtol=1e-14)
    np.testing.assert_allclose(taylor(xp.log, 2.0, 1.0, 30)[1:], -((-0.5) ** k[1:]) / k[1:], rtol=1e-13)
    expected = [(-1.0) ** (i // 2) / math.factorial(i) if i % 2 else 0.0 for i in k]
    np.testing.assert_allclose(taylor(xp.sin, 0.0, 1.0, 30), expected, rtol=1e-14)
    expected = [math.cos(1.0 + i * math.pi / 2) / math.factorial(i) for i in k]
    np.testing.assert_allclose(taylor(xp.cos, 1.0, 1.0, 30), expected, rtol=1e-13)
    composed = taylor(lambda x: xp.exp(xp.log(xp.sqrt(x)) * 2) - x, 3.0, 1.0, 30)
    np.testing.assert_allclose(composed, 0, atol=1e-14)


def test_against_ball_arithmetic() -> None:
    """A composition, to order 20, by Arb's own power series."""
    flint = pytest.importorskip("flint")

    def ours(x: Any) -> Any:
        return xp.exp(xp.sin(x) / (1 + x * x)) * xp.atan(x) + xp.sqrt(1 + xp.tanh(x) ** 2)

    before = flint.ctx.prec, flint.ctx.cap
    try:
        flint.ctx.prec, flint.ctx.cap = 200, 21
        x = flint.arb_series([flint.arb("0.3125"), 1])
        e = (2 * x).exp()
        tanh = (e - 1) / (e + 1)
        series = (x.sin() / (1 + x * x)).exp() * x.atan() + (1 + tanh * tanh).sqrt()
        expected = [float(series[k].mid()) for k in range(21)]
    finally:
        flint.ctx.prec, flint.ctx.cap = before
    np.testing.assert_allclose(taylor(ours, 0.3125, 1.0, 20), expected, rtol=1e-12)


# Every primitive, against nested forward mode.


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_unary(row: Any) -> None:
    x = np.array(row.at)
    check(PRIMITIVES[row.name], x, random(x.shape, 5))
    check(lambda x: PRIMITIVES[row.name](x * x / np.array(row.at)), x, random(x.shape, 5))
    if row.complex_too:
        z = x + 1j * np.linspace(0.1, 0.4, len(x))
        check(PRIMITIVES[row.name], z, random(z.shape, 7, complex))


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_unary_in_single_precision(row: Any) -> None:
    x = np.array(row.at, np.float32)
    got = taylor(PRIMITIVES[row.name], x, np.ones_like(x), 3)
    expected = taylor(PRIMITIVES[row.name], x.astype(float), np.ones(x.shape), 3)
    for ours, wanted in zip(got, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shapes", [((), ()), ((3,), (3,)), ((2, 1), (1, 3)), ((), (2, 2))], ids=str)
@pytest.mark.parametrize("row", BINARY, ids=lambda row: row.name)
def test_binary(row: Any, shapes: Any) -> None:
    a, b = operands(row, shapes)
    n = a.size
    ab, t = np.concatenate([a.ravel(), b.ravel()]), random((n + b.size,), 8)

    def both(ab: Any) -> Any:
        return PRIMITIVES[row.name](xp.reshape(ab[:n], a.shape), xp.reshape(ab[n:], b.shape))

    check(both, ab, t)
    check(lambda a: PRIMITIVES[row.name](a, b), a, random(a.shape, 9))
    check(lambda b: PRIMITIVES[row.name](a, b), b, random(b.shape, 9))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_array_functions(name: str) -> None:
    check(lambda x: REDUCTIONS[name](x * x), random((2, 4)), random((2, 4), 3))


@pytest.mark.parametrize("name", NUMPY)
def test_plain_numpy(name: str) -> None:
    check(lambda x: NUMPY[name](x * x), random((2, 3)), random((2, 3), 1), order=3)


@pytest.mark.parametrize("name", KEYS)
def test_indexing(name: str) -> None:
    check(lambda x: x[KEYS[name]] * x[KEYS[name]], random((3, 4)), random((3, 4), 1), order=3)


def test_writes() -> None:
    def fun(x: Any) -> Any:
        y = x * x
        y[0] = y[1] * x[2]
        y[1:] += xp.sin(y[:2])
        row = y[::2]
        row[0] = 5.0 * x[1]
        return y * xp.sum(row)

    check(fun, random((3,)), random((3,), 1))


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((3,), (5, 3, 2))], ids=str)
def test_matrix_products(shapes: Any) -> None:
    a, b = random(shapes[0], 0), random(shapes[1], 1)
    check(lambda a: xp.matmul(a * a, b), a, random(a.shape, 2))
    check(lambda b: xp.matmul(xp.exp(a * xp.sum(b)), b * b), b, random(b.shape, 2))


def test_chain_of_matrix_products() -> None:
    """(A + t D)^3 in closed form."""
    a, d = random((3, 3)), random((3, 3), 1)
    expected = [a @ a @ a, d @ a @ a + a @ d @ a + a @ a @ d, d @ d @ a + d @ a @ d + a @ d @ d, d @ d @ d, 0 * a]
    got = taylor(lambda a: a @ a @ a, a, d, 4)
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


def test_linear_in_several_operands() -> None:
    """A primitive that is linear in each of three arguments: x (2 x) sin x, by hand."""
    triple = primitives.primitive("triple", lambda a, b, c: a * b * c)
    rules = [lambda ct, a, b, c: ct * b * c, lambda ct, a, b, c: ct * a * c, lambda ct, a, b, c: ct * a * b]
    primitives.deflinear(triple, primitives.elementwise_spec, *rules)
    try:
        got = taylor(lambda x: triple(x, 2 * x, xp.sin(x)), 0.7, 1.0, 6)
        np.testing.assert_allclose(got, taylor(lambda x: x * (2 * x) * xp.sin(x), 0.7, 1.0, 6), rtol=1e-13)
        assert taylor_kind(triple) == "product"
    finally:
        del PRIMITIVES["triple"]


def test_bundle() -> None:
    """Several results at once, whose rule uses them: (sin x, cos x)."""

    def rule(t: Any, y: Any, x: Any) -> Any:
        sin, cos = (primitives.pick(y, index=i) for i in (0, 1))
        return t * cos, -t * sin

    pair = primitives.bundle("sincos", lambda x: (np.sin(x), np.cos(x)), rule)
    try:
        both = taylor(lambda x: [primitives.pick(pair(x * x), index=i) for i in (0, 1)], 0.6, 1.0, 8)
        sin, cos = taylor(lambda x: xp.sin(x * x), 0.6, 1.0, 8), taylor(lambda x: xp.cos(x * x), 0.6, 1.0, 8)
        np.testing.assert_allclose(both, np.stack([sin, cos], axis=1), rtol=1e-13)
    finally:
        del PRIMITIVES["sincos"]


def test_newton_for_a_root_as_a_function_of_its_equation() -> None:
    """y^2 = x by Newton's iteration: each step doubles the number of right coefficients."""

    def root(x: Any) -> Any:
        y = x / x
        for _ in range(7):
            y = (y + x / y) / 2
        return y

    np.testing.assert_allclose(taylor(root, 1.2, 1.0, 8), taylor(xp.sqrt, 1.2, 1.0, 8), rtol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_random_compositions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = [tuple(map(int, rng.integers(0, 99, 3))) for _ in range(6)]
    check(compose(program), rng.uniform(-1.2, 1.2, 4), rng.uniform(-1, 1, 4), order=4, tolerance=1e-9)


# Kinks and ends of domains.


def test_the_piece_of_t_0() -> None:
    x, t = np.array([-1.0, 0.0, 2.0]), np.ones(3)
    np.testing.assert_array_equal(taylor(xp.abs, x, t, 3), [[1, 0, 2], [-1, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(taylor(lambda x: xp.maximum(x, 0.0), x, t, 2), [[0, 0, 2], [0, 0.5, 1], [0, 0, 0]])
    unsafe = taylor(lambda x: xp.where(x > 0, x * x, 0.0), x, t, 2)
    np.testing.assert_array_equal(unsafe, [[0, 0, 4], [0, 0, 4], [0, 0, 1]])


def test_ends_of_domains_are_not_hidden() -> None:
    with np.errstate(all="ignore"):
        assert np.isinf(taylor(xp.sqrt, 0.0, 1.0, 1)[1])
        assert not np.any(np.isfinite(taylor(xp.log, 0.0, 1.0, 3)))
        # x^2.5 at 0: two derivatives are 0, the third is infinite.
        got = taylor(lambda x: x**2.5, 0.0, 1.0, 3)
        assert got[:3] == [0, 0, 0] and not np.isfinite(got[3])


# Structure, dtypes, orders.


def test_trees() -> None:
    def fun(p: Any) -> Any:
        return {"a": p["x"] * p["y"][0], "b": (xp.sum(p["x"]), p["y"][1])}

    x = {"x": np.array([1.0, 2.0]), "y": [3.0, np.float32(4.0)]}
    d = {"x": np.array([1.0, 0.0]), "y": [2.0, np.float32(1.0)]}
    got = taylor(fun, x, d, 2)
    assert len(got) == 3 and all(set(tree) == {"a", "b"} for tree in got)
    np.testing.assert_array_equal([tree["a"] for tree in got], [[3, 6], [5, 4], [2, 0]])
    assert [tree["b"] for tree in got] == [(3, 4), (1, 1), (0, 0)]
    assert got[1]["b"][1].dtype == np.float32


def test_orders_0_and_1() -> None:
    x, t = random((3,)), random((3,), 1)
    (only,) = taylor(xp.sin, x, t, 0)
    np.testing.assert_array_equal(only, np.sin(x))
    first = taylor(xp.sin, x, t, 1)
    np.testing.assert_array_equal(first, ad.jvp(xp.sin, (x,), (t,), backend=B))


def test_precision_is_kept() -> None:
    x = np.array([0.5, 1.5], np.float32)
    for coefficient in taylor(lambda x: xp.exp(x) / (1 + x**2.5) @ x, x, np.ones_like(x), 4):
        assert coefficient.dtype == np.float32
    z = taylor(lambda x: xp.exp(1j * x), 0.0, 1.0, 4)
    np.testing.assert_allclose(z, [1j**k / math.factorial(k) for k in range(5)], rtol=1e-15)


def test_long_arrays() -> None:
    """Squares of long arrays are summed in another way."""
    fun = lambda x: xp.exp(xp.sin(x)) ** 2 * x  # noqa: E731
    x = np.linspace(0.1, 1.0, 10_001)
    long, short = taylor(fun, x, np.ones_like(x), 7), taylor(fun, x[::1000], np.ones(11), 7)
    np.testing.assert_allclose([c[::1000] for c in long], short, rtol=1e-12)
    grid = taylor(fun, x[:10_000].reshape(100, 100), np.ones((100, 100)), 7)
    np.testing.assert_array_equal(np.reshape(grid, (8, -1)), [c[:10_000] for c in long])


def test_empty_and_strided() -> None:
    assert [c.shape for c in taylor(lambda x: xp.exp(x) * x, np.ones((0, 2)), np.ones((0, 2)), 3)] == [(0, 2)] * 4
    x = np.linspace(0.1, 1, 12).reshape(3, 4).T[::2]
    check(lambda x: xp.exp(x) * x, x, np.broadcast_to(np.ones(3), (2, 3)))


# With the other modes.


def f(x: Any) -> Any:
    return xp.sin(x) * xp.exp(x * x) / (2 + x)


def test_gradient_of_a_coefficient() -> None:
    """d/dx of f''(x) / 2 is f'''(x) / 2, and so on."""
    x = 0.4
    series = taylor(f, x, 1.0, 6)
    for k in range(5):
        coefficient = lambda x, k=k: taylor(f, x, 1.0, k)[k]  # noqa: E731
        for derivative in (
            ad.grad(coefficient, backend=B)(x),
            ad.jvp(coefficient, (x,), (1.0,), backend=B)[1],
            taylor(coefficient, x, 1.0, 1)[1],
        ):
            np.testing.assert_allclose(derivative, (k + 1) * series[k + 1], rtol=1e-12)
    by_direction = ad.grad(lambda d: taylor(f, x, d, 3)[3], backend=B)(2.0)  # coefficient 3 is cubic in d
    np.testing.assert_allclose(by_direction, 3 * 2.0**2 * series[3], rtol=1e-12)


def test_series_of_a_gradient() -> None:
    series = taylor(f, 0.4, 1.0, 6)
    for inner in (ad.grad(f, backend=B), lambda x: ad.jvp(f, (x,), (1.0,), backend=B)[1]):
        got = taylor(inner, 0.4, 1.0, 5)
        np.testing.assert_allclose(got, [(k + 1) * series[k + 1] for k in range(6)], rtol=1e-11)
    x, t = random((3,)), random((3,), 1)
    vector = ad.grad(lambda x: xp.sum(f(x) * x), backend=B)
    check(vector, x, t)


def test_levels_are_kept_apart() -> None:
    """d/dx [x d/dy (x y)] = 2 x: an inner series must not see the outer one's direction."""
    got = taylor(lambda x: x * taylor(lambda y: x * y, 1.0, 1.0, 1)[1], 3.0, 1.0, 2)
    np.testing.assert_array_equal(got, [9, 6, 1])


@pytest.mark.parametrize("backend", backend_params())
def test_every_backend(backend: str) -> None:
    def fun(x: Any) -> Any:
        xp = ad.array_namespace(x)
        return xp.exp(x) * xp.sin(x), xp.sum(x * x)

    x, t = np.array([0.3, -0.7]), np.array([1.0, 0.5])
    got = ad.taylor(fun, x, t, 3, backend=backend)
    # exp(x) sin(x) is the imaginary part of exp((1 + i) x).
    factor = [(1 + 1j) ** k / math.factorial(k) for k in range(4)]
    np.testing.assert_allclose(
        [c[0] for c in got], [np.imag(z * np.exp((1 + 1j) * x)) * t**k for k, z in enumerate(factor)], rtol=1e-10
    )
    np.testing.assert_allclose(
        [c[1] for c in got], [np.sum(x * x), 2 * np.sum(x * t), np.sum(t * t), 0], rtol=1e-10, atol=1e-12
    )
    assert all(isinstance(c[0], np.ndarray) and c[0].dtype == np.float64 for c in got)


def test_a_backend_that_nests_less_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = ad.get_backend("zero")
    monkeypatch.setattr(type(zero), "capabilities", ad.Capabilities(max_order=1))
    assert len(ad.taylor(lambda x: x, 1.0, 1.0, 1, backend="zero")) == 2
    with pytest.raises(
        ad.CapabilityError, match="nests derivatives to order 1, and a Taylor series of order 2 was asked"
    ):
        ad.taylor(lambda x: x, 1.0, 1.0, 2, backend="zero")


# Wrong uses.


@pytest.mark.parametrize("order", [-1, 1.5, None, "2"])
def test_order_is_a_natural_number(order: Any) -> None:
    with pytest.raises(ad.SignatureMismatch, match="taylor needs order as a natural number, 0 or more; got"):
        taylor(xp.sin, 1.0, 1.0, order)


def test_direction_is_like_x() -> None:
    x = np.ones(3)
    with pytest.raises(
        ad.SignatureMismatch, match=r"direction has the wrong shape: expected float64\[3\] like x, got float64\[2\]"
    ):
        taylor(xp.sin, x, np.ones(2), 2)
    with pytest.raises(ad.SignatureMismatch, match=r"direction\['a'\] has the wrong dtype"):
        taylor(lambda p: p["a"], {"a": x}, {"a": np.ones(3, np.float32)}, 2)
    with pytest.raises(ad.SignatureMismatch, match="direction must have the tree structure of x"):
        taylor(xp.sin, x, [x], 2)
    with pytest.raises(ad.NotDifferentiable, match="derivatives need floating inputs"):
        taylor(xp.sin, np.arange(3), np.arange(3), 2)


def test_leaks_and_missing_rules() -> None:
    leaked: list[Any] = []
    taylor(lambda x: leaked.append(x) or x * x, 1.0, 1.0, 2)
    with pytest.raises(ad.NotDifferentiable, match="the tracer leaked"):
        leaked[0] * 2
    without = primitives.primitive("frobnicate", np.cbrt)
    try:
        with pytest.raises(ad.NotDifferentiable, match="no derivative rule for 'frobnicate'"):
            taylor(without, 2.0, 1.0, 2)
        assert taylor_kind(without) == "none"
    finally:
        del PRIMITIVES["frobnicate"]
    # The trace that failed leaves nothing behind.
    assert taylor(xp.square, 2.0, 1.0, 2) == [4, 4, 1]


def test_kinds() -> None:
    kinds = {name: taylor_kind(PRIMITIVES[name]) for name in PRIMITIVES}
    assert {kinds[name] for name in ("add", "sum", "concat", "where", "getitem", "set_at", "astype")} == {"linear"}
    assert {kinds[name] for name in ("multiply", "divide", "matmul", "square", "reciprocal")} == {"product"}
    assert {kinds[name] for name in ("sin", "pow", "max", "abs", "hypot", "sign")} == {"from the JVP rule"}
    assert {kinds[name] for name in ("floor", "equal", "argmax", "isnan")} == {"constant"}
    assert "none" not in kinds.values()


def test_cost_grows_as_the_square_of_the_order() -> None:
    """Counted, not timed: how often NumPy multiplies, for each order."""

    def products(order: int) -> int:
        count = 0

        def impl(a: Any, b: Any) -> Any:
            nonlocal count
            count += 1
            return np.matmul(a, b)

        matmul = PRIMITIVES["matmul"]
        before, matmul.impl = matmul.impl, impl
        try:
            taylor(lambda a: a @ a, np.eye(2), np.eye(2), 1)
            count = 0
            taylor(lambda a: xp.exp(a) @ xp.exp(a), np.eye(2), np.eye(2), order)
        finally:
            matmul.impl = before
        return count

    counts = [products(order) for order in (4, 9, 19)]
    assert all(n == sum(range(1, order + 2)) for n, order in zip(counts, (4, 9, 19), strict=True))
    assert all(b < 4.5 * a for a, b in pairwise(counts))


@pytest.mark.parametrize("compiler", ["numpy", "llvm"])
def test_a_series_can_be_prepared(compiler: str) -> None:
    if compiler == "llvm":
        pytest.importorskip("llvmlite")
    backend = ad.get_backend("reference", compiler=compiler)
    operator = Operator("taylor", lambda x: np.sin(x["a"]) * np.exp(x["a"] - x["b"]), backend=backend, order=6)
    x = {"a": np.linspace(-1.0, 1.0, 5), "b": np.linspace(0.5, 2.0, 5)}
    d = {"a": np.ones(5), "b": np.full(5, 2.0)}
    prepared = ad.prepare(operator, x, d)
    # sin(a + t) exp(a - b - t) is the imaginary part of exp(a - b + i a) exp((i - 1) t).
    y = {"a": x["a"] + 0.25, "b": x["b"] * 0.5}
    start = np.exp(y["a"] - y["b"] + 1j * y["a"])
    for k, coefficient in enumerate(prepared(y, d)):
        np.testing.assert_allclose(
            coefficient, (start * (1j - 1) ** k).imag / math.factorial(k), rtol=1e-13, atol=1e-14
        )
    with pytest.raises(ad.SignatureMismatch):
        prepared(y, {"a": np.ones(4), "b": np.ones(5)})
