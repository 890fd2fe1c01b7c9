"""`trace`: the Wengert list of one run of a function, to read, draw, run again and differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from adbridge.errors import NotDifferentiable, SignatureMismatch
from adbridge.protocol import Arrays, read_only
from adbridge.readings import function_name, plain
from adbridge.registry import get_backend, inside, owners_of
from adbridge.trees import TreeDef, flatten, leaf_names, unflatten

if TYPE_CHECKING:
    from adbridge.backends.reference.program import Program


def trace(fun: Callable[..., Any], /, *args: Any) -> Program:
    """The Wengert list of ``fun(*args)``: run once, on the reference engine.

    Args:
        fun: takes and returns pytrees of arrays; written for `array_namespace`, or in plain NumPy.
        args: Python floats and floating or complex arrays are the program's inputs; all else, whole numbers too,
            are constants of it.

    Returns:
        A Program. ``print(program)`` is the evaluation trace of the textbooks: inputs v-1 and v0, intermediate
        values from v1 on. ``program(*args)`` runs it on other arguments of the same shapes; where `fun` would take
        another branch, that is an error. ``.jvp(tangents)`` and ``.vjp(cotangents)`` are the derivative traces,
        whose ``.program`` is a Program again. ``.to_python()``, ``.to_svg()``, ``.cost()``.

    Raises:
        NotDifferentiable: no floating argument, a tracer or another engine's array, or an operation that the
        reference engine does not have. SignatureMismatch: a result that is not made of arrays.

    >>> import numpy as np
    >>> def f(x1, x2):
    ...     return np.log(x1) + x1 * x2 - np.sin(x2)
    >>> program = trace(f, 2.0, 5.0)
    >>> print(program)
    step  operation  value
    v-1 = x1         2
    v0  = x2         5
    v1  = ln v-1     0.693147
    v2  = v-1 × v0   10
    v3  = v1 + v2    10.6931
    v4  = sin v0     -0.958924
    v5  = v3 - v4    11.6521
    y   = v5         11.6521
    >>> print(program.jvp((1.0, 0.0)).tangents, *program.vjp().cotangents)
    5.5 5.5 1.7163378145367738
    """
    from adbridge.backends.reference.recorded import Run, remember
    from adbridge.backends.reference.transforms import record

    leaves, treedef = flatten(args)
    leaves = [plain(leaf) for leaf in leaves]
    _check_arguments(fun, leaves, treedef)
    slots = tuple(i for i, leaf in enumerate(leaves) if _is_input(leaf))
    inputs = tuple(read_only(np.array(leaves[i])) for i in slots)
    out_tree: list[TreeDef] = []

    def flat(*arrays: Any) -> Arrays:
        filled = list(leaves)
        for i, array in zip(slots, arrays, strict=True):
            filled[i] = array
        with inside(get_backend("reference")):
            outs, tree = flatten(fun(*unflatten(treedef, filled)))
        out_tree.append(tree)
        return tuple(_output(fun, name, out) for name, out in zip(leaf_names("output", tree), outs, strict=True))

    program = record(flat, *inputs)
    kept = tuple(None if i in slots else leaf for i, leaf in enumerate(leaves))
    return remember(program, lambda values: Run(treedef, kept, slots, out_tree[-1], inputs, values), inputs)


def _is_input(leaf: Any) -> bool:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind in "fc" and leaf.dtype.char not in "gG"
    return isinstance(leaf, (float, complex))


def _check_arguments(fun: Callable[..., Any], leaves: list[Any], treedef: TreeDef) -> None:
    if owners := owners_of(leaves):
        raise NotDifferentiable(
            f"trace of {function_name(fun)}: an argument is an array or tracer of {', '.join(sorted(owners))}; a trace "
            "needs NumPy arrays or floats, whose values it shows"
        )
    if not any(map(_is_input, leaves)):
        names = ", ".join(f"{name} is {leaf!r}" for name, leaf in zip(leaf_names("args", treedef), leaves, strict=True))
        raise NotDifferentiable(
            f"trace of {function_name(fun)} needs a floating argument, whole numbers are constants; got "
            f"{names or 'none'}: pass floats, such as 2.0"
        )


def _output(fun: Callable[..., Any], name: str, out: Any) -> Any:
    if isinstance(out, (bool, int, float, complex, np.generic)):
        return np.asarray(out)
    if not hasattr(out, "dtype"):
        raise SignatureMismatch(f"trace of {function_name(fun)}: {name} is {out!r}; the result must be made of arrays")
    return out
