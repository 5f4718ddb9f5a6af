"""What this machine is, and a clock that waits for its accelerator."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from skipviz.analysis.timing.measured import Machine

Clock = Callable[[], float]
"""Returns seconds since some moment."""

_CPUINFO = Path("/proc/cpuinfo")


def this_machine(device: torch.device) -> Machine:
    """Return what a model on a device runs on, with the threads that torch has now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores(),
        threads=torch.get_num_threads(),
        device=device.type,
        device_name=name,
        torch_version=str(torch.__version__),
    )


def clock_of(device: torch.device) -> Clock:
    """Return a clock; where work is queued on a device, it waits until that is done."""
    if device.type == "cpu":
        return time.perf_counter

    def read() -> float:
        torch.accelerator.synchronize(device)
        return time.perf_counter()

    return read


def _cpu() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    return os.cpu_count() or 1
