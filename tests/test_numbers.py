"""Programs over other number types: values against closed forms and published digits, decisions, refusals."""

from __future__ import annotations

import builtins
import functools
import time
from typing import Any

import flint
import numpy as np
import pytest
from flint import arb

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference import transforms
from adbridge.backends.reference.numbers import (
    NUMBERS,
    Undecided,
    arrays,
    balls,
    decompositions,
    evaluate_in,
    floats,
    has_arb,
    matrices,
    rounded,
)
from adbridge.backends.reference.numbers.balls import ball, working_precision
from adbridge.backends.reference.numbers.conversions import NAN
from adbridge.backends.reference.numbers.decisions import ties_decided
from adbridge.backends.reference.primitives import _KEPT, CONSTANTS, PRIMITIVES, Primitive, primitive
from adbridge.backends.reference.program import Program
from adbridge.errors import CapabilityError
from rule_rows import ROWS, Row


def record(fun: Any, *args: Any) -> Program:
    return transforms.record(lambda *xs: (fun(*xs),), *args)


def in_arb(fun: Any, *args: Any, bits: int = 256) -> Any:
    (out,) = record(fun, *args).evaluate(*args, number="arb", bits=bits)
    return out


def over(name: str, *args: Any, bits: int = 2000, **params: Any) -> Any:
    """A primitive on arrays of floats or balls; its results' dtype is float64, or bool, as NumPy's is."""
    with working_precision(bits):
        operands = [
            arrays.of_dtype(x, x.dtype if x.dtype != object else np.dtype(float)) for x in map(arrays.as_array, args)
        ]
        return arrays.implementation_of(name)(*operands, **params)


def scalar(x: float) -> Any:
    return np.array(x)


def test_pi_to_a_thousand_digits() -> None:
    """Machin: pi = 16 atan(1/5) - 4 atan(1/239); the thousandth decimals are 2164201989."""
    out = in_arb(lambda one: 16 * xp.atan(one / 5) - 4 * xp.atan(one / 239), scalar(1.0), bits=3400)
    digits = out.item().str(1001, radius=False)
    assert digits.startswith("3.14159265358979323846264338327950288419716939937510")
    assert digits.endswith("2164201989")


def test_a_gradient_to_hundreds_of_digits() -> None:
    """d/dx of exp(sin x) log x at 2, reverse mode, against the closed form in Arb."""

    def gradient(x: Any) -> Any:
        _, linear, _ = transforms.linearize(lambda x: ((xp.exp(xp.sin(x)) * xp.log(x),), ()), (x,))
        return transforms.pull(linear, (np.array(1.0),))[0]

    got = in_arb(gradient, scalar(2.0), bits=1400).item()
    with working_precision(1500):
        two = arb(2)
        expected = two.sin().exp() * (two.cos() * two.log() + 1 / two)
        assert abs(got - expected) < arb(10) ** -400


def test_precision_is_as_asked_and_given_back() -> None:
    before = flint.ctx.prec
    program = record(lambda x: xp.exp(x), scalar(1.0))
    errors = [evaluate_in(program, (scalar(1.0),), bits=bits)[0].item().rad() for bits in (100, 1000)]
    assert flint.ctx.prec == before
    assert errors[0] < arb(2) ** -90 and errors[1] < arb(2) ** -990
    with pytest.raises(Undecided):
        in_arb(lambda x: xp.floor(xp.sin(x) * xp.sin(x) + xp.cos(x) * xp.cos(x)), scalar(1.0))
    assert flint.ctx.prec == before


def test_constants_are_exact() -> None:
    """A float is its binary value; a rule's ln 2 is ln 2."""
    assert in_arb(lambda x: x * 0.1, scalar(1.0)).item() == arb(0.1)
    slope = in_arb(lambda x: transforms.jvp(lambda x: ((xp.exp2(x),), ()), (x,), (np.array(1.0),))[1][0], scalar(0.0))
    with working_precision(256):
        assert slope.item().overlaps(arb.const_log2()) and slope.item().rad() < arb(2) ** -250
    assert in_arb(lambda x: x, np.longdouble(1) / 3 + np.zeros(1, np.longdouble))[0] == ball(np.longdouble(1) / 3)


def test_the_tables_name_primitives() -> None:
    assert {*balls.ELEMENTWISE, *arrays.AS_IT_IS, *arrays.ARRAYS, *matrices.MATRICES} <= set(PRIMITIVES)


def test_every_named_constant_is_known_everywhere() -> None:
    names = set(CONSTANTS.values())
    assert names == set(balls.NAMED) == set(floats.NAMED)
    values = {name: value for value in _KEPT for name in [CONSTANTS[id(value)]]}
    with working_precision(200):
        for name, value in values.items():
            assert float(balls.NAMED[name]()) == pytest.approx(value, rel=2e-16)
            assert floats.NAMED[name](np.longdouble(1)) == pytest.approx(value, rel=2e-16)
            assert abs(ball(floats.NAMED[name](np.longdouble(1))) / balls.NAMED[name]() - 1) < 1e-16


