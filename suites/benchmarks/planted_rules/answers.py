"""What each checker says of each rule, found in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context

from .mutants import MUTANTS
from .peers import CANNOT, CRASHED, FOUND, PASSED, PEERS, Answer, Checker, adbridge_checker
from .rule import Rule
from .rules import RULES

SUBJECTS: dict[str, Callable[[], Rule]] = {
    **{name: partial(RULES.__getitem__, name) for name in RULES},
    **{mutant.name: mutant.build for mutant in MUTANTS},
}
RULE_OF = {mutant.name: mutant.rule for mutant in MUTANTS}


@dataclass(frozen=True)
class Task:
    """One checker (by name), one right or wrong rule (by name)."""

    checker: str
    subject: str
    backends: tuple[str, ...] | None


def answer(task: Task) -> Answer:
    """In whichever process: checker and rule are found by their names."""
    return _checkers(task.backends)[task.checker](SUBJECTS[task.subject]())


@cache
def _checkers(backends: tuple[str, ...] | None) -> dict[str, Checker]:
    return {checker.name: checker for checker in (adbridge_checker(backends), *PEERS)}


class Answers:
    """What each checker said of each rule."""

    def __init__(self, answers: dict[tuple[str, str], Answer]) -> None:
        self._answers = answers
        self.checkers = list(dict.fromkeys(checker for checker, _ in answers))

    def of(self, checker: str, subject: str) -> Answer | None:
        return self._answers.get((checker, subject))

    def seconds(self, checker: str) -> list[float]:
        return sorted(a.seconds for (name, _), a in self._answers.items() if name == checker)

    def wrong(self, checker: str, names: Iterable[str], outcome: str) -> list[str]:
        """Those of the planted errors with an outcome; a rule that the engine cannot run right, it cannot run."""
        return [name for name in names if self._outcome(checker, name) == outcome]

    def counts(self, checker: str, names: Sequence[str]) -> tuple[int, int]:
        """How many planted errors were found, and how many were not, though its engine runs the rule."""
        found, missed, crashed = (len(self.wrong(checker, names, word)) for word in (FOUND, PASSED, CRASHED))
        return found, missed + crashed

    def right(self, checker: str, outcome: str) -> list[str]:
        return [name for name in RULES if (a := self.of(checker, name)) is not None and a.outcome == outcome]

    def _outcome(self, checker: str, name: str) -> str:
        right, found = self.of(checker, RULE_OF[name]), self.of(checker, name)
        if found is None:
            return ""
        return CANNOT if right is not None and right.outcome == CANNOT else found.outcome


def measure(names: Sequence[str], checkers: Sequence[str], backends: tuple[str, ...] | None, jobs: int) -> Answers:
    """Every checker on every rule, in `jobs` processes."""
    tasks = [Task(checker, name, backends) for checker in checkers for name in names]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        found = pool.map(answer, tasks, chunksize=4)
        return Answers({(task.checker, task.subject): result for task, result in zip(tasks, found, strict=True)})
