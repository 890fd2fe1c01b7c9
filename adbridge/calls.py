"""One call, read: which backend, which leaves are arrays, which of them are differentiated.

Between the user's pytrees of NumPy arrays, scalars and engine arrays, and the flat engine arrays that
`protocol.Backend` works on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import optree

from adbridge.errors import CapabilityError, NotDifferentiable, SignatureMismatch
from adbridge.protocol import Array, Arrays, Backend, FlatFunction
from adbridge.registry import choose, inside, within
from adbridge.trees import (
    PyTree,
    Spec,
    TreeDef,
    check_specs,
    check_structure,
    flatten,
    leaf_names,
    spec_of,
    unflatten,
)

if TYPE_CHECKING:
    from adbridge.operators import Operator

Argnums = int | tuple[int, ...]

_NUMPY = (np.ndarray, np.generic)
_REAL = {"float16", "bfloat16", "float32", "float64", "float128"}
_INEXACT = frozenset({*_REAL, "complex64", "complex128", "complex256"})
_OF_SCALARS = ("grad", "value_and_grad")
_HOLE = object()  # stands for an engine array among the aux leaves


@dataclass(slots=True)
class Call:
    """What an operator needs besides the arrays themselves.

    `arrays` are engine arrays; `slots` their places among all leaves of ``(args, kwargs)``; `active` the
    places within `arrays` of the differentiated ones; `statics` the other leaves (None at the slots).
    The fields after `scope` are known once the function has run.
    """

    operator: Operator
    backend: Backend
    treedef: TreeDef
    statics: list[Any]
    slots: list[int]
    arrays: Arrays
    active: list[int]
    active_tree: TreeDef
    numpy_out: bool
    scope: Callable[[], AbstractContextManager[Any]]
    seed_tree: TreeDef | None = None
    out_tree: TreeDef | None = None
    aux_tree: TreeDef | None = None
    aux_statics: list[Any] = field(default_factory=list)

    def primals(self, arrays: Arrays) -> Arrays:
        """The differentiated ones among `arrays`."""
        return tuple(arrays[i] for i in self.active)

    def flat_function(self, arrays: Arrays) -> FlatFunction:
        """The user's function of its differentiated leaves alone; the other arrays are closed over."""

        def flat(*primals: Array) -> tuple[Arrays, Arrays]:
            leaves = list(self.statics)
            for slot, array in zip(self.slots, arrays, strict=True):
                leaves[slot] = array
            for i, primal in zip(self.active, primals, strict=True):
                leaves[self.slots[i]] = primal
            args, kwargs = unflatten(self.treedef, leaves)
            with inside(self.backend):
                return self._outputs(self.operator.fun(*args, **kwargs))

        return flat

    def _outputs(self, result: Any) -> tuple[Arrays, Arrays]:
        aux = None
        if self.operator.has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise SignatureMismatch(
                    f"{self.operator.name} with has_aux=True needs a function that returns (output, aux); "
                    f"{function_name(self.operator.fun)} returned {type(result).__name__}"
                )
            result, aux = result
        leaves, self.out_tree = flatten(result)
        outs = tuple(self._output(i, leaf) for i, leaf in enumerate(leaves))
        if self.operator.scalar_for or self.operator.name in _OF_SCALARS:
            self._check_scalar(outs)
        if self.operator.scalar_for:
            self.check_real(outs)
        # Aux of any type: the engine's own arrays pass through it, the rest is kept aside.
        aux_leaves, self.aux_tree = flatten(aux)
        self.aux_statics = [_HOLE if self.backend.owns(leaf) else leaf for leaf in aux_leaves]
        return outs, tuple(leaf for leaf in aux_leaves if self.backend.owns(leaf))

    def _output(self, i: int, leaf: Any) -> Array:
        if isinstance(leaf, (*_NUMPY, float, complex)):
            leaf = self.backend.from_numpy(np.asarray(leaf))
        found = str(spec_of(leaf)) if hasattr(leaf, "dtype") else f"of type {type(leaf).__name__}"
        if not hasattr(leaf, "dtype") or spec_of(leaf).dtype not in _INEXACT:
            assert self.out_tree is not None
            raise NotDifferentiable(
                f"{self.operator.name} of {function_name(self.operator.fun)}: {leaf_names('output', self.out_tree)[i]} "
                f"is {found}; derivatives need arrays of floating dtype (return it as aux, with has_aux=True?)"
            )
        return leaf

    def _check_scalar(self, outs: Arrays) -> None:
        name, fun = self.operator.scalar_for or self.operator.name, function_name(self.operator.fun)
        assert self.out_tree is not None
        found = self.out([str(spec_of(out)) for out in outs])
        if self.out_tree.num_nodes != 1 or len(outs) != 1 or outs[0].shape != ():
            raise NotDifferentiable(
                f"{name} needs a function with one scalar output; {fun} returned {found}; use jacobian or vjp "
                "(or has_aux=True for further outputs)"
            )

    def check_real(self, outs: Arrays) -> None:
        """Raise NotDifferentiable if an output is complex.

        Of a gradient's outputs this is asked when the backend is done with them: one that differentiates by
        a complex step evaluates the function at complex points.
        """
        name, fun = self.operator.scalar_for or self.operator.name, function_name(self.operator.fun)
        if found := [spec for spec in map(spec_of, outs) if "complex" in spec.dtype]:
            raise NotDifferentiable(
                f"{name} needs a real output; {fun} returned {found[0]}; differentiate its real and imaginary "
                "parts, or use jvp or vjp"
            )

    def out(self, outs: Sequence[Any]) -> PyTree:
        """Leaves in the tree of the function's output."""
        assert self.out_tree is not None
        return unflatten(self.out_tree, outs)

    def aux(self, aux: Arrays) -> PyTree:
        """The aux output, with its arrays lowered to `aux`."""
        assert self.aux_tree is not None
        rest = iter(aux)
        return unflatten(self.aux_tree, [next(rest) if leaf is _HOLE else leaf for leaf in self.aux_statics])

    def like_primals(self, parts: Arrays) -> PyTree:
        """A tuple of trees like the differentiated arguments; one tree if argnums is an int."""
        trees = unflatten(self.active_tree, parts)
        return trees[0] if isinstance(self.operator.argnums, int) else trees

    def finish(self, result: PyTree) -> PyTree:
        """To NumPy if NumPy came in. Within an enclosing operator, arrays stay the engine's."""
        if not self.numpy_out or within(self.backend):
            return result
        leaves, treedef = flatten(result)
        return unflatten(treedef, [self._to_numpy(leaf) for leaf in leaves])

    def _to_numpy(self, leaf: Any) -> Any:
        if isinstance(leaf, _NUMPY):
            return np.array(leaf)
        return self.backend.to_numpy(leaf) if self.backend.owns(leaf) else leaf

    def seeds(self, what: str, tree: PyTree, treedef: TreeDef, like: Arrays, root: str) -> Arrays:
        """Tangents or cotangents as engine arrays, checked against the arrays that they belong to."""
        leaves, got = flatten(tree)
        check_structure(what, got, treedef, root)
        choose(self.backend, leaves)
        leaves = [_plain(leaf) for leaf in leaves]
        names, specs = leaf_names(what, treedef), [spec_of(array) for array in like]
        arrays = [_weak(leaf, spec) for leaf, spec in zip(leaves, specs, strict=True)]
        for name, leaf in zip(names, arrays, strict=True):
            if not hasattr(leaf, "dtype"):
                raise SignatureMismatch(f"{name} must be an array like that of {root}, got {type(leaf).__name__}")
        check_specs(names, [spec_of(array) for array in arrays], specs, root)
        return tuple(self.to_engine(array) for array in arrays)

    def to_engine(self, leaf: Any) -> Any:
        """A NumPy array or scalar as the engine's; anything else as it is."""
        return self.backend.from_numpy(np.asarray(leaf)) if isinstance(leaf, _NUMPY) else leaf


