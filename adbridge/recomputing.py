"""Memory for time in reverse mode: checkpoint and checkpoint_loop; and stop_gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from operator import index
from typing import Any

import numpy as np

from adbridge.errors import SignatureMismatch
from adbridge.protocol import Arrays, Backend
from adbridge.registry import choose, get_backend, owners_of
from adbridge.trees import PyTree, TreeDef, check_specs, check_structure, flatten, leaf_names, spec_of, unflatten

_NUMBERS = (bool, int, float, complex)


def checkpoint(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun`, which reverse mode runs once more on its way back, instead of storing what it computes.

    Of a call, only the inputs are kept. They are the arguments, pytrees, and the arrays under differentiation
    that `fun` closes over. `fun` must be pure: a second run does the same, and writes to nothing that it did not
    make. Forward mode, Taylor series and functions that nothing differentiates run it once, as it is.

    Memory is saved on the reference engine, JAX and PyTorch, at first order. Elsewhere, and at higher orders,
    values and derivatives are the same and the memory is not saved, unless the backend's adapter says otherwise.

    Raises:
        NotDifferentiable (from the call, or on the way back): `fun` writes into its arguments or into arrays that
        it closes over, or uses others the second time.

    >>> import numpy as np
    >>> import adbridge as ad
    >>> wave = ad.checkpoint(lambda x: np.sin(np.exp(x)))
    >>> print(ad.grad(lambda x: wave(x - x), backend="reference")(1.0))
    0.0
    """

    @wraps(fun)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        leaves, treedef = flatten((args, kwargs))
        backend = backend_of(leaves)
        if backend is None:
            return fun(*args, **kwargs)
        slots = [i for i, leaf in enumerate(leaves) if backend.owns(leaf)]
        result = _Result()

        def flat(*arrays: Any) -> Arrays:
            filled = list(leaves)
            for slot, array in zip(slots, arrays, strict=True):
                filled[slot] = array
            args, kwargs = unflatten(treedef, filled)
            return result.taken_apart(fun(*args, **kwargs))

        return result.put_together(backend.checkpoint(flat, tuple(leaves[slot] for slot in slots)))

    return checkpointed


def checkpoint_loop(
    step: Callable[[int, PyTree], PyTree], state: PyTree, steps: int, *, snapshots: int | None = None
) -> PyTree:
    """``for i in range(steps): state = step(i, state)``, whose reverse mode keeps few of the states.

    Args:
        step: returns a state of the same tree, shapes and dtypes; pure, as for `checkpoint`, and may close over
            arrays under differentiation.
        state: a pytree of arrays and numbers.
        snapshots: how many states to keep at a time, 1 or more. The schedule is the binomial one, which takes the
            fewest evaluations of `step` for that number. None: about log2 of `steps`, for which each step is run
            about half as many times.

    Returns:
        The last state.

    The way back holds up to twice as many states as `snapshots`, and what one step stores. Memory is saved where
    `checkpoint` saves it.

    Raises:
        SignatureMismatch: `steps` is no natural number, `snapshots` is less than 1, or `step` returns a state unlike
        the one it was given. Else as `checkpoint`.

    A. Griewank & A. Walther, "Algorithm 799: Revolve", ACM TOMS 26(1), 2000.

    >>> import adbridge as ad
    >>> f = lambda x: ad.checkpoint_loop(lambda i, x: 2 * x, x, 100)
    >>> print(ad.grad(f, backend="reference")(1.0) == 2.0**100)
    True
    """
    steps, snapshots = _count("steps", steps, 0), _snapshots(snapshots, steps)
    leaves, treedef = flatten(state)
    arrays = tuple(np.asarray(leaf) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves)
    names = leaf_names("state", treedef)
    if wrong := [name for name, a in zip(names, arrays, strict=True) if not hasattr(a, "dtype")]:
        raise SignatureMismatch(f"checkpoint_loop needs a state of arrays and numbers; {wrong[0]} is neither")

    def flat(i: int, *arrays: Any) -> Arrays:
        return _next_state(step(i, unflatten(treedef, arrays)), treedef, arrays, names)

    backend = backend_of(arrays) or get_backend("reference")
    return unflatten(treedef, backend.checkpoint_loop(flat, arrays, steps, snapshots))


def stop_gradient(x: PyTree) -> PyTree:
    """`x` as a constant: its derivative is zero.

    Raises:
        CapabilityError: `x` belongs to an engine whose adapter does not offer it.

    >>> import adbridge as ad
    >>> print(ad.grad(lambda x: ad.stop_gradient(x) * x, backend="reference")(3.0))
    3.0
    """
    leaves, treedef = flatten(x)
    backend = backend_of(leaves)
    if backend is None:
        return x
    return unflatten(treedef, [backend.stop_gradient(leaf) if backend.owns(leaf) else leaf for leaf in leaves])


class _Result:
    """A function's result of any tree: its arrays apart from the rest, of its last run."""

    def taken_apart(self, result: Any) -> Arrays:
        self.leaves, self.treedef = flatten(result)
        self.slots = [i for i, leaf in enumerate(self.leaves) if hasattr(leaf, "dtype")]
        arrays = tuple(self.leaves[slot] for slot in self.slots)
        for slot in self.slots:
            self.leaves[slot] = None  # so that nothing is kept
        return arrays

    def put_together(self, arrays: Arrays) -> Any:
        for slot, array in zip(self.slots, arrays, strict=True):
            self.leaves[slot] = array
        result, self.leaves = unflatten(self.treedef, self.leaves), []
        return result


def backend_of(leaves: Sequence[Any]) -> Backend | None:
    """The backend of the engine's arrays among the leaves; None where there are none. Raises MixedBackends."""
    return (
        choose(next(iter(owners)) if len(owners) == 1 else None, leaves)[0] if (owners := owners_of(leaves)) else None
    )


def _next_state(state: PyTree, treedef: TreeDef, before: Sequence[Any], names: list[str]) -> Arrays:
    """The leaves of what a step returned, of the specs of what it was given."""
    leaves, got = flatten(state)
    check_structure("the state that step returns", got, treedef, "the state")
    arrays = tuple(np.asarray(leaf) if isinstance(leaf, _NUMBERS) else leaf for leaf in leaves)
    check_specs(names, [spec_of(a) for a in arrays], [spec_of(a) for a in before], "the state that step was given")
    return arrays


def _snapshots(snapshots: Any, steps: int) -> int:
    return max(1, steps.bit_length()) if snapshots is None else _count("snapshots", snapshots, 1)


def _count(name: str, value: Any, least: int) -> int:
    try:
        number = index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise SignatureMismatch(f"checkpoint_loop needs {name} as a whole number, {least} or more; got {value!r}")
    return number
