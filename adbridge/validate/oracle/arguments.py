"""The arguments of a checked function, their real coordinates, and what runs it without trusting it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from adbridge.errors import RuleError, SignatureMismatch
from adbridge.readings import function_name, plain
from adbridge.registry import get_backend, owners_of
from adbridge.trees import PyTree, TreeDef, flatten, leaf_names, unflatten

Direction = list[Any]
"""For each active leaf an array of its shape, or None where it stays."""


@dataclass(frozen=True)
class Arguments:
    """The leaves of ``args``; `slots` are the active ones, floating and complex."""

    fun: Callable[..., Any]
    leaves: list[Any]
    treedef: TreeDef
    slots: tuple[int, ...]
    known_names: list[str] | None = None

    @property
    def active(self) -> list[Any]:
        return [self.leaves[slot] for slot in self.slots]

    def call(self, arrays: Sequence[Any]) -> Any:
        """``fun`` with these in the places of the active leaves."""
        filled = list(self.leaves)
        for slot, array in zip(self.slots, arrays, strict=True):
            filled[slot] = array
        return self.fun(*unflatten(self.treedef, filled))

    @cached_property
    def names(self) -> list[str]:
        """Of the active leaves, by the function's own names for its parameters."""
        if self.known_names is not None:
            return self.known_names
        names = [name for i, part in enumerate(self.parts) for name in leaf_names(_parameter(self.fun, i), part)]
        return [names[slot] for slot in self.slots]

    @cached_property
    def parts(self) -> list[TreeDef]:
        """The tree of each argument."""
        return self.treedef.children()

    @cached_property
    def coordinates(self) -> list[tuple[int, int, complex]]:
        """The real ones of all active leaves: ``(active leaf, flat index, unit)``, the unit 1 or 1j."""
        return [
            (which, place, unit)
            for which, leaf in enumerate(self.active)
            for place in range(leaf.size)
            for unit in ((1, 1j) if leaf.dtype.kind == "c" else (1,))
        ]

    def entry(self, which: int, place: int) -> str:
        """``x[0, 2]``: an element of an active leaf."""
        return self.names[which] + subscript(self.active[which].shape, place)

    def one_hot(self, coordinate: int) -> Direction:
        which, place, unit = self.coordinates[coordinate]
        return self.direction_of({(which, place): unit})

    def direction_of(self, entries: dict[tuple[int, int], complex]) -> Direction:
        """The direction that is zero but for these ``(active leaf, flat index): value``."""
        out: Direction = [None] * len(self.slots)
        for (which, place), value in entries.items():
            leaf = self.active[which]
            if out[which] is None:
                out[which] = np.zeros(leaf.shape, complex if leaf.dtype.kind == "c" else float)
            out[which].reshape(-1)[place] += value
        return out

    def like(self, parts: Sequence[Any]) -> tuple[PyTree, ...]:
        """A tuple like the arguments, of these in the places of the active leaves; None elsewhere."""
        filled: list[Any] = [None] * len(self.leaves)
        for slot, part in zip(self.slots, parts, strict=True):
            filled[slot] = part
        tree: tuple[PyTree, ...] = unflatten(self.treedef, filled)
        return tree

    def seeds(self, what: str, tree: PyTree) -> Direction:
        """Tangents like the arguments as a direction. Raises SignatureMismatch."""
        if len(self.parts) == 1 and not (isinstance(tree, (tuple, list)) and len(tree) == 1):
            tree = (tree,)
        if not isinstance(tree, (tuple, list)) or len(tree) != len(self.parts):
            raise SignatureMismatch(f"{what} must be a tuple, one for each of the {len(self.parts)} arguments")
        leaves = [leaf for part, like in zip(tree, self.parts, strict=True) for leaf in _leaves(what, part, like)]
        return [
            None if leaves[slot] is None else as_seed(f"{what} of {name}", leaves[slot], self.leaves[slot])
            for slot, name in zip(self.slots, self.names, strict=True)
        ]


def _leaves(what: str, tree: PyTree, like: TreeDef) -> list[Any]:
    if tree is None:
        return [None] * like.num_leaves
    leaves, treedef = flatten(tree)
    if treedef != like:
        raise SignatureMismatch(f"{what} must have the tree structure of the arguments: expected {like}, got {treedef}")
    return leaves


