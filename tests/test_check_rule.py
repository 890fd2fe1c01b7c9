"""check_rule: right rules pass, and for each check there is a rule that it alone finds wrong.

Expected values are closed forms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import adbridge as ad
from adbridge.errors import BackendNotFound, RuleError

X = np.array([-0.8, 0.3, 1.2, 2.5])


def xp_of(*arrays: Any) -> Any:
    return ad.array_namespace(*arrays)


def sin(x: Any) -> Any:
    return xp_of(x).sin(x)


def cos(x: Any) -> Any:
    return xp_of(x).cos(x)


def rule_of(
    fun: Callable[..., Any] = sin,
    bwd: Callable[..., Any] | None = lambda x, ct: (ct * cos(x),),
    jvp: Callable[..., Any] | None = lambda p, t: (sin(*p), t[0] * cos(*p)),
    fwd: Callable[..., Any] | None = None,
) -> ad.CustomRule:
    rule = ad.custom_rule(fun)
    if jvp is not None:
        rule.defjvp(jvp)
    if bwd is not None:
        rule.defvjp(fwd or (lambda x: (fun(x), x)), bwd)
    return rule


def failure(rule: Any, *args: Any, backends: Any = "reference", **options: Any) -> Any:
    report = ad.check_rule(rule, *(args or (X,)), backends=backends, **options)
    assert report.verdict in ("wrong", "error"), str(report)
    assert report.failed is not None
    return report.failed


def passes(rule: Any, *args: Any, backends: Any = "reference", **options: Any) -> Any:
    report = ad.check_rule(rule, *(args or (X,)), backends=backends, **options)
    assert report.failed is None, str(report)
    report.raise_for_wrong()
    return report


# Right rules.


def test_a_right_rule_agrees_on_every_engine() -> None:
    report = passes(rule_of(), np.array([0.4, -1.2]), backends=None)
    assert report.verdict == "agree"
    assert {row.backend for row in report.rows} >= {"reference", "jax", "torch", "autograd"}
    assert "across engines" in {row.check for row in report.rows}
    assert report.comparisons > 1000
    assert str(report).startswith("rule 'sin': agree, ")
    assert report.snippet == ""


def test_the_frame_has_a_row_for_each_comparison() -> None:
    frame = passes(rule_of()).to_frame()
    wanted = ["backend", "mode", "check", "point", "dtype", "verdict", "entry", "got", "expected", "note"]
    assert list(frame.columns[: len(wanted)]) == wanted
    assert set(frame["dtype"]) == {"float64", "float32"}
    assert set(frame["mode"]) >= {"forward", "reverse", "reverse-over-reverse"}


@pytest.mark.parametrize("modes", ["forward", "reverse"])
def test_one_mode_is_enough(modes: str) -> None:
    rule = rule_of(jvp=None) if modes == "reverse" else rule_of(bwd=None)
    assert passes(rule).verdict == "agree"


def test_a_kink_is_a_convention() -> None:
    rule = ad.custom_rule(lambda x: xp_of(x).abs(x))
    rule.defjvp(lambda p, t: (xp_of(*p).abs(*p), xp_of(*p).sign(*p) * t[0]))
    report = passes(rule, np.array([-3.0, 0.0, 1.5]))
    assert (report.verdict, report.point) == ("convention", "kink")


def test_a_slope_outside_of_the_kink_is_wrong() -> None:
    rule = ad.custom_rule(lambda x: xp_of(x).abs(x))
    rule.defjvp(lambda p, t: (xp_of(*p).abs(*p), xp_of(*p).where(p[0] == 0, 5.0 * t[0], xp_of(*p).sign(*p) * t[0])))
    found = failure(rule, np.array([-3.0, 1.5]))
    assert found.check == "special points"
    assert "[-1, 1]" in str(found.expected) or "kink" in found.note


@pytest.mark.parametrize(
    ("f", "slope", "x", "domain"),
    [
        (lambda xp, x: 1 / x, lambda xp, x, y: -1 / x**2, np.array([1e4, 3e4]), (0.0, np.inf)),
        (lambda xp, x: x * x, lambda xp, x, y: 2 * x, np.array([1e10, -3e10]), None),
        (lambda xp, x: xp.tanh(x), lambda xp, x, y: 1 - y * y, np.array([0.3, 20.0]), None),
        (lambda xp, x: -xp.log1p(xp.exp(-x)), lambda xp, x, y: 1 - xp.exp(y), np.array([0.3, 40.0]), (-30.0, np.inf)),
        (lambda xp, x: xp.sqrt(x), lambda xp, x, y: 0.5 / y, np.array([1e-14, 4.0]), None),
        (lambda xp, x: x**3 - 2 * x, lambda xp, x, y: 3 * x * x - 2, np.array([(2 / 3) ** 0.5, 1.0]), None),
        (lambda xp, x: xp.exp(x), lambda xp, x, y: y, np.array([20.0, 3.0], np.float32), (-80.0, 80.0)),
    ],
    ids=["small-slope", "large", "saturated", "log-sigmoid", "near-a-pole", "near-a-root", "float32"],
)
def test_rounding_is_not_held_against_a_rule(f: Any, slope: Any, x: Any, domain: Any) -> None:
    rule = ad.custom_rule(lambda x: f(xp_of(x), x))
    rule.defvjp(lambda x: (f(xp_of(x), x), (x, f(xp_of(x), x))), _slope_of(slope))
    passes(rule, x, domain=domain)


def _slope_of(slope: Any) -> Any:
    return lambda residuals, ct: (ct * slope(xp_of(ct), *residuals),)


def test_trees_integers_and_several_outputs() -> None:
    def layer(parameters: Any, x: Any, order: Any) -> Any:
        z = xp_of(x).take(parameters["w"] @ x, order, axis=0)
        return {"z": z, "sum": xp_of(z).sum(z)}

    def bwd(residuals: Any, ct: Any) -> Any:
        w, x, order = residuals
        g = ct["z"] + ct["sum"]
        g = xp_of(g).take(g, xp_of(g).argsort(order), axis=0)
        return {"w": g[:, None] * x[None, :]}, xp_of(w).matrix_transpose(w) @ g, None

    rule = ad.custom_rule(layer)
    rule.defvjp(lambda p, x, order: (layer(p, x, order), (p["w"], x, order)), bwd)
    args = {"w": np.array([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]])}, np.array([0.2, -0.4, 1.1]), np.array([1, 0])
    assert passes(rule, *args, backends=["reference", "torch"]).verdict == "agree"


# A rule for each check, that it alone finds wrong.


def test_primal_another_value() -> None:
    found = failure(rule_of(fwd=lambda x: (sin(x) * (1 + 1e-6), x)))
    assert (found.check, found.mode) == ("primal", "reverse")
    assert "is not the plain function's" in found.note


def test_primal_not_the_same_twice() -> None:
    count = itertools.count()

    def native(x: Any) -> Any:
        return np.sin(x) + next(count)

    found = failure(native, primal=sin)
    assert (found.check, "two results" in found.note) == ("primal", True)


def test_primal_changes_its_cotangent() -> None:
    def bwd(x: Any, ct: Any) -> Any:
        ct *= cos(x)
        return (ct,)

    found = failure(rule_of(bwd=bwd))
    assert found.check == "primal"
    assert "changes the cotangent in place" in found.note or "read-only" in found.note


@pytest.mark.parametrize(
    ("bwd", "text"),
    [
        (lambda x, ct: (ct * cos(x), ct), "tuple of 1 cotangent"),
        (lambda x, ct: None, "tuple of 1 cotangent"),
        (lambda x, ct: (None,), "is None"),
        (lambda x, ct: (xp_of(ct).sum(ct * cos(x)),), "wrong shape"),
        (lambda x, ct: (xp_of(ct).astype(ct * cos(x), xp_of(ct).float32),), "wrong dtype"),
    ],
    ids=["two", "nothing", "None", "shape", "dtype"],
)
def test_structure(bwd: Any, text: str) -> None:
    found = failure(rule_of(bwd=bwd))
    assert (found.check, found.mode, found.verdict) == ("structure", "reverse", "wrong")
    assert text in found.note


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_derivatives(mode: str) -> None:
    off = rule_of(bwd=lambda x, ct: (ct * cos(x) * (1 + 1e-5),))
    if mode == "forward":
        off = rule_of(jvp=lambda p, t: (sin(*p), t[0] * cos(*p) * (1 + 1e-5)))
    found = failure(off)
    assert (found.check, found.mode) == ("derivatives", mode)
    assert found.got == pytest.approx(found.expected * (1 + 1e-5), rel=1e-9)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_one_wrong_entry_of_many_is_named(mode: str) -> None:
    a = np.random.default_rng(0).uniform(-1, 1, (60, 50))
    wrong = a.copy()
    wrong[37, 12] *= 1 + 1e-3

    def product(x: Any) -> Any:
        return xp_of(x).asarray(a, dtype=x.dtype) @ x

    def as_given(like: Any, matrix: Any) -> Any:
        return xp_of(like).asarray(matrix, dtype=like.dtype)

    matrices = (wrong, a) if mode == "forward" else (a, wrong)
    rule = rule_of(
        product,
        bwd=lambda x, ct: (as_given(ct, matrices[1].T) @ ct,),
        jvp=lambda p, t: (product(*p), as_given(t[0], matrices[0]) @ t[0]),
    )
    found = failure(rule, np.linspace(-1, 1, 50))
    assert (found.check, found.mode) == ("derivatives", mode)
    if mode == "forward":
        assert found.entry == "out[37]" and found.note == "along x[12]"
        assert found.got == pytest.approx(wrong[37, 12]) and found.expected == pytest.approx(a[37, 12])
    else:
        assert found.entry == "x[12]"


def test_linearity_of_the_cotangent() -> None:
    clipped = rule_of(bwd=lambda x, ct: (xp_of(ct).clip(ct, -1e3, 1e3) * cos(x),))
    found = failure(clipped)
    assert (found.check, found.mode) == ("linearity", "reverse")
    assert "not linear: of 2**20 times a cotangent" in found.note


def test_linearity_of_the_tangent() -> None:
    found = failure(rule_of(jvp=lambda p, t: (sin(*p), xp_of(*t).where(t[0] == 0, 1e-3 + 0 * t[0], t[0]) * cos(*p))))
    assert found.mode == "forward" and found.check in ("derivatives", "linearity")


def test_adjoint_where_the_referee_knows_too_little() -> None:
    from adbridge.validate.rule_checks.bench import Bench, Library
    from adbridge.validate.rule_checks.candidate import candidate_of
    from adbridge.validate.rule_checks.checks import adjoint
    from adbridge.validate.rule_checks.points import domain_of
    from adbridge.validate.rule_checks.running import Runner

    candidate = candidate_of(rule_of(bwd=lambda x, ct: (ct * cos(x) * (1 + 1e-7),)), (X,), None)
    backend = ad.get_backend("reference")
    library = Library(candidate, domain_of(None, candidate), backend, None, 0)
    runners = (Runner(candidate.with_rule, backend), Runner(candidate.without_rule, backend))
    (row,) = adjoint(Bench(candidate, backend, library, *runners, 0, ["forward", "reverse"]))
    assert (row.verdict, row.check) == ("wrong", "adjoint")
    assert "by forward mode" in row.note


def test_batching() -> None:
    def bwd(x: Any, ct: Any) -> Any:
        # What vmap shows of a batched array has the shape of one; what it is made of, has not.
        factor = 1.0 if "BatchTracer" not in str(type(ct)) else 2.0
        return (ct * cos(x) * factor,)

    found = failure(rule_of(bwd=bwd, jvp=None), backends="jax")
    assert (found.check, found.verdict) == ("batching", "wrong")


def test_repetition_after_another_point() -> None:
    last: list[Any] = []

    def fwd(x: Any) -> Any:
        last[:] = [x]
        return sin(x), ()

    found = failure(rule_of(jvp=None, fwd=fwd, bwd=lambda residuals, ct: (ct * cos(last[0]),)), backends="torch")
    assert (found.check, "after another point" in found.note) == ("repetition", True)


def test_layout() -> None:
    def bwd(x: Any, ct: Any) -> Any:
        if not ct.is_contiguous():
            ct = ct.as_strided(ct.shape, (1,))
        return (ct * cos(x),)

    found = failure(rule_of(bwd=bwd, jvp=None), backends="torch")
    assert (found.check, found.mode) == ("layout", "reverse")
    assert "every other element" in found.point


@pytest.mark.parametrize("stopped", ["slope", "cotangent"])
def test_second_order(stopped: str) -> None:
    def bwd(x: Any, ct: Any) -> Any:
        return (ct * ad.stop_gradient(cos(x)),) if stopped == "slope" else (ad.stop_gradient(ct) * cos(x),)

    found = failure(rule_of(bwd=bwd, jvp=None))
    assert found.check == "second order"


def test_second_order_of_a_vector_in_closed_form() -> None:
    rule = rule_of(bwd=lambda x, ct: (ct * ad.stop_gradient(cos(x)),), jvp=None)
    found = failure(rule, np.array(0.4))
    assert found.expected != pytest.approx(found.got, rel=1e-3)


@pytest.mark.parametrize(
    ("where", "x"),
    [
        (lambda xp, x: x < -1.5, np.array([0.3, 0.8])),
        (lambda xp, x: xp.abs(x) > 3.0, np.array([0.3, 0.8])),
        (lambda xp, x: x == 0.0, np.array([0.3, 0.8])),
        (lambda xp, x: (x > 0.40) & (x < 0.47), np.array([1.3, -0.8])),
        (lambda xp, x: x > 40.0, np.array(0.3)),
    ],
    ids=["negative", "large", "zero", "a-strip", "0-d"],
)
def test_special_points_of_elements(where: Any, x: Any) -> None:
    """Right at the example, at first and at second order; wrong where the example is not."""

    def slope(x: Any) -> Any:
        xp = xp_of(x)
        wrong = xp.where(where(xp, x), xp.ones_like(x), xp.zeros_like(x))
        return cos(x) + wrong

    found = failure(rule_of(bwd=lambda x, ct: (ct * slope(x),), jvp=None), x)
    assert found.check == "special points"
    assert abs(found.got - found.expected) > 1e-3


def test_special_points_of_a_whole_array() -> None:
    def norm(x: Any) -> Any:
        return xp_of(x).sqrt(xp_of(x).sum(x * x))

    rule = rule_of(norm, jvp=None, bwd=lambda x, ct: (ct * xp_of(x).abs(x) / norm(x),))
    found = failure(rule, np.array([0.6, 1.2, 2.0]))
    assert found.check in ("special points", "second order")
    assert found.beside


def test_a_branch_of_the_function_is_found() -> None:
    """Between 17.2 and 17.3, and nowhere else: only the function's own comparisons lead there."""

    def bump(x: Any) -> Any:
        return xp_of(x).where((x > 17.2) & (x < 17.3), 2.0 * x, 3.0 * x)

    rule = rule_of(bump, jvp=None, bwd=lambda x, ct: (3.0 * ct,))
    found = failure(rule, np.array([0.5, 1.0]), domain=(0.0, 20.0))
    assert found.check == "special points"


