"""One call of a custom rule, as an engine's adapter sees it: functions of flat tuples of the engine's arrays, which
check that the rule keeps its contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from adbridge.errors import CapabilityError, NotDifferentiable, RuleError
from adbridge.protocol import Arrays, Backend, read_only
from adbridge.readings import INEXACT, NUMPY, function_name
from adbridge.trees import PyTree, Spec, TreeDef, dtype_name, flatten, leaf_names, spec_of, unflatten

if TYPE_CHECKING:
    from adbridge.rules import CustomRule


class RuleCall:
    """One call of a rule, as functions of flat tuples of the engine's arrays among its arguments.

    `arrays` are these; `moving` the places among them of those with tangents; `frozen` of floating ones that are
    declared not to be differentiated. Tangents and cotangents are tuples of the moving arrays' alone; of outputs,
    of the floating ones alone. It may be run more than once, on arrays of the same kinds.
    """

    def __init__(self, rule: CustomRule, backend: Backend, leaves: list[Any], treedef: TreeDef) -> None:
        self.rule = rule
        self.backend = backend
        self.name = function_name(rule.primal)
        self._leaves, self._treedef = leaves, treedef
        self._slots = [i for i, leaf in enumerate(leaves) if backend.owns(leaf)]
        self.arrays: Arrays = tuple([leaves[i] for i in self._slots])
        fixed = self._fixed()
        floating = [i for i, array in enumerate(self.arrays) if is_floating(array)]
        self.moving = tuple([i for i in floating if self._slots[i] not in fixed])
        self.frozen = tuple([i for i in floating if self._slots[i] in fixed])
        self._specs: list[Spec] = []
        self._out: Parts | None = None

    @property
    def has_jvp(self) -> bool:
        """Whether it has a forward rule; or none at all, which `jvp` tells."""
        return self.rule.jvp_rule is not None or self.rule.fwd is None

    @property
    def has_vjp(self) -> bool:
        return self.rule.fwd is not None

    @property
    def floating(self) -> Sequence[int]:
        """The places of the outputs that have derivatives; once the function, or a rule, has been run."""
        assert self._out is not None
        return self._out.floating

    def primal(self, *arrays: Any) -> Arrays:
        """The function itself."""
        args, kwargs = self._given(arrays)
        return self._taken(self.rule.primal(*args, **kwargs))

    def jvp(self, arrays: Arrays, tangents: Arrays) -> tuple[Arrays, Arrays]:
        """``(outputs, tangents)``. Raises RuleError."""
        if self.rule.jvp_rule is None:
            raise RuleError(
                f"{self.name} is a custom_rule without a rule, and is being differentiated; give it one with "
                f"{self.name}.defjvp(jvp) or {self.name}.defvjp(fwd, bwd), or call the plain function"
            )
        args, kwargs = self._given(arrays)
        found = self.rule.jvp_rule(args, self._tangents(arrays, tangents), **kwargs)
        result, pushed = self._pair(found, "jvp", "(output, tangent of the output)")
        outs = self._taken(result)
        self._compare(outs, arrays, "jvp")
        return outs, self._checked_tangents(outs, pushed)

    def fwd(self, *arrays: Any) -> tuple[Arrays, Parts, Arrays]:
        """``(outputs, residuals apart from their arrays, these)``. Raises RuleError."""
        assert self.rule.fwd is not None
        args, kwargs = self._given(arrays)
        result, residuals = self._pair(self.rule.fwd(*args, **kwargs), "fwd", "(output, residuals)")
        outs = self._taken(result)
        self._compare(outs, arrays, "fwd")
        return outs, *taken_apart(residuals, self.backend.owns)

    def bwd(self, parts: Parts, kept: Arrays, cotangents: Arrays) -> Arrays:
        """The cotangents of the moving arrays, of what a run of `fwd` returned. Raises RuleError."""
        assert self.rule.bwd is not None and self._out is not None
        kwargs = unflatten(self._treedef, self._leaves)[1]
        cotangent = self._out.filled(tuple(map(guarded, cotangents)), self._out.floating)
        return self._checked_cotangents(
            self.rule.bwd(parts.put_together(tuple(map(guarded, kept))), cotangent, **kwargs)
        )

    def put_together(self, outs: Arrays) -> PyTree:
        """The function's result, of its outputs."""
        assert self._out is not None
        return self._out.put_together(outs)

    def refuse_frozen(self, which: int) -> NoReturn:
        """Raises NotDifferentiable: a frozen array has a tangent."""
        name = self._names()[self._slots[which]]
        raise NotDifferentiable(
            f"{name} of {self.name} is being differentiated, and is a keyword argument or one of its "
            "nondiff_argnums; apply stop_gradient to it, or make it a differentiable argument of the rule"
        )

    def refuse_closed_over(self, cause: Exception | None = None) -> NoReturn:
        """Raises RuleError: an output, or a residual, depends on an array that is no argument."""
        raise RuleError(
            f"{self.name}, a custom_rule, closes over an array that is being differentiated, for which its rule says "
            "nothing; make the array an argument of the rule, or apply stop_gradient to it"
        ) from cause

    def cannot_derive(self, mode: str, why: object) -> CapabilityError:
        """The error of a mode ("forward" or "reverse") that cannot be derived from the other."""
        given, add = ("bwd", "defjvp(jvp)") if mode == "forward" else ("jvp", "defvjp(fwd, bwd)")
        what = "cotangent" if mode == "forward" else "tangents"
        return CapabilityError(
            f"{mode} mode of {self.name} cannot be derived from its {given} on backend {self.backend.name!r}, which "
            f"transposes it as a linear function of the {what} ({why}); add {self.name}.{add}"
        )

    def refuse_unless_linear(self, mode: str, check: Callable[[], str]) -> None:
        """Once for calls of a kind. Raises CapabilityError: to derive `mode`, the other was found not to be linear."""
        key = self.key()
        if key is None or (mode, key) not in self.rule._linear:
            if why := check():
                raise self.cannot_derive(mode, why)
            self.rule._linear.add((mode, key))

    def is_like(self, other: Any) -> bool:
        """Whether it is a call of the same rule with the same arguments, but for arrays."""
        return (
            isinstance(other, RuleCall)
            and (self.rule, self._slots, self._treedef) == (other.rule, other._slots, other._treedef)
            and all(
                a is b for i, (a, b) in enumerate(zip(self._leaves, other._leaves, strict=True)) if i not in self._slots
            )
        )

    def adopt(self, other: RuleCall) -> None:
        """Take the output's tree from a call that is like this one, and has been run."""
        self._out = other._out

    # Arguments.

    def _fixed(self) -> set[int]:
        """The leaves that are in keyword arguments and nondiff_argnums."""
        by_argument, by_keyword = self._treedef.children()
        counts = [child.num_leaves for child in by_argument.children()]
        starts = np.cumsum([0, *counts]).tolist()
        fixed = set(range(by_argument.num_leaves, by_argument.num_leaves + by_keyword.num_leaves))
        for i in self.rule.nondiff_argnums:
            if -len(counts) <= i < len(counts):
                i %= len(counts)
                fixed.update(range(starts[i], starts[i + 1]))
        return fixed

    def _given(self, arrays: Arrays) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with these arrays in their places."""
        self._specs = [spec_of(array) for array in arrays]
        filled = list(self._leaves)
        for slot, array in zip(self._slots, arrays, strict=True):
            filled[slot] = guarded(array)
        return unflatten(self._treedef, filled)  # type: ignore[no-any-return]

    def _names(self) -> list[str]:
        by_argument, by_keyword = self._treedef.children()
        return [*leaf_names("argument", by_argument), *leaf_names("keyword argument", by_keyword)]

    def _tangents(self, arrays: Arrays, tangents: Arrays) -> tuple[Any, ...]:
        """In the arguments' tree, zero for constants of floating dtype."""
        fixed = self._fixed()
        leaves = [None if i in fixed else _zero(leaf, self.backend) for i, leaf in enumerate(self._leaves)]
        for slot in self._slots:
            leaves[slot] = None
        for i, tangent in zip(self.moving, tangents, strict=True):
            leaves[self._slots[i]] = guarded(tangent)
        return unflatten(self._treedef, leaves)[0]  # type: ignore[no-any-return]

    # Results.

    def _taken(self, result: PyTree) -> Arrays:
        self._out, outs = taken_apart(result, _is_array, self.backend)
        for leaf in self._out.leaves:
            if not isinstance(leaf, _PLAIN):
                raise RuleError(
                    f"{self.name}, a custom_rule, returned a {type(leaf).__name__}, in which arrays would not be "
                    "differentiated; return arrays, or tuples, lists, dicts and named tuples of them"
                )
        return outs

    def _pair(self, found: Any, function: str, wanted: str) -> tuple[Any, Any]:
        if isinstance(found, (tuple, list)) and len(found) == 2:
            return found[0], found[1]
        raise RuleError(f"{function} of {self.name} must return a pair, {wanted}; it returned {_described(found)}")

    def _compare(self, outs: Arrays, arrays: Arrays, function: str) -> None:
        """Raises RuleError: a rule's outputs have another tree, shapes or dtypes than the function's."""
        assert self._out is not None
        out, found = self._out, (self._out.treedef, tuple(map(spec_of, outs)))
        key = self.key()
        if key is not None and self.rule._like.get(key) == found:
            return
        args, kwargs = self._given(arrays)
        try:  # the rule, for engines may not differentiate the plain function
            wanted = self._taken(self.rule(*args, **kwargs))
        except RuleError:  # it closes over what encloses this: not to be compared here
            self._out = out
            return
        expected = (self._out.treedef, tuple(map(spec_of, wanted)))
        if key is not None:
            self.rule._like[key] = expected
        if found != expected:
            raise RuleError(
                f"{function} of {self.name} must return, first, what {self.name} returns: {_shown(*expected)}; it "
                f"returned {_shown(*found)}"
            )
        self._out = out

    def key(self) -> Any:
        """Of the call's kind; None if an argument cannot be compared."""
        arrays = set(self._slots)
        statics = [None if i in arrays else _static_key(leaf) for i, leaf in enumerate(self._leaves)]
        key = (self.backend.name, self._treedef, *self._specs, *statics)
        try:
            hash(key)
        except TypeError:
            return None
        if len(self.rule._like) > 256:
            self.rule._like.clear()
        return key

    def _checked_tangents(self, outs: Arrays, pushed: PyTree) -> Arrays:
        assert self._out is not None
        what = f"the tangent of the output that jvp of {self.name} returned"
        leaves = _flat_like(self._out.treedef, pushed, what, "the output")
        names = leaf_names("tangent", self._out.treedef)
        places = [(self._out.slots[i], outs[i]) for i in self._out.floating]
        return tuple([self._fitting(names[slot], leaves[slot], spec_of(out), "jvp", "output") for slot, out in places])

    def _checked_cotangents(self, found: Any) -> Arrays:
        by_argument = self._treedef.children()[0].children()
        if not isinstance(found, (tuple, list)) or len(found) != len(by_argument):
            many = "s" * (len(by_argument) != 1)
            raise RuleError(
                f"bwd of {self.name} must return a tuple of {len(by_argument)} cotangent{many}, one per argument "
                f"(None where it is not differentiable); it returned {_described(found)}"
            )
        moving = {self._slots[i]: self._specs[i] for i in self.moving}
        leaves: list[Any] = []
        for i, (treedef, cotangent) in enumerate(zip(by_argument, found, strict=True)):
            here = range(len(leaves), len(leaves) + treedef.num_leaves)
            if cotangent is None or moving.keys().isdisjoint(here):
                leaves += [None] * treedef.num_leaves
            else:
                what = f"cotangent {i} that bwd of {self.name} returned"
                leaves += _flat_like(treedef, cotangent, what, f"argument {i}")
        names = self._names()
        return tuple([
            self._fitting(f"the cotangent of {names[slot]}", leaves[slot], spec, "bwd", "argument")
            for slot, spec in moving.items()
        ])  # fmt: skip

    def _fitting(self, name: str, leaf: Any, spec: Spec, function: str, like: str) -> Any:
        """A tangent or cotangent as the engine's array. Raises RuleError: of another shape or dtype."""
        if leaf is None:
            raise RuleError(
                f"{function} of {self.name}: {name} is None, and the {like} is differentiable, {spec}; return zeros if "
                "it does not depend on it"
            )
        if isinstance(leaf, (int, float, complex)) and not isinstance(leaf, NUMPY):
            leaf = (
                np.asarray(leaf, spec.dtype)
                if not (isinstance(leaf, complex) and "complex" not in spec.dtype)
                else np.asarray(leaf)
            )
        if isinstance(leaf, NUMPY):
            leaf = self.backend.from_numpy(np.asarray(leaf))
        found = spec_of(leaf) if hasattr(leaf, "dtype") else None
        if found == spec:
            return leaf
        part = "structure" if found is None else "shape" if found.shape != spec.shape else "dtype"
        hint = "; sum over the axes that were broadcast" if part == "shape" and function == "bwd" else ""
        raise RuleError(
            f"{function} of {self.name}: {name} has the wrong {part}: expected {spec} like the {like}, got "
            f"{_described(leaf)}{hint}"
        )


