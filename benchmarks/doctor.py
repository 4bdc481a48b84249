"""The doctor against known faults, and what it costs.

    LIMNER_DATA=FOLDER python benchmarks/doctor.py level1            FOLDER/mnist.npz, or downloaded
    python benchmarks/doctor.py cost gan-mnist dcgan-32:data=avatars,size=32 r3gan-mnist

`level1`: samplers over real digits with one fault each (`limner.doctor.faults`). The checks see them as a finished
model of eight examinations of 128 samples, and once in full for copies. Training images are those of mnist-5k; the
samplers draw from the 10,000 test images of MNIST, without any that mnist-5k holds out. The first check that fails
is the diagnosis. The table has recall and precision of each fault and their macro-F1, how often a dropped class was
named, and how often a healthy sampler was called ill.

`cost`: processor time of an examination over that of the steps between two, paired in one process: 25 steps, an
examination, 25 steps, and so on. A training examines once in 250 steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

import torch

import limner.data
from limner.api import prepare
from limner.config import recipe as recipes
from limner.core.stream import Stream
from limner.core.update import Updates
from limner.core.yaml_text import Text
from limner.doctor import faults
from limner.doctor.faults import FAULTS, HEALTHY, Pool, diagnosed, examined, findings
from limner.doctor.ground import Ground
from limner.doctor.signals import deep
from limner.doctor.watch import Watch


def pool() -> Pool:
    """Digits to draw from, beside those of mnist-5k."""
    train, held = limner.data.load("mnist-5k"), limner.data.load("mnist-5k", split="test")
    test = limner.data.load("mnist", split="test")
    known = {image.numpy().tobytes() for image in held.fetch(range(len(held)))}
    images = test.fetch(range(len(test)))
    new = torch.tensor([i for i, image in enumerate(images) if image.numpy().tobytes() not in known])
    assert test.labels is not None
    return Pool(images[new], test.labels[new], Ground(train, held, most=deep.REALS))


def level1(options: argparse.Namespace) -> None:
    digits = pool()
    print(f"{len(digits.images):,} images to draw from, {len(digits.train):,} of training", flush=True)
    table: Counter[tuple[str, str]] = Counter()
    misses = list[str]()
    for fault, (check, samplers) in FAULTS.items():
        for degree, sampler in enumerate(samplers(digits)):
            for seed in range(options.seeds):
                found = findings(examined(digits, sampler, 1000 * degree + seed))
                said = diagnosed(found)
                table[check, said] += 1
                if said != check:
                    failed = [f"{name}: {f.sentence}" for name, f in found.items() if f.state == "fail"]
                    own = f"{check}: {found[check].sentence}" if check in found else ""
                    misses.append(f"{fault}, degree {degree}, seed {seed}: {failed or HEALTHY}; {own}")
        print(f"{fault:<20} {check:<18} {[(said, n) for (c, said), n in table.items() if c == check]}", flush=True)
    print("\n".join(misses))
    f1s = []
    for check in dict.fromkeys(c for c, _ in FAULTS.values()):
        right = table[check, check]
        recall = right / sum(n for (c, _), n in table.items() if c == check)
        precision = right / max(sum(n for (_, said), n in table.items() if said == check), 1)
        f1s.append(2 * recall * precision / max(recall + precision, 1e-9))
        print(f"{check:<20} recall {recall:6.1%}   precision {precision:6.1%}   F1 {f1s[-1]:.3f}")
    print(f"macro-F1 {statistics.fmean(f1s):.3f}", flush=True)
    named = 0
    for k in range(10):
        for seed in range(5):
            finding = findings(examined(digits, faults.without_class(digits, k), seed, copies_too=False))[
                "dropped_classes"
            ]
            named += finding.state == "fail" and f"drawn: {k};" in finding.sentence
    print(f"dropped class named, and no other: {named} of 50", flush=True)
    ill, false = 0, Counter[str]()
    for seed in range(options.healthy):
        history = examined(
            digits, faults.healthy(digits, asked=bool(seed % 2)), 10_000 + seed, copies_too=seed % 4 == 0
        )
        failed = [name for name, f in findings(history).items() if f.state == "fail"]
        ill += bool(failed)
        false.update(failed)
    print(f"healthy samplers with a failure: {ill} of {options.healthy} {dict(false)}")


class _Training:
    """Steps of a recipe on one thread, with its doctor beside."""

    def __init__(self, name: str) -> None:
        recipe, _, settings = name.partition(":")
        chosen = {key: Text(value) for key, _, value in (word.partition("=") for word in settings.split(",") if word)}
        self.prepared = prepared = prepare(recipes.load(recipe, {"train.device": "cpu", **chosen}, None))
        self.options, self.model = prepared.options, prepared.model
        if self.options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stream = Stream(
            prepared.dataset,
            self.options.batch,
            0,
            device=prepared.device,
            channels_last=self.options.channels_last,
        )
        self.model.warm_up(self.stream)
        self.update = Updates(self.model.groups(), prepared.optimisers)
        self.watch = Watch(prepared.recipe.to_dict(), prepared.dataset, prepared.heldout)
        self.done = 0

    def steps(self, n: int) -> float:
        """Processor seconds of a step, the mean of n."""
        self.model.train()
        start = time.process_time()
        for _ in range(n):
            self.stream.begin()
            self.update.begin(self.stream.position, self.options.images)
            self.model.step(self.stream, self.update)
        self.done += n
        return (time.process_time() - start) / n

    def examination(self) -> float:
        """Processor seconds of an examination."""
        start = time.process_time()
        self.watch.examine(self.model, self.stream.position, self.done)
        return time.process_time() - start


def cost(options: argparse.Namespace) -> None:
    for name in options.recipes:
        training = _Training(name)
        training.steps(options.steps)
        first = training.examination()
        pairs = [(training.steps(options.steps), training.examination()) for _ in range(options.pairs)]
        each, one = (statistics.median(values) for values in zip(*pairs, strict=True))
        images = training.stream.position / training.done  # of a step
        every = training.options.doctor_images / images
        total = training.options.images / images * each
        print(
            f"{name.partition(':')[0]:<14} step {1000 * each:7.1f} ms   examination {1000 * one:6.0f} ms"
            f" every {every:.0f} steps: {one / (every * each):.2%}   the first {1000 * first:.0f} ms,"
            f" {first / total:.2%} of the training",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="what", required=True)
    one = kinds.add_parser("level1")
    one.add_argument("--seeds", type=int, default=3)
    one.add_argument("--healthy", type=int, default=200)
    two = kinds.add_parser("cost")
    two.add_argument("recipes", nargs="+")
    two.add_argument("--pairs", type=int, default=7)
    two.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"level1": level1, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
