"""Projection into several spaces of several models: how near it comes, where the points lie, and what edits do there.

    python benchmarks/projection.py runs/stylegan2:w runs/stylegan2:w+ runs/vae:code runs/glow:code

The same held-out avatars for all, each as `limner latent project` finds it. A space that is large enough has a point
for any picture, so the PSNR alone says little. So the table has as well the place of the points (the share of draws
that are nearer to the middle; about a half for a draw, near 1 where the model hardly ever draws) and a test of use: the
points go along directions that were learnt from samples, for every value of some attributes, to the position at which
nine in ten samples show it.

    PSNR      median, in dB, of the pictures; then of the model's own samples, the floor
    place     median
    read      share of the attributes that are read from a projection as from its picture
    reached   of pictures without a value, the share that shows it after the edit
    kept      share of the other attributes that are read after the edit as from the picture before the projection
    seconds   of the processor for a picture, with one thread
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from limner.latent import judges
from limner.latent.directions import by_reader
from limner.latent.edit import least, moved, purity, target_of
from limner.latent.project import looked_at, pictures, projected
from limner.latent.results import opened
from limner.latent.spaces import Measured, Space, measured
from limner.metrics.extractors.readers import ReadsAttributes

DRAWS, OWN = 512, 4  # draws that starts are taken from, as in the tool, and own samples


def readings(eye: ReadsAttributes, x: Tensor) -> dict[str, Tensor]:
    return {name: table.argmax(1) for name, table in judges.scores(eye, x).items()}


def edited(
    space: Space, points: Tensor, x: Tensor, eye: ReadsAttributes, attributes: list[str], samples: int
) -> tuple[float, float]:
    """What share of pictures x (B,C,H,W) is reached and kept by edits of their points (B,…), means over directions."""
    found = Measured.of(space.draw(samples, 1, None))
    table = judges.scores(eye, space.images(found.points))
    learnt, _ = by_reader(space, found, None, table, eye.values, "means")
    before = readings(eye, x)
    reached, kept = [], []
    for i, name in enumerate(learnt.names):
        if name.partition("=")[0] in attributes:
            level = least(space, learnt, i, eye, seed=2)
            after = readings(eye, space.images(moved(space, points, learnt.step(i, points, 0, level))[1]))
            row = purity(name, target_of(name, eye.values), before, after, eye.values)
            reached.append(row.reached or 0.0)
            kept.append(row.others or 0.0)
    return sum(reached) / len(reached), sum(kept) / len(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="+", metavar="RUN:SPACE")
    parser.add_argument("--source", default="avatars", help="pictures; of a named set the held-out ones")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--attributes", nargs="+", default=["glasses", "hair_colour"])
    parser.add_argument("--samples", type=int, default=4000, help="that directions are learnt from")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | space | numbers | PSNR | own | place | own | read | reached | kept | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for run, _, name in (place.rpartition(":") for place in args.places):
        space = opened(run, name, "cpu")
        _, x = pictures(args.source, space.shape, True, args.n)
        found = measured(space, DRAWS)
        judge = judges.extractor(run, space.images(found.points))
        distance = looked_at(space.shape[0], 0.1)
        started = time.process_time()
        result = projected(space, x, None, found, judge, distance)
        seconds = (time.process_time() - started) / len(x)
        own = projected(space, space.images(space.draw(OWN, 1, None)), None, found, judge, distance)
        eye = judges.reader(run, space.shape)
        assert eye is not None
        truth, again = readings(eye, x.float()), readings(eye, result.images)
        same = sum(float((truth[a] == again[a]).double().mean()) for a in truth) / len(truth)
        reached, kept = edited(space, result.points, x.float(), eye, args.attributes, args.samples)
        print(
            f"| {space.model.title} | {name} | {found.mean.numel()} | {float(result.psnr.median()):.1f} |"
            f" {float(own.psnr.median()):.1f} | {float(result.place.median()):.2f} | {float(own.place.median()):.2f} |"
            f" {same:.2f} | {reached:.2f} | {kept:.2f} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
