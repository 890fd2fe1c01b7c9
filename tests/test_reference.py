"""The reference engine: every primitive's rules, indexing, NumPy on tracers, programs, and its refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import primitives, transforms
from adbridge.backends.reference.primitives import PRIMITIVES, primitive
from adbridge.backends.reference.program import evaluate
from adbridge.backends.reference.rules import shaping
from adbridge.backends.reference.tracer import Tracer

B = "reference"


def jvp(fun: Any, primals: Any, tangents: Any) -> Any:
    return ad.jvp(fun, tuple(primals), tuple(tangents), backend=B)


def pull(fun: Any, primals: Any, cotangents: Any) -> Any:
    return ad.vjp(fun, *primals, backend=B)[1](cotangents)


def random(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    real = rng.uniform(-1.0, 1.0, shape)
    return (real + 1j * rng.uniform(-1.0, 1.0, shape) if np.dtype(dtype).kind == "c" else real).astype(dtype)


def pairing(a: Any, b: Any) -> float:
    """Re sum(a b), the pairing in which our cotangents live."""
    return float(np.real(np.sum(np.asarray(a) * np.asarray(b))))


def check_adjoint(fun: Any, *primals: np.ndarray, tolerance: float = 1e-12) -> None:
    """<w, J v> = <J^T w, v>, with the same at second order."""
    tangents = [random(x.shape, 1, x.dtype) for x in primals]
    out, pushed = jvp(fun, primals, tangents)
    weights = random(out.shape, 2, out.dtype)
    pulled = pull(fun, primals, weights)
    left = pairing(weights, pushed)
    right = sum(pairing(p, t) for p, t in zip(pulled, tangents, strict=True))
    scale = sum(pairing(np.abs(p), np.abs(t)) for p, t in zip(pulled, tangents, strict=True))
    assert abs(left - right) <= tolerance * max(1.0, scale)


# Elementwise primitives: derivatives to second order in closed form, written out once more.


@dataclass(frozen=True)
class Unary:
    name: str
    numpy: Callable[..., Any]
    first: Callable[..., Any]
    second: Callable[..., Any]
    at: tuple[float, ...] = (-0.7, -0.1, 0.3, 0.8)
    complex_too: bool = True


ln2, ln10 = np.log(2.0), np.log(10.0)
POSITIVE = (0.2, 0.9, 1.7, 5.0)
UNARY = [
    Unary("negative", np.negative, lambda x: -1 + 0 * x, lambda x: 0 * x),
    Unary("square", np.square, lambda x: 2 * x, lambda x: 2 + 0 * x),
    Unary("sqrt", np.sqrt, lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5, POSITIVE),
    Unary("reciprocal", np.reciprocal, lambda x: -(x**-2), lambda x: 2 * x**-3, (-2.0, -0.5, 0.7)),
    Unary("exp", np.exp, np.exp, np.exp),
    Unary("exp2", np.exp2, lambda x: ln2 * 2.0**x, lambda x: ln2**2 * 2.0**x),
    Unary("expm1", np.expm1, np.exp, np.exp),
    Unary("log", np.log, lambda x: 1 / x, lambda x: -1 / x**2, POSITIVE),
    Unary("log1p", np.log1p, lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2),
    Unary("log2", np.log2, lambda x: 1 / (x * ln2), lambda x: -1 / (x**2 * ln2), POSITIVE),
    Unary("log10", np.log10, lambda x: 1 / (x * ln10), lambda x: -1 / (x**2 * ln10), POSITIVE),
    Unary("sin", np.sin, np.cos, lambda x: -np.sin(x)),
    Unary("cos", np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x)),
    Unary("tan", np.tan, lambda x: 1 / np.cos(x) ** 2, lambda x: 2 * np.tan(x) / np.cos(x) ** 2),
    Unary("asin", np.arcsin, lambda x: (1 - x**2) ** -0.5, lambda x: x * (1 - x**2) ** -1.5),
    Unary("acos", np.arccos, lambda x: -((1 - x**2) ** -0.5), lambda x: -x * (1 - x**2) ** -1.5),
    Unary("atan", np.arctan, lambda x: 1 / (1 + x**2), lambda x: -2 * x / (1 + x**2) ** 2),
    Unary("sinh", np.sinh, np.cosh, np.sinh),
    Unary("cosh", np.cosh, np.sinh, np.cosh),
    Unary("tanh", np.tanh, lambda x: 1 / np.cosh(x) ** 2, lambda x: -2 * np.tanh(x) / np.cosh(x) ** 2),
    Unary("asinh", np.arcsinh, lambda x: (1 + x**2) ** -0.5, lambda x: -x * (1 + x**2) ** -1.5),
    Unary("acosh", np.arccosh, lambda x: (x**2 - 1) ** -0.5, lambda x: -x * (x**2 - 1) ** -1.5, (1.2, 2.5, 9.0)),
    Unary("atanh", np.arctanh, lambda x: 1 / (1 - x**2), lambda x: 2 * x / (1 - x**2) ** 2),
    Unary("abs", np.abs, np.sign, lambda x: 0 * x, complex_too=False),
    Unary("real", np.real, lambda x: 1 + 0 * x, lambda x: 0 * x, complex_too=False),
    Unary("imag", np.imag, lambda x: 0 * x, lambda x: 0 * x, complex_too=False),
    Unary("conj", np.conj, lambda x: 1 + 0 * x, lambda x: 0 * x, complex_too=False),
    *(
        Unary(name, getattr(np, name), lambda x: 0 * x, lambda x: 0 * x, complex_too=False)
        for name in ("sign", "floor", "ceil", "round", "trunc")
    ),
]


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_unary_rule(row: Unary) -> None:
    x, t = np.array(row.at), random((len(row.at),), 5)
    out, pushed = jvp(PRIMITIVES[row.name], (x,), (t,))
    np.testing.assert_array_equal(out, row.numpy(x))
    np.testing.assert_allclose(pushed, row.first(x) * t, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(pull(PRIMITIVES[row.name], (x,), t)[0], row.first(x) * t, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_unary_rule_to_second_order(row: Unary) -> None:
    x, t = np.array(row.at), random((len(row.at),), 6)

    def forward(x: Any) -> Any:
        return jvp(PRIMITIVES[row.name], (x,), (t,))[1]

    def reverse(x: Any) -> Any:
        return pull(PRIMITIVES[row.name], (x,), t)[0]

    for first in (forward, reverse):
        np.testing.assert_allclose(jvp(first, (x,), (t,))[1], row.second(x) * t * t, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(pull(first, (x,), t)[0], row.second(x) * t * t, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("row", [r for r in UNARY if r.complex_too], ids=lambda row: row.name)
def test_unary_rule_of_complex_numbers(row: Unary) -> None:
    z = np.array(row.at) + 1j * np.linspace(0.1, 0.4, len(row.at))
    t = random(z.shape, 7, complex)
    np.testing.assert_allclose(jvp(PRIMITIVES[row.name], (z,), (t,))[1], row.first(z) * t, rtol=1e-11)
    np.testing.assert_allclose(pull(PRIMITIVES[row.name], (z,), t)[0], row.first(z) * t, rtol=1e-11)
    assert pull(PRIMITIVES[row.name], (z,), t)[0].dtype == np.complex128


@pytest.mark.parametrize("row", UNARY, ids=lambda row: row.name)
def test_unary_rule_in_single_precision(row: Unary) -> None:
    x = np.array(row.at, np.float32)
    out, pushed = jvp(PRIMITIVES[row.name], (x,), (np.ones_like(x),))
    (pulled,) = pull(PRIMITIVES[row.name], (x,), np.ones_like(out))
    assert out.dtype == pushed.dtype == pulled.dtype == np.float32
    np.testing.assert_allclose(pushed, row.first(x.astype(float)), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(pulled, row.first(x.astype(float)), rtol=2e-5, atol=1e-6)


@dataclass(frozen=True)
class Binary:
    """First derivatives by a and b; second ones are checked through the first's complex step."""

    name: str
    by_a: Callable[..., Any]
    by_b: Callable[..., Any]
    positive: bool = False
    smooth: bool = True


