"""Programs over other number types: values against closed forms and published digits, decisions, refusals."""

from __future__ import annotations

import builtins
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
    evaluate_in,
    floats,
    has_arb,
    matrices,
    rounded,
)
from adbridge.backends.reference.numbers.balls import ball, working_precision
from adbridge.backends.reference.primitives import _KEPT, CONSTANTS, PRIMITIVES, Primitive, primitive
from adbridge.backends.reference.program import Program
from adbridge.errors import CapabilityError
from rule_rows import ROWS, Row


def record(fun: Any, *args: Any) -> Program:
    return transforms.record(lambda *xs: (fun(*xs),), *args)


def in_arb(fun: Any, *args: Any, bits: int = 256) -> Any:
    (out,) = record(fun, *args).evaluate(*args, number="arb", bits=bits)
    return out


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


@pytest.mark.parametrize("name, question", [("inv", "invertible"), ("eigh", "eigenvalues are distinct")])
def test_what_balls_leave_open_about_a_matrix(name: str, question: str) -> None:
    x = np.ones((2, 2)) if name == "inv" else np.eye(2)
    program = transforms.record(lambda x: (x,), x)
    program.outputs = (program.append(PRIMITIVES[name], tuple(program.inputs), {}, None, None),)
    with pytest.raises(Undecided, match=question):
        program.evaluate(x, number="arb")


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
