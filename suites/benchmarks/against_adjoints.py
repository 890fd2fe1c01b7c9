"""What a gradient costs, over the same gradient written by hand in NumPy (`adjoints`).

Run as ``python -m adbridge.suites.benchmarks.against_adjoints``. One process and one thread for every engine.
The contenders of a problem take turns, adjoint, A, B, ..., adjoint, A, B, ..., so that whatever slows the machine
slows all of them; the least time of each counts. Every gradient is first compared with the adjoint.

The reference takes and gives NumPy arrays through the public operators; JAX (jitted), PyTorch (eager, float64) and
autograd run in their own idiom, on arrays of their own, results synchronised. "primal" is the function itself, on
NumPy.

Exit codes: 0, also where a contender could not do a problem; 1 a gradient is wrong; 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import json
import math
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import optree
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import adbridge as ad
from adbridge.bench.pool import _PINNED, THREADS
from adbridge.errors import AdbridgeError
from adbridge.report.tables import seconds as show_seconds
from adbridge.report.tables import size as show_bytes
from adbridge.trees import PyTree

from .adjoints import PROBLEMS, SIZES, TANH_JACOBIAN, Case, Handwritten  # relative: asv names this folder otherwise

RTOL = 1e-9  # of each leaf: its largest error over its largest entry
MIN_ROUNDS, MAX_ROUNDS = 5, 1000
SAMPLE_SECONDS = 200e-6  # the least that a sample lasts, by calling again
ADJOINT, PRIMAL = "adjoint", "primal"

_ENVIRONMENT = {**_PINNED, "NUMBA_NUM_THREADS": str(THREADS), "JAX_PLATFORMS": "cpu"}


# The contenders.


@dataclass(frozen=True)
class Ready:
    """A gradient ready to be called: `call` computes and waits for it, `read` turns its result into NumPy."""

    call: Callable[[], Any]
    read: Callable[[Any], PyTree] = lambda out: out


@dataclass(frozen=True)
class Contender:
    """One way to a gradient. `needs` are the packages that must be there; `scope` is what its calls run in."""

    name: str
    make: Callable[[Case], Ready]
    needs: tuple[str, ...] = ()
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext
    missing: Callable[[], str] = lambda: ""

    def why_not(self) -> str:
        """Why it cannot take part; empty if it can."""
        absent = [package for package in self.needs if importlib.util.find_spec(package) is None]
        return f"{', '.join(absent)} is not installed" if absent else self.missing()


def _operator(case: Case, backend: ad.Backend | str) -> Any:
    return getattr(ad, case.operator)(case.fun, backend=backend)


def _at_once(case: Case) -> Ready:
    return Ready(partial(_operator(case, "reference"), *case.args))


def _prepared(case: Case) -> Ready:
    return Ready(partial(ad.prepare(_operator(case, "reference"), *case.args), *case.args))


def _fast(case: Case) -> Ready:
    return Ready(partial(ad.prepare(_operator(case, _fast_backend()), *case.args), *case.args))


def _fast_backend() -> ad.Backend:
    return ad.get_backend("reference", compiler="llvm")


def _no_fast_backend() -> str:
    try:
        _fast_backend()
    except (AdbridgeError, TypeError) as exc:
        return _reason(exc)
    return ""


def _jax(case: Case) -> Ready:
    jax = _engine("jax")
    gradient = jax.jit(getattr(jax, case.operator)(case.fun))
    arrays = [optree.tree_map(jax.numpy.asarray, arg) for arg in case.args]
    return Ready(lambda: jax.block_until_ready(gradient(*arrays)), partial(optree.tree_map, np.asarray))


def _x64() -> Any:
    return _engine("jax").enable_x64(True)


def _torch(case: Case) -> Ready:
    torch = _engine("torch")
    primals, *data = [optree.tree_map(torch.tensor, arg) for arg in case.args]
    leaves, treedef = optree.tree_flatten(primals)
    for leaf in leaves:
        leaf.requires_grad_()

    def read(gradients: Any) -> PyTree:
        return optree.tree_unflatten(treedef, [g.numpy() for g in gradients])

    return Ready(lambda: torch.autograd.grad(case.fun(primals, *data), leaves), read)


def _autograd(case: Case) -> Ready:
    return Ready(partial(getattr(_engine("autograd"), case.operator)(case.fun), *case.args))


def _mygrad(case: Case) -> Ready:
    primals = optree.tree_map(_engine("mygrad").tensor, case.args[0])

    def call() -> PyTree:
        case.fun(primals, *case.args[1:]).backward()
        return optree.tree_map(lambda leaf: leaf.grad, primals)

    return Ready(call)


def _engine(name: str) -> Any:
    """Imported only when it takes part; without its annotations, which some engines lack."""
    return importlib.import_module(name)


def _primal(case: Case) -> Ready:
    return Ready(partial(case.fun, *case.args))


REFERENCE = Contender("reference", _at_once)
PREPARED = Contender("reference-prepared", _prepared)
JAX = Contender("jax", _jax, ("jax",), _x64)
AUTOGRAD = Contender("autograd", _autograd, ("autograd",))
PRIMAL_ITSELF = Contender(PRIMAL, _primal)
CONTENDERS = (
    REFERENCE,
    PREPARED,
    Contender("reference-fast", _fast, missing=_no_fast_backend),
    JAX,
    Contender("torch", _torch, ("torch",)),
    AUTOGRAD,
    Contender("mygrad", _mygrad, ("mygrad",)),
    PRIMAL_ITSELF,
)
OPTIONAL = ("mygrad",)  # nothing is said when these are not there


# Right or wrong.


def mismatch(got: PyTree, right: PyTree) -> str:
    """How a gradient differs from the right one by more than `RTOL`; empty if it does not.

    >>> mismatch(np.array([1.0, 2.0]), np.array([1.0, 2.002]))
    'off by 1.0e-03 of the largest entry'
    """
    leaves, expected = optree.tree_leaves(got), optree.tree_leaves(right)
    shapes, wanted = [np.shape(leaf) for leaf in leaves], [np.shape(leaf) for leaf in expected]
    if shapes != wanted:
        return f"has shapes {shapes}, should have {wanted}"
    error = max(_relative_error(np.asarray(a), b) for a, b in zip(leaves, expected, strict=True))
    return "" if error <= RTOL else f"off by {error:.1e} of the largest entry"


def _relative_error(got: Any, right: Any) -> float:
    """Infinite where `got` is not finite."""
    scale, error = np.max(np.abs(right)), np.max(np.abs(got - right))
    return float(error / scale) if np.isfinite(error) else math.inf


# Time.


@dataclass(frozen=True)
class Outcome:
    """A contender on a case. `fault` is "", "error" or "WRONG", and `note` the reason; seconds are per call.

    `first_seconds` is the first call, `prepare_seconds` what went before it.
    """

    problem: str
    size: str
    contender: str
    seconds: float = math.nan
    ratio: float = math.nan
    prepare_seconds: float = math.nan
    first_seconds: float = math.nan
    fault: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Started:
    ready: Ready
    prepare_seconds: float
    first_seconds: float


def measure(case: Case, contenders: Sequence[Contender], seconds: float) -> list[Outcome]:
    """The outcomes of the adjoint and of each contender, in about `seconds`."""
    right = case.adjoint(*case.args)
    started: dict[str, _Started] = {}
    faults: dict[str, tuple[str, str]] = {}
    with ExitStack() as scopes:
        for contender in contenders:
            scopes.enter_context(contender.scope())
            try:
                started[contender.name], result = _start(contender, case)
                note = "" if contender.name == PRIMAL else mismatch(result, right)
                if note:
                    faults[contender.name] = "WRONG", note
            except Exception as exc:
                faults[contender.name] = "error", _reason(exc)
        calls = {name: s.ready.call for name, s in started.items() if name not in faults}
        best = least_seconds({ADJOINT: partial(case.adjoint, *case.args), **calls}, seconds)
    outcomes = [Outcome(case.problem, case.size, ADJOINT, best[ADJOINT], 1.0, 0.0, math.nan)]
    for name in (contender.name for contender in contenders):
        if name in faults:
            outcomes.append(Outcome(case.problem, case.size, name, fault=faults[name][0], note=faults[name][1]))
        else:
            begun, ratio = started[name], best[name] / best[ADJOINT]
            outcomes.append(
                Outcome(case.problem, case.size, name, best[name], ratio, begun.prepare_seconds, begun.first_seconds)
            )
    return outcomes


def _start(contender: Contender, case: Case) -> tuple[_Started, PyTree]:
    """Make it ready and call it once; also the result, as NumPy."""
    begin = time.perf_counter()
    ready = contender.make(case)
    made = time.perf_counter()
    result = ready.call()
    return _Started(ready, made - begin, time.perf_counter() - made), ready.read(result)


def least_seconds(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The least seconds per call of each, taking turns for about `seconds` in all.

    At least `MIN_ROUNDS` rounds, unless that takes ten times as long as asked and a second; then at least two.
    """
    with _no_collector():
        repeats = {name: _repeats(call) for name, call in calls.items()}
        best = dict.fromkeys(calls, math.inf)
        begin = time.perf_counter()
        for done in range(1, MAX_ROUNDS + 1):
            for name, call in calls.items():
                best[name] = min(best[name], _sample(call, repeats[name]))
            elapsed = time.perf_counter() - begin
            if elapsed > seconds and (done >= MIN_ROUNDS or (done >= 2 and elapsed > max(1.0, 10 * seconds))):
                break
            gc.collect()  # between the samples, and of what the calls made alone
    return best


