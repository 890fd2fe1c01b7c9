"""What a program remembers of the run that it was recorded from; calling it again; its derivatives as programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adbridge.backends.reference import show
from adbridge.backends.reference.primitives import Primitive, Var
from adbridge.backends.reference.program import Equation, Program, evaluate
from adbridge.backends.reference.tidy import tidy
from adbridge.backends.reference.tracer import Recorder, Tracer, concrete
from adbridge.backends.reference.transforms import jvp, linearize, pull, record, record_on, zero_like
from adbridge.errors import NotDifferentiable, SignatureMismatch, UsageError
from adbridge.protocol import Arrays, read_only
from adbridge.signatures import same
from adbridge.trees import PyTree, Spec, TreeDef, check_specs, check_structure, flatten, leaf_names, spec_of, unflatten


@dataclass(frozen=True)
class Run:
    """One run: the arguments' tree, which of its leaves are the program's inputs, and the value of every variable.

    `leaves` has None in the place of each input; the others are constants of the program.
    """

    treedef: TreeDef
    leaves: tuple[Any, ...]
    slots: tuple[int, ...]
    out_tree: TreeDef
    inputs: Arrays
    values: dict[int, Any]
    sweeps: int = 1
    """Forward and reverse passes through the function that was traced first."""

    @property
    def active_tree(self) -> TreeDef:
        """The arguments' tree, with None for what is not an input."""
        slots = set(self.slots)
        return flatten(unflatten(self.treedef, [0 if i in slots else None for i in range(len(self.leaves))]))[1]

    def read(self, args: tuple[Any, ...]) -> Arrays:
        """The inputs among new arguments. Raises SignatureMismatch: unlike the recorded ones."""
        return like(self.inputs, *self.pick(args), "the recorded run")

    def pick(self, args: tuple[Any, ...]) -> tuple[list[Any], list[str]]:
        """The leaves that are inputs, and their names. Raises SignatureMismatch: another tree, another constant."""
        leaves, treedef = flatten(args)
        check_structure("the arguments", treedef, self.treedef, "the recorded run")
        names = leaf_names("args", treedef)
        for i, (leaf, recorded) in enumerate(zip(leaves, self.leaves, strict=True)):
            if i not in self.slots and not same(leaf, recorded):
                raise SignatureMismatch(
                    f"{names[i]} was {recorded!r} when this program was recorded, and is a constant of it; "
                    f"got {leaf!r}: trace the function again"
                )
        return [leaves[i] for i in self.slots], [names[i] for i in self.slots]


def like(arrays: Arrays, leaves: Sequence[Any], names: Sequence[str], root: str) -> Arrays:
    """Leaves as arrays with the shapes and dtypes of `arrays`; Python's numbers take the dtype.

    Raises SignatureMismatch: another shape or dtype.
    """
    found = tuple(_array(leaf, spec_of(array)) for leaf, array in zip(leaves, arrays, strict=True))
    check_specs(names, [spec_of(x) for x in found], [spec_of(x) for x in arrays], root)
    return found


def _array(leaf: Any, spec: Spec) -> Any:
    if isinstance(leaf, (int, float, complex)) and not isinstance(leaf, (bool, np.generic)):
        weak = not isinstance(leaf, complex) or "complex" in spec.dtype
        return np.asarray(leaf, spec.dtype if weak else None)
    return leaf if isinstance(leaf, Tracer) else np.asarray(leaf)


def remember(program: Program, run: Callable[[dict[int, Any]], Run], inputs: Arrays) -> Program:
    """The program with its run, all values among it."""
    program = _with_own_constants(program)
    every = (*program.inputs, *(eq.output for eq in program.equations))
    values = evaluate(Program(program.inputs, program.equations, every, [], program.size), *inputs)
    return replace(program, run=run({var.index: value for var, value in zip(every, values, strict=True)}))


def _with_own_constants(program: Program) -> Program:
    """With copies of the arrays that the function closes over, which their owner may change."""
    copies: dict[int, Any] = {}

    def own(x: Any) -> Any:
        if not isinstance(x, np.ndarray) or not x.flags.writeable:
            return x
        return copies.setdefault(id(x), x.copy(order="K"))

    equations = [Equation(eq.primitive, tuple(map(own, eq.inputs)), eq.params, eq.output) for eq in program.equations]
    return replace(program, equations=equations, outputs=tuple(map(own, program.outputs)))


def run_of(program: Program) -> Run:
    if program.run is None:
        raise UsageError("this program keeps no run, so it has no values or arguments; make it with adbridge.trace")
    return program.run


