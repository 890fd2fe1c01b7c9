"""LLVM text to a function that Python calls, through llvmlite, with compiled code kept on disk.

Files are in ``$XDG_CACHE_HOME/adbridge`` (``~/.cache/adbridge``), each named by the hash of its LLVM text, of the
processor and of LLVM's version, and starting with the hash of the code that follows: one that does not match, or
belongs to somebody else, is compiled anew. They are written under another name and moved, so that several processes
may compile at once. Where there is no directory to write to, nothing is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite  # type: ignore[import-untyped]  # it has no types
import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numpy as np

if llvm.llvm_version_info < (20,):
    raise ImportError(
        f"llvmlite {llvmlite.__version__} has LLVM {llvm.llvm_version_info[0]}; LLVM 20 or later is needed"
    )

_LOCK = threading.Lock()  # LLVM's own state is shared
DIGEST = 32


@cache
def processor() -> tuple[str, str]:
    """Its name and features, once LLVM is ready for it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in _symbols().items():
        llvm.add_symbol(name, address)
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def new_target() -> Any:
    """A target machine: an engine takes its own, and disposes of it."""
    cpu, features = processor()
    return llvm.Target.from_default_triple().create_target_machine(cpu=cpu, features=features, opt=2, jit=True)


@cache
def vector_bytes() -> int:
    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") and features.get("avx512dq") else 32 if features.get("avx2") else 16


def _symbols() -> dict[str, int]:
    """What the code calls by name: BLAS as SciPy has it, the C library, and the interpreter."""
    from scipy.linalg import cython_blas  # type: ignore[import-untyped]  # SciPy has no types

    get_name = _python("PyCapsule_GetName", ctypes.c_char_p, ctypes.py_object)
    get_pointer = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    found = {}
    for name in ("dgemm", "sgemm"):
        capsule = cython_blas.__pyx_capi__[name]
        found[name] = get_pointer(capsule, get_name(capsule))
    for name in ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLong"):
        found[name] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    return found


def _python(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the interpreter's."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


def key_of(text: str) -> str:
    parts = [llvmlite.__version__, llvm.get_default_triple(), *processor(), text]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def object_code(text: str) -> bytes:
    """Compiled, or found on disk."""
    directory = cache_directory()
    path = directory / f"{key_of(text)}.o" if directory is not None else None
    if path is not None and (found := _read(path)) is not None:
        return found
    code = _compiled(text)
    if path is not None:
        _write(path, code)
    return code


def cache_directory() -> Path | None:
    """A directory of this user's alone; None if there is none."""
    try:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "adbridge"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = path.stat()
    except (OSError, RuntimeError):  # no home
        return None
    return path if status.st_uid == os.getuid() and not status.st_mode & 0o022 else None


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
        mine = path.stat().st_uid == os.getuid()
    except OSError:
        return None
    digest, code = content[:DIGEST], content[DIGEST:]
    return code if mine and hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    with contextlib.suppress(OSError):
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink()


def _compiled(text: str) -> bytes:
    """Raises RuntimeError: LLVM does not take it."""
    with _LOCK:
        tm = new_target()
        module = llvm.parse_assembly(text)
        module.triple = tm.triple
        module.data_layout = str(tm.target_data)
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = options.slp_vectorization = False
        options.loop_unrolling = True
        builder = llvm.create_pass_builder(tm, options)
        builder.getModulePassManager().run(module, builder)
        return tm.emit_object(module)  # type: ignore[no-any-return]


class Loaded:
    """Functions of one module, as Python callables that take arrays. They keep it."""

    def __init__(self, text: str, names: list[str]) -> None:
        code = object_code(text)
        with _LOCK:
            self.engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), new_target())
            self.engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self.engine.finalize_object()
            addresses = [self.engine.get_function_address(name) for name in names]
        self.functions = [_callable(address, self) for address in addresses]


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


METH_FASTCALL = 0x80


def _callable(address: int, owner: Any) -> Callable[..., int]:
    """A built-in function: quicker to call than a ctypes one."""
    definition = _MethodDef(b"compiled", address, METH_FASTCALL, None)
    make = _python("PyCFunction_NewEx", ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    kept = (owner, definition)  # the function's __self__: as long as it lives, so do these
    return make(ctypes.addressof(definition), kept, None)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Layout:
    """Where NumPy's array and dtype objects keep what, in bytes from their start (ndarraytypes.h of its C API)."""

    head: int = object.__basicsize__

    @property
    def data(self) -> int:
        return self.head

    @property
    def ndim(self) -> int:
        return self.head + 8

    @property
    def shape(self) -> int:
        return self.head + 16

    @property
    def dtype(self) -> int:
        return self.head + 40

    @property
    def flags(self) -> int:
        return self.head + 48

    @property
    def order(self) -> int:  # of a dtype: "=", "|", "<" or ">"
        return self.head + 10

    @property
    def number(self) -> int:  # of a dtype
        return self.head + 12


USABLE = 0x0101
"""The flags of arrays that are contiguous, in C's order, and aligned."""


@cache
def layout() -> Layout | None:
    """None if this NumPy, or this interpreter, lays its arrays out otherwise."""
    place = Layout()

    def right(array: Any) -> bool:
        def read(kind: Any, offset: int, start: int = id(array)) -> Any:
            return kind.from_address(start + offset).value

        pointer, dtype = ctypes.c_void_p, array.dtype
        if read(pointer, place.data) != array.ctypes.data or read(pointer, place.dtype) != id(dtype):
            return False
        usable = array.flags.c_contiguous and array.flags.aligned
        return bool(
            read(ctypes.c_int, place.ndim) == array.ndim
            and [read(ctypes.c_int64, 8 * i, read(pointer, place.shape)) for i in range(array.ndim)] == [*array.shape]
            and (read(ctypes.c_int, place.flags) & USABLE == USABLE) == usable
            and read(ctypes.c_char, place.order, id(dtype)) == dtype.byteorder.encode()
            and read(ctypes.c_int, place.number, id(dtype)) == dtype.num
        )

    if sys.implementation.name != "cpython" or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return None
    probes = [np.zeros((2, 3)), np.zeros((4, 3), np.float32)[:, ::2], np.zeros(3, ">f8"), np.zeros(2, np.bool_)]
    return place if all(map(right, probes)) else None