def _repeats(call: Callable[[], object]) -> int:
    """How often to call for a sample of `SAMPLE_SECONDS`, from the second call on: the first may still warm up."""
    once = min(_sample(call, 1) for _ in range(3))
    return max(1, math.ceil(SAMPLE_SECONDS / max(once, 1e-9)))


def _sample(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


@contextmanager
def _no_collector() -> Iterator[None]:
    """It does not run by itself, and what is there already is not looked through."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_on:
            gc.enable()


def _reason(exc: BaseException) -> str:
    first = str(exc).strip().partition("\n")[0]
    return f"{type(exc).__name__}: {first}"[:200]


# Memory.


@dataclass(frozen=True)
class Memory:
    """Bytes that a gradient allocates: `peak` at most during a call, of which `held` stay between calls."""

    problem: str
    size: str
    contender: str
    peak: int = 0
    held: int = 0
    fault: str = ""
    note: str = ""


def weigh(case: Case, contenders: Sequence[Contender]) -> list[Memory]:
    """By tracemalloc, which sees NumPy's arrays and Python's objects."""
    makers = {ADJOINT: lambda case: Ready(partial(case.adjoint, *case.args)), **{c.name: c.make for c in contenders}}
    weighed = []
    for name, make in makers.items():
        try:
            weighed.append(Memory(case.problem, case.size, name, *_peak_and_held(make, case)))
        except Exception as exc:
            weighed.append(Memory(case.problem, case.size, name, fault="error", note=_reason(exc)))
    return weighed


def _peak_and_held(make: Callable[[Case], Ready], case: Case) -> tuple[int, int]:
    make(case).call()  # what is made once for all, and imported
    gc.collect()
    tracemalloc.start()
    try:
        ready = make(case)
        ready.call()
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        ready.call()
        return tracemalloc.get_traced_memory()[1], held
    finally:
        tracemalloc.stop()


# Tables.


def ratio_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """A row per problem, a column per contender, and the geometric means."""
    names = [name for name in _unique(o.contender for o in outcomes) if name != ADJOINT]
    table = _table(title, ["problem", *names])
    for problem in _unique(o.problem for o in outcomes):
        found = {o.contender: o for o in outcomes if o.problem == problem}
        table.add_row(escape(problem), *(_ratio_cell(found[name]) for name in names))
    if len(table.rows) > 1:
        table.add_section()
        table.add_row("geometric mean", *(_mean_cell([o for o in outcomes if o.contender == name]) for name in names))
    return table


def _ratio_cell(outcome: Outcome) -> str:
    return f"[bold red]{outcome.fault}[/]" if outcome.fault else f"{outcome.ratio:.2f}"


def _mean_cell(outcomes: Sequence[Outcome]) -> str:
    ratios = [o.ratio for o in outcomes if not o.fault]
    of = "" if len(ratios) == len(outcomes) else f" ({len(ratios)} of {len(outcomes)})"
    return f"{geometric_mean(ratios):.2f}{of}" if ratios else "-"


def geometric_mean(values: Sequence[float]) -> float:
    """
    >>> geometric_mean([1.0, 4.0])
    2.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def seconds_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """The adjoint's time, and each contender's preparation and first call."""
    names = [name for name in _unique(o.contender for o in outcomes) if name not in (ADJOINT, PRIMAL)]
    table = _table(title, ["problem", ADJOINT, *names])
    for problem in _unique(o.problem for o in outcomes):
        found = {o.contender: o for o in outcomes if o.problem == problem}
        cells = [
            found[n].fault or f"{show_seconds(found[n].prepare_seconds)} + {show_seconds(found[n].first_seconds)}"
            for n in names
        ]
        table.add_row(escape(problem), show_seconds(found[ADJOINT].seconds), *cells)
    return table


def memory_table(weighed: Sequence[Memory], title: str) -> Table:
    """Peaks, with what is held between calls, and their ratios to the adjoint's."""
    names = _unique(w.contender for w in weighed)
    table = _table(title, ["problem", *names])
    for problem in _unique(w.problem for w in weighed):
        found = {w.contender: w for w in weighed if w.problem == problem}
        table.add_row(escape(problem), *(_memory_cell(found[name], found[ADJOINT]) for name in names))
    return table


def _memory_cell(one: Memory, adjoint: Memory) -> str:
    if one.fault:
        return f"[bold red]{one.fault}[/]"
    ratio = "" if one is adjoint else f" ({one.peak / adjoint.peak:.2f})"
    return show_bytes(one.peak) + ratio


def _notes(results: Sequence[Outcome | Memory]) -> list[str]:
    """A line per contender and reason, with the problems it holds for."""
    problems: dict[tuple[str, str, str], list[str]] = {}
    for r in results:
        if r.fault:
            problems.setdefault((r.contender, r.fault, r.note), []).append(r.problem)
    return [f"{name}, {fault} on {', '.join(where)}: {why}" for (name, fault, why), where in problems.items()]


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "problem" else "right", no_wrap=True)
    return table


