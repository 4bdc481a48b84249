"""Turns files of `torch.save` into ``.safetensors`` files, in a process of its own with limits of memory and time.

`foreign` runs this file as a script. It reads pairs (file, result) as JSON from the standard input, and writes a list
of reasons, which are empty where it succeeded. It imports no other part of limner, so that it starts quickly.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CPU_SECONDS = 60  # and one for every 50 MB
_WALL_SECONDS = 900
_DEPTH, _TENSORS, _NAME = 4, 10_000, 200  # limits: of nested dicts, of tensors, of a name's characters
_PLAIN = (*("float64", "float32", "float16", "bfloat16"), *("int64", "int32", "int16", "int8", "uint8", "bool"))


def main() -> None:
    """Converts all files, each in a fork of this process where the system can fork."""
    jobs = json.load(sys.stdin)
    import torch  # noqa: F401 - once for all forks
    from safetensors.torch import save_file  # noqa: F401

    json.dump([_in_a_fork(*job) if hasattr(os, "fork") else _reason(*job) for job in jobs], sys.stdout)


def _in_a_fork(file: str, result: str) -> str:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            _limit(Path(file).stat().st_size)
            reason = _reason(file, result)
            os.write(write, reason.encode(errors="replace")[:4000] or b"\0")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if said == "\0":
        return ""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM):
        return "it takes too long"
    return said or "the process that reads it crashed or needs too much memory"


def _limit(size: int) -> None:
    """Limits what this process may use, in proportion to the size of its file in bytes."""
    import resource

    signal.alarm(_WALL_SECONDS)
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii")
        own = int(pages.split()[0]) * resource.getpagesize()
        memory = own + 4 * size + (512 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    seconds = _CPU_SECONDS + size // 50_000_000
    for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 2 * size + (16 << 20))):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError, AttributeError):  # no network, where the system lets a user leave it
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)  # type: ignore[attr-defined]


def _reason(file: str, result: str) -> str:
    """Converts a file; the reason why it cannot be converted, or nothing."""
    import torch
    from safetensors.torch import save_file

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - the only place for pickles
        nets = list(_state_dicts(content, "", 0, set()))
        if not nets:
            return "it is no state dict of one net; save net.state_dict() and give that file"
        tensors = {f"{i}/{name}": t for i, (_, net) in enumerate(nets) for name, t in net.items()}
        problem = _problem(tensors, Path(file).stat().st_size)
        if problem:
            return problem
        dense = {name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(dense, result, {"nets": json.dumps([path for path, _ in nets])})
    except MemoryError:
        return "it needs too much memory"
    except BaseException as error:  # a damaged pickle raises anything
        return f"it is damaged ({type(error).__name__}: {error})"
    return ""


def _state_dicts(node: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The dicts of tensors in nested dicts, with their paths, each once. Those of an optimiser are left out."""
    import torch

    if not isinstance(node, dict) or depth > _DEPTH or "param_groups" in node or id(node) in seen:
        return
    seen.add(id(node))
    tensors = {k: v for k, v in node.items() if isinstance(v, torch.Tensor) and isinstance(k, str)}
    if tensors and len(tensors) * 2 >= len(node):
        yield path, tensors
    for key, value in node.items():
        if isinstance(key, str):
            yield from _state_dicts(value, f"{path}.{key}" if path else key, depth + 1, seen)


def _problem(tensors: dict[str, Any], size: int) -> str:
    """What is wrong with tensors of a file of `size` bytes; nothing if they are plain and as large as the file."""
    import torch

    if len(tensors) > _TENSORS:
        return f"it holds {len(tensors):,} tensors; {_TENSORS:,} are read"
    total = 0
    for key, t in tensors.items():
        name = key.partition("/")[2]
        if len(name) > _NAME or not name.isprintable():
            return f"it has a tensor with a name of {len(name):,} characters, or of unprintable ones"
        if t.layout != torch.strided or t.is_quantized or t.is_meta or t.is_nested or t.dim() > 8:
            return f"{name} is no plain dense tensor"
        if str(t.dtype).removeprefix("torch.") not in _PLAIN:
            return f"{name} has the type {t.dtype}; save floating-point weights"
        total += t.numel() * t.element_size()
    return "" if total <= 2 * size + (1 << 20) else "its tensors are larger than the file"


if __name__ == "__main__":
    main()