def call(program: Program, args: tuple[Any, ...]) -> PyTree:
    """The program on new arguments: those of the traced function, its result's tree."""
    run = run_of(program)
    return unflatten(run.out_tree, map(_as_numpy, evaluate(guarded(program), *run.read(args))))


def _as_numpy(x: Any) -> Any:
    return x if isinstance(x, Tracer) else np.array(x)


# Guards: what the run relied on is compared again, by steps among the others.


class Check(Primitive):
    """Raises if its argument has another value than when the program was recorded.

    Not a row of the table: on tracers it only looks, so that a program recorded from this one has the guard too.
    """

    __slots__ = ("said", "value")

    def __init__(self, value: Any, said: str) -> None:
        super().__init__("check", self.compare)
        self.value = value
        self.said = said

    def compare(self, x: Any) -> None:
        found = concrete(x)
        if not np.array_equal(found, self.value, equal_nan=np.asarray(found).dtype.kind in "fc"):
            raise SignatureMismatch(
                f"this program was recorded with {self.said}; at these arguments it is {show.short(found)}: the "
                "function may go another way here, so trace it again"
            )

    def __call__(self, *args: Any, **params: Any) -> None:
        self.compare(*args)


def guarded(program: Program) -> Program:
    """The program with its guards as steps, each where the run relied on it."""
    if not program.guards:
        return program
    equations, size = [], program.size
    waiting = sorted(program.guards, key=lambda guard: guard.at, reverse=True)
    known: set[int] = {x.index for x in program.inputs}
    for eq in (*program.equations, None):
        while waiting and waiting[-1].var.index in known:
            guard = waiting.pop()
            check = Check(guard.value, show.guard(program, guard))
            equations.append(Equation(check, (guard.var,), {}, Var(size, (), None)))
            size += 1
        if eq is not None:
            equations.append(eq)
            known.add(eq.output.index)
    return Program(program.inputs, equations, program.outputs, [], size)


def without_rules(program: Program) -> Program:
    """The program with the operations of functions that have custom rules, each of which is one step of it."""
    from adbridge.backends.reference.custom import Ruled

    if program.run is None or not any(isinstance(eq.primitive, Ruled) for eq in program.equations):
        return program
    run = program.run
    recorded = record_on(Recorder(inline=True), lambda *xs: evaluate(guarded(program), *xs), run.inputs)
    return remember(recorded, lambda values: replace(run, values=values), run.inputs)


def over_numbers(program: Program, args: tuple[Any, ...], number: str, bits: int) -> Arrays:
    """The outputs over another number type, whose decisions must be those of the run.

    Arguments are those of the traced function; of a program that keeps no run, an array per input. A guard on a
    floating value is not looked at: that it differs in the last digits is what another number type is for.
    """
    from adbridge.backends.reference.numbers import evaluate_in

    arrays = args if program.run is None else _shaped(program.run, *program.run.pick(args))
    guards = [guard for guard in program.guards if guard.value.dtype.kind in "biu"]
    watched = (*program.outputs, *(guard.var for guard in guards))
    results = evaluate_in(Program(program.inputs, program.equations, watched, [], program.size), arrays, number, bits)
    outs, decisions = results[: len(program.outputs)], results[len(program.outputs) :]
    for guard, decision in zip(guards, decisions, strict=True):
        Check(guard.value, show.guard(program, guard)).compare(decision)
    return outs


def _shaped(run: Run, leaves: list[Any], names: list[str]) -> Arrays:
    for name, leaf, recorded in zip(names, leaves, run.inputs, strict=True):
        if (found := np.shape(leaf)) != recorded.shape:
            raise SignatureMismatch(f"{name} has the wrong shape: expected {recorded.shape}, got {found}")
    return tuple(leaves)


# Derivatives.


@dataclass(frozen=True, repr=False)
class TangentTrace:
    """The forward tangent trace: printed, each step's value and tangent beside it.

    `tangents` are the output's, in its tree; `program` maps the arguments followed by their tangents to these.
    """

    primal: Program
    program: Program
    seeds: Arrays
    tangents: PyTree

    def __str__(self) -> str:
        return show.tangent_table(self.primal, self.seeds)

    def __repr__(self) -> str:
        return str(self)

    def to_svg(self, path: Any = None) -> str:
        """The primal's graph, each value's tangent below it."""
        from adbridge.backends.reference.graph import to_svg

        return to_svg(self.primal, path, show.tangent_notes(self.primal, self.seeds))