class Parts:
    """A tree apart from its arrays: `slots` are their places among its leaves, `floating` those with derivatives."""

    def __init__(self, treedef: TreeDef, leaves: list[Any], slots: list[int], floating: list[int]) -> None:
        self.treedef, self.leaves, self.slots, self.floating = treedef, leaves, slots, floating

    def put_together(self, arrays: Arrays) -> PyTree:
        leaves = list(self.leaves)
        for slot, array in zip(self.slots, arrays, strict=True):
            leaves[slot] = array
        return unflatten(self.treedef, leaves)

    def filled(self, arrays: Arrays, which: Sequence[int]) -> PyTree:
        """The tree with these of its arrays, and None elsewhere."""
        leaves: list[Any] = [None] * len(self.leaves)
        for i, array in zip(which, arrays, strict=True):
            leaves[self.slots[i]] = array
        return unflatten(self.treedef, leaves)


def taken_apart(tree: PyTree, is_array: Callable[[Any], bool], backend: Backend | None = None) -> tuple[Parts, Arrays]:
    """A tree's parts, and its arrays: NumPy's and floats as the backend's, if one is given."""
    leaves, treedef = flatten(tree)
    slots = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
    arrays = [leaves[i] for i in slots]
    for slot in slots:
        leaves[slot] = None  # so that nothing is kept
    if backend is not None:
        arrays = [x if backend.owns(x) else backend.from_numpy(np.asarray(x)) if _is_neutral(x) else x for x in arrays]
    return Parts(treedef, leaves, slots, [i for i, x in enumerate(arrays) if is_floating(x)]), tuple(arrays)


