"""Peak memory of one call, in two ways that are never mixed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from adbridge.errors import CapabilityError


def peak_rss_delta(call: Callable[[], object]) -> int:
    """Bytes by which running `call` raises this process's resident high-water mark.

    Reads VmHWM after resetting it (Linux only), so memory that the allocator kept from earlier calls hides
    growth: run it first, in a fresh process. (`ru_maxrss` would not do: it is inherited across exec.)

    Raises:
        CapabilityError: the platform cannot reset its high-water mark.
    """
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as exc:
        raise CapabilityError(
            f"peak_rss_delta needs Linux's /proc/self/clear_refs, which failed: {exc}; use peak_alloc_bytes instead"
        ) from exc
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise CapabilityError(f"/proc/self/status has no {key}; use peak_alloc_bytes instead")
