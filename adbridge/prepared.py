"""prepare: an operator made ready for arguments of one signature."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.calls import Call, argument_names
from adbridge.errors import CapabilityError, SignatureMismatch
from adbridge.operators import Operator
from adbridge.protocol import Arrays, Compiled
from adbridge.trees import PyTree, Spec, TreeDef, check_specs, flatten, spec_of, unflatten


@dataclass(frozen=True)
class ArrayLike:
    """Shape and dtype of one array of the example; `number`: a Python float may stand for it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    number: bool


@dataclass(frozen=True)
class Template:
    """The example's leaves, arrays by their `ArrayLike`: a call that looks the same needs no further reading."""

    treedef: TreeDef
    leaves: list[Any]

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[npt.NDArray[Any]] | None:
        """The arrays, all NumPy's own, of a call that looks the same; None for any other."""
        leaves, treedef = flatten((args, kwargs))
        if treedef != self.treedef:
            return None
        arrays = []
        for leaf, like in zip(leaves, self.leaves, strict=True):
            if type(like) is not ArrayLike:
                if not _same(leaf, like):
                    return None
                continue
            if like.number and type(leaf) is float:
                leaf = np.asarray(leaf)
            if type(leaf) is not np.ndarray or leaf.shape != like.shape or leaf.dtype != like.dtype:
                return None
            arrays.append(leaf)
        return arrays


@dataclass(frozen=True)
class Prepared:
    """An operator compiled (where its engine has a compiler) for one tree, shapes and dtypes.

    Call it like the operator. `seconds` is what the preparation took.

    Raises (when called):
        SignatureMismatch: arguments of another tree, shape, dtype or static value.
    """

    operator: Operator
    seconds: float
    compiled: Compiled
    _call: Call
    _specs: list[Spec]
    _out_tree: list[TreeDef]
    _template: Template | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        known = None if self._template is None else self._template.match(args, kwargs)
        if known is not None:
            with self._call.scope():
                return self._call.finish(self.run(*map(self._call.backend.from_numpy, known)))
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
        outs = self.compiled.call(*arrays)
        return unflatten(self._out_tree[0], outs)

    def scope(self) -> Any:
        """The context that the engine's arrays need (`Backend.scope`)."""
        return self._call.scope()

    def _check(self, call: Call, seeds: Arrays) -> None:
        old = self._call
        if call.treedef != old.treedef or call.slots != old.slots or not _same_statics(call, old):
            raise SignatureMismatch(
                f"prepared for arguments {_show(old)}, called with {_show(call)}; prepare it again for these"
            )
        specs = [spec_of(array) for array in (*call.arrays, *seeds)]
        if specs != self._specs:
            check_specs(_array_names(old, len(seeds)), specs, self._specs, "the example it was prepared with")


def prepare(transformed: Operator, *example_args: Any, **example_kwargs: Any) -> Prepared:
    """Make an operator ready for arguments like the example's: ahead-of-time compiled on JAX, checked on all.

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
    n, out_tree = len(call.arrays), [call.treedef]

    def flat(*arrays: Any) -> Arrays:
        leaves, out_tree[0] = flatten(transformed.apply(call, arrays[:n], arrays[n:]))
        return tuple(leaves)

    start = time.perf_counter()
    with call.scope():
        compiled = call.backend.compile(flat, (*call.arrays, *seeds))
    seconds = time.perf_counter() - start
    specs = [spec_of(a) for a in (*call.arrays, *seeds)]
    template = _template(flatten((example_args, example_kwargs))[1], call, specs) if call.numpy_out else None
    return Prepared(transformed, seconds, compiled, call, specs, out_tree, template)


def _template(treedef: TreeDef, call: Call, specs: list[Spec]) -> Template:
    """Of the arguments' leaves, then those of the seeds."""
    leaves, count = [*call.statics, *[None] * (len(specs) - len(call.slots))], len(call.statics)
    floats = {call.slots[i] for i in call.active}
    for slot, spec in zip([*call.slots, *range(count, len(leaves))], specs, strict=True):
        leaves[slot] = ArrayLike(spec.shape, np.dtype(spec.dtype), slot in floats or slot >= count)
    return Template(treedef, leaves)


def _array_names(call: Call, seeds: int) -> list[str]:
    names = argument_names(call.treedef)
    return [names[slot] for slot in call.slots] + [f"seed {i}" for i in range(seeds)]


def _same_statics(call: Call, old: Call) -> bool:
    """Whether the leaves that are not arrays are equal: they are constants of what was compiled."""
    return all(map(_same, call.statics, old.statics))


def _same(a: Any, b: Any) -> bool:
    # Of one type too: 2 and 2.0 and True are equal, and give other dtypes.
    return a is b or (type(a) is type(b) and _is_true(a == b))


def _is_true(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) and bool(value)


def _show(call: Call) -> str:
    specs = {slot: str(spec_of(array)) for slot, array in zip(call.slots, call.arrays, strict=True)}
    leaves = [specs.get(i, repr(leaf)) for i, leaf in enumerate(call.statics)]
    args, kwargs = unflatten(call.treedef, leaves)
    return f"{args}{kwargs or ''}".replace("'", "")
