"""limner's training loop against the lectures' code and against pythae: images per second, side by side.

Ours is `limner train` itself: `Trainer.fit` with stream, updates, meters and the log file; only sample sheets and
checkpoints are put off. The lectures' way is a `DataLoader` over PIL images with the usual transforms (to tensor,
normalise, resize where the recipe does), `torch.optim.Adam` as it comes, and `.item()` at every step, restated here.
Both train the same nets, made from the same recipe, with the same batch and threads, in this process. WGAN-GP stands
beside its plain formulation too, with the images in memory on both sides: three passes of the critic, and a penalty by
`autograd.grad` with a graph. pythae, where it can be imported, trains its own MLP VAE with its own trainer on a set in
memory; ours has nets of the same sizes.

The two sides alternate chunk by chunk. A chunk is done again, at most three times, while other processes take more than
6 % of the machine. What counts is the median over rounds of the ratio; the ratio of processor seconds stands beside it,
since that is what a busy machine disturbs least.

    python benchmarks/train.py                                   every row, fp32 and bf16
    python benchmarks/train.py --models gan-mnist --rounds 7
    pip install --no-deps --target DIR pythae cloudpickle imageio tqdm scipy; PYTHONPATH=DIR python benchmarks/train.py
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import limner.data
from limner import api
from limner.config import recipe as recipes
from limner.core.model import GenerativeModel
from limner.core.progress import Silent
from limner.core.run import Run
from limner.core.train import fit

MODELS: dict[str, dict[str, Any]] = {
    "ae-mnist": {},
    "conv-ae-mnist": {},
    "vae-mnist": {},
    "gan-mnist": {},
    "dcgan-mnist": {},
    "dcgan-32": {"data": "mnist-5k"},
    "wgan-gp-mnist": {},
    "wgan-gp mlp": {
        "data.size": 28,
        "model.G": {"name": "mlp.Decoder", "z": 100, "widths": [128, 256, 512, 1024]},
        "model.D": {"name": "mlp.Discriminator", "widths": [512, 256]},
        "train.channels_last": False,
    },
}
RECIPE = {"wgan-gp mlp": "wgan-gp-mnist"}
PYTHAE = "vae against pythae"
QUIET, RETRIES, SECONDS = 0.06, 3, 1.0  # of other processes, again, a chunk at least
FIRST = 10  # steps that show how long one takes
NEVER = 10**12


# ---- what a chunk costs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """One timed stretch: seconds of the clock and of this process, and the share of the cores others took."""

    images: int
    wall: float
    processor: float
    others: float


class Clock:
    """Times stretches of work."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begins a stretch."""
        self.wall, self.processor, self.busy = time.perf_counter(), _own(), _busy()

    def stop(self, images: int) -> Chunk:
        """Ends it."""
        wall, processor = time.perf_counter() - self.wall, _own() - self.processor
        others = (_busy() - self.busy - processor) / (wall * (os.cpu_count() or 1))
        return Chunk(images, wall, processor, max(0.0, others))


def _own() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def _busy() -> float:
    """Seconds all cores have worked, for anybody; 0 where the system does not say."""
    try:
        user, nice, system, _, _, irq, softirq, *_ = (
            Path("/proc/stat").read_text(encoding="utf-8").split(maxsplit=11)[1:11]
        )
    except (OSError, ValueError):
        return 0.0
    return sum(int(t) for t in (user, nice, system, irq, softirq)) / os.sysconf("SC_CLK_TCK")


# ---- theirs --------------------------------------------------------------------------------------------------------

