"""Code that shows a failure, to be pasted into a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from adbridge.trees import flatten
from adbridge.validate.rule_checks.candidate import (
    Candidate,
    Leaves,
    Vector,
    called,
    cotangents_of,
    importable,
    tangents_of,
)

LONGEST = 12
"""Elements of an array that are written out."""


def snippet(candidate: Candidate, backend: str, mode: str, leaves: Leaves, seed: Vector | None) -> str:
    """A script that prints what the rule gives on this backend, and what the referee finds."""
    rule, primal = candidate.ruled.fun, candidate.plain.fun
    lines = ["import numpy as np", "import adbridge as ad", *_names(candidate)]
    if any(isinstance(leaf, np.ndarray) and leaf.size > LONGEST for leaf in leaves):
        lines.append("# Long arrays are random here; put those that were checked in their place.")
    lines.append(f"args = {_tuple(candidate.arguments(leaves))}")
    own, plain = (
        _name_of(rule, "rule"),
        f"{_name_of(rule, 'rule')}.primal" if candidate.rule else _name_of(primal, "plain"),
    )
    if mode == "forward" and seed is not None and _is_simple(candidate):
        tangents = _tuple(tangents_of(seed, leaves))
        lines += [
            f"tangents = {tangents}",
            f'print("got     ", ad.jvp({own}, args, tangents, backend="{backend}")[1])',
            f'print("expected", ad.referee({plain}, *args).jvp(tangents))',
        ]
    elif mode == "reverse" and seed is not None and _is_simple(candidate):
        lines += _pullback(own, plain, backend, primal, candidate, leaves, seed)
    else:
        extra = "" if candidate.rule else f", primal={plain}"
        lines.append(f'print(ad.check_rule({own}, *args{extra}, backends="{backend}"))')
    return "\n".join(lines)


def _pullback(
    own: str, plain: str, backend: str, primal: Any, candidate: Candidate, leaves: Leaves, seed: Vector
) -> list[str]:
    out = np.asarray(leaves[0])
    try:
        outs, treedef = flatten(primal(*candidate.arguments(leaves)))
        cotangent = treedef.unflatten(cotangents_of(seed, [np.asarray(o) for o in outs]))
        text = _literal(cotangent)
    except Exception:  # code that does not run on NumPy arrays
        text = f"np.ones({out.shape}, np.{out.dtype})"
    return [
        f"cotangent = {text}",
        f'out, pullback = ad.vjp({own}, *args, backend="{backend}")',
        'print("got     ", *pullback(cotangent))',
        f'print("expected", *ad.referee({plain}, *args).vjp(cotangent))',
    ]


def _is_simple(candidate: Candidate) -> bool:
    """Whether all arguments are differentiated arrays."""
    return len(candidate.leaves) == len(candidate.ruled.parts) == len(candidate.ruled.leaves)


def _names(candidate: Candidate) -> list[str]:
    lines = []
    wanted = [(candidate.ruled.fun, "rule")] if candidate.rule else [
        (candidate.ruled.fun, "rule"),
        (candidate.plain.fun, "plain"),
    ]  # fmt: skip
    for fun, fallback in wanted:
        module, _, name = importable(fun).partition(":")
        top = name.split(".")[0]
        lines.append(f"from {module} import {top}" if module else f"{fallback} = ...  # {_described(fun)}")
    return lines


def _described(fun: Any) -> str:
    code = getattr(getattr(fun, "primal", fun), "__code__", None)
    where = ""
    if code is not None and code.co_name == getattr(fun, "__name__", "") and not hasattr(fun, "__self__"):
        where = f", {code.co_filename}:{code.co_firstlineno}"  # not that of a wrapper
    return f"{called(fun)}{where}"


def _name_of(fun: Any, fallback: str) -> str:
    return importable(fun).partition(":")[2] or fallback


def _tuple(parts: tuple[Any, ...]) -> str:
    return f"({', '.join(map(_literal, parts))},)"


def _literal(tree: Any) -> str:
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, (tuple, list)):
        inner = ", ".join(map(_literal, tree))
        return f"[{inner}]" if isinstance(tree, list) else f"({inner},)"
    if not isinstance(tree, (np.ndarray, np.generic)):
        return repr(tree)
    if tree.size > LONGEST:
        return f"np.random.default_rng(0).standard_normal({tree.shape}).astype(np.{tree.dtype})"
    values = str(tree.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({values}, np.{tree.dtype})"
