"""prepare: an operator made ready for arguments of one signature."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adbridge.calls import Call
from adbridge.errors import CapabilityError, SignatureMismatch
from adbridge.operators import Operator
from adbridge.protocol import Arrays, Compiled, read_only
from adbridge.quick import quick_call
from adbridge.readings import argument_names
from adbridge.signatures import ArrayLike, Match, matcher, same
from adbridge.trees import LEAF, PyTree, Spec, TreeDef, builder, check_specs, flatten, spec_of, unflatten


class Runs:
    """The operator's runs on flat arrays: by itself, by its engine's compiler, and compiled.

    What is compiled has the result's tree of its first run. Should a later run by itself give another tree, then
    that depends on the arrays' values, and every run from then on is by itself.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.tree: TreeDef | None = None
        self.compiled: Compiled | None = None

    def by_itself(self, *arrays: Any) -> PyTree:
        """The result, of a run that shares no state with others."""
        call, n = self.call.again(), len(self.call.arrays)
        # What is compiled is given its caller's own arrays (`takes_numpy`), and may leave them to this.
        kept = tuple([read_only(a) if type(a) is np.ndarray and a.flags.writeable else a for a in arrays])
        return call.operator.apply(call, kept[:n], kept[n:])

    def flat(self, *arrays: Any) -> Arrays:
        """The result's leaves: the function to compile."""
        leaves, tree = flatten(self.by_itself(*arrays))
        if self.tree is None:
            self.tree = tree
        elif tree != self.tree:
            self.compiled = None
        return tuple(leaves)

    def compile(self, arrays: Arrays) -> Compiled:
        """For arrays like these."""
        compiled = self.call.backend.compile(flat := self.flat, arrays)
        if compiled.call is not flat:
            self.compiled = compiled
        return compiled

    def run(self, *arrays: Any) -> PyTree:
        """The result in engine arrays."""
        compiled = self.compiled
        if compiled is not None:
            outs = compiled.call(*arrays)
            if self.compiled is not None:  # as it was: of the tree that is known
                assert self.tree is not None
                return unflatten(self.tree, outs)
        return self.by_itself(*arrays)


