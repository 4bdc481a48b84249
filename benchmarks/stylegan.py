"""Speed and memory of StyleGAN2's training step, beside a grouped convolution and beside another implementation.

    python benchmarks/stylegan.py                    32 and 64 pixels, one thread
    python benchmarks/stylegan.py --sizes 32 --steps 8 --device cuda

Public code scales the weights of a modulated convolution for each image and computes one convolution of B groups;
limner scales the maps before and after one ordinary convolution, with the same result
(`tests/nets/test_stylegan2.py`). Here one and the same step of limner's model is timed with either. A cycle of 16 steps
has one R1 and four path lengths, as in a training. Both forms start from the same weights, and their images are
compared first.

    pip install --no-deps --target /tmp/peer stylegan2_pytorch kornia kornia_rs einops tqdm
    python benchmarks/stylegan.py --peer /tmp/peer

times the step of `stylegan2_pytorch` (P. Wang, MIT), which stays as it is: its `Trainer.train` is called. Its map
widths follow from one number, `--capacity`, and limner's nets get the same width at each size of a map. Both have a z
and a w of 128, four mapping layers, styles mixed in .9 of the batches, and the periods of the peer: a penalty on D's
slope at every 4th step, a path length at every 32nd, so that a cycle has 32 steps. The nets are not quite the same: in
each block of its D the peer has one 3×3 convolution more, it upsamples before it convolves, and it penalises the slope
at generated images too. So at equal widths the peer has more to compute, and limner is timed again with nets so wide
that one pass of G and of D takes as many multiplications as the peer's. A last row has limner's own periods, 16 and 4.
The peer wants a GPU; without one its calls of `cuda()` are made to do nothing.

The forms that are compared take turns, a cycle each, in a process each. On a CPU the time is that of the processor, so
that other programs matter less; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import prod, sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.optimisers import Adam
from limner.core.update import Updates
from limner.nets import stylegan2

SIZES = (32, 64)
WIDTH, WIDEST = 32, 128  # channels of the largest map, and of the smallest
BATCH = 16
Z, MAPPING = 128, 4
_UNUSED = ("aim", "fire", "torchvision", "vector_quantize_pytorch")  # the peer imports them, its step does not use them


class Setting(NamedTuple):
    """What is timed.

    Attributes:
        form: activation, grouped or peer.
        size: side of an image.
        device: cpu or cuda.
        widths: width and widest of G and of D.
        periods: steps from one penalty on D's slope to the next, and from one path length.
        peer: the folder of the peer.
        capacity: its number of channels.
    """

    form: str
    size: int
    device: str
    widths: tuple[int, int, int, int] = (WIDTH, WIDEST, WIDTH, WIDEST)
    periods: tuple[int, int] = (16, 4)
    mixing: float = 0.9
    peer: str = ""
    capacity: int = 8


def grouped(self: stylegan2._ModulatedConv, x: Tensor, s: Tensor) -> Tensor:
    """`_ModulatedConv.forward` in the weight form: eq. 1 and 3 of the paper, with B groups."""
    w = self.weight[None] * s[:, None, :, None, None]  # (B,O,I,k,k)
    if self.demodulate:
        w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    else:
        w = w / sqrt(prod(self.weight.shape[1:]))
    b, flat = len(x), x.reshape(1, -1, *x.shape[2:])
    if self.up is None:
        h = F.conv2d(flat, w.flatten(0, 1), padding=w.shape[-1] // 2, groups=b).unflatten(1, (b, -1))[0]
    else:
        h = F.conv_transpose2d(flat, w.transpose(1, 2).flatten(0, 1), stride=2, groups=b).unflatten(1, (b, -1))[0]
        h = self.up.blur(h, 1, gain=4)
    return self.gain * (h + self.bias[:, None, None])


class Batches:
    """A stream of one batch of noise, with new noise for each step."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.images = Images(torch.rand(BATCH, 3, size, size, device=device) * 2 - 1)
        self.batch, self.position, self.device = BATCH, 0, device

    def __next__(self) -> Images:
        self.position += BATCH
        return self.images

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, device=self.device)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(*size, device=self.device)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position), device=self.device)


