"""What is asked of each backend: a function, a point, directions; and how a refusal is told from a failure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from adbridge.errors import CapabilityError, MixedBackends, NotDifferentiable, RuleError
from adbridge.operators import Operator
from adbridge.protocol import Backend
from adbridge.readings import INEXACT, function_name, plain
from adbridge.registry import get_backend, owners_of
from adbridge.trees import PyTree, Spec, TreeDef, dtype_name, flatten, leaf_names, spec_of, unflatten

OPERATORS = ("value", "grad", "vjp", "jvp", "hvp")


@dataclass(frozen=True)
class Subject:
    """A function at a point: ``fun(*args)``, its floating leaves active, the others constants.

    `leaves` are those of `args`; `active` the places of the floating ones. The same directions are asked of
    every backend: `tangents` and `cotangents`.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    leaves: tuple[Any, ...]
    treedef: TreeDef
    active: tuple[int, ...]

    @cached_property
    def flat(self) -> Callable[..., Any]:
        """The function of the leaves of its arguments; it keeps its name."""

        def flat(*leaves: Any) -> Any:
            return self.fun(*unflatten(self.treedef, leaves))

        flat.__name__ = function_name(self.fun)
        return flat

    def like_arguments(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        """One part per active leaf, as a tuple like the arguments, with None in place of the other leaves."""
        filled = dict(zip(self.active, parts, strict=True))
        return tuple(unflatten(self.treedef, [filled.get(i) for i in range(len(self.leaves))]))

    def active_specs(self) -> list[Spec]:
        return [spec_of(_as_array(self.leaves[i])) for i in self.active]

    def flat_tangents(self) -> tuple[Any, ...]:
        """One tangent per active leaf, in NumPy."""
        return directions(self.active_specs())

    def at(self, leaves: Iterable[Any]) -> Subject:
        """The same function at another point."""
        found = tuple(leaves)
        return Subject(self.fun, tuple(unflatten(self.treedef, found)), found, self.treedef, self.active)

    def in_numpy(self) -> Subject:
        """The same, with NumPy arrays in place of an engine's."""
        owners = owners_of(self.leaves)
        if not owners:
            return self
        backend = get_backend(owners.pop())
        return self.at(backend.to_numpy(leaf) if backend.owns(leaf) else leaf for leaf in self.leaves)


def subject_of(fun: Callable[..., Any], args: tuple[Any, ...]) -> Subject:
    """Raises RuleError: no argument is floating."""
    leaves, treedef = flatten(args)
    leaves = [plain(leaf) for leaf in leaves]
    active = tuple(i for i, leaf in enumerate(leaves) if _is_active(leaf))
    if not active:
        found = ", ".join(
            f"{name} is {spec_of(leaf) if hasattr(leaf, 'dtype') else repr(leaf)}"
            for name, leaf in zip(leaf_names("args", treedef), leaves, strict=True)
        )
        raise RuleError(
            f"crosscheck of {function_name(fun)} needs a floating argument, by which to differentiate; got "
            f"{found or 'no argument'}: pass floats, such as 2.0"
        )
    return Subject(fun, tuple(unflatten(treedef, leaves)), tuple(leaves), treedef, active)


def _is_active(leaf: Any) -> bool:
    if isinstance(leaf, (float, complex)):
        return True
    return hasattr(leaf, "dtype") and dtype_name(leaf.dtype) in INEXACT


def _as_array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def directions(specs: list[Spec]) -> tuple[Any, ...]:
    """For each spec an array of both signs and sizes between 1/2 and 3/2; always the same.

    Multiples of 1/128: exact in every dtype, so that all engines are asked the same thing.
    """
    rng = np.random.default_rng(2718)

    def signed(shape: tuple[int, ...]) -> Any:
        return rng.choice((-1.0, 1.0), shape) * rng.integers(64, 193, shape) / 128

    return tuple(
        np.asarray(signed(s.shape) + 1j * signed(s.shape) if "complex" in s.dtype else signed(s.shape), s.dtype)
        for s in specs
    )


# One operator on one backend.


def run(operator: str, subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    """The result as NumPy: the value, the tangent of the output, or a tuple like the arguments.

    Args:
        output: the function's value on this backend (of which only the structure counts), for the cotangents.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of overflow, say: the result is what is judged
        return _to_numpy(backend, _RUN[operator](subject, backend, output))


def _value(subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    return Operator("value", subject.flat, subject.active, backend=backend)(*subject.leaves)


def _grad(subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    return subject.like_arguments(Operator("grad", subject.flat, subject.active, backend=backend)(*subject.leaves))


def _vjp(subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    operator = Operator("vjp", subject.flat, subject.active, backend=backend)
    return subject.like_arguments(operator(subject.leaves, _native(subject, backend, cotangents(output))))


def _jvp(subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    return _pushed(subject, backend, subject.flat)


def _hvp(subject: Subject, backend: Backend, output: PyTree) -> PyTree:
    gradient = Operator("grad", subject.flat, subject.active, backend=backend, scalar_for="hvp")
    return subject.like_arguments(_pushed(subject, backend, gradient))


def _pushed(subject: Subject, backend: Backend, fun: Callable[..., Any]) -> Any:
    operator = Operator("jvp", fun, subject.active, backend=backend)
    return operator(subject.leaves, _native(subject, backend, subject.flat_tangents()))[1]


_RUN = {"value": _value, "grad": _grad, "vjp": _vjp, "jvp": _jvp, "hvp": _hvp}


def cotangents(output: PyTree) -> PyTree:
    """A cotangent like the output."""
    leaves, treedef = flatten(output)
    return unflatten(treedef, directions([spec_of(_as_array(leaf)) for leaf in leaves]))


def _native(subject: Subject, backend: Backend, tree: PyTree) -> PyTree:
    """Directions as the engine's arrays, where the arguments are."""
    if not any(backend.owns(leaf) for leaf in subject.leaves):
        return tree
    leaves, treedef = flatten(tree)
    with backend.scope([str(leaf.dtype) for leaf in leaves]):
        return unflatten(treedef, [backend.from_numpy(leaf) for leaf in leaves])


def _to_numpy(backend: Backend, tree: PyTree) -> PyTree:
    leaves, treedef = flatten(tree)
    return unflatten(treedef, [backend.to_numpy(leaf) if backend.owns(leaf) else np.array(leaf) for leaf in leaves])


# What went wrong.


@dataclass(frozen=True)
class Failure:
    """Why a backend has no result. `foreign`: the function does not take this engine's arrays."""

    exception: Exception
    verdict: str
    note: str
    foreign: bool = False


_TRACERS = re.compile(r"[Tt]racer|traced array|ArrayBox|FloatBox|ComplexBox|Tensor|ArrayImpl")
_REFUSES = re.compile(
    r"can't apply|must override|(does not|doesn't) (have|implement|support)|not (implemented|supported)"
    r"|takes .* positional|unexpected keyword|missing .* required"
)
_WRITE = "write it with xp = adbridge.array_namespace(x)"


def attempt(operator: str, subject: Subject, backend: Backend, output: PyTree) -> Any:
    """`run`, or what it failed by."""
    try:
        return run(operator, subject, backend, output)
    except Exception as exc:
        return failure(exc, backend, operator)


def failure(exc: Exception, backend: Backend, operator: str) -> Failure:
    """`unsupported` where the engine, or the function, says that it does not take part; else `error`.

    It does so by the exceptions made for it; by a type error that names the engine's arrays or tracers, which is
    how functions of another library refuse them; by a function that the engine's namespace lacks, or has with other
    parameters; and in words, of a rule without forward mode, say.
    """
    named = f"{type(exc).__name__}: {first_line(exc, 100)}"
    if isinstance(exc, (CapabilityError, NotDifferentiable, MixedBackends)):
        return Failure(exc, "unsupported", first_line(exc))
    if isinstance(exc, (TypeError, RuntimeError)) and _TRACERS.search(str(exc)):
        note = f"the function does not take this engine's arrays; {_WRITE} ({named})"
        return Failure(exc, "unsupported", note, foreign=True)
    if isinstance(exc, (NotImplementedError, AttributeError)) or _REFUSES.search(str(exc)):
        return Failure(exc, "unsupported", named)
    if operator == "value" and isinstance(exc, TypeError):
        return Failure(exc, "unsupported", f"the function does not run on this engine; {_WRITE} ({named})")
    return Failure(exc, "error", f"raises {named}")


def first_line(exc: Exception, width: int = 200) -> str:
    """What an exception says, in a line of at most so many characters."""
    lines = str(exc).strip().splitlines()
    text = lines[0].strip() if lines else ""
    return text if len(text) <= width else f"{text[: width - 3]}..."
