"""The parent's side of the workers: one zygote per backend; whatever a job's process does becomes a result."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from types import TracebackType

from adbridge.bench.worker import Answered, Ended, Failed, Job, Message, Started, Timed, Weighed
from adbridge.errors import RunError
from adbridge.protocol import Backend
from adbridge.registry import BackendLike

Result = Answered | Timed | Weighed | Failed

THREADS = 1
# Until a job's process reports, its zygote may still be importing its engine, from a slow disk.
_STARTUP_SECONDS = 120.0
_PINNED = {
    name: str(THREADS)
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NPROC",  # XLA's CPU client: its usual flags do not pin it
    )
}


class _Worker:
    """One zygote process and the pipe to it."""

    def __init__(self, backend: BackendLike, device: str, log: Path) -> None:
        self.control, theirs = Pipe()
        env = {**os.environ, **_PINNED, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if device == "cpu":
            env["JAX_PLATFORMS"] = "cpu"
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "adbridge.bench.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        theirs.close()
        with contextlib.suppress(BrokenPipeError):  # it has died already: the first job will tell
            self.control.send(sys.path)
            _send(self.control, backend)

    def start(self, job: Job) -> Connection[Message, Message]:
        """Send a job; the pipe on which its process tells what it does, until it ends."""
        messages, theirs = Pipe(duplex=False)
        with theirs:
            _send(self.control, job)
            send_handle(self.control, theirs.fileno(), self.process.pid)
        return messages

    def close(self) -> None:
        self.control.close()  # the zygote ends its child and itself
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Pool:
    """Zygotes, started when their backend first has a job. Use as a context manager."""

    def __init__(self, folder: Path, timeout: float) -> None:
        self._folder = folder
        self._timeout = timeout
        self._workers: dict[str, _Worker] = {}

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def do(self, job: Job, backend: BackendLike) -> dict[str, Result]:
        """A result for each operator of the job. One that kills its process does not stop the next.

        Raises:
            RunError: the job cannot be sent to another process.
        """
        name = backend.name if isinstance(backend, Backend) else backend
        log = self._folder / f"worker-{name}.log"
        results: dict[str, Result] = {}
        while remaining := tuple(op for op in job.operators if op not in results):
            before = len(results)
            if name not in self._workers:
                self._workers[name] = _Worker(backend, job.device, log)
            if not self._attempt(self._workers[name], replace(job, operators=remaining), results, log):
                self._workers.pop(name).close()
            if len(results) == before:
                results[remaining[0]] = Failed(remaining[0], "crashed", f"the process ended before it began; see {log}")
        return results

    def _attempt(self, worker: _Worker, job: Job, results: dict[str, Result], log: Path) -> bool:
        """Send the job to a process and take its messages until it ends; whether the zygote lives on."""
        current: Started | None = None
        ended = Ended(last=True)
        try:
            with worker.start(job) as messages:
                while True:
                    limit = self._timeout if current else max(self._timeout, _STARTUP_SECONDS)
                    if not messages.poll(limit):
                        operator = current.operator if current else job.operators[0]
                        note = f"no result within {limit:g} s; raise --timeout, or see {log}"
                        results[operator] = Failed(operator, "timeout", note)
                        os.kill(current.pid if current else worker.process.pid, signal.SIGKILL)
                    message = messages.recv()
                    if isinstance(message, Started):
                        current = message
                    else:
                        results[message.operator] = message
        except (EOFError, OSError):  # its process has ended, perhaps in the middle of a message
            with contextlib.suppress(EOFError, OSError):
                ended = worker.control.recv()
        if current and current.operator not in results:
            number = ended.signal
            if ended.last:
                worker.close()
                number = max(0, -worker.process.returncode)
            results[current.operator] = _died(current.operator, number, log)
        return not ended.last


def _died(operator: str, number: int, log: Path) -> Failed:
    if number == signal.SIGKILL:
        return Failed(operator, "out-of-memory", f"the process was killed (SIGKILL): most often for memory; see {log}")
    what = f"died of {signal.Signals(number).name}" if number else "exited"
    return Failed(operator, "crashed", f"the process {what}; see {log}")


def _send(messages: Connection[object, object], what: Job | BackendLike) -> None:
    try:
        messages.send(what)
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        raise RunError(
            f"the job cannot be sent to another process: {exc}; put the suite's (and the backend's) code in a module "
            "and pass MODULE:SUITE, so that the process can import it"
        ) from exc
