"""Custom rules on PyTorch: one `torch.autograd.Function`, with a backward, a jvp and vmap, for all of them.

The reverse rule's residuals are kept from the forward run. Where the backward pass is differentiated again, they are
computed anew from the inputs, so that they are part of that graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch._C import _functorch
from torch.autograd import forward_ad

from adbridge.protocol import Array, Arrays
from adbridge.rule_calls import Parts, RuleCall, is_floating
from adbridge.rule_rows import RowsCall

Call = RuleCall | RowsCall


def ruled(call: RuleCall, arrays: Arrays) -> Arrays:
    """The function's outputs, differentiated by its rule."""
    if _are_transposed(arrays):
        return call.primal(*arrays)
    if not any(map(_is_differentiated, arrays)):
        outs = call.primal(*arrays)
        _refuse_moving(call, outs)
        return outs
    if _functorch.peek_interpreter_stack() is not None and not call.rule.is_closed:
        # Once for a rule: below its level, a function does not see that what it closes over has a tangent.
        _refuse_moving(call, call.primal(*(array.detach() for array in arrays)))
        call.rule.is_closed = True
    state = _State(call)
    found = _Ruled.apply(state, *arrays)  # type: ignore[no-untyped-call]
    return tuple(found[: state.count])


def _is_differentiated(array: Array) -> bool:
    """Whether a derivative may be under way, at any level; not merely vmap."""
    while _functorch.is_functorch_wrapped_tensor(array):
        if _functorch.is_gradtrackingtensor(array):
            return True
        array = _functorch.get_unwrapped(array)
    return (torch.is_grad_enabled() and array.requires_grad) or _has_tangent(array)


def _has_tangent(array: Array) -> bool:
    while _functorch.is_batchedtensor(array):  # vmap has no rule for what follows
        array = _functorch.get_unwrapped(array)
    return forward_ad.unpack_dual(array).tangent is not None  # type: ignore[no-untyped-call]


def _refuse_moving(call: RuleCall, outs: Arrays) -> None:
    """Raises RuleError if what the function returned for constants is being differentiated."""
    if any(out.requires_grad or _has_tangent(out) for out in outs if is_floating(out)):
        call.refuse_closed_over()


