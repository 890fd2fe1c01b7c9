"""Derivative rules that are written once, in array-API code, and are used by every engine.

A `CustomRule` knows functions of pytrees; an engine's adapter (`Backend.custom_rule`) is handed a `RuleCall` instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import update_wrapper
from inspect import Parameter, signature
from operator import index
from typing import Any, TypeVar, overload

from adbridge.errors import RuleError
from adbridge.readings import function_name
from adbridge.recomputing import backend_of
from adbridge.rule_calls import RuleCall
from adbridge.trees import flatten

Function = Callable[..., Any]
_F = TypeVar("_F", bound=Function)


@overload
def custom_rule(fun: Function, *, nondiff_argnums: Sequence[int] = ()) -> CustomRule: ...
@overload
def custom_rule(*, nondiff_argnums: Sequence[int] = ()) -> Callable[[Function], CustomRule]: ...
def custom_rule(
    fun: Function | None = None, *, nondiff_argnums: Sequence[int] = ()
) -> CustomRule | Callable[[Function], CustomRule]:
    """`fun` with a derivative rule of its own, on every engine and in every nesting of operators.

    Args:
        fun: takes and returns pytrees of arrays. Keyword arguments are static: they are handed to `fun` and its
            rules, and never differentiated. It must not close over arrays that are being differentiated.
        nondiff_argnums: positional arguments that are never differentiated, either.

    Returns:
        A CustomRule, called like `fun`. Give it `defjvp` or `defvjp`, or both.

    A rule's code is differentiated in its turn at the next order. Outside of derivatives, and where the arrays are no
    engine's (NumPy's, or of a backend that differentiates by evaluating), a call is a call of `fun`. With one of the
    two rules, engines derive the other mode by transposing it, which needs it to be linear in the tangents or
    cotangents. With both, forward mode uses `defjvp`'s and reverse mode `defvjp`'s.

    A call may run the function and its rules more than once: they must return the same each time (a random mask is an
    argument, not drawn within), and write to nothing that they are given. A rule that is itself applied to tangents,
    within a rule that is being transposed, is replaced by its function, which must be linear in them.

    Raises:
        RuleError (from a derivative): no rule was given, or one breaks its contract; the function closes over an
        array under differentiation. CapabilityError: a mode that is not given and cannot be derived.
        NotDifferentiable: with respect to an argument that is declared not to be.

    >>> import numpy as np
    >>> import adbridge as ad
    >>> @ad.custom_rule
    ... def log1pexp(x):
    ...     xp = ad.array_namespace(x)
    ...     return xp.log(1 + xp.exp(x))
    >>> @log1pexp.defjvp
    ... def log1pexp_jvp(primals, tangents):
    ...     (x,), (t,) = primals, tangents
    ...     xp = ad.array_namespace(x)
    ...     return log1pexp(x), t * (1 - 1 / (1 + xp.exp(x)))
    >>> print(ad.grad(log1pexp, backend="reference")(100.0))
    1.0
    """
    if fun is None:
        return lambda fun: CustomRule(fun, nondiff_argnums)
    return CustomRule(fun, nondiff_argnums)


class CustomRule:
    """A function with derivative rules; called like the function. Made by `custom_rule`.

    `primal` is the plain function, differentiated by an engine's own rules; `jvp_rule`, `fwd` and `bwd` are what
    `defjvp` and `defvjp` were given, or None. It is pickled, like a function, by its name if it has one in its
    module, and else by its parts.
    """

    def __init__(self, fun: Function, nondiff_argnums: Sequence[int] = ()) -> None:
        if not callable(fun):
            raise RuleError(f"custom_rule needs a function, got {type(fun).__name__}; write custom_rule(fun)")
        update_wrapper(self, fun)
        self.primal = fun
        self.nondiff_argnums = _argnums(nondiff_argnums)
        _check_range(fun, self.nondiff_argnums)
        self.jvp_rule: Function | None = None
        self.fwd: Function | None = None
        self.bwd: Function | None = None
        self._like: dict[Any, Any] = {}  # what the primal returns, by what it is given
        self._linear: set[Any] = set()  # the modes, and kinds of calls, whose rule has been seen to be linear

    def defjvp(self, jvp: _F) -> _F:
        """Set the forward rule, ``jvp(primals, tangents, **static) -> (out, tangent_out)``; it replaces an earlier one.

        `primals` and `tangents` are tuples, one per argument; tangents have the shapes and dtypes of the primals,
        None in the place of what is not differentiable: integers, strings, `nondiff_argnums`. The tangent of the
        output has its tree, shapes and dtypes, None for integer outputs. Returns `jvp`: usable as a decorator.
        """
        self.jvp_rule = _function(self, "defjvp", jvp)
        self._linear.clear()
        return jvp

    def defvjp(self, fwd: Function, bwd: Function) -> None:
        """Set the reverse rule: ``fwd(*args, **static) -> (out, residuals)``, and ``bwd(residuals, cotangent,
        **static)``, which returns a tuple, one per argument. It replaces an earlier one.

        `residuals` is any pytree. `cotangent` has the output's tree, shapes and dtypes (None for integer outputs), and
        is not conjugated. Cotangents have the tree, shapes and dtypes of the arguments; what is there for one
        that is not differentiable, such as None, is not looked at.
        """
        self.fwd, self.bwd = _function(self, "defvjp", fwd), _function(self, "defvjp", bwd)
        self._linear.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, treedef = flatten((args, kwargs))
        backend = backend_of(leaves)
        if backend is None:
            result = self.primal(*args, **kwargs)
            backend = backend_of(flatten(result)[0])
            if backend is None:
                return result
        call = RuleCall(self, backend, leaves, treedef)
        return call.put_together(backend.custom_rule(call, call.arrays))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Refused, as the method's rule would not get its object."""
        if instance is None:
            return self
        raise RuleError(
            f"{function_name(self.primal)} is a method; make the rule inside of it, of a function of the arrays alone"
        )

    def __repr__(self) -> str:
        rules = [word for word, rule in (("jvp", self.jvp_rule), ("vjp", self.fwd)) if rule is not None]
        return f"<custom rule of {function_name(self.primal)}: {' and '.join(rules) or 'no rule yet'}>"

    def __reduce__(self) -> Any:
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        for part in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        if found is self:
            return self.__qualname__
        return _restored, (self.primal, self.nondiff_argnums, self.jvp_rule, self.fwd, self.bwd)