@dataclass(frozen=True)
class Prepared:
    """An operator compiled (where its engine has a compiler) for one tree, shapes and dtypes.

    Call it like the operator, from any thread. `seconds` is what the preparation took.

    Raises (when called):
        SignatureMismatch: arguments of another tree, shape, dtype or static value.
    """

    operator: Operator
    seconds: float
    compiled: Compiled
    _runs: Runs = field(repr=False)
    _specs: list[Spec] = field(repr=False)
    _match: Match = field(repr=False)
    _answer: Callable[[Sequence[Any]], PyTree] = field(repr=False)

    _quick: Callable[..., Any] | None = field(repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._quick is not None and not kwargs:
            found = self._quick(*args)
            if found is not None:
                return found
        arrays = self._match(args, kwargs)
        if arrays is not None:
            return self._answer(arrays)
        call, seeds = self.operator.read(args, kwargs)
        self._check(call, seeds)
        with call.scope():
            return call.finish(self.run(*call.arrays, *seeds))

    def arrays(self, *args: Any, **kwargs: Any) -> Arrays:
        """The arguments as the flat engine arrays that `run` takes."""
        call, seeds = self.operator.read(args, kwargs)
        self._check(call, seeds)
        return (*call.arrays, *seeds)

    def run(self, *arrays: Any) -> PyTree:
        """The result in engine arrays. Call it within `scope()`."""
        return self._runs.run(*arrays)

    def scope(self) -> Any:
        """The context that the engine's arrays need (`Backend.scope`)."""
        return self._runs.call.scope()

    def _check(self, call: Call, seeds: Arrays) -> None:
        old = self._runs.call
        if not _is_like(call, old):
            raise SignatureMismatch(
                f"prepared for arguments {_show(old)}, called with {_show(call)}; prepare it again for these"
            )
        specs = [spec_of(array) for array in (*call.arrays, *seeds)]
        if specs != self._specs:
            check_specs(_array_names(old, len(seeds)), specs, self._specs, "the example it was prepared with")


def prepare(transformed: Operator, *example_args: Any, **example_kwargs: Any) -> Prepared:
    """Make an operator ready for arguments like the example's: compiled on the reference and JAX, checked on all.

    On the reference engine, branches that the example took on its values are guards: a call that takes another one
    is recorded and compiled for it.

    Args:
        transformed: what `grad`, `value_and_grad` or `jacobian` returned. Without aux, for now.

    Raises:
        SignatureMismatch: not an operator. CapabilityError: one with has_aux.

    >>> import adbridge as ad
    >>> g = ad.prepare(ad.grad(lambda x: x * x, backend="reference"), 1.0)
    >>> print(g(3.0))
    6.0
    """
    if not isinstance(transformed, Operator):
        raise SignatureMismatch(f"prepare needs what grad, value_and_grad or jacobian return; got {transformed!r}")
    if transformed.has_aux:
        raise CapabilityError("prepare of an operator with has_aux=True is not supported yet")
    call, seeds = transformed.read(example_args, example_kwargs)
    transformed = replace(transformed, backend=call.backend)  # whatever `use_backend` says later
    specs, runs = [spec_of(a) for a in (*call.arrays, *seeds)], Runs(call)
    start = time.perf_counter()
    with call.scope():
        compiled = runs.compile((*call.arrays, *seeds))
    seconds = time.perf_counter() - start
    alike = _alike(call, specs)
    match = matcher(example_args, example_kwargs, alike) if call.reading.numpy_out else _match_none
    quick = None
    if runs.compiled is not None and runs.tree is not None and match is not _match_none and not example_kwargs:
        quick = None if call.reading.scoped else quick_call(example_args, alike, runs.tree, runs.compiled, runs)
    return Prepared(transformed, seconds, compiled, runs, specs, match, _answer(runs), quick)


# A call on NumPy arrays that looks like the example: its arrays -> its result as NumPy arrays.


def _answer(runs: Runs) -> Callable[[Sequence[Any]], PyTree]:
    compiled, reading = runs.compiled, runs.call.reading
    if compiled is None or not (compiled.takes_numpy and compiled.fresh) or reading.scoped:
        return _answer_converted(runs)
    assert runs.tree is not None
    return _answer_array(runs, compiled) if runs.tree == LEAF else _answer_tree(runs, compiled, runs.tree)


def _answer_converted(runs: Runs) -> Callable[[Sequence[Any]], PyTree]:
    call, backend = runs.call, runs.call.backend

    def answer(arrays: Sequence[Any]) -> PyTree:
        if not call.reading.scoped:
            return call.finish(runs.run(*map(backend.from_numpy, arrays)))
        with call.scope():
            return call.finish(runs.run(*map(backend.from_numpy, arrays)))

    return answer


def _answer_array(runs: Runs, compiled: Compiled) -> Callable[[Sequence[Any]], PyTree]:
    """Of a compiled function that needs no conversion; these two are what a small function's time goes to."""
    call, slowly, to_numpy = compiled.matched or compiled.call, _answer_converted(runs), runs.call.to_numpy

    def answer(arrays: Sequence[Any]) -> PyTree:
        outs = call(*arrays) if runs.compiled is not None else ()
        if runs.compiled is None:
            return slowly(arrays)
        (out,) = outs
        return out if type(out) is np.ndarray else to_numpy(out)

    return answer


def _answer_tree(runs: Runs, compiled: Compiled, tree: TreeDef) -> Callable[[Sequence[Any]], PyTree]:
    call, slowly, to_numpy, build = (
        compiled.matched or compiled.call,
        _answer_converted(runs),
        runs.call.to_numpy,
        builder(tree),
    )

    def answer(arrays: Sequence[Any]) -> PyTree:
        outs = call(*arrays) if runs.compiled is not None else ()
        if runs.compiled is None:  # since before, or this call found out
            return slowly(arrays)
        return build([out if type(out) is np.ndarray else to_numpy(out) for out in outs])

    return answer


def _match_none(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Prepared on an engine's own arrays, whose calls are read like the operator's."""


def _alike(call: Call, specs: list[Spec]) -> list[Any]:
    """The leaves of the arguments, then those of the seeds, arrays by their `ArrayLike`."""
    slots, count = call.reading.slots, len(call.statics)
    leaves = [*call.statics, *[None] * (len(specs) - len(slots))]
    floats = {slots[i] for i in call.reading.active}
    for slot, spec in zip([*slots, *range(count, len(leaves))], specs, strict=True):
        leaves[slot] = ArrayLike(spec.shape, np.dtype(spec.dtype), slot in floats or slot >= count)
    return leaves


def _array_names(call: Call, seeds: int) -> list[str]:
    names = argument_names(call.reading.treedef)
    return [names[slot] for slot in call.reading.slots] + [f"seed {i}" for i in range(seeds)]


def _is_like(call: Call, old: Call) -> bool:
    """Of one tree, the leaves that are not arrays equal: they are constants of what was compiled."""
    if call.reading.treedef != old.reading.treedef or call.reading.slots != old.reading.slots:
        return False
    return all(map(same, call.statics, old.statics))


def _show(call: Call) -> str:
    specs = {slot: str(spec_of(array)) for slot, array in zip(call.reading.slots, call.arrays, strict=True)}
    leaves = [specs.get(i, repr(leaf)) for i, leaf in enumerate(call.statics)]
    args, kwargs = unflatten(call.reading.treedef, leaves)
    return f"{args}{kwargs or ''}".replace("'", "")