def limner_step(setting: Setting) -> tuple[Callable[[], object], dict[str, nn.Module], Callable[[Tensor], Tensor]]:
    """A training step of limner, its nets, and what makes images of noise."""
    g, g_most, d, d_most = setting.widths
    tree = {
        "name": "stylegan2", "r1_every": setting.periods[0], "path_every": setting.periods[1], "mixing": setting.mixing,
        "G": {"name": "stylegan2.Generator", "z": Z, "w": Z, "mapping": MAPPING, "width": g, "widest": g_most},
        "D": {"name": "stylegan2.Discriminator", "width": d, "widest": d_most},
    }  # fmt: skip
    shape = (3, setting.size, setting.size)
    model: Any = Spec.parse("model", tree).resolve(shape=shape, classes=0, condition=None).build().to(setting.device)
    if setting.form == "grouped":
        stylegan2._ModulatedConv.forward = grouped  # type: ignore[method-assign]
    update = Updates(model.groups(), {"*": Adam(lr=2.5e-3, betas=(0.0, 0.99))})
    data = Batches(setting.size, torch.device(setting.device))
    return lambda: model.step(data, update), {"G": model.G, "D": model.D}, model.decode


def peer_step(setting: Setting) -> tuple[Callable[[], object], dict[str, nn.Module], Callable[[Tensor], Tensor]]:
    """A training step of the peer, its nets (G with the mapping net), and what makes images of noise."""
    sys.path.insert(0, setting.peer)
    for name in _UNUSED:
        if importlib.util.find_spec(name) is None:
            for module, holds in ((name, ["VectorQuantize", "transforms"]), (f"{name}.transforms", [])):
                sys.modules[module] = types.ModuleType(module)
                vars(sys.modules[module]).update(dict.fromkeys(holds))
    if setting.device == "cpu":
        torch.cuda.is_available = lambda: True
        Tensor.cuda = nn.Module.cuda = lambda self, *args: self  # type: ignore[assignment, method-assign]
    from stylegan2_pytorch.stylegan2_pytorch import Trainer

    def images() -> Iterator[Tensor]:
        x = torch.rand(BATCH, 3, setting.size, setting.size, device=setting.device)
        while True:
            yield x.clone()

    trainer = Trainer(
        base_dir=tempfile.mkdtemp(), image_size=setting.size, network_capacity=setting.capacity, batch_size=BATCH,
        lr_mlp=0.01, latent_dim=Z, style_depth=MAPPING, save_every=10**9, evaluate_every=10**9,
    )  # fmt: skip
    trainer.init_GAN()
    trainer.loader = images()
    trainer.steps = 5024  # a multiple of both periods, after 5,000 steps without a path length
    gan = trainer.GAN

    def decode(z: Tensor) -> Tensor:
        styles = gan.S(z)[:, None].expand(-1, gan.G.num_layers, -1)
        noise = torch.rand(len(z), setting.size, setting.size, 1, device=z.device)
        return gan.G(styles, noise)

    return trainer.train, {"G": nn.ModuleList([gan.S, gan.G]), "D": gan.D}, decode


# ---- what a process does -------------------------------------------------------------------------------------------

_step: Callable[[], object]
_setting: Setting


def prepare(setting: Setting) -> tuple[dict[str, int], dict[str, float], Tensor]:
    """Builds nets; gives their parameters, their millions of multiplications for an image, and an image."""
    global _step, _setting
    torch.set_num_threads(1)
    torch.manual_seed(0)
    _setting = setting
    _step, nets, decode = peer_step(setting) if setting.form == "peer" else limner_step(setting)
    z = torch.randn(2, Z, generator=torch.Generator().manual_seed(0)).to(setting.device)
    first = decode(z).detach()
    work = {"G": counted(lambda: decode(z)), "D": counted(lambda: nets["D"](first))}
    return {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}, work, first.cpu()


def counted(f: Callable[[], object]) -> float:
    """Millions of multiplications of a pass over two images, for one."""
    with FlopCounterMode(display=False) as counter:
        f()
    return counter.get_total_flops() / 2 / 2 / 1e6


def cycle(steps: int) -> float:
    """Seconds of some steps."""
    clock = time.process_time if _setting.device == "cpu" else time.perf_counter
    started = clock()
    for _ in range(steps):
        _step()
    if _setting.device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


def peak(_: object = None) -> float:
    """Peak memory in MB: of the process, or on a GPU of what torch has taken."""
    if _setting.device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


# ---- what compares processes ---------------------------------------------------------------------------------------