Train = Callable[[int], int]
"""Trains for so many steps and says how many images it saw."""


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """PIL images with the transforms of the lectures: resize, to tensor in [0,1], normalise to [-1,1]."""

    def __init__(self, pixels: np.ndarray[Any, Any], size: int) -> None:
        self.pixels, self.size = pixels, size

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.pixels[i])
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(image, copy=True))[None].contiguous().float().div(255)
        mean, std = torch.as_tensor([0.5]), torch.as_tensor([0.5])
        return x.clone().sub_(mean[:, None, None]).div_(std[:, None, None]), 0


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def autoencoder(model: GenerativeModel, rates: dict[str, float]) -> Callable[[Tensor], float]:
    encoder, decoder = model.encoder, model.decoder
    optimiser = torch.optim.Adam(model.parameters(), lr=rates["AE"])
    criterion = nn.MSELoss()

    def step(x: Tensor) -> float:
        loss = criterion(decoder(encoder(x)), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def vae(model: GenerativeModel, rates: dict[str, float]) -> Callable[[Tensor], float]:
    encoder, decoder = model.encoder, model.decoder
    optimiser = torch.optim.Adam(model.parameters(), lr=rates["VAE"])

    def step(x: Tensor) -> float:
        mu, logvar = encoder(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        reconstruction = F.binary_cross_entropy(torch.sigmoid(decoder(z)), (x + 1) / 2, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        loss = (reconstruction + kl) / len(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def gan(model: GenerativeModel, rates: dict[str, float]) -> Callable[[Tensor], float]:
    G, D = model.G, model.D
    optimiser_G = torch.optim.Adam(G.parameters(), lr=rates["G"])
    optimiser_D = torch.optim.Adam(D.parameters(), lr=rates["D"])
    criterion = nn.BCELoss()

    def step(x: Tensor) -> float:
        real, fake = torch.ones(len(x)), torch.zeros(len(x))
        x_hat = G(torch.randn(len(x), G.z))
        loss_D = criterion(torch.sigmoid(D(x)), real) + criterion(torch.sigmoid(D(x_hat.detach())), fake)
        optimiser_D.zero_grad()
        loss_D.backward()
        optimiser_D.step()
        x_hat = G(torch.randn(len(x), G.z))
        loss_G = criterion(torch.sigmoid(D(x_hat)), real)
        optimiser_G.zero_grad()
        loss_G.backward()
        optimiser_G.step()
        return loss_D.item() + loss_G.item()

    return step


def wgan_gp(model: GenerativeModel, rates: dict[str, float]) -> Callable[[Tensor], float]:
    G, D = model.G, model.D
    optimiser_G = torch.optim.Adam(G.parameters(), lr=rates["G"], betas=(0.0, 0.9))
    optimiser_D = torch.optim.Adam(D.parameters(), lr=rates["D"], betas=(0.0, 0.9))
    done = 0

    def step(x: Tensor) -> float:
        nonlocal done
        done += 1
        x_hat = G(torch.randn(len(x), G.z)).detach()
        eps = torch.rand(len(x), 1, 1, 1)
        between = (eps * x + (1 - eps) * x_hat).requires_grad_(True)
        logits = D(between)
        slope = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True, retain_graph=True)[0]
        penalty = ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        loss_D = D(x_hat).mean() - D(x).mean() + model.gp_weight * penalty
        optimiser_D.zero_grad()
        loss_D.backward()
        optimiser_D.step()
        if done % model.n_critic:
            return loss_D.item()
        loss_G = -D(G(torch.randn(len(x), G.z))).mean()
        optimiser_G.zero_grad()
        loss_G.backward()
        optimiser_G.step()
        return loss_D.item() + loss_G.item()

    return step


STEPS = {"autoencoder": autoencoder, "vae": vae, "gan": gan, "wgan_gp": wgan_gp}


def lectures(prepared: api.Prepared) -> Train:
    """The lectures' loop over a copy of the nets."""
    model = copy.deepcopy(prepared.model).train()
    step = STEPS[prepared.recipe.model.name](model, {g: o.lr for g, o in prepared.optimisers.items()})
    raw = limner.data.load(prepared.dataset.name).fetch(range(len(prepared.dataset)))[:, 0].numpy()
    pictures = Pictures(raw, prepared.dataset.shape[1])
    batches = endless(DataLoader(pictures, batch_size=prepared.options.batch, shuffle=True))

    def train(steps: int) -> int:
        seen = 0
        for _ in range(steps):
            x, _ = next(batches)
            step(x)
            seen += len(x)
        return seen

    return train


def plain(prepared: api.Prepared) -> Train:
    """The lectures' step alone: their optimiser and formulas on images in memory."""
    model = copy.deepcopy(prepared.model).train()
    step = STEPS[prepared.recipe.model.name](model, {g: o.lr for g, o in prepared.optimisers.items()})
    x = limner.data.load(prepared.dataset.name, size=prepared.dataset.shape[1]).pixels.float().div(127.5).sub(1)

    def train(steps: int) -> int:
        for _ in range(steps):
            step(x[torch.randint(len(x), (prepared.options.batch,))])
        return steps * prepared.options.batch

    return train


def pythae(prepared: api.Prepared) -> Train:
    """Pythae's own VAE, nets and trainer, as they are, on the same images in memory."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    batch = prepared.options.batch
    x = prepared.dataset.fetch(range(len(prepared.dataset) // batch * batch)).float() / 255
    config = VAEConfig(
        input_dim=tuple(prepared.dataset.shape), latent_dim=prepared.model.prior.z, reconstruction_loss="bce"
    )
    options = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, learning_rate=1e-3, no_cuda=True
    )
    theirs = VAE(config)
    ours = sum(p.numel() for p in prepared.model.parameters())
    assert sum(p.numel() for p in theirs.parameters()) == ours, "the nets must have the same sizes"
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = BaseTrainer(theirs, BaseDataset(x, torch.zeros(len(x))), training_config=options)
        trainer.prepare_training()

    def train(steps: int) -> int:
        epochs = max(1, round(steps * batch / len(x)))
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            for epoch in range(epochs):
                trainer.train_step(epoch)
        return epochs * len(x)

    return train


# ---- ours ----------------------------------------------------------------------------------------------------------


class Enough(Exception):
    """All rounds are measured."""


class Alternate(Silent):
    """Sits in our loop as its progress bar, and lets the other side train whenever a chunk of ours is over."""

    def __init__(self, theirs: Train, batch: int, rounds: int) -> None:
        self.theirs, self.batch, self.rounds = theirs, batch, rounds
        self.chunks: list[tuple[Chunk, Chunk]] = []
        self.steps, self.done, self.retries, self.clock = FIRST, 0, 0, Clock()
        self.position, self.warm = 0, False

    def step(self, position: int) -> None:
        """One step of ours is done."""
        self.done += 1
        if self.done < self.steps:
            return
        ours = self.clock.stop(position - self.position)
        self.done, self.position = 0, position
        if not self.warm:
            self._calibrate(ours)
        elif ours.others > QUIET and self.retries < RETRIES:
            self.retries += 1
        else:
            self.retries = 0
            self.chunks.append((ours, self._other(ours.images)))
            if len(self.chunks) == self.rounds:
                raise Enough
        self.clock.start()

    def _calibrate(self, chunk: Chunk) -> None:
        """Long enough chunks, once the first steps have shown how long they take; then both sides warm up."""
        if self.steps == FIRST:
            self.steps = max(FIRST + 1, round(FIRST * SECONDS / chunk.wall))
        else:
            self.warm = True
            with _plain():
                self.theirs(FIRST)

    def _other(self, images: int) -> Chunk:
        with _plain():
            for _ in range(RETRIES + 1):
                clock = Clock()
                chunk = clock.stop(self.theirs(images // self.batch))
                if chunk.others <= QUIET:
                    break
        return chunk


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Torch as it comes, without what our loop has asked of it."""
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


@dataclass(frozen=True)
class Row:
    """What came out for one model in one precision."""

    model: str
    against: str
    precision: str
    batch: int
    ours: float  # images per second
    theirs: float
    ratio: float
    low: float
    high: float
    processor_ratio: float
    others: float  # largest share of other processes in what was kept


def measure(
    name: str, source: str, settings: dict[str, Any], peer: Callable[[api.Prepared], Train], precision: str, rounds: int
) -> Row:
    """Rounds of ours and theirs in turn."""
    put_off = {"train.images": NEVER, "train.sample_images": NEVER, "train.checkpoint_images": NEVER}
    fixed = {"train.precision": precision, "train.device": "cpu", "train.threads": torch.get_num_threads()}
    prepared = api.prepare(recipes.load(source, settings | put_off | fixed))
    alternate = Alternate(peer(prepared), prepared.options.batch, rounds)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        run = Run.create(prepared.recipe.to_dict(), Path(folder) / "run")
        fit(
            prepared.options,
            prepared.model,
            prepared.dataset,
            prepared.optimisers,
            run,
            device=prepared.device,
            progress=alternate,
        )
    pairs = alternate.chunks
    rate = [[c.images / c.wall for c in side] for side in zip(*pairs)]
    cost = [[c.processor / c.images for c in side] for side in zip(*pairs)]
    ratios = [a / b for a, b in zip(*rate)]
    return Row(
        name,
        peer.__name__,
        precision,
        prepared.options.batch,
        statistics.median(rate[0]),
        statistics.median(rate[1]),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(b / a for a, b in zip(*cost)),
        max(c.others for pair in pairs for c in pair),
    )


def rows(models: list[str], precisions: list[str], rounds: int) -> Iterator[Row]:
    for model in models:
        for precision in precisions:
            if model != PYTHAE:
                yield measure(model, RECIPE.get(model, model), MODELS[model], lectures, precision, rounds)
                if model.startswith("wgan-gp"):
                    yield measure(model, RECIPE.get(model, model), MODELS[model], plain, precision, rounds)
                continue
            nets = {"model.z": 16, "model.encoder.widths": [512], "model.decoder.widths": [512], "train.batch": 64}
            yield measure(model, "vae-mnist", nets, pythae, precision, rounds)


def has_pythae() -> bool:
    try:
        import pythae.trainers  # noqa: F401
    except ImportError as error:
        print(f"pythae cannot be imported ({error}): its row is left out", file=sys.stderr)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=[*MODELS, PYTHAE], choices=[*MODELS, PYTHAE], metavar="MODEL")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = [m for m in options.models if m != PYTHAE or has_pythae()]
    print(
        f"torch {torch.__version__}, {options.threads} threads of {os.cpu_count()} cores ({platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}), {options.rounds} rounds\n"
        f"{'model':<16}{'against':<9}{'':>5}{'batch':>6}{'ours':>9}{'theirs':>9}  images/s{'ratio':>8}  lowest–highest"
        f"{'cpu ratio':>11}{'others':>8}"
    )
    found = []
    for r in rows(models, options.precision, options.rounds):
        found.append(r)
        print(
            f"{r.model:<16}{r.against:<9}{r.precision:>5}{r.batch:>6}{r.ours:>9,.0f}{r.theirs:>9,.0f}{'':>10}{r.ratio:>8.2f}"
            f"  {r.low:>6.2f}–{r.high:<7.2f}{r.processor_ratio:>11.2f}{r.others:>8.0%}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