def read_call(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], also: Sequence[Any] = ()) -> Call:
    """Choose the backend (by the leaves of `also`, too), convert the arrays, find the differentiated ones."""
    chosen = _positive_argnums(operator, len(args))
    leaves, treedef = flatten((args, kwargs))
    leaves = [_plain(leaf) for leaf in leaves]
    backend, own = choose(operator.backend, [*leaves, *also])
    arguments = treedef.child(0).children()
    starts = list(accumulate((tree.num_leaves for tree in arguments), initial=0))
    wanted = [slot for a in chosen for slot in range(starts[a], starts[a + 1])]
    for slot in wanted:
        leaves[slot] = _differentiable(operator, backend, leaves[slot], lambda: argument_names(treedef)[slot])  # noqa: B023
    slots = [i for i, leaf in enumerate(leaves) if _is_numeric(leaf) or backend.owns(leaf)]
    place = {slot: i for i, slot in enumerate(slots)}
    dtypes = [spec_of(leaves[slot]).dtype for slot in slots]
    call = Call(
        operator,
        backend,
        treedef,
        [None if i in place else leaf for i, leaf in enumerate(leaves)],
        slots,
        (),
        [place[slot] for slot in wanted],
        optree.treespec_tuple([arguments[a] for a in chosen]),
        numpy_out=not own,
        scope=lambda: backend.scope(dtypes),
    )
    with call.scope():
        call.arrays = tuple(call.to_engine(leaves[slot]) for slot in slots)
    return call