@dataclass(frozen=True, repr=False)
class AdjointTrace:
    """The reverse adjoint trace: printed, the values first, then the adjoints, last step first.

    `cotangents` are the arguments', a tuple of their trees (None for what is not an input); `program` maps the
    arguments, and the output's cotangents if these were given, to them.
    """

    primal: Program
    program: Program
    seeds: Arrays
    cotangents: tuple[Any, ...]

    def __str__(self) -> str:
        return show.adjoint_table(self.primal, self.seeds)

    def __repr__(self) -> str:
        return str(self)

    def to_svg(self, path: Any = None) -> str:
        """The primal's graph, each value's adjoint below it."""
        from adbridge.backends.reference.graph import to_svg

        return to_svg(self.primal, path, show.adjoint_notes(self.primal, self.seeds))


def tangent_trace(program: Program, tangents: Sequence[Any]) -> TangentTrace:
    run, n = run_of(program), len(program.inputs)
    if not isinstance(tangents, (tuple, list)):
        raise SignatureMismatch(f"jvp needs tangents as a tuple, one per argument; got {type(tangents).__name__}")
    leaves, tree = flatten(tuple(tangents))
    check_structure("tangents", tree, run.active_tree, "the arguments")
    seeds = like(run.inputs, leaves, leaf_names("tangents", tree), "the arguments")

    def pushed(*arrays: Any) -> Arrays:
        outs, moved, _ = jvp(_flat(program), arrays[:n], arrays[n:])
        return tuple(zero_like(out) if t is None else t for t, out in zip(moved, outs, strict=True))

    derived = _derived(program, pushed, tuple(tangents), seeds, run.out_tree, run.sweeps)
    return TangentTrace(program, derived, seeds, _results(derived))


def adjoint_trace(program: Program, cotangents: Any) -> AdjointTrace:
    run, n = run_of(program), len(program.inputs)
    outs = tuple(value_of(run, out) for out in program.outputs)
    _check_differentiable(outs, run.out_tree)
    given = cotangents is not None
    leaves, tree = flatten(cotangents) if given else ([np.ones((), x.dtype) for x in outs], run.out_tree)
    if not given and (len(outs) != 1 or outs[0].shape != ()):
        found = unflatten(run.out_tree, [str(spec_of(x)) for x in outs])
        raise SignatureMismatch(f"vjp needs cotangents like the output, {found}; only a scalar's may be left out (1)")
    check_structure("cotangents", tree, run.out_tree, "the output")
    seeds = like(outs, leaves, leaf_names("cotangents", tree), "the output")

    def pulled(*arrays: Any) -> Arrays:
        _, linear, _ = linearize(_flat(program), arrays[:n])
        return pull(linear, arrays[n:] or seeds)

    more, extra = ((cotangents,), seeds) if given else ((), ())
    derived = _derived(program, pulled, more, extra, run.active_tree, 2 * run.sweeps)
    return AdjointTrace(program, derived, seeds, _results(derived))


def value_of(run: Run, x: Any) -> Any:
    return run.values[x.index] if type(x) is Var else np.asarray(x)


def _flat(program: Program) -> Callable[..., tuple[Arrays, Arrays]]:
    checked = guarded(program)
    return lambda *xs: (tuple(map(_strong, evaluate(checked, *xs))), ())


def _strong(x: Any) -> Any:
    return x if hasattr(x, "dtype") else np.asarray(x)


def _derived(
    program: Program, fun: Callable[..., Arrays], more: tuple[Any, ...], seeds: Arrays, out_tree: TreeDef, sweeps: int
) -> Program:
    """The program of `fun`, whose arguments are those of `program` and `more`, of which `seeds` are all the leaves."""
    run = run_of(program)
    holes = iter(run.inputs)
    leaves = [next(holes) if i in run.slots else leaf for i, leaf in enumerate(run.leaves)]
    _, treedef = flatten((*unflatten(run.treedef, leaves), *more))
    inputs = (*run.inputs, *map(read_only, seeds))
    slots = (*run.slots, *range(len(leaves), len(leaves) + len(seeds)))
    kept = (*run.leaves, *[None] * len(seeds))
    recorded = tidy(record(fun, *inputs))
    return remember(recorded, lambda values: Run(treedef, kept, slots, out_tree, inputs, values, sweeps), inputs)


def _results(program: Program) -> Any:
    run = run_of(program)
    return unflatten(run.out_tree, [np.array(value_of(run, out)) for out in program.outputs])


def _check_differentiable(outs: Arrays, out_tree: TreeDef) -> None:
    for name, out in zip(leaf_names("output", out_tree), outs, strict=True):
        if out.dtype.kind not in "fc":
            raise NotDifferentiable(f"{name} is {spec_of(out)}, which has no cotangent; trace a function without it")
