"""The right rules, all of them: no checker may call one wrong."""

from __future__ import annotations

from .algebra import ALGEBRA
from .arrangements import ARRANGEMENTS
from .elementwise import ELEMENTWISE
from .models import MODELS
from .reductions import REDUCTIONS
from .rule import Rule

RULES: dict[str, Rule] = {rule.name: rule for rule in (*ELEMENTWISE, *REDUCTIONS, *ALGEBRA, *ARRANGEMENTS, *MODELS)}