# The command.


@dataclass(frozen=True)
class _Report:
    """Where results go: the terminal at once, the file at the end."""

    console: Console
    found: dict[str, list[Any]]

    def show(self, key: str, results: Sequence[Any], *tables: Table) -> None:
        # JSON has no NaN.
        rows = ({k: None if v != v else v for k, v in asdict(r).items()} for r in results)
        self.found.setdefault(key, []).extend(rows)
        for table in tables:
            self.console.print(table)
        for note in _notes(results):
            self.console.print(note, markup=False, highlight=False)
        self.console.print()

    @property
    def wrong(self) -> bool:
        return any(result["fault"] == "WRONG" for results in self.found.values() for result in results)


def _chosen(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, str | None], list[str] | None]:
    """A comma-separated list of some of the known names."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        names = [word.strip() for word in value.split(",") if word.strip()]
        if unknown := [name for name in names if name not in known]:
            raise click.BadParameter(f"{', '.join(unknown)} is unknown; choose from: {', '.join(known)}")
        return names

    return read


_PROBLEM_NAMES, _CONTENDER_NAMES = [p.name for p in PROBLEMS], [c.name for c in CONTENDERS]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--contenders", "names", callback=_chosen(_CONTENDER_NAMES), metavar="A,B", help="Default: all that are installed."
)
@click.option("--problems", callback=_chosen(_PROBLEM_NAMES), metavar="A,B", help="Default: all.")
@click.option("--sizes", callback=_chosen(SIZES), metavar="A,B", help="Of small, medium, large; default: all.")
@click.option("--seconds", default=2.0, show_default=True, help="Time for a problem at a size, shared by all.")
@click.option("--memory", is_flag=True, help="Also the peak allocation of one gradient.")
@click.option("--extras", is_flag=True, help="Also a dense Jacobian, and the gradient over the primal.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    names: list[str] | None,
    problems: list[str] | None,
    sizes: list[str] | None,
    seconds: float,
    memory: bool,
    extras: bool,
    path: Path | None,
) -> None:
    """Gradients of ten problems, timed over the same gradients written by hand in NumPy."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=200)  # a log has no width of its own
    report = _Report(console, {})
    chosen = [p for p in PROBLEMS if problems is None or p.name in problems]
    contenders = _present(names, console)
    for size in sizes or SIZES:
        _times(report, chosen, size, contenders, seconds)
        if memory:
            _memory(report, chosen, size)
    if extras:
        _extras(report, chosen, contenders, seconds)
    if path is not None:
        path.write_text(json.dumps({"environment": _environment(contenders), "rtol": RTOL, **report.found}, indent=1))
    sys.exit(1 if report.wrong else 0)


