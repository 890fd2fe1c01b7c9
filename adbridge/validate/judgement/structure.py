"""Whether a result has the structure, shapes and dtypes of what it should be like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.trees import PyTree, flatten, leaf_names
from adbridge.validate.judgement.findings import Finding
from adbridge.validate.referee import Referee


def output_structure(referee: Referee, got: PyTree, root: str) -> tuple[Finding | None, list[Any]]:
    leaves, treedef = flatten(got)
    outputs = referee.outputs
    if treedef != outputs.treedef:
        return _mismatch(root, f"tree structure {treedef}, expected {outputs.treedef}"), []
    likes = [(like.shape, expected_dtype(referee, like)) for like in outputs.likes]
    return _checked_leaves(leaves, likes, leaf_names(root, treedef))


def expected_dtype(referee: Referee, like: Any) -> Any:
    """Of an output: as the function made it; run on wider arrays, that of its arguments."""
    if referee.method == "arb" or like.dtype.kind not in "fc":
        return like.dtype
    narrow = np.result_type(*(leaf.dtype for leaf in referee.arguments.active))
    return narrow if np.can_cast(narrow, like.dtype) and narrow.kind == like.dtype.kind else like.dtype


def argument_structure(referee: Referee, got: Sequence[Any]) -> tuple[Finding | None, list[Any]]:
    arguments = referee.arguments
    if not isinstance(got, (tuple, list)) or len(got) != len(arguments.parts):
        count = f"{len(got)} of them" if isinstance(got, (tuple, list)) else type(got).__name__
        return _mismatch(
            "cotangents", f"{count}, expected a tuple of {len(arguments.parts)}, one for each argument"
        ), []
    leaves: list[Any] = []
    for part, like in zip(got, arguments.parts, strict=True):
        own, treedef = flatten(part)
        if part is not None and treedef != like:
            return _mismatch("cotangents", f"tree structure {treedef}, expected {like}"), []
        leaves += [None] * like.num_leaves if part is None else own
    chosen = [leaves[slot] for slot in arguments.slots]
    return _checked_leaves(chosen, [(leaf.shape, leaf.dtype) for leaf in arguments.active], arguments.names)


def _checked_leaves(leaves: list[Any], likes: list[Any], names: list[str]) -> tuple[Finding | None, list[Any]]:
    arrays = [None if leaf is None else np.asarray(leaf) for leaf in leaves]
    for array, (shape, dtype), name in zip(arrays, likes, names, strict=True):
        if array is not None and array.shape != shape:
            return _mismatch(name, f"shape {array.shape}, expected {shape}"), []
        if array is not None and array.dtype != dtype:
            return _mismatch(name, f"dtype {array.dtype}, expected {dtype}"), []
    return None, arrays


def _mismatch(entry: str, note: str) -> Finding:
    return Finding("wrong", math.inf, math.inf, entry, note=note)
