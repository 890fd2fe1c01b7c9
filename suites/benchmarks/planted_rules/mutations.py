"""Ways of making a rule wrong. A mutation takes a rule and returns another; what state it has is its own.

A `Change` acts on one array at a time: ``change(xp, g)``. Where a mutation leaves a mode alone, the other stays right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optree

import adbridge as ad

from .rule import Array, Rule

Mutation = Callable[[Rule], Rule]
Change = Callable[[Any, Array], Array]
AtInput = Callable[[Any, Array, Array], Array]

BOTH = ("forward", "reverse")


def space(tree: Any) -> Any:
    """The namespace of a tree's arrays."""
    return ad.array_namespace(*optree.tree_leaves(tree))


def each(change: Change, tree: Any) -> Any:
    """`change` of every leaf; None stays."""
    xp = space(tree)
    return optree.tree_map(lambda leaf: change(xp, leaf), tree)


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and any(word in str(leaf.dtype) for word in ("float", "complex"))


def each_float(change: Callable[[Array], Array], tree: Any) -> Any:
    return optree.tree_map(lambda leaf: change(leaf) if _is_float(leaf) else leaf, tree)


# What comes out.


def tangent(change: Callable[[Any], Any]) -> Mutation:
    """Forward mode: the tangent of the output, a tree, is changed."""

    def mutate(rule: Rule) -> Rule:
        old = rule.jvp
        if old is None:
            return rule

        def jvp(primals: Any, tangents: Any) -> Any:
            out, t = old(primals, tangents)
            return out, change(t)

        return replace(rule, jvp=jvp)

    return mutate


def cotangents(change: Callable[[tuple[Any, ...]], Any]) -> Mutation:
    """Reverse mode: the tuple of cotangents is changed."""

    def mutate(rule: Rule) -> Rule:
        old = rule.bwd
        if old is None:
            return rule
        return replace(rule, bwd=lambda residuals, ct: change(old(residuals, ct)))

    return mutate


def then(*mutations: Mutation) -> Mutation:
    """One mutation after another."""

    def mutate(rule: Rule) -> Rule:
        for mutation in mutations:
            rule = mutation(rule)
        return rule

    return mutate


def results(change: Change, modes: tuple[str, ...] = BOTH) -> Mutation:
    """Every array that a rule returns as a derivative."""
    parts = {"forward": tangent, "reverse": cotangents}
    return then(*(parts[mode](lambda tree: each(change, tree)) for mode in modes))


def cotangent_of(argnum: int, change: Change) -> Mutation:
    """The cotangent of one argument."""
    return cotangents(lambda cts: tuple(each(change, ct) if i == argnum else ct for i, ct in enumerate(cts)))


def factor(value: float, modes: tuple[str, ...] = BOTH) -> Mutation:
    return results(lambda xp, g: value * g, modes)


def entry(place: int, value: float) -> Change:
    """One entry, counted in C order, times a number."""

    def change(xp: Any, g: Array) -> Array:
        mask = np.ones(int(np.prod(g.shape)))
        mask[place] = value
        return g * xp.asarray(mask.reshape(tuple(g.shape)), dtype=g.dtype)

    return change


# What goes in.


def incoming(change: Change, modes: tuple[str, ...] = ("reverse",)) -> Mutation:
    """The cotangent that `bwd` is given, the tangents that `jvp` is given."""

    def mutate(rule: Rule) -> Rule:
        jvp, bwd = rule.jvp, rule.bwd
        if jvp is not None and "forward" in modes:
            rule = replace(rule, jvp=lambda primals, tangents: jvp(primals, each(change, tangents)))
        if bwd is not None and "reverse" in modes:
            rule = replace(rule, bwd=lambda residuals, ct: bwd(residuals, each(change, ct)))
        return rule

    return mutate


def primals(change: Callable[[Array], Array]) -> Mutation:
    """The numbers that derivatives are computed from: residuals, and the primals of `jvp`. Values stay."""

    def mutate(rule: Rule) -> Rule:
        jvp, fwd = rule.jvp, rule.fwd
        if jvp is not None:
            rule = replace(
                rule, jvp=lambda primals, tangents: (rule.fun(*primals), jvp(each_float(change, primals), tangents)[1])
            )
        if fwd is not None:

            def fwd_(*args: Any) -> Any:
                out, residuals = fwd(*args)
                return out, each_float(change, residuals)

            rule = replace(rule, fwd=fwd_)
        return rule

    return mutate


def where_input(change: AtInput, modes: tuple[str, ...] = BOTH) -> Mutation:
    """``change(xp, x, g)``: the derivative of a function of one array depends on where it is asked for.

    Forward mode is changed alike only if the function is elementwise: then g has the shape of x.
    """

    def mutate(rule: Rule) -> Rule:
        jvp, fwd, bwd = rule.jvp, rule.fwd, rule.bwd
        if jvp is not None and "forward" in modes:

            def jvp_(primals: Any, tangents: Any) -> Any:
                out, t = jvp(primals, tangents)
                return out, change(space(primals), primals[0], t)

            rule = replace(rule, jvp=jvp_)
        if fwd is not None and bwd is not None and "reverse" in modes:

            def fwd_(*args: Any) -> Any:
                out, residuals = fwd(*args)
                return out, (args[0], residuals)

            def bwd_(residuals: Any, ct: Any) -> Any:
                x, rest = residuals
                first, *others = bwd(rest, ct)
                return (change(space(x), x, first), *others)

            rule = replace(rule, fwd=fwd_, bwd=bwd_)
        return rule

    return mutate


