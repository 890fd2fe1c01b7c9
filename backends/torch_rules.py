"""Custom rules on PyTorch: one `torch.autograd.Function`, with a backward, a jvp and vmap, for all of them.

The reverse rule's residuals are kept from the forward run. Where the backward pass is differentiated again, they are
computed anew from the inputs, so that they are part of that graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad

from adbridge.backends.torch_backend import is_made_since, leaves_made
from adbridge.errors import RuleError
from adbridge.protocol import Array, Arrays
from adbridge.rule_calls import Parts, RuleCall, is_floating
from adbridge.rule_closures import may_reach
from adbridge.rule_linearity import sample_points, why_not_linear
from adbridge.rule_rows import RowsCall

Call = RuleCall | RowsCall


def ruled(call: RuleCall, arrays: Arrays) -> Arrays:
    """The function's outputs, differentiated by its rule."""
    if _are_transposed(arrays):
        return call.primal(*arrays)
    if not any(map(_is_differentiated, arrays)):
        return _refuse_moving(call, arrays)
    if _may_close_over(call, arrays):
        _refuse_moving(call, tuple(array.detach() for array in arrays))
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


def _may_close_over(call: RuleCall, arrays: Arrays) -> bool:
    """Whether the function may close over what has a tangent, which it does not see where torch runs it."""
    if _functorch.peek_interpreter_stack() is None and not any(map(_has_tangent, arrays)):
        return False
    return may_reach((call.rule.primal, call.rule.fwd), lambda x: isinstance(x, torch.Tensor) and _is_differentiated(x))


def _refuse_moving(call: RuleCall, arrays: Arrays) -> Arrays:
    """What the function returns for constants. Raises RuleError: it is being differentiated."""
    since = leaves_made()
    outs = call.primal(*arrays)
    if any(_moves(out, since) for out in outs if is_floating(out)):
        call.refuse_closed_over()
    return outs


def _moves(out: Array, since: int) -> bool:
    """Whether an array is being differentiated at any level, but for by variables made `since`."""
    if _functorch.peek_interpreter_stack() is None:
        return _has_tangent(out) or _has_graph(out, since)
    if _is_at_this_level(out):
        if _has_tangent(out) or _has_graph(out, since):
            return True
        out = _functorch.get_unwrapped(out)
    with temporarily_pop_interpreter_stack():  # a tangent shows at its own level only
        return _moves(out, since)


def _has_graph(out: Array, since: int) -> bool:
    """Whether an array's graph leads to a variable that was there before `since`.

    An operator within a rule leaves a graph that leads to its own, which nobody else knows.
    """
    if not out.requires_grad:
        return False
    nodes, seen = [out.grad_fn], set()
    if out.grad_fn is None:
        return not is_made_since(out, since)
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and not is_made_since(node.variable, since):
            return True
        nodes += [parent for parent, _ in node.next_functions]
    return False


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
        call, since = state.call, leaves_made()
        kept: Arrays = ()
        with torch.enable_grad():  # so that what is closed over shows
            given = tuple(array.detach() for array in arrays)
            with _unwritten(call, given):
                if call.has_vjp:
                    outs, state.parts, kept = call.fwd(*given)
                else:
                    outs = call.primal(*given)
        if any(_has_graph(x, since) for x in (*outs, *kept)):
            call.refuse_closed_over()
        state.count = len(outs)
        return _distinct(given, tuple(x.detach() if x.requires_grad else x for x in (*outs, *kept)))

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


def _distinct(given: Arrays, found: Arrays) -> Arrays:
    """Arrays none of which is an input, or twice the same."""
    seen, distinct = {id(x) for x in given}, []
    for x in found:
        distinct.append(x.view_as(x) if id(x) in seen else x)
        seen.add(id(x))
    return tuple(distinct)


@contextmanager
def _unwritten(call: Call, arrays: Arrays) -> Iterator[None]:
    """Raises RuleError: a rule has written to arrays that others use."""
    versions = [(x, x._version) for x in arrays if not x.is_inference()]
    yield
    if any(x._version != version for x, version in versions):
        raise RuleError(
            f"{call.name}, a custom_rule, or its rule writes to an array that it was given, which others use; "
            "make a new one: y = 2 * x instead of x *= 2"
        )


