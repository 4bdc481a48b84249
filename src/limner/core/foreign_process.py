"""Turns files of `torch.save` into ``.safetensors`` files, in a process of its own with limits of memory and time.

`foreign` runs this file as a script. It reads triples (file, result, objects) as JSON from the standard input, and
writes a list of reasons, which are empty where it succeeded. It imports no other part of limner, so that it starts
quickly.

Whole nets that NVIDIA's code pickled hold the source code of their classes, which that code executes when it reads
them. Here a name of a pickle is looked up in a short list of functions that are written below, or stands for an object
that keeps what it is given and does nothing. No other name is read, and nothing is imported.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle  # noqa: TID251 - with names of its own, see `_Reader`
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_CPU_SECONDS = 60  # and one for every 50 MB
_WALL_SECONDS = 900
_DEPTH, _TENSORS, _NAME = 4, 10_000, 200  # limits: of nested dicts, of tensors, of a name's characters
_MODULES = 20  # limit of nested modules
_PLAIN = (*("float64", "float32", "float16", "bfloat16"), *("int64", "int32", "int16", "int8", "uint8", "bool"))


def main() -> None:
    """Converts all files, each in a fork of this process where the system can fork."""
    jobs = json.load(sys.stdin)
    import torch  # noqa: F401 - once for all forks
    from safetensors.torch import save_file  # noqa: F401

    json.dump([_in_a_fork(*job) if hasattr(os, "fork") else _reason(*job) for job in jobs], sys.stdout)


def _in_a_fork(file: str, result: str, objects: bool) -> str:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            _limit(Path(file).stat().st_size, objects)
            reason = _reason(file, result, objects)
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


def _limit(size: int, objects: bool) -> None:
    """Limits what this process may use, in proportion to the size of its file in bytes."""
    import resource

    signal.alarm(_WALL_SECONDS)
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii")
        own = int(pages.split()[0]) * resource.getpagesize()
        memory = own + (6 if objects else 4) * size + (512 << 20)  # a plain pickle keeps its bytes to the end
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    seconds = _CPU_SECONDS + size // 50_000_000
    for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 2 * size + (16 << 20))):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))
    with contextlib.suppress(OSError, AttributeError):  # no network, where the system lets a user leave it
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)  # type: ignore[attr-defined]


def _reason(file: str, result: str, objects: bool) -> str:
    """Converts a file; the reason why it cannot be converted, or nothing."""
    import torch
    from safetensors.torch import save_file

    try:
        content = _content(file, objects)
        nets = list(_state_dicts(content, "", 0, set()))
        if objects and isinstance(content, dict) and not any(path == "" for path, _ in nets):
            alone = {k: t for k, t in content.items() if isinstance(k, str) and isinstance(t, torch.Tensor)}
            nets += [("", alone)] if alone and nets else []
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
    except _Refused as error:
        return str(error)
    except BaseException as error:  # a damaged pickle raises anything
        return f"it is damaged ({type(error).__name__}: {error})"
    return ""


def _content(file: str, objects: bool) -> Any:
    """What a file holds: tensors and plain values, and with `objects` the tensors of modules."""
    import torch

    if objects:
        import argparse

        torch.serialization.add_safe_globals([argparse.Namespace])  # it holds what it is given
        with Path(file).open("rb") as stream:
            if stream.read(2)[:1] == b"\x80" and stream.read(8) != _LEGACY:
                stream.seek(0)
                content = _Reader(stream).load()
                return _without_objects(content, 0)
    return torch.load(file, map_location="cpu", weights_only=True)  # noqa: TID251 - the only place for pickles


_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 "  # how `torch.save` continued before version 1.6


class _Refused(ValueError):
    """A pickle mentions what is not read."""


class _Object:
    """Stands for an object of a class that is not read: it keeps its state and does nothing."""

    __slots__ = ("state",)

    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> _Object:
        new = object.__new__(cls)
        new.state = None
        return new

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Drops an item of an object that is a list as well."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drops an item of an object that is a dict as well."""


