"""A rule must leave what it is given as it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge import operators
from adbridge.trees import flatten
from adbridge.validate.rule_checks.bench import Bench
from adbridge.validate.rule_checks.candidate import sizes
from adbridge.validate.rule_checks.points import Point
from adbridge.validate.rule_checks.rule_report import Row
from adbridge.validate.rule_checks.settling import Outcome


def unchanged(bench: Bench, point: Point) -> Row:
    """Arguments and cotangents as they were: as the engine's arrays, and as NumPy's that can be written to."""
    changed = _changed_by_engine(bench, point) or _changed_by_rule(bench, point)
    outcome = Outcome("wrong", 1, note=changed) if changed else Outcome("agree", sum(sizes(point.leaves)))
    return bench.row("primal", "", point, outcome)


def _changed_by_engine(bench: Bench, point: Point) -> str:
    backend = bench.backend
    with backend.scope([leaf.dtype.name for leaf in point.leaves]):
        arrays = tuple(backend.from_numpy(leaf) for leaf in point.leaves)
        try:
            out, pullback = operators.vjp(bench.ruled.fun, *arrays, backend=backend)
            ones = [backend.from_numpy(np.ones_like(backend.to_numpy(o))) for o in flatten(out)[0]]
            pullback(flatten(out)[1].unflatten(ones))
        except Exception:  # said by the checks of the modes
            return ""
        names = [*bench.candidate.ruled.names, *("the cotangent" for _ in ones)]
        before = [*point.leaves, *(np.ones_like(backend.to_numpy(o)) for o in ones)]
        after = [backend.to_numpy(array) for array in (*arrays, *ones)]
    return _first_changed(names, before, after, "the reverse rule")


def _changed_by_rule(bench: Bench, point: Point) -> str:
    """The rule's own functions, called with NumPy arrays: an engine may hide what they do to its arrays."""
    rule = bench.candidate.rule
    if rule is None or bench.backend.name not in ("reference", "autograd"):
        return ""
    leaves = tuple(np.array(leaf) for leaf in point.leaves)
    args, names = bench.candidate.arguments(leaves), bench.candidate.ruled.names
    try:
        if rule.jvp_rule is not None:
            tangents = tuple(np.ones_like(leaf) for leaf in leaves)
            rule.jvp_rule(args, bench.candidate.ruled.like(tangents))
            before = [*point.leaves, *(np.ones_like(leaf) for leaf in leaves)]
            after = [*leaves, *tangents]
            if said := _first_changed([*names, *(f"the tangent of {n}" for n in names)], before, after, "the jvp rule"):
                return said
        if rule.fwd is not None:
            out, residuals = rule.fwd(*args)
            outs, treedef = flatten(out)
            cotangents = [np.ones_like(np.asarray(o)) for o in outs]
            rule.bwd(residuals, treedef.unflatten(cotangents))
            before = [*point.leaves, *(np.ones_like(ct) for ct in cotangents)]
            return _first_changed(
                [*names, *("the cotangent" for _ in outs)], before, [*leaves, *cotangents], "the reverse rule"
            )
    except Exception:  # rules may be written for an engine's arrays alone
        return ""
    return ""


def _first_changed(names: list[str], before: list[Any], after: list[Any], who: str) -> str:
    for name, old, new in zip(names, before, after, strict=True):
        if not np.array_equal(old, new, equal_nan=True):
            return f"{who} changes {name} in place; work on a copy"
    return ""
