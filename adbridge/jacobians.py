"""Dense Jacobians: a batch of sweeps over one-hot seeds, in chunks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from adbridge.calls import Call
from adbridge.errors import NotDifferentiable
from adbridge.protocol import Array, Arrays, Backend, FlatFunction, LinearMap, as_dtype, numpy_dtype
from adbridge.readings import function_name
from adbridge.trees import PyTree

MODES = ("auto", "forward", "reverse")

# A batch of sweeps holds at most this many elements of seeds and results at once (64 MB in float64).
_CHUNK_ELEMENTS = 2**23


def dense_jacobian(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    """The output's tree of the inputs' tree of blocks shaped ``output.shape + input.shape``."""
    fun, primals, mode = call.flat_function(arrays), call.primals(arrays), call.operator.mode
    n = _size(primals)
    if mode == "auto" and (n <= 1 or _is_complex(primals)):
        mode = "reverse" if _is_complex(primals) else "forward"
    if mode == "forward":
        return _forward(call, fun, primals)
    if mode == "reverse":
        outs, pullback = call.backend.vjp_batch(fun, primals)
        return _by_rows(call, outs, primals, pullback)
    outs, pushforward, pullback = call.backend.linearize_batch(fun, primals)
    if n > _size(outs) and not _is_complex(outs):
        return _by_rows(call, outs, primals, pullback)
    del pullback  # and what it keeps
    return _by_columns(call, outs, primals, map(pushforward, _one_hot_chunks(call.backend, primals, _size(outs))))


def _forward(call: Call, fun: FlatFunction, primals: Arrays) -> PyTree:
    if _is_complex(primals):
        raise _not_holomorphic(call, "forward", "inputs", "reverse")
    outs: Arrays = ()
    columns = []
    for seed in _one_hot_chunks(call.backend, primals, _size(outs)):
        outs, column = call.backend.jvp_batch(fun, primals, seed)
        columns.append(column)
    return _by_columns(call, outs if columns else fun(*primals)[0], primals, columns)


def _by_rows(call: Call, outs: Arrays, primals: Arrays, pullback: LinearMap) -> PyTree:
    if _is_complex(outs):
        raise _not_holomorphic(call, "reverse", "outputs", "forward")
    rows = [pullback(seed) for seed in _one_hot_chunks(call.backend, outs, _size(primals))]
    return _assemble(call, _blocks(call.backend, outs, primals, rows))


def _by_columns(call: Call, outs: Arrays, primals: Arrays, columns: Iterable[Arrays]) -> PyTree:
    by_input = _blocks(call.backend, primals, outs, list(columns))
    return _assemble(
        call, [[_inputs_last(call.backend, row[o], out) for row in by_input] for o, out in enumerate(outs)]
    )


def _assemble(call: Call, blocks: list[list[Array]]) -> PyTree:
    return call.out(tuple(call.like_primals(tuple(row)) for row in blocks))


def _one_hot_chunks(backend: Backend, arrays: Arrays, other: int) -> Iterator[Arrays]:
    """Rows of the identity of size ``_size(arrays)``, split and shaped like `arrays`, some at a time."""
    total = _size(arrays)
    step = max(1, _CHUNK_ELEMENTS // max(1, total + other))
    starts = np.cumsum([0, *(math.prod(a.shape) for a in arrays)])
    for first in range(0, total, step):
        rows = np.arange(first, min(first + step, total))
        yield tuple(backend.one_hot(rows - start, like) for start, like in zip(starts, arrays, strict=False))


def _blocks(backend: Backend, seeds: Arrays, targets: Arrays, chunks: list[Arrays]) -> list[list[Array]]:
    """Blocks [seed][target] of shape ``seed.shape + target.shape`` from the stacked sweeps."""
    xp = backend.namespace
    if not chunks:
        return [
            [as_dtype(xp, backend.from_numpy(np.zeros((*s.shape, *t.shape), numpy_dtype(t))), t) for t in targets]
            for s in seeds
        ]
    stacked = chunks[0] if len(chunks) == 1 else tuple(xp.concat(parts) for parts in zip(*chunks, strict=True))
    stops = np.cumsum([math.prod(s.shape) for s in seeds]).tolist()
    starts = [0, *stops[:-1]]
    return [
        [xp.reshape(whole[i:j, ...], (*s.shape, *t.shape)) for whole, t in zip(stacked, targets, strict=True)]
        for s, i, j in zip(seeds, starts, stops, strict=True)
    ]


def _inputs_last(backend: Backend, block: Array, out: Array) -> Array:
    """From ``input.shape + output.shape`` to ``output.shape + input.shape``."""
    k = len(block.shape) - len(out.shape)
    axes = (*range(k, len(block.shape)), *range(k))
    return backend.namespace.permute_dims(block, axes)


def _is_complex(arrays: Arrays) -> bool:
    return any("complex" in str(a.dtype) for a in arrays)


def _not_holomorphic(call: Call, mode: str, what: str, other: str) -> NotDifferentiable:
    return NotDifferentiable(
        f"jacobian of {function_name(call.operator.fun)} by {mode} mode needs real {what}, got complex ones; use "
        f"mode={other!r} if the {'outputs' if what == 'inputs' else 'inputs'} are real, or else jvp or vjp"
    )


def _size(arrays: Arrays) -> int:
    return sum(math.prod(a.shape) for a in arrays)
