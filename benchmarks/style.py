"""Style transfer by optimisation in limner and in a tutorial: time of an evaluation of the loss, and the final loss.

Ours is `limner train stylise` itself, without previews and checkpoints. The other side is the usual script, restated
here: VGG as `nn.Sequential` with frozen weights and modules between its layers that hold targets and keep their loss,
the style's Gram matrices computed once, `torch.optim.LBFGS` and `Adam` with default options, the picture clamped and
`.item()` of the loss at every look, that is, every evaluation of the loss (a pass forward and back). Both have the same
weights, padding, pictures, loss and number of looks, and alternate every 25 looks, so that other work affects both. The
bars are ×1.0 in fp32 and ×1.4 in bf16, at a final loss that is at most 2 % higher; losses at the end are computed
alike, in fp32.

    python benchmarks/style.py --weights vgg19_normalised_to_conv3_1.safetensors --style vg_starry_night.jpg
    python benchmarks/style.py … --looks 100 --optimisers adam
    python benchmarks/style.py … --large 2048 --tile 1024        memory and time of one look at a large picture
    python benchmarks/style.py … --seams 1024                    a look in tiles against one at the whole picture
    python benchmarks/style.py … --model RUN                     one pass of a trained net beside 500 looks; its time
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from train import NEVER, Enough, _plain

from limner import api
from limner.config import recipe as recipes
from limner.core.optimisers import LBFGS
from limner.core.progress import Silent
from limner.core.run import Run
from limner.core.stream import Stream
from limner.core.train import fit
from limner.core.update import Updates
from limner.models.style_transfer import StyleTransfer

TURN = 25  # looks


# ---- the tutorial's side ---------------------------------------------------------------------------------------------


class Content(nn.Module):
    """Passes maps on and keeps their distance from the content's."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target = target.detach()

    def forward(self, x: Tensor) -> Tensor:
        self.loss = nn.functional.mse_loss(x, self.target) / 2
        return x