def _pulled(state: _State, arrays: Arrays, kept: Arrays, cotangents: Sequence[Any]) -> Arrays:
    """By the reverse rule; or by the forward rule, transposed."""
    call, parts = state.call, state.parts
    seeds = tuple(_conj(cotangents[i]) for i in call.floating)
    if not call.has_vjp:
        zeros = tuple(torch.zeros_like(arrays[i]) for i in call.moving)
        return _transposed(call, "reverse", lambda *tangents: call.jvp(arrays, tangents)[1], zeros, seeds)
    if torch.is_grad_enabled():
        _, parts, kept = call.fwd(*arrays)
    assert parts is not None
    with _unwritten(call, (*kept, *seeds)):
        return call.bwd(parts, kept, seeds)


def _pushed(call: Call, arrays: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
    """By the forward rule; or by the reverse rule, transposed."""
    if call.has_jvp:
        with _unwritten(call, (*arrays, *tangents)):
            return call.jvp(arrays, tangents)
    outs, parts, kept = call.fwd(*arrays)
    zeros = tuple(torch.zeros_like(outs[i]) for i in call.floating)
    return outs, _transposed(call, "forward", lambda *cotangents: call.bwd(parts, kept, cotangents), zeros, tangents)


def _mapped(randomness: str) -> Callable[[Callable[..., Arrays], Sequence[bool]], Callable[..., Arrays]]:
    """`RowsCall.mapped`."""

    def mapped(fun: Callable[..., Arrays], rows: Sequence[bool]) -> Callable[..., Arrays]:
        return torch.func.vmap(fun, in_dims=tuple(0 if row else None for row in rows), randomness=randomness)

    return mapped


def _transposed(call: Call, mode: str, linear: Callable[..., Arrays], zeros: Arrays, given: Arrays) -> Arrays:
    """The transpose of a linear function of tensors like `zeros`, applied. Raises CapabilityError: it is not linear."""
    if not zeros:
        return ()

    def run(*tensors: Array) -> Arrays:
        token = _transposing.set(_transposing.get() | {_functorch.maybe_get_level(tensors[0])})
        try:
            return linear(*tensors)
        finally:
            _transposing.reset(token)

    def pulled(at: Arrays, given: Arrays) -> tuple[Arrays, Arrays]:
        outs, pull = torch.func.vjp(run, *at)  # type: ignore[misc]  # no aux, so two
        return outs, tuple(map(_conj, pull(tuple(map(_conj, given)))))

    def check() -> str:
        x, seeds = (tuple(map(_sample, like)) for like in (zeros, given))
        y, back = pulled(x, seeds)
        minus = run(*(-t for t in x))
        return why_not_linear(_eps(zeros), *(tuple(map(_value, part)) for part in (x, y, minus, seeds, back)))

    call.refuse_unless_linear(mode, check)
    return pulled(zeros, given)[1]


def _sample(like: Array) -> Array:
    """A point of the test for linearity."""
    (x,) = sample_points([tuple(like.shape)], [str(like.dtype)])
    return torch.as_tensor(x, device=like.device).to(like.dtype)


def _value(tensor: Array) -> Any:
    """Below all levels, in double precision; a batch's axis comes first."""
    if _functorch.peek_interpreter_stack() is not None:
        axis = _functorch.maybe_get_bdim(tensor) if _functorch.is_batchedtensor(tensor) else 0
        below = _functorch.get_unwrapped(tensor) if _is_at_this_level(tensor) else tensor
        with temporarily_pop_interpreter_stack():
            return _value(below.movedim(axis, 0) if axis else below)
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    host = (tensor.clone() if tensor._is_zerotensor() else tensor).detach()
    return host.to("cpu", wide).resolve_conj().resolve_neg().numpy()


def _is_at_this_level(tensor: Array) -> bool:
    stack = _functorch.peek_interpreter_stack()
    return stack is not None and _functorch.maybe_get_level(tensor) == stack.level()


def _eps(tensors: Arrays) -> float:
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors)


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