BINARY = [
    Binary("add", lambda a, b: 1 + 0 * (a + b), lambda a, b: 1 + 0 * (a + b)),
    Binary("subtract", lambda a, b: 1 + 0 * (a + b), lambda a, b: -1 + 0 * (a + b)),
    Binary("multiply", lambda a, b: b + 0 * a, lambda a, b: a + 0 * b),
    Binary("divide", lambda a, b: 1 / b + 0 * a, lambda a, b: -a / b**2),
    Binary("pow", lambda a, b: b * a ** (b - 1), lambda a, b: np.log(a) * a**b, positive=True),
    Binary("atan2", lambda a, b: b / (a**2 + b**2), lambda a, b: -a / (a**2 + b**2)),
    Binary("hypot", lambda a, b: a / (a**2 + b**2) ** 0.5, lambda a, b: b / (a**2 + b**2) ** 0.5),
    Binary("logaddexp", lambda a, b: 1 / (1 + np.exp(b - a)), lambda a, b: 1 / (1 + np.exp(a - b))),
    Binary("maximum", lambda a, b: 1.0 * (a > b), lambda a, b: 1.0 * (b > a), smooth=False),
    Binary("minimum", lambda a, b: 1.0 * (a < b), lambda a, b: 1.0 * (b < a), smooth=False),
    Binary("remainder", lambda a, b: 1 + 0 * (a + b), lambda a, b: -np.floor(a / b), smooth=False),
    Binary("copysign", lambda a, b: np.sign(a) * np.sign(b), lambda a, b: 0 * (a + b), smooth=False),
    Binary("floor_divide", lambda a, b: 0 * (a + b), lambda a, b: 0 * (a + b), smooth=False),
]
SHAPES = [
    ((), ()),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 1), (1, 3)),
    ((), (2, 2)),
    ((1, 3), (2, 3)),
    ((0,), (1,)),
]


def operands(row: Binary, shapes: Any, seed: int = 0) -> list[np.ndarray]:
    arrays = [random(shape, seed + i) for i, shape in enumerate(shapes)]
    return [np.abs(a) + 0.3 for a in arrays] if row.positive else [a + 2.5 * np.sign(a) for a in arrays]