class _Known:
    """A function that a pickle may call. Unlike a Python function it has no attributes that a pickle could set."""

    __slots__ = ("function",)

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused("it sets attributes of functions, which would run code")

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _module(meta: Any) -> _Object:
    """The module that a persistent object of NVIDIA's code describes, without its source."""
    module = _Object()
    module.state = meta.get("state") if type(meta) is dict else None
    return module


def _storage(content: Any) -> Any:
    """The storage in bytes of `torch.save`."""
    import torch

    if not isinstance(content, bytes) or not content.startswith(b"\x80\x02" + _LEGACY):
        raise _Refused("it holds a tensor in a form that torch.save does not write")
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251
    if not isinstance(storage, torch.TypedStorage | torch.UntypedStorage):
        raise _Refused("it holds a tensor in a form that torch.save does not write")
    return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """A tensor of a storage."""
    import torch

    if not isinstance(storage, torch.TypedStorage):
        raise _Refused("it holds a tensor without numbers")
    offset, size, stride = int(offset), tuple(map(int, size)), tuple(map(int, stride))
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if min((offset, *size, *stride)) < 0 or end > len(storage):  # PyTorch would make the storage larger
        raise _Refused("it holds a tensor that is larger than its numbers")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)


def _parameter(tensor: Any, *rest: Any) -> Any:
    """A parameter as the tensor that it is."""
    return tensor


_CALLED = {
    "torch_utils.persistence._reconstruct_persistent_obj": _Known(_module),
    "torch._utils._rebuild_tensor_v2": _Known(_tensor),
    "torch._utils._rebuild_parameter": _Known(_parameter),
    "torch.storage._load_from_bytes": _Known(_storage),
    "copyreg._reconstructor": _Known(_Object),
    "collections.OrderedDict": dict,
    "dnnlib.util.EasyDict": dict,
}
_IGNORED = ("torch.nn.", "training.", "torch_utils.", "dnnlib.util.", "numpy.", "metrics.")
_IGNORED_NAMES = (
    *("torch.Size", "torch.device", "torch.memory_format", "torch.float32", "torch.float16", "torch.int64"),
    *("_codecs.encode", "builtins.set", "builtins.frozenset", "builtins.object", "builtins.slice"),
)


class _Reader(pickle.Unpickler):
    """Reads a pickle whose names are those above and no others; none of them is imported."""

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path in _CALLED:
            return _CALLED[path]
        if path.startswith("dnnlib.tflib."):
            raise _Refused(
                "it is a StyleGAN of TensorFlow; convert it with legacy.py of NVIDIA's stylegan2-ada-pytorch first"
            )
        if path.startswith(_IGNORED) or path in _IGNORED_NAMES:
            return _Object
        raise _Refused(f"it holds Python objects (such as {path[:60]}), which would run code")


def _without_objects(node: Any, depth: int) -> Any:
    """Nested dicts with the tensors of modules in their place."""
    if isinstance(node, _Object):
        return dict(_module_tensors(node, "", 0, set()))
    if type(node) is dict and depth <= _DEPTH:
        return {k: _without_objects(v, depth + 1) for k, v in node.items()}
    return node


def _module_tensors(module: _Object, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The parameters and buffers of a module and of those in it, by their names in a state dict."""
    import torch

    state = module.state
    if type(state) is not dict or depth > _MODULES or id(module) in seen or len(seen) > _TENSORS:
        return
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _items(state.get(kind)):
            if isinstance(tensor, torch.Tensor):
                yield f"{path}{name}", tensor
    for name, part in _items(state.get("_modules")):
        if isinstance(part, _Object):
            yield from _module_tensors(part, f"{path}{name}.", depth + 1, seen)


def _items(node: Any) -> list[tuple[str, Any]]:
    """The items of a dict with names as keys."""
    return [(k, v) for k, v in node.items() if isinstance(k, str)] if type(node) is dict else []


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