def test_single_precision() -> None:
    def slope(x: Any) -> Any:
        return cos(x) * (1.0 if "64" in str(x.dtype) else 1.01)

    found = failure(rule_of(bwd=lambda x, ct: (ct * slope(x),)))
    assert (found.check, found.dtype) == ("single precision", "float32")


def test_across_engines_at_a_kink_is_a_convention() -> None:
    def at_zero(x: Any) -> Any:
        return 1.0 if "Tensor" in type(x).__name__ else 0.0

    def sign(x: Any) -> Any:
        xp = xp_of(x)
        return xp.where(x == 0, at_zero(x) * xp.ones_like(x), xp.sign(x))

    rule = rule_of(lambda x: xp_of(x).abs(x), jvp=None, bwd=lambda x, ct: (ct * sign(x),))
    report = passes(rule, np.array([0.0, 1.0]), backends=["reference", "torch"])
    assert [row.verdict for row in report.rows if row.check == "across engines"].count("convention") >= 1


# Native rules.


def test_a_wrong_jax_custom_vjp_is_caught_with_entry_and_value() -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    @jax.custom_vjp
    def mysin(x: Any) -> Any:
        return jnp.sin(x)

    mysin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.sin(x),))
    with pytest.raises(
        RuleError, match=r"rule 'mysin' is wrong on jax: vjp at x\[\d\], got -?[\d.]+, expected"
    ) as error:
        ad.check_rule(mysin, np.array([0.5, 1.0]), primal=jnp.sin, backends="jax").raise_for_wrong()
    assert "float64" in str(error.value)
    assert "ad.vjp(" in str(error.value) and "ad.referee(" in str(error.value)


