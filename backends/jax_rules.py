"""Custom rules on JAX: a `jax.custom_jvp` whose rule is linear by a primitive that has a transpose of its own.

JAX takes a forward rule or a reverse rule of one function, never both. Here the tangents of the outputs are the
primitive's results: pushed by the forward rule where they are computed, and pulled by the reverse rule where JAX
transposes them. (`jax.custom_derivatives.linear_call` is such a primitive, but cannot be differentiated by its
residuals, as second derivatives have to be.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from adbridge.errors import AdbridgeError, CapabilityError
from adbridge.protocol import Array, Arrays
from adbridge.rule_calls import RuleCall, is_floating
from adbridge.rule_closures import may_reach

Sweep = Callable[[Arrays, Arrays], Arrays]
"""Of what is kept, and tangents or cotangents."""


def ruled(call: RuleCall, arrays: Arrays) -> Arrays:
    """The function's outputs, differentiated by its rule."""
    try:
        outs: Arrays = _function(call)(*arrays)
    except jax.errors.UnexpectedTracerError as exc:
        call.refuse_closed_over(exc)
    return outs


def _function(call: RuleCall) -> Callable[..., Arrays]:
    fun = jax.custom_jvp(lambda *arrays: call.primal(*map(_array, arrays)))

    def rule(primals: Arrays, tangents: Sequence[Any]) -> tuple[Arrays, Arrays]:
        zero = jax.custom_derivatives.SymbolicZero
        primals = tuple(map(_array, primals))
        for i in call.frozen:
            if not isinstance(tangents[i], zero):
                call.refuse_frozen(i)
        moving = tuple(
            jnp.zeros(x.shape, x.dtype) if isinstance(t, zero) else _array(t, x.dtype)
            for x, t in ((primals[i], tangents[i]) for i in call.moving)
        )
        outs, pushed = _pushed(call, primals, moving)
        if any(isinstance(x, jax.core.Tracer) for x in primals):
            # Enclosing derivatives differentiate this by the rule, and not by the rule's code. A function may close
            # over what encloses it, which is compiled or mapped, but not over what is differentiated there.
            try:
                outs = fun(*primals)
            except jax.errors.UnexpectedTracerError:
                outs = _constant(call, outs)
        rest = iter(pushed)
        return outs, tuple(next(rest) if is_floating(out) else np.zeros(out.shape, jax.dtypes.float0) for out in outs)

    fun.defjvp(rule, symbolic_zeros=True)
    return fun


