"""The simplifier, rule by rule: what it rewrites computes what was recorded, at numbers that a wrong rule would spoil.

Every case is a recorded program, run as it is, simplified (with and without assumptions), and compiled. Where a rule
only moves signs, shares steps or drops what does nothing, results are the same bits; where it moves factors, products
are rounded in another order: then `ulps` of the largest entry.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import adbridge as ad
from adbridge.backends.reference import namespace as xp
from adbridge.backends.reference.algebra import ZERO
from adbridge.backends.reference.compile import compile_program
from adbridge.backends.reference.primitives import PRIMITIVES
from adbridge.backends.reference.program import Program, evaluate
from adbridge.backends.reference.simplify import simplify
from adbridge.backends.reference.transforms import record
from adbridge.backends.reference.workspaces import GuardFailed

B = "reference"
P = PRIMITIVES
X = np.array([1.5, -2.25, 0.75, -0.0])
Y = np.array([-0.5, 3.0, 1.25, 2.0])
A = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0], [2.0, 0.25, -3.0]])
T = np.array([1.0, 0.5, -3.0])
Z = np.array([1 + 2j, -0.5j, 3.0])
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -2.0, 5e-324])
WHOLE = np.array([3, -4, 0, 7])
SINGLE = np.array([0.1, -2.3, 3.7, 0.0], np.float32)


def recorded(fun: Callable[..., Any], *args: np.ndarray) -> Program:
    def flat(*tracers: Any) -> tuple[Any, ...]:
        out = fun(*tracers)
        return out if isinstance(out, tuple) else (out,)

    return record(flat, *args)


def steps(program: Program) -> list[str]:
    return [eq.primitive.name for eq in program.equations]


class Case(NamedTuple):
    fun: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    ulps: float = 0.0


def mixed(sign: float) -> Callable[[Any, Any], Any]:
    return lambda a, b: (sign * a - b * -2.0, -a + 3 * b, -(a - b), -2 * a + 2 * b, -2 * a - 2 * b, 0.5 * a - -4 * b)


CASES = {
    "signs cancel": Case(lambda x, y: (-x) * (-y) - xp.negative(-x), (X, Y)),
    "sums of signed": Case(lambda x, y: (-x + y, -x - y, x - -y, -(x + y), -(-x - -y)), (X, Y)),
    "sums of factors": Case(mixed(2.0), (X, Y), 4),
    "sums of factors, broadcast": Case(mixed(-3.0), (A, T), 4),
    "sums of factors, broadcast both ways": Case(mixed(-0.5), (A[:1], A[:, :1]), 4),
    "thin minus thin": Case(lambda a, b: -2 * a - b / 3, (A[:, :1], A), 4),
    "one variable twice": Case(lambda x: (x + x, x - x, 2 * x - 3 * x, -x + x, 0.5 * x + 0.5 * x), (X,)),
    "numbers on either side": Case(lambda x: (3 - x, x - 3, -x - 3, 3 - -x, -(3 - x), -2 * x + 1, 1 - 2 * x), (X,), 2),
    "zeros added": Case(lambda x, y: (x + np.zeros(4)) * y - (0.0 - y), (X, Y)),
    "zero factors": Case(lambda x: (0.0 * x, -(x * 0.0), x * np.zeros(8)), (SPECIAL,)),
    "quotients": Case(lambda x, y: (x / -y, -x / y, 3 / y, -1 / (2 * y), (x / 3) / (y / 7), -x / -4.0), (X, Y), 4),
    "reciprocals": Case(lambda x, y: (x * (1 / y), (1 / y) * x * (1 / (y * y)), 1 / (1 / y)), (X, Y), 4),
    "squares": Case(lambda x: (xp.square(-3 * x), (-x) ** 2, (2 * x) ** 3, (-x) ** 4, (-x) ** 3), (X,), 8),
    "powers": Case(lambda x: (x**1, x**2, x**3, x**4, x**-1, x**-2, x**0, x**5), (Y,), 8),
    "roots": Case(lambda x: (x**0.5, xp.sqrt(4 * x), (9 * x) ** 0.5), (np.abs(Y),), 2),
    "even and odd": Case(
        lambda x: tuple(f(-x) for f in (xp.sin, xp.cos, xp.tanh, xp.abs, xp.sinh, xp.cosh, xp.exp)), (X,)
    ),
    "even and odd, complex": Case(
        lambda z: tuple(f(-z) for f in (xp.sin, xp.cos, xp.tanh, xp.abs, xp.sinh, xp.cosh)), (Z,), 4
    ),
    "extrema of signed": Case(
        lambda x: tuple(
            f(c * x, axis=0, keepdims=k) for f in (xp.max, xp.min) for c in (-1.0, 2.0, -0.5) for k in (True, False)
        ),
        (A,),
    ),
    "maxima of pairs": Case(lambda x, y: (xp.maximum(-x, -y), xp.minimum(2 * x, -y), -xp.maximum(-x, 0.0)), (X, Y)),
    "sums": Case(lambda a: tuple(xp.sum(-2 * a, axis=k, keepdims=True) for k in ((), 0, 1, (0, 1), None)), (A,), 8),
    "sums of thin products": Case(
        lambda a, b, c: (xp.sum(a * b, axis=1), xp.sum(a * c, axis=0), xp.sum(a * b, axis=0), xp.sum(-2 * a * c)),
        (A, A[:, :1], A[:1]),
        16,
    ),
    "sums of products with a vector": Case(
        lambda a, t: (xp.sum(a * t, axis=0), xp.sum(a * t, axis=1), xp.sum(t * a, axis=0, keepdims=True)), (A, T), 16
    ),
    "ambiguous shapes": Case(lambda t, a: (t[:, None] * a, t * a, t[None] * a, t[:, None] - t, t[None] + t), (T, A)),
    "thin operands of equal size": Case(
        lambda r, c: (r + c, r * c - c * r, 2 * r - c, xp.broadcast_to(r, (3, 3)) * xp.broadcast_to(c, (3, 3))),
        (A[:1], A[:, :1]),
    ),
    "reshaped on both sides": Case(
        lambda t, u: (t[None] + u[None], t[None, :] * u[None, :], xp.xlogy(t[None], u[None])), (T * T, T * T + 1)
    ),
    "nothing, reshaped on both sides": Case(
        lambda a: xp.sum(a, axis=0, keepdims=True) - 2 * xp.sum(a * a, axis=0, keepdims=True), (np.zeros((2, 0, 0)),)
    ),
    "broadcast twice": Case(lambda t: xp.broadcast_to(xp.broadcast_to(t, (3, 3))[None], (2, 3, 3)) * t[0], (T,)),
    "reshapes": Case(
        lambda a: (
            xp.reshape(xp.reshape(-a, (9,)), (3, 3)) + a.T,
            xp.reshape(xp.reshape(a.T, (1, 9)), (9, 1)),
            a[None, ..., None][0, :, :, 0],
        ),
        (A,),
    ),
    "permutations": Case(
        lambda a: (
            xp.permute_dims(xp.permute_dims(a, (1, 2, 0)), (1, 2, 0)),
            xp.permute_dims(xp.permute_dims(a, (2, 0, 1)), (1, 2, 0)),
            xp.permute_dims(-a, (2, 0, 1)),
        ),
        (np.arange(24.0).reshape(2, 3, 4),),
    ),
    "transposed products": Case(
        lambda a, t: (a.T @ t, t @ a.T, t @ a, (-a).T @ (2 * t), a.T @ a, t @ t, a @ t[:, None], t[None] @ a),
        (A, T),
        16,
    ),
    "column products": Case(
        lambda a, t: (xp.reshape(a @ t[:, None], (3,)), xp.reshape(t[None] @ a, (3,)), xp.reshape(a @ a, (9,))),
        (A, T),
        16,
    ),
    "casts": Case(lambda x: xp.astype(-3 * x, np.dtype(np.float32)) * 2, (X,)),
    "casts to whole numbers": Case(
        lambda x: xp.astype(-3 * xp.astype(x, np.dtype(np.int64)), np.dtype(float)) * x, (X,)
    ),
    "concat": Case(
        lambda x, y: (xp.concat([-x, -y]), xp.concat([2 * x, -y]), xp.concat([-x]), xp.concat([-x, Y])), (X, Y)
    ),
    "where": Case(
        lambda x, y: (xp.where(x > 0, -x, y), xp.where(-x > 0, 0.0, -0.0) * y, xp.where(x > y, x, -y)), (X, Y)
    ),
    "cumulative": Case(lambda x: xp.cumulative_sum(-2 * x), (X,), 4),
    "items": Case(lambda x: (-x)[1] * (2 * x)[1:3] + (3 * x)[::-2] - (-x)[np.array([0, 0])], (X,), 4),
    "whole numbers": Case(
        lambda i: (
            i * 3,
            i + 1,
            2 - i,
            -i,
            -(i - 2) * i,
            i // 2,
            i % 3,
            i**2,
            xp.maximum(i, 2),
            xp.abs(-i),
            i / 2,
            6 / (i + 9),
        ),
        (WHOLE,),
        1,
    ),
    "large whole numbers": Case(lambda i: (i + 2**60 + 1, i * (2**53 + 1), (i + 2**53) * 1), (WHOLE,)),
    "whole numbers and floats": Case(
        lambda i, x: (x * (i * 2), -i * x, x * i / 3, (i - i) * x, i * 0.5, i * 2), (WHOLE, X), 4
    ),
    "small whole numbers": Case(
        lambda i: (i * np.int8(100), i + np.int8(100), xp.sum(i * np.int8(100))), (WHOLE.astype(np.int8),)
    ),
    "one number as two types": Case(lambda i: (i * 1, i * 1.0, i + 0, i + 0.0), (WHOLE,)),
    "booleans": Case(lambda x: ((x > 0) * x * 2, (x > 0) * (x < 1) * 3.0, xp.sum((x > 0) * -x)), (X,)),
    "single precision": Case(
        lambda x: (0.1 * x - x / 3, x * np.float32(0.7), (-2 * x) ** 2, xp.sum(x * 0.1) / 3), (SINGLE,), 8
    ),
    "single and double": Case(lambda x, y: (0.1 * x * y, x - y / 3, -x * -y, xp.sum(x * y[0])), (SINGLE, X), 1e9),
    "complex": Case(
        lambda z: (-z * 2j, z / -3, xp.conj(-z) - z, xp.real(-2 * z), xp.imag(3 * z), xp.square(-z)), (Z,), 8
    ),
    "complex and real": Case(
        lambda z, t: (2 * z * -t, -t / z, xp.sum(z[:, None] * t, axis=0), xp.sum(t * z[0])), (Z, T), 16
    ),
    "not finite": Case(
        lambda x: (-x, x + 1, 2 * x, x / 3, -x / -x, x - x, x * x, xp.sum(-x), xp.max(-x), -2 * x + x), (SPECIAL,)
    ),
    "signed zeros": Case(
        lambda x: (x * 1.0, xp.copysign(1.0, -x), xp.copysign(x, 0.0), xp.copysign(x, -0.0), 1 / (-x)), (SPECIAL,)
    ),
    "splats of either zero": Case(
        lambda x: (
            xp.copysign(x, np.zeros(4)),
            xp.copysign(x, -np.zeros(4)),
            xp.copysign(x, np.array([0.0, -0.0, 0, -0.0])),
        ),
        (X,),
    ),
    "constant arrays": Case(
        lambda x: (x * np.full(4, 3.0), x - np.ones(4), np.full((2, 4), 2.0) * x, x + np.ones((3, 1))), (X,)
    ),
    "added at": Case(
        lambda x, v: (
            P["add_at"](np.zeros(4), -v, key=slice(1, 3)),
            P["add_at"](-x, -2 * v, key=slice(1, 3)),
            P["add_at"](2 * x, v, key=slice(0, 4, 3)),
            P["add_at"](np.ones(4), v, key=slice(0, 2)),
            P["add_at"](np.zeros((1, 2)), 3 * v, key=(slice(None), slice(None))),
        ),
        (X, np.array([5.0, 7.0])),
    ),
    "added at all": Case(
        lambda v: (
            P["add_at"](np.zeros((2, 3)), v, key=...),
            P["add_at"](np.zeros((2, 3)), v[0], key=(slice(None), slice(None))),
        ),
        (T,),
    ),
    "added at one key twice": Case(
        lambda x, v: P["add_at"](P["add_at"](np.zeros(4), v, key=slice(0, 2)), -v, key=slice(1, 3)) * x,
        (X, np.array([5.0, 7.0])),
    ),
    "set at": Case(
        lambda x, v: P["set_at"](-x, -2 * v, key=slice(1, 3)) - P["clear_at"](-x, key=slice(0, 2)),
        (X, np.array([5.0, 7.0])),
    ),
    "factors shared": Case(lambda x, y: (3.0 * x, 3.0 * (x * y), 3.0 * (y * x) - x, (x * y) * 3.0 * x), (X, Y), 8),
    "factors shared, broadcast": Case(
        lambda t, a: (3.0 * t, 3.0 * (t * a), 3.0 * (a * t[:, None]), 3.0 * a), (T, A), 8
    ),
    "common steps": Case(
        lambda x, y: (xp.sin(x * y) + xp.sin(y * x), x - y, y - x, x / y, y / x, x**2, xp.pow(2.0, x)), (X, Y), 4
    ),
}


def outputs(program: Program, args: tuple[np.ndarray, ...], assume: bool, compiled: bool) -> Any:
    if compiled:
        return compile_program(program, assume)(*args)
    simplified = simplify(program, assume)
    if any(x is ZERO for eq in simplified.equations for x in eq.inputs):
        raise GuardFailed  # a stand-in that only the compiler knows
    return evaluate(simplified, *args)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_simplified_programs_compute_the_same(name: str) -> None:
    fun, args, ulps = CASES[name]
    program = recorded(fun, *args)
    wanted = evaluate(program, *args)
    for assume in (True, False):
        for compiled in (False, True):
            try:
                found = outputs(program, args, assume, compiled)
            except GuardFailed:
                assert assume or not compiled
                continue
            for got, want in zip(found, wanted, strict=True):
                got, want = np.asarray(got), np.asarray(want)
                assert (got.shape, got.dtype) == (want.shape, want.dtype)
                if ulps == 0 or want.dtype.kind not in "fc":
                    np.testing.assert_array_equal(got, want)
                    continue
                fine = np.isfinite(want)
                np.testing.assert_array_equal(got[~fine], want[~fine])
                scale = np.max(np.abs(want[fine]), initial=0)
                np.testing.assert_allclose(got[fine], want[fine], rtol=0, atol=ulps * np.finfo(want.dtype).eps * scale)


def test_the_sign_of_zero_is_not_lost_between_numbers() -> None:
    """0.0 and -0.0 are equal, but not the same number."""
    program = simplify(recorded(lambda x: (xp.copysign(x, 0.0), xp.copysign(x, -0.0)), X))
    assert steps(program) == ["copysign", "copysign"]


def test_quotients_by_numbers_are_exact() -> None:
    """49 / 49 is 1, though 49 times (1 / 49) is not: a floor or a comparison would jump."""
    x = np.arange(1.0, 200.0)
    for n in (49.0, 3.0, 10.0, -7.0):
        program = recorded(lambda x, n=n: (xp.floor(n * x / n), x / n >= x // n, xp.where(x / n < 1, 0.0, x)), x)
        for got, want in zip(compile_program(program)(x), evaluate(program, x), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [1, 8, 25, 30, 99])
def test_large_factors_do_not_meet(dtype: Any, exponent: int) -> None:
    """Moved together they would overflow, or past a square, where one after the other they do not."""
    if dtype is np.float32 and exponent > 30:
        return
    large, small = 10.0**exponent, 10.0**-exponent
    ones = np.array([1.0, -2.0], dtype)
    cases: list[tuple[Any, np.ndarray]] = [
        (lambda x: x * large * large * large * large, ones * dtype(10.0) ** -(min(exponent, 9) * 4)),
        (lambda x: (x * small) ** 2, ones * dtype(large)),
        (lambda x: (x * large) ** 2, ones * dtype(small)),
        (lambda x: (x * small) * (x / large) * (x * small), ones * dtype(large)),
        (lambda x: (x * small) @ (x * small), ones * dtype(large)),
        (lambda x: (x * large + 1) * small * small, ones),
        (lambda x: x * small * large, ones),
    ]
    for fun, x in cases:
        with np.errstate(all="ignore"):
            program = recorded(fun, x)
            (want,) = evaluate(program, x)
            (got,) = compile_program(program)(x)
        assert np.asarray(got).dtype == dtype
        if np.all(np.isfinite(want)) and np.all(want != 0):
            np.testing.assert_allclose(got, want, rtol=16 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, 1e-160, 1e160])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_assumed_is_guarded(value: float) -> None:
    """x / x is 1, and the share of ties times 0 is 0, unless x is 0, infinite or NaN: then the program is another."""
    functions: list[Any] = [
        lambda x: xp.sum(xp.log(x)),
        lambda x: xp.sum(x / x),
        lambda x: xp.sum((1 / x) * x * 3),
        lambda x: xp.log(xp.sum(xp.exp(x - xp.max(x)))) + xp.max(x),
        lambda x: xp.log(xp.sum(xp.exp(-2 * x - xp.min(-2 * x)))) + xp.min(-2 * x),
        lambda x: xp.sqrt(xp.sum(x * x)),
        lambda x: xp.sum(x**2 / x),
    ]
    for fun in functions:
        op = ad.value_and_grad(fun, backend=B)
        prepared = ad.prepare(op, Y)
        for x in (Y, np.array([1.0, value, 2.0, 3.0]), np.full(4, value), Y):
            want, got = op(x), prepared(x)
            if value in (5e-324, 1e-160, 1e160) and not np.all(np.isfinite(want[1])):
                continue  # what overflowed on the way may not
            np.testing.assert_allclose(got[0], want[0], rtol=1e-13)
            np.testing.assert_allclose(got[1], want[1], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("factor", [-1.0, 2.0, -0.5, 3.0])
def test_shares_of_ties_with_factors(factor: float) -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, -1.0, -1.0], [0.0, -0.0, 0.0]])
    for name in ("max", "min"):
        for axis in (0, 1, None):
            op = ad.grad(lambda x, n=name, k=axis: xp.sum(getattr(xp, n)(factor * x, axis=k)), backend=B)
            np.testing.assert_array_equal(ad.prepare(op, x)(x), op(x))


# What is not computed, and what is.


def test_common_steps_are_taken_once() -> None:
    program = simplify(recorded(lambda x, y: xp.sin(x * y) + xp.cos(y * x) + xp.sin(x * y), X, Y))
    assert steps(program).count("multiply") == steps(program).count("sin") == steps(program).count("cos") == 1


def test_dead_code_goes_and_guards_stay() -> None:
    def fun(x: Any) -> Any:
        xp.exp(x)
        if xp.sum(x) > 1:
            return x * 2
        return x

    program = simplify(recorded(fun, X))
    assert steps(program) == ["sum", "greater"]
    run = compile_program(recorded(fun, X))
    with pytest.raises(GuardFailed):
        run(X + 10)


def test_a_guard_on_a_shared_step_is_kept() -> None:
    def fun(x: Any) -> Any:
        total = xp.sum(x * x)
        y = x * 2 if total > 4 else x * 3
        return y * (xp.sum(x * x) > 4)

    run = compile_program(recorded(fun, X))
    np.testing.assert_array_equal(run(X)[0], 2 * X)
    with pytest.raises(GuardFailed):
        run(X / 100)


def test_guards_on_constants_go() -> None:
    program = simplify(recorded(lambda x: x if xp.sum(xp.zeros_like(x) + 1) > 2 else -x, X))
    assert not program.guards and program.outputs[0] is program.inputs[0]


def test_mixed_precision_sums_are_in_the_wider() -> None:
    """sum(a x) is not a sum(x), if x alone is in single precision."""
    x, a = np.full((5000, 2), 0.1, np.float32), np.array(1.1)
    program = recorded(lambda a, x: xp.sum(a * x, axis=0), a, x)
    (got,), (want,) = compile_program(program)(a, x), evaluate(program, a, x)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_constants_are_those_of_the_trace() -> None:
    """An array that the function closes over is a constant; the program holds what it was, or none of its parts."""
    w = np.array([1.0, 2.0, 3.0, 4.0])
    program = recorded(lambda x: x * w, X)
    want = X * w
    np.testing.assert_array_equal(compile_program(program)(X)[0], want)
