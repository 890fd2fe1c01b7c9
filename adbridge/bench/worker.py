"""The processes that measure: a zygote per backend, and a forked child per job.

The zygote has imported the engine but not started it, so that a child costs milliseconds instead of the
import's seconds and still owns a fresh engine. What a child does (hang, crash, run out of memory) ends
with it. An engine that cannot be forked safely gets a fresh interpreter per job instead.

Run as ``python -m adbridge.bench.worker FD``, where FD is a duplex pipe: jobs come in, each with a pipe of
its own for its messages (so that a message cut short by a crash is just the end of that pipe), and the end
of each job's process is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import recv_handle
from pathlib import Path

import numpy as np
import optree

from adbridge import grad
from adbridge.bench.judging import Known, know
from adbridge.bench.measure import Case, Seeds, Timing, seeds_for, time_case
from adbridge.bench.memory import peak_rss_delta
from adbridge.bench.problem import Instance, Suite, get_suite, in_dtype
from adbridge.errors import CapabilityError
from adbridge.protocol import Backend
from adbridge.registry import BackendLike, backend_class, get_backend
from adbridge.trees import PyTree, spec_of


@dataclass(frozen=True)
class Place:
    """Where an instance comes from, for another process to make it again. `data` is its own file."""

    suite: str | Suite
    problem: str
    n: int
    m: int
    data: str | None = None
    label: str = ""
    dtype: str = "float64"

    def load(self) -> Instance:
        """The instance, its real arrays rounded to `dtype`."""
        suite = get_suite(self.suite) if isinstance(self.suite, str) else self.suite
        problem = suite.problem(self.problem)
        if self.data is None:
            instance = problem.instance(self.n, self.m)
        else:
            assert problem.load is not None
            instance = problem.load(Path(self.data))
        first = optree.tree_map(np.asarray, instance.args[0])  # there, Python numbers are arrays; data stay as they are
        return replace(instance, args=tuple(in_dtype(arg, self.dtype) for arg in (first, *instance.args[1:])))


@dataclass(frozen=True)
class Job:
    """Some operators of one instance; `what` to do with them: "answer", "time" (and check) or "memory".

    An answer is one operator, called "answer", to the `wanted` operators; for the others, `output` holds the
    specs of the function's output.
    """

    what: str
    place: Place
    device: str
    operators: tuple[str, ...]
    seconds: float = 0.0
    output: PyTree = None
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """The process `pid` begins with an operator."""

    operator: str
    pid: int


@dataclass(frozen=True)
class Answered:
    operator: str
    known: Known


@dataclass(frozen=True)
class Timed:
    operator: str
    timing: Timing
    result: PyTree
    engine_version: str
    accuracy: float
    """Of `Capabilities`."""


@dataclass(frozen=True)
class Weighed:
    """Bytes; None where the platform cannot tell."""

    operator: str
    peak_alloc_bytes: int
    alloc_source: str
    peak_rss_delta_bytes: int | None


@dataclass(frozen=True)
class Failed:
    """The operator raised. `outcome`: unsupported, out-of-memory or error."""

    operator: str
    outcome: str
    note: str


@dataclass(frozen=True)
class Ended:
    """The job's process has ended, by `signal` if that is not 0; `last`: it was the zygote itself."""

    signal: int = 0
    last: bool = False


Message = Started | Answered | Timed | Weighed | Failed


def do_job(job: Job, backend: BackendLike, messages: Connection) -> None:
    """Do the job's operators in turn; what one of them raises is a message, and the next goes on."""
    ready: tuple[Instance, Seeds, Backend] | None = None
    for operator in job.operators:
        messages.send(Started(operator, os.getpid()))
        try:
            if job.what == "answer":
                messages.send(Answered(operator, know(job.place.load(), job.place.dtype, job.wanted)))
                return
            ready = ready or _make_ready(job, backend)
            case = Case(operator, *ready)
            if job.what == "memory":
                messages.send(_weigh(operator, case))
            else:
                timing, result = time_case(case, job.seconds)
                engine = case.backend
                messages.send(Timed(operator, timing, result, engine.engine_version, engine.capabilities.accuracy))
        except Exception as exc:
            messages.send(_failure(operator, exc))