def test_a_right_jax_custom_vjp_passes() -> None:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    @jax.custom_vjp
    def mysin(x: Any) -> Any:
        return jnp.sin(x)

    mysin.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    report = passes(mysin, np.array([0.5, 1.0]), primal=jnp.sin, backends="jax")
    assert report.verdict == "agree"
    assert "unsupported" in set(report.to_frame()["verdict"])  # custom_vjp has no forward mode


def test_a_torch_function() -> None:
    torch = pytest.importorskip("torch")

    class Wrong(torch.autograd.Function):  # type: ignore[misc,name-defined]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return torch.exp(x)

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return ct.abs() * torch.exp(ctx.saved_tensors[0])

    found = failure(Wrong.apply, np.array([0.5, 1.0]), primal=torch.exp, backends="torch")
    assert found.mode == "reverse"


# Reports.


def test_the_snippet_runs() -> None:
    found = failure(rule_of(bwd=lambda x, ct: (2 * ct * cos(x),)))
    assert "rule = ..." in found.snippet
    lines = [line for line in found.snippet.splitlines() if not line.startswith("rule = ...")]
    rule = rule_of(bwd=lambda x, ct: (2 * ct * cos(x),))
    exec("\n".join(lines), {"rule": rule})


def test_raise_for_wrong_says_it_all() -> None:
    with pytest.raises(RuleError) as error:
        ad.check_rule(rule_of(bwd=lambda x, ct: (-ct * cos(x),)), X, backends="reference").raise_for_wrong()
    text = str(error.value)
    assert text.splitlines()[0].startswith("rule 'sin' is wrong on reference: vjp at x[")
    assert "primal: 5 agree" in text and "To see it:" in text


