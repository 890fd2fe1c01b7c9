"""Dense Jacobians: a batch of sweeps over one-hot seeds, in chunks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from adbridge.calls import Call
from adbridge.protocol import Array, Arrays, Backend
from adbridge.trees import PyTree, spec_of

MODES = ("auto", "forward", "reverse")

# A batch of sweeps holds at most this many elements of seeds and results at once (64 MB in float64).
_CHUNK_ELEMENTS = 2**23


def dense_jacobian(call: Call, arrays: Arrays, seeds: Arrays) -> PyTree:
    """The output's tree of the inputs' tree of blocks shaped ``output.shape + input.shape``."""
    fun, primals, mode = call.flat_function(arrays), call.primals(arrays), call.operator.mode
    n = _size(primals)
    if n > 1 and mode != "forward":
        outs, pullback = call.backend.vjp_batch(fun, primals)
        if mode == "reverse" or n > _size(outs):
            rows = [pullback(seed) for seed in _one_hot_chunks(call.backend, outs, n)]
            return _assemble(call, _blocks(call.backend, outs, primals, rows))
        del pullback
    else:
        outs = ()
    columns = []
    for seed in _one_hot_chunks(call.backend, primals, _size(outs)):
        outs, column = call.backend.jvp_batch(fun, primals, seed)
        columns.append(column)
    outs = outs if columns else fun(*primals)[0]
    by_input = _blocks(call.backend, primals, outs, columns)
    return _assemble(call, [[_inputs_last(call.backend, row[o], out) for row in by_input] for o, out in enumerate(outs)])


def _assemble(call: Call, blocks: list[list[Array]]) -> PyTree:
    return call.out(tuple(call.like_primals(tuple(row)) for row in blocks))


def _one_hot_chunks(backend: Backend, arrays: Arrays, other: int) -> Iterator[Arrays]:
    """Rows of the identity of size ``_size(arrays)``, split and shaped like `arrays`, some at a time."""
    total = _size(arrays)
    step = max(1, _CHUNK_ELEMENTS // max(1, total + other))
    starts = np.cumsum([0, *(math.prod(a.shape) for a in arrays)])
    for first in range(0, total, step):
        rows = np.arange(first, min(first + step, total))
        yield tuple(_one_hot(backend, rows - start, like) for start, like in zip(starts, arrays, strict=False))


def _one_hot(backend: Backend, places: np.ndarray, like: Array) -> Array:
    size = math.prod(like.shape)
    seed = np.zeros((len(places), size), dtype=spec_of(like).dtype)
    (rows,) = np.nonzero((places >= 0) & (places < size))
    seed[rows, places[rows]] = 1
    return backend.from_numpy(seed.reshape(len(places), *like.shape))


def _blocks(backend: Backend, seeds: Arrays, targets: Arrays, chunks: list[Arrays]) -> list[list[Array]]:
    """Blocks [seed][target] of shape ``seed.shape + target.shape`` from the stacked sweeps."""
    xp = backend.namespace
    if not chunks:
        return [
            [backend.from_numpy(np.zeros((*s.shape, *t.shape), spec_of(t).dtype)) for t in targets] for s in seeds
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


def _size(arrays: Arrays) -> int:
    return sum(math.prod(a.shape) for a in arrays)
