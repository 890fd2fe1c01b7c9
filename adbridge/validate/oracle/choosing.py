"""Which oracle can run a function: Arb arithmetic if it can be, else differences on an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError, RuleError
from adbridge.protocol import Backend
from adbridge.readings import function_name
from adbridge.registry import get_backend, inside, owners_of, table
from adbridge.trees import TreeDef, flatten, unflatten
from adbridge.validate.oracle.arguments import Arguments, outputs_of
from adbridge.validate.oracle.differences import DifferenceOracle, run_on


def oracle_for(arguments: Arguments, args: tuple[Any, ...], digits: int, backend: Any) -> tuple[Any, str, str]:
    """``(oracle, method, why not Arb)``. Raises RuleError, or what the function raised on the engine it belongs to."""
    owners = sorted(owners_of(flatten(args)[0]))
    if backend is None and owners:
        backend = owners[0]
    if backend is not None:
        engine = get_backend(backend)
        return _on(arguments, engine, digits, f"it was run on {engine.name}")
    try:
        return _checked(arguments, _over_balls(arguments, digits)), "arb", ""
    except RuleError:
        raise
    except Exception as exc:  # whatever a function raises on arrays that it was not written for
        why = f"it does not run in Arb arithmetic: {type(exc).__name__}: {exc}"
    return _on_an_engine(arguments, digits, why)


def _on(arguments: Arguments, engine: Backend | None, digits: int, why: str) -> tuple[Any, str, str]:
    """The engine's own code in Arb arithmetic, if the adapter can read it; else differences on the engine."""
    oracle = _checked(arguments, DifferenceOracle(arguments, engine))
    program = None if engine is None else _interpreted(arguments, engine)
    if program is None:
        return oracle, "differences", why
    try:
        return _over_balls(program, digits), "arb", ""
    except Exception as exc:  # an operation that has no counterpart
        return oracle, "differences", f"{why}; {_first_line(exc)}"


def _interpreted(arguments: Arguments, engine: Backend) -> Arguments | None:
    """The same function of the reference engine's arrays; None if the engine's code cannot be read."""
    trees: list[TreeDef] = []

    def flat(*arrays: Any) -> tuple[Any, ...]:
        with inside(engine):
            leaves, tree = outputs_of(arguments.fun, arguments.call(arrays))
        trees.append(tree)
        return tuple(leaves)

    try:
        program = engine.interpreted(flat, tuple(arguments.active))
    except Exception:  # branches on values, code that is not the engine's: it cannot be read without running it
        return None
    if program is None:
        return None

    def fun(*args: Any) -> Any:
        leaves = flatten(args)[0]
        return unflatten(trees[-1], program(*[leaves[slot] for slot in arguments.slots]))

    fun.__name__ = function_name(arguments.fun)
    return replace(arguments, fun=fun, known_names=arguments.names)


def _over_balls(arguments: Arguments, digits: int) -> Any:
    try:
        import flint  # noqa: F401
    except ImportError as exc:
        raise AdbridgeError("python-flint is not installed; run: pip install 'adbridge[arb]'") from exc
    from adbridge.validate.oracle.balls import BallOracle

    return BallOracle(arguments, digits)


def _on_an_engine(arguments: Arguments, digits: int, why: str) -> tuple[Any, str, str]:
    """On NumPy arrays, or on the first engine whose arrays the function takes."""
    failures = []
    for name in (None, *(n for n, entry in table().items() if entry.default and n != "reference")):
        try:
            engine = _engine_of(arguments) if name is None else get_backend(name)
            return _on(arguments, engine, digits, why)
        except RuleError:
            raise
        except Exception as exc:  # the next engine may do
            failures.append(f"on {name or 'NumPy arrays'}: {type(exc).__name__}: {_first_line(exc)}")
    raise RuleError(
        f"{function_name(arguments.fun)} ran neither in Arb arithmetic ({_first_line(why)}) nor anywhere else: "
        + "; ".join(failures)
    )


def _engine_of(arguments: Arguments) -> Backend | None:
    """The engine whose functions turn NumPy arrays into their own; None if the result is NumPy's.

    Left to itself, such an engine may narrow NumPy's float64.
    """
    owners = sorted(owners_of(flatten(run_on(None, arguments, arguments.active))[0]))
    return get_backend(owners[0]) if owners else None


def _first_line(text: object) -> str:
    lines = str(text).strip().splitlines()
    return lines[0] if lines else ""


def _checked(arguments: Arguments, oracle: Any) -> Any:
    """Run once more: the function must give the same again, and leave its arguments as they are.

    Raises RuleError: it does not.
    """
    name = function_name(arguments.fun)
    backend: Backend | None = getattr(oracle, "backend", None)
    arrays = [np.array(leaf) for leaf in arguments.active]
    if isinstance(oracle, DifferenceOracle):
        first, again = (flatten(run_on(backend, arguments, arrays))[0] for _ in range(2))
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, again, strict=True))
    else:
        first, again = oracle.fresh(), oracle.fresh()
        same = len(first) == len(again) and all(map(_consistent, first, again))
    if not same:
        raise RuleError(
            f"{name} gave two results for the same arguments: it depends on something that changes (a random number, "
            "a counter, a global); pass that as an argument, or fix the seed inside"
        )
    return oracle


def _consistent(a: Any, b: Any) -> bool:
    """Whether two balls may be one number; their ends depend on how many digits of pi are at hand."""
    return bool(a.overlaps(b) or (a.is_nan() and b.is_nan()))
