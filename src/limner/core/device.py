"""Choice and description of the device: cpu, cuda or mps."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from limner.core.errors import LimnerError


def devices(text: str) -> list[str]:
    """The device names in a text such as ``cpu``, ``cuda:1``, ``0,1`` or ``auto``.

    >>> devices("cpu,cpu")
    ['cpu', 'cpu']
    """
    return [f"cuda:{d}" if d.isdigit() else d for d in (part.strip() for part in str(text).split(",")) if d]


def pick(name: str = "auto") -> torch.device:
    """The torch device for a name; ``auto`` prefers CUDA, then Apple's mps, then the CPU.

    Raises:
        LimnerError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{name}" if name.isdigit() else name)
    except RuntimeError:
        raise LimnerError(f"unknown device {name!r}; use auto, cpu, mps, cuda, 0 or a list such as 0,1") from None
    available = {
        "cpu": True,
        "mps": torch.backends.mps.is_available(),
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
    }
    if not available.get(device.type, False):
        raise LimnerError(f"this machine has no {device}; use device=auto or device=cpu")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device


def lacks_bfloat16(device: torch.device) -> str | None:
    """Why a device computes bfloat16 several times more slowly than float32; None where it does not.

    PyTorch emulates bfloat16 where a processor has no instructions for it, silently.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        return f"{torch.cuda.get_device_name(device)} has no instructions for bfloat16"
    if device.type != "cpu" or _cpu_has_bfloat16():
        return None
    return "this CPU has no instructions for bfloat16 (AVX-512 BF16 or AMX)"


def _cpu_has_bfloat16() -> bool:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # On x86 oneDNN counts plain AVX-512 as support, with which it was measured 8.7 times slower than float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def make_deterministic() -> None:
    """Makes PyTorch use kernels that give the same bits each time, where it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling new memory takes a pass over every tensor and only guards against reading uninitialised values.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def describe(device: torch.device) -> dict[str, Any]:
    """The versions, device and platform that results depend on; no user name and no path."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "limner": _version("limner"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
            return f"{next(names)}, {os.cpu_count()} cores"
    except (OSError, StopIteration):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def memory(device: torch.device | str) -> int | None:
    """Bytes of memory of a device, or None if unknown. A container may have less than its machine."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text("ascii").strip() if limit.is_file() else ""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return min(machine, int(allowed)) if allowed.isdigit() else machine
