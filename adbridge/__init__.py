"""One `grad` / `jvp` / `vjp` protocol over several automatic-differentiation engines.

Importing this imports no engine: backends load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adbridge.errors import (
    AdbridgeError,
    BackendNotFound,
    BackendUnavailable,
    CapabilityError,
    DataError,
    Disagreement,
    MixedBackends,
    NotDifferentiable,
    RuleError,
    RunError,
    SignatureMismatch,
    SuiteNotFound,
    UsageError,
)
from adbridge.operators import grad, jacobian, jvp, linearize, value_and_grad, vjp
from adbridge.prepared import Prepared, prepare
from adbridge.protocol import Backend, Capabilities
from adbridge.recomputing import checkpoint, checkpoint_loop, stop_gradient
from adbridge.registry import array_namespace, backends, get_backend, use_backend
from adbridge.rules import CustomRule, custom_rule
from adbridge.second_order import hessian, hvp
from adbridge.series import taylor
from adbridge.tracing import trace

if TYPE_CHECKING:
    from adbridge.bench.runner import Run, resume, run
    from adbridge.bench.store import load_runs
    from adbridge.validate.check_rule import check_rule
    from adbridge.validate.comparison.agreement import Agreement
    from adbridge.validate.crosscheck import crosscheck
    from adbridge.validate.referee import Referee, referee
    from adbridge.validate.rule_checks.rule_report import RuleReport

__version__ = "0.1.0"

__all__ = [
    "AdbridgeError",
    "Agreement",
    "Backend",
    "BackendNotFound",
    "BackendUnavailable",
    "Capabilities",
    "CapabilityError",
    "CustomRule",
    "DataError",
    "Disagreement",
    "MixedBackends",
    "NotDifferentiable",
    "Prepared",
    "Referee",
    "RuleError",
    "RuleReport",
    "Run",
    "RunError",
    "SignatureMismatch",
    "SuiteNotFound",
    "UsageError",
    "array_namespace",
    "backends",
    "check_rule",
    "checkpoint",
    "checkpoint_loop",
    "crosscheck",
    "custom_rule",
    "get_backend",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "linearize",
    "load_runs",
    "prepare",
    "referee",
    "resume",
    "run",
    "stop_gradient",
    "taylor",
    "trace",
    "use_backend",
    "value_and_grad",
    "vjp",
]

_LAZY = {
    "Agreement": "adbridge.validate.comparison.agreement",
    "Referee": "adbridge.validate.referee",
    "RuleReport": "adbridge.validate.rule_checks.rule_report",
    "Run": "adbridge.bench.runner",
    "check_rule": "adbridge.validate.check_rule",
    "crosscheck": "adbridge.validate.crosscheck",
    "load_runs": "adbridge.bench.store",
    "referee": "adbridge.validate.referee",
    "resume": "adbridge.bench.runner",
    "run": "adbridge.bench.runner",
}


def __getattr__(name: str) -> Any:
    # The measuring half is imported when it is first used.
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'adbridge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
