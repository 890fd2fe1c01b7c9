"""Published failures of gradient checkers, put to `adbridge.check_rule`: rules that must fail, and that must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import adbridge as ad
from adbridge.errors import AdbridgeError
from adbridge.validate.verdict import worst

Function = Callable[..., Any]


@dataclass(frozen=True)
class Ruled:
    """What the checker said of one rule; `planted`: the rule is wrong."""

    name: str
    planted: bool
    verdict: str
    note: str = ""


def _checked(name: str, planted: bool, rule: ad.CustomRule, *args: Any) -> Ruled:
    try:
        report = ad.check_rule(rule, *args, backends="reference")
    except AdbridgeError as exc:
        return Ruled(name, planted, "error", str(exc).partition("\n")[0])
    failed = report.failed
    return Ruled(name, planted, report.verdict, failed.describe() if failed else "")


def _with_vjp(fun: Function, slope: Function) -> ad.CustomRule:
    """An elementwise function whose cotangents are multiplied by ``slope(xp, x)``."""
    rule = ad.custom_rule(lambda x: fun(ad.array_namespace(x), x))
    rule.defvjp(
        lambda x: (fun(ad.array_namespace(x), x), x),
        lambda x, ct: (ct * slope(ad.array_namespace(x), x),),
    )
    return rule


def _with_jvp(fun: Function, slope: Function) -> ad.CustomRule:
    rule = ad.custom_rule(lambda x: fun(ad.array_namespace(x), x))
    rule.defjvp(
        lambda primals, tangents: (
            fun(ad.array_namespace(primals[0]), primals[0]),
            slope(ad.array_namespace(primals[0]), primals[0]) * tangents[0],
        )
    )
    return rule


def _sort_without_permutation() -> list[Ruled]:
    """Of 500 entries, a tenth of the published case: every evaluation sorts balls."""
    rule = ad.custom_rule(lambda x: ad.array_namespace(x).sort(x))
    rule.defvjp(lambda x: (ad.array_namespace(x).sort(x), None), lambda _, ct: (ct,))
    x = np.random.default_rng(0).standard_normal(500)
    return [_checked("sort, permutation ignored, n=500", True, rule, x)]


def _small_derivative() -> list[Ruled]:
    rule = _with_vjp(lambda xp, x: 1 / x, lambda xp, x: -1.5 / x**2)
    return [_checked("1/x, half too large, at 1e4", True, rule, np.full(2, 1e4))]


def _large_array() -> list[Ruled]:
    rule = _with_jvp(lambda xp, x: xp.sin(x), lambda xp, x: -xp.cos(x))
    x = np.random.default_rng(1).random(2000).astype(np.float32)
    return [_checked("sin, wrong sign, float32, n=2000", True, rule, x)]


def _second_order() -> list[Ruled]:
    one = np.sin(1.0)
    sine = _with_vjp(lambda xp, x: xp.sin(x) - one, lambda xp, x: ad.stop_gradient(xp.cos(x)))
    power = _with_jvp(lambda xp, x: xp.exp(x), lambda xp, x: ad.stop_gradient(xp.exp(x)))
    return [
        _checked("sin(x) - sin(1) at 1, second order stopped", True, sine, 1.0),
        _checked("exp at 0, second order stopped", True, power, 0.0),
    ]


def _relu_at_0() -> list[Ruled]:
    relu = _with_vjp(lambda xp, x: xp.maximum(x, xp.zeros_like(x)), lambda xp, x: xp.astype(x > 0, x.dtype))
    size = _with_vjp(lambda xp, x: xp.abs(x), lambda xp, x: xp.sign(x))
    return [_checked("relu at 0", False, relu, np.zeros(3)), _checked("abs at 0", False, size, np.zeros(3))]


def _single_precision() -> list[Ruled]:
    power = _with_vjp(lambda xp, x: xp.exp(x), lambda xp, x: xp.exp(x))
    sine = _with_vjp(lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x))
    return [
        _checked("exp at 20, float32", False, power, np.float32(20)),
        _checked("sin at 0.7, float32", False, sine, np.float32(0.7)),
    ]


def _scales() -> list[Ruled]:
    inverse = _with_vjp(lambda xp, x: 1 / x, lambda xp, x: -1 / x**2)
    square = _with_vjp(lambda xp, x: x**2, lambda xp, x: 2 * x)
    cube = _with_vjp(lambda xp, x: x**3, lambda xp, x: 3 * x**2)
    return [
        _checked("1/x at 1e-3", False, inverse, 1e-3),
        _checked("1/x at 1e-6", False, inverse, np.full(2, 1e-6)),
        _checked("x^2 at 1e10", False, square, np.full(2, 1e10)),
        _checked("x^3 at 1e6", False, cube, 1e6),
    ]


def _one_cotangent_of_two() -> list[Ruled]:
    rule = ad.custom_rule(lambda x, y: x * y)
    rule.defvjp(lambda x, y: (x * y, (x, y)), lambda kept, ct: (ct * kept[1],))
    return [_checked("x y, one cotangent of two", True, rule, 2.0, 3.0)]


def _nothing_compared() -> list[Ruled]:
    verdict = worst([])
    return [Ruled("no comparison", True, "wrong" if verdict != "agree" else verdict, f"counts as {verdict}")]


RULES: dict[str, Callable[[], list[Ruled]]] = {
    "chk-fast-sort": _sort_without_permutation,
    "chk-small-derivative": _small_derivative,
    "chk-jax-size-tol": _large_array,
    "chk-jax-order2-vacuous": _second_order,
    "chk-fa-relu0": _relu_at_0,
    "chk-fa-f32": _single_precision,
    "chk-fa-scale": _scales,
    "chk-prefix-zip": _one_cotangent_of_two,
    "chk-test-never-ran": _nothing_compared,
}
