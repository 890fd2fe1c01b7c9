"""A linear map given by its elements that are not zero, on arrays and on tracers of the reference engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adbridge.backends.reference import namespace
from adbridge.backends.reference.rules.shaping import Slot, add_at
from adbridge.protocol import Arrays


@dataclass(frozen=True)
class Block:
    """The derivatives of one output that are not zero: their rows among its elements, columns among all coordinates."""

    rows: list[int]
    columns: list[int]
    values: list[Any]


class Jacobian:
    """The linear map, by its elements, of real coordinates: a complex input has two, its parts."""

    def __init__(self, blocks: list[Block], primals: Arrays, outs: Arrays) -> None:
        self.blocks = blocks
        self.primals = primals
        self.outs = outs

    def push(self, tangents: Arrays) -> Arrays:
        parts = [part for t in tangents for part in coordinates(t)]
        t = namespace.concat(parts) if parts else np.zeros(0)
        return tuple(
            _like(_gathered(block.values, block.columns, block.rows, t, out.size), out)
            for block, out in zip(self.blocks, self.outs, strict=True)
        )

    def pull(self, cotangents: Arrays) -> Arrays:
        """The transpose; the gradient by a complex input is df/dx - i df/dy."""
        parts = [part for x in self.primals for part in _widths(x)]
        total: Any = np.zeros(sum(parts))
        for block, c in zip(self.blocks, cotangents, strict=True):
            given = _gathered(block.values, block.rows, block.columns, namespace.reshape(c, (-1,)), sum(parts))
            total = total + (namespace.real(given) if given.dtype.kind == "c" else given)
        pieces = iter([total[i : i + k] for i, k in zip(np.cumsum([0, *parts]), parts, strict=False)])
        return tuple(
            _like(next(pieces) - 1j * next(pieces) if x.dtype.kind == "c" else next(pieces), x) for x in self.primals
        )


def coordinates(x: Any) -> list[Any]:
    flat = namespace.reshape(x, (-1,))
    return [namespace.real(flat), namespace.imag(flat)] if x.dtype.kind == "c" else [flat]


def _widths(x: Any) -> list[int]:
    return [x.size] * (2 if x.dtype.kind == "c" else 1)


def _gathered(values: list[Any], taken: list[int], given: list[int], x: Any, size: int) -> Any:
    """out[given[k]] += values[k] x[taken[k]]."""
    if not values:
        return np.zeros(size)
    terms = namespace.stack([np.asarray(v) if not hasattr(v, "dtype") else v for v in values]) * x[np.array(taken)]
    return add_at(np.zeros(size, terms.dtype), terms, np.array(given), key=Slot(0))


def _like(x: Any, like: Any) -> Any:
    """A vector in `like`'s shape and dtype."""
    x = namespace.real(x) if x.dtype.kind == "c" and like.dtype.kind != "c" else x
    x = namespace.reshape(x, like.shape)
    return x if x.dtype == like.dtype else namespace.astype(x, like.dtype)