@pytest.mark.parametrize("value", [np.float32(0.1), np.float64(0.1), 0.1, 3, True, np.int64(7), np.longdouble("0.1")])
def test_balls_are_exact(value: Any) -> None:
    got = ball(value)
    assert got.is_exact()
    man, exp = got.man_exp()
    assert np.ldexp(np.longdouble(int(man)), int(exp)) == value


def test_balls_of_complex_numbers() -> None:
    assert ball(1 + 2j) == flint.acb(1, 2)
    assert ball(np.complex64(1 + 2j)) == ball(np.clongdouble(1 + 2j)) == flint.acb(1, 2)
    out = in_arb(lambda z: xp.abs(z * z), np.array([3 + 4j]))
    assert isinstance(out[0], arb) and out[0] == 25


# The primitives' values, against NumPy's and SciPy's.


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_values_are_numpys(row: Row) -> None:
    with np.errstate(all="ignore"):
        expected = np.asarray(row.fun(*row.args))
        out = in_arb(row.fun, *row.args)
    assert out.shape == expected.shape
    got = rounded(out, expected.dtype)
    rtol = 1e-10 if row.name in ("sinc", "bessel_j", "betaln", "gammaln") else 1e-13
    scale = 1 if row.label == "singular" else np.max(np.abs(expected), initial=0)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=1e-13 * scale)


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "sign", "isnan", "isinf", "isfinite", "signbit"])
def test_decisions_about_one_number(name: str) -> None:
    x = np.array([0.5, -0.5, 1.5, 2.5, -3.7, 0.0, 1e300, 4.0])
    np.testing.assert_array_equal(rounded(in_arb(PRIMITIVES[name], x)), PRIMITIVES[name](x))


@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparisons(name: str) -> None:
    a, b = np.array([1.0, 2.0, 2.0, -1e-300]), np.array([2.0, 1.0, 2.0, 0.0])
    out = in_arb(PRIMITIVES[name], a, b)
    assert out.dtype == bool
    np.testing.assert_array_equal(out, PRIMITIVES[name](a, b))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor", "floor_divide", "remainder", "fmod"])
def test_pairs(name: str) -> None:
    a, b = np.array([5.5, -5.5, 5.5, 6.0]), np.array([2.0, 2.0, -2.0, 3.0])
    np.testing.assert_array_equal(rounded(in_arb(PRIMITIVES[name], a, b)), PRIMITIVES[name](a, b))


def test_extrema_and_orders() -> None:
    x = np.array([[3.0, 1.0, 2.0, 1.0], [0.0, -1.0, 5.0, 5.0]])
    for name in ("argmax", "argmin", "max", "min"):
        for axis in (0, 1):
            out = in_arb(lambda x, name=name, axis=axis: getattr(xp, name)(x, axis=axis), x)
            np.testing.assert_array_equal(rounded(out), getattr(np, name)(x, axis=axis))
    for descending in (False, True):
        order = lambda x, d=descending: PRIMITIVES["argsort"](x, axis=1, descending=d)  # noqa: E731
        np.testing.assert_array_equal(in_arb(order, x), order(x))
    where = lambda x, v: PRIMITIVES["searchsorted"](x, v, side="right")  # noqa: E731
    np.testing.assert_array_equal(in_arb(where, np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 0.0, 9.0])), [3, 0, 4])


def test_integers_and_booleans_stay_what_they_are() -> None:
    def fun(x: Any) -> Any:
        i = xp.astype(x, np.int64)
        return x[i % 3] + (i ^ 1) + xp.astype(x > 1, np.float64)

    x = np.array([0.5, 1.5, 2.5])
    np.testing.assert_array_equal(rounded(in_arb(fun, x)), fun(transforms.np.array(x)))
    assert in_arb(lambda x: xp.any(x > 2) & xp.all(x > 0), x).item() is True


def test_empty_and_zero_dimensional_arrays() -> None:
    assert in_arb(lambda x: xp.sum(x), np.zeros(0)).item() == 0
    assert in_arb(lambda x: x @ x.T, np.zeros((2, 0))).tolist() == [[0, 0], [0, 0]]
    out = in_arb(lambda x: x + 1, scalar(1.0))
    assert isinstance(out, np.ndarray) and out.shape == () and out.item() == 2

    def written(x: Any) -> Any:
        y = xp.zeros_like(x)
        y[0] = x[1] * 2
        y[1:] += x[0]
        return y

    assert rounded(in_arb(written, np.array([1.0, 3.0]))).tolist() == [6, 1]