def summed_to(x: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A broadcast array summed back to `shape`, by NumPy alone."""
    x = np.asarray(x)
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1), keepdims=True)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("row", BINARY, ids=lambda row: row.name)
def test_binary_rule_and_broadcasting(row: Binary, shapes: Any) -> None:
    a, b = operands(row, shapes)
    ta, tb = random(a.shape, 8), random(b.shape, 9)
    out, pushed = jvp(PRIMITIVES[row.name], (a, b), (ta, tb))
    by_a, by_b = (np.broadcast_to(d(a, b), out.shape) for d in (row.by_a, row.by_b))
    np.testing.assert_allclose(pushed, by_a * ta + by_b * tb, rtol=1e-12, atol=1e-14)
    w = random(out.shape, 10)
    pulled_a, pulled_b = pull(PRIMITIVES[row.name], (a, b), w)
    np.testing.assert_allclose(pulled_a, summed_to(w * by_a, a.shape), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(pulled_b, summed_to(w * by_b, b.shape), rtol=1e-12, atol=1e-14)
    # One operand alone, the other a constant.
    np.testing.assert_allclose(pull(lambda a: PRIMITIVES[row.name](a, b), (a,), w)[0], pulled_a)
    np.testing.assert_allclose(pull(lambda b: PRIMITIVES[row.name](a, b), (b,), w)[0], pulled_b)


@pytest.mark.parametrize("row", [r for r in BINARY if r.smooth], ids=lambda row: row.name)
def test_binary_rule_to_second_order(row: Binary) -> None:
    a, b = operands(row, ((3,), (3,)))
    h = 1e-30
    for i, slope in enumerate((row.by_a, row.by_b)):

        def first(a: Any, b: Any, i: int = i) -> Any:
            return pull(PRIMITIVES[row.name], (a, b), np.ones(3))[i]

        # The closed form's complex step is exact to rounding.
        by_a, by_b = slope(a + 1j * h, b).imag / h, slope(a, b + 1j * h).imag / h
        got = jvp(first, (a, b), (np.ones(3), np.full(3, 2.0)))[1]
        np.testing.assert_allclose(got, by_a + 2 * by_b, rtol=1e-11, atol=1e-13)
        pulled = pull(first, (a, b), np.ones(3))
        np.testing.assert_allclose(pulled, [by_a, by_b], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "pow"])
def test_binary_rule_of_complex_numbers(name: str) -> None:
    row = next(r for r in BINARY if r.name == name)
    a, b = random((3,), 1, complex) + 2, random((3,), 2, complex) + 2
    t = random((3,), 3, complex)
    np.testing.assert_allclose(pull(PRIMITIVES[name], (a, b), t), [row.by_a(a, b) * t, row.by_b(a, b) * t])
    np.testing.assert_allclose(jvp(PRIMITIVES[name], (a, b), (t, 0 * t))[1], row.by_a(a, b) * t)
    # A complex operand with a real one: the real one's cotangent is real.
    real = np.array([1.0, 2.0, 3.0])
    _, by_real = pull(PRIMITIVES[name], (a, real), t)
    assert by_real.dtype == np.float64
    np.testing.assert_allclose(by_real, np.real(row.by_b(a, real) * t))


def test_abs_of_complex_numbers() -> None:
    z = np.array([3 + 4j, -1j, 0j])
    # d|z| pulls back to conj(z) / |z|, and 0 at the origin.
    np.testing.assert_allclose(ad.grad(lambda z: xp.sum(xp.abs(z)), backend=B)(z), [0.6 - 0.8j, 1j, 0])


def test_parts_of_complex_numbers() -> None:
    z, t = random((3,), 0, complex), random((3,), 1, complex)
    c = random((3,), 2)
    # Re(c Re t) = Re(c t) and Re(c Im t) = Re(-i c t).
    for part, pushed, pulled in ((xp.real, t.real, c + 0j), (xp.imag, t.imag, -1j * c)):
        np.testing.assert_array_equal(jvp(part, (z,), (t,))[1], pushed)
        np.testing.assert_array_equal(pull(part, (z,), c)[0], pulled)
    np.testing.assert_array_equal(jvp(xp.conj, (z,), (t,))[1], np.conj(t))
    np.testing.assert_array_equal(pull(xp.conj, (z,), t)[0], np.conj(t))


def test_transposes_that_no_rule_of_ours_needs_yet() -> None:
    linear = transforms.record(lambda x, y: (xp.subtract(x, y),), np.ones(3), np.ones(3))
    w = random((3,))
    by_x, by_y = transforms.pull(linear, (w,))
    np.testing.assert_array_equal(by_x, w)
    np.testing.assert_array_equal(by_y, -w)


def test_sign_of_complex_numbers() -> None:
    """z / |z| turns with z: along t, i y Im(conj(y) t) / |z|."""
    z, t = np.array([3 + 4j, -2j, 0j]), np.array([1 - 1j, 0.5 + 2j, 1 + 1j])
    y = np.array([0.6 + 0.8j, -1j, 0])
    expected = 1j * y * np.imag(np.conj(y) * t) / np.array([5.0, 2.0, 1.0])
    out, pushed = jvp(xp.sign, (z,), (t,))
    np.testing.assert_allclose(out, y, rtol=1e-15)
    np.testing.assert_allclose(pushed, expected, rtol=1e-14)
    check_adjoint(xp.sign, z)
    # |z| by way of its sign, conj(sign z) z: d|z| pulls back to conj(z) / |z|.
    fun = lambda z: xp.sum(xp.real(xp.conj(xp.sign(z)) * z))  # noqa: E731
    np.testing.assert_allclose(ad.grad(fun, backend=B)(z), np.conj(y), rtol=1e-14)


@pytest.mark.parametrize("correction", [0, 1])
def test_variance_of_complex_numbers(correction: int) -> None:
    z, t = random((2, 4), 0, complex), random((2, 4), 1, complex)
    apart, count = z - np.mean(z, axis=1, keepdims=True), 4 - correction
    variance = np.sum(apart.real**2 + apart.imag**2, axis=1) / count
    out, pushed = jvp(lambda z: xp.var(z, axis=1, correction=correction), (z,), (t,))
    assert out.dtype == np.float64
    np.testing.assert_allclose(out, variance, rtol=1e-14)
    np.testing.assert_allclose(pushed, 2 * np.sum(np.real(np.conj(apart) * t), axis=1) / count, rtol=1e-13)
    deviation, pushed_deviation = jvp(lambda z: xp.std(z, axis=1, correction=correction), (z,), (t,))
    np.testing.assert_allclose(deviation, np.sqrt(variance), rtol=1e-14)
    np.testing.assert_allclose(pushed_deviation, pushed / (2 * np.sqrt(variance)), rtol=1e-13)
    check_adjoint(lambda z: xp.var(z, axis=1), z)
    np.testing.assert_allclose(xp.var(z), np.var(z), rtol=1e-14)


LOGICAL = ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"]
LOGICAL += ["logical_and", "logical_or", "logical_xor"]


@pytest.mark.parametrize("name", LOGICAL)
def test_booleans_stop_derivatives(name: str) -> None:
    x = np.array([1.0, 0.0, 2.0])
    got = ad.grad(lambda x: xp.sum(xp.where(PRIMITIVES[name](x, 1.0), 2.0 * x, x)), backend=B)(x)
    np.testing.assert_array_equal(got, np.where(getattr(np, name)(x, 1.0), 2.0, 1.0))


@pytest.mark.parametrize("name", ["logical_not", "isnan", "isinf", "isfinite", "signbit"])
def test_predicates(name: str) -> None:
    x = np.array([1.0, 0.0, -2.0, np.inf, np.nan])
    with np.errstate(invalid="ignore"):
        got = ad.jacobian(lambda x: xp.where(PRIMITIVES[name](x), 2.0 * x, x), mode="forward", backend=B)(x)
    np.testing.assert_array_equal(np.diag(got)[:3], np.where(getattr(np, name)(x), 2.0, 1.0)[:3])


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_integer_arithmetic_is_numpys(name: str) -> None:
    symbol = {"bitwise_and": "__and__", "bitwise_or": "__or__", "bitwise_xor": "__xor__"}[name]
    # 6 & 4 is 4, not True.
    got = ad.grad(lambda x: x * getattr(xp.astype(x, np.int64), symbol)(4), backend=B)(6.5)
    np.testing.assert_array_equal(got, getattr(np, name)(6, 4))
    assert ad.grad(lambda x: x * PRIMITIVES[name](xp.astype(x, np.int64), 4), backend=B)(6.5) == got


def test_invert() -> None:
    assert ad.grad(lambda x: x * ~xp.astype(x, np.int64), backend=B)(6.5) == -7
    np.testing.assert_array_equal(
        ad.grad(lambda x: xp.sum(xp.where(~(x > 1), 2 * x, x)), backend=B)(np.array([0.0, 2.0])), [2.0, 1.0]
    )
    assert PRIMITIVES["bitwise_invert"](np.array(5)) == -6


# Ties and zeros.


def test_ties_share_evenly() -> None:
    x = np.array([1.0, 2.0, 2.0, 0.0])
    for fun in (xp.max, lambda x: -xp.min(-x)):
        np.testing.assert_array_equal(ad.grad(fun, backend=B)(x), [0, 0.5, 0.5, 0])
        np.testing.assert_array_equal(jvp(fun, (x,), (np.array([5.0, 1.0, 3.0, 9.0]),))[1], 2.0)
    for name in ("maximum", "minimum"):
        by = ad.grad(PRIMITIVES[name], argnums=(0, 1), backend=B)(2.0, 2.0)
        np.testing.assert_array_equal(by, [0.5, 0.5])
    np.testing.assert_array_equal(
        ad.grad(lambda x: xp.sum(xp.max(x, axis=1)), backend=B)(np.array([[1.0, 1.0], [0.0, 3.0]])),
        [[0.5, 0.5], [0.0, 1.0]],
    )


def test_kinks_at_zero() -> None:
    assert ad.grad(xp.abs, backend=B)(0.0) == 0
    np.testing.assert_array_equal(ad.grad(PRIMITIVES["hypot"], argnums=(0, 1), backend=B)(0.0, 0.0), [0, 0])
    assert ad.grad(lambda x: x % 2.0, backend=B)(5.5) == 1


@pytest.mark.parametrize("power", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", [int, float, np.float64, np.int64, np.array])
def test_powers_at_zero(power: int, kind: Any) -> None:
    """Derivatives of x^k at 0 are 0, but for the k-th, which is k!."""
    derivative: Any = lambda x: x ** kind(power)  # noqa: E731
    for order in range(5):
        expected = float(np.prod(np.arange(1, power + 1))) if order == power else 0.0
        np.testing.assert_array_equal(derivative(np.array(0.0)), expected)
        derivative = ad.grad(derivative, backend=B)


def test_power_of_zero_by_its_exponent() -> None:
    by_a, by_b = ad.grad(lambda a, b: a**b, argnums=(0, 1), backend=B)(0.0, 2.0)
    assert by_a == 0 and by_b == 0
    assert ad.grad(lambda b: 2**b, backend=B)(3.0) == 8 * np.log(2)
    # A negative base with a whole exponent, as a constant.
    assert ad.grad(lambda a: a**3, backend=B)(-2.0) == 12
    assert ad.grad(lambda a: a**3.0, backend=B)(-2.0) == 12


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_products_with_zeros_to_second_order(zeros: int) -> None:
    x = np.array([2.0, 3.0, 5.0, 7.0, 11.0])
    x[:zeros] = 0
    n = len(x)
    without = [[np.prod(np.delete(x, [i, j])) if i != j else 0.0 for j in range(n)] for i in range(n)]
    np.testing.assert_allclose(ad.grad(xp.prod, backend=B)(x), [np.prod(np.delete(x, i)) for i in range(n)])
    np.testing.assert_allclose(ad.jacobian(ad.grad(xp.prod, backend=B), backend=B)(x), without)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (0, 1, 2), ()])
@pytest.mark.parametrize("keepdims", [False, True])
def test_prod_over_axes(axis: Any, keepdims: bool) -> None:
    x = random((2, 3, 4)) + 2
    out, pushed = jvp(lambda x: xp.prod(x, axis=axis, keepdims=keepdims), (x,), (x,))
    expected = np.prod(x, axis=axis, keepdims=keepdims)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
    # Euler: a product of k factors is homogeneous of degree k.
    degree = x.size // max(1, expected.size)
    np.testing.assert_allclose(pushed, degree * expected, rtol=1e-12)


WHOLE = [np.array([[100, 100], [3, -2]], np.int8), np.array([[200, 200], [3, 2]], np.uint8), np.array([True, False])]
WHOLE += [np.array([2**31 - 1, 2], np.int32), np.zeros(0, np.int16)]


@pytest.mark.parametrize("dtype", [None, np.int8, np.int64, np.float32])
@pytest.mark.parametrize("x", WHOLE, ids=lambda x: str(x.dtype))
@pytest.mark.parametrize("name", ["sum", "prod", "cumulative_sum", "mean", "var"])
def test_reductions_of_integers_are_numpys(name: str, x: np.ndarray, dtype: Any) -> None:
    """Small integers do not overflow, as arrays and as tracers."""
    options = {} if name in ("mean", "var") else {"dtype": dtype}
    axis = 0 if name == "cumulative_sum" else None
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the mean of nothing
        expected = getattr(np, {"cumulative_sum": "cumsum"}.get(name, name))(x, axis=axis, **options)
        ours = lambda x: getattr(xp, name)(x, axis=axis, **options)  # noqa: E731
        _, traced = ad.grad(lambda _, x: (0.0, ours(x)), has_aux=True, backend=B)(1.0, x)
        _, cast = ad.grad(lambda y: (0.0, ours(xp.astype(y, x.dtype))), has_aux=True, backend=B)(x.astype(float))
        for got in (ours(x), traced, cast):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)


# Reductions, scans, shapes.

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda x: xp.sum(x),
    "sum-0": lambda x: xp.sum(x, axis=0),
    "sum-keep": lambda x: xp.sum(x, axis=(1,), keepdims=True),
    "sum-none": lambda x: xp.sum(x, axis=()),
    "mean": lambda x: xp.mean(x, axis=1),
    "var": lambda x: xp.var(x, axis=-1),
    "std": lambda x: xp.std(x, correction=1),
    "max": lambda x: xp.max(x, axis=0),
    "min": lambda x: xp.min(x, axis=(0, 1), keepdims=True),
    "cumulative_sum": lambda x: xp.cumulative_sum(x, axis=1),
    "cumulative_sum-first": lambda x: xp.cumulative_sum(x, axis=0, include_initial=True),
    "reshape": lambda x: xp.reshape(x, (-1, 2)),
    "permute_dims": lambda x: xp.permute_dims(x, (1, 0)),
    "broadcast_to": lambda x: xp.broadcast_to(x, (3, 2, 4)),
    "expand_dims": lambda x: xp.expand_dims(x, axis=-1),
    "squeeze": lambda x: xp.squeeze(x[:, None, :], 1),
    "flip": lambda x: xp.flip(x),
    "moveaxis": lambda x: xp.moveaxis(x, 0, -1),
    "concat": lambda x: xp.concat([x, 2 * x[:, :1], np.ones((2, 2))], axis=1),
    "concat-flat": lambda x: xp.concat([x, x[0]], axis=None),
    "stack": lambda x: xp.stack([x, x * x], axis=-1),
    "take": lambda x: xp.take(x, np.array([0, 0, 3]), axis=1),
    "clip": lambda x: xp.clip(x, -0.5, 0.5),
    "where": lambda x: xp.where(x > 0, x, 3 * x),
    "vecdot": lambda x: xp.vecdot(x, x),
    "tensordot": lambda x: xp.tensordot(x, x, axes=((0,), (0,))),
    "tensordot-2": lambda x: xp.tensordot(x, x),
    "matrix_transpose": lambda x: xp.matrix_transpose(x),
    "astype": lambda x: xp.astype(x, np.float64) * 2,
}

# The same by NumPy, independent of the engine.
IN_NUMPY: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "sum-0": lambda x: np.sum(x, axis=0),
    "sum-keep": lambda x: np.sum(x, axis=1, keepdims=True),
    "sum-none": lambda x: x,
    "mean": lambda x: np.mean(x, axis=1),
    "var": lambda x: np.var(x, axis=1),
    "std": lambda x: np.std(x, ddof=1),
    "max": lambda x: np.max(x, axis=0),
    "min": lambda x: np.min(x, keepdims=True),
    "cumulative_sum": lambda x: np.cumsum(x, axis=1),
    "cumulative_sum-first": lambda x: np.concatenate([np.zeros((1, 4)), np.cumsum(x, axis=0)]),
    "reshape": lambda x: np.reshape(x, (4, 2)),
    "permute_dims": lambda x: x.T,
    "broadcast_to": lambda x: np.stack([x, x, x]),
    "expand_dims": lambda x: x[..., None],
    "squeeze": lambda x: x,
    "flip": lambda x: x[::-1, ::-1],
    "moveaxis": lambda x: x.T,
    "concat": lambda x: np.concatenate([x, 2 * x[:, :1], np.ones((2, 2))], axis=1),
    "concat-flat": lambda x: np.concatenate([x[0], x[1], x[0]]),
    "stack": lambda x: np.stack([x, x * x], axis=-1),
    "take": lambda x: x[:, [0, 0, 3]],
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "where": lambda x: np.where(x > 0, x, 3 * x),
    "vecdot": lambda x: np.sum(x * x, axis=-1),
    "tensordot": lambda x: x.T @ x,
    "tensordot-2": lambda x: np.sum(x * x),
    "matrix_transpose": lambda x: x.T,
    "astype": lambda x: 2 * x,
}


def _covariance(x: np.ndarray, t: np.ndarray, axis: int | None, count: int) -> np.ndarray:
    return np.sum((x - np.mean(x, axis=axis, keepdims=True)) * t, axis=axis) / count


# Derivatives along t of those that are not analytic, so that the complex step does not give them.
ALONG: dict[str, Callable[..., Any]] = {
    "max": lambda x, t: np.where(x[0] > x[1], t[0], t[1]),
    "min": lambda x, t: t.flat[np.argmin(x)].reshape(1, 1),
    "clip": lambda x, t: np.where(np.abs(x) < 0.5, t, 0.0),
    "where": lambda x, t: np.where(x > 0, t, 3 * t),
    "var": lambda x, t: 2 * _covariance(x, t, 1, 4),
    "std": lambda x, t: _covariance(x, t, None, 7) / np.std(x, ddof=1),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_array_functions_push_and_pull_alike(name: str) -> None:
    """Values by NumPy; forward by NumPy's complex step or a closed form; reverse by the adjoint identity."""
    x = random((2, 4))
    t = random(x.shape, 3)
    out, pushed = jvp(REDUCTIONS[name], (x,), (t,))
    along = ALONG.get(name, lambda x, t: np.imag(IN_NUMPY[name](x + 1e-30j * t)) * 1e30)
    np.testing.assert_allclose(out, IN_NUMPY[name](x), rtol=1e-14)
    np.testing.assert_allclose(pushed, along(x, t), rtol=1e-12, atol=1e-14)
    assert out.shape == pushed.shape == IN_NUMPY[name](x).shape
    check_adjoint(REDUCTIONS[name], x)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_array_functions_to_second_order(name: str) -> None:
    """d/dx <w, J(x) t> pushed along t, against pulled and paired with t."""
    fun, x = REDUCTIONS[name], random((2, 4))
    t, w = random(x.shape, 3), random(fun(x).shape, 4)

    def slope(x: Any) -> Any:
        return xp.sum(w * jvp(fun, (x,), (t,))[1])

    def gradient(x: Any) -> Any:
        return pull(fun, (x,), w)[0]

    forward = jvp(slope, (x,), (t,))[1]
    np.testing.assert_allclose(pairing(ad.grad(slope, backend=B)(x), t), forward, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(pairing(jvp(gradient, (x,), (t,))[1], t), forward, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "name", [n for n in REDUCTIONS if n not in ("max", "min", "clip", "where", "astype", "var", "std")]
)
def test_array_functions_of_complex_numbers(name: str) -> None:
    check_adjoint(REDUCTIONS[name], random((2, 4), 0, complex))


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("name", ["sum", "mean", "cumulative_sum", "concat", "tensordot", "stack"])
def test_array_functions_keep_single_precision(name: str, dtype: Any) -> None:
    x = random((2, 4), 0, dtype)
    fun = (lambda x: xp.concat([x, x])) if name == "concat" else REDUCTIONS[name]
    out, pushed = jvp(fun, (x,), (x,))
    assert out.dtype == pushed.dtype == pull(fun, (x,), out)[0].dtype == dtype


def test_a_cast_to_integers_is_constant() -> None:
    fun = lambda x: xp.astype(xp.astype(x, np.int64), np.float64) * x  # noqa: E731
    assert ad.grad(fun, backend=B)(2.5) == 2
    assert jvp(fun, (2.5,), (1.0,))[1] == 2
    assert ad.grad(lambda x: xp.astype(x, bool) * x, backend=B)(2.5) == 1


def test_a_cast_keeps_derivatives() -> None:
    x = np.array([1.0, 2.0], np.float32)
    got = ad.grad(lambda x: xp.sum(xp.astype(x, np.float64) ** 2), backend=B)(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, 2 * x)


def test_index_of_extremum_is_constant() -> None:
    x = np.array([1.0, 5.0, 3.0])
    assert ad.grad(lambda x: x[xp.argmax(x)] * xp.argmin(x), backend=B)(x).tolist() == [0, 0, 0]
    assert ad.grad(lambda x: x[xp.argmax(x)] * 2, backend=B)(x).tolist() == [0, 2, 0]
    assert ad.grad(lambda x: xp.where(xp.any(x > 4) & xp.all(x > 0), x[0], x[1]), backend=B)(x).tolist() == [1, 0, 0]


# Indexing.

KEYS: dict[str, Any] = {
    "int": 1,
    "negative": -1,
    "slice": slice(1, None),
    "negative step": slice(None, None, -2),
    "two": (slice(None), 2),
    "None": (None, 1, None, slice(0, 2)),
    "Ellipsis": (Ellipsis, -1),
    "empty": slice(2, 2),
    "repeated": np.array([0, 2, 0, 0]),
    "list": [2, 1, 2],
    "pairs": (np.array([0, 1, 0]), np.array([3, 3, 3])),
    "outer": (np.array([[0], [2], [0]]), np.array([1, 1])),
    "mixed": (np.array([1, 1]), slice(None, None, -1)),
    "separated": (np.array([0, 0]), None, np.array([1, 2])),
    "row mask": np.array([True, False, True]),
    "full mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "no mask": np.zeros((3, 4), bool),
    "numpy int": np.int64(2),
    "0-d": np.array(1),
    "everything": (),
    "True": True,
}


@pytest.mark.parametrize("name", KEYS)
def test_indexing(name: str) -> None:
    x, key = random((3, 4)), KEYS[name]
    jacobian = ad.jacobian(lambda x: x[key], mode="reverse", backend=B)(x)
    # Row i of the identity, indexed, is column i of the Jacobian: indexing copies elements.
    columns = np.stack([np.eye(12)[i].reshape(3, 4)[key] for i in range(12)], axis=-1)
    np.testing.assert_array_equal(jacobian, columns.reshape(*x[key].shape, 3, 4))
    np.testing.assert_array_equal(ad.jacobian(lambda x: x[key], mode="forward", backend=B)(x), jacobian)
    check_adjoint(lambda x: x[key] * x[key], x)


def test_index_computed_under_the_trace() -> None:
    x = np.array([3.0, 1.0, 2.0])
    assert ad.grad(lambda x: x[x > 1.5][0] * 2, backend=B)(x).tolist() == [2, 0, 0]
    assert ad.grad(lambda x: x[xp.astype(x[1], np.int64)], backend=B)(x).tolist() == [0, 1, 0]
    assert ad.grad(lambda x: x[1 : xp.astype(x[0], np.int64)][0], backend=B)(x).tolist() == [0, 1, 0]


@pytest.mark.parametrize("index", [np.array([0, 1, 2]), [0, 1, 2]], ids=["array", "list"])
def test_index_changed_after_its_use(index: Any) -> None:
    """A loop that reuses one buffer of indices: reverse mode keeps them as they were."""

    def fun(x: Any) -> Any:
        total = xp.sum(x[index] * np.array([1.0, 2.0, 3.0]))
        index[:] = [2, 2, 2]
        return total

    assert ad.grad(fun, backend=B)(np.ones(3)).tolist() == [1, 2, 3]


def test_add_at_is_the_transpose_of_indexing() -> None:
    indices, key = np.array([0, 2, 0]), shaping.Slot(0)
    x, v = np.ones(4), np.array([1.0, 10.0, 100.0])
    np.testing.assert_array_equal(shaping.add_at(x, v, indices, key=key), [102, 1, 11, 1])
    check_adjoint(lambda x, v: shaping.add_at(x, v, indices, key=key), x, v)
    check_adjoint(lambda x: shaping.clear_at(x, indices, key=key), x)


# Matrix products.

MATMUL = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3,)),
    ((6, 5, 2, 3), (3,)),
    ((3,), (6, 5, 3, 2)),
    ((1, 1), (1, 1)),
    ((2, 0), (0, 3)),
    ((0, 3), (3, 2)),
    ((0, 2, 3), (3, 2)),
]