def _present(names: list[str] | None, console: Console) -> list[Contender]:
    """The contenders asked for that can take part; of the others it says why not."""
    present = []
    for contender in CONTENDERS:
        if names is not None and contender.name not in names:
            continue
        why_not = contender.why_not()
        if not why_not:
            _warm_up(contender)
            present.append(contender)
        elif names is not None or contender.name not in OPTIONAL:
            console.print(f"{contender.name} is left out: {why_not}", markup=False, highlight=False)
    return present


def _warm_up(contender: Contender) -> None:
    """Import and start its engine, which is no part of any problem's preparation."""
    square = Case("square", "small", lambda x: ad.array_namespace(x).sum(x * x), (np.ones(2),), lambda x: 2 * x)
    with contextlib.suppress(Exception), contender.scope():  # what fails here fails again on the problems, and is told
        _start(contender, square)


def _times(
    report: _Report, problems: Sequence[Handwritten], size: str, contenders: Sequence[Contender], seconds: float
) -> None:
    outcomes = [o for problem in problems for o in measure(problem.case(size), contenders, seconds)]
    title = f"{size}: gradient over hand-written adjoint, in time (checked to {RTOL:g})"
    first = f"{size}: time of the hand-written adjoint; preparation + first call"
    report.show("times", outcomes, ratio_table(outcomes, title), seconds_table(outcomes, first))