class Result(NamedTuple):
    """What was measured of one form.

    Attributes:
        parameters: of G and D.
        work: millions of multiplications of one pass of one image.
        image: of the first weights.
        rates: images a second in each round.
        memory: peak in MB, and before the first step.
    """

    parameters: dict[str, int]
    work: dict[str, float]
    image: Tensor
    rates: list[float]
    memory: tuple[float, float]

    def __str__(self) -> str:
        sizes = ", ".join(f"{k} {n / 1e6:.2f}M and {self.work[k]:.0f}M" for k, n in self.parameters.items())
        rate = f"{statistics.median(self.rates):.1f} images/s"
        memory = f"peak {self.memory[0]:.0f} MB ({self.memory[1]:.0f} before the first step)"
        return f"{rate}, {memory}; parameters and multiplications: {sizes}"


def measured(settings: list[Setting], steps: int, rounds: int) -> list[Result]:
    """Each setting in a process of its own, a cycle in turn; the first cycle is not counted."""
    with ExitStack() as stack:
        pools = [stack.enter_context(get_context("spawn").Pool(1)) for _ in settings]
        facts = [pool.apply(prepare, (setting,)) for pool, setting in zip(pools, settings, strict=True)]
        before = [pool.apply(peak) for pool in pools]
        seconds = [[pool.apply(cycle, (steps,)) for pool in pools] for _ in range(rounds + 1)][1:]
        after = [pool.apply(peak) for pool in pools]
    rates = [[BATCH * steps / s for s in each] for each in zip(*seconds, strict=True)]
    return [Result(*f, r, (a, b)) for f, r, a, b in zip(facts, rates, after, before, strict=True)]


def as_much_work(own: Setting, peer: Setting) -> Setting:
    """Limner's setting with widths at which a pass takes as many multiplications as one of the peer."""
    with get_context("spawn").Pool(1) as one, get_context("spawn").Pool(1) as other:
        less, more = one.apply(prepare, (own,))[1], other.apply(prepare, (peer,))[1]
    factors = [sqrt(more[net] / less[net]) for net in ("G", "G", "D", "D")]
    return own._replace(widths=tuple(round(width * f) for width, f in zip(own.widths, factors, strict=True)))


def ratio(a: Result, b: Result) -> str:
    """By how much a is faster than b."""
    each = sorted(x / y for x, y in zip(a.rates, b.rates, strict=True))
    return f"ratio {statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def widths(size: int, capacity: int) -> tuple[int, int, int, int]:
    """Limner's width and widest of G and D that are those of the peer at each size of a map."""
    n = size.bit_length() - 3  # maps of 4 to `size` pixels
    return 2 * capacity, min(512, 2 * capacity << n), 4 * capacity, min(512, 4 * capacity << n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--steps", type=int, help="steps of a cycle; by default 16, or 32 beside the peer")
    parser.add_argument("--rounds", type=int, default=3, help="cycles of each form that are counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peer", help="folder with stylegan2_pytorch and what it needs, to be timed instead of groups")
    parser.add_argument(
        "--capacity", type=int, default=8, help="network_capacity of the peer, on which all widths depend"
    )
    args = parser.parse_args()
    if args.peer is not None and not (Path(args.peer) / "stylegan2_pytorch").is_dir():
        print(f"skipped: no stylegan2_pytorch in {args.peer}; this benchmark's first lines say how to install it")
        return
    unit = "processor seconds" if args.device == "cpu" else "seconds"
    for size in args.sizes:
        if args.peer is None:
            names = ["grouped", "activation"]  # the form to compare with is the first
            settings = [Setting(form, size, args.device) for form in names]
        else:
            own = Setting("activation", size, args.device, widths(size, args.capacity), (4, 32))
            peer = Setting("peer", size, args.device, peer=args.peer, capacity=args.capacity)
            wide = as_much_work(own, peer)
            names = ["stylegan2_pytorch", "limner, equal widths", f"limner, equal work, widths {wide.widths}"]
            names.append("limner, equal widths, its own periods")
            settings = [peer, own, wide, own._replace(periods=(16, 4))]
        found = measured(settings, args.steps or (16 if args.peer is None else 32), args.rounds)
        print(f"{size} px, batch {BATCH}, {unit}, {args.rounds} rounds")
        print(f"  {names[0]}: {found[0]}")
        for name, result in zip(names[1:], found[1:], strict=True):
            print(f"  {name}: {result}; {ratio(result, found[0])}", flush=True)
        if args.peer is None:
            print(f"  images differ by {(found[0].image - found[1].image).abs().max():.1e} at most")


if __name__ == "__main__":
    main()