@pytest.mark.parametrize("shapes", MATMUL, ids=str)
@pytest.mark.parametrize("dtype", [float, complex])
def test_matmul(shapes: Any, dtype: Any) -> None:
    a, b = random(shapes[0], 0, dtype), random(shapes[1], 1, dtype)
    ta, tb = random(shapes[0], 2, dtype), random(shapes[1], 3, dtype)
    out, pushed = jvp(xp.matmul, (a, b), (ta, tb))
    np.testing.assert_array_equal(out, a @ b)
    np.testing.assert_allclose(pushed, ta @ b + a @ tb, rtol=1e-12, atol=1e-14)
    check_adjoint(xp.matmul, a, b)
    check_adjoint(lambda a: a @ b, a)
    check_adjoint(lambda b: a @ b, b)

    def gradient(a: Any, b: Any) -> Any:  # of the first operand, itself a product
        return pull(xp.matmul, (a, b), np.ones(out.shape, out.dtype))[0]

    np.testing.assert_allclose(jvp(gradient, (a, b), (ta, tb))[1], gradient(a, tb), rtol=1e-12, atol=1e-14)


# Tracers are arrays to plain NumPy.

NUMPY: dict[str, Callable[[Any], Any]] = {
    "np.sin": np.sin,
    "np.arctan2": lambda x: np.arctan2(x, 2.0),
    "np.power": lambda x: np.power(x, 3),
    "np.true_divide": lambda x: np.true_divide(1.0, x + 3),
    "np.absolute": lambda x: np.absolute(x),
    "np.sum axis": lambda x: np.sum(x, axis=0),
    "np.sum position": lambda x: np.sum(x, 1),
    "np.sum keepdims": lambda x: np.sum(x * x, axis=1, keepdims=True),
    "np.mean": np.mean,
    "np.prod": lambda x: np.prod(x, 0),
    "np.var": lambda x: np.var(x, axis=1),
    "np.amax": lambda x: np.amax(x, 0),
    "np.max": lambda x: np.max(x),
    "np.cumsum flattens": np.cumsum,
    "np.cumsum axis": lambda x: np.cumsum(x, axis=1),
    "np.take flattens": lambda x: np.take(x, [0, 5, 5]),
    "np.take axis": lambda x: np.take(x, [1, 1], axis=1),
    "np.squeeze": lambda x: np.squeeze(x[:, None]),
    "np.expand_dims": lambda x: np.expand_dims(x, 0),
    "np.concatenate": lambda x: np.concatenate([x, np.ones((2, 1))], 1),
    "np.stack": lambda x: np.stack([x, 2 * x], axis=1),
    "np.where": lambda x: np.where(x > 0, x, 0.5 * x),
    "np.clip": lambda x: np.clip(x, a_min=-0.5, a_max=0.5),
    "np.maximum": lambda x: np.maximum(x, 0.0),
    "np.transpose": np.transpose,
    "np.transpose axes": lambda x: np.transpose(x, (1, 0)),
    "np.reshape": lambda x: np.reshape(x, (3, 2)),
    "np.ravel": np.ravel,
    "np.flip": lambda x: np.flip(x, 1),
    "np.broadcast_to": lambda x: np.broadcast_to(x, (2, 2, 3)),
    "np.matmul": lambda x: np.matmul(x, np.arange(3.0)),
    "np.dot": lambda x: np.dot(x, np.arange(6.0).reshape(3, 2)),
    "np.dot vector": lambda x: np.dot(np.arange(2.0), x),
    "np.dot scalar": lambda x: np.dot(2.0, x),
    "np.tensordot": lambda x: np.tensordot(x, np.ones((2, 2)), axes=([0], [1])),
    "np.real": np.real,
    "np.zeros_like": lambda x: x + np.zeros_like(x),
    "np.shape": lambda x: x * np.shape(x)[0] + np.ndim(x) + np.size(x),
    "np.round": lambda x: np.round(x, 1) + x,
    "array @ x": lambda x: np.ones((2, 2)) @ x,
    "array * x": lambda x: np.arange(3.0) * x,
    "array - x": lambda x: np.arange(3.0) - x,
    "array / x": lambda x: np.arange(3.0) / (x + 3),
    "array > x": lambda x: np.where(np.zeros(3) > x, x, 2 * x),
    "scalar ** x": lambda x: np.float64(2.0) ** x,
    "mask & bool": lambda x: np.where((x > -0.5) & np.array([True, False, True]), x, 0.0),
    "x.T": lambda x: x.T,
    "x.mT": lambda x: (x * x).T if isinstance(x, np.ndarray) and not hasattr(x, "mT") else (x * x).mT,
    "x.reshape": lambda x: x.reshape(3, 2).reshape((6,)).reshape(-1),
    "x.sum": lambda x: x.sum(0) + x.sum(axis=0, keepdims=True),
    "x.mean": lambda x: x.mean() * x.std(),
    "x.flatten": lambda x: x.flatten(),
    "x.dot": lambda x: x.dot(np.ones(3)),
    "x.cumsum": lambda x: x.cumsum(axis=0),
    "x.transpose": lambda x: x.transpose(1, 0) + x.transpose() + x.transpose((1, 0)),
    "x.squeeze": lambda x: x[:1].squeeze(),
    "x.astype": lambda x: x.astype(np.float64),
    "x.real": lambda x: x.real + x.imag,
    "x.conj": lambda x: x.conj(),
    "operators": lambda x: -x + (+x) - abs(x) * 2 / (x + 3) // 1 % 3 + 2**x + x**2 - (1 - x),
    "iteration": lambda x: sum(row * row for row in x),
    "len": lambda x: x * len(x),
    "augmented": lambda x: _augmented(x),
    "out of the box": lambda x: x[x > 0].sum() * x[0, 0],
}


