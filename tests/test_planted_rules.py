"""The planted rules: the right ones are right, by differences of the function; the checker finds the wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import optree
import pytest
from click.testing import CliRunner

from adbridge.registry import is_installed
from adbridge.suites.benchmarks.planted_rules.__main__ import main
from adbridge.suites.benchmarks.planted_rules.elementwise import KINKED
from adbridge.suites.benchmarks.planted_rules.mutant import Mutant
from adbridge.suites.benchmarks.planted_rules.mutants import KINDS, MUTANTS
from adbridge.suites.benchmarks.planted_rules.mutations import factor
from adbridge.suites.benchmarks.planted_rules.peers import FOUND, PASSED, PEERS, checked_by_adbridge, copied
from adbridge.suites.benchmarks.planted_rules.rule import Rule
from adbridge.suites.benchmarks.planted_rules.rules import RULES

Tree = Any


def is_float(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc"


def probe(tree: Tree, seed: int) -> Tree:
    """Random numbers in the floating leaves, None in the others."""
    rng = np.random.default_rng(seed)

    def like(leaf: Any) -> Any:
        if not is_float(leaf):
            return None
        t = rng.uniform(-1.0, 1.0, leaf.shape)
        return np.asarray(t + 1j * rng.uniform(-1.0, 1.0, leaf.shape) if leaf.dtype.kind == "c" else t)

    return optree.tree_map(like, tree)


def moved(args: Tree, tangents: Tree, h: float) -> Tree:
    """``args + h * tangents``."""
    return optree.tree_map(lambda x, t: x if t is None else x + h * t, args, tangents, none_is_leaf=True)


def slope(fun: Callable[..., Tree], args: Tree, tangents: Tree, h: float) -> list[Any]:
    """The directional derivative, by central differences of three steps, extrapolated to order 6."""

    def central(h: float) -> list[Any]:
        ahead, behind = (optree.tree_leaves(fun(*moved(args, tangents, s))) for s in (h, -h))
        return [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]

    rows = [central(h / 2**k) for k in range(3)]
    once = [[(4 * b - a) / 3 for a, b in zip(*pair, strict=True)] for pair in pairwise(rows)]
    return [(16 * b - a) / 15 for a, b in zip(*once, strict=True)]


def pairing(ct: Tree, tangent: Tree) -> float:
    pairs = zip(optree.tree_leaves(ct), optree.tree_leaves(tangent), strict=True)
    return float(sum(np.real(np.sum(np.asarray(c) * t)) for c, t in pairs))


def at_smooth_points(rule: Rule) -> Tree:
    """The example in float64, off the kinks."""
    wide = optree.tree_map(lambda x: x.astype(np.float64) if is_float(x) and x.dtype.kind == "f" else x, rule.args)
    return optree.tree_map(lambda x: x + 0.05, wide) if rule in KINKED else wide


def scaled_probe(rule: Rule, args: Tree) -> tuple[Tree, float]:
    """Tangents, and a step for differences; as large as the arguments, if those are badly scaled."""
    tangents = probe(args, 1)
    if "1e" in rule.name or "near" in rule.name:
        return optree.tree_map(lambda t, x: t * x, tangents, args), 1e-2
    return tangents, 1e-3


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_right_rules_have_the_slope_of_their_function(rule: Rule) -> None:
    args = at_smooth_points(rule)
    tangents, h = scaled_probe(rule, args)
    value, expected = rule.fun(*args), slope(rule.fun, args, tangents, h)
    ct = probe(optree.tree_map(np.asarray, value), 2)
    assert rule.modes
    if rule.jvp is not None:
        out, got = rule.jvp(args, tangents)
        for a, b in zip(optree.tree_leaves(out), optree.tree_leaves(value), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(optree.tree_leaves(got), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8 * np.max(np.abs(b), initial=0.0))
    if rule.fwd is not None and rule.bwd is not None:
        out, residuals = rule.fwd(*args)
        for a, b in zip(optree.tree_leaves(out), optree.tree_leaves(value), strict=True):
            np.testing.assert_array_equal(a, b)
        got = rule.bwd(residuals, ct)
        weights = optree.tree_leaves(ct)
        assert pairing(got, tangents) == pytest.approx(pairing(weights, expected), rel=1e-7, abs=0.0)


def test_there_are_rules_of_each_kind() -> None:
    modes = [rule.modes for rule in RULES.values()]
    assert len(modes) >= 45
    assert {("forward",), ("reverse",), ("forward", "reverse")} <= set(modes)


def test_there_are_errors_of_many_classes() -> None:
    assert len(MUTANTS) >= 160
    assert len(KINDS) >= 22
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.rule for mutant in MUTANTS} <= set(RULES)


def test_a_mutant_is_built_without_memory() -> None:
    """Stale state is of one rule: the next starts anew."""
    mutant = next(m for m in MUTANTS if m.kind == "stale state" and m.rule == "sin")
    for x in (0.5, 1.5):
        rule = mutant.build()
        assert rule.jvp is not None
        out, tangent = rule.jvp((np.array(x),), (np.array(1.0),))
        assert (out, tangent) == (pytest.approx(np.sin(x)), pytest.approx(np.cos(x)))


# The checker.

QUICK_RULES = ("sin", "relu", "sqrt", "multiply", "sort", "gather", "softmax", "monomial")
QUICK_KINDS = (
    *("sign", "one of 10000 entries", "missing broadcast sum", "permutation ignored", "cotangent clipped"),
    *("only right at the example", "NaN at 0", "stale state", "writes to its input", "wrong dtype"),
    *("wrong number of cotangents", "right at first order only"),
)


def quick(mutant: Mutant) -> bool:
    """The first of some classes."""
    return mutant.kind in QUICK_KINDS and mutant is next(m for m in MUTANTS if m.kind == mutant.kind)


def verdict(rule: Rule, backends: tuple[str, ...]) -> tuple[str, str]:
    installed = tuple(name for name in backends if is_installed(name))
    with np.errstate(all="ignore"):
        report = checked_by_adbridge(copied(rule), installed)
    return report.verdict, str(report)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK_RULES else pytest.mark.slow) for name in RULES]
)
def test_no_right_rule_is_flagged(name: str) -> None:
    found, text = verdict(RULES[name], ("reference",) if name in QUICK_RULES else ("reference", "torch", "autograd"))
    assert found not in ("wrong", "error"), text


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RULES if RULES[name] not in KINKED][::6])
def test_no_right_rule_is_flagged_on_jax(name: str) -> None:
    found, text = verdict(RULES[name], ("jax",))
    assert found not in ("wrong", "error"), text


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=m.name, marks=() if quick(m) else pytest.mark.slow) for m in MUTANTS],
)
def test_every_planted_error_is_found(mutant: Mutant) -> None:
    """On the reference engine; strides also on torch, whose arrays keep those that they are given."""
    found, text = verdict(mutant.build(), ("reference",))
    if mutant.kind == "ignores strides" and found == "agree":
        pytest.importorskip("torch")
        found, text = verdict(mutant.build(), ("torch",))
    assert found in ("wrong", "error"), text


# The table.


@pytest.mark.slow
def test_the_program_prints_its_table() -> None:
    """Two errors of adbridge's own making, and what a peer says of them."""
    arguments = ["--only", "cotangent below a threshold: sin", "--backends", "reference", "--jobs", "1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "cotangent below a threshold" in result.output
    assert "100%" in result.output


def test_an_unknown_name_is_refused() -> None:
    result = CliRunner().invoke(main, ["--only", "nothing has this name"])
    assert result.exit_code == 2
    assert "no rule or error has 'nothing has this name' in its name" in result.output


@pytest.mark.parametrize("name", [p.name for p in PEERS])
def test_peers_find_a_sign_and_pass_a_sine(name: str) -> None:
    peer = next(p for p in PEERS if p.name == name)
    if not is_installed(peer.engine):
        pytest.skip(f"{peer.engine} is not installed")
    sign = factor(-1.0)(RULES["sin"])
    assert (peer(RULES["sin"]).outcome, peer(sign).outcome) == (PASSED, FOUND)