class _State:
    """What one application of a rule knows besides tensors."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.count = 0
        """Of outputs; those of the Function are followed by residuals."""
        self.parts: Parts | None = None


class _Ruled(torch.autograd.Function):
    @staticmethod
    def forward(state: _State, *arrays: Array) -> Arrays:
        call = state.call
        kept: Arrays = ()
        with torch.enable_grad():  # so that what is closed over shows
            given = tuple(array.detach() for array in arrays)
            if call.has_vjp:
                outs, state.parts, kept = call.fwd(*given)
            else:
                outs = call.primal(*given)
        if any(x.requires_grad for x in (*outs, *kept)):
            call.refuse_closed_over()
        state.count = len(outs)
        return tuple(x.view_as(x) for x in (*outs, *kept))  # none of them an input, or twice the same

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Arrays) -> None:
        state, *arrays = inputs
        ctx.state, ctx.inputs, ctx.outputs = state, len(arrays), len(output)
        kept = output[state.count :]
        ctx.mark_non_differentiable(*kept, *(out for out in output[: state.count] if not is_floating(out)))
        ctx.save_for_backward(*arrays, *kept)
        ctx.save_for_forward(*arrays)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
        call, saved = ctx.state.call, ctx.saved_tensors
        arrays, kept = saved[: ctx.inputs], saved[ctx.inputs :]
        for i in call.frozen:
            if ctx.needs_input_grad[i + 1]:
                call.refuse_frozen(i)
        found = _pulled(ctx.state, arrays, kept, cotangents)
        grads: list[Any] = [None] * ctx.inputs
        for i, grad in zip(call.moving, found, strict=True):
            grads[i] = _conj(grad)
        return None, *grads

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[Any], state: _State, *arrays: Array) -> tuple[Arrays, tuple[int, ...]]:
        dims = in_dims[1:]
        rows = [dim is not None for dim in dims]
        stacked = [x if dim is None else x.movedim(dim, 0) for x, dim in zip(arrays, dims, strict=True)]
        below = _State(RowsCall(state.call, rows, _mapped(info.randomness)))
        outs = _Ruled.apply(below, *stacked)  # type: ignore[no-untyped-call]
        state.count = below.count
        return outs, (0,) * len(outs)

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Any) -> tuple[Any, ...]:
        state, arrays = ctx.state, ctx.saved_tensors[: ctx.inputs]
        for i in state.call.frozen:
            if tangents[i] is not None:
                state.call.refuse_frozen(i)
        moving = tuple(_filled(arrays[i], tangents[i]) for i in state.call.moving)
        with forward_ad._set_fwd_grad_enabled(True):  # for enclosing levels: torch has it off here
            values = tuple(forward_ad.unpack_dual(array).primal for array in arrays)  # type: ignore[no-untyped-call]
            outs, pushed = _pushed(state.call, values, moving)
        rest = iter(pushed)
        every = [next(rest) if is_floating(out) else None for out in outs]
        return *every, *[None] * (ctx.outputs - len(every))


def _pulled(state: _State, arrays: Arrays, kept: Arrays, cotangents: Sequence[Any]) -> Arrays:
    """By the reverse rule; or by the forward rule, transposed."""
    call, parts = state.call, state.parts
    seeds = tuple(_conj(cotangents[i]) for i in call.floating)
    if not call.has_vjp:
        zeros = tuple(torch.zeros_like(arrays[i]) for i in call.moving)
        return _transposed(lambda *tangents: call.jvp(arrays, tangents)[1], zeros, seeds)
    if torch.is_grad_enabled():
        _, parts, kept = call.fwd(*arrays)
    assert parts is not None
    return call.bwd(parts, kept, seeds)


def _pushed(call: Call, arrays: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
    """By the forward rule; or by the reverse rule, transposed."""
    if call.has_jvp:
        return call.jvp(arrays, tangents)
    outs, parts, kept = call.fwd(*arrays)
    zeros = tuple(torch.zeros_like(outs[i]) for i in call.floating)
    return outs, _transposed(lambda *cotangents: call.bwd(parts, kept, cotangents), zeros, tangents)


def _mapped(randomness: str) -> Callable[[Callable[..., Arrays], Sequence[bool]], Callable[..., Arrays]]:
    """`RowsCall.mapped`."""

    def mapped(fun: Callable[..., Arrays], rows: Sequence[bool]) -> Callable[..., Arrays]:
        return torch.func.vmap(fun, in_dims=tuple(0 if row else None for row in rows), randomness=randomness)

    return mapped


def _transposed(linear: Callable[..., Arrays], zeros: Arrays, given: Arrays) -> Arrays:
    """The transpose of a linear function of tensors like `zeros`, applied."""
    if not zeros:
        return ()

    def run(*tensors: Array) -> Arrays:
        token = _transposing.set(_transposing.get() | {_functorch.maybe_get_level(tensors[0])})
        try:
            return linear(*tensors)
        finally:
            _transposing.reset(token)

    found = torch.func.vjp(run, *zeros)[1](tuple(map(_conj, given)))
    return tuple(map(_conj, found))


_transposing: ContextVar[frozenset[int]] = ContextVar("adbridge_torch_transposing", default=frozenset())
"""The functorch levels that only transpose: what a rule does to tangents. A rule in it that is applied to a tangent
must be linear, as a solver is; to transpose it by its forward rule would not end."""


def _are_transposed(arrays: Arrays) -> bool:
    """Whether tensors of a level that only transposes are among these."""
    levels = _transposing.get()
    return bool(levels) and any(not levels.isdisjoint(_levels(array)) for array in arrays)


def _levels(array: Array) -> set[int]:
    found = set()
    while _functorch.is_functorch_wrapped_tensor(array):
        found.add(_functorch.maybe_get_level(array))
        array = _functorch.get_unwrapped(array)
    return found


def _filled(array: Array, tangent: Any) -> Array:
    """A tangent that rules can compute with: torch's own may be None, and zeros without memory."""
    if tangent is None:
        return torch.zeros_like(array)
    return (tangent.clone() if tangent._is_zerotensor() else tangent).to(array.dtype)


def _conj(tensor: Array) -> Array:
    return tensor.conj() if tensor.is_complex() else tensor
