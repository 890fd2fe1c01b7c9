"""Custom rules: the derivative comes from the rule, and from nothing else, on every engine, mode and nesting.

Most rules here are deliberately not the function's derivative, so that a value shows where it comes from.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from conftest import backend_params

KINDS = ("jvp", "vjp", "both")
MODES = tuple(f"{outer}-over-{inner}" for outer in ("forward", "reverse") for inner in ("forward", "reverse"))
X, Y = np.array([0.5, -1.5, 2.0]), np.array([1.0, 2.0, -0.5])


@pytest.fixture(params=backend_params("reference", "jax", "torch", "autograd"))
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def planted(kind: str) -> ad.CustomRule:
    """sin(x) y, whose rule says df = 7 x^2 dx + 3 y^2 dy."""

    @ad.custom_rule
    def f(x: Any, y: Any) -> Any:
        return ad.array_namespace(x, y).sin(x) * y

    def jvp(primals: Any, tangents: Any) -> Any:
        (x, y), (dx, dy) = primals, tangents
        return ad.array_namespace(x, y).sin(x) * y, 7 * x * x * dx + 3 * y * y * dy

    def bwd(kept: Any, ct: Any) -> Any:
        x, y = kept
        return 7 * x * x * ct, 3 * y * y * ct

    if kind in ("jvp", "both"):
        f.defjvp(jvp)
    if kind in ("vjp", "both"):
        f.defvjp(lambda x, y: (f.primal(x, y), (x, y)), bwd)
    return f


def total(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: ad.array_namespace(args[0]).sum(f(*args))


def near(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13, strict=True)


# Every mode.


def test_gradients_come_from_the_rule(engine: str, kind: str) -> None:
    gx, gy = ad.grad(total(planted(kind)), (0, 1), backend=engine)(X, Y)
    near(gx, 7 * X**2)
    near(gy, 3 * Y**2)


def test_pushforwards_come_from_the_rule(engine: str, kind: str) -> None:
    out, pushed = ad.jvp(planted(kind), (X, Y), (Y, X), backend=engine)
    near(out, np.sin(X) * Y)
    near(pushed, 7 * X**2 * Y + 3 * Y**2 * X)
    out, push = ad.linearize(planted(kind), X, Y, backend=engine)
    near(push(Y, X), 7 * X**2 * Y + 3 * Y**2 * X)
    near(push(X, Y), 7 * X**3 + 3 * Y**3)


def test_pullbacks_come_from_the_rule(engine: str, kind: str) -> None:
    out, pull = ad.vjp(planted(kind), X, Y, backend=engine)
    near(out, np.sin(X) * Y)
    for _ in range(2):
        gx, gy = pull(X)
        near(gx, 7 * X**3)
        near(gy, 3 * Y**2 * X)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians_come_from_the_rule(engine: str, kind: str, mode: str) -> None:
    near(ad.jacobian(planted(kind), mode=mode, backend=engine)(X, Y), np.diag(7 * X**2))


@pytest.mark.parametrize("mode", MODES)
def test_second_derivatives_come_from_the_rule(engine: str, kind: str, mode: str) -> None:
    f = planted(kind)
    near(ad.hessian(total(f), mode=mode, backend=engine)(X, Y), np.diag(14 * X))
    hx, hy = ad.hvp(total(f), (X, Y), (Y, X), mode=mode, backend=engine)
    near(hx, 14 * X * Y)
    near(hy, 6 * Y * X)
    # (x f)'' = x f'' + 2 f': the value that a rule's own code computes is differentiated by the rule, too.
    by_x = total(lambda x, y: f(x, y) * x)
    near(ad.hessian(by_x, mode=mode, backend=engine)(X, Y), np.diag(X * 14 * X + 2 * 7 * X**2))


def test_third_derivatives_come_from_the_rule(engine: str, kind: str) -> None:
    f = planted(kind)
    slope = total(lambda x: ad.grad(total(f))(x, 1 * x))
    near(ad.jacobian(ad.grad(slope, backend=engine), backend=engine)(X), np.diag(14 + 0 * X))
    slope = total(lambda x: ad.jvp(f, (x, x), (x, x))[1])  # 10 x^3
    near(ad.grad(slope, backend=engine)(X), 30 * X**2)


def test_taylor_series_come_from_the_rule(engine: str, kind: str) -> None:
    series = ad.taylor(lambda p: planted(kind)(*p), (X, Y), (np.ones(3), np.zeros(3)), 3, backend=engine)
    for got, expected in zip(series, (np.sin(X) * Y, 7 * X**2, 7 * X, 7 / 3 + 0 * X), strict=True):
        near(got, expected)


def test_prepared_calls_use_the_rule(engine: str, kind: str) -> None:
    f = planted(kind)
    for operator, expected in (
        (ad.grad(total(f), backend=engine), 7 * Y**2),
        (ad.jacobian(f, mode="forward", backend=engine), np.diag(7 * Y**2)),
        (ad.jacobian(f, mode="reverse", backend=engine), np.diag(7 * Y**2)),
        (ad.hessian(total(f), backend=engine), np.diag(14 * Y)),
    ):
        near(ad.prepare(operator, X, Y)(Y, X), expected)


def test_checkpoints_use_the_rule(engine: str, kind: str) -> None:
    f = planted(kind)
    wave = total(ad.checkpoint(lambda x, y: 2 * f(x, y)))
    near(ad.grad(wave, backend=engine)(X, Y), 14 * X**2)
    near(ad.hessian(wave, backend=engine)(X, Y), np.diag(28 * X))
    closing = total(lambda x, y: ad.checkpoint(lambda y: f(x, y))(y))
    near(ad.grad(closing, backend=engine)(X, Y), 7 * X**2)


def test_both_rules_are_used_each_in_its_mode(engine: str) -> None:
    f = ad.custom_rule(lambda x: x * 1)
    f.defjvp(lambda p, t: (p[0] * 1, 2 * t[0]))
    f.defvjp(lambda x: (x * 1, ()), lambda kept, ct: (5 * ct,))
    near(ad.jvp(f, (X,), (Y,), backend=engine)[1], 2 * Y)
    near(ad.vjp(f, X, backend=engine)[1](Y)[0], 5 * Y)
    near(ad.jacobian(f, mode="forward", backend=engine)(X), 2 * np.eye(3))
    near(ad.jacobian(f, mode="reverse", backend=engine)(X), 5 * np.eye(3))
    near(ad.prepare(ad.jacobian(f, mode="forward", backend=engine), X)(X), 2 * np.eye(3))
    near(ad.prepare(ad.jacobian(f, mode="reverse", backend=engine), X)(X), 5 * np.eye(3))


def test_a_rule_composes_with_the_engines_own(engine: str, kind: str) -> None:
    f = planted(kind)
    g = ad.grad(total(lambda x: ad.array_namespace(x).exp(f(2 * x, x * x))), backend=engine)(X)
    near(g, np.exp(np.sin(2 * X) * X**2) * (7 * (2 * X) ** 2 * 2 + 3 * X**4 * 2 * X))


@pytest.mark.parametrize("backend", ["reference", "zero"])
def test_on_numpy_arrays_the_function_is_called(kind: str, backend: str) -> None:
    with ad.use_backend(backend):
        near(planted(kind)(X, Y), np.sin(X) * Y)


# Arguments and outputs.


def affine(kind: str) -> ad.CustomRule:
    """``{"out": scale * w x + b, "sizes": n, "count": count}``, with the derivative of 3 times that."""

    @ad.custom_rule
    def f(p: Any, x: Any, count: Any, word: Any, *, scale: float = 1.0) -> Any:
        assert word == "word" and p["none"] is None
        return {"out": (scale * p["w"] * x + p["b"], 2 * x), "count": count, "word": word}

    def jvp(primals: Any, tangents: Any, *, scale: float = 1.0) -> Any:
        (p, x, _, _), (dp, dx, dcount, dword) = primals, tangents
        assert dword is None and dp["none"] is None and dcount is None
        pushed = 3 * scale * (dp["w"] * x + p["w"] * dx) + 3 * dp["b"]
        return f.primal(*primals, scale=scale), {"out": (pushed, 6 * dx), "count": None, "word": None}

    def fwd(p: Any, x: Any, count: Any, word: Any, *, scale: float = 1.0) -> Any:
        return f.primal(p, x, count, word, scale=scale), {"p": p, "x": x, "note": "kept"}

    def bwd(kept: Any, ct: Any, *, scale: float = 1.0) -> Any:
        assert ct["count"] is None and ct["word"] is None and kept["note"] == "kept"
        first, second = ct["out"]
        p, x = kept["p"], kept["x"]
        xp = ad.array_namespace(x, first)
        dw = 3 * scale * xp.sum(first * x)
        return {"w": dw, "b": 3 * first, "none": None}, 3 * scale * p["w"] * first + 6 * second, None, None

    if kind in ("jvp", "both"):
        f.defjvp(jvp)
    if kind in ("vjp", "both"):
        f.defvjp(fwd, bwd)
    return f


def test_trees_statics_and_several_outputs(engine: str, kind: str) -> None:
    f, p = affine(kind), {"w": np.array(2.0), "b": Y, "none": None}
    counts = np.arange(3)

    def g(p: Any, x: Any) -> Any:
        found = f(p, x, counts, "word", scale=10.0)
        assert found["word"] == "word" and found["count"] is not None
        return found["out"]

    (out, double), (pushed, more) = ad.jvp(g, (p, X), ({"w": np.array(1.0), "b": X, "none": None}, Y), backend=engine)
    near(out, 20 * X + Y)
    near(double, 2 * X)
    near(pushed, 30 * (X + 2 * Y) + 3 * X)
    near(more, 6 * Y)
    gp, gx = ad.vjp(g, p, X, backend=engine)[1]((Y, X))
    near(gp["w"], np.asarray(30 * np.sum(Y * X)))
    near(gp["b"], 3 * Y)
    near(gx, 60 * Y + 6 * X)
    near(ad.jacobian(g, 1, mode="reverse", backend=engine)(p, X)[0], 60 * np.eye(3))
    near(ad.jacobian(g, 1, mode="forward", backend=engine)(p, X)[1], 6 * np.eye(3))


def test_integer_arrays_pass_through(engine: str, kind: str) -> None:
    f, p = affine(kind), {"w": np.array(2.0), "b": Y, "none": None}

    def g(x: Any, n: Any) -> Any:
        found = f(p if engine != "torch" else {**p, "w": 2 + 0 * x[0], "b": 0 * x}, x, n, "word")
        return ad.array_namespace(x).sum(found["out"][0] * found["count"])

    near(ad.grad(g, backend=engine)(X, np.arange(3)), 6 * np.arange(3.0))
    near(ad.hessian(g, backend=engine)(X, np.arange(3)), np.zeros((3, 3)))
    near(ad.prepare(ad.grad(g, backend=engine), X, np.arange(3))(X, np.arange(3)), 6 * np.arange(3.0))


def test_arguments_that_are_declared_constant(engine: str, kind: str) -> None:
    @ad.custom_rule(nondiff_argnums=(1,))
    def f(x: Any, n: Any) -> Any:
        return x * n

    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * p[1], 7 * t[0] if t[1] is None else None))
    if kind != "jvp":
        f.defvjp(lambda x, n: (x * n, n), lambda n, ct: (7 * ct, None))
    near(ad.grad(total(f), backend=engine)(X, 2.0), 7 + 0 * X)
    near(ad.grad(total(lambda x: f(x, ad.stop_gradient(x))), backend=engine)(X), 7 + 0 * X)
    for operate in (
        lambda: ad.grad(total(f), 1, backend=engine)(X, Y),
        lambda: ad.jvp(lambda y: f(X if engine != "torch" else 0 * y, y), (Y,), (Y,), backend=engine),
    ):
        with pytest.raises(ad.NotDifferentiable, match=r"argument\[1\] of .*f.* nondiff_argnums"):
            operate()


def test_keyword_arguments_are_static(engine: str, kind: str) -> None:
    f = planted(kind)
    g = ad.custom_rule(lambda x, *, y: x * y)
    if kind != "vjp":
        g.defjvp(lambda p, t, *, y: (p[0] * y, 7 * t[0] * y))
    if kind != "jvp":
        g.defvjp(lambda x, *, y: (x * y, ()), lambda kept, ct, *, y: (7 * ct * y,))
    near(ad.grad(total(lambda x: g(x, y=3.0)), backend=engine)(X), 21 + 0 * X)
    with pytest.raises(ad.NotDifferentiable, match=r"keyword argument\['y'\] of .* is being differentiated"):
        ad.grad(total(lambda x: g(x, y=x)), backend=engine)(X)
    assert f is not g


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 3)])
def test_dtypes_and_shapes_are_kept(engine: str, kind: str, dtype: str, shape: tuple[int, ...]) -> None:
    f, x = planted(kind), np.full(shape, 0.5, dtype)
    out, pushed = ad.jvp(f, (x, x), (x, x), backend=engine)
    gx, gy = ad.grad(total(f), (0, 1), backend=engine)(x, x)
    for got, expected in ((out, np.sin(x) * x), (pushed, 10 * x**3), (gx, 7 * x**2), (gy, 3 * x**2)):
        np.testing.assert_allclose(got, expected, rtol=1e-6, strict=True)


def test_complex_numbers(engine: str, kind: str) -> None:
    f = ad.custom_rule(lambda z: z * z)
    a = 2 + 3j
    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * p[0], a * t[0]))
    if kind != "jvp":
        f.defvjp(lambda z: (z * z, ()), lambda kept, ct: (a * ct,))
    z, v = np.array([1 + 2j, 3 - 1j]), np.array([1j, 2 + 0j])
    near(ad.jvp(f, (z,), (v,), backend=engine)[1], a * v)
    near(ad.vjp(f, z, backend=engine)[1](v)[0], a * v)
    real = total(lambda z: ad.array_namespace(z).real(f(z)))  # Re(a dz) = Re(a) dx - Im(a) dy: gradient a
    near(ad.grad(real, backend=engine)(z), a + 0 * z)


def test_one_argument_is_not_differentiated(engine: str, kind: str) -> None:
    f = planted(kind)
    near(ad.grad(total(lambda x: f(x, 2.0)), backend=engine)(X), 7 * X**2)
    near(ad.jvp(lambda x: f(x, 2.0), (X,), (Y,), backend=engine)[1], 7 * X**2 * Y)
    near(ad.grad(total(lambda x: f(x, ad.stop_gradient(x))), backend=engine)(X), 7 * X**2)
    near(ad.grad(total(lambda x: f(x, x)), backend=engine)(X), 10 * X**2)


def test_an_identity_and_the_same_output_twice(engine: str, kind: str) -> None:
    f = ad.custom_rule(lambda x: (x, x))
    if kind != "vjp":
        f.defjvp(lambda p, t: ((p[0], p[0]), (2 * t[0], 3 * t[0])))
    if kind != "jvp":
        f.defvjp(lambda x: ((x, x), x), lambda x, ct: (2 * ct[0] + 3 * ct[1],))
    g = total(lambda x: f(x)[0] + 10 * f(x)[1])
    near(ad.grad(g, backend=engine)(X), 32 + 0 * X)
    near(ad.jvp(g, (X,), (X,), backend=engine)[1], np.asarray(32 * np.sum(X)))


def test_an_output_that_depends_on_nothing(engine: str, kind: str) -> None:
    f = ad.custom_rule(lambda x: (2.0, x * 2))
    if kind != "vjp":
        f.defjvp(lambda p, t: ((2.0, p[0] * 2), (0.0, 7 * t[0])))
    if kind != "jvp":
        f.defvjp(lambda x: ((2.0, x * 2), None), lambda kept, ct: (7 * ct[1],))
    near(ad.grad(total(lambda x: f(x)[0] * f(x)[1]), backend=engine)(X), 14 + 0 * X)


def test_matrices_and_broadcasting(engine: str, kind: str) -> None:
    @ad.custom_rule
    def solve(a: Any, b: Any) -> Any:
        return ad.array_namespace(a, b).linalg.solve(a, b)

    def jvp(primals: Any, tangents: Any) -> Any:
        (a, b), (da, db) = primals, tangents
        x = solve(a, b)
        return x, solve(a, db - da @ x)

    def bwd(kept: Any, ct: Any) -> Any:
        a, x = kept
        db = solve(ad.array_namespace(a).matrix_transpose(a), ct)
        return -db[:, None] * x[None, :], db

    if kind != "vjp":
        solve.defjvp(jvp)
    if kind != "jvp":
        solve.defvjp(lambda a, b: ((x := solve(a, b)), (a, x)), bwd)
    a, b = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([1.0, -2.0])
    x, back = np.linalg.solve(a, b), np.linalg.solve(a.T, np.ones(2))
    ga, gb = ad.grad(total(solve), (0, 1), backend=engine)(a, b)
    near(ga, -np.outer(back, x))
    near(gb, back)
    near(ad.jacobian(solve, 1, mode="forward", backend=engine)(a, b), np.linalg.inv(a))
    # autograd's own solve, on which the transposed rules run, has no forward mode.
    mode = "reverse-over-reverse" if engine == "autograd" else "forward-over-reverse"
    h = ad.hessian(total(solve), mode=mode, backend=engine)(
        a, b
    )  # d2 (1' A^-1 b) = 2 1' A^-1 dA A^-1 dA A^-1 b, symmetrised
    inv = np.linalg.inv(a)
    expected = np.einsum("i,jk,l->ijkl", back, inv, x)
    near(h, expected + expected.transpose(2, 3, 0, 1))


# Nesting of rules, closures.


def test_a_rule_within_a_rule(engine: str, kind: str) -> None:
    inner, outer = planted(kind), ad.custom_rule(lambda x: x * 1)
    if kind != "vjp":
        outer.defjvp(lambda p, t: (p[0] * 1, t[0] * inner(p[0], p[0])))
    if kind != "jvp":
        outer.defvjp(lambda x: (x * 1, x), lambda x, ct: (ct * inner(x, x),))
    near(ad.grad(total(outer), backend=engine)(X), np.sin(X) * X)
    for mode in MODES:
        near(ad.hessian(total(outer), mode=mode, backend=engine)(X), np.diag(10 * X**2))


def test_a_rule_may_close_over_an_outer_variable(engine: str, kind: str) -> None:
    def slope(a: Any, mode: str) -> Any:
        f = ad.custom_rule(lambda x: x * x)
        if kind != "vjp":
            f.defjvp(lambda p, t: (p[0] * p[0], a * a * t[0]))
        if kind != "jvp":
            f.defvjp(lambda x: (x * x, ()), lambda kept, ct: (a * a * ct,))
        return ad.grad(f)(a * 0 + 3.0) if mode == "reverse" else ad.jvp(f, (a * 0 + 3.0,), (a * 0 + 1.0,))[1]

    for mode in ("reverse", "forward"):
        near(ad.grad(slope, backend=engine)(np.array(2.0), mode), np.array(4.0))


def test_a_function_that_closes_over_what_is_differentiated_is_refused(engine: str, kind: str) -> None:
    def g(x: Any, inside: bool) -> Any:
        f = ad.custom_rule(lambda y: x * y)
        f.defjvp(lambda p, t: (x * p[0], 7 * t[0]))
        if kind != "jvp":
            f.defvjp(lambda y: (x * y, ()), lambda kept, ct: (7 * ct,))
        return ad.array_namespace(x).sum(f(x) if inside else f(2.0))

    for inside in (True, False):
        for operate in (
            lambda inside=inside: ad.grad(g, backend=engine)(X, inside),
            lambda inside=inside: ad.jvp(lambda x: g(x, inside), (X,), (X,), backend=engine),
        ):
            with pytest.raises(ad.RuleError, match="closes over an array that is being differentiated"):
                operate()


def test_a_rule_may_keep_state(engine: str) -> None:
    calls: list[int] = []
    f = ad.custom_rule(lambda x: x * 2)

    @f.defjvp
    def jvp(primals: Any, tangents: Any) -> Any:
        calls.append(1)
        return primals[0] * 2, len(calls) * tangents[0]

    slopes = [ad.jvp(f, (X,), (np.ones(3),), backend=engine)[1][0] for _ in range(2)]
    assert slopes[0] >= 1 and slopes[1] > slopes[0]


# A mode that cannot be derived.


def clipping() -> ad.CustomRule:
    """The identity, whose cotangents are clipped: not linear."""
    f = ad.custom_rule(lambda x: x * 1)
    f.defvjp(lambda x: (x * 1, ()), lambda kept, ct: (ad.array_namespace(ct).clip(ct, -1.0, 1.0),))
    return f


def test_a_rule_that_is_not_linear_works_in_its_own_mode(engine: str) -> None:
    near(ad.vjp(clipping(), X, backend=engine)[1](10 * X)[0], np.clip(10 * X, -1, 1))


@pytest.mark.parametrize("engine", backend_params("reference", "jax"))
def test_a_mode_that_cannot_be_derived_names_what_to_add(engine: str) -> None:
    with pytest.raises(ad.CapabilityError, match=r"forward mode .* cannot be derived from its bwd .*defjvp\(jvp\)"):
        ad.jvp(clipping(), (X,), (X,), backend=engine)


@pytest.mark.parametrize("name", ["square", "exp", "abs", "plus", "product"])
def test_a_forward_rule_that_is_not_linear_is_refused(name: str) -> None:
    odd: dict[str, Callable[[Any], Any]] = {
        "square": lambda t: t * t,
        "exp": np.exp,
        "abs": abs,
        "plus": lambda t: t + 1.0,
        "product": lambda t: 1 / t,
    }
    f = ad.custom_rule(lambda x: x * 1)
    f.defjvp(lambda p, t: (p[0] * 1, odd[name](t[0])))
    with pytest.raises(
        ad.CapabilityError, match=r"reverse mode .* cannot be derived from its jvp .*defvjp\(fwd, bwd\)"
    ):
        ad.grad(total(f), backend="reference")(X)


# What would be silently wrong.


class Hidden:
    def __init__(self, value: Any) -> None:
        self.value = value


def test_results_that_hide_arrays_are_refused(engine: str, kind: str) -> None:
    f = ad.custom_rule(lambda x: Hidden(2 * x))
    if kind != "vjp":
        f.defjvp(lambda p, t: (Hidden(2 * p[0]), Hidden(7 * t[0])))
    if kind != "jvp":
        f.defvjp(lambda x: (Hidden(2 * x), ()), lambda kept, ct: (ct,))
    g = total(lambda x: f(x).value)
    for operate in (lambda: ad.grad(g, backend=engine)(X), lambda: ad.jvp(g, (X,), (X,), backend=engine)):
        with pytest.raises(ad.RuleError, match="returned a Hidden, in which arrays would not be differentiated"):
            operate()


@pytest.mark.parametrize("engine", backend_params("reference", "torch", "autograd"))
def test_writes_to_what_others_hold_are_refused(engine: str, kind: str) -> None:
    """The cotangent of y + f(y) belongs to y, too: to multiply it in place would give 14, for 8."""

    def scaled(seed: Any) -> Any:
        seed *= 7
        return seed

    f = ad.custom_rule(lambda x: x * 1)
    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * 1, scaled(t[0])))
    if kind != "jvp":
        f.defvjp(lambda x: (x * 1, ()), lambda kept, ct: (scaled(ct),))

    def g(x: Any) -> Any:
        y = x * 1
        return y + f(y)

    wrong = (ad.RuleError, ad.NotDifferentiable, ValueError, RuntimeError)
    for operate in (
        lambda: ad.vjp(g, X, backend=engine)[1](np.ones(3)),
        lambda: ad.grad(total(g), backend=engine)(X),
        lambda: ad.jvp(g, (X,), (np.ones(3),), backend=engine),
    ):
        with pytest.raises(wrong, match=r"writes? |write into|read-only|in-place|written-to"):
            operate()

    h = ad.custom_rule(scaled)
    h.defjvp(lambda p, t: (scaled(p[0]), t[0]))
    h.defvjp(lambda x: (scaled(x), ()), lambda kept, ct: (ct,))
    with pytest.raises(wrong, match=r"writes to an array that it was given|read-only"):
        ad.grad(total(lambda x: h(x * 1)), backend=engine)(X)


def test_closures_that_change_are_noticed(engine: str, kind: str) -> None:
    """A rule that was used without harm is looked at again when it closes over what is differentiated."""
    state: dict[str, Any] = {"a": 2.0}
    f = ad.custom_rule(lambda x: x * state["a"])
    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * state["a"], 7 * t[0]))
    if kind != "jvp":
        f.defvjp(lambda x: (x * state["a"], ()), lambda kept, ct: (7 * ct,))

    def g(x: Any) -> Any:
        state["a"] = x
        return ad.array_namespace(x).sum(f(x))

    near(ad.grad(total(f), backend=engine)(X), 7 + 0 * X)
    near(ad.jvp(f, (X,), (Y,), backend=engine)[1], 7 * Y)
    for operate in (
        lambda: ad.grad(g, backend=engine)(X),
        lambda: ad.jvp(g, (X,), (X,), backend=engine),
        *(lambda mode=mode: ad.hessian(g, mode=mode, backend=engine)(X) for mode in MODES),
    ):
        state["a"] = 2.0
        with pytest.raises(ad.RuleError, match="closes over an array that is being differentiated"):
            operate()


def test_a_function_may_not_close_over_outer_variables(engine: str, kind: str) -> None:
    """d(a x)/da, where x depends on a, would leave the rule out."""

    def inner(a: Any, value: bool) -> Any:
        f = ad.custom_rule(lambda x: a * x)
        if kind != "vjp":
            f.defjvp(lambda p, t: (a * p[0], 7 * t[0]))
        if kind != "jvp":
            f.defvjp(lambda x: (a * x, ()), lambda kept, ct: (7 * ct,))
        return ad.value_and_grad(f)(1 * a)[0 if value else 1]

    # JAX knows what is used on the way back, and gives NaN on the way forward.
    with pytest.raises(ad.RuleError, match="closes over an array that is being differentiated"):
        ad.grad(inner, backend=engine)(2.0, True)
    if engine == "jax":
        assert np.isnan(ad.jvp(lambda a: inner(a, True), (2.0,), (1.0,), backend=engine)[1])
        near(ad.grad(inner, backend=engine)(2.0, False), np.asarray(0.0))
    else:
        with pytest.raises(ad.RuleError, match="closes over an array that is being differentiated"):
            ad.jvp(lambda a: inner(a, True), (2.0,), (1.0,), backend=engine)


def test_rules_may_differentiate(engine: str, kind: str) -> None:
    """f(x) = x h'(x) = 3 x^3, whose rule says 2 h'(x) dx = 6 x^2 dx."""
    slope = ad.grad(lambda x: ad.array_namespace(x).sum(x**3))
    f = ad.custom_rule(lambda x: x * slope(x))
    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * slope(p[0]), 2 * slope(p[0]) * t[0]))
    if kind != "jvp":
        f.defvjp(lambda x: (x * slope(x), x), lambda x, ct: (2 * slope(x) * ct,))
    near(ad.grad(total(f), backend=engine)(X), 6 * X**2)
    near(ad.jvp(f, (X,), (np.ones(3),), backend=engine)[1], 6 * X**2)
    near(ad.hessian(total(f), mode="reverse-over-reverse", backend=engine)(X), np.diag(12 * X))
    near(ad.hessian(total(f), mode="reverse-over-forward", backend=engine)(X), np.diag(12 * X))


def test_a_pullback_may_be_a_residual(engine: str) -> None:
    f = ad.custom_rule(lambda x: x**3)
    f.defvjp(lambda x: ad.vjp(lambda x: x**3, x), lambda pull, ct: (2 * pull(ct)[0],))
    near(ad.grad(total(f), backend=engine)(X), 6 * X**2)
    near(ad.jvp(f, (X,), (np.ones(3),), backend=engine)[1], 6 * X**2)
    for mode in ("forward-over-forward", "reverse-over-forward", "reverse-over-reverse"):
        near(ad.hessian(total(f), mode=mode, backend=engine)(X), np.diag(12 * X))


def _closing(kind: str, a: Any, style: str) -> ad.CustomRule:
    """x^2 whose rule says a^2 dx, where `a` is not in a cell of the rule itself."""

    class Scale:
        def __init__(self) -> None:
            self.a = a

        def __call__(self, t: Any) -> Any:
            return self.a * self.a * t

    def helper(t: Any) -> Any:
        return a * a * t

    scaled: dict[str, Callable[..., Any]] = {
        "helper": lambda t: helper(t),
        "partial": functools.partial(lambda a, t: a * a * t, a),
        "default": lambda t, a=a: a * a * t,
        "object": Scale(),
        "method": Scale().__call__,
    }
    f, push = ad.custom_rule(lambda x: x * x), scaled[style]
    if kind != "vjp":
        f.defjvp(lambda p, t: (p[0] * p[0], push(t[0])))
    if kind != "jvp":
        f.defvjp(lambda x: (x * x, ()), lambda kept, ct: (push(ct),))
    return f


@pytest.mark.parametrize("style", ["helper", "partial", "default", "object", "method"])
def test_rules_may_close_over_outer_variables_in_any_way(engine: str, kind: str, style: str) -> None:
    def slope(a: Any, mode: str) -> Any:
        f, x = _closing(kind, a, style), a * 0 + 3.0
        return ad.grad(f)(x) if mode == "reverse" else ad.jvp(f, (x,), (a * 0 + 1.0,))[1]

    for mode in ("reverse", "forward"):
        near(ad.grad(slope, backend=engine)(np.array(2.0), mode), np.array(4.0))


@pytest.mark.parametrize("engine", backend_params("jax"))
@pytest.mark.parametrize("style", ["helper", "partial", "default", "object", "method"])
def test_rules_may_close_over_outer_variables_in_compiled_jax(engine: str, kind: str, style: str) -> None:
    import jax
    import jax.numpy as jnp

    for slope in (
        lambda a: jax.jvp(_closing(kind, a, style), (3.0,), (1.0,))[1],
        lambda a: jax.grad(_closing(kind, a, style))(3.0),
        lambda a: jax.jacfwd(_closing(kind, a, style))(3.0),
    ):
        assert jax.jit(slope)(2.0) == 4.0
        assert jax.vmap(slope)(jnp.arange(3.0)).tolist() == [0.0, 1.0, 4.0]
        assert jax.jit(jax.grad(slope))(2.0) == 4.0
        assert jax.grad(jax.jit(slope))(2.0) == 4.0
        assert jax.jvp(slope, (2.0,), (1.0,))[1] == 4.0


NOT_LINEAR: dict[str, Callable[[Any], Any]] = {
    "square": lambda t: t * t,
    "plus": lambda t: t + 1.0,
    "clip": lambda t: ad.array_namespace(t).clip(t, -1.0, 1.0),
    "abs": abs,
    "sign": lambda t: ad.array_namespace(t).sign(t) * 2.0,
    "tanh": lambda t: ad.array_namespace(t).tanh(t),
}


@pytest.mark.parametrize("engine", backend_params("torch", "autograd"))
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NOT_LINEAR)
def test_what_is_not_linear_is_not_transposed(engine: str, name: str, shape: tuple[int, ...], dtype: str) -> None:
    odd, x = NOT_LINEAR[name], np.full(shape, 0.5, dtype)
    forward, reverse = ad.custom_rule(lambda x: x * 1), ad.custom_rule(lambda x: x * 1)
    forward.defjvp(lambda p, t: (p[0] * 1, odd(t[0])))
    reverse.defvjp(lambda x: (x * 1, ()), lambda kept, ct: (odd(ct),))
    for _ in range(2):
        with pytest.raises(ad.CapabilityError, match=r"reverse mode .* from its jvp .*defvjp\(fwd, bwd\)"):
            ad.grad(total(forward), backend=engine)(x)
        with pytest.raises(ad.CapabilityError, match=r"forward mode .* from its bwd .*defjvp\(jvp\)"):
            ad.jvp(reverse, (x,), (x,), backend=engine)
    forward.defjvp(lambda p, t: (p[0] * 1, 7 * t[0]))
    np.testing.assert_array_equal(ad.grad(total(forward), backend=engine)(x), 7 + 0 * x)


@pytest.mark.parametrize("engine", backend_params("torch", "autograd"))
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
def test_what_is_linear_is_transposed(engine: str, dtype: str) -> None:
    """Slopes that are huge, tiny, cancel, are zero; parts of complex numbers."""
    x = np.array([1.5, -2.0, 0.25], dtype)
    slopes = {"huge": 1e30, "tiny": 1e-30, "zero": 0.0}
    for a in slopes.values():
        f = ad.custom_rule(lambda x: x * 1)
        f.defjvp(lambda p, t, a=a: (p[0] * 1, (a * t[0])))
        if dtype != "complex128":
            np.testing.assert_array_equal(ad.grad(total(f), backend=engine)(x), np.full(3, a, dtype))
    f = ad.custom_rule(lambda x: x * 1)
    f.defjvp(lambda p, t: (p[0] * 1, 3e7 * p[0] * t[0] - 1e7 * (3 * t[0] * p[0])))
    ad.vjp(f, x, backend=engine)[1](x)
    part = ad.custom_rule(lambda x: ad.array_namespace(x).real(x) * 1)
    part.defjvp(lambda p, t: (part.primal(p[0]), 7 * ad.array_namespace(t[0]).real(t[0])))
    if dtype == "complex128":
        near(ad.grad(total(part), backend=engine)(x), 7 + 0 * x)


@pytest.mark.parametrize("engine", backend_params("torch"))
def test_results_in_torch_may_be_written_to(kind: str, engine: str) -> None:
    import torch

    x, y = torch.tensor(X, requires_grad=True), torch.tensor(Y)
    z = planted(kind)(x, y)
    z.mul_(2)
    z.sum().backward()
    near(x.grad.numpy(), 14 * X**2)


@pytest.mark.parametrize("engine", backend_params("torch"))
def test_batches_of_batches_in_torch(kind: str, engine: str) -> None:
    import torch
    from torch.func import grad, vmap

    f, a, b = planted(kind), torch.tensor(X), torch.tensor(Y)
    near(vmap(vmap(grad(f), (0, None)), (None, 0))(a, b).numpy(), np.tile(7 * X**2, (3, 1)))
    near(vmap(vmap(grad(f, 1), (0, None)), (None, 0))(a, b).numpy(), np.tile(3 * Y**2, (3, 1)).T)
    stacked = torch.stack([a, 2 * a], 1)
    near(vmap(grad(lambda x, y: f(x, y).sum()), (-1, None))(stacked, b).numpy(), np.stack([7 * X**2, 28 * X**2]))


def test_places_that_a_function_does_not_have_are_refused() -> None:
    for argnums in ((2,), (-3,), (0, 5)):
        with pytest.raises(ad.RuleError, match=r"np_product names argument .*, and it takes 2 by position"):
            ad.custom_rule(np_product, nondiff_argnums=argnums)
    ad.custom_rule(lambda *xs: xs[0], nondiff_argnums=(3,))
    ad.custom_rule(np_product, nondiff_argnums=(-1, 0))


# Broken contracts.


def both_modes(f: ad.CustomRule, engine: str, match: str, error: type[Exception] = ad.RuleError) -> None:
    for operate in (
        lambda: ad.vjp(f, X, Y, backend=engine)[1](X),
        lambda: ad.jvp(f, (X, Y), (X, Y), backend=engine),
    ):
        with pytest.raises(error, match=match):
            operate()


def test_a_rule_that_was_not_given(engine: str) -> None:
    f = ad.custom_rule(np_product)
    near(f(X, Y), X * Y)
    both_modes(f, engine, r"np_product.* without a rule.*np_product\.defjvp\(jvp\)")


def np_product(x: Any, y: Any) -> Any:
    return x * y


# ruff: noqa: E501  (a message is on one line)
BWD: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "one too few": (lambda kept, ct: (ct,), r"bwd of np_product must return a tuple of 2 cotangents.*returned \(float64\[3\],\)"),
    "one too many": (lambda kept, ct: (ct, ct, ct), "must return a tuple of 2 cotangents"),
    "no tuple": (lambda kept, ct: ct, r"must return a tuple of 2 cotangents.*returned float64\[3\]"),
    "nothing": (lambda kept, ct: None, "must return a tuple of 2 cotangents"),
    "none": (lambda kept, ct: (ct, None), r"cotangent of argument\[1\] is None.*float64\[3\]; return zeros"),
    "a tree": (lambda kept, ct: (ct, (ct, ct)), r"cotangent of argument\[1\] has the wrong structure: expected float64\[3\] .*got \(float64\[3\], float64\[3\]\)"),
    "a shape": (lambda kept, ct: (ct, ct[:1]), r"cotangent of argument\[1\] has the wrong shape: expected float64\[3\] .*float64\[1\]; sum over"),
    "a dtype": (
        lambda kept, ct: (ct, ad.array_namespace(ct).astype(ct, ad.array_namespace(ct).float32)),
        r"cotangent of argument\[1\] has the wrong dtype: expected float64\[3\] .*float32\[3\]",
    ),
    "text": (lambda kept, ct: (ct, "word"), r"cotangent of argument\[1\] has the wrong structure: .*got str"),
}  # fmt: skip


@pytest.mark.parametrize("case", BWD)
def test_cotangents_that_break_the_contract(engine: str, case: str) -> None:
    bwd, match = BWD[case]
    f = ad.custom_rule(np_product)
    f.defvjp(lambda x, y: (x * y, (x, y)), bwd)
    both_modes(f, engine, match)


FWD: dict[str, tuple[Callable[..., Any], str]] = {
    "no pair": (lambda x, y: x * y, r"fwd of np_product must return a pair, \(output, residuals\); it returned float64\[3\]"),
    "three": (lambda x, y: (x * y, x, y), "fwd of np_product must return a pair"),
    "nothing": (lambda x, y: None, "fwd of np_product must return a pair.*None"),
    "a tree": (lambda x, y: ((x, y), x), r"fwd of np_product must return, first, what np_product returns: float64\[3\]; it returned \(float64\[3\], float64\[3\]\)"),
    "a shape": (lambda x, y: (x[:2] * y[:2], x), r"what np_product returns: float64\[3\]; it returned float64\[2\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", FWD)
def test_forward_runs_that_break_the_contract(engine: str, case: str) -> None:
    fwd, match = FWD[case]
    f = ad.custom_rule(np_product)
    f.defvjp(fwd, lambda kept, ct: (ct, ct))
    both_modes(f, engine, match)


JVP: dict[str, tuple[Callable[..., Any], str]] = {
    "no pair": (lambda p, t: p[0] * p[1], r"jvp of np_product must return a pair, \(output, tangent of the output\); it returned float64\[3\]"),
    "an output": (lambda p, t: ((p[0], p[1]), t[0]), r"jvp of np_product must return, first, what np_product returns"),
    "a tree": (lambda p, t: (p[0] * p[1], (t[0], t[1])), r"tangent has the wrong structure: expected float64\[3\] like the output, got \(float64\[3\], float64\[3\]\)"),
    "none": (lambda p, t: (p[0] * p[1], None), r"jvp of np_product: tangent is None"),
    "a shape": (lambda p, t: (p[0] * p[1], t[0][:2]), r"tangent has the wrong shape: expected float64\[3\] like the output, got float64\[2\]"),
    "a dtype": (
        lambda p, t: (p[0] * p[1], ad.array_namespace(t[0]).astype(t[0], ad.array_namespace(t[0]).float32)),
        r"tangent has the wrong dtype: expected float64\[3\] like the output, got float32\[3\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JVP)
def test_tangents_that_break_the_contract(engine: str, case: str) -> None:
    jvp, match = JVP[case]
    f = ad.custom_rule(np_product)
    f.defjvp(jvp)
    both_modes(f, engine, match)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(ad.RuleError, match="custom_rule needs a function, got float"):
        ad.custom_rule(3.0)  # type: ignore[call-overload]
    with pytest.raises(ad.RuleError, match="defjvp of np_product needs functions, got NoneType"):
        ad.custom_rule(np_product).defjvp(None)  # type: ignore[type-var]
    with pytest.raises(ad.RuleError, match="nondiff_argnums must be ints"):
        ad.custom_rule(np_product, nondiff_argnums=("x",))  # type: ignore[arg-type]


# The object.


@ad.custom_rule
def cube(x: Any) -> Any:
    """The third power."""
    return x * x * x


@cube.defjvp
def cube_jvp(primals: Any, tangents: Any) -> Any:
    return cube(primals[0]), 7 * tangents[0]


def test_it_looks_like_its_function() -> None:
    assert cube.__name__ == "cube" and cube.__doc__ == "The third power." and cube.__module__ == __name__
    assert repr(cube) == "<custom rule of cube: jvp>"
    assert repr(ad.custom_rule(np_product)) == "<custom rule of np_product: no rule yet>"
    assert cube.primal(2.0) == 8.0 and cube.jvp_rule is cube_jvp and cube.fwd is None and cube.bwd is None


def test_copies_and_pickles() -> None:
    assert copy.deepcopy(cube) is cube and pickle.loads(pickle.dumps(cube)) is cube
    made = ad.custom_rule(np_product)
    made.defjvp(np_product_jvp)
    again = pickle.loads(pickle.dumps(made))
    assert again is not made and again.primal is np_product and again.jvp_rule is np_product_jvp


def np_product_jvp(primals: Any, tangents: Any) -> Any:
    return primals[0] * primals[1], 7 * tangents[0]


def test_a_later_rule_replaces_the_earlier(engine: str) -> None:
    f = ad.custom_rule(lambda x: x * 1)
    for factor in (2.0, 5.0):
        f.defjvp(lambda p, t, factor=factor: (p[0] * 1, factor * t[0]))
        near(ad.grad(total(f), backend=engine)(X), factor + 0 * X)


def test_a_method_is_refused() -> None:
    class Model:
        @ad.custom_rule
        def f(self, x: Any) -> Any:
            return x

    with pytest.raises(ad.RuleError, match="f is a method"):
        Model().f(1.0)


# Without adbridge's operators: users swap.


@pytest.mark.parametrize("engine", backend_params("jax"))
def test_in_plain_jax(kind: str, engine: str) -> None:
    import jax
    import jax.numpy as jnp

    f = planted(kind)
    x, y = jnp.asarray(X, jnp.float32), jnp.asarray(Y, jnp.float32)

    def close(got: Any, expected: Any) -> None:
        np.testing.assert_allclose(got, expected, rtol=1e-5)

    for wrap in (lambda g: g, jax.jit):
        close(wrap(jax.grad(lambda x, y: jnp.sum(f(x, y)), (0, 1)))(x, y)[1], 3 * Y**2)
        close(wrap(lambda x, y: jax.jvp(f, (x, y), (y, x))[1])(x, y), 7 * X**2 * Y + 3 * Y**2 * X)
        close(wrap(jax.vmap(jax.grad(f)))(x, y), 7 * X**2)
        close(wrap(jax.vmap(jax.grad(f), (0, None)))(x, y[0]), 7 * X**2)
        close(wrap(jax.grad(lambda x: jnp.sum(jax.vmap(f, (0, None))(x, y[0]))))(x), 7 * X**2)
        close(wrap(jax.grad(lambda b: jnp.sum(jax.vmap(f, (0, None))(x, b))))(y[0]), 3 * 3 * Y[0] ** 2)
        close(wrap(jax.vmap(lambda x, y: jax.jvp(lambda x: f(x, y), (x,), (x,))[1]))(x, y), 7 * X**3)
        close(wrap(jax.hessian(lambda x: jnp.sum(f(x, y))))(x), np.diag(14 * X))
        close(wrap(jax.jacrev(jax.jacfwd(lambda x: f(x, y))))(x)[1, 1, 1], 14 * X[1])
        close(wrap(jax.grad(lambda x: jnp.sum(jax.jit(f)(x, y))))(x), 7 * X**2)
        close(wrap(jax.grad(lambda x: jnp.sum(jax.checkpoint(f)(x, y))))(x), 7 * X**2)
        close(wrap(jax.linearize(f, x, y)[1])(y, x), 7 * X**2 * Y + 3 * Y**2 * X)

        def scanned(x: Any) -> Any:
            return jnp.sum(jax.lax.scan(lambda c, y: (f(c, 0 * c + y), None), x, y)[0])

        close(wrap(jax.grad(scanned))(x), 343 * _scan_slope(X))
        close(wrap(jax.grad(lambda x: f(x, 2.0)))(0.5), 7 / 4)
        close(wrap(lambda x: jax.jvp(lambda x: f(x, 2.0), (x,), (1.0,))[1])(0.5), 7 / 4)


def _scan_slope(x: np.ndarray) -> np.ndarray:
    slope = np.ones(3)
    for y in Y:
        slope, x = slope * x**2, np.sin(x) * y
    return slope


@pytest.mark.parametrize("engine", backend_params("jax"))
def test_rules_in_jax_may_close_over_what_is_compiled_or_mapped(kind: str, engine: str) -> None:
    import jax
    import jax.numpy as jnp

    def rule(a: Any) -> ad.CustomRule:
        f = ad.custom_rule(lambda x: x * x)
        if kind != "vjp":
            f.defjvp(lambda p, t: (p[0] * p[0], a * a * t[0]))
        if kind != "jvp":
            f.defvjp(lambda x: (x * x, ()), lambda kept, ct: (a * a * ct,))
        return f

    for slope in (
        lambda a: jax.jvp(rule(a), (3.0,), (1.0,))[1],
        lambda a: jax.grad(rule(a))(3.0),
        lambda a: jax.jacfwd(rule(a))(3.0),
    ):
        assert jax.jit(slope)(2.0) == 4.0
        assert jax.vmap(slope)(jnp.arange(3.0)).tolist() == [0.0, 1.0, 4.0]
        assert jax.jit(jax.grad(slope))(2.0) == 4.0


@pytest.mark.parametrize("engine", backend_params("torch"))
def test_in_plain_torch(kind: str, engine: str) -> None:
    import torch
    from torch.autograd import forward_ad

    f = planted(kind)
    x, y = torch.tensor(X, requires_grad=True), torch.tensor(Y, requires_grad=True)
    (gx,) = torch.autograd.grad(f(x, y).sum(), x, create_graph=True)
    near(gx.detach().numpy(), 7 * X**2)
    near(torch.autograd.grad(gx.sum(), x)[0].numpy(), 14 * X)
    f(x, y).sum().backward()
    near(y.grad.numpy(), 3 * Y**2)
    a, b = torch.tensor(X), torch.tensor(Y)
    near(torch.func.grad(lambda a: f(a, b).sum())(a).numpy(), 7 * X**2)
    near(torch.func.jvp(f, (a, b), (b, a))[1].numpy(), 7 * X**2 * Y + 3 * Y**2 * X)
    near(torch.func.vmap(torch.func.grad(f))(a, b).numpy(), 7 * X**2)
    near(torch.func.vmap(torch.func.grad(f), (0, None))(a, b[0]).numpy(), 7 * X**2)
    near(torch.func.grad(lambda b: torch.func.vmap(f, (0, None))(a, b).sum())(b[0]).numpy(), np.array(9 * Y[0] ** 2))
    near(torch.func.hessian(lambda a: f(a, b).sum())(a).numpy(), np.diag(14 * X))
    near(torch.func.jacrev(torch.func.jacfwd(lambda a: f(a, b)))(a)[1, 1, 1].numpy(), np.asarray(14 * X[1]))
    near(torch.func.jacfwd(torch.func.jacrev(lambda a: f(a, b)))(a)[1, 1, 1].numpy(), np.asarray(14 * X[1]))
    near(torch.func.vmap(f)(a, b).numpy(), np.sin(X) * Y)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(f(forward_ad.make_dual(a, b), b))
        near(out.tangent.numpy(), 7 * X**2 * Y)
    with torch.no_grad():
        assert not f(x, y).requires_grad


@pytest.mark.parametrize("engine", backend_params("autograd"))
def test_in_plain_autograd(kind: str, engine: str) -> None:
    import autograd
    import autograd.numpy as anp

    f = planted(kind)
    near(autograd.grad(lambda x: anp.sum(f(x, Y)))(X), 7 * X**2)
    near(autograd.elementwise_grad(autograd.elementwise_grad(lambda x: f(x, Y)))(X), 14 * X)
    near(autograd.jacobian(lambda x: f(x, Y))(X), np.diag(7 * X**2))
    near(autograd.hessian(lambda x: anp.sum(f(x, Y)))(X), np.diag(14 * X))
    near(autograd.make_jvp(lambda x: f(x, Y))(X)(Y)[1], 7 * X**2 * Y)


# Programs of the reference engine.


def test_traces_show_the_rule_as_a_step_and_differentiate_by_it(kind: str) -> None:
    f = planted(kind)
    program = ad.trace(lambda x: 2 * f(x, x * x), 0.5)
    assert "v2   = f(v0, v1)" in str(program), str(program)
    near(program(0.5), np.asarray(2 * np.sin(0.5) * 0.25))
    expected = 2 * (7 * 0.25 + 3 * 0.5**4 * 2 * 0.5)
    near(program.jvp((1.0,)).tangents, np.asarray(expected))
    adjoint = program.vjp()
    assert "f" in str(adjoint)
    near(adjoint.cotangents[0], np.asarray(expected))
    near(adjoint.program(0.25)[0], np.asarray(2 * (7 * 0.25**2 + 6 * 0.25**5)))
    # d/dx of 14 x^2 + 12 x^5
    near(adjoint.program.vjp().cotangents[0], np.asarray(28 * 0.5 + 60 * 0.5**4))


def test_programs_of_a_rule_become_source_numbers_and_costs(kind: str) -> None:
    program = ad.trace(lambda x: planted(kind)(x, x), 0.5)
    space: dict[str, Any] = {}
    exec(program.to_python("g"), space)
    near(space["g"](np.array(0.25)), np.asarray(np.sin(0.25) * 0.25))
    assert program.cost().operations == 2
    assert "f" in program.to_svg()


def test_a_rule_is_not_mistaken_for_a_primitive_of_its_name() -> None:
    @ad.custom_rule
    def add(x: Any, y: Any) -> Any:
        return x * y

    add.defjvp(lambda p, t: (p[0] * p[1], 7 * t[0] + 5 * t[1]))
    program = ad.trace(lambda x, y: add(x, y) + add(y, x), 2.0, 3.0)
    near(program(2.0, 3.0), np.asarray(12.0))
    gx, gy = program.vjp().program(2.0, 3.0)
    assert (gx, gy) == (12.0, 12.0)
    near(ad.prepare(ad.grad(lambda x: add(x, 0.0), backend="reference"), 2.0)(2.0), np.asarray(7.0))


def test_two_rules_of_one_name_are_two() -> None:
    rules = [ad.custom_rule(lambda x, k=k: k * x) for k in (2, 3)]
    for k, rule in zip((2, 3), rules, strict=True):
        rule.defjvp(lambda p, t, k=k: (k * p[0], 10 * k * t[0]))
    program = ad.trace(lambda x: rules[0](x) * rules[1](x), 1.0)
    near(program(1.0), np.asarray(6.0))
    near(program.vjp().program(1.0)[0], np.asarray(2 * 30.0 + 3 * 20.0))
    assert ad.taylor(lambda x: rules[0](x) * rules[1](x), 1.0, 1.0, 2, backend="reference")[2] == 600.0


def test_writes_to_arguments_are_refused() -> None:
    def write(x: Any) -> Any:
        x[0] = 0.0
        return x

    f = ad.custom_rule(write)
    f.defjvp(lambda p, t: (write(p[0]), t[0]))
    with pytest.raises(ValueError, match="read-only"):
        ad.grad(total(lambda x: f(x * 1)), backend="reference")(X)


@pytest.mark.parametrize("kind", ["vjp", "both"])
def test_nested_batches_on_the_reference_engine(kind: str) -> None:
    """A Jacobian's batch over a rule's code that calls another rule, under an outer derivative."""
    inner, outer = planted(kind), ad.custom_rule(lambda x: x * 1)
    outer.defvjp(lambda x: (x * 1, x), lambda x, ct: (ct * inner(x, x) + inner(0 * ct + x, 0 * ct),))
    # inner(x, 0) is zero, and so are its slopes by its first argument but for the rule, which says 7 x^2.
    slope = total(lambda x: ad.jacobian(outer, mode="reverse")(x))
    near(ad.grad(slope, backend="reference")(X), 10 * X**2 + 3 * 7 * X**2)