def _make_ready(job: Job, which: BackendLike) -> tuple[Instance, Seeds, Backend]:
    backend = get_backend(which, device=job.device) if isinstance(which, str) else which
    instance = job.place.load()
    return instance, seeds_for(optree.tree_map(spec_of, instance.args[0]), job.output), backend


def _weigh(operator: str, case: Case) -> Weighed:
    grad(lambda x: x * x, backend=case.backend)(np.ones((), case.dtype))  # what the engine makes on first use
    prepared, arrays = case.prepare()
    backend = case.backend

    def call() -> None:
        out = prepared.compiled.call(*arrays)
        backend.synchronize(out)

    with prepared.scope():
        try:
            _return_freed_memory()
            rss = peak_rss_delta(call)
        except CapabilityError:
            rss = None
        peak, source = backend.peak_alloc(prepared.compiled, arrays)
    return Weighed(operator, peak, source, rss)


def _return_freed_memory() -> None:
    """What making the instance left in the allocator would hide the call's own growth (glibc only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _failure(operator: str, exc: Exception) -> Failed:
    if isinstance(exc, NotImplementedError):  # a CapabilityError of ours, or the engine's own word
        return Failed(operator, "unsupported", str(exc))
    if isinstance(exc, MemoryError) or "out of memory" in str(exc).lower():
        return Failed(operator, "out-of-memory", str(exc) or "MemoryError")
    traceback.print_exception(exc)  # into the run's log
    return Failed(operator, "error", f"{type(exc).__name__}: {exc}")


def serve(control: Connection) -> None:
    """Take jobs until the other end closes; each in a fork of this process, or in this process and then end."""
    sys.path[:] = control.recv()  # on its own: what follows may need it to be unpickled
    try:
        backend = control.recv()
        fork_safe = _import_engine(backend)
    except Exception as exc:
        _decline(control, exc)
        return
    gc.freeze()  # the collector leaves the engine's modules alone: children neither walk nor copy them
    while (received := _next_job(control)) is not None:
        job, messages = received
        if not fork_safe:
            do_job(job, backend, messages)
            messages.close()
            control.send(Ended(last=True))
            return
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # JAX warns of forks after its threads have started; here they have not.
            warnings.simplefilter("ignore", RuntimeWarning)
            child = os.fork()
        if child == 0:
            _child(job, backend, messages)
        messages.close()  # now the child alone holds it: its end is the end of the pipe
        _await(child, control)


def _next_job(control: Connection) -> tuple[Job, Connection] | None:
    try:
        job = control.recv()
        return job, Connection(recv_handle(control), readable=False)
    except EOFError:
        return None


def _decline(control: Connection, exc: Exception) -> None:
    """The engine cannot be imported: every operator of every job fails with this reason."""
    traceback.print_exception(exc)
    while (received := _next_job(control)) is not None:
        job, messages = received
        for operator in job.operators:
            messages.send(Failed(operator, "error", f"{type(exc).__name__}: {exc}"))
        messages.close()
        control.send(Ended())


def _import_engine(backend: BackendLike) -> bool:
    """Import the adapter and its engine; whether this process may fork now."""
    found = backend_class(backend) if isinstance(backend, str) else type(backend)
    for module in found.late_imports:
        # Private modules: another version of the engine may not have them, and then imports what it needs.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    return found.fork_safe and hasattr(os, "fork")


def _child(job: Job, backend: BackendLike, messages: Connection) -> None:
    code = 1
    try:
        do_job(job, backend, messages)
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _await(child: int, control: Connection) -> None:
    """Wait for the child; end it, and this process, if the other end of the pipe goes away."""
    handle = os.pidfd_open(child)
    try:
        ready = wait([handle, control])
        if handle not in ready:
            os.kill(child, signal.SIGKILL)
            sys.exit(1)
    finally:
        os.close(handle)
    status = os.waitpid(child, 0)[1]
    control.send(Ended(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0))


if __name__ == "__main__":
    # Under its real name, so that messages unpickle as the classes that the other side knows.
    from adbridge.bench.worker import serve as serve_here

    serve_here(Connection(int(sys.argv[1])))
