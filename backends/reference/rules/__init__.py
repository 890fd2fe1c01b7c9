"""The rule tables: every primitive of the reference engine, a row each. Importing this fills `PRIMITIVES`."""

from adbridge.backends.reference.rules import elementwise, linalg, reductions, shaping

__all__ = ["elementwise", "linalg", "reductions", "shaping"]