def _augmented(x: Any) -> Any:
    y = x * 1
    y += x
    y *= 2
    return y


@pytest.mark.parametrize("name", NUMPY)
def test_plain_numpy(name: str) -> None:
    fun, x = NUMPY[name], random((2, 3))
    t = random(x.shape, 1)
    out, pushed = jvp(fun, (x,), (t,))
    np.testing.assert_allclose(out, fun(x), rtol=1e-14)
    check_adjoint(fun, x)
    # Richardson's extrapolation of central differences of NumPy itself: to 1e-9, and no rule of ours.
    differences = [(fun(x + h * t) - fun(x - h * t)) / (2 * h) for h in (2e-3, 1e-3, 5e-4)]
    once = [(4 * b - a) / 3 for a, b in pairwise(differences)]
    np.testing.assert_allclose(pushed, (16 * once[1] - once[0]) / 15, rtol=1e-8, atol=1e-8)


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "float": (lambda x: float(x[0]) * x[0], r"float\(x\) of a tracer of float64\[\] would lose its derivative"),
    "complex": (lambda x: complex(x[0]) * x[0], r"complex\(x\) of a tracer"),
    "int": (lambda x: int(x[0]) * x[0], "int of a tracer of float64"),
    "index": (lambda x: x[0] * [1, 2][x[0]], "an index of a tracer"),
    "asarray": (lambda x: np.asarray(x), r"np.asarray\(x\) of a tracer of float64\[3\] would lose"),
    "array of tracers": (lambda x: np.array([x[0], x[1]]), r"np.asarray\(x\) of a tracer"),
    "no such function": (lambda x: np.partition(x, 1), r"no numpy.partition; write the function with other operations"),
    "no such ufunc": (lambda x: np.spacing(x), r"no numpy.spacing"),
    "linalg": (lambda x: np.linalg.eig(x[:, None]), r"no numpy.linalg.eig"),
    "other module": (lambda x: np.lib.stride_tricks.sliding_window_view(x, 2), r"no numpy.*sliding_window_view"),
    "emath": (lambda x: np.emath.sqrt(x), r"sqrt|asarray"),
    "out": (lambda x: np.add(np.zeros(3), 1.0, out=x), r"numpy.add\(out=...\)"),
    "in place": (lambda x: np.zeros(3).__iadd__(x), r"numpy.add\(out=...\)"),
    "ufunc method": (lambda x: np.add.reduceat(x, [0]), r"numpy.add.reduceat"),
    "argument": (lambda x: np.sum(x, where=np.array(True)), r"numpy.sum: .*'where'"),
    "order": (lambda x: np.reshape(x, (3, 1), order="F"), r"numpy.reshape: .*'order'"),
    "too many": (lambda x: xp.add(x, x, np.zeros(3)), "engine's add takes 2 array arguments, got 3"),
    "mean": (lambda x: np.std(x, mean=1.0), r"numpy.std: .*'mean'.*ddof"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_would_lose_a_derivative_is_refused(name: str) -> None:
    fun, message = REFUSALS[name]
    for run in (lambda: ad.grad(fun, backend=B)(np.ones(3)), lambda: jvp(fun, (np.ones(3),), (np.ones(3),))):
        with pytest.raises(ad.NotDifferentiable, match=message):
            run()


def test_numpy_arrays_do_not_swallow_tracers() -> None:
    def fun(x: Any) -> Any:
        y = np.zeros(3)
        y[0] = x[0]  # NumPy puts its own error, "setting an array element with a sequence", in front of ours
        return np.sum(y)

    for run in (ad.grad(fun, backend=B), lambda x: ad.trace(fun, x), lambda x: jvp(fun, (x,), (x,))):
        with pytest.raises(ad.NotDifferentiable, match=r"make it by zeros_like\(x\), or np.zeros\(n, like=x\)"):
            run(np.ones(3))
    with pytest.raises(ValueError, match="broadcast"):
        ad.grad(lambda x: np.sum(x + np.ones(4)), backend=B)(np.ones(3))


@pytest.mark.parametrize("call", [len, iter, lambda x: x[0]], ids=["len", "iter", "index"])
def test_0d_tracers_are_not_sequences(call: Any) -> None:
    with pytest.raises((TypeError, IndexError), match=r"0-d|too many indices"):
        ad.grad(lambda x: x * call(x), backend=B)(1.0)


def test_squeeze_and_axis_errors() -> None:
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="cannot squeeze axis 1 of size 3"):
        jvp(lambda x: xp.squeeze(x, 1), (x,), (x,))
    for fun in (lambda x: xp.cumulative_sum(x), lambda x: xp.take(x, np.array([0]))):
        with pytest.raises(ValueError, match=r"needs axis=\.\.\. for an array of 2 dimensions"):
            jvp(fun, (x,), (x,))
    for fun in (
        lambda x: xp.sum(x, axis=2),
        lambda x: xp.cumulative_sum(x, axis=2),
        lambda x: xp.take(x, np.array([0]), axis=5),
    ):
        with pytest.raises(np.exceptions.AxisError):
            jvp(fun, (x,), (x,))


