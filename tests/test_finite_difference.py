"""Numeric differentiation: the order and the size of its errors, and that its error estimates bound them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import special

import adbridge as ad
import contract
from adbridge.backends.finite_difference import SCHEMES, derivative

EPS = float(np.finfo(float).eps)


def scheme(name: str, **options: Any) -> ad.Backend:
    return ad.get_backend("finite-difference", scheme=name, **options)


RICHARDSON = partial(scheme, "richardson")


def squire_trapp(x: Any) -> Any:
    """Their example: e^x / sqrt(sin^3 x + cos^3 x)."""
    return np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)


SLOPE = 4.05342789389862  # at x = 1.5, as they print it


# The contract of all backends. Differences keep fewer digits than rules: about 1e-12 of first derivatives, and 1e-10
# of second ones, in float64; 1e-4 and 1e-3 in float32, where a quarter of the digits is lost in each order.


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = contract.close

    def close(got: Any, expected: Any, tolerance: float | None = None) -> None:
        single = contract.to_host(got).dtype in (np.float32, np.complex64)
        exact(got, expected, max(tolerance or 0.0, 1e-3 if single else 1e-10))

    monkeypatch.setattr(contract, "close", close)


@pytest.mark.usefixtures("loose")
@pytest.mark.parametrize("clause", sorted({**contract.VALUE, **contract.STRUCTURE}.keys() - {"third_order"}))
def test_the_contract(clause: str) -> None:
    {**contract.VALUE, **contract.STRUCTURE}[clause](RICHARDSON())


FIRST_ORDER = [
    "grad_closed_form",
    "jvp_closed_form",
    "vjp_closed_form",
    "jacobian_of_matrices",
    "trees_in",
    "trees_out",
]
FIRST_ORDER += [
    "unused_input_is_zero",
    "strange_layouts",
    "empty_arrays",
    "aux_of_arrays",
    "dtype_float32",
    "dtype_mixed",
]


@pytest.mark.parametrize("clause", FIRST_ORDER)
def test_the_complex_step_meets_the_contract_to_its_digits(clause: str) -> None:
    {**contract.VALUE, **contract.STRUCTURE}[clause](scheme("complex-step"))


# The orders of convergence.


@pytest.mark.parametrize(("name", "order"), [("forward", 1), ("central", 2)])
def test_errors_fall_as_their_order_says(name: str, order: int) -> None:
    steps = 2.0 ** -np.arange(3, 9)
    errors = [abs(derivative(np.exp, 1.0, 1.0, name, step=h).derivative - math.e) for h in steps]
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    np.testing.assert_allclose(slopes, order, atol=0.1)
    # The leading terms: h f''/2 and h^2 f'''/6.
    leading = math.e * steps / 2 if order == 1 else math.e * steps**2 / 6
    np.testing.assert_allclose(errors, leading, rtol=0.1)


def test_rounding_grows_as_the_step_shrinks() -> None:
    small, smaller = (derivative(np.exp, 1.0, 1.0, "central", step=h) for h in (1e-9, 1e-11))
    assert abs(small.derivative - math.e) < 1e-6 < abs(smaller.derivative - math.e) * 10
    assert smaller.error > 10 * small.error


@pytest.mark.parametrize(("name", "power"), [("forward", 1 / 2), ("central", 1 / 3)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("x", [1e-3, 1.0, 1e5])
def test_fixed_steps_are_the_textbooks(name: str, power: float, dtype: Any, x: float) -> None:
    found = derivative(np.sin, dtype(x), dtype(1.0), name)
    h = float(np.finfo(dtype).eps) ** power * max(x, 1.0)
    assert found.step == pytest.approx(h if name == "forward" else 2 * h, rel=0.3)


# The error estimate.

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (np.exp, np.exp),
    "sin": (np.sin, np.cos),
    "log": (lambda x: np.log(np.abs(x)), lambda x: 1 / x),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2),
    "cube": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
    "atan": (lambda x: np.arctan(5 * x), lambda x: 5 / (1 + 25 * x**2)),
    "runge": (lambda x: 1 / (1 + 25 * x**2), lambda x: -50 * x / (1 + 25 * x**2) ** 2),
    "root": (lambda x: np.sqrt(np.abs(x)), lambda x: np.sign(x) / (2 * np.sqrt(np.abs(x)))),
    "bessel": (special.j0, lambda x: -special.j1(x)),
    "chirp": (lambda x: np.sin(1 / x), lambda x: -np.cos(1 / x) / x**2),
    "constant": (lambda x: 0 * x + 2.5, lambda x: 0 * x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("scale", [1.0, 1e10, 1e-6, 1e-12])
def test_the_estimate_bounds_the_error(name: str, scale: float) -> None:
    fun, slope = FUNCTIONS[name]
    rng = np.random.default_rng(7)
    for x in rng.uniform(0.2, 3.0, 25) * rng.choice([-1, 1], 25):
        found = derivative(lambda t: fun(t / scale), x * scale, 1.0)
        exact = slope(x) / scale
        # Beside rounding of the closed form itself, and of x * scale / scale.
        assert abs(found.derivative - exact) <= found.error + 8 * EPS * (abs(exact) + abs(x / scale))
        assert found.error <= 1e-7 * max(abs(exact), abs(fun(x)) / abs(x * scale))


def test_the_estimate_is_seldom_far_too_wide() -> None:
    found = derivative(squire_trapp, 1.5, 1.0)
    assert abs(found.derivative - SLOPE) <= found.error < 1e-11


def test_a_wave_sampled_over_thousands_of_periods_has_no_limit_there() -> None:
    found = derivative(np.sin, 1e10, 1.0)
    assert abs(found.derivative - np.cos(1e10)) <= found.error and abs(found.derivative - np.cos(1e10)) < 1e-9
    assert found.step < 1
    # A step by the textbook is 60000 long here: its derivative is nothing, and the estimate says so.
    fixed = derivative(np.sin, 1e10, 1.0, "central")
    assert abs(fixed.derivative - np.cos(1e10)) <= fixed.error and fixed.error > 0.5


def test_lengths_differ_between_outputs() -> None:
    scales = np.array([1e-7, 1.0, 1e6])
    found = derivative(lambda t: np.sin((t - 0.1) / scales + 0.5), 0.1, 1.0)
    np.testing.assert_allclose(found.derivative, np.cos(0.5) / scales, rtol=1e-8)
    assert np.all(np.abs(found.derivative - np.cos(0.5) / scales) <= found.error)


def test_float32() -> None:
    x = np.linspace(0.5, 2.0, 7, dtype=np.float32)
    for name, accuracy in (("richardson", 2e-5), ("central", 2e-3), ("forward", 5e-3), ("complex-step", 1e-6)):
        found = derivative(np.exp, x, np.ones_like(x), name)
        assert found.derivative.dtype == np.float32
        np.testing.assert_allclose(found.derivative, np.exp(x.astype(float)), rtol=accuracy)
        if name != "complex-step":
            assert np.all(np.abs(found.derivative - np.exp(x.astype(float))) <= found.error + 1e-7 * found.derivative)


# Edges of the domain.


@pytest.mark.parametrize("x", [1e-6, 1e-12, 1e-100])
def test_steps_shrink_until_they_stay_inside(x: float) -> None:
    for fun, exact in ((np.sqrt, 0.5 / math.sqrt(x)), (np.log, 1 / x)):
        found = derivative(fun, x, 1.0)
        assert abs(found.derivative - exact) <= found.error + 4 * EPS * exact
        assert found.error < 1e-6 * exact
        assert found.step < 2 * x


def test_at_the_edge_the_difference_is_one_sided() -> None:
    for name in ("richardson", "forward", "central"):
        found = derivative(lambda x: np.sqrt(x) ** 3 + 2 * x, 0.0, 1.0, name)
        assert found.derivative == pytest.approx(2.0, abs=5e-3)
    backwards = derivative(lambda x: np.sqrt(1 - x) ** 3 + 2 * x, 1.0, 1.0, "forward")
    assert backwards.derivative == pytest.approx(2.0, abs=1e-3)
    assert np.isnan(derivative(np.sqrt, 0.0, 1.0).derivative)  # infinite slope: no limit
    assert derivative(np.sqrt, 0.0, 1.0, "forward").error == np.inf


def test_a_jump_has_no_derivative() -> None:
    assert np.isnan(derivative(np.sign, 0.0, 1.0).derivative)


def test_an_island_is_too_small_for_a_fixed_step() -> None:
    def island(x: Any) -> Any:
        return np.sqrt(1e-18 - x * x)

    for name in ("forward", "central"):
        with pytest.raises(ad.NotDifferentiable, match=r"leaves the function's domain on both sides; give a smaller"):
            derivative(island, 1e-10, 1.0, name)
        with pytest.raises(ad.NotDifferentiable, match="leaves the function's domain"):
            ad.grad(island, backend=scheme(name))(1e-10)
    exact = -1e-10 / math.sqrt(1e-18 - 1e-20)
    assert derivative(island, 1e-10, 1.0).derivative == pytest.approx(exact, rel=1e-9)


def test_an_exception_beside_the_point_is_an_edge_too() -> None:
    def fun(x: Any) -> Any:
        return np.asarray(math.log(x))

    assert derivative(fun, 1e-6, 1.0).derivative == pytest.approx(1e6, rel=1e-10)

    def cholesky(x: Any) -> Any:
        return np.linalg.cholesky(np.array([[1.0, 0.0], [0.0, 1e-4]]) + x * np.ones((2, 2)))[1, 1]

    exact = (1 - 1e-4) / (2 * math.sqrt(1e-4)) + 1e-4 / (2 * math.sqrt(1e-4))  # d sqrt((b + x) - x^2 / (1 + x)), x = 0
    assert derivative(cholesky, 0.0, 1.0).derivative == pytest.approx(exact, rel=1e-9)


def test_where_the_function_is_undefined_so_is_the_derivative() -> None:
    with np.errstate(invalid="ignore"):
        got = ad.jvp(np.sqrt, (np.array([4.0, -1.0]),), (np.ones(2),), backend=RICHARDSON())[1]
    assert got[0] == pytest.approx(0.25) and np.isnan(got[1])


# The complex step.


@pytest.mark.parametrize("fun", [squire_trapp, lambda x: x**4.5, lambda x: np.arctan(x) * np.log1p(x), np.tanh])
def test_the_complex_step_is_exact_to_rounding(fun: Any) -> None:
    exact = {0: SLOPE, 1: 4.5 * 1.5**3.5, 2: math.log(2.5) / 3.25 + math.atan(1.5) / 2.5, 3: 1 / math.cosh(1.5) ** 2}
    which = {squire_trapp: 0, np.tanh: 3}.get(fun, 1 if fun(2.0) > 5 else 2)
    got = ad.grad(fun, backend=scheme("complex-step"))(1.5)
    assert abs(got - exact[which]) <= 1e-15 * 4 * abs(exact[which])


def test_the_complex_step_of_exp() -> None:
    assert abs(derivative(np.exp, 1.0, 1.0, "complex-step").derivative - math.e) <= 1e-15


@pytest.mark.parametrize(
    ("fun", "named"),
    [
        (lambda x: x if x[0] > 0 else -x, "greater"),
        (lambda x: x if x.sum() else -x, "bool"),
        (np.abs, "absolute"),
        (lambda x: np.maximum(x, 0), "maximum"),
        (lambda x: np.where(x > 0, x, 0), "greater"),
        (lambda x: np.sort(x), "sort"),
        (lambda x: x.max(), "max"),
        (lambda x: np.max(x), "max"),
        (lambda x: np.linalg.norm(x), "norm|real|absolute|conj"),
        (lambda x: np.conj(x) * x, "conjugate"),
        (lambda x: np.vecdot(x, x), "vecdot"),
        (lambda x: np.vdot(x, x), "vdot"),
        (lambda x: x.real * 2, "real"),
        (lambda x: np.real(x), "real"),
        (lambda x: np.var(x), "var|conj|real"),
        (lambda x: np.floor(x) * x, "floor"),
        (lambda x: np.hypot(x, 1.0), "hypot"),
        (lambda x: x.astype(int) * x, "int"),
        (lambda x: np.asarray(math.sin(x[0])), "float"),
        (lambda x: np.stack([complex(v).real for v in x]), "complex"),
        (lambda x: _written(x, 0), "float"),
        (lambda x: _written(x, slice(None)), "real array"),
    ],
)
def test_the_complex_step_refuses_what_is_not_analytic(fun: Any, named: str) -> None:
    x = np.array([0.5, 2.0])
    with pytest.raises(ad.CapabilityError, match=f"({named}).* not analytic.*use scheme='richardson'"):
        ad.jvp(fun, (x,), (x,), backend=scheme("complex-step"))


def _written(x: Any, key: Any) -> Any:
    out = np.zeros(2)
    out[key] = x[key]
    return out


def test_the_complex_step_refuses_complex_numbers() -> None:
    with pytest.raises(ad.CapabilityError, match="does not differentiate"):
        ad.grad(lambda z: z * z, backend=scheme("complex-step"))(np.array(1 + 2j))
    with pytest.raises(ad.CapabilityError, match="needs real inputs"):
        ad.jvp(lambda z: z * z, (1 + 2j,), (1 + 0j,), backend=scheme("complex-step"))
    with pytest.raises(ad.CapabilityError, match="needs real outputs"):
        ad.jvp(lambda x: x * 1j, (1.0,), (1.0,), backend=scheme("complex-step"))


def test_the_complex_step_writes_into_arrays_like_its_input() -> None:
    def fun(x: Any) -> Any:
        out = np.zeros_like(x)
        out[0], out[1] = x[1] * x[1], np.dot(x, x)
        out[1] += x[0]
        return out.sum()

    got = ad.grad(fun, backend=scheme("complex-step"))(np.array([3.0, 5.0]))
    np.testing.assert_array_equal(got, [2 * 3 + 1, 4 * 5.0])


# Orders, options, and how it is judged.


def test_nesting_ends_where_digits_do() -> None:
    third = ad.grad(ad.grad(ad.grad(np.sin, backend=RICHARDSON()), backend=RICHARDSON()), backend=RICHARDSON())
    with pytest.raises(ad.CapabilityError, match=r"nests derivatives to order 2, and order 3 was asked for.*another"):
        third(1.0)
    for name in ("central", "forward"):
        with pytest.raises(ad.CapabilityError, match=r"order 1, and order 2 was asked for.*use scheme='richardson'"):
            ad.hvp(np.sin, (1.0,), (1.0,), backend=scheme(name))
    with pytest.raises(ad.CapabilityError, match="nests derivatives to order 2"):
        ad.taylor(np.sin, 1.0, 1.0, 3, backend=RICHARDSON())
    (second,) = ad.hvp(
        lambda x: np.sum(np.exp(x)), (np.array([0.5, 1.0]),), (np.array([1.0, -2.0]),), backend=RICHARDSON()
    )
    np.testing.assert_allclose(second, [math.exp(0.5), -2 * math.e], rtol=1e-9)
    assert derivative(np.exp, 1.0, 1.0).derivative == pytest.approx(math.e)  # nothing is left behind


def test_options() -> None:
    assert ad.get_backend("finite-difference").scheme == "richardson"  # type: ignore[attr-defined]
    assert repr(scheme("central")) == "<backend 'finite-difference' (central) on cpu>"
    with pytest.raises(ad.CapabilityError, match=r"no scheme 'backward'; choose one of 'richardson', 'central'"):
        scheme("backward")
    for step in (0.0, -1.0, math.inf):
        with pytest.raises(ad.SignatureMismatch, match="a positive step"):
            scheme("central", step=step)
    half = ad.jvp(lambda x: x**3, (1.0,), (1.0,), backend=scheme("central", step=0.5))[1]
    assert half == 3.25  # 3 x^2 + h^2
    assert {scheme(name).capabilities.max_order for name in SCHEMES} == {1, 2}


def test_it_promises_fewer_digits_than_rules_give() -> None:
    from adbridge.validate.verdict import judge, tolerance

    assert tolerance("float64") == 1e-10 and tolerance("float64", 0.5) == math.sqrt(EPS)
    off = {"value": np.array(1.0), "gradient": np.array(2.0 * (1 + 1e-9))}
    right = {"value": np.array(1.0), "gradient": np.array(2.0)}
    accuracy = {"d": scheme("central").capabilities.accuracy}
    verdicts = judge({"d": off, "rules": off}, right, "float64", accuracy)
    assert (verdicts["d"].verdict, verdicts["rules"].verdict) == ("agree", "wrong")
    far = {**right, "gradient": np.array(2.0 * (1 + 1e-6))}
    assert judge({"d": far}, right, "float64", accuracy)["d"].verdict == "wrong"
    value = {**right, "value": np.array(1.0 + 1e-9)}  # the function itself is not differenced
    assert judge({"d": value}, right, "float64", accuracy)["d"].verdict == "wrong"


@pytest.mark.parametrize("name", ["central", "forward"])
def test_fixed_steps_keep_what_they_promise(name: str) -> None:
    from adbridge.bench.problem import get_suite
    from adbridge.validate.verdict import tolerance

    bound = tolerance("float64", scheme(name).capabilities.accuracy)
    for problem in get_suite("textbook").problems:
        instance = problem.instance(*problem.sizes[0])
        x = instance.args[0]
        tangent = np.cos(np.arange(np.size(x), dtype=float)).reshape(np.shape(x))
        try:
            got = ad.jvp(lambda x, f=instance: f.fun(x, *f.args[1:]), (x,), (tangent,), backend=scheme(name))[1]
        except ad.CapabilityError:
            continue
        expected = instance.answer(*instance.args).jvp(tangent)
        assert np.max(np.abs(got - expected)) <= bound * np.max(np.abs(expected)), problem.name


@pytest.mark.parametrize("x", [700.0, 708.0, -700.0])
def test_overflow_of_what_is_extrapolated_is_no_warning(x: float) -> None:
    np.testing.assert_allclose(ad.grad(np.exp, backend="finite-difference")(x), np.exp(x), rtol=1e-8)
