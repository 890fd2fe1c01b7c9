"""A function and its derivatives on one backend, from NumPy leaves to real coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

import adbridge.operators as operators
from adbridge.operators import Operator
from adbridge.protocol import Backend
from adbridge.registry import array_namespace
from adbridge.second_order import hvp
from adbridge.validate.rule_checks.candidate import Leaves, Vector, as_cotangent, as_tangent, cotangents_of, tangents_of

Pull = Callable[[Vector], Vector]


@contextmanager
def quiet() -> Iterator[None]:
    """Overflow at a special point, or a rule's habit, is no news: what comes out of it is judged."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Runner:
    """``fun`` of flat leaves on a backend. Vectors are real coordinates (`candidate.py`)."""

    fun: Callable[..., Any]
    backend: Backend

    def value(self, leaves: Leaves) -> Leaves:
        """The output's leaves."""
        return _leaves(Operator("value", self.fun, tuple(range(len(leaves))), backend=self.backend)(*leaves))

    def jvp(self, leaves: Leaves, tangent: Vector) -> tuple[Leaves, Vector]:
        """The output's leaves and the coordinates of its tangent."""
        out, pushed = operators.jvp(self.fun, leaves, tangents_of(tangent, leaves), backend=self.backend)
        return _leaves(out), as_tangent(_leaves(pushed))

    def vjp(self, leaves: Leaves) -> tuple[Leaves, Pull]:
        """The output's leaves, and the pullback of coordinates."""
        out, pullback = operators.vjp(self.fun, *leaves, backend=self.backend)
        outs = _leaves(out)

        def pull(cotangent: Vector) -> Vector:
            seeds = cotangents_of(cotangent, outs)
            return as_cotangent(pullback(seeds[0] if not isinstance(out, tuple) else seeds))

        return outs, pull

    def jacobian(self, leaves: Leaves, mode: str) -> Any:
        """The dense Jacobian of real leaves by one batch of sweeps, ``(outputs, inputs)``."""
        every = tuple(range(len(leaves)))
        found = operators.jacobian(self.fun, every, mode=mode, backend=self.backend)(*leaves)
        rows = found if found and isinstance(found[0], tuple) else (found,)
        return np.concatenate(
            [
                np.concatenate(
                    [np.asarray(block, float).reshape(-1, leaf.size) for block, leaf in zip(row, leaves, strict=True)],
                    axis=1,
                )
                for row in rows
            ]
        )

    def hvp(self, leaves: Leaves, tangent: Vector, mode: str) -> Vector:
        """Of a function with one scalar output."""
        found = hvp(self.fun, leaves, tangents_of(tangent, leaves), mode=mode, backend=self.backend)
        return as_cotangent(found)


def _leaves(result: Any) -> Leaves:
    return tuple(np.asarray(part) for part in result) if isinstance(result, tuple) else (np.asarray(result),)


def weighted(fun: Callable[..., Any], weights: Leaves) -> Callable[..., Any]:
    """The real number ``Re(sum(weights * output))``, as a function of the leaves."""

    def scalar(*leaves: Any) -> Any:
        out = fun(*leaves)
        total: Any = None
        for part, weight in zip(out if isinstance(out, tuple) else (out,), weights, strict=True):
            xp = array_namespace(part)
            term = xp.sum(xp.asarray(weight, dtype=part.dtype) * part)
            term = xp.real(term) if "complex" in str(part.dtype) else term
            total = term if total is None else total + term
        return total

    return scalar


def bent(fun: Callable[..., Any], leaves: Leaves, outs: Leaves) -> Callable[..., Any]:
    """`fun` between curved functions of each element that leave its value and derivative at `leaves` nearly as it is.

    So the second derivative depends on how `fun`'s first responds to tangents and cotangents that change.
    """
    sizes = [_size(leaf) for leaf in leaves], [_size(out) for out in outs]

    def curved(*xs: Any) -> Any:
        inner = [_bent_in(x, here, size) for x, here, size in zip(xs, leaves, sizes[0], strict=True)]
        out = fun(*inner)
        if not isinstance(out, tuple):
            return out + out * out / (2 * sizes[1][0])
        return tuple(part + part * part / (2 * size) for part, size in zip(out, sizes[1], strict=True))

    return curved


def _bent_in(x: Any, here: Any, size: float) -> Any:
    """At `here` its value is `here`, and its derivative 1."""
    xp = array_namespace(x)
    moved = x - xp.asarray(here, dtype=x.dtype)
    return x + moved * moved / (2 * size)


def _size(leaf: Any) -> float:
    finite = np.abs(leaf[np.isfinite(leaf)])
    return float(np.max(finite, initial=0.0)) or 1.0
