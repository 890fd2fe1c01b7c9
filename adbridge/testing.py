"""Assertions for tests: of a derivative rule, and that backends agree.

>>> import adbridge as ad
>>> agreement = assert_backends_agree(lambda x: x * x, 3.0, backends="reference")
>>> agreement.verdict
'agree'
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from adbridge.errors import Disagreement, RuleError

if TYPE_CHECKING:
    from adbridge.validate.comparison.agreement import Agreement
    from adbridge.validate.rule_checks.rule_report import RuleReport

__all__ = ["assert_backends_agree", "assert_rule"]

Report = TypeVar("Report", "Agreement", "RuleReport")

# `unresolved` is not among them: a check that came to no result is not a pass.
_PASSES = ("agree", "convention", "infinite", "undefined", "unsupported")


def assert_backends_agree(fun: Callable[..., Any], /, *args: Any, **options: Any) -> Agreement:
    """Fail unless every backend's value and derivatives of ``fun`` at ``args`` are right, by `adbridge.crosscheck`.

    Takes what that takes, and returns its Agreement. Legal choices at kinks pass, and so does what an engine does not
    support, if anything is left; what the referee cannot decide does not.

    Raises:
        Disagreement (an AssertionError): with the engine, operator and entry that are off, what was got and expected,
        the kind of point, and a script that shows it.
    """
    __tracebackhide__ = True
    from adbridge.validate.crosscheck import crosscheck

    return _passed(partial(crosscheck, fun, *args, **options))


def assert_rule(rule: Callable[..., Any], /, *args: Any, **options: Any) -> RuleReport:
    """Fail unless the derivative rule of ``rule`` is right at ``args`` and around them, by `adbridge.check_rule`.

    Takes what that takes, and returns its RuleReport: a `CustomRule`, or a function with rules of its engine's own
    together with ``primal=`` (the function without them) and ``backends=`` (that engine).

    Raises:
        Disagreement (an AssertionError): with the check that failed, the entry, what was got and expected.
    """
    __tracebackhide__ = True
    from adbridge.validate.check_rule import check_rule

    return _passed(partial(check_rule, rule, *args, **options))


def _passed(check: Callable[[], Report]) -> Report:
    """The report, if its verdict is a pass."""
    __tracebackhide__ = True
    try:
        report = check()
    except RuleError as exc:
        # Without the way through adbridge; what the function itself raised remains.
        raise Disagreement(str(exc)) from exc.__cause__
    if report.verdict not in _PASSES:
        raise Disagreement(str(report))
    return report
