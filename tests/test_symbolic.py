"""SymPy as a backend: its derivatives against closed forms, its formulas and their growth against SymPy's own."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import optree
import pytest

import adbridge as ad
import contract
from adbridge.bench.problem import get_suite

sympy = pytest.importorskip("sympy")

BACKEND: Any = ad.get_backend("symbolic")
X, Y = sympy.symbols("x y", real=True)


@pytest.mark.parametrize("clause", sorted({**contract.VALUE, **contract.STRUCTURE}))
def test_the_contract(clause: str) -> None:
    {**contract.VALUE, **contract.STRUCTURE}[clause](BACKEND)


@pytest.mark.parametrize("problem", get_suite("textbook").problems, ids=lambda p: p.name)
def test_textbook_examples(problem: Any) -> None:
    instance = problem.instance(*problem.sizes[0])
    answer = instance.answer(*instance.args)
    out, vjp_fn = ad.vjp(lambda x: instance.fun(x, *instance.args[1:]), instance.args[0], backend=BACKEND)
    cotangent = np.ones_like(answer.value)
    for got, expected in ((out, answer.value), (vjp_fn(cotangent)[0], answer.vjp(cotangent))):
        optree.tree_map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, expected)


# The functions with a SymPy form, against the known answers of the suites.

UNSUPPORTED = {"slogdet", "cholesky", "eigvalsh", "matrix_norm-nuc", "matrix_norm-2", "inv"}


@pytest.mark.parametrize("suite", ["elementary", "linalg"])
def test_every_problem_is_right_or_refused(suite: str) -> None:
    refused = set()
    for problem in get_suite(suite).problems:
        if problem.name == "solve":  # five by five takes SymPy half a minute
            continue
        instance = problem.instance(*problem.sizes[0])
        answer = instance.answer(*instance.args)
        tangent = optree.tree_map(lambda x: np.cos(np.arange(x.size, dtype=float)).reshape(x.shape), instance.args[0])
        try:
            got = ad.jvp(lambda x, f=instance: f.fun(x, *f.args[1:]), (instance.args[0],), (tangent,), backend=BACKEND)
        except ad.CapabilityError:
            refused.add(problem.name)
            continue
        for a, b in zip(optree.tree_leaves(got[1]), optree.tree_leaves(answer.jvp(tangent)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=problem.name)
    assert refused <= UNSUPPORTED


def test_special_functions() -> None:
    from scipy import special

    from adbridge.backends.reference import namespace as xp

    x = 0.4
    cases = {
        xp.erf: 2 / math.sqrt(math.pi) * math.exp(-x * x),
        xp.erfinv: math.sqrt(math.pi) / 2 * math.exp(special.erfinv(x) ** 2),
        xp.gammaln: special.digamma(x),
        xp.gamma: special.gamma(x) * special.digamma(x),
        xp.digamma: special.polygamma(1, x),
        xp.j0: -special.j1(x),
        xp.i1: (special.i0(x) + special.iv(2, x)) / 2,
        xp.expit: special.expit(x) * special.expit(-x),
        xp.ndtr: math.exp(-x * x / 2) / math.sqrt(2 * math.pi),
        xp.cbrt: x ** (-2 / 3) / 3,
        xp.sinc: (math.cos(math.pi * x) - math.sin(math.pi * x) / (math.pi * x)) / x,
    }
    for fun, expected in cases.items():
        np.testing.assert_allclose(ad.grad(fun, backend=BACKEND)(x), expected, rtol=1e-13, err_msg=str(fun))
    assert ad.grad(xp.sinc, backend=BACKEND)(0.0) == 0
    assert ad.grad(ad.grad(xp.sinc, backend=BACKEND), backend=BACKEND)(0.0) == pytest.approx(-(math.pi**2) / 3)


def test_small_linear_systems() -> None:
    a, b = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([1.0, -2.0])
    inverse, t = np.linalg.inv(a), np.array([[0.3, -1.0], [2.0, 0.7]])
    got = ad.jvp(np.linalg.solve, (a, b), (t, b), backend=BACKEND)[1]
    np.testing.assert_allclose(got, inverse @ (b - t @ (inverse @ b)), rtol=1e-13)
    np.testing.assert_allclose(
        ad.jvp(np.linalg.inv, (a,), (t,), backend=BACKEND)[1], -inverse @ t @ inverse, rtol=1e-13
    )


def test_sums_of_exponentials_stay_in_range() -> None:
    from adbridge.backends.reference import namespace as xp

    x = np.array([1000.0, 1001.0])
    share = 1 / (1 + math.exp(1.0))
    np.testing.assert_allclose(ad.grad(xp.logsumexp, backend=BACKEND)(x), [share, 1 - share], rtol=1e-13)
    slope = share * (1 - share)
    np.testing.assert_allclose(
        ad.jacobian(xp.softmax, backend=BACKEND)(x), [[slope, -slope], [-slope, slope]], rtol=1e-12
    )


def test_choices_are_those_of_the_run() -> None:
    def fun(x: Any) -> Any:
        return np.maximum(x[0], x[1]) * np.sort(x)[0] + np.max(x) + np.abs(x[2]) + np.floor(x[0]) * x[0]

    # At (3, 1, -2): 3 * -2 and so on.
    np.testing.assert_allclose(ad.grad(fun, backend=BACKEND)(np.array([3.0, 1.0, -2.0])), [-2 + 1 + 3, 0, 3 - 1])
    # Ties share evenly; |x| is flat at 0.
    got = ad.grad(lambda x: np.max(x) + np.maximum(x[0], x[1]) + np.abs(x[2]), backend=BACKEND)(np.zeros(3))
    np.testing.assert_allclose(got, [1 / 3 + 1 / 2, 1 / 3 + 1 / 2, 1 / 3])
    prepared = ad.prepare(ad.grad(lambda x: np.maximum(x, 1.0) ** 2, backend=BACKEND), 2.0)
    assert [prepared(x).item() for x in (3.0, 0.5, 4.0)] == [6.0, 0.0, 8.0]


def test_second_derivatives_of_kinks_are_zero_beside_them() -> None:
    assert ad.grad(ad.grad(lambda x: np.abs(x) * x, backend=BACKEND), backend=BACKEND)(-2.0) == -2.0
    assert ad.grad(ad.grad(np.abs, backend=BACKEND), backend=BACKEND)(2.0) == 0.0


def test_a_derivative_within_is_symbolic_too() -> None:
    def fun(x: Any) -> Any:
        return ad.grad(lambda y: np.sqrt(np.linalg.det(y * np.eye(2))))(x)  # d |y| / dy, by whichever engine

    assert ad.grad(fun, backend=BACKEND)(3.0) == 0
    refused = lambda x: ad.grad(lambda y: np.sum(np.linalg.eigvalsh(y * np.eye(2))))(x)  # noqa: E731
    with pytest.raises(ad.CapabilityError, match="no SymPy form of 'eigh'"):
        ad.vjp(refused, 3.0, backend=BACKEND)


def test_across_backends() -> None:
    outer = ad.grad(lambda x: x * ad.grad(np.sin, backend="symbolic")(x), backend="reference")
    np.testing.assert_allclose(outer(0.5), math.cos(0.5) - 0.5 * math.sin(0.5), rtol=1e-14)
    other = ad.grad(lambda x: x * ad.grad(np.sin, backend="reference")(x), backend="symbolic")
    np.testing.assert_allclose(other(0.5), math.cos(0.5) - 0.5 * math.sin(0.5), rtol=1e-14)
    np.testing.assert_allclose(
        ad.taylor(np.exp, 0.0, 1.0, 5, backend=BACKEND), [1 / math.factorial(k) for k in range(6)]
    )


def test_layouts_dtypes_and_unused_inputs() -> None:
    x = np.arange(12.0).reshape(3, 4)[::2, ::-1].T
    got = ad.grad(lambda x, y: np.sum(np.sin(x[1:] * x[:-1])), argnums=(0, 1), backend=BACKEND)(x, np.ones(2))
    expected = np.zeros_like(x)
    expected[1:] += np.cos(x[1:] * x[:-1]) * x[:-1]
    expected[:-1] += np.cos(x[1:] * x[:-1]) * x[1:]
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)
    np.testing.assert_array_equal(got[1], 0)
    single = ad.grad(lambda x: np.sum(x**3), backend=BACKEND)(np.float32([1, 2]))
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, [3, 12])


# Formulas.


def logistic(x: Any, terms: int) -> Any:
    """l_1 = x, l_(n+1) = 4 l_n (1 - l_n)."""
    for _ in range(terms - 1):
        x = 4.0 * x * (1.0 - x)
    return x


def directly(terms: int) -> Any:
    x = X
    for _ in range(terms - 1):
        x = 4 * x * (1 - x)
    return x


@pytest.mark.parametrize("terms", range(1, 8))
def test_the_logistic_map_swells_as_in_sympy_itself(terms: int) -> None:
    # Baydin et al., "Automatic differentiation in machine learning: a survey", JMLR 18 (2018), table 1.
    found = BACKEND.expression(lambda x: logistic(x, terms), 0.2)
    value = directly(terms)
    slope = sympy.diff(value, X)
    assert sympy.expand(found.value[0] - value) == 0 and sympy.expand(found.jacobian[0, 0] - slope) == 0
    assert (found.size, found.derivative_size) == (sympy.count_ops(value), sympy.count_ops(slope))
    replaced, reduced = sympy.cse([slope])
    assert found.shared_derivative_size == sum(sympy.count_ops(e) for _, e in replaced) + sympy.count_ops(reduced[0])


def test_the_table_of_the_survey() -> None:
    # Its column "d l_n / dx": 1; 4(1-x) - 4x; 16(1-x)(1-2x)^2 - 16x(1-2x)^2 - 64x(1-x)(1-2x).
    printed = [
        sympy.Integer(1),
        4 * (1 - X) - 4 * X,
        16 * (1 - X) * (1 - 2 * X) ** 2 - 16 * X * (1 - 2 * X) ** 2 - 64 * X * (1 - X) * (1 - 2 * X),
    ]
    for terms, slope in enumerate(printed, start=1):
        found = BACKEND.expression(lambda x, n=terms: logistic(x, n), 0.2)
        assert sympy.expand(found.jacobian[0, 0] - slope) == 0
    sizes = [BACKEND.expression(lambda x, n=n: logistic(x, n), 0.2) for n in range(2, 8)]
    growth = [b.derivative_size / a.derivative_size for a, b in pairwise(sizes)]
    assert min(growth) > 2  # more than doubled by each term; the function is merely doubled
    assert all(s.derivative_size > 1.5 * s.size for s in sizes[1:])
    assert sizes[-1].shared_derivative_size < sizes[-1].derivative_size / 10


def test_formulas_are_readable() -> None:
    found = BACKEND.expression(lambda x, y: np.log(x[0]) + x[0] * x[1] - np.sin(y), np.array([2.0, 5.0]), 0.5)
    assert str(found) == "x_0*x_1 + log(x_0) - sin(y)\nd/dx_0: x_1 + 1/x_0\nd/dx_1: x_0\nd/dy: -cos(y)"
    assert r"\frac{\partial y}{\partial x_{1}} = x_{0}" in found.latex()
    pair = BACKEND.expression(lambda p: {"a": p["w"] * 0.5, "b": p["v"] ** 2}, {"w": 1.0, "v": 2.0})
    assert str(pair) == "y0 = p_w/2\ny1 = p_v**2\ndy0/dp_w: 1/2\ndy1/dp_v: 2*p_v"
    assert pair.jacobian.shape == (2, 2)
    with pytest.raises(ad.SignatureMismatch, match="needs a floating argument"):
        BACKEND.expression(lambda n: n, 3)


# What is refused.


def test_an_operation_without_a_form_is_named() -> None:
    with pytest.raises(ad.CapabilityError, match=r"'symbolic' has no SymPy form of 'eigh'.*another backend"):
        ad.grad(lambda x: np.sum(np.linalg.eigvalsh(x)), backend=BACKEND)(np.eye(3))


def test_what_would_never_end_is_refused() -> None:
    with pytest.raises(
        ad.CapabilityError, match=r"at 'multiply' the expressions have grown to \d+ nodes, more than max_"
    ):
        ad.grad(lambda x: logistic(x, 60), backend=BACKEND)(0.2)
    with pytest.raises(ad.CapabilityError, match=r"derivatives would visit \d+ nodes, more than 50 times max_size=100"):
        ad.grad(lambda x: np.sin(np.sum(x)), backend=ad.get_backend("symbolic", max_size=100))(np.ones(90))

    def nested(x: Any) -> Any:
        for _ in range(2000):
            x = np.sin(x)
        return x

    with pytest.raises(ad.CapabilityError, match="nested too deep for SymPy"):
        ad.grad(nested, backend=BACKEND)(0.2)
