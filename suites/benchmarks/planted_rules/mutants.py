"""The planted errors, by class: each makes one of the right rules wrong somewhere.

They are made as far as possible by one mutation over several rules. Some show at the example, some only elsewhere: at
negative or large numbers, at zero, in float32, at second order, at the second call, for a cotangent of another sign.
"""

from __future__ import annotations

from . import wrong_elsewhere, wrong_values
from .mutant import Mutant

MUTANTS: tuple[Mutant, ...] = tuple(
    mutant for family in (*wrong_values.FAMILIES, *wrong_elsewhere.FAMILIES) for mutant in family()
)
KINDS: tuple[str, ...] = tuple(dict.fromkeys(mutant.kind for mutant in MUTANTS))
