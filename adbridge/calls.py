"""One call: its arrays as the engine's, the function of them that a backend differentiates, and the way back.

Between the user's pytrees of NumPy arrays, scalars and engine arrays, and the flat engine arrays that
`protocol.Backend` works on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.errors import NotDifferentiable, SignatureMismatch
from adbridge.protocol import Array, Arrays, Backend, FlatFunction
from adbridge.readings import INEXACT, NUMPY, Reading, function_name, plain, read
from adbridge.registry import choose, inside, within
from adbridge.trees import (
    LEAF,
    PyTree,
    Spec,
    TreeDef,
    check_specs,
    check_structure,
    dtype_name,
    flatten,
    leaf_names,
    spec_of,
    unflatten,
)

if TYPE_CHECKING:
    from adbridge.operators import Operator

Argnums = int | tuple[int, ...]

_NUMBERS = (*NUMPY, float, complex)
_OF_SCALARS = ("grad", "value_and_grad")
_HOLE = object()  # stands for an engine array among the aux leaves
_NO_AUX = flatten(None)[1]


@dataclass(slots=True)
class Call:
    """What an operator needs besides the arrays themselves; one for each run of it.

    `arrays` are engine arrays, at the reading's slots among all leaves of ``(args, kwargs)``; `statics` the
    other leaves (None at the slots). The trees are known once the function has run.
    """

    operator: Operator
    reading: Reading
    statics: list[Any]
    arrays: Arrays
    seed_tree: TreeDef | None = None
    out_tree: TreeDef | None = None
    aux_tree: TreeDef | None = None
    aux_statics: Sequence[Any] = ()

    @property
    def backend(self) -> Backend:
        return self.reading.backend

    @property
    def active_tree(self) -> TreeDef:
        """Of the tuple of the differentiated arguments."""
        return self.reading.active_tree

    def scope(self) -> AbstractContextManager[Any]:
        """The context in which the engine's arrays are used."""
        return self.reading.scope()

    def again(self) -> Call:
        """For another run on other arrays, maybe in another thread."""
        return Call(self.operator, self.reading, self.statics, self.arrays, self.seed_tree)

    def primals(self, arrays: Arrays) -> Arrays:
        """The differentiated ones among `arrays`."""
        return tuple([arrays[i] for i in self.reading.active])

    def flat_function(self, arrays: Arrays) -> FlatFunction:
        """The user's function of its differentiated leaves alone; the other arrays are closed over."""
        fun, reading = self.operator.fun, self.reading

        def flat(*primals: Array) -> tuple[Arrays, Arrays]:
            inputs = list(arrays)
            for i, primal in zip(reading.active, primals, strict=True):
                inputs[i] = primal
            leaves = list(self.statics)
            for slot, array in zip(reading.slots, inputs, strict=True):
                leaves[slot] = array
            args, kwargs = (leaves, {}) if reading.flat else unflatten(reading.treedef, leaves)
            with inside(reading.backend):
                return self._outputs(fun(*args, **kwargs))

        return flat

    def _outputs(self, result: Any) -> tuple[Arrays, Arrays]:
        operator, backend = self.operator, self.reading.backend
        if operator.has_aux:
            result, aux = self._with_aux(result)
            # Aux of any type: the engine's own arrays pass through it, the rest is kept aside.
            aux_leaves, self.aux_tree = flatten(aux)
            self.aux_statics = [_HOLE if backend.owns(leaf) else leaf for leaf in aux_leaves]
            own = tuple(leaf for leaf in aux_leaves if backend.owns(leaf))
        else:
            self.aux_tree, own = _NO_AUX, ()
        leaves, self.out_tree = ([result], LEAF) if backend.owns(result) else flatten(result)
        outs = tuple([self._output(i, leaf) for i, leaf in enumerate(leaves)])
        if operator.scalar_for or operator.name in _OF_SCALARS:
            self._check_scalar(outs)
        if operator.scalar_for:
            self.check_real(outs)
        return outs, own

    def _with_aux(self, result: Any) -> tuple[Any, Any]:
        if isinstance(result, tuple) and len(result) == 2:
            return result
        raise SignatureMismatch(
            f"{self.operator.name} with has_aux=True needs a function that returns (output, aux); "
            f"{function_name(self.operator.fun)} returned {type(result).__name__}"
        )

    def _output(self, i: int, leaf: Any) -> Array:
        if isinstance(leaf, _NUMBERS):
            leaf = self.backend.from_numpy(np.asarray(leaf))
        if not hasattr(leaf, "dtype") or dtype_name(leaf.dtype) not in INEXACT:
            assert self.out_tree is not None
            found = str(spec_of(leaf)) if hasattr(leaf, "dtype") else f"of type {type(leaf).__name__}"
            raise NotDifferentiable(
                f"{self.operator.name} of {function_name(self.operator.fun)}: {leaf_names('output', self.out_tree)[i]} "
                f"is {found}; derivatives need arrays of floating dtype (return it as aux, with has_aux=True?)"
            )
        return leaf

    def _check_scalar(self, outs: Arrays) -> None:
        assert self.out_tree is not None
        if len(outs) == 1 and self.out_tree.num_nodes == 1 and outs[0].shape == ():
            return
        name, fun = self.operator.scalar_for or self.operator.name, function_name(self.operator.fun)
        found = self.out([str(spec_of(out)) for out in outs])
        raise NotDifferentiable(
            f"{name} needs a function with one scalar output; {fun} returned {found}; use jacobian or vjp "
            "(or has_aux=True for further outputs)"
        )

    def check_real(self, outs: Arrays) -> None:
        """Raise NotDifferentiable if an output is complex.

        Of a gradient's outputs this is asked when the backend is done with them: one that differentiates by
        a complex step evaluates the function at complex points.
        """
        found = [out for out in outs if "complex" in dtype_name(out.dtype)]
        if not found:
            return
        name, fun = self.operator.scalar_for or self.operator.name, function_name(self.operator.fun)
        raise NotDifferentiable(
            f"{name} needs a real output; {fun} returned {spec_of(found[0])}; differentiate its real and imaginary "
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
        if not self.reading.numpy_out or within(self.backend):
            return result
        return self.to_numpy(result)

    def to_numpy(self, result: PyTree) -> PyTree:
        """The tree with copies in place of NumPy's arrays and the engine's."""
        if isinstance(result, NUMPY):
            return np.array(result)
        if self.backend.owns(result):
            return self.backend.to_numpy(result)
        if type(result) is tuple:  # the commonest node
            return tuple([self.to_numpy(part) for part in result])
        leaves, treedef = flatten(result)
        return leaves[0] if treedef.num_nodes == 1 and leaves else unflatten(treedef, map(self.to_numpy, leaves))

    def seeds(self, what: str, tree: PyTree, treedef: TreeDef, like: Arrays, root: str) -> Arrays:
        """Tangents or cotangents as engine arrays, checked against the arrays that they belong to."""
        leaves, got = flatten(tree)
        check_structure(what, got, treedef, root)
        choose(self.backend, leaves)
        leaves = [plain(leaf) for leaf in leaves]
        specs = [spec_of(array) for array in like]
        arrays = [_weak(leaf, spec) for leaf, spec in zip(leaves, specs, strict=True)]
        _check_seeds(lambda: leaf_names(what, treedef), arrays, specs, root)
        return tuple([self.to_engine(array) for array in arrays])

    def to_engine(self, leaf: Any) -> Any:
        """A NumPy array or scalar as the engine's; anything else as it is."""
        return self.backend.from_numpy(np.asarray(leaf)) if isinstance(leaf, NUMPY) else leaf


def read_call(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], also: Sequence[Any] = ()) -> Call:
    """Choose the backend (by the leaves of `also`, too), convert the arrays, find the differentiated ones."""
    reading, leaves = read(operator, args, kwargs, also)
    for slot in reading.numbers:
        leaves[slot] = np.asarray(leaves[slot])
    arrays = [leaves[slot] for slot in reading.slots]
    for slot in reading.slots:
        leaves[slot] = None
    call = Call(operator, reading, leaves, ())
    if reading.scoped:
        with reading.scope():
            call.arrays = tuple([call.to_engine(array) for array in arrays])
    else:
        call.arrays = tuple([call.to_engine(array) for array in arrays])
    return call


def _check_seeds(names: Callable[[], list[str]], arrays: list[Any], specs: list[Spec], root: str) -> None:
    found = [spec_of(array) if hasattr(array, "dtype") else None for array in arrays]
    if found == specs:
        return
    for name, array in zip(names(), arrays, strict=True):
        if not hasattr(array, "dtype"):
            raise SignatureMismatch(f"{name} must be an array like that of {root}, got {type(array).__name__}")
    check_specs(names(), [spec_of(array) for array in arrays], specs, root)


def _weak(leaf: Any, spec: Spec) -> Any:
    """Python numbers take the dtype of the array that they belong to, as in NumPy."""
    if isinstance(leaf, (bool, np.generic)) or not isinstance(leaf, (int, float, complex)):
        return leaf
    if isinstance(leaf, complex) and "complex" not in spec.dtype:
        return leaf
    return np.asarray(leaf, dtype=spec.dtype)
