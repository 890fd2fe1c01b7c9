"""How a call is read: which backend, which leaves are arrays, which of them are differentiated.

All of it follows from the arguments' tree, the types of its leaves and the dtypes of its arrays, so a backend
remembers it for calls that look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from operator import is_
from typing import TYPE_CHECKING, Any

import numpy as np
import optree

from adbridge.errors import CapabilityError, NotDifferentiable, SignatureMismatch
from adbridge.protocol import Backend
from adbridge.registry import choose, choose_without_inputs
from adbridge.signatures import outline
from adbridge.trees import TreeDef, dtype_name, flatten

if TYPE_CHECKING:
    from adbridge.operators import Operator

NUMPY = (np.ndarray, np.generic)
_REAL = {"float16", "bfloat16", "float32", "float64", "float128"}
INEXACT = frozenset({*_REAL, "complex64", "complex128", "complex256"})


@dataclass(frozen=True, slots=True)
class Reading:
    """What calls that look alike have in common.

    `slots` are the places of the arrays among all leaves of ``(args, kwargs)``; `active` the places within
    these of the differentiated ones; `numbers` the leaves that are Python numbers, and differentiated.
    """

    backend: Backend
    treedef: TreeDef
    slots: list[int]
    active: list[int]
    numbers: list[int]
    active_tree: TreeDef
    dtypes: list[str]
    numpy_out: bool
    flat: bool
    """Every leaf is an argument by position."""
    scoped: bool
    """Whether the engine's arrays need a context (`Backend.scope`); most do not."""

    def scope(self) -> AbstractContextManager[Any]:
        """The context in which the engine's arrays are made and used."""
        return self.backend.scope(self.dtypes)


def read(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], also: Sequence[Any]
) -> tuple[Reading, list[Any]]:
    """The reading, and the leaves of ``(args, kwargs)``; the leaves of `also` help to choose the backend."""
    leaves: list[Any] = []
    look = outline(args, kwargs, leaves)
    if look is None or (also and outline(tuple(also), {}, []) is None):
        return _read(operator, args, kwargs, also)
    backend = choose_without_inputs(operator.backend)
    known: Reading | None = backend.remembered.get(key := (operator.argnums, look))
    if known is not None:
        return known, leaves
    reading, native = _read(operator, args, kwargs, also)
    # The environment may have changed meanwhile; arrays in foreign byte order are others than they look.
    if reading.backend is backend and all(map(is_, native, leaves)):
        backend.remembered.put(key, reading)
    return reading, native


def _read(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], also: Sequence[Any]
) -> tuple[Reading, list[Any]]:
    chosen = _positive_argnums(operator, len(args))
    leaves, treedef = flatten((args, kwargs))
    leaves = [plain(leaf) for leaf in leaves]
    backend, own = choose(operator.backend, [*leaves, *also])
    arguments = treedef.child(0).children()
    starts = list(accumulate((tree.num_leaves for tree in arguments), initial=0))
    wanted = [slot for a in chosen for slot in range(starts[a], starts[a + 1])]
    for slot in wanted:
        _check_differentiable(operator, backend, leaves[slot], lambda: argument_names(treedef)[slot])  # noqa: B023
    numbers = [slot for slot in wanted if _is_python_number(leaves[slot])]
    slots = [i for i, leaf in enumerate(leaves) if i in numbers or _is_numeric(leaf) or backend.owns(leaf)]
    place = {slot: i for i, slot in enumerate(slots)}
    reading = Reading(
        backend,
        treedef,
        slots,
        [place[slot] for slot in wanted],
        numbers,
        optree.treespec_tuple([arguments[a] for a in chosen]),
        [dtype_name(np.asarray(leaves[slot]).dtype if slot in numbers else leaves[slot].dtype) for slot in slots],
        numpy_out=not own,
        flat=treedef.num_nodes == len(args) + 3 and len(leaves) == len(args),
        scoped=type(backend).scope is not Backend.scope,
    )
    return reading, leaves


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


def _is_python_number(leaf: Any) -> bool:
    return isinstance(leaf, (float, complex)) and not isinstance(leaf, np.generic)


def _check_differentiable(operator: Operator, backend: Backend, leaf: Any, name: Callable[[], str]) -> None:
    if _is_python_number(leaf):
        return
    dtype = dtype_name(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
    known = backend.capabilities.dtypes
    if dtype in known:
        return
    where = f"{operator.name} of {function_name(operator.fun)}: {name()}"
    if dtype not in INEXACT:
        remedy = "x.astype(float)" if hasattr(leaf, "dtype") else "float(x)" if isinstance(leaf, int) else "an array"
        raise NotDifferentiable(
            f"{where} has dtype {dtype}; derivatives need floating inputs: pass {remedy}, or leave it out of argnums"
        )
    raise CapabilityError(
        f"{where} has dtype {dtype}, which backend {backend.name!r} does not differentiate "
        f"(it has: {', '.join(known)}); convert it or choose another backend"
    )


def plain(leaf: Any) -> Any:
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
    if not isinstance(leaf, NUMPY):
        return False
    dtype = leaf.dtype
    return (dtype.kind in "biufc" and dtype.char not in "gG") or str(dtype) == "bfloat16"
