"""The referee: kinds of points, derivatives to many digits, bounds, intervals at kinks. Truths are closed forms."""

from __future__ import annotations

import math
import threading
from decimal import Decimal, localcontext

import numpy as np
import pytest

import adbridge as ad
from adbridge.errors import NotDifferentiable, RuleError, SignatureMismatch, UsageError

X = ad.array_namespace


def chain(x):
    for _ in range(10):
        x = X(x).sin(x) * 1.5
        x = X(x).cos(x) + 0.1 * x
    return X(x).sum(x)


def chain_gradient(x):
    """By hand, in decimal arithmetic of 50 digits."""
    with localcontext() as context:
        context.prec = 60
        return [_chain_derivative(Decimal(float(v))) for v in x]


def _sin_cos(x: Decimal) -> tuple[Decimal, Decimal]:
    """By the Taylor series."""
    sine, cosine, term, n = Decimal(0), Decimal(0), Decimal(1), 0
    while abs(term) > Decimal(10) ** -70 or n < 10:
        if n % 2:
            sine += term * (-1) ** (n // 2)
        else:
            cosine += term * (-1) ** (n // 2)
        n += 1
        term = term * x / n
    return sine, cosine


def _chain_derivative(x: Decimal) -> Decimal:
    slope = Decimal(1)
    for _ in range(10):
        sine, cosine = _sin_cos(x)
        x, slope = sine * Decimal("1.5"), slope * cosine * Decimal("1.5")
        sine, cosine = _sin_cos(x)
        x, slope = cosine + Decimal.from_float(0.1) * x, slope * (Decimal.from_float(0.1) - sine)
    return slope


def test_gradient_to_thirty_digits():
    x = np.linspace(0.1, 2, 5)
    gradient = ad.referee(chain, x).grad()
    for digits, exact in zip(gradient.digits(30), chain_gradient(x), strict=True):
        assert abs(Decimal(digits) / exact - 1) < Decimal(10) ** -29


def test_directional_derivative_is_the_sum_of_the_gradient():
    x = np.linspace(0.1, 2, 7)
    pushed = ad.referee(chain, x).jvp(np.ones(7))
    assert abs(Decimal(pushed.digits(30)) / sum(chain_gradient(x)) - 1) < Decimal(10) ** -28


def test_bounds_hold():
    found = ad.referee(lambda x: X(x).exp(x) * X(x).sin(x), 1.25)
    exact = math.exp(1.25) * (math.sin(1.25) + math.cos(1.25))
    gradient = found.grad()
    assert abs(float(gradient) - exact) <= float(gradient.error) + 4e-16 * abs(exact)
    assert gradient.error < 1e-14


# What kind of point it is.

POINTS = {
    "sin": (lambda x: X(x).sin(x), 1.0, "smooth", None, None),
    "cube at 0": (lambda x: x**3, 0.0, "smooth", None, None),
    "norm squared": (lambda x: X(x).linalg.norm(x) ** 2, np.zeros(3), "smooth", None, None),
    "the identity by two relus": (
        lambda x: X(x).where(x > 0, x, 0.0) - X(x).where(x < 0, -x, 0.0), 0.0, "smooth", None, None,
    ),
    "abs": (lambda x: X(x).abs(x), 0.0, "kink", -1.0, 1.0),
    "abs beside 0": (lambda x: X(x).abs(x - 1e-200), 0.0, "smooth", None, None),
    "relu": (lambda x: X(x).maximum(x, 0.0), 0.0, "kink", 0.0, 1.0),
    "norm": (lambda x: X(x).linalg.norm(x), np.zeros(3), "kink", -1.0, 1.0),
    "max with ties": (lambda x: X(x).max(x), np.array([1.0, 1.0, 0.0]), "kink", 0.0, 1.0),
    "border of the domain": (lambda x: x**1.5, 0.0, "kink", math.nan, 0.0),
    "sqrt": (lambda x: X(x).sqrt(x), 0.0, "infinite", math.nan, math.inf),
    "cube root": (lambda x: X(x).cbrt(x), 0.0, "infinite", math.inf, math.inf),
    "x log |x|": (lambda x: X(x).xlogy(x, X(x).abs(x)), 0.0, "infinite", -math.inf, -math.inf),
    "entropy": (lambda x: X(x).entr(x), 0.0, "infinite", math.nan, math.inf),
    "floor": (lambda x: X(x).floor(x), 1.0, "jump", math.inf, 0.0),
    "remainder": (lambda x: X(x).remainder(x, 3.0), 6.0, "jump", -math.inf, 1.0),
    "log of a negative": (lambda x: X(x).log(x), -1.0, "undefined", math.nan, math.nan),
    "1/x": (lambda x: 1 / x, 0.0, "undefined", math.nan, math.nan),
    "x sin(1/x)": (
        lambda x: X(x).where(x == 0, 0.0, x * X(x).sin(1 / X(x).where(x == 0, 1.0, x))), 0.0, "unresolved", None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
def test_kind_of_point(name):
    fun, at, kind, left, right = POINTS[name]
    point = ad.referee(fun, at).classify()
    assert point.kind == kind, point
    if left is not None:
        np.testing.assert_equal([point.left, point.right], [left, right])
    assert kind in str(point)


def test_kink_that_no_entry_shows_alone():
    """x^2 y / (x^2 + y^2): zero along both axes, 1/2 along the diagonal."""

    def f(v):
        square = v[0] ** 2 + v[1] ** 2
        return X(v).where(square == 0, 0.0, v[0] ** 2 * v[1] / X(v).where(square == 0, 1.0, square))

    point = ad.referee(f, np.zeros(2)).classify()
    assert point.kind == "kink"
    assert "not linear in the direction" in str(point)


def test_one_kink_among_many_entries_is_named():
    x = np.linspace(-1, 1, 1001)
    point = ad.referee(lambda x: X(x).sum(X(x).abs(x)), x).classify()
    assert point.kind == "kink"
    assert point.entry == "x[500]"


def test_an_infinite_argument_stays_where_it_is():
    x = np.array([-np.inf, 1.0])
    np.testing.assert_array_equal(ad.referee(lambda x: X(x).logsumexp(x), x).grad(), [0.0, 1.0])


def test_what_is_not_a_number_stays_what_it_is():
    x = np.array([np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(ad.referee(lambda x: np.nansum(x**2), x).grad(), [0.0, 2.0, 4.0])


# Values that engines lose.


def test_tails_to_the_last_place():
    tanh = ad.referee(lambda x: X(x).tanh(x), 20.0).grad()
    with localcontext() as context:
        context.prec = 50
        e = Decimal(20).exp()
        exact = 4 / (e + 1 / e) ** 2
    assert abs(Decimal(tanh.digits(30)) / exact - 1) < Decimal(10) ** -29
    assert float(tanh) == float(exact)


def test_cancellation_costs_nothing():
    gradient = ad.referee(lambda x: (1e8 + x) ** 2 - 1e16, 1e-8).grad()
    assert float(gradient) == 2 * (1e8 + 1e-8)


# Trees, dtypes, complex numbers.


def test_trees_in_and_out():
    args = {"w": np.array([1.0, 2.0]), "b": np.array(3.0)}, np.array(2.0)
    judge = ad.referee(lambda p, s: {"y": X(p["w"]).sum(p["w"]) * p["b"] * s, "z": (s * s,)}, *args)
    first, second = judge.vjp({"y": 1.0, "z": (10.0,)})
    np.testing.assert_array_equal(first["w"], [6.0, 6.0])
    assert float(first["b"]) == 6.0
    assert float(second) == 9 + 40
    out = judge.jvp(({"w": np.array([1.0, 0.0]), "b": np.array(0.0)}, np.array(1.0)))
    assert float(out["y"]) == 6 + 9
    assert float(out["z"][0]) == 4


def test_integers_are_no_inputs():
    judge = ad.referee(lambda x, i: x[i] ** 2, np.array([1.0, 3.0]), np.array(1))
    gradient, none = judge.vjp(1.0)
    np.testing.assert_array_equal(gradient, [0.0, 6.0])
    assert none is None


def test_float32_is_judged_at_its_own_points():
    x = np.array(0.1, np.float32)
    assert float(ad.referee(lambda x: x * x, x).grad()) == 2 * float(x)


def test_complex_gradients_follow_the_convention():
    """d/dx - i d/dy of |z|^2 is 2 conj(z)."""
    gradient = ad.referee(lambda z: X(z).real(z) ** 2 + X(z).imag(z) ** 2, 1 + 2j).grad()
    assert complex(gradient) == 2 - 4j


def test_complex_outputs():
    pushed = ad.referee(lambda z: z * z, 1 + 2j).jvp(1 + 1j)
    assert complex(pushed) == 2 * (1 + 2j) * (1 + 1j)
    (pulled,) = ad.referee(lambda z: z * z, 1 + 2j).vjp(3 - 1j)
    assert complex(pulled) == 2 * (1 + 2j) * (3 - 1j)  # as every backend has it: holomorphic, times the cotangent


def test_empty_arrays():
    judge = ad.referee(lambda x: X(x).sum(x), np.zeros(0))
    assert judge.grad().shape == (0,)
    assert judge.classify().kind == "smooth"


def test_numpy_functions_run_in_arb_arithmetic():
    judge = ad.referee(lambda x: np.sum(np.exp(x)), np.array([0.5, 1.0]))
    assert judge.method == "arb"
    np.testing.assert_array_equal(judge.grad(), [math.exp(0.5), math.exp(1.0)])


# Second order.


def test_hessian_vector_product():
    x = np.array([1.0, 2.0, 3.0])
    (product,) = ad.referee(lambda x: x[0] ** 2 * x[1] + X(x).exp(x[2]) * x[0], x).hvp((np.array([1.0, 2.0, 1.0]),))
    e = math.exp(3.0)
    np.testing.assert_allclose(product, [4 + 4 + e, 2.0, e + e], rtol=1e-15)


def test_second_derivative_at_a_kink_is_none():
    (product,) = ad.referee(lambda x: x * X(x).abs(x), 0.0).hvp((1.0,))  # 2 |x|' at 0
    assert math.isnan(product)


# At kinks.


@pytest.mark.parametrize(
    ("fun", "x", "direction", "interval"),
    [
        (lambda x: X(x).abs(x), 0.0, 1.0, (-1, 1)),
        (lambda x: -X(x).abs(x), 0.0, 2.0, (-2, 2)),
        (lambda x: X(x).linalg.norm(x), np.zeros(3), np.array([1.0, 0, 0]), (-1, 1)),
        (lambda x: X(x).max(x), np.array([1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), (1, 1)),
        (lambda x: X(x).abs(x[0]) - X(x).abs(x[1]), np.zeros(2), np.ones(2), (-2, 2)),
        (lambda x: X(x).where(x > 0, x, 0.2 * x), 0.0, 1.0, (0.2, 1)),
        (lambda x: X(x).sin(x), 0.0, 3.0, (3, 3)),
    ],
)
def test_interval_of_legal_choices(fun, x, direction, interval):
    np.testing.assert_allclose(ad.referee(fun, x).subdifferential(direction), interval, rtol=1e-12)


def test_no_gradient_at_a_kink():
    with pytest.raises(NotDifferentiable, match=r"no gradient here: kink at x: -1 from the left, 1 from the right"):
        ad.referee(lambda x: X(x).abs(x), 0.0).grad()


# Functions that do not run in Arb arithmetic.


def test_differences_carry_a_bar():
    import math as python_math

    def f(x):
        return python_math.sin(float(x)) * 2.0  # no tracer survives float()

    judge = ad.referee(f, 1.0)
    assert judge.method == "differences"
    assert "float(x)" in judge.why
    gradient = judge.grad()
    assert abs(float(gradient) - 2 * math.cos(1.0)) <= gradient.error < 1e-10
    assert gradient.exact is None
    with pytest.raises(ValueError, match="computed in floats"):
        gradient.digits()


@pytest.mark.parametrize(
    ("fun", "at", "kind"),
    [(abs, 0.0, "kink"), (math.sqrt, 0.0, "infinite"), (math.floor, 1.0, "jump"), (math.sin, 1.0, "smooth")],
)
def test_kinds_by_differences(fun, at, kind):
    def f(x):
        try:
            return np.array(float(fun(float(x))))
        except ValueError:
            return np.array(np.nan)

    judge = ad.referee(f, at)
    assert (judge.method, judge.classify().kind) == ("differences", kind)


def test_torch_code():
    torch = pytest.importorskip("torch")
    judge = ad.referee(lambda x: torch.sum(torch.exp(x)), np.array([1.0, 2.0]))
    np.testing.assert_allclose(judge.grad(), np.exp([1.0, 2.0]), rtol=1e-10)


# Bad input.


@pytest.mark.parametrize(
    ("fun", "args", "text"),
    [
        (lambda x: None, (1.0,), r"returned nothing \(None\)"),
        (lambda x: "a", (1.0,), "returned out of type str; it must be an array or a number"),
        (lambda x: (), (1.0,), "without any array"),
        (lambda x: x * np.random.rand(), (1.0,), "two results for the same arguments"),
        (lambda x: x, (1,), r"no floating argument to differentiate by \(got 1\)"),
        (3, (1.0,), "must be callable, got 3"),
        (lambda x: [][1], (1.0,), "ran neither in Arb arithmetic"),
    ],
)
def test_functions_that_cannot_be_judged(fun, args, text):
    with pytest.raises(RuleError, match=text):
        ad.referee(fun, *args)


def test_hidden_state():
    calls = []

    def f(x):
        calls.append(x)
        return x * len(calls)

    with pytest.raises(RuleError, match="it depends on something that changes"):
        ad.referee(f, 1.0)


def test_seeds_of_another_shape():
    judge = ad.referee(lambda x: X(x).sum(x), np.ones(3))
    with pytest.raises(SignatureMismatch, match=r"tangents of x has shape \(2,\), expected \(3,\)"):
        judge.jvp(np.ones(2))
    with pytest.raises(NotDifferentiable, match="needs a function with one real scalar output"):
        ad.referee(lambda x: x, np.ones(3)).grad()


def test_two_referees_do_not_meet():
    """The second reads through the first's function: its tracers are its own."""

    def outer(x):
        return ad.grad(lambda y: y**3, backend="reference")(x)

    assert float(ad.referee(outer, 2.0).grad()) == 12.0


# Scales, periods and ends of Arb's numbers.


def guarded(x, value, fun):
    """fun(x), but `value` at 0."""
    return X(x).where(x == 0, value, fun(X(x).where(x == 0, 1.0, x)))


SCALES = {
    "a scale that only a large factor shows": (lambda x: x + X(x).tanh(x * 1e150) / 1e150, "smooth", 2.0),
    "a jump divided away": (lambda x: X(x).where(x > 0, 1.0, 0.0) / 1e200 + x, "jump", None),
    "flat": (lambda x: guarded(x, 0.0, lambda s: X(x).exp(-1 / s**2)), "smooth", 0.0),
    "a period of one power of two": (
        lambda x: guarded(x, 0.0, lambda s: s * X(x).cos(2 * math.pi * X(x).log2(X(x).abs(s)))), "unresolved", None,
    ),
    "a hundredth power": (lambda x: X(x).abs(x) ** 0.01, "infinite", None),
    "1/log": (lambda x: guarded(x, 0.0, lambda s: 1 / X(x).log(X(x).abs(s))), "infinite", None),
    "a jump and a root": (lambda x: X(x).where(x > 0, 1 + X(x).sqrt(X(x).abs(x)), 0.0), "jump", None),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALES)
def test_scales(name):
    fun, kind, slope = SCALES[name]
    judge = ad.referee(fun, 0.0)
    assert judge.classify().kind == kind
    if slope is not None:
        assert float(judge.grad()) == slope


def test_a_weighted_zero_is_zero():
    """A softmax sums up to 1, behind a comparison that stays open at every precision."""

    def f(x):
        y = 1 / (X(x).cumulative_sum(x) ** 2 + 0.45)
        y = y * X(x).flip(y)
        y = X(x).exp(y - X(x).max(y))
        return X(x).sum(y / X(x).sum(y))

    x = np.random.default_rng(60).standard_normal(4)
    x[1] = 0
    gradient = ad.referee(f, x).grad()
    assert np.all(np.abs(gradient) <= 1e-300)


def test_threads_share_no_precision():
    found = {}

    def work(i):
        for k in range(8):
            x = 1 + i / 8 + k / 64
            got = ad.referee(lambda x: X(x).sin(X(x).exp(x * x)), x).grad()
            with localcontext() as context:
                context.prec = 60
                inner = (Decimal(x) * Decimal(x)).exp()
                exact = _sin_cos(inner)[1] * inner * 2 * Decimal(x)
                found[i, k] = abs(Decimal(got.digits(30)) / exact - 1)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 32
    assert max(found.values()) < Decimal(10) ** -28


def test_digits_out_of_range():
    with pytest.raises(UsageError, match="digits=-5 were asked for; choose from 1 to 10000"):
        ad.referee(np.sin, 1.0, digits=-5)


def test_as_many_digits_as_asked_for():
    """e to a hundred digits, by its series."""
    with localcontext() as context:
        context.prec = 110
        term, total = Decimal(1), Decimal(0)
        for n in range(1, 100):
            total += term
            term /= n
        exact = +total
        found = ad.referee(np.exp, 1.0, digits=100).grad().digits(100)
        assert abs(Decimal(found) / exact - 1) < Decimal(10) ** -99


def test_no_second_derivative_where_there_is_no_first():
    from adbridge.validate.judging import judge_hvp

    for fun, x in ((lambda x: X(x).log(x), -1.0), (lambda x: X(x).sqrt(x), 0.0)):
        assert judge_hvp(ad.referee(fun, x), (1.0,), (np.array(np.nan),)).verdict == "undefined"