def test_integer_and_boolean_tracers_become_numbers() -> None:
    def fun(x: Any) -> Any:
        k = xp.astype(x[0], np.int64)
        assert bool(x[0] > 0) and int(k) == 2 and [10, 20, 30][k] == 30
        return x[0] * int(k)

    assert ad.grad(fun, backend=B)(np.array([2.5])).tolist() == [2]


def test_primitive_without_a_rule() -> None:
    without = primitive("frobnicate", np.cbrt)
    try:
        with pytest.raises(ad.NotDifferentiable, match="no derivative rule for 'frobnicate'"):
            ad.grad(without, backend=B)(2.0)
        assert without(np.array(8.0)) == 2.0
    finally:
        del PRIMITIVES["frobnicate"]


def test_array_namespace_of_tracers() -> None:
    def fun(x: Any) -> Any:
        assert isinstance(x, Tracer) and x.__array_namespace__() is xp is ad.array_namespace(x, 1.0, np.ones(2))
        assert (x.shape, x.ndim, x.size, x.dtype, x.device) == ((2, 3), 2, 6, np.float64, "cpu")
        assert "Tracer" in repr(x)
        return x.sum()

    ad.grad(fun, backend=B)(np.ones((2, 3)))


# Programs.


def steps(x: Any, y: Any) -> tuple[Any, ...]:
    return xp.sin(x) * y + x[::-1], xp.sum(x @ y), np.ones(2)


