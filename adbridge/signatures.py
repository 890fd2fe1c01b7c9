"""What a call looks like, told without optree where its arguments are plain: a small tree of common types.

At once: `outline` is the key under which a backend remembers how such calls are read. Prepared: `matcher`
makes the comparison of a call with one example. Both give the leaves in the order of `trees.flatten`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.trees import TreeDef, flatten

# As tuples, for a NumPy dtype equals the Python type of its name.
_CONSTANTS = {
    kind: (kind,)
    for kind in (float, int, complex, bool, str, np.float64, np.float32, np.complex128, np.complex64, np.int64)
}


def outline(args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]) -> Hashable:
    """The call's tree, with the types of its leaves and the dtypes of its arrays; puts the leaves into `leaves`.

    None if a node is not a tuple, list or dict by strings, or a leaf not a NumPy array or a common constant.
    """
    positional = _outline(args, leaves)
    if not kwargs or positional is None:
        return positional
    named = _outline(kwargs, leaves)
    return None if named is None else (positional, named)


def _outline(node: Any, leaves: list[Any]) -> Hashable:
    kind = type(node)
    found: list[Any] = [kind]
    children: Sequence[Any] = node
    if kind is dict:
        if not _is_by_strings(node):
            return None
        found += node  # in the caller's order, which is that of the dicts among the results
        children = [node[name] for name in sorted(node)]
    elif kind is not tuple and kind is not list:
        return None
    for child in children:
        kind = type(child)
        if kind is np.ndarray:
            leaves.append(child)
            found.append(child.dtype)
        elif kind in _CONSTANTS:
            leaves.append(child)
            found.append(_CONSTANTS[kind])
        elif (inner := _outline(child, leaves)) is not None:
            found.append(inner)
        else:
            return None
    return tuple(found)


def _is_by_strings(node: dict[Any, Any]) -> bool:
    return all(type(name) is str for name in node)  # 1, 1.0 and True are one key


@dataclass(frozen=True)
class ArrayLike:
    """Shape and dtype of one array of the example; `number`: a Python float may stand for it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    number: bool


Match = Callable[[tuple[Any, ...], dict[str, Any]], Sequence[Any] | None]
"""The arrays, all NumPy's own, of a call that looks like the example; None for any other."""
_Check = Callable[[Any, list[Any]], bool]
"""Whether a node looks like the example's; puts its arrays into the list."""


def matcher(args: tuple[Any, ...], kwargs: dict[str, Any], leaves: list[Any]) -> Match:
    """For an example's arguments, whose leaves are `leaves`: arrays by their `ArrayLike`."""
    checks = [_array_check(leaf) if type(leaf) is ArrayLike else _constant_check(leaf) for leaf in leaves]
    rest = iter(checks)
    positional = _node_check(args, rest)
    named = None if positional is None else _node_check(kwargs, rest)
    if positional is None or named is None:
        return _match_any(flatten((args, kwargs))[1], checks)
    if not kwargs and len(args) == len(leaves) and all(type(leaf) is ArrayLike for leaf in leaves):
        return _match_array(leaves[0], checks[0]) if len(leaves) == 1 else _match_arrays(leaves, positional)
    return _match_plain(positional, named)


def _match_array(like: ArrayLike, check: _Check) -> Match:
    """Of one array, by position: as below, in half the time."""
    shape, dtype = like.shape, like.dtype

    def match(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any] | None:
        if kwargs or len(args) != 1:
            return None
        leaf = args[0]
        if type(leaf) is np.ndarray and leaf.shape == shape and leaf.dtype == dtype:
            return args
        arrays: list[Any] = []  # it may be a Python number
        return arrays if check(leaf, arrays) else None

    return match


def _match_arrays(likes: list[ArrayLike], positional: _Check) -> Match:
    """Of arrays by position and nothing else: these are compared here, without a function each."""
    count, specs = len(likes), [(like.shape, like.dtype) for like in likes]

    def match(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any] | None:
        if kwargs or len(args) != count:
            return None
        for leaf, (shape, dtype) in zip(args, specs, strict=True):
            if type(leaf) is not np.ndarray or leaf.shape != shape or leaf.dtype != dtype:
                break
        else:
            return args
        arrays: list[Any] = []  # there may be Python numbers among them
        return arrays if positional(args, arrays) else None

    return match


def _match_plain(positional: _Check, named: _Check) -> Match:
    def match(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any] | None:
        arrays: list[Any] = []
        return arrays if positional(args, arrays) and named(kwargs, arrays) else None

    return match


def _match_any(example: TreeDef, checks: Sequence[_Check]) -> Match:
    def match(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Any] | None:
        leaves, treedef = flatten((args, kwargs))
        arrays: list[Any] = []
        same = treedef == example and all(check(leaf, arrays) for check, leaf in zip(checks, leaves, strict=True))
        return arrays if same else None

    return match


def _node_check(node: Any, leaves: Iterator[_Check]) -> _Check | None:
    """For a tuple, list or dict by strings, whose leaves have these checks; None if another node is among them."""
    kind = type(node)
    if kind is dict and _is_by_strings(node):
        names = sorted(node)
        checks = _child_checks([node[name] for name in names], leaves)
        return None if checks is None else _dict_check(names, checks)
    if kind is tuple or kind is list:
        checks = _child_checks(node, leaves)
        return None if checks is None else _sequence_check(kind, checks)
    return None


def _child_checks(children: Sequence[Any], leaves: Iterator[_Check]) -> list[_Check] | None:
    checks = []
    for child in children:
        is_leaf = type(child) is np.ndarray or type(child) in _CONSTANTS
        check = next(leaves) if is_leaf else _node_check(child, leaves)
        if check is None:
            return None
        checks.append(check)
    return checks


def _sequence_check(kind: type[Any], checks: Sequence[_Check]) -> _Check:
    count = len(checks)

    def check(node: Any, arrays: list[Any]) -> bool:
        if type(node) is not kind or len(node) != count:
            return False
        for each, child in zip(checks, node, strict=True):  # noqa: SIM110  (a generator costs as much as two checks)
            if not each(child, arrays):
                return False
        return True

    return check


def _dict_check(names: Sequence[str], checks: Sequence[_Check]) -> _Check:
    count, children = len(names), list(zip(names, checks, strict=True))

    def check(node: Any, arrays: list[Any]) -> bool:
        if type(node) is not dict or len(node) != count:
            return False
        for name, each in children:  # noqa: SIM110  (as above)
            if name not in node or not each(node[name], arrays):
                return False
        return True

    return check


def _array_check(like: ArrayLike) -> _Check:
    shape, dtype, number = like.shape, like.dtype, like.number

    def check(leaf: Any, arrays: list[Any]) -> bool:
        if type(leaf) is not np.ndarray:
            if not number or type(leaf) is not float:
                return False
            leaf = np.asarray(leaf)
        if leaf.shape != shape or leaf.dtype != dtype:
            return False
        arrays.append(leaf)
        return True

    return check


def _constant_check(like: Any) -> _Check:
    return lambda leaf, arrays: same(leaf, like)


def same(a: Any, b: Any) -> bool:
    """Whether two leaves that are not arrays are one constant of what was compiled."""
    # Of one type too: 2 and 2.0 and True are equal, and give other dtypes.
    return a is b or (type(a) is type(b) and _is_true(a == b))


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)