def test_nothing_compared_is_unresolved() -> None:
    from adbridge.validate.rule_checks.rule_report import RuleReport

    assert RuleReport("f", "", ()).verdict == "unresolved"


# Bad input.


def test_not_a_rule() -> None:
    with pytest.raises(RuleError, match="pass primal="):
        ad.check_rule(sin, X, backends="reference")
    with pytest.raises(RuleError, match="needs a function with a derivative rule"):
        ad.check_rule(3.0, X)  # type: ignore[arg-type]
    with pytest.raises(RuleError, match="has no rule yet"):
        ad.check_rule(ad.custom_rule(sin), X)


@pytest.mark.parametrize(
    ("primal", "text"),
    [
        (lambda x: None, "returned nothing"),
        (lambda x: "text", "must be an array or a number"),
        (lambda x: (), "without any array"),
    ],
)
def test_a_function_that_returns_no_arrays(primal: Any, text: str) -> None:
    with pytest.raises(RuleError, match=text):
        ad.check_rule(sin, X, primal=primal, backends="reference")


def test_a_function_with_hidden_state() -> None:
    count = itertools.count()
    with pytest.raises(RuleError, match="two results for the same arguments"):
        ad.check_rule(sin, X, primal=lambda x: x * next(count), backends="reference")


def test_a_function_that_runs_once() -> None:
    left = [True]

    def once(x: Any) -> Any:
        left.pop()
        return sin(x)

    with pytest.raises(RuleError, match="ran once, and not again"):
        ad.check_rule(sin, X, primal=once, backends="reference")