def _memory(report: _Report, problems: Sequence[Handwritten], size: str) -> None:
    usable = [c for c in (REFERENCE, PREPARED, AUTOGRAD) if not c.why_not()]
    weighed = [w for problem in problems for w in weigh(problem.case(size), usable)]
    title = f"{size}: peak memory of a gradient, and over the adjoint's"
    report.show("memory", weighed, memory_table(weighed, title))


def _extras(report: _Report, problems: Sequence[Handwritten], contenders: Sequence[Contender], seconds: float) -> None:
    dense = [c for c in (REFERENCE, PREPARED, JAX, AUTOGRAD) if c in contenders]
    jacobian = measure(TANH_JACOBIAN.case("large"), dense, seconds)
    title = "dense Jacobian of tanh(A x), n = m = 1000, over (1 - y * y)[:, None] * A"
    first = "the same: time of the hand-written one; preparation + first call"
    report.show("jacobian", jacobian, ratio_table(jacobian, title), seconds_table(jacobian, first))
    pair = [PREPARED, PRIMAL_ITSELF]
    outcomes = [o for problem in problems for o in _over_primal(measure(problem.case("large"), pair, seconds))]
    report.show("over_primal", outcomes, ratio_table(outcomes, "large: time of the gradient over the primal's"))


def _over_primal(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The same, with ratios to the primal's time instead."""
    (primal,) = (o for o in outcomes if o.contender == PRIMAL)
    return [
        replace(o, contender=f"{o.contender} / {PRIMAL}", ratio=o.seconds / primal.seconds)
        for o in outcomes
        if o is not primal
    ]


def _environment(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Versions, and the pinned threads as they are here."""
    versions = {name: version(name) for name in ("adbridge", "numpy", *(e for c in contenders for e in c.needs))}
    return {"python": sys.version.split()[0], **versions, **{name: os.environ.get(name) for name in _ENVIRONMENT}}


def pinned() -> None:
    """Run `main` with one thread for every engine: a new interpreter, for libraries read this when they load."""
    if all(os.environ.get(name) == value for name, value in _ENVIRONMENT.items()):
        main(prog_name=f"python -m {__spec__.name}")
    environment = {**os.environ, **_ENVIRONMENT}
    os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]], environment)


if __name__ == "__main__":
    pinned()
