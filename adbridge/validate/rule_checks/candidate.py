"""A derivative rule under check: the function with the rule and without it, over flat leaves and real coordinates.

Tangents and cotangents are vectors of real numbers, a complex element giving two: of a tangent its real and imaginary
part, of a cotangent its real and its negative imaginary part, so that the pairing Re(sum(ct * t)) is the dot product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from adbridge.errors import RuleError
from adbridge.readings import function_name
from adbridge.registry import choose, owners_of
from adbridge.trees import PyTree, unflatten
from adbridge.validate.oracle.arguments import Arguments, outputs_of, read_arguments

Leaves = tuple[Any, ...]
"""NumPy arrays, one for each differentiated leaf of the arguments."""
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """What is checked. `ruled` and `plain` have the same arguments; `rule` is an `adbridge.CustomRule`, or None."""

    name: str
    rule: Any
    ruled: Arguments
    plain: Arguments

    @property
    def leaves(self) -> Leaves:
        return tuple(self.ruled.active)

    @cached_property
    def with_rule(self) -> Callable[..., Any]:
        """The function with its rule, of the differentiated leaves alone; one output leaf, or a tuple of them."""
        return _of_leaves(self.ruled, self.name)

    @cached_property
    def without_rule(self) -> Callable[..., Any]:
        """As `with_rule`, of the plain function."""
        return _of_leaves(self.plain, self.name)

    def written(self, mode: str) -> bool:
        """Whether the rule for this mode is the user's own words: what engines make of it is looked at after that."""
        if self.rule is None:
            return True
        return (self.rule.jvp_rule if mode == "forward" else self.rule.bwd) is not None

    def arguments(self, leaves: Leaves) -> tuple[PyTree, ...]:
        """All arguments, with `leaves` in place of the differentiated ones."""
        filled = list(self.ruled.leaves)
        for slot, leaf in zip(self.ruled.slots, leaves, strict=True):
            filled[slot] = leaf
        tree: Any = unflatten(self.ruled.treedef, filled)
        return tuple(tree)

    def at(self, leaves: Leaves) -> Candidate:
        """The same rule with another example."""
        filled = list(self.ruled.leaves)
        for slot, leaf in zip(self.ruled.slots, leaves, strict=True):
            filled[slot] = leaf
        return replace(self, ruled=replace(self.ruled, leaves=filled), plain=replace(self.plain, leaves=filled))

    def entry(self, coordinate: int, leaves: Leaves | None = None) -> str:
        """What to call a real coordinate of the arguments: ``x[3]``."""
        return coordinate_name(coordinate, self.leaves if leaves is None else leaves, self.ruled.names)


def candidate_of(rule: Any, args: tuple[Any, ...], primal: Callable[..., Any] | None) -> Candidate:
    """Raises RuleError: no rule, no plain function, or no floating argument."""
    is_custom = all(hasattr(rule, name) for name in ("primal", "jvp_rule", "fwd", "bwd"))
    if not callable(rule):
        raise RuleError(f"check_rule needs a function with a derivative rule; got {type(rule).__name__}")
    if isinstance(rule, type) and callable(getattr(rule, "apply", None)):
        raise RuleError(f"check_rule needs a function, and {rule.__name__} is a class; pass {rule.__name__}.apply")
    if not is_custom and primal is None:
        raise RuleError(
            f"{function_name(rule)} is not an adbridge.CustomRule, so that its plain function is not known; "
            "pass primal=, the same function without the rule"
        )
    if is_custom and rule.jvp_rule is None and rule.bwd is None:
        raise RuleError(f"{function_name(rule)} has no rule yet; give it one with .defjvp(jvp) or .defvjp(fwd, bwd)")
    plain = read_arguments(rule.primal if primal is None else primal, args)
    kept = _differentiated(rule, plain) if is_custom else plain.slots
    plain = replace(plain, slots=kept)
    return Candidate(called(rule), rule if is_custom else None, _ruled(rule, plain), plain)


def called(rule: Any) -> str:
    """Its name; of a class's method, such as ``torch.autograd.Function.apply``, the class's, too."""
    owner, name = getattr(rule, "__self__", None), function_name(rule)
    return f"{owner.__name__}.{name}" if isinstance(owner, type) else name


def _ruled(rule: Any, plain: Arguments) -> Arguments:
    """The same arguments for the rule; where it does not name them, as ``f(*args)``, the plain function does."""
    ruled = replace(plain, fun=rule)
    unnamed = any(name.startswith("args[") for name in ruled.names)
    return replace(ruled, known_names=plain.names) if unnamed else ruled


