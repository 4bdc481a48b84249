"""Several processes, one training: thin words over torch.distributed.

`device=0,1` starts one process a device under torchrun (elastic restarts included); each process joins here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch
import torch.distributed as td
from torch import Tensor


def rank() -> int:
    """This process among all; 0 when alone."""
    return td.get_rank() if td.is_initialized() else 0


def world() -> int:
    """Number of processes; 1 when alone."""
    return td.get_world_size() if td.is_initialized() else 1


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(device: torch.device) -> None:
    """Joins the process group that torchrun described: gloo on the CPU, NCCL on CUDA."""
    if under_torchrun() and not td.is_initialized():
        td.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Leaves the group, if in one."""
    if td.is_initialized():
        td.destroy_process_group()


def barrier() -> None:
    """Waits for all."""
    if td.is_initialized():
        td.barrier()


def average_(tensors: Sequence[Tensor]) -> None:
    """Averages tensors over ranks in place, in one message."""
    if world() == 1 or not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    td.all_reduce(flat)
    flat /= world()
    start = 0
    for t in tensors:
        t.copy_(flat[start : start + t.numel()].view_as(t))
        start += t.numel()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on any rank (all must call it)."""
    if world() == 1:
        return flag
    up = torch.tensor(float(flag), device=device)
    td.all_reduce(up, op=td.ReduceOp.MAX)
    return bool(up)


def launch(devices: Sequence[str], arguments: Sequence[str]) -> int:
    """Runs ``limner ARGUMENTS`` once per device under torchrun; returns its exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(devices)}"]
    command += ["--max-restarts=0", "-m", "limner", *arguments]
    environment = os.environ | {"LIMNER_DEVICES": ",".join(devices)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // len(devices))))
    return subprocess.call(command, env=environment)


def own_device(device: str) -> str:
    """The device of this rank, when torchrun gave a list."""
    devices = os.environ.get("LIMNER_DEVICES")
    return devices.split(",")[int(os.environ["LOCAL_RANK"])] if under_torchrun() and devices else device