_PLAIN = (type(None), bool, int, str, bytes, Enum, type, np.dtype, slice, range)
"""What may be among a function's results besides arrays."""


def is_floating(array: Any) -> bool:
    """Whether an engine's array is of floating or complex dtype: has derivatives."""
    return dtype_name(array.dtype) in INEXACT


def guarded(array: Any) -> Any:
    """A rule must not write to what others hold, too: an array, or a view of it that refuses."""
    return read_only(array) if type(array) is np.ndarray else array


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") or type(leaf) in (float, complex)


def _is_neutral(leaf: Any) -> bool:
    return isinstance(leaf, (*NUMPY, float, complex))


def _static_key(leaf: Any) -> Any:
    return spec_of(leaf) if isinstance(leaf, NUMPY) else (type(leaf), leaf)


def _zero(leaf: Any, backend: Backend) -> Any:
    """The tangent of a constant."""
    if isinstance(leaf, NUMPY) and leaf.dtype.kind in "fc":
        return backend.from_numpy(np.zeros_like(leaf))
    return 0.0 if type(leaf) in (float, complex) else None


def _flat_like(treedef: TreeDef, tree: PyTree, what: str, like: str) -> list[Any]:
    """The leaves of a tree with None for some of `treedef`'s. Raises RuleError: another structure."""
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError):
        raise RuleError(
            f"{what} has another structure than {like}: expected {_shown(treedef)}, got {_described(tree)}"
        ) from None


def _shown(treedef: TreeDef, specs: Sequence[Spec] = ()) -> str:
    leaves = [*specs, *["*"] * (treedef.num_leaves - len(specs))]
    return str(unflatten(treedef, map(_Word, leaves)))


class _Word:
    """Prints without quotes within a tree."""

    def __init__(self, word: object) -> None:
        self.word = word

    def __repr__(self) -> str:
        return str(self.word)


def _described(found: Any) -> str:
    """What a rule returned: its tree, with shapes and dtypes for arrays."""
    leaves, treedef = flatten(found)
    return str(unflatten(treedef, [_Word(spec_of(x) if hasattr(x, "dtype") else type(x).__name__) for x in leaves]))