def _constant(call: RuleCall, arrays: Arrays) -> Arrays:
    """The arrays, without a derivative: it is NaN pushed forward, and an error pulled back; nobody may ask for it."""
    fun = jax.custom_jvp(lambda *xs: xs)

    def push(kept: Arrays, tangents: Arrays) -> Arrays:
        return tuple(jnp.full_like(t, jnp.nan) for t in tangents)

    def rule(primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        places = [i for i, x in enumerate(primals) if is_floating(x)]
        specs = tuple(jax.core.ShapedArray(primals[i].shape, primals[i].dtype) for i in places)
        params = {"push": push, "pull": lambda kept, cts: call.refuse_closed_over(), "count": 0, "outs": specs}
        pushed = list(tangents)
        for i, t in zip(places, _linear.bind(*(tangents[i] for i in places), **params), strict=True):  # type: ignore[no-untyped-call]
            pushed[i] = t
        return primals, tuple(pushed)

    fun.defjvp(rule)
    found: Arrays = fun(*arrays)
    return found


def _array(x: Any, dtype: Any = None) -> Array:
    """JAX hands Python's numbers on as they are."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x, dtype)


def _pushed(call: RuleCall, primals: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
    """``(outputs, tangents of the floating ones)``."""
    if not call.has_vjp or (call.has_jvp and not any(isinstance(t, jax.core.Tracer) for t in tangents)):
        return call.jvp(primals, tangents)
    outs, parts, kept = call.fwd(*primals)
    specs = tuple(jax.core.ShapedArray(out.shape, out.dtype) for out in outs if is_floating(out))
    if not specs or not tangents:
        return outs, tuple(jnp.zeros(spec.shape, spec.dtype) for spec in specs)
    count = len(primals)

    def push(kept: Arrays, tangents: Arrays) -> Arrays:
        if call.has_jvp:
            return call.jvp(kept[:count], tangents)[1]
        return _transposed(lambda *cts: call.bwd(parts, kept[count:], cts), call, specs, tangents)

    def pull(kept: Arrays, cotangents: Arrays) -> Arrays:
        return call.bwd(parts, kept[count:], cotangents)

    held = (*primals, *kept)
    if not any(isinstance(t, jax.core.Tracer) for t in tangents):
        return outs, push(held, tangents)
    sweeps: list[Sweep] = [push, pull]
    functions = (call.rule.jvp_rule, call.rule.bwd, parts.leaves)
    if may_reach(functions, lambda x: isinstance(x, jax.core.Tracer)):
        held, sweeps = _hoisted(held, sweeps, [tangents, specs])
    params = {"push": sweeps[0], "pull": sweeps[1], "count": len(held), "outs": specs}
    return outs, tuple(_linear.bind(*held, *tangents, **params))  # type: ignore[no-untyped-call]


def _hoisted(held: Arrays, sweeps: Sequence[Sweep], seeds: Sequence[Any]) -> tuple[Arrays, list[Sweep]]:
    """The sweeps, with all that they know besides seeds as what is kept: the primitive may be differentiated by it,
    and be run when it is gone."""
    consts: list[Array] = []
    hoisted = []
    for sweep, like in zip(sweeps, seeds, strict=True):
        specs = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like)  # type: ignore[no-untyped-call]
        try:
            closed = jax.make_jaxpr(partial(sweep, held))(specs)
        except CapabilityError as exc:  # the other one may be all that is needed
            hoisted.append(_raising(exc))
            continue
        place = slice(len(consts), len(consts) + len(closed.consts))
        consts += closed.consts
        hoisted.append(_of_jaxpr(closed.jaxpr, place))
    return tuple(consts), hoisted


def _raising(error: Exception) -> Sweep:
    def sweep(kept: Arrays, seeds: Arrays) -> Arrays:
        raise error

    return sweep


def _of_jaxpr(jaxpr: Any, consts: slice) -> Sweep:
    """A sweep that finds its constants among what is kept."""
    return lambda kept, seeds: tuple(jaxpr_as_fun(ClosedJaxpr(jaxpr, kept[consts]))(*seeds))


def _transposed(bwd: Callable[..., Arrays], call: RuleCall, like: Sequence[Any], tangents: Arrays) -> Arrays:
    """Tangents pushed by the transpose of the reverse rule."""
    try:
        pulled = [jax.ShapeDtypeStruct(spec.shape, spec.dtype) for spec in like]  # type: ignore[no-untyped-call]
        found: Arrays = jax.linear_transpose(bwd, *pulled)(tangents)
    except (AdbridgeError, jax.errors.UnexpectedTracerError):
        raise
    except Exception as exc:  # of whatever kind each of JAX's transposes raises
        raise call.cannot_derive("forward", exc) from exc
    return found


_linear = Primitive("custom_rule")
"""Of what is kept (the first `count`) and tangents, which it is linear in: ``push(kept, tangents)``; its transpose is
``pull(kept, cotangents)``. `outs` are the results' shapes and dtypes."""
_linear.multiple_results = True


def _evaluated(*xs: Array, push: Sweep, pull: Sweep, count: int, outs: Any) -> Arrays:
    return push(xs[:count], xs[count:])


def _jvp(xs: Sequence[Array], ts: Sequence[Any], *, count: int, push: Sweep, **params: Any) -> tuple[Any, Any]:
    xs = tuple(map(_array, xs))
    kept, tangents = xs[:count], xs[count:]

    def bind(tangents: Arrays) -> Arrays:
        return tuple(_linear.bind(*kept, *tangents, push=push, count=count, **params))  # type: ignore[no-untyped-call]

    outs, total = bind(tangents), None
    if not all(type(t) is ad.Zero for t in ts[count:]):
        total = bind(tuple(map(ad.instantiate_zeros, ts[count:])))
    moving = [i for i in range(count) if type(ts[i]) is not ad.Zero and is_floating(xs[i])]
    if moving:

        def of_kept(*some: Array) -> Arrays:
            filled = list(kept)
            for i, x in zip(moving, some, strict=True):
                filled[i] = x
            return push(tuple(filled), tangents)

        _, more = jax.jvp(of_kept, [xs[i] for i in moving], [ts[i] for i in moving])
        total = more if total is None else tuple(map(jnp.add, total, more))
    return outs, total if total is not None else tuple(ad.Zero(jax.typeof(out)) for out in outs)


def _transpose(cotangents: Sequence[Any], *xs: Any, pull: Sweep, count: int, **params: Any) -> list[Any]:
    found = pull(tuple(xs[:count]), tuple(map(ad.instantiate_zeros, cotangents)))
    wanted = map(ad.is_undefined_primal, xs[count:])
    return [None] * count + [c if want else None for c, want in zip(found, wanted, strict=True)]


def _batch(
    xs: Sequence[Array], axes: Sequence[Any], *, push: Sweep, pull: Sweep, count: int, outs: Any
) -> tuple[Any, list[int]]:
    size = next(x.shape[axis] for x, axis in zip(xs, axes, strict=True) if axis is not None)
    tangents = [batching.bdim_at_front(x, axis, size) for x, axis in zip(xs[count:], axes[count:], strict=True)]  # type: ignore[no-untyped-call]
    rows = tuple(axes[:count])
    specs = tuple(jax.core.ShapedArray((size, *spec.shape), spec.dtype) for spec in outs)
    pushed, pulled = (jax.vmap(sweep, in_axes=(rows, 0), axis_size=size) for sweep in (push, pull))
    found = _linear.bind(*xs[:count], *tangents, push=pushed, pull=pulled, count=count, outs=specs)  # type: ignore[no-untyped-call]
    return found, [0] * len(found)


_linear.def_impl(_evaluated)  # type: ignore[no-untyped-call]
_linear.def_abstract_eval(lambda *xs, outs, **params: outs)  # type: ignore[no-untyped-call]
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_evaluated, multiple_results=True))
