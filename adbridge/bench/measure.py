"""Timing one case: preparation, first call, steady state and transfer apart, outputs synchronised inside."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree

from adbridge.bench.problem import Instance
from adbridge.operators import Operator
from adbridge.prepared import Prepared, prepare
from adbridge.protocol import Backend
from adbridge.trees import PyTree, flatten, spec_of

# How a case is named -> (operator, mode): an operator that can go both ways counts as two.
OPERATORS = {
    "value": ("value", ""),
    "grad": ("grad", "reverse"),
    "vjp": ("vjp", "reverse"),
    "jvp": ("jvp", "forward"),
    "jacobian-forward": ("jacobian", "forward"),
    "jacobian-reverse": ("jacobian", "reverse"),
}

MIN_SAMPLES, MAX_SAMPLES = 5, 200
# A sample spans at least this long, so that the clock's own cost (about 50 ns) does not count.
_SAMPLE_SECONDS = 50e-6


@dataclass(frozen=True)
class Timing:
    """Seconds, per call. `samples` are the steady state, in order."""

    prepare_seconds: float
    first_call_seconds: float
    transfer_seconds: float
    samples: list[float]
    primal_calls: int


@dataclass(frozen=True)
class Seeds:
    """The tangent (like the first argument) and the cotangent (like the output) of a case."""

    tangent: PyTree
    cotangent: PyTree


def seeds_for(argument: PyTree, output: PyTree) -> Seeds:
    """The same standard normal directions for every backend, from the specs of argument and output."""
    rng = np.random.default_rng(2718)
    return Seeds(_normal_like(argument, rng), _normal_like(output, rng))


def _normal_like(specs: PyTree, rng: np.random.Generator) -> PyTree:
    return optree.tree_map(lambda spec: np.asarray(rng.standard_normal(spec.shape), dtype=spec.dtype), specs)


class Case:
    """One operator of one instance on one backend, ready to be prepared and called."""

    def __init__(self, name: str, instance: Instance, seeds: Seeds, backend: Backend) -> None:
        operator, mode = OPERATORS[name]
        self.calls = 0
        self.backend = backend
        self.dtype = spec_of(optree.tree_leaves(instance.args[0])[0]).dtype

        def counted(*args: Any) -> Any:
            self.calls += 1
            return instance.fun(*args)

        counted.__name__ = getattr(instance.fun, "__name__", "fun")
        self.operator = Operator(operator, counted, mode=mode, backend=backend)
        self.args: tuple[Any, ...] = instance.args
        if operator == "jvp":
            self.args = (instance.args, (seeds.tangent,))
        if operator == "vjp":
            self.args = (instance.args, seeds.cotangent)

    def prepare(self) -> tuple[Prepared, tuple[Any, ...]]:
        """The prepared operator, and its arguments as engine arrays."""
        prepared = prepare(self.operator, *self.args)
        arrays = prepared.arrays(*self.args)
        self.backend.synchronize(arrays)
        return prepared, arrays


def time_case(case: Case, seconds: float) -> tuple[Timing, PyTree]:
    """Measure for about `seconds` of steady state; also the result, as NumPy."""
    prepared, arrays = case.prepare()
    backend = case.backend

    def call() -> PyTree:
        out = prepared.run(*arrays)
        backend.synchronize(flatten(out)[0])
        return out

    with prepared.scope():
        first, out = _clocked(call)
        primal_calls = case.calls
        to_host, result = _clocked(_to_numpy, backend, out)
        inputs = _to_numpy(backend, arrays)
        to_device, _ = _clocked(lambda: backend.synchronize([backend.from_numpy(x) for x in inputs]))
        del out
        samples = steady_state(call, seconds)
    return Timing(prepared.seconds, first, to_host + to_device, samples, primal_calls), result


def steady_state(call: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds per call, for about `seconds` in all; the collector is off.

    At least `MIN_SAMPLES` samples, unless that takes ten times as long as asked and a second; then at least two.
    """
    with _no_collector():
        once = _clocked(call)[0]
        inner = max(1, int(_SAMPLE_SECONDS / max(once, 1e-9)))
        samples: list[float] = []
        begin = time.perf_counter()
        while not _enough(len(samples), time.perf_counter() - begin, seconds):
            start = time.perf_counter()
            for _ in range(inner):
                call()
            samples.append((time.perf_counter() - start) / inner)
    return samples


def _enough(count: int, elapsed: float, seconds: float) -> bool:
    if count < MIN_SAMPLES:
        return count >= 2 and elapsed > max(1.0, 10 * seconds)
    return count >= MAX_SAMPLES or elapsed > seconds


def _clocked(call: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call(*args)
    return time.perf_counter() - start, result


@contextmanager
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _to_numpy(backend: Backend, tree: PyTree) -> PyTree:
    return optree.tree_map(backend.to_numpy, tree)