def value(change: Change) -> Mutation:
    """The value of the function that `fwd` and `jvp` return."""

    def mutate(rule: Rule) -> Rule:
        jvp, fwd = rule.jvp, rule.fwd
        if jvp is not None:

            def jvp_(primals: Any, tangents: Any) -> Any:
                out, t = jvp(primals, tangents)
                return each(change, out), t

            rule = replace(rule, jvp=jvp_)
        if fwd is not None:

            def fwd_(*args: Any) -> Any:
                out, residuals = fwd(*args)
                return each(change, out), residuals

            rule = replace(rule, fwd=fwd_)
        return rule

    return mutate


# What a rule remembers.


def stale(by_shape: bool = False) -> Mutation:
    """Derivatives from the primals of the first call (of each shape): a memo that forgets to look at its input."""

    def mutate(rule: Rule) -> Rule:
        jvp, fwd = rule.jvp, rule.fwd
        memory: dict[Any, Any] = {}

        def first(key: str, tree: Any) -> Any:
            shapes = str([getattr(leaf, "shape", ()) for leaf in optree.tree_leaves(tree)]) if by_shape else ""
            return memory.setdefault((key, shapes), tree)

        if jvp is not None:
            rule = replace(rule, jvp=lambda p, t: (rule.fun(*p), jvp(first("primals", p), t)[1]))
        if fwd is not None:

            def fwd_(*args: Any) -> Any:
                out, residuals = fwd(*args)
                return out, first("residuals", residuals)

            rule = replace(rule, fwd=fwd_)
        return rule

    return mutate


def at_the_example() -> Mutation:
    """The derivative at the example arguments, whatever the input."""

    def mutate(rule: Rule) -> Rule:
        jvp, fwd, bwd = rule.jvp, rule.fwd, rule.bwd

        def on(xp: Any, tree: Any) -> Any:
            return optree.tree_map(lambda leaf: xp.asarray(leaf) if hasattr(leaf, "dtype") else leaf, tree)

        if jvp is not None:
            rule = replace(rule, jvp=lambda p, t: (rule.fun(*p), jvp(on(space(t), rule.args), t)[1]))
        if fwd is not None and bwd is not None:
            fixed = fwd(*rule.args)[1]
            rule = replace(
                rule, fwd=lambda *args: (rule.fun(*args), ()), bwd=lambda _, ct: bwd(on(space(ct), fixed), ct)
            )
        return rule

    return mutate


def counted(wrong: Callable[[int], bool], off: float = 1.5) -> Mutation:
    """Calls are counted, and those that `wrong` says are off by a factor."""

    def mutate(rule: Rule) -> Rule:
        calls = iter(range(10**9))
        return results(lambda xp, g: off * g if wrong(next(calls)) else g)(rule)

    return mutate


def noisy(size: float) -> Mutation:
    """Every call is off by another random factor."""

    def mutate(rule: Rule) -> Rule:
        rng = np.random.default_rng(0)
        return results(lambda xp, g: (1 + size * rng.standard_normal()) * g)(rule)

    return mutate


# What a rule does to arrays that are not its own.


def scale_in_place(modes: tuple[str, ...]) -> Mutation:
    """Doubles the cotangent (the tangents) in place where arrays can be written to, and makes up for it."""

    def doubled(xp: Any, g: Array) -> Array:
        g *= 2
        return g

    return then(incoming(doubled, modes), factor(0.5, modes))


def move_input_in_place(step: float) -> Mutation:
    """Writes to the argument of the function after its value is computed."""

    def mutate(rule: Rule) -> Rule:
        jvp, fwd = rule.jvp, rule.fwd

        def move(tree: Any) -> None:
            for leaf in optree.tree_leaves(tree):
                if _is_float(leaf):
                    leaf += step

        if jvp is not None:

            def jvp_(primals: Any, tangents: Any) -> Any:
                out = jvp(primals, tangents)
                move(primals)
                return out

            rule = replace(rule, jvp=jvp_)
        if fwd is not None:

            def fwd_(*args: Any) -> Any:
                out, residuals = fwd(*args)
                residuals = optree.tree_map(lambda leaf: leaf + 0 if _is_float(leaf) else leaf, residuals)
                move(args)
                return out, residuals

            rule = replace(rule, fwd=fwd_)
        return rule

    return mutate


def as_if_contiguous(x: Array) -> Array:
    """The first numbers of x's memory, as code reads them that takes a pointer and ignores strides."""
    if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
        memory = x if x.base is None else x.base
        flat = np.ravel(memory, order="K")
        return np.resize(flat, x.shape)
    if hasattr(x, "is_contiguous") and not x.is_contiguous():
        steps = tuple(int(np.prod(x.shape[i + 1 :])) for i in range(x.ndim))
        return x.as_strided(tuple(x.shape), steps)
    return x