class Style(nn.Module):
    """Passes maps on and keeps E_l, the distance of their Gram matrix from the style's."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target = self.gram(target).detach()

    @staticmethod
    def gram(x: Tensor) -> Tensor:
        features = x.view(x.shape[1], -1)
        return torch.mm(features, features.t()).div(features.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        self.loss = nn.functional.mse_loss(self.gram(x), self.target) / 4
        return x


class Tutorial:
    """The script: a net with loss modules, and one optimiser over the picture.

    Args:
        model: ours, for its weights, layers and their shares.
        x: content (1,3,H,W).
        s: style.
        optimiser: lbfgs or adam.
        lr: Adam's.
    """

    def __init__(self, model: StyleTransfer, x: Tensor, s: Tensor, optimiser: str, lr: float) -> None:
        vgg, self.contents, self.styles = model.vgg, [], []
        self.net, last = nn.Sequential(), vgg.convolutions[0]

        def add(layer: nn.Module, seen: list[Tensor]) -> list[Tensor]:
            self.net.append(layer)
            return [layer(h) for h in seen]

        with torch.no_grad():
            first = nn.Conv2d(3, 3, 1)
            first.load_state_dict({"weight": vgg.first, "bias": vgg.shift})
            seen = add(first, [x, s])
            for n in vgg.convolutions:
                if n[0] != last[0]:
                    seen = add(nn.MaxPool2d(2), seen)
                weight = getattr(vgg, f"weight{n}")
                conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode=vgg.padding)
                conv.load_state_dict({"weight": weight, "bias": getattr(vgg, f"bias{n}")})
                seen, last = add(nn.ReLU(), add(conv, seen)), n
                if f"relu{n}" in model.content_layers:
                    self.contents.append(Content(seen[0]))
                    self.net.append(self.contents[-1])
                if f"relu{n}" in model.style_layers:
                    self.styles.append(Style(seen[1]))
                    self.net.append(self.styles[-1])
        self.net.eval().requires_grad_(False)
        self.x = x.clone().contiguous().requires_grad_(True)
        self.weights = (model.content_weight, model.style_weight)
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.LBFGS([self.x]) if optimiser == "lbfgs" else torch.optim.Adam([self.x], lr=lr)
        )
        self.losses: list[float] = []

    def closure(self) -> float:
        with torch.no_grad():
            self.x.clamp_(-1, 1)
        self.optimiser.zero_grad()
        self.net(self.x)
        content = sum(c.loss for c in self.contents)
        style = sum(s.loss for s in self.styles) / len(self.styles)
        loss = self.weights[0] * content + self.weights[1] * style
        loss.backward()
        self.losses.append(loss.item())
        return loss

    def until(self, looks: int) -> None:
        while len(self.losses) < looks:
            self.optimiser.step(self.closure)


# ---- in turns --------------------------------------------------------------------------------------------------------


class Turns(Silent):
    """Sits in our loop as its progress bar; after every 25 looks of ours the other side has as many.

    Args:
        model: ours.
        peer: makes the other side, once ours has looked at its targets.
        looks: after which both are done.

    Attributes:
        turns: seconds a look of ours and of theirs.
        losses: ours, at every look.
    """

    def __init__(self, model: StyleTransfer, peer: Callable[[], Tutorial], looks: int) -> None:
        self.peer, self.looks = peer, looks
        self.theirs: Tutorial | None = None
        self.turns: list[tuple[float, float]] = []
        self.losses: list[Tensor] = []
        self.before, inner = 0, model.terms

        def counted(x: Tensor, masks: Any) -> dict[str, Tensor]:
            found = inner(x, masks)
            loss = model.content_weight * found["term/content"] + model.style_weight * found["term/style"]
            self.losses.append(loss.detach())
            return found

        model.terms = counted  # type: ignore[method-assign]

    def step(self, position: int) -> None:
        """One step of ours is done."""
        del position
        done = len(self.losses) - self.before
        if self.theirs is None:  # the first step has looked at the targets, too: nobody's time
            with _plain():
                self.theirs = self.peer()
                self.theirs.until(done)
        elif done < TURN and len(self.losses) < self.looks:
            return
        else:
            ours, taken = (time.perf_counter() - self.began) / done, len(self.theirs.losses)
            began = time.perf_counter()
            with _plain():
                self.theirs.until(min(len(self.losses), self.looks))
            count = len(self.theirs.losses) - taken
            self.turns += [(ours, (time.perf_counter() - began) / count)] if count else []
            if len(self.losses) >= self.looks:
                raise Enough
        self.before, self.began = len(self.losses), time.perf_counter()


def prepared(options: argparse.Namespace, size: int, **settings: Any) -> api.Prepared:
    """The recipe `stylise` with the pictures and weights of the command line."""
    overrides = {
        "model.weights": str(options.weights),
        "data.path": options.content,
        "data.style": str(options.style),
        "data.size": size,
        "train.device": "cpu",
        "train.threads": options.threads,
    }
    return api.prepare(recipes.load("stylise", overrides | settings))


def loss_of(made: api.Prepared, x: Tensor) -> float:
    """The loss of a picture, in fp32."""
    model = made.model
    with torch.no_grad():
        terms = StyleTransfer.terms(model, x, (None,))
    return float(model.content_weight * terms["term/content"] + model.style_weight * terms["term/style"])


def raced(options: argparse.Namespace, optimiser: str, precision: str) -> dict[str, Any]:
    """One optimiser in one precision: both sides in turn."""
    lr = {} if optimiser == "lbfgs" else {"lr": options.lr}
    put_off = {"train.images": NEVER, "train.sample_images": NEVER, "train.checkpoint_images": NEVER}
    overrides = {"optim": {"picture": {"name": optimiser} | lr}, "train.precision": precision} | put_off
    made = prepared(options, options.size, **overrides)
    still = next(Stream(made.dataset, 1))
    turns = Turns(
        made.model, lambda: Tutorial(made.model, still.x, still.styles[0], optimiser, options.lr), options.looks
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        run = Run.create(made.recipe.to_dict(), Path(folder) / "run")
        fit(made.options, made.model, made.dataset, made.optimisers, run, device=made.device, progress=turns)
    ours, theirs = made.model.picture.x.detach().clamp(-1, 1), turns.theirs.x.detach().clamp(-1, 1)
    ratios, losses = [b / a for a, b in turns.turns], [float(v) for v in turns.losses]
    goal = loss_of(made, theirs)
    return {
        "optimiser": optimiser,
        "precision": precision,
        "looks": len(losses),
        "seconds": statistics.median(a for a, _ in turns.turns),
        "seconds_tutorial": statistics.median(b for _, b in turns.turns),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "loss": loss_of(made, ours),
        "loss_tutorial": goal,
        "looks_to_theirs": next((i for i, v in enumerate(losses, 1) if v <= goal), None),
        "course": losses,
        "course_tutorial": turns.theirs.losses,
    }


# ---- large pictures --------------------------------------------------------------------------------------------------


def evaluate_loss(options: argparse.Namespace, size: int, tile: int) -> tuple[float, Tensor, float]:
    """Loss, gradient and seconds of one evaluation at the content with a little noise."""
    made = prepared(options, size, **{"model.tile": tile})
    model, still = made.model, next(Stream(made.dataset, 1))
    model._targets = model._compute_targets(still)
    noise = torch.randn(still.x.shape, generator=torch.Generator().manual_seed(0))
    x = (still.x + 0.1 * noise).requires_grad_()
    began = time.perf_counter()
    terms = model.terms(x, (None,))
    loss = model.content_weight * terms["term/content"] + model.style_weight * terms["term/style"]
    (gradient,) = torch.autograd.grad(loss, x)
    return float(loss.detach()), gradient, time.perf_counter() - began


def one_pass(options: argparse.Namespace) -> None:
    """Losses of what a trained `fast_style` makes of a photograph, beside those of descents for that photograph."""
    painter = api.load(options.model)
    made = prepared(options, options.size, **{"model.style_weight": painter.style_weight})
    model, stream = made.model, Stream(made.dataset, 1)
    still = next(stream)
    model._targets = model._compute_targets(still)

    def shown(name: str, x: Tensor) -> None:
        with torch.no_grad():
            terms = StyleTransfer.terms(model, x.clamp(-1, 1), (None,))
        content, style = float(terms["term/content"]), float(terms["term/style"])
        print(f"{name:<28} content {content:.4f}  style {style:.5f}  loss {content + model.style_weight * style:.4f}")

    print(f"{options.content} at {tuple(still.x.shape[2:])}, β = {model.style_weight:g}")
    shown("the photograph", still.x)
    with torch.inference_mode():
        shown("one pass", painter.translate(still.x))
    looks, inner = 0, model.terms

    def counted(x: Tensor, masks: Any) -> dict[str, Tensor]:
        nonlocal looks
        looks += 1
        return inner(x, masks)

    model.terms = counted
    update, marks = Updates(model.groups(), {"picture": LBFGS()}), [10, 20, 50, 100, 200, options.looks]
    while marks and looks < options.looks:
        stream.begin()
        model.step(stream, update)
        while marks and looks >= marks[0]:
            shown(f"L-BFGS after {marks.pop(0)} looks", model.picture.x.detach())
    x = prepared(options, 512).dataset.fetch([0]).float() / 127.5 - 1
    seconds = []
    with torch.inference_mode():
        for _ in range(7):
            began = time.perf_counter()
            painter.translate(x)
            seconds.append(time.perf_counter() - began)
    print(f"a pass at {tuple(x.shape[2:])}: {1e3 * statistics.median(seconds):.0f} ms, median of 7")


def peak() -> float:
    """Peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default="vgg19")
    parser.add_argument("--content", default="china")
    parser.add_argument("--style", default="flower")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--looks", type=int, default=500)
    parser.add_argument("--lr", type=float, default=0.04, help="of Adam")
    parser.add_argument("--optimisers", nargs="+", default=["lbfgs", "adam"], choices=["lbfgs", "adam"])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", type=int, metavar="SIZE")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--seams", type=int, metavar="SIZE")
    parser.add_argument("--model", type=Path, metavar="RUN")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads")
    if options.model:
        one_pass(options)
        return
    if options.large:
        _, gradient, seconds = evaluate_loss(options, options.large, options.tile)
        print(
            f"{tuple(gradient.shape[2:])} in tiles of {options.tile}: {seconds:.1f} s a look, {peak():.2f} GiB at most"
        )
        return
    if options.seams:
        (a, g, s), (b, h, t) = (
            evaluate_loss(options, options.seams, tile) for tile in (options.seams // 4, options.seams)
        )
        print(
            f"{tuple(g.shape[2:])}: loss {a:.6f} in tiles of {options.seams // 4}, {b:.6f} whole; the gradient differs"
            f" by {float((g - h).abs().max() / h.abs().max()):.1e} of its largest value; {s:.1f} s against {t:.1f} s"
        )
        return
    found = []
    for optimiser in options.optimisers:
        for precision in options.precision:
            row = raced(options, optimiser, precision)
            found.append(row)
            print(
                f"{optimiser:<6} {precision}  {row['looks']} looks, {1e3 * row['seconds']:.0f} ms against"
                f" {1e3 * row['seconds_tutorial']:.0f}: ×{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f});"
                f" loss {row['loss']:.4f} against {row['loss_tutorial']:.4f}, theirs after"
                f" {row['looks_to_theirs']} looks of ours",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