def _differentiated(rule: Any, arguments: Arguments) -> tuple[int, ...]:
    """The floating leaves outside of the rule's nondiff_argnums."""
    asked = getattr(rule, "nondiff_argnums", ())
    count = len(arguments.parts)
    constant = {a % count for a in ((asked,) if isinstance(asked, int) else asked)} if count else set()
    owner = [i for i, part in enumerate(arguments.parts) for _ in range(part.num_leaves)]
    slots = tuple(slot for slot in arguments.slots if owner[slot] not in constant)
    if not slots:
        raise RuleError(f"{function_name(rule)} has no floating argument outside of its nondiff_argnums {asked}")
    return slots


def _of_leaves(arguments: Arguments, name: str) -> Callable[..., Any]:
    """Raises (when called) RuleError: nothing is returned, or not arrays."""

    def function(*leaves: Any) -> Any:
        result = _beside(arguments, leaves).call(leaves)
        outs, treedef = outputs_of(arguments.fun, result)
        return outs[0] if treedef.num_nodes == 1 else tuple(outs)

    function.__name__ = function.__qualname__ = name
    return function


def _beside(arguments: Arguments, leaves: Sequence[Any]) -> Arguments:
    """With constant arrays as those of the engine that runs the function, as its operators hand them over."""
    if not owners_of(leaves):
        return arguments
    backend = choose(None, leaves)[0]
    moved = [
        backend.from_numpy(leaf) if isinstance(leaf, np.ndarray) and i not in arguments.slots else leaf
        for i, leaf in enumerate(arguments.leaves)
    ]
    return replace(arguments, leaves=moved)


# Real coordinates.


def sizes(leaves: Sequence[Any]) -> list[int]:
    return [leaf.size * (2 if leaf.dtype.kind == "c" else 1) for leaf in leaves]


def as_tangent(leaves: Sequence[Any]) -> Vector:
    """Real coordinates of values or tangents."""
    return _coordinates(leaves, 1)


def as_cotangent(leaves: Sequence[Any]) -> Vector:
    """Real coordinates of cotangents."""
    return _coordinates(leaves, -1)


def _coordinates(leaves: Sequence[Any], sign: int) -> Vector:
    parts = []
    for leaf in leaves:
        flat = np.asarray(leaf).reshape(-1)
        is_complex = flat.dtype.kind == "c"
        parts.append(np.stack([flat.real, sign * flat.imag], axis=1).reshape(-1) if is_complex else flat)
    return np.concatenate([np.asarray(p, float) for p in parts]) if parts else np.zeros(0)


def tangents_of(vector: Vector, like: Sequence[Any]) -> Leaves:
    """Arrays like `like` whose real coordinates are `vector`."""
    return _arrays(vector, like, 1)


def cotangents_of(vector: Vector, like: Sequence[Any]) -> Leaves:
    return _arrays(vector, like, -1)


def _arrays(vector: Vector, like: Sequence[Any], sign: int) -> Leaves:
    out, start = [], 0
    for leaf, size in zip(like, sizes(like), strict=True):
        part, start = vector[start : start + size], start + size
        values = part[::2] + sign * 1j * part[1::2] if leaf.dtype.kind == "c" else part
        out.append(np.asarray(values.reshape(leaf.shape), leaf.dtype))
    return tuple(out)


def coordinate_name(coordinate: int, leaves: Sequence[Any], names: Sequence[str]) -> str:
    """``x[0, 2]``, ``z[1] (imaginary part)``."""
    for leaf, name, size in zip(leaves, names, sizes(leaves), strict=True):
        if coordinate < size:
            part, place = "", coordinate
            if leaf.dtype.kind == "c":
                part, place = " (imaginary part)" if coordinate % 2 else "", coordinate // 2
            where = ", ".join(str(int(i)) for i in np.unravel_index(place, leaf.shape)) if leaf.shape else ""
            return f"{name}[{where}]{part}" if leaf.shape else f"{name}{part}"
        coordinate -= size
    raise IndexError(coordinate)


def importable(fun: Any) -> str:
    """``module:qualified.name`` under which a function can be imported, else the empty string."""
    module, name = getattr(fun, "__module__", None), getattr(fun, "__qualname__", getattr(fun, "__name__", None))
    owner = getattr(fun, "__self__", None)
    if isinstance(owner, type):  # what its bound method says of itself is where that was inherited from
        module, name = owner.__module__, f"{owner.__qualname__}.{fun.__name__}"
    if not module or not name or "<" in name or module == "__main__":
        return ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is fun or (owner is not None and found == fun) else ""
