"""`crosscheck`: value and derivatives of every backend, judged by one referee, and beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from adbridge.errors import BackendUnavailable, RuleError, UsageError
from adbridge.protocol import Backend
from adbridge.readings import function_name
from adbridge.registry import BackendLike, choose, default_names, get_backend, install_command, owners_of, table
from adbridge.trees import PyTree, flatten
from adbridge.validate.comparison.agreement import Agreement, Row
from adbridge.validate.comparison.comparing import Court, Results, court_of
from adbridge.validate.comparison.subject import OPERATORS, Failure, Subject, attempt, subject_of

Engines = dict[str, Backend]
"""By what the rows call them."""


def crosscheck(
    fun: Callable[..., Any],
    *args: Any,
    backends: Sequence[BackendLike] | BackendLike | None = None,
    operators: Sequence[str] | str | None = None,
) -> Agreement:
    """Who is right about ``fun`` at ``args``: each backend's value and derivatives, judged by the referee.

    The referee uses no derivative rule, so engines that are wrong in the same way are found, too. Where it cannot
    decide, a note says which engines agree and which is the odd one out; that alone makes nobody `wrong`, because
    engines take formulas from each other.

    Args:
        fun: takes and returns pytrees of arrays; written with `array_namespace`.
        args: floats and floating or complex arrays are all differentiated, the rest are constants. NumPy, or the
            arrays of one engine, which alone is then checked. For keyword arguments pass a lambda.
        backends: names or Backend objects; by default every installed engine.
        operators: of ``"value"``, ``"grad"``, ``"vjp"``, ``"jvp"``, ``"hvp"``; by default value and jvp, with grad
            and hvp of a real scalar output, vjp of any other. The directions are fixed, dense and of both signs.

    Returns:
        An Agreement: ``print`` it, or see its ``verdict``, ``culprits``, ``point``, ``snippet``, ``to_frame()``,
        ``raise_for_disagreement()``.

    Raises:
        RuleError: no floating argument; `fun` runs on no backend, keeps state, or returns no arrays.
        UsageError: an unknown operator. BackendNotFound: an unknown backend. MixedBackends: arrays of two engines.
    """
    asked = _operators(operators)
    subject = subject_of(fun, args)
    engines, left_out = _engines(backends, subject)
    results, output = _values(subject, engines)
    names = asked or _default_operators(output)
    for label, backend in engines.items():
        results[label] = _all(names, subject, backend, results[label]["value"])
    takes = (backend for label, backend in engines.items() if any(map(_is_result, results[label].values())))
    promised = {label: backend.capabilities.accuracy for label, backend in engines.items()}
    court = replace(court_of(subject, output, next(takes, None)), accuracy=promised)
    rows = tuple(court.rows(results))
    referee = court.referee
    return Agreement(
        fun,
        subject.in_numpy().args,
        rows,
        None if referee is None else referee.classify(),
        "" if referee is None else referee.method,
        court.why,
        left_out,
        partial(_reproduce, court, engines),
    )


def _operators(asked: Sequence[str] | str | None) -> tuple[str, ...]:
    names = (asked,) if isinstance(asked, str) else tuple(asked or ())
    for name in names:
        if name not in OPERATORS:
            raise UsageError(f"crosscheck has no operator {name!r}; choose from {', '.join(OPERATORS)}")
    return tuple(name for name in OPERATORS if name in names)


def _default_operators(output: PyTree) -> tuple[str, ...]:
    scalar = getattr(output, "shape", None) == () and output.dtype.kind == "f"
    return ("value", "grad", "jvp", "hvp") if scalar else ("value", "vjp", "jvp")


def _engines(asked: Sequence[BackendLike] | BackendLike | None, subject: Subject) -> tuple[Engines, dict[str, str]]:
    """The backends to ask, by label; and why others are left out."""
    owned = bool(owners_of(subject.leaves))
    wanted: Sequence[BackendLike]
    if asked is None:
        wanted = [choose(None, subject.leaves)[0]] if owned else default_names()
    else:
        wanted = [asked] if isinstance(asked, (str, Backend)) else asked
    found, left_out = [], {}
    for name in wanted:
        try:
            found.append(get_backend(name))
        except BackendUnavailable as exc:
            left_out[str(name)] = str(exc)
    if asked is None:
        reason = f"the arguments are {found[0].name}'s arrays" if owned else ""
        every = [name for name, entry in table().items() if entry.default]
        names = {backend.name for backend in found}
        left_out |= {n: reason or f"not installed: {install_command(n)}" for n in every if n not in {*names, *left_out}}
    return _labelled(found), left_out


def _labelled(found: Sequence[Backend]) -> Engines:
    """By name; of several with one name, by their number too."""
    counts = Counter(backend.name for backend in found)
    seen: Counter[str] = Counter()
    engines = {}
    for backend in found:
        seen[backend.name] += 1
        several = f" {seen[backend.name]} ({backend.device})" if counts[backend.name] > 1 else ""
        engines[backend.name + several] = backend
    return engines


def _values(subject: Subject, engines: Engines) -> tuple[Results, PyTree]:
    """Each backend's value, and the first that there is. Raises RuleError: there is none, or it holds no array."""
    results = {label: {"value": attempt("value", subject, b, None)} for label, b in engines.items()}
    found = [by_op["value"] for by_op in results.values()]
    values = [value for value in found if not isinstance(value, Failure)]
    name = function_name(subject.fun)
    if found and not values:
        notes = {by_op["value"].note: label for label, by_op in results.items()}
        said = "; ".join(f"{label}: {note}" if len(notes) > 1 else note for note, label in notes.items())
        raise RuleError(f"{name} gives no value on any backend: {said}") from found[0].exception
    if values and not flatten(values[0])[0]:
        raise RuleError(f"{name} returned {values[0]!r}, which holds no array; a function to check returns arrays")
    return results, values[0] if values else None


def _all(names: Sequence[str], subject: Subject, backend: Backend, value: Any) -> dict[str, Any]:
    """The results of one backend: none if the function gives it no value, or turns out not to take its arrays, when
    what it computed beside is another library's."""
    if isinstance(value, Failure):
        return dict.fromkeys(names, value)
    found = {op: value if op == "value" else attempt(op, subject, backend, value) for op in names}
    foreign = [r for op, r in found.items() if op != "hvp" and isinstance(r, Failure) and r.foreign]
    return dict.fromkeys(names, foreign[0]) if foreign else found


def _is_result(result: Any) -> bool:
    return not isinstance(result, Failure)


def _reproduce(court: Court, engines: Engines, row: Row) -> str:
    from adbridge.validate.comparison.reproducing import smallest

    return smallest(court, engines[row.backend], row)
