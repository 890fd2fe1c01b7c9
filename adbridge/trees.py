"""Pytrees (optree): flatten, describe and check the arguments of a call."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import optree

from adbridge.errors import SignatureMismatch

PyTree = Any
TreeDef = optree.PyTreeSpec


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and dtype name of one array leaf; prints as ``float64[3,2]``."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def spec_of(array: Any) -> Spec:
    """Spec of any engine's array (their dtypes print alike, but for torch's prefix)."""
    return Spec(tuple(array.shape), _dtype_name(array.dtype))


@cache
def _dtype_name(dtype: Hashable) -> str:
    return str(dtype).removeprefix("torch.")


def flatten(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Leaves in JAX's order (dicts by sorted key, None is an empty node) and the tree's structure."""
    leaves, treedef = optree.tree_flatten(tree)
    return leaves, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> PyTree:
    return optree.tree_unflatten(treedef, leaves)


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
