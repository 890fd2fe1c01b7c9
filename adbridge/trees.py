"""Pytrees (optree): flatten, describe and check the arguments of a call."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import optree

from adbridge.errors import SignatureMismatch

PyTree = Any
TreeDef = optree.PyTreeSpec

LEAF: TreeDef = optree.treespec_leaf()
_LEAVES = frozenset({np.ndarray, np.float64, np.float32, np.complex128, np.complex64, float, int, complex, bool, str})
"""The commonest types of leaves: to ask optree costs as much as a small array's arithmetic."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype name of one array leaf; prints as ``float64[3,2]``."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def spec_of(array: Any) -> Spec:
    """Spec of any engine's array (their dtypes print alike, but for torch's prefix)."""
    return Spec(tuple(array.shape), dtype_name(array.dtype))


@cache
def dtype_name(dtype: Hashable) -> str:
    """Name of any engine's dtype, as NumPy would print it."""
    return str(dtype).removeprefix("torch.")


def flatten(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Leaves in JAX's order (dicts by sorted key, None is an empty node) and the tree's structure."""
    if type(tree) in _LEAVES:
        return [tree], LEAF
    leaves, treedef = optree.tree_flatten(tree)
    return leaves, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> PyTree:
    return treedef.unflatten(leaves)


def builder(treedef: TreeDef) -> Callable[[list[Any]], PyTree]:
    """`unflatten` into this tree; without optree if that is a tuple of leaves."""
    is_flat = treedef == optree.treespec_tuple([LEAF] * treedef.num_leaves)
    return tuple if is_flat else treedef.unflatten


def leaf_names(root: str, treedef: TreeDef) -> list[str]:
    """A Python-like name for every leaf: ``primals[0]['w']``."""
    return [root + "".join(f"[{key!r}]" for key in path) for path in treedef.paths()]


def check_structure(what: str, got: TreeDef, expected: TreeDef, like: str) -> None:
    """Raise SignatureMismatch unless the two trees have one structure."""
    if got != expected:
        raise SignatureMismatch(
            f"{what} must have the tree structure of {like}: expected {_show(expected)}, got {_show(got)}"
        )


def check_specs(names: Sequence[str], got: Sequence[Spec], expected: Sequence[Spec], like: str) -> None:
    """Raise SignatureMismatch at the first leaf whose shape or dtype is not the expected one."""
    for name, found, wanted in zip(names, got, expected, strict=True):
        if found != wanted:
            part = "shape" if found.shape != wanted.shape else "dtype"
            raise SignatureMismatch(
                f"{name} has the wrong {part}: expected {wanted} like {like}, got {found}; "
                f"convert it to the {part} of {like}"
            )


def _show(treedef: TreeDef) -> str:
    return str(unflatten(treedef, ["*"] * treedef.num_leaves)).replace("'*'", "*")
