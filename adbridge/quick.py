"""The short way of a prepared call: one function, written for its signature, that compares and calls.

Of arrays in plain trees (tuples, lists, dicts of string keys) given by position, to arrays in a plain tree. What
does not look like the example gives None, and goes the long way, which knows what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from adbridge.protocol import Compiled
from adbridge.signatures import ArrayLike
from adbridge.trees import TreeDef, unflatten


def quick_call(
    args: tuple[Any, ...], likes: list[Any], out_tree: TreeDef, compiled: Compiled, runs: Any
) -> Callable[..., Any] | None:
    """None where it does not apply.

    Args:
        likes: the leaves of `args`, arrays by their `ArrayLike`.
        runs: its attribute `compiled` is None once results of another tree than `out_tree` have been seen.
    """
    if compiled.matched is None or not all(type(like) is ArrayLike for like in likes):
        return None
    scope = {"ndarray": np.ndarray, "call": compiled.matched, "runs": runs, "array": np.array}
    names = (f"a{i}" for i in count())
    leaves: list[str] = []
    lines: list[str] = []
    arguments = [next(names) for _ in args]
    for name, arg in zip(arguments, args, strict=True):
        if not _compare(name, arg, names, leaves, lines):
            return None
    results = [f"r{i}" for i in range(out_tree.num_leaves)]
    answer = _build(unflatten(out_tree, results))
    if answer is None or len(leaves) != len(likes) or not results:
        return None
    for i, (leaf, like) in enumerate(zip(leaves, likes, strict=True)):
        scope |= {f"s{i}": like.shape, f"d{i}": like.dtype}
        lines.append(f"if type({leaf}) is not ndarray or {leaf}.shape != s{i} or {leaf}.dtype != d{i}: return None")
    lines += ["if runs.compiled is None: return None", f"outs = call({', '.join(leaves)})"]
    lines += ["if runs.compiled is None: return None", f"{', '.join(results)}, = outs"]
    lines += [f"if type({r}) is not ndarray: {r} = array({r})" for r in results]  # a scalar
    lines += [f"return {answer}"]
    head = f"def quick({', '.join(f'{name}=None' for name in arguments)}, *rest):"
    exec("\n    ".join([head, "if rest: return None", *lines]), scope)
    return scope["quick"]  # type: ignore[no-any-return]


def _compare(name: str, node: Any, names: Iterator[str], leaves: list[str], lines: list[str]) -> bool:
    """Lines that compare a tree with the example's and take it apart. False if it is not plain."""
    kind = type(node)
    if kind in (tuple, list):
        parts = [next(names) for _ in node]
        lines.append(f"if type({name}) is not {kind.__name__} or len({name}) != {len(parts)}: return None")
        if parts:
            lines.append(f"{', '.join(parts)}, = {name}")
        return all(_compare(part, child, names, leaves, lines) for part, child in zip(parts, node, strict=True))
    if kind is dict:
        if not all(type(key) is str for key in node):
            return False
        lines.append(f"if type({name}) is not dict or {name}.keys() != {set(node) or '{}.keys()'}: return None")
        by_key = {key: next(names) for key in sorted(node)}
        lines.extend(f"{part} = {name}[{key!r}]" for key, part in by_key.items())
        return all(_compare(part, node[key], names, leaves, lines) for key, part in by_key.items())
    leaves.append(name)
    return node is not None and (kind is np.ndarray or isinstance(node, (float, np.generic)))


def _build(node: Any) -> str | None:
    """The expression of a plain tree of names."""
    kind = type(node)
    if kind is str:
        return node  # type: ignore[no-any-return]
    if kind is dict and all(type(key) is str for key in node):
        items = {key: _build(child) for key, child in node.items()}
        return None if None in items.values() else f"{{{', '.join(f'{key!r}: {text}' for key, text in items.items())}}}"
    if kind not in (tuple, list):
        return None
    parts = [_build(child) for child in node]
    if None in parts:
        return None
    inside = "".join(f"{part}, " for part in parts)
    return f"({inside})" if kind is tuple else f"[{inside}]"
