"""Training with several processes: small functions around `torch.distributed`.

`device=0,1` starts one process for each device under torchrun, and each process calls `join`. All functions also work
in a single process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as td
from torch import Tensor

T = TypeVar("T")


def rank() -> int:
    """Index of this process; 0 in a single process."""
    return td.get_rank() if td.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return td.get_world_size() if td.is_initialized() else 1


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(device: torch.device) -> None:
    """Joins the process group of torchrun, with NCCL on CUDA and gloo elsewhere."""
    if under_torchrun() and not td.is_initialized():
        td.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Leaves the process group."""
    if td.is_initialized():
        td.destroy_process_group()


def barrier() -> None:
    """Waits for all processes."""
    if td.is_initialized():
        td.barrier()


def in_turn(function: Callable[[], T]) -> T:
    """Calls a function in the first process of each machine, and then in the others, which find what it has cached."""
    if world() == 1:
        return function()
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    result = function() if is_first else None
    barrier()
    return function() if not is_first or result is None else result


def average_(tensors: Sequence[Tensor]) -> None:
    """Averages tensors over ranks in place, with one all-reduce."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    td.all_reduce(flat)
    flat /= world()
    for t, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(mean.view_as(t))


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any rank; all ranks must call this function."""
    if world() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    td.all_reduce(value, op=td.ReduceOp.MAX)
    return bool(value)


def launch(devices: Sequence[str], arguments: Sequence[str]) -> int:
    """Runs ``limner ARGUMENTS`` under torchrun, one process per device, and returns the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(devices)}"]
    command += ["--max-restarts=0", "-m", "limner", *arguments]
    environment = os.environ | {"LIMNER_DEVICES": ",".join(devices)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(devices))))
    return subprocess.call(command, env=environment)


def device_of_rank(device: str) -> str:
    """The device of this rank if `launch` started it, else `device`."""
    devices = os.environ.get("LIMNER_DEVICES")
    return devices.split(",")[int(os.environ["LOCAL_RANK"])] if under_torchrun() and devices else device