def test_program_computes_what_was_recorded() -> None:
    a, b, c, d = (random((3,), seed) for seed in range(4))
    program = transforms.record(steps, a, b)
    assert len(program.inputs) == 2 and program.equations[0].primitive.name == "sin"
    for args in ((a, b), (c, d)):
        for got, expected in zip(evaluate(program, *args), steps(*args), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_program_is_differentiated_again() -> None:
    a, b = random((3,), 0), random((3,), 1)
    program = transforms.record(steps, a, b)
    for run in (lambda x: evaluate(program, x, b)[0], lambda x: steps(x, b)[0]):
        got = ad.jacobian(run, backend=B)(a)
        np.testing.assert_allclose(got, np.diag(np.cos(a) * b) + np.eye(3)[::-1], rtol=1e-13)


def test_program_prints() -> None:
    text = str(transforms.record(lambda x: (xp.sum(xp.sin(x) * 2.0), np.zeros(2)), np.ones(3)))
    assert text.splitlines() == [
        "program(v0):",
        "    v1:float64[3] = sin(v0)",
        "    v2:float64[3] = multiply(v1, 2.0)",
        "    v3:float64[] = sum(v2, axis=(0,), keepdims=False)",
        "    return v3, <constant float64[2]>",
    ]


def test_linear_program_is_linear_and_evaluates_nothing_again() -> None:
    runs = []

    def fun(x: Any) -> Any:
        runs.append(1)
        return (xp.exp(x) * x,), ()

    outs, linear, _ = transforms.linearize(fun, (np.array([1.0, 2.0]),))
    slope = np.exp([1.0, 2.0]) * np.array([2.0, 3.0])
    np.testing.assert_allclose(transforms.push(linear, (np.array([1.0, -2.0]),), outs)[0], slope * [1, -2])
    np.testing.assert_allclose(transforms.pull(linear, (np.array([3.0, 0.0]),))[0], slope * [3, 0])
    assert len(runs) == 1 and {eq.primitive.name for eq in linear.equations} <= {"multiply", "add"}


def test_leaked_tracers_are_refused() -> None:
    leaked: list[Any] = []

    def leak(x: Any) -> Any:
        leaked.append(x)
        return x * x

    ad.grad(leak, backend=B)(2.0)
    with pytest.raises(ad.NotDifferentiable, match="after its function had ended: the tracer leaked"):
        leaked[0] * 2
    with pytest.raises(ad.NotDifferentiable, match=r"it leaked through a global|the tracer leaked"):
        ad.grad(lambda x: x * leaked[0], backend=B)(2.0)
    with pytest.raises(ad.NotDifferentiable, match="returned a tracer of an earlier call"):
        ad.grad(lambda x: leaked[0], backend=B)(2.0)
    transforms.record(lambda x: (leak(x),), np.array(2.0))
    with pytest.raises(ad.NotDifferentiable, match="the tracer leaked"):
        leaked[-1] + 1


def test_non_finite_values_pass() -> None:
    x = np.array([np.inf, np.nan, 1.0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(ad.grad(lambda x: xp.sum(x * 2), backend=B)(x), [2, 2, 2])
        got = ad.grad(lambda x: xp.sum(x * x), backend=B)(x)
        np.testing.assert_array_equal(got, [np.inf, np.nan, 2])
        assert ad.grad(xp.sqrt, backend=B)(0.0) == np.inf


# Random compositions.

UNARIES = [
    xp.sin,
    xp.tanh,
    lambda x: xp.exp(-x * x),
    lambda x: x[::-1],
    lambda x: xp.cumulative_sum(x) / 3,
    lambda x: x**2,
]
BINARIES = [
    xp.add,
    xp.multiply,
    xp.subtract,
    lambda a, b: a / (1 + b * b),
    lambda a, b: xp.where(a > b, a, xp.sin(b)),
    lambda a, b: xp.concat([a[:2], b[2:]]),
    lambda a, b: xp.sum(a * b) * a,
    lambda a, b: xp.matmul(a[:, None] * b[None, :], b) / 4,
    lambda a, b: xp.logaddexp(a, b),
]
Step = tuple[int, int, int]


def compose(steps: list[Step]) -> Callable[[Any], Any]:
    """A function of a vector: each step applies an operation to two earlier results."""

    def fun(x: Any) -> Any:
        values = [x, 0.5 * x + 0.1]
        for which, i, j in steps:
            a, b = values[i % len(values)], values[j % len(values)]
            k = which % (len(UNARIES) + len(BINARIES))
            values.append(UNARIES[k](a) if k < len(UNARIES) else BINARIES[k - len(UNARIES)](a, b))
        return values[-1]

    return fun


programs = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=8)
points = st.lists(st.floats(-1.5, 1.5), min_size=4, max_size=4).map(np.array)


@given(programs, points)
def test_random_compositions_push_and_pull_alike(program: list[Step], x: np.ndarray) -> None:
    fun = compose(program)
    with np.errstate(all="ignore"):
        out = fun(x)
        if not np.all(np.isfinite(out)) or np.max(np.abs(out)) > 1e6:
            return
        check_adjoint(fun, x, tolerance=1e-9)
        recorded = transforms.record(lambda x: (fun(x),), x)
        np.testing.assert_array_equal(evaluate(recorded, x)[0], out)
        gradient = ad.grad(lambda x: xp.sum(fun(x)), backend=B)
        t = np.array([1.0, -2.0, 0.5, 3.0])
        along = jvp(gradient, (x,), (t,))[1]
        again = ad.grad(lambda x: xp.sum(gradient(x) * t), backend=B)(x)
        scale = max(1.0, float(np.max(np.abs(along))))
        np.testing.assert_allclose(along / scale, again / scale, atol=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_random_compositions_agree_with_jax(seed: int) -> None:
    jax = pytest.importorskip("jax")
    jnp = pytest.importorskip("jax.numpy")
    rng = np.random.default_rng(seed)
    program = [tuple(map(int, rng.integers(0, 99, 3))) for _ in range(5)]
    x = rng.uniform(-1.2, 1.2, 4)
    ours = ad.jacobian(compose(program), backend=B)(x)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "xp", _Standard(jnp))
        patch.setitem(globals(), "UNARIES", [_in_jax(f, jnp) for f in UNARIES])
        patch.setitem(globals(), "BINARIES", [_in_jax(f, jnp) for f in BINARIES])
        theirs = jax.jit(jax.jacfwd(compose(program)))(jnp.asarray(x))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def _in_jax(function: Any, jnp: Any) -> Any:
    """The same function in JAX's namespace: a primitive by its name, a lambda by the global `xp`."""
    return getattr(jnp, function.name) if hasattr(function, "name") else function


class _Standard:
    """jax.numpy under the standard's names."""

    def __init__(self, jnp: Any) -> None:
        self.jnp = jnp

    def __getattr__(self, name: str) -> Any:
        return getattr(self.jnp, name)


def test_a_primitive_is_one_row() -> None:
    """A row is all that the namespace, both modes and second order need."""
    cube = primitives.defjvp(primitives.primitive("cube", lambda x: x**3), lambda t, y, x: t * (3 * x * x))
    try:
        assert xp.cube is cube
        f = lambda x: ad.array_namespace(x).cube(x)  # noqa: E731
        assert ad.grad(f, backend="reference")(2.0) == 12.0
        assert ad.grad(ad.grad(f, backend="reference"), backend="reference")(2.0) == 12.0
        assert ad.jvp(f, (2.0,), (1.0,), backend="reference")[1] == 12.0
    finally:
        del primitives.PRIMITIVES["cube"]
        delattr(xp, "cube")
