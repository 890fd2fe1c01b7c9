"""Custom rules on HIPS autograd: one primitive, whose VJP and JVP are the rules of the call that is its first argument.

autograd calls a primitive at every level of nesting, and its rules with the values below the level, so that the rules'
own code is differentiated further.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
from autograd.core import VJPNode, defjvp_argnums, defvjp_argnums
from autograd.extend import primitive
from autograd.tracer import getval, isbox

from adbridge.backends.autograd_backend import like
from adbridge.protocol import Array, Arrays, LinearMap
from adbridge.rule_calls import Parts, RuleCall, is_floating
from adbridge.rule_linearity import sample_points, why_not_linear


class _State:
    """What one application of a rule knows besides arrays."""

    def __init__(self, call: RuleCall, reverse: bool) -> None:
        self.call = call
        self.reverse = reverse
        self.outs: Arrays = ()
        self.found: tuple[Parts, Arrays] | None = None
        """What the forward run of the reverse rule left, at the lowest level."""


def ruled(call: RuleCall, arrays: Arrays) -> Arrays:
    """The function's outputs, differentiated by its rule."""
    if not arrays:  # what it returns is under differentiation, so it closes over it
        call.refuse_closed_over()
    if not _transposing.get().isdisjoint(level for array in arrays for level in _levels(array)):
        return call.primal(*arrays)
    state = _State(call, call.has_vjp and any(isinstance(a._node, VJPNode) for a in arrays))
    found = _ruled(state, *arrays)
    results = (found,) if len(state.outs) == 1 else found
    return tuple(results[i] if is_floating(out) else out for i, out in enumerate(state.outs))


@primitive  # type: ignore[untyped-decorator]  # autograd has no annotations
def _ruled(state: _State, *arrays: Array) -> Any:
    """The output, or the tuple of several."""
    call = state.call
    if state.reverse:
        state.outs, parts, kept = call.fwd(*arrays)
        state.found = parts, kept
    else:
        state.outs = call.primal(*arrays)
    if any(map(isbox, (*state.outs, *(state.found or ((), ()))[1]))):
        call.refuse_closed_over()
    return _of_outputs(state.outs)


def _vjp(argnums: Sequence[int], ans: Any, args: Sequence[Any], kwargs: Any) -> Callable[[Any], Arrays]:
    state, *arrays = args
    places = _places(state.call, argnums)
    pull = _pull(state, tuple(arrays))

    def pulled(g: Any) -> Arrays:
        parts = (g,) if len(state.outs) == 1 else g
        found = pull(tuple(like(parts[i], state.outs[i]) for i in state.call.floating))
        return tuple(found[place] for place in places)

    return pulled


def _jvp(argnums: Sequence[int], gs: Sequence[Any], ans: Any, args: Sequence[Any], kwargs: Any) -> Any:
    state, *arrays = args
    call, tangents = state.call, [np.zeros(arrays[i].shape, arrays[i].dtype) for i in state.call.moving]
    for place, g in zip(_places(call, argnums), gs, strict=True):
        tangents[place] = like(g, arrays[call.moving[place]])
    rest = iter(_push(call, tuple(arrays), tuple(tangents)))
    return _of_outputs(tuple(next(rest) if is_floating(out) else np.zeros_like(out) for out in state.outs))


defvjp_argnums(_ruled, _vjp)
defjvp_argnums(_ruled, _jvp)


def _pull(state: _State, arrays: Arrays) -> LinearMap:
    """By the reverse rule; or by the forward rule, transposed."""
    call = state.call
    if not call.has_vjp:
        zeros = tuple(np.zeros(arrays[i].shape, arrays[i].dtype) for i in call.moving)
        return _transposed(call, "reverse", lambda *tangents: call.jvp(arrays, tangents)[1], zeros)
    found = state.found
    if found is None or any(map(isbox, arrays)):
        _, parts, kept = call.fwd(*arrays)
        found = parts, kept
    parts, kept = found
    return lambda cotangents: call.bwd(parts, kept, cotangents)


def _push(call: RuleCall, arrays: Arrays, tangents: Arrays) -> Arrays:
    """By the forward rule; or by the reverse rule, transposed."""
    if call.has_jvp:
        return call.jvp(arrays, tangents)[1]
    outs, parts, kept = call.fwd(*arrays)
    zeros = tuple(np.zeros(outs[i].shape, outs[i].dtype) for i in call.floating)
    return _transposed(call, "forward", lambda *cotangents: call.bwd(parts, kept, cotangents), zeros)(tangents)


def _transposed(call: RuleCall, mode: str, linear: Callable[..., Arrays], zeros: Arrays) -> LinearMap:
    """The transpose of a linear function of arrays like `zeros`. Raises CapabilityError: it is not linear."""
    if not zeros:
        return lambda given: ()

    def run(*boxes: Array) -> tuple[Arrays, Arrays]:
        token = _transposing.set(_transposing.get() | {boxes[0]._trace})
        try:
            return linear(*boxes), ()
        finally:
            _transposing.reset(token)

    def check() -> str:
        with np.errstate(all="ignore"):  # it may overflow where it is tested
            x = _samples(zeros)
            y, pull, _ = call.backend.vjp(run, x)
            seeds = _samples(y)
            back, minus = pull(seeds), linear(*(-part for part in x))
        values = (tuple(map(getval, part)) for part in (x, y, minus, seeds, back))
        return why_not_linear(max(float(np.finfo(part.dtype).eps) for part in zeros), *values)

    call.refuse_unless_linear(mode, check)
    return call.backend.vjp(run, zeros)[1]


def _samples(like: Arrays) -> Arrays:
    """A point of the test for linearity."""
    points = sample_points([x.shape for x in like], [str(x.dtype) for x in like])
    return tuple(point.astype(x.dtype) for point, x in zip(points, like, strict=True))


_transposing: ContextVar[frozenset[int]] = ContextVar("adbridge_autograd_transposing", default=frozenset())
"""The traces that only transpose: what a rule does to tangents. A rule in it that is applied to a tangent must be
linear, as a solver is; to transpose it by its forward rule would not end."""


def _levels(x: Any) -> list[int]:
    found = []
    while isbox(x):
        found.append(x._trace)
        x = x._value
    return found


def _places(call: RuleCall, argnums: Sequence[int]) -> list[int]:
    """The places among the moving arrays. Raises NotDifferentiable: one is declared not to be differentiated."""
    for argnum in argnums:
        if argnum - 1 in call.frozen:
            call.refuse_frozen(argnum - 1)
    return [call.moving.index(argnum - 1) for argnum in argnums]


def _of_outputs(outs: Arrays) -> Any:
    return outs[0] if len(outs) == 1 else outs
