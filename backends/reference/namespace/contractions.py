"""`einsum`: diagonals and sums of each operand, then matrix products of two operands at a time."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from adbridge.backends.reference.namespace.creation import asarray
from adbridge.backends.reference.namespace.reductions import sum
from adbridge.backends.reference.namespace.shapes import permute_dims, reshape
from adbridge.backends.reference.rules.linalg import diagonal, matmul

Labels = str


def einsum(subscripts: Any, /, *operands: Any, optimize: Any = True) -> Any:
    """NumPy's `einsum`: repeated and summed indices, "...", and no "->" for the indices that occur once.

    Pairs are contracted in the order of `numpy.einsum_path` (greedy, whatever `optimize` says).
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _from_lists(subscripts, *operands)
    operands = tuple(map(asarray, operands))
    shapes = [np.broadcast_to(np.int8(0), x.shape) for x in operands]
    path = np.einsum_path(subscripts, *shapes, optimize="greedy")[0][1:]  # and it checks the subscripts
    inputs, output = _spelled_out(subscripts, [len(x.shape) for x in operands])
    terms = _without_stretched(inputs, operands)
    for places in path:
        taken = [terms[i] for i in places]
        terms = [term for i, term in enumerate(terms) if i not in places]
        while len(taken) > 1:
            others = [labels for labels, _ in (*taken[2:], *terms)]
            taken = [_product(taken[0], taken[1], set(output).union(*others)), *taken[2:]]
        terms += taken
    labels, x = terms[0]
    labels, x = _reduced(labels, x, set(output))
    return permute_dims(x, tuple(labels.index(c) for c in output)) if labels != output else x


def _from_lists(*alternating: Any) -> tuple[str, tuple[Any, ...]]:
    """The form ``einsum(a, [0, 1], b, [1, 2], [0, 2])``, as a string and operands."""

    def spelled(places: Sequence[Any]) -> str:
        return "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in places)

    count = len(alternating) // 2
    text = ",".join(spelled(places) for places in alternating[1 : 2 * count : 2])
    if len(alternating) % 2:
        text += "->" + spelled(alternating[-1])
    return text, alternating[: 2 * count : 2]


def _spelled_out(subscripts: str, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """Every axis by a letter of its own: the ones of "..." by unused letters, aligned at the right."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    dots = [
        rank - len(term.replace("...", "")) if "..." in term else 0 for term, rank in zip(inputs, ranks, strict=True)
    ]
    free = [c for c in string.ascii_letters if c not in subscripts]
    rest = "".join(free[: max(dots)])
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        output = ("..." if rest else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    spelled = [term.replace("...", rest[len(rest) - k :]) for term, k in zip(inputs, dots, strict=True)]
    return spelled, output.replace("...", rest)


def _without_stretched(inputs: list[Labels], operands: Sequence[Any]) -> list[tuple[Labels, Any]]:
    """Axes of size 1 that meet longer ones of their letter are taken off: a product broadcasts them."""
    sizes: dict[str, int] = {}
    for labels, x in zip(inputs, operands, strict=True):
        for c, size in zip(labels, x.shape, strict=True):
            sizes[c] = size if sizes.get(c, 1) == 1 else sizes[c]
    terms = []
    for labels, x in zip(inputs, operands, strict=True):
        kept = [i for i, c in enumerate(labels) if x.shape[i] == sizes[c]]
        if len(kept) < len(labels):
            labels, x = "".join(labels[i] for i in kept), reshape(x, tuple(x.shape[i] for i in kept))
        terms.append((labels, x))
    return terms


def _reduced(labels: Labels, x: Any, wanted: set[str]) -> tuple[Labels, Any]:
    """Each index once, by the diagonal; and those that nobody else wants summed."""
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i, j = labels.index(c), labels.rindex(c)
            others = [k for k in range(len(labels)) if k not in (i, j)]
            x = diagonal(permute_dims(x, (*others, i, j)), offset=0)
            labels = "".join(labels[k] for k in others) + c
    lone = tuple(i for i, c in enumerate(labels) if c not in wanted)
    if lone:
        labels, x = "".join(c for c in labels if c in wanted), sum(x, axis=lone, dtype=x.dtype)
    return labels, x


def _product(first: tuple[Labels, Any], second: tuple[Labels, Any], wanted: set[str]) -> tuple[Labels, Any]:
    """The product of two terms, summed over the indices that are not wanted."""
    a_labels, a = _reduced(*first, wanted | set(second[0]))
    b_labels, b = _reduced(*second, wanted | set(a_labels))
    batch = "".join(c for c in a_labels if c in b_labels and c in wanted)
    inner = "".join(c for c in a_labels if c in b_labels and c not in wanted)
    rows = "".join(c for c in a_labels if c not in b_labels)
    columns = "".join(c for c in b_labels if c not in a_labels)
    sizes = dict(zip(a_labels + b_labels, a.shape + b.shape, strict=True))
    shape = tuple(sizes[c] for c in batch + rows + columns)
    if not inner:
        left = _arranged(a, a_labels, batch + rows, (*(sizes[c] for c in batch + rows), *(1,) * len(columns)))
        right = _arranged(
            b, b_labels, batch + columns, (*(sizes[c] for c in batch), *(1,) * len(rows), *(sizes[c] for c in columns))
        )
        return batch + rows + columns, left * right
    outer = tuple(sizes[c] for c in batch)
    m, k, n = (math.prod(sizes[c] for c in group) for group in (rows, inner, columns))
    left = _arranged(a, a_labels, batch + rows + inner, (*outer, m, k))
    right = _arranged(b, b_labels, batch + inner + columns, (*outer, k, n))
    return batch + rows + columns, reshape(matmul(left, right), shape)


def _arranged(x: Any, labels: Labels, order: Labels, shape: tuple[int, ...]) -> Any:
    if labels != order:
        x = permute_dims(x, tuple(labels.index(c) for c in order))
    return x if x.shape == shape else reshape(x, shape)
