"""Is a derivative rule right? `check_rule`, on every backend that runs it, against the referee."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from adbridge.errors import AdbridgeError, BackendUnavailable, RuleError
from adbridge.protocol import Backend
from adbridge.registry import BackendLike, default_names, get_backend
from adbridge.validate.rule_checks.bench import Bench, Library
from adbridge.validate.rule_checks.candidate import Candidate, candidate_of, sizes
from adbridge.validate.rule_checks.checks import CHECKS
from adbridge.validate.rule_checks.exact import FEW
from adbridge.validate.rule_checks.points import domain_of
from adbridge.validate.rule_checks.rule_report import Row, RuleReport
from adbridge.validate.rule_checks.running import Runner, quiet
from adbridge.validate.rule_checks.settling import Outcome, Scale, precision_of, random_signs

Backends = BackendLike | Sequence[BackendLike]


def check_rule(
    rule: Callable[..., Any],
    /,
    *example_args: Any,
    backends: Backends | None = None,
    primal: Callable[..., Any] | None = None,
    domain: Any = None,
    seed: int = 0,
) -> RuleReport:
    """Check a derivative rule at an example, and at special points around it, in double and single precision.

    Args:
        rule: an `adbridge.CustomRule`; or a function with a rule of an engine's own (``jax.custom_vjp``,
            ``torch.autograd.Function``, ...), given `primal`.
        example_args: what to call it with: NumPy arrays and numbers.
        backends: names or Backends; by default all installed ones.
        primal: the plain function, without the rule. What the rule is compared with is found from its values alone
            (`referee`).
        domain: where the rule is meant to be used: ``(low, high)``, open, for all arguments; one such (or None) for
            each of them; or a predicate of the arguments. By default, wherever the function is defined.
        seed: of the random points, tangents and cotangents.

    Returns:
        A RuleReport: ``.verdict``, ``.failed`` (the first row that is wrong), ``.to_frame()``, ``.snippet``,
        ``.raise_for_wrong()``. A failure ends the check of its backend.

    Raises:
        RuleError: no plain function is known, it returns nothing or different results, an empty domain, no floating
        argument. BackendNotFound, BackendUnavailable: of `backends`.

    >>> import adbridge as ad
    >>> @ad.custom_rule
    ... def cube(x):
    ...     return x**3
    >>> cube.defvjp(lambda x: (x**3, x), lambda x, ct: (2 * x**2 * ct,))
    >>> report = ad.check_rule(cube, 2.0, backends="reference")
    >>> print(report.verdict, report.failed.mode, report.failed.got, report.failed.expected)
    wrong reverse 8.0 12.0
    """
    with quiet():
        return _report(candidate_of(rule, example_args, primal), backends, domain, seed)


def _report(candidate: Candidate, backends: Backends | None, domain: Any, seed: int) -> RuleReport:
    chosen = _backends(backends)
    limits = domain_of(domain, candidate)
    home = _home(candidate, chosen)
    native = None if _runs(candidate, get_backend("reference")) else home.name
    library = Library(candidate, limits, home, native, seed)
    _run_again(candidate, library)
    rows, benches = [], []
    for backend in chosen:
        ruled, plain = Runner(candidate.with_rule, backend), Runner(candidate.without_rule, backend)
        bench = Bench(candidate, backend, library, ruled, plain, seed)
        rows += list(_checked(bench))
        benches.append(bench)
    rows += list(_across(benches, rows))
    return RuleReport(candidate.name, _kind(library), tuple(rows))


def _run_again(candidate: Candidate, library: Library) -> None:
    """Ask the referee for the value. Raises RuleError: the plain function fails, or gives another, when run again."""
    try:
        _ = library.exact(candidate.leaves).value
    except AdbridgeError:
        raise
    except Exception as exc:  # whatever the function raises
        raise RuleError(
            f"the plain function of {candidate.name} ran once, and not again: {type(exc).__name__}: {exc}; "
            "it must not depend on what earlier runs leave behind"
        ) from exc


def _backends(asked: Backends | None) -> list[Backend]:
    if asked is None:
        return [get_backend(name) for name in default_names() if _is_there(name)]
    if isinstance(asked, (str, Backend)):
        return [get_backend(asked)]
    return [get_backend(backend) for backend in asked]


def _is_there(name: str) -> bool:
    try:
        get_backend(name)
    except BackendUnavailable:  # installed, and fails to import
        return False
    return True


def _home(candidate: Candidate, backends: list[Backend]) -> Backend:
    """Where the plain function runs: on NumPy if it can, else on the first backend that is checked.

    Raises RuleError: nowhere.
    """
    reference, failures = get_backend("reference"), dict[str, list[str]]()
    for backend in [reference, *(b for b in backends if b is not reference)]:
        try:
            Runner(candidate.without_rule, backend).value(candidate.leaves)
            return backend
        except RuleError:
            raise
        except Exception as exc:  # whatever a function raises on arrays that it was not written for
            said = f"{type(exc).__name__}: {' '.join(str(exc).split())[:160]}"
            failures.setdefault(said, []).append(backend.name)
    text = "; ".join(f"on {', '.join(names)}: {said}" for said, names in failures.items())
    raise RuleError(f"the plain function of {candidate.name} does not run at the example: {text}")


def _runs(candidate: Candidate, backend: Backend) -> bool:
    try:
        Runner(candidate.without_rule, backend).value(candidate.leaves)
    except Exception:  # as above
        return False
    return True


def _checked(bench: Bench) -> Iterator[Row]:
    for check in CHECKS:
        failed = False
        for row in check.run(bench):
            yield row
            failed = failed or row.failed
            if check.name == "primal" and row.verdict == "unsupported" and not row.mode:
                return
        if failed or (check.name == "structure" and not bench.modes):
            return
        if check.name == "structure":
            _remember(bench)


def _remember(bench: Bench) -> None:
    """The derivatives at the example, to be compared with those on other engines."""
    point, rng = bench.example, np.random.default_rng(97)
    outs = bench.plain.value(point.leaves)
    tangent, cotangent = random_signs(rng, sum(sizes(point.leaves))), random_signs(rng, sum(sizes(outs)))
    try:
        if "forward" in bench.modes:
            bench.kept["forward"] = bench.ruled.jvp(point.leaves, tangent)[1]
        if "reverse" in bench.modes:
            bench.kept["reverse"] = bench.ruled.vjp(point.leaves)[1](cotangent)
    except Exception:  # said by the checks that follow
        return


def _across(benches: list[Bench], rows: list[Row]) -> Iterator[Row]:
    """The same derivatives on every engine; those of an engine that failed are left out."""
    failed = {row.backend for row in rows if row.failed}
    sound = [bench for bench in benches if bench.backend.name not in failed]
    for mode in ("forward", "reverse"):
        have = [bench for bench in sound if mode in bench.kept]
        for bench in have[1:]:
            yield bench.row("across engines", mode, bench.example, _beside(have[0], bench, mode))


def _beside(first: Bench, bench: Bench, mode: str) -> Outcome:
    expected, got = first.kept[mode], bench.kept[mode]
    point = bench.example
    size = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    same = Scale(precision_of(point.leaves), size).close(got, expected) | (np.isnan(got) & np.isnan(expected))
    if np.all(same):
        return Outcome("agree", len(expected))
    j = int(np.argmin(same))
    note = f"{first.backend.name} and {bench.backend.name} differ"
    smooth = _kind(bench.library) == "smooth"
    verdict = "wrong" if smooth else "convention"
    return Outcome(verdict, 1, "", float(got[j]), float(expected[j]), note, j)


def _kind(library: Library) -> str:
    """What kind of point the example is: by all its entries if they are few, else by a random direction."""
    exact = library.exact(library.candidate.leaves)
    if exact.count <= FEW:
        return exact.referee.classify().kind
    sides = exact.sides(random_signs(np.random.default_rng(5), exact.count))
    return "smooth" if np.all(sides.smooth) else "not smooth"
