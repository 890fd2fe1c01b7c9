"""Running a function on Arb balls directly: a trace whose tracers carry balls, and whose branches the balls decide.

Nothing is recorded, so that Python control flow, indices and loops follow the very point that is evaluated. Of each
tracer, `value` is what NumPy would have made of it (its shape and dtype count, its digits do not), and `extra` the
balls; integers and booleans are exact, and the same in both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from adbridge.backends.reference.numbers.arrays import constant, implementation_of, of_dtype
from adbridge.backends.reference.numbers.balls import working_precision
from adbridge.backends.reference.primitives import Primitive
from adbridge.backends.reference.tracer import Trace, Tracer
from adbridge.errors import CapabilityError


class Perturbation(Protocol):
    """What becomes of the operands and of the result of the k-th operation."""

    def operands(self, primitive: Primitive, count: int, operands: list[Any]) -> list[Any]: ...

    def result(self, primitive: Primitive, count: int, balls: Any) -> Any: ...


class Eager(Trace):
    """Evaluates each primitive over balls, as it comes."""

    def __init__(self, perturb: Perturbation | None = None) -> None:
        super().__init__()
        self.perturb = perturb
        self.count = 0
        self.elements = 0
        """Numbers that the run has computed."""
        self.names: set[str] = set()
        """Of the primitives that the run has met."""
        self.least = float("inf")
        """Smallest magnitude, zero aside, among the numbers that the run has met."""
        self.most = 0.0
        """Largest magnitude, infinity aside."""
        self.roundings: set[tuple[str, Any]] = set()
        """The primitives that have given floating results, with these results' dtypes."""

    def new_input(self, balls: Any, like: Any) -> Tracer:
        """A tracer of these balls with `like`'s dtype; `like` is their value in NumPy."""
        self._meet(like)
        return Tracer(self, like, balls)

    def constant(self, value: Any) -> Tracer:
        return Tracer(self, value, constant(value))

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Tracer:
        self.refuse_if_closed(primitive)
        with np.errstate(all="ignore"):
            value = primitive.impl(*map(self.value_of, args), **params)
        self.count += 1
        self.names.add(primitive.name)
        operands = [self._balls_of(a) for a in args]
        if self.perturb is not None:
            operands = self.perturb.operands(primitive, self.count, operands)
        balls = self._evaluate(primitive, operands, params, value)
        if not hasattr(value, "dtype"):  # a bundle
            return Tracer(self, value, balls)
        if value.dtype.kind not in "fc":
            value = balls = balls if isinstance(balls, np.ndarray) else np.asarray(balls, value.dtype)
        else:
            self._meet(value)
            self.roundings.add((primitive.name, value.dtype))
            if self.perturb is not None:
                balls = self.perturb.result(primitive, self.count, balls)
        return self.make(primitive, args, params, value, balls)

    def _evaluate(self, primitive: Primitive, operands: list[Any], params: dict[str, Any], like: Any) -> Any:
        implementation = implementation_of(primitive.name)
        if implementation is None:
            raise CapabilityError(
                f"the reference engine's {primitive.name!r} does not run over Arb balls; write the function with "
                "other operations"
            )
        balls = implementation(*operands, **params)
        if not hasattr(like, "dtype"):
            return tuple(of_dtype(part, shadow.dtype) for part, shadow in zip(balls, like, strict=True))
        return of_dtype(balls, like.dtype)

    def _balls_of(self, x: Any) -> Any:
        if isinstance(x, Tracer) and x.trace is self:
            return x.extra
        if x is not None and not isinstance(x, tuple):
            self._meet(x)
        if type(x) is np.ndarray and x.dtype.kind in "fc" and 16 <= x.size <= 20_000:
            return _known(x.dtype.str, x.shape, x.tobytes())
        return constant(x)

    def _meet(self, value: Any) -> None:
        self.elements += np.size(value)
        sizes = np.abs(np.asarray(value, complex if np.iscomplexobj(value) else float))
        least = np.min(sizes, where=(sizes > 0), initial=np.inf)
        self.least = min(self.least, float(least))
        self.most = max(self.most, float(np.max(sizes, where=np.isfinite(sizes), initial=0.0)))


@lru_cache(16)
def _known(dtype: str, shape: tuple[int, ...], data: bytes) -> Any:
    """A constant array as balls, kept: a function that is run again and again meets the same ones."""
    return constant(np.frombuffer(data, dtype).reshape(shape))


def run(fun: Callable[..., Any], trace: Eager, inputs: list[Any], likes: list[Any], bits: int) -> Any:
    """``fun`` of tracers for these balls, at a working precision. Raises Undecided, CapabilityError, and fun's own."""
    with working_precision(bits):
        try:
            return fun(*[trace.new_input(balls, like) for balls, like in zip(inputs, likes, strict=True)])
        finally:
            trace.close()
