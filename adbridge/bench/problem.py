"""Problems with known answers, and suites of them.

A problem is one entry in a suite file: a name, a maker of sized instances, its default sizes. An
instance is a function in the array-API dialect, its arguments, and the right answer in closed form
(or as published), as plain NumPy that shares no code with any engine.
"""

from __future__ import annotations

import difflib
import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import optree

from adbridge.errors import SuiteNotFound, UsageError
from adbridge.suites import BUILTIN, CHECKED
from adbridge.trees import PyTree

if TYPE_CHECKING:
    from adbridge.validate.special_points.truth import Special

Vector = npt.NDArray[Any]
Maker = Callable[[int, int, np.random.Generator], "Instance"]


@dataclass(frozen=True)
class Answer:
    """What is right at one point, in float64 NumPy.

    `value` is the output; ``jvp(t)`` maps a tangent of the first argument to the output's tangent J t;
    ``vjp(c)`` a cotangent of the output to the first argument's cotangent J^T c.
    """

    value: PyTree
    jvp: Callable[[PyTree], PyTree]
    vjp: Callable[[PyTree], PyTree]


@dataclass(frozen=True)
class Instance:
    """``fun(*args)``, differentiated with respect to ``args[0]`` (a pytree of float64 NumPy arrays).

    ``answer(*args)`` gives the right answer at args: the ones here, or these rounded to another dtype.
    The other arguments are data; their arrays become the engine's, the rest passes as it is.
    """

    fun: Callable[..., Any]
    args: tuple[PyTree, ...]
    answer: Callable[..., Answer]


@dataclass(frozen=True)
class Problem:
    """A family of instances.

    Args:
        make: ``make(n, m, rng)`` gives the instance nearest to n scalar inputs and m scalar outputs.
        sizes: the (n, m) of a plain run.
        free: which of "n" and "m" can be chosen by the caller; the others stay as in `sizes`.
        operators: which derivatives to take; by default all that fit the output's shape.
        find: the files of real data at a path (a file or folder), by label. load: the instance in one of them.
        source: where the problem and its answer come from.
        special: every right answer, where there may be several or none; such a problem is checked, not timed.
    """

    name: str
    make: Maker
    sizes: tuple[tuple[int, int], ...] = ((1, 1),)
    free: str = ""
    operators: tuple[str, ...] = ()
    find: Callable[[Path], dict[str, Path]] | None = None
    load: Callable[[Path], Instance] | None = None
    source: str = ""
    special: Special | None = None

    def instance(self, n: int, m: int) -> Instance:
        """The instance of this size; the same numbers every time."""
        seed = [zlib.crc32(self.name.encode()), n, m]
        return self.make(n, m, np.random.default_rng(seed))

    def grid(self, n: tuple[int, ...] | None, m: tuple[int, ...] | None) -> list[tuple[int, int]]:
        """The sizes to run: the default ones, or the product of what was asked for where it is free.

        Raises:
            UsageError: the problem has no one answer to run against.
        """
        if self.special is not None:
            raise UsageError(
                f"problem {self.name!r} is a special point, which may have several right answers or none: it is "
                "checked, not timed; run: adbridge check conventions"
            )
        n = n if "n" in self.free else None
        m = m if "m" in self.free else None
        if n is None and m is None:
            return list(self.sizes)
        ns = n or tuple(dict.fromkeys(size[0] for size in self.sizes))[:1]
        ms = m or tuple(dict.fromkeys(size[1] for size in self.sizes))[:1]
        return [(i, j) for i in ns for j in ms]


@dataclass(frozen=True)
class Suite:
    """A named list of problems."""

    name: str
    problems: tuple[Problem, ...]
    summary: str = ""

    def problem(self, name: str) -> Problem:
        """The problem of this name. Raises SuiteNotFound."""
        found = {p.name: p for p in self.problems}
        if name not in found:
            raise SuiteNotFound(f"suite {self.name!r} has no problem {name!r}; it has: {', '.join(found)}")
        return found[name]


def in_dtype(tree: PyTree, dtype: str) -> PyTree:
    """The real arrays of a tree in another dtype; all other leaves as they are."""

    def leaf(x: Any) -> Any:
        is_real_array = isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind == "f"
        return np.asarray(x, dtype=dtype) if is_real_array else x

    return optree.tree_map(leaf, tree)


# Answers in the common shapes.


def gradient_answer(value: Any, gradient: PyTree) -> Answer:
    """A scalar function: J t = <gradient, t> and J^T c = c gradient; the gradient is like the argument."""

    def jvp(tangent: PyTree) -> Any:
        products = optree.tree_map(lambda g, t: np.sum(g * t), gradient, tangent)
        return np.asarray(sum(optree.tree_leaves(products)))

    return Answer(np.asarray(value), jvp, lambda c: optree.tree_map(lambda g: c * np.asarray(g), gradient))


def diagonal_answer(value: Vector, slope: Vector) -> Answer:
    """An elementwise function of one array: J = diag(slope)."""
    return Answer(np.asarray(value), lambda t: slope * t, lambda c: slope * c)


def matrix_answer(value: Vector, matrix: Vector) -> Answer:
    """A function from R^n to R^m given by its value [m] and Jacobian matrix [m, n]."""
    return Answer(np.asarray(value), lambda t: matrix @ t, lambda c: matrix.T @ c)


# Finding suites.


def suite_table() -> dict[str, str]:
    """Every known suite and its module: the built-in ones, then plug-ins (entry points ``adbridge.suites``)."""
    plugins = {point.name: point.value for point in entry_points(group="adbridge.suites")}
    return {**plugins, **BUILTIN, **CHECKED}


def get_suite(name: str) -> Suite:
    """The suite called `name`, or the one at ``module:attribute``.

    Raises:
        SuiteNotFound: nothing of that name, or what is there is not a Suite.
    """
    known = suite_table()
    if name not in known and ":" not in name:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise SuiteNotFound(f"no suite is called {name!r}; {hint}known: {', '.join(known)} (or MODULE:SUITE)")
    module, _, attribute = known.get(name, name).partition(":")
    try:
        suite = getattr(importlib.import_module(module), attribute or "SUITE")
    except (ImportError, AttributeError) as exc:
        raise SuiteNotFound(f"suite {name!r} could not be loaded from {module}: {exc}") from exc
    if not isinstance(suite, Suite):
        raise SuiteNotFound(f"{name!r} is a {type(suite).__name__}, not an adbridge Suite")
    return suite