def _restored(
    fun: Function, nondiff_argnums: Sequence[int], jvp: Function | None, fwd: Function | None, bwd: Function | None
) -> CustomRule:
    rule = CustomRule(fun, nondiff_argnums)
    rule.jvp_rule, rule.fwd, rule.bwd = jvp, fwd, bwd
    return rule


def _argnums(argnums: Any) -> tuple[int, ...]:
    try:
        return (index(argnums),) if hasattr(argnums, "__index__") else tuple(index(i) for i in argnums)
    except TypeError:
        raise RuleError(f"nondiff_argnums must be ints, the places of arguments; got {argnums!r}") from None


def _check_range(fun: Function, argnums: tuple[int, ...]) -> None:
    """Raises RuleError: an argument that the function cannot be given."""
    try:
        kinds = [p.kind for p in signature(fun).parameters.values()]
    except (TypeError, ValueError):  # a function without a signature
        return
    count = sum(kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    wrong = [i for i in argnums if not -count <= i < count]
    if wrong and Parameter.VAR_POSITIONAL not in kinds:
        raise RuleError(
            f"nondiff_argnums={argnums} of {function_name(fun)} names argument {wrong[0]}, and it takes {count} by "
            f"position; give places from 0 to {count - 1}"
        )


def _function(rule: CustomRule, method: str, fun: Any) -> Function:
    if not callable(fun):
        raise RuleError(f"{method} of {function_name(rule.primal)} needs functions, got {type(fun).__name__}")
    return fun  # type: ignore[no-any-return]