def test_batches_of_matrices() -> None:
    a = np.random.default_rng(0).uniform(-1, 1, (2, 3, 3)) + 2 * np.eye(3)
    for name in ("inv", "det", "cholesky"):
        x = a @ np.swapaxes(a, 1, 2)
        np.testing.assert_allclose(rounded(in_arb(PRIMITIVES[name], x)), PRIMITIVES[name](x), rtol=1e-12)
    rank = lambda x: PRIMITIVES["matrix_rank"](x, rtol=1e-10)  # noqa: E731
    assert in_arb(rank, a).tolist() == [3, 3]


# What cannot be decided.


def test_undecided_carries_the_question() -> None:
    def fun(x: Any) -> Any:
        return xp.maximum(xp.sin(x) ** 2 + xp.cos(x) ** 2, 1.0)

    with pytest.raises(Undecided, match=r"a < b for .* is not decided at 99 bits; raise bits=") as info:
        in_arb(fun, scalar(1.0), bits=99)
    assert info.value.bits == 99 and len(info.value.operands) == 2
    assert isinstance(info.value, ad.AdbridgeError)


def test_more_bits_decide() -> None:
    """1 + 2^-400 exceeds 1: at 300 bits nobody knows."""

    def fun(x: Any) -> Any:
        return xp.exp(x * x * x * x) > 1

    x = scalar(2.0**-100)
    with pytest.raises(Undecided):
        in_arb(fun, x, bits=300)
    assert in_arb(fun, x, bits=500).item() is True


@pytest.mark.parametrize("name", ["max", "min"])
def test_what_is_the_same_number_ties(name: str) -> None:
    """One inexact number taken twice is equal to itself."""

    def slope(x: Any) -> Any:
        fun = lambda x: ((getattr(xp, name)(xp.exp(x)[np.array([0, 0])]),), ())  # noqa: E731
        return transforms.jvp(fun, (x,), (np.ones(1),))[1][0]

    assert in_arb(slope, np.ones(1)).item().overlaps(arb(1).exp())


def test_what_balls_leave_open_about_a_matrix() -> None:
    with pytest.raises(Undecided, match="invertible"):
        over("inv", np.ones((2, 2)))


# Refusals.


def test_a_primitive_without_arb_is_named() -> None:
    planted = primitive("planted", np.sin)
    try:
        assert not has_arb("planted")
        with pytest.raises(CapabilityError, match="'planted' does not run over Arb balls"):
            in_arb(planted, scalar(1.0))
    finally:
        del PRIMITIVES["planted"]


def test_unknown_number_type() -> None:
    with pytest.raises(CapabilityError, match="no number type 'float16'; there are: float32, float64"):
        record(xp.sin, scalar(1.0)).evaluate(scalar(1.0), number="float16")


