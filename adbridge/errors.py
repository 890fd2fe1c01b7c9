"""The exception tree. A message says what was asked, what was found, and what to do."""

from __future__ import annotations


class AdbridgeError(Exception):
    """Base class of every error that adbridge raises on purpose."""


class BackendNotFound(AdbridgeError, LookupError):
    """No backend has the name that was asked for."""


class BackendUnavailable(AdbridgeError, ImportError):
    """The backend is known, but its engine cannot be used here (most often: it is not installed)."""


class CapabilityError(AdbridgeError, NotImplementedError):
    """The backend is here but does not do what was asked (a device, a dtype, a mode)."""


class SignatureMismatch(AdbridgeError, TypeError):
    """Arguments whose tree, shapes or dtypes are not the ones that the call needs."""


class NotDifferentiable(AdbridgeError, TypeError):
    """The derivative asked for does not exist: integer inputs, vector output of `grad`, no rule."""


class MixedBackends(AdbridgeError, TypeError):
    """Arrays of two engines, or of an engine other than the backend, in one call."""


class RuleError(AdbridgeError):
    """A derivative rule that does not keep its contract."""


class Disagreement(AdbridgeError, AssertionError):
    """Backends that should agree do not."""


class RunError(AdbridgeError, RuntimeError):
    """A suite run could not be made or read."""


class UsageError(RunError, ValueError):
    """A run was asked for in a way that cannot be."""


class SuiteNotFound(RunError, LookupError):
    """No suite, or no problem in it, has the name that was asked for."""


class DataError(RunError, ValueError):
    """A data file that is missing or is not in the format that the problem reads."""
