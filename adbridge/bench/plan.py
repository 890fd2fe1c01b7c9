"""What a run was asked to do: checked, turned into groups of cases, and kept beside its records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adbridge.bench.cases import Group, Settings
from adbridge.bench.problem import Suite, get_suite
from adbridge.bench.worker import Place
from adbridge.errors import BackendUnavailable, DataError, RunError, UsageError
from adbridge.protocol import Backend
from adbridge.registry import BackendLike, default_names, entry_of
from adbridge.validate.verdict import TOLERANCE

PLAN = "run.json"


@dataclass(frozen=True)
class Plan:
    """The arguments of `runner.run`, sizes as tuples."""

    suites: Sequence[str | Suite]
    backends: Iterable[BackendLike] | None
    n: tuple[int, ...] | None
    m: tuple[int, ...] | None
    data: str | os.PathLike[str] | None
    device: str
    dtype: str
    seconds: float
    timeout: float
    memory: bool

    def __post_init__(self) -> None:
        # Named now: what is installed may change before the run is resumed.
        backends = default_names() if self.backends is None else list(self.backends)
        object.__setattr__(self, "backends", backends)

    def settings(self) -> Settings:
        """What is the same for all cases. Raises as `runner.run`."""
        if self.dtype not in TOLERANCE:
            raise UsageError(f"dtype {self.dtype!r} is not one that runs can judge; choose float64 or float32")
        present: dict[str, BackendLike] = {}
        missing: dict[str, str] = {}
        for backend in self.backends or ():
            name = backend.name if isinstance(backend, Backend) else backend
            if present.get(name, backend) != backend:
                raise UsageError(f"two of the backends are called {name!r}; give one of them another name")
            try:
                if not isinstance(backend, Backend):
                    entry_of(backend)
                present[name] = backend
            except BackendUnavailable as exc:
                missing[name] = str(exc)
        if not present:
            raise BackendUnavailable("no backend to run: " + ("; ".join(missing.values()) or "none was named"))
        return Settings(present, missing, self.device, self.dtype, self.seconds, self.memory, common={})

    def groups(self) -> list[Group]:
        """Every instance to run, in order, each once. Raises as `runner.run`."""
        return list({group.key: group for group in self._asked_for()}.values())

    def _asked_for(self) -> list[Group]:
        found = [(suite, get_suite(suite) if isinstance(suite, str) else suite) for suite in self.suites]
        if self.data is not None:
            groups = [group for suite, made in found for group in self._from_data(suite, made)]
            if not groups:
                raise DataError(
                    f"no problem of the chosen suites reads data from {self.data}; leave --data out, or run adbench"
                )
            return groups
        for name, asked in (("n", self.n), ("m", self.m)):
            if asked is not None and not any(name in p.free for _, made in found for p in made.problems):
                names = ", ".join(made.name for _, made in found)
                raise UsageError(f"no problem of {names} is free in {name}; leave --{name} out, or run scaling")
        return [
            Group(made.name, problem, Place(suite, problem.name, n, m, dtype=self.dtype))
            for suite, made in found
            for problem in made.problems
            for n, m in problem.grid(self.n, self.m)
        ]

    def _from_data(self, suite: str | Suite, made: Suite) -> list[Group]:
        groups = []
        for problem in made.problems:
            if problem.load is not None and problem.find is not None:
                for label, file in problem.find(Path(self.data or "")).items():
                    problem.load(file)  # a file in the wrong format is an error now, not a record later
                    place = Place(suite, problem.name, 0, 0, str(file.resolve()), label, self.dtype)
                    groups.append(Group(made.name, problem, place))
        return groups

    def save(self, path: Path, groups: list[Group]) -> None:
        """Write the plan for `load`, and what it came to; what is not a name is written as null."""
        plain = {**vars(self), "data": None if self.data is None else str(Path(self.data).resolve())}
        for key in ("suites", "backends"):
            plain[key] = [x if isinstance(x, str) else None for x in plain[key]]
        plain["groups"] = [group.key for group in groups]
        path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> tuple[Plan, list[Group]]:
        """The plan of a run, and its groups.

        Raises:
            RunError: there is none, it cannot be carried out from here, or it would come to other groups now.
        """
        try:
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before = plain.pop("groups")
            plan = cls(**{**plain, **{k: None if plain[k] is None else tuple(plain[k]) for k in ("n", "m")}})
        except (OSError, ValueError, TypeError, KeyError) as exc:
            raise RunError(f"no run to resume at {path.parent}: {exc}; give the folder that holds {PLAN}") from exc
        if None in plain["suites"] or None in plain["backends"]:
            raise RunError(
                f"the run at {path.parent} was given suites or backends as Python objects, which only its own program "
                "has; start it again there"
            )
        groups = plan.groups()
        if [group.key for group in groups] != before:
            raise RunError(f"the suites or data of the run at {path.parent} have changed since; start a new run")
        return plan, groups