def test_without_flint(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "flint":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    real = builtins.__import__
    program = record(xp.sin, scalar(1.0))
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(CapabilityError, match=r"pip install 'adbridge\[arb\]'"):
        program.evaluate(scalar(1.0), number="arb")


# Floating dtypes.


@pytest.mark.parametrize("number", [n for n in NUMBERS if n != "arb"])
def test_floating_dtypes(number: str) -> None:
    def fun(x: Any) -> Any:
        return xp.sum(xp.exp2(x) * xp.astype(x, np.float64) @ np.array([0.25, 0.5]))

    x = np.array([1.0, 2.0])
    (out,) = record(fun, x).evaluate(x, number=number)
    assert out.dtype == np.dtype(number)
    assert out == 4.5


def test_longdouble_has_more_digits() -> None:
    if np.finfo(np.longdouble).eps >= np.finfo(float).eps:
        pytest.skip("longdouble is float64 here")

    def slope(x: Any) -> Any:
        return transforms.jvp(lambda x: ((xp.exp2(xp.sin(x)) / x,), ()), (x,), (np.array(1.0),))[1][0]

    program = record(slope, scalar(0.7))
    x = np.longdouble("0.7")
    (out,) = program.evaluate(x, number="longdouble")
    (exact,) = program.evaluate(np.asarray(x), number="arb")
    with working_precision(256):
        assert abs(ball(out) - exact.item()) < 1e-18


@pytest.mark.parametrize("fun", [PRIMITIVES["inv"], PRIMITIVES["det"], PRIMITIVES["erf"]], ids=["inv", "det", "erf"])
def test_what_longdouble_has_not(fun: Primitive) -> None:
    if np.finfo(np.longdouble).eps >= np.finfo(float).eps:
        pytest.skip("longdouble is float64 here")
    x = np.eye(2) * 0.3
    with pytest.raises(CapabilityError, match=f"{fun.name} does not run over (longdouble|float128)"):
        record(fun, x).evaluate(x, number="longdouble")


def test_complex_programs_in_single_precision() -> None:
    z = np.array([1 + 2j])
    (out,) = record(lambda z: xp.exp(z) * xp.abs(z), z).evaluate(z, number="float32")
    assert out.dtype == np.complex64


@pytest.mark.parametrize("number", NUMBERS)
def test_another_number_type_does_not_take_the_recorded_branch_for_its_own(number: str) -> None:
    program = ad.trace(lambda x: x * x if x > 0 else -x, 1.0)
    assert program.evaluate(2.0, number=number)[0] == 4.0
    with pytest.raises(ad.SignatureMismatch, match="trace it again"):
        program.evaluate(-2.0, number=number)
    with pytest.raises(ad.SignatureMismatch, match="trace it again"):
        program.vjp().program.evaluate(-2.0, number=number)


@pytest.mark.parametrize("number", NUMBERS)
def test_arguments_are_those_of_the_traced_function(number: str) -> None:
    program = ad.trace(lambda t, n: t["a"] ** n, {"a": np.array([1.0, 2.0])}, 3)
    assert list(program.evaluate({"a": np.array([2.0, 3.0])}, 3, number=number)[0]) == [8, 27]
    with pytest.raises(ad.SignatureMismatch, match="was 3 when this program was recorded"):
        program.evaluate({"a": np.array([2.0, 3.0])}, 4, number=number)
    with pytest.raises(ad.SignatureMismatch, match=r"wrong shape: expected \(2,\), got \(3,\)"):
        program.evaluate({"a": np.ones(3)}, 3, number=number)
    with pytest.raises(ad.SignatureMismatch, match="tree structure"):
        program.evaluate(number=number)


@pytest.mark.parametrize("fun", [lambda x: np.sum(np.searchsorted([0.0, 1.5], x) * x)])
def test_a_list_searched_in(fun: Any) -> None:
    x = np.array([1.0, 2.0, 3.0])
    assert ad.trace(fun, x).evaluate(x, number="arb")[0] == 11


def test_rank_by_numpys_tolerance() -> None:
    x = np.diag([1.0, 2.0, 3.0])
    assert ad.trace(lambda x: np.linalg.matrix_rank(x) * x[0, 0], x).evaluate(x, number="arb")[0] == 3


def test_rounding_to_decimals() -> None:
    (out,) = ad.trace(lambda x: np.round(x, 1) + x, 1.26).evaluate(1.25, number="arb")
    assert abs(float(out.item()) - 2.45) < 1e-15


# Special points: IEEE's values, by closed forms.

INF, NANF = float("inf"), float("nan")
SPECIAL: dict[str, list[tuple[Any, ...]]] = {
    "pow": [
        *[(0, 2, 0), (0, 0.5, 0), (0, 0, 1), (0, -1, INF), (0, -0.5, INF), (-8, 1 / 3, NANF), (-2, 3, -8)],
        *[(NANF, 0, 1), (1, NANF, 1), (-INF, 3, -INF), (-INF, -2, 0), (0.5, INF, 0), (-0.5, INF, 0), (INF, 0.5, INF)],
        *[(4, 1.5, 8), (0, INF, 0), (0, -INF, INF)],
    ],
    "sqrt": [(0, 0), (4, 2), (INF, INF), (-1, NANF), (NANF, NANF)],
    "log": [(0, -INF), (1, 0), (INF, INF), (-1, NANF), (-INF, NANF)],
    "log1p": [(-1, -INF), (0, 0), (-2, NANF)],
    "log2": [(0, -INF), (8, 3), (-1, NANF)],
    "exp": [(-INF, 0), (INF, INF), (0, 1), (NANF, NANF)],
    "expm1": [(-INF, -1), (INF, INF)],
    "divide": [(1, 0, INF), (-1, 0, -INF), (0, 0, NANF), (1, INF, 0), (INF, INF, NANF)],
    "subtract": [(INF, INF, NANF), (1, INF, -INF)],
    "multiply": [(0, INF, NANF), (-2, INF, -INF)],
    "xlogy": [(0, 0, 0), (0, 3, 0), (0, INF, 0), (0, NANF, NANF), (2, 0, -INF), (1, 1, 0)],
    "xlog1py": [(0, -1, 0), (2, -1, -INF), (0, NANF, NANF)],
    "entr": [(0, 0), (1, 0), (-1, -INF), (INF, -INF)],
    "hypot": [(0, 0, 0), (3, 4, 5), (INF, NANF, INF), (-INF, 1, INF)],
    "atan2": [
        *[(0, 0, 0), (0, 1, 0), (0, -1, np.pi), (1, 0, np.pi / 2), (-1, 0, -np.pi / 2), (INF, INF, np.pi / 4)],
        *[(INF, -INF, 3 * np.pi / 4), (1, INF, 0), (1, -INF, np.pi)],
    ],
    "abs": [(0, 0), (-INF, INF), (-3, 3), (NANF, NANF)],
    "sign": [(0, 0), (-INF, -1), (1e-300, 1), (NANF, NANF)],
    "sinc": [(0, 1), (1, 0), (0.5, 2 / np.pi)],
    "logaddexp": [
        (-INF, 1, 1),
        (-INF, -INF, -INF),
        (INF, 1, INF),
        (INF, -INF, INF),
        (0, 0, np.log(2)),
        (1, NANF, NANF),
    ],
    "maximum": [(INF, 1, INF), (-INF, 1, 1), (NANF, 1, NANF), (1, NANF, NANF), (2, 2, 2)],
    "minimum": [(INF, 1, 1), (-INF, 1, -INF), (NANF, 1, NANF)],
    "copysign": [(3, -0.5, -3), (-3, 0, 3), (INF, -1, -INF)],
    "expit": [(-INF, 0), (INF, 1), (0, 0.5), (1e300, 1), (-1e300, 0), (1e10, 1)],
    "log_expit": [(-INF, -INF), (INF, 0), (-1e300, -1e300), (1e10, 0)],
    "logit": [(0, -INF), (1, INF), (0.5, 0), (2, NANF)],
    "tanh": [(1e300, 1), (-INF, -1), (0, 0)],
    "erf": [(1e300, 1), (INF, 1), (-INF, -1)],
    "erfc": [(1e300, 0), (INF, 0), (-INF, 2), (-1e10, 2)],
    "erfcx": [(INF, 0), (1e300, 1e-300 / np.sqrt(np.pi))],
    "log_ndtr": [(-INF, -INF), (INF, 0), (-1e200, -INF), (0, -np.log(2))],
    "gamma": [(0, INF), (-1, NANF), (5, 24), (0.5, np.sqrt(np.pi)), (INF, INF)],
    "gammaln": [(0, INF), (-3, INF), (1, 0), (INF, INF)],
    "asin": [(1, np.pi / 2), (-1, -np.pi / 2), (2, NANF)],
    "acos": [(1, 0), (-1, np.pi)],
    "acosh": [(1, 0), (0, NANF)],
    "atanh": [(1, INF), (-1, -INF), (2, NANF)],
    "sin": [(INF, NANF), (0, 0)],
    "floor": [(2, 2), (-INF, -INF), (-0.5, -1), (NANF, NANF), (1e300, 1e300)],
    "ceil": [(2, 2), (-0.5, 0), (1e-300, 1)],
    "trunc": [(0, 0), (-0.5, 0), (-2.5, -2)],
    "round": [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (3, 3)],
    "remainder": [(6, 3, 0), (-1, 3, 2), (5, -3, -1), (-1, INF, INF), (1, INF, 1), (1, 0, NANF), (NANF, 1, NANF)],
    "fmod": [(6, 3, 0), (-7, 3, -1), (-1, INF, -1), (1, 0, NANF)],
    "floor_divide": [(6, 3, 2), (-1, INF, -1), (-7, 2, -4)],
    "cbrt": [(0, 0), (-8, -2), (-INF, -INF)],
    "bessel_ie": [(INF, 0), (0, 1)],
    "isnan": [(NANF, True), (INF, False), (0, False)],
    "isinf": [(-INF, True), (NANF, False), (1, False)],
    "isfinite": [(-INF, False), (NANF, False), (1, True)],
    "less": [(NANF, 1, False), (1, INF, True), (INF, INF, False)],
    "less_equal": [(NANF, 1, False), (1, 1, True), (2, 1, False)],
    "equal": [(NANF, NANF, False), (INF, INF, True), (0, 0, True)],
    "not_equal": [(NANF, NANF, True), (1, 2, True)],
}
"""(arguments..., value)"""
ORDERS = {"bessel_ie": {"order": 0}}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_points(name: str) -> None:
    for *args, expected in SPECIAL[name]:
        got = over(name, *map(scalar, map(float, args)), **ORDERS.get(name, {}))
        if expected != expected:
            assert got is NAN, (args, got)
        else:
            assert float(got) == pytest.approx(float(expected), rel=1e-15, abs=1e-300), (args, got)


@pytest.mark.parametrize("name", ["exp", "expm1", "sinh", "tanh", "erf", "erfc", "erfcx", "expit", "gamma", "gammaln"])
def test_far_tails_are_quick(name: str) -> None:
    """They are numbers whose exponents have hundreds of digits; of a number like that, too."""
    start = time.perf_counter()
    for x in (1e10, 1e300, -1e10, -1e300):
        over(name, over("exp", scalar(x)))
        over(name, scalar(x + 0.5))
    assert time.perf_counter() - start < 1


def test_tails_are_right_to_the_last_bit() -> None:
    """erfc x ~ exp(-x^2) / (sqrt(pi) x) (1 - 1/(2 x^2)), DLMF 7.12.1, and at an inexact x as well."""
    with working_precision(500):
        for x in (ball(1e8), ball(1e8) / 3):
            leading = (-x * x).exp() / (arb.const_sqrt_pi() * x)
            assert abs(over("erfc", x, bits=500) / leading - 1 + 1 / (2 * x * x)) < 1 / x**4
            log = over("log_ndtr", -x * arb(2).sqrt(), bits=500)
            assert abs(log - (leading / 2 * (1 - 1 / (2 * x * x))).log()) < 1 / x**4


@pytest.mark.parametrize("n", [1, 2, 3, -2])
def test_powers_of_balls_around_zero(n: int) -> None:
    x = arb(0, arb(2) ** -10)
    got = over("pow", x, np.array(float(n)))
    assert got.is_finite() == (n > 0)
    assert n < 0 or (got.contains(arb(2) ** (-10 * n)) and got.rad() < arb(2) ** (1 - 10 * n))


def test_sums_of_exponentials_at_infinity() -> None:
    assert float(over("logsumexp", np.array([-INF, 1.0]), axis=(0,), keepdims=False).item()) == 1
    assert float(over("logsumexp", np.array([INF, 1.0]), axis=(0,), keepdims=False).item()) == INF
    assert float(over("logsumexp", np.array([-INF, -INF]), axis=(0,), keepdims=False).item()) == -INF
    assert rounded(over("softmax", np.array([-INF, 1.0]), axis=(0,))).tolist() == [0, 1]
    for x in ([INF, 1.0], [-INF, -INF]):  # as SciPy has it
        assert np.isnan(rounded(over("softmax", np.array(x), axis=(0,)))).all()
    assert rounded(over("log_softmax", np.array([-INF, 1.0]), axis=(0,))).tolist() == [-INF, 0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, as it records
def test_the_branch_not_taken_does_not_leak() -> None:
    out = in_arb(lambda x: xp.where(x > 0, xp.log(x), x) + xp.where(x == 0, 0.0, 1 / x), np.array([1.0, 0.0, -2.0]))
    assert rounded(out).tolist() == [1, 0, -2.5]
    total = in_arb(lambda x: xp.sum(xp.where(xp.isnan(x * x), 0.0, x)), np.array([NANF, 1.0, 2.0]))
    assert total.item() == 3


def test_order_with_nan_and_infinities() -> None:
    x = np.array([2.0, NANF, -INF, INF, 2.0])
    for name, params in {"argmax": {}, "argmin": {}, "argsort": {"descending": False}}.items():
        axis = {"axis": 0} if name == "argsort" else {"axis": (0,), "keepdims": False}
        expected = getattr(np, name)(x, **({"stable": True} if name == "argsort" else {}))
        np.testing.assert_array_equal(np.asarray(over(name, x, **axis, **params), int), expected)


@pytest.mark.parametrize("order", range(5))
def test_sinc_has_no_special_point(order: int) -> None:
    """At 0 and next to it: the derivatives of sin(pi x)/(pi x) are pi^n (-1)^(n/2) / (n + 1), or 0."""
    with working_precision(2000):
        exact = arb.pi() ** order * (-1) ** (order // 2) / (order + 1) if order % 2 == 0 else arb(0)
        for x in (arb(0), arb(2) ** -500, arb(0, arb(2) ** -500)):
            assert abs(over("sinc", x, order=order) - exact) < arb(2) ** -490
        x = arb(2) ** -3  # the series; beyond 1/pi, the recurrence: x f = sin(pi x) / pi, n times
        for x in (arb(2) ** -3, arb(3)):
            f = [over("sinc", x, order=k) for k in range(order + 1)]
            left = x * f[order] + (order * f[order - 1] if order else 0)
            turns = [(x * arb.pi()).sin(), (x * arb.pi()).cos()]
            right = arb.pi() ** (order - 1) * turns[order % 2] * (-1) ** (order // 2)
            assert abs(left - right) < arb(2) ** -1900


@pytest.mark.parametrize("name", ["asin", "acos", "atanh", "log", "sqrt"])
@pytest.mark.parametrize("z", [2 + 0j, -2 + 0j])
def test_cuts_belong_to_the_upper_side(name: str, z: complex) -> None:
    got = rounded(arrays.as_array(over(name, np.array(z))), complex)
    assert got == pytest.approx(PRIMITIVES[name](np.array(z)), rel=1e-14)
    with working_precision(300), ties_decided(200, ["less"]):
        assert rounded(arrays.as_array(over(name, np.array(z))), complex) == pytest.approx(np.conj(got), rel=1e-14)


# Ties.


def test_exact_ties_are_listed() -> None:
    x = np.array([1.0, 1.0, 0.0])
    with ties_decided(500) as met:
        assert float(over("max", x, axis=(0,), keepdims=False).item()) == 1
        assert float(over("abs", np.array(0.0))) == float(over("sign", np.array(0.0))) == 0
        assert float(over("floor", np.array(3.0))) == 3 and not over("less", np.array(0.0), np.array(0))
        over("sqrt", np.array(0.0))
    assert [tie.question for tie in met] == [
        "a < b", "|a|", "sign(a)", "floor(a), a = b", "a < b", "where a function begins: a = b",
    ]  # fmt: skip
    assert {tie.kind for tie in met} == {"exact"} and {tie.side for tie in met} == {"equal"}


def test_a_number_does_not_tie_with_itself_nor_integers_with_each_other() -> None:
    with ties_decided(500) as met:
        x = arrays.of_dtype(np.array(1.0), np.dtype(float))
        assert over("maximum", x, x) is x[()]
        assert over("equal", np.array([1, 2]), np.array([1, 3])).tolist() == [True, False]
        assert over("logical_and", np.array([True, False]), np.array(True)).tolist() == [True, False]
    assert not met


def test_what_is_equal_to_many_bits_ties() -> None:
    def fun(x: Any) -> Any:
        return xp.maximum(xp.sin(x) ** 2 + xp.cos(x) ** 2, 1.0)

    program = record(fun, scalar(1.0))
    with ties_decided(200) as met:
        assert evaluate_in(program, (scalar(1.0),))[0].item().overlaps(arb(1))
    assert [(tie.question, tie.kind) for tie in met] == [("a < b", "close")]
    with ties_decided(400), pytest.raises(Undecided):
        evaluate_in(program, (scalar(1.0),))


@pytest.mark.parametrize("sides, expected", [((), [0, 0]), (("less", "greater"), [-1, 1]), (("greater",), [1, 0])])
def test_ties_are_taken_apart(sides: tuple[str, ...], expected: list[int]) -> None:
    with ties_decided(500, sides) as met:
        assert [int(x.unique_fmpz()) for x in over("sign", np.zeros(2))] == expected
    assert [tie.side for tie in met] == [*sides, "equal", "equal"][:2]


def test_the_same_tie_has_one_answer() -> None:
    x = arrays.of_dtype(np.zeros(2), np.dtype(float))
    for side, value in (("less", True), ("greater", False)):
        with ties_decided(500, [side]) as met:
            assert over("less", x, np.array(0))[0] is value
            assert over("greater", x, np.array(0))[0] is (not value)
            assert not over("equal", x, np.array(0))[0]
        assert len(met) == 2


@pytest.mark.parametrize(
    "name, x, values", [("floor", 3.0, (2, 3, 3)), ("ceil", 3.0, (3, 3, 4)), ("abs", 0.0, (0, 0, 0))]
)
def test_sides_of_jumps_and_kinks(name: str, x: float, values: tuple[int, ...]) -> None:
    for side, value in zip(("less", "equal", "greater"), values, strict=True):
        with ties_decided(500, [side]):
            assert float(over(name, scalar(x))) == value


def test_borders_within_a_tie() -> None:
    """A ball around the end of a domain is the end, up to what its radius leaves; without ties it is undetermined."""
    with working_precision(2000):
        around = arb(0, arb(2) ** -1000)
        for name, at, end in (("sqrt", around, 0), ("acos", 1 + around, 0), ("acosh", 1 + around, 0)):
            assert over(name, at).is_nan() and over(name, at) is not NAN
            with ties_decided(900) as met:
                assert abs(over(name, at) - end) < arb(2) ** -490
            assert len(met) == 1
        with ties_decided(900):
            assert over("pow", around, np.array(1.5)).contains(0)


def test_nan_that_may_be_a_number() -> None:
    unknown = arb(0, 1).log()
    with pytest.raises(Undecided):
        over("isnan", unknown)
    with ties_decided(500) as met:
        assert over("isnan", unknown) is True
    assert met[0].kind == "nan"


# Degenerate matrices.


def close(a: Any, b: Any, bits: int = 1400) -> bool:
    return all(abs(x - y) < arb(2) ** -bits for x, y in np.broadcast(a, b))


TINY = arb(2) ** -500
DEGENERATE = {
    "identity": np.eye(3),
    "repeated": np.diag([1.0, 1.0, 2.0]),
    "zero": np.zeros((3, 3)),
    "rank 1": np.ones((3, 3)),
    "one": np.array([[-2.0]]),
    "none": np.zeros((0, 0)),
    "complex": np.array([[2, 1j], [-1j, 2]]),
    "plus and minus": np.array([[0.0, 1.0], [1.0, 0.0]]),
}


def matrix(name: str, split: bool) -> Any:
    x = DEGENERATE[name]
    a = arrays.of_dtype(x, x.dtype)
    if not split:
        return a
    moved = np.random.default_rng(0).integers(-3, 4, x.shape)
    return arrays.of_dtype(a + TINY * (moved + moved.T), x.dtype)


@pytest.mark.parametrize("split", [False, True], ids=["equal", "split"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_eigenvalues_that_coincide(name: str, split: bool) -> None:
    with working_precision(2000):
        a = matrix(name, split)
        w, v = arrays.implementation_of("eigh")(a)
        n = len(a)
        assert close(a @ v, v * w) and close(decompositions.adjoint(v) @ v, np.eye(n))
        trace, square = sum(w, arb(0)), sum((x * x for x in w), arb(0))
        assert close(trace, sum((a[i, i].real for i in range(n)), arb(0)), 1900)
        assert close(square, sum((abs(x) ** 2 for x in a.flat), arb(0)), 1900)
        assert sorted(rounded(w)) == list(rounded(w))


@pytest.mark.parametrize("split", [False, True], ids=["equal", "split"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_singular_values_that_coincide(name: str, split: bool) -> None:
    with working_precision(2000):
        a = matrix(name, split)
        u, s, vh = arrays.implementation_of("svd")(a)
        assert close((u * s) @ vh, a)
        for x in (decompositions.adjoint(u) @ u, vh @ decompositions.adjoint(vh)):
            assert close(x, np.eye(len(a)))


@pytest.mark.parametrize("shape", [(4, 2), (2, 4), (3, 0), (0, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_singular_values_of_rectangles(shape: tuple[int, int], value: float) -> None:
    with working_precision(500):
        a = arrays.of_dtype(np.full(shape, value), np.dtype(float))
        u, s, vh = arrays.implementation_of("svd")(a)
        assert close((u * s) @ vh, a, 400) and close(decompositions.adjoint(u) @ u, np.eye(min(shape)), 400)
        p = arrays.implementation_of("pinv")(a, rtol=1e-15)
        assert p.shape == shape[::-1] and close(p, value / max(1, shape[0] * shape[1]), 400)


def test_eigenvalues_are_enclosed() -> None:
    """Of [[2, 1], [1, 3]], (5 -+ sqrt 5) / 2; of one with a double eigenvalue, 1, 1 and 4."""
    for bits in (100, 1000):
        for a in (np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[2.0, 1, 1], [1, 2, 1], [1, 1, 2]])):
            w, _ = over("eigh", a, bits=bits)
            with working_precision(2 * bits):
                root = arb(5).sqrt()
                exact = [(5 - root) / 2, (5 + root) / 2] if len(a) == 2 else [1, 1, 4]
                assert all(x.contains(y) and x.rad() < arb(2) ** (12 - bits) for x, y in zip(w, exact, strict=True))


def test_repeated_eigenvalues_are_noted() -> None:
    with ties_decided(500) as met:
        over("eigh", np.diag([1.0, 1.0, 2.0]))
        over("svd", np.diag([1.0, 2.0, 0.0]))
    assert [tie.question for tie in met] == ["an eigenvalue and the next", "a singular value and the next"]


def test_readings_of_a_matrix() -> None:
    """Along [[0, 1], [0, 0]] the lower triangle does not change, the symmetric part does."""
    with working_precision(500):
        a = np.array([[2.0, 1.0], [0.0, 5.0]])
        assert close(over("eigh", a, bits=500)[0], [2, 5], 400)
        with decompositions.reading("symmetric"):
            assert close(over("eigh", a, bits=500)[0].sum(), 7, 400)
            assert close(np.prod(over("eigh", a, bits=500)[0]), ball(39) / 4, 400)
            low = over("cholesky", a, bits=500)
            assert close(low[1, 0] * low[0, 0], ball(1) / 2, 400)
        assert close(over("cholesky", a, bits=500)[1, 0], 0, 400)
    with pytest.raises(ValueError, match="no reading 'upper' of a matrix; choose one of lower, symmetric"):
        decompositions.reading("upper").__enter__()


def test_singular_matrices() -> None:
    a = np.array([[1.0, 2.0], [2.0, 4.0]])
    assert over("det", a)[()] == 0
    sign, log = over("slogdet", a)
    assert sign[()] == 0 and float(log[()]) == -INF
    q, r = over("qr", a)
    with working_precision(2000):
        assert close(q @ r, a, 1900)
    assert over("matrix_rank", a, rtol=None)[()] == 1


def test_nan_in_a_matrix() -> None:
    w, v = over("eigh", np.full((2, 2), NANF))
    assert all(x is NAN for x in (*w, *v.flat))
    assert all(x is NAN for x in over("svd", np.full((2, 2), NANF))[1])


def test_speed_of_elementwise_chains() -> None:
    """2000 sines and cosines at 1000 bits in a fraction of a second: with room for a busy machine."""
    program = record(
        lambda x: functools.reduce(lambda y, _: xp.sin(y) + xp.cos(y), range(20), x), np.linspace(0, 1, 100)
    )
    start = time.perf_counter()
    evaluate_in(program, (np.linspace(0, 1, 100),), bits=1000)
    assert time.perf_counter() - start < 0.5