@pytest.mark.parametrize(
    ("domain", "text"),
    [
        ((2.0, 1.0), "is empty"),
        ((5.0, 9.0), "outside of the domain"),
        (lambda x: x > 100, "outside of the domain"),
        ("positive", "domain must be"),
        (((0, 1), (0, 1)), "domain must be"),
    ],
)
def test_domains(domain: Any, text: str) -> None:
    with pytest.raises(RuleError, match=text):
        ad.check_rule(rule_of(), X, backends="reference", domain=domain)


def test_a_domain_keeps_the_check_inside() -> None:
    rule = ad.custom_rule(lambda x: xp_of(x).sqrt(x * x))
    rule.defvjp(lambda x: (xp_of(x).sqrt(x * x), x), lambda x, ct: (ct,))
    failure(rule, np.array([0.5, 2.0]))
    passes(rule, np.array([0.5, 2.0]), domain=(0.0, np.inf))
    passes(rule, np.array([0.5, 2.0]), domain=lambda x: x > 0)


def test_no_floating_argument_and_no_backend() -> None:
    with pytest.raises(RuleError, match="no floating argument"):
        ad.check_rule(rule_of(), 3)
    with pytest.raises(BackendNotFound):
        ad.check_rule(rule_of(), X, backends="nothing")


def test_digits_that_the_engine_loses_too_are_not_held_against_a_rule() -> None:
    """The textbook's 1 - y^2, far out where tanh has saturated."""
    jax = pytest.importorskip("jax")

    def layer(p: Any) -> Any:
        return jax.numpy.tanh(p["w"] @ p["x"] + p["b"])

    def rule_with(slope: Callable[[Any], Any]) -> Any:
        def bwd(residuals: Any, ct: Any) -> Any:
            p, y = residuals
            inner = ct * slope(y)
            return ({"w": jax.numpy.outer(inner, p["x"]), "x": p["w"].T @ inner, "b": inner},)

        rule = jax.custom_vjp(layer)
        rule.defvjp(lambda p: (y := layer(p), (p, y)), bwd)
        return rule

    p = {"w": np.ones((2, 3)) / 3, "x": np.array([0.1, 0.2, 0.3]), "b": np.array([0.5, -0.5])}
    right = ad.check_rule(rule_with(lambda y: 1 - y * y), p, primal=layer, backends="jax")
    assert right.verdict == "agree", right
    wrong = ad.check_rule(rule_with(lambda y: 1 - y), p, primal=layer, backends="jax")
    assert wrong.verdict == "wrong", wrong


def test_a_torch_function_is_called_by_its_class() -> None:
    torch = pytest.importorskip("torch")

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, ct: Any) -> Any:
            return 2 * ctx.saved_tensors[0] ** 2 * ct

    report = ad.check_rule(Cube.apply, np.array([1.0, 2.0]), primal=lambda x: x**3, backends="torch")
    assert str(report).startswith("rule 'Cube.apply' is wrong on torch: vjp at x[0], got 2, expected 3")
    assert "autograd/function.py" not in str(report)
    with pytest.raises(RuleError, match=r"Cube is a class; pass Cube\.apply"):
        ad.check_rule(Cube, np.array([1.0, 2.0]), primal=lambda x: x**3, backends="torch")


def test_the_snippet_of_a_long_array_runs() -> None:
    bad = rule_of(bwd=lambda x, ct: (2 * ct * cos(x),), jvp=None)
    report = ad.check_rule(bad, np.linspace(-1, 1, 50), backends="reference")
    assert "Long arrays are random here" in report.snippet
    compile(report.snippet, "snippet", "exec")