def as_seed(what: str, seed: Any, like: Any) -> Any:
    """A tangent or cotangent as float64 or complex128, of `like`'s shape. Raises SignatureMismatch."""
    array = np.asarray(seed)
    if array.shape != like.shape:
        raise SignatureMismatch(f"{what} has shape {array.shape}, expected {like.shape}: pass one of that shape")
    return np.asarray(array, complex if like.dtype.kind == "c" else float)


def subscript(shape: tuple[int, ...], place: int) -> str:
    where = np.unravel_index(place, shape) if shape else ()
    return f"[{', '.join(map(str, map(int, where)))}]" if shape else ""


def read_arguments(fun: Callable[..., Any], args: tuple[Any, ...]) -> Arguments:
    """NumPy copies of the arguments. Raises RuleError: `fun` is not callable, or none of them is floating."""
    if not callable(fun):
        raise RuleError(f"the function to check must be callable, got {fun!r}")
    leaves, treedef = flatten(args)
    leaves = [_copied(plain(leaf)) for leaf in leaves]
    slots = tuple(i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fc")
    if not slots:
        shown = ", ".join(repr(leaf) for leaf in leaves) or "none"
        raise RuleError(
            f"{function_name(fun)} was given no floating argument to differentiate by (got {shown}); pass floats, "
            "such as 2.0, or arrays of floating dtype"
        )
    return Arguments(fun, leaves, treedef, slots)


def _copied(leaf: Any) -> Any:
    if owner := next(iter(owners_of([leaf])), None):
        return np.array(get_backend(owner).to_numpy(leaf))
    if isinstance(leaf, (float, complex)) or (isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "fc"):
        return np.array(leaf, order="C")
    return np.array(leaf, order="C") if isinstance(leaf, np.ndarray) else leaf


def _parameter(fun: Callable[..., Any], i: int) -> str:
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return f"args[{i}]"
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return positional[i].name if i < len(positional) else f"args[{i}]"


@dataclass(frozen=True)
class Outputs:
    """The tree, shapes and dtypes of a function's output."""

    treedef: TreeDef
    likes: list[Any]
    """NumPy arrays of the outputs' shapes and dtypes."""

    @property
    def size(self) -> int:
        """Number of real scalars."""
        return sum(like.size * (2 if like.dtype.kind == "c" else 1) for like in self.likes)

    @property
    def is_scalar(self) -> bool:
        return self.treedef.num_nodes == 1 and len(self.likes) == 1 and self.likes[0].shape == ()

    @cached_property
    def coordinates(self) -> list[tuple[int, int, complex]]:
        """The real ones: ``(leaf, flat index, unit)``."""
        return [
            (which, place, unit)
            for which, like in enumerate(self.likes)
            for place in range(like.size)
            for unit in ((1, 1j) if like.dtype.kind == "c" else (1,))
        ]

    def entry(self, which: int, place: int) -> str:
        return leaf_names("out", self.treedef)[which] + subscript(self.likes[which].shape, place)

    def seeds(self, what: str, tree: PyTree) -> list[Any]:
        """Cotangents like the output. Raises SignatureMismatch."""
        leaves = _leaves(what, tree, self.treedef)
        return [
            np.zeros(like.shape) if leaf is None else as_seed(what, leaf, like)
            for leaf, like in zip(leaves, self.likes, strict=True)
        ]


def outputs_of(fun: Callable[..., Any], result: Any) -> tuple[list[Any], TreeDef]:
    """The leaves of what `fun` returned. Raises RuleError: nothing, or not arrays of numbers."""
    name = function_name(fun)
    if result is None:
        raise RuleError(f"{name} returned nothing (None); a function to differentiate returns arrays")
    leaves, treedef = flatten(result)
    if not leaves:
        raise RuleError(f"{name} returned {result!r}, without any array; a function to differentiate returns arrays")
    for leaf_name, leaf in zip(leaf_names("out", treedef), leaves, strict=True):
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
            raise RuleError(
                f"{name} returned {leaf_name} of type {type(leaf).__name__}; it must be an array or a number"
            )
    return leaves, treedef


def norm(direction: Direction) -> float:
    """Largest magnitude of a direction's entries."""
    return max((float(np.max(np.abs(d), initial=0.0)) for d in direction if d is not None), default=0.0)


def scaled(direction: Direction, factor: float) -> Direction:
    return [None if d is None else d * factor for d in direction]


def power_of_two(x: float) -> float:
    """The greatest one that is not above x; scaling by it is exact."""
    return math.ldexp(1.0, math.frexp(x)[1] - 1) if 0 < x < math.inf else 1.0