def function_name(fun: Callable[..., Any]) -> str:
    """What to call a user's function in a message."""
    return getattr(fun, "__name__", None) or repr(fun)


def argument_names(treedef: TreeDef) -> list[str]:
    """What to call each leaf of ``(args, kwargs)`` in a message: ``argument 0['w']``, ``argument 'scale'``."""
    # The paths are (0, position, ...) and (1, keyword, ...).
    return [f"argument {path[1]!r}" + "".join(f"[{key!r}]" for key in path[2:]) for path in treedef.paths()]


def _positive_argnums(operator: Operator, count: int) -> list[int]:
    asked = operator.argnums
    argnums = (asked,) if isinstance(asked, int) else tuple(asked)
    positive = [a + count if a < 0 else a for a in argnums]
    if any(not 0 <= a < count for a in positive):
        raise SignatureMismatch(
            f"{operator.name} of {function_name(operator.fun)}: argnums={asked} needs positional arguments that were "
            f"not given (got {count}); pass differentiated arguments by position"
        )
    if len(set(positive)) < len(positive):
        raise SignatureMismatch(f"{operator.name}: argnums={asked} names one argument twice; give each once")
    return positive


def _differentiable(operator: Operator, backend: Backend, leaf: Any, name: Callable[[], str]) -> Any:
    if isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic):
        return np.asarray(leaf)
    dtype = spec_of(leaf).dtype if hasattr(leaf, "dtype") else type(leaf).__name__
    known = backend.capabilities.dtypes
    if dtype in known:
        return leaf
    where = f"{operator.name} of {function_name(operator.fun)}: {name()}"
    if dtype not in _INEXACT:
        remedy = "x.astype(float)" if hasattr(leaf, "dtype") else "float(x)" if isinstance(leaf, int) else "an array"
        raise NotDifferentiable(
            f"{where} has dtype {dtype}; derivatives need floating inputs: pass {remedy}, or leave it out of argnums"
        )
    raise CapabilityError(
        f"{where} has dtype {dtype}, which backend {backend.name!r} does not differentiate "
        f"(it has: {', '.join(known)}); convert it or choose another backend"
    )


def _plain(leaf: Any) -> Any:
    """NumPy arrays in native byte order, which is all that the engines take."""
    if type(leaf) is np.ndarray or not isinstance(leaf, np.ndarray):
        known = leaf
    elif isinstance(leaf, np.ma.MaskedArray):
        raise SignatureMismatch(
            "got a masked array, whose mask no engine keeps; pass x.filled(value), and the mask as an array of its own"
        )
    else:
        known = np.asarray(leaf)
    if isinstance(known, np.ndarray) and not known.dtype.isnative:
        return known.astype(known.dtype.newbyteorder("="))
    return known


def _is_numeric(leaf: Any) -> bool:
    """Whether a leaf is a NumPy array that engines have; others (of strings, objects, ...) pass through as static."""
    if not isinstance(leaf, _NUMPY):
        return False
    dtype = leaf.dtype
    return (dtype.kind in "biufc" and dtype.char not in "gG") or str(dtype) == "bfloat16"


def _weak(leaf: Any, spec: Spec) -> Any:
    """Python numbers take the dtype of the array that they belong to, as in NumPy."""
    if isinstance(leaf, (bool, np.generic)) or not isinstance(leaf, (int, float, complex)):
        return leaf
    if isinstance(leaf, complex) and "complex" not in spec.dtype:
        return leaf
    return np.asarray(leaf, dtype=spec.dtype)
