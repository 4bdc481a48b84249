"""How well edits along directions hit what they are for, and how much else they change: all methods, in all spaces.

    limner train conv-vae-mnist data=avatars size=32 model.z=32 images=150k out=runs/faces
    python benchmarks/directions.py runs/faces
    python benchmarks/directions.py runs/stylegan2 --spaces z w w+ --layers

For each value of the attributes (glasses, beard and hair colour by default) and each method it learns a direction from
the samples of one seed. The position to which samples are moved is chosen on those of another seed (the lowest at
which nine in ten show the value, as `limner latent edit to=auto`), and what is printed is measured on those of a third.
"All" stands for directions that have as little as can be of other attributes (`limner latent directions apart=all`).
sefa and pca learn no values: of them the component is taken that tells a value best, on the samples to learn from.

    accuracy   balanced, of the position on the direction, on samples that were kept apart
    reached    of samples without the value, the share that shows it after the edit
    kept       of the other attributes, the mean share of samples that kept theirs
    (…)        the same for random directions with steps of equal lengths

With --layers, edits of w may be restricted to some layers: of all runs of layers that are next to one another that is
taken which keeps most where nine in ten reach the value, on the samples that choose the position.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from limner.latent import judges
from limner.latent.directions import Directions, _centred, _learnt_from, balanced_accuracy, by_reader, pca, sefa
from limner.latent.edit import Purity, least, matrix
from limner.latent.results import opened
from limner.latent.spaces import Measured, Space, Style
from limner.metrics.extractors.readers import ReadsAttributes

METHODS = ("means", "logistic", "svm", "sefa", "pca")
ATTRIBUTES = ("glasses", "facial_hair", "hair_colour")
COMPONENTS = 32


def named(
    space: Space,
    method: str,
    found: Measured,
    table: Mapping[str, Tensor],
    values: Mapping[str, Sequence[str]],
    names: Sequence[str],
) -> Directions:
    """For each value the component of sefa or pca that tells it best."""
    vectors = sefa(space, COMPONENTS) if method == "sefa" else pca(space, found, None, COMPONENTS)
    vectors = vectors.to(found.mean)
    points, learnt = _centred(found, None), _learnt_from(len(found.points))
    t = points @ vectors.T
    chosen, accuracies = [], []
    for name in names:
        attribute, _, value = name.partition("=")
        positive = table[attribute].argmax(1) == list(map(str, values[attribute])).index(value)
        apart = t[learnt & positive].mean(0) - t[learnt & ~positive].mean(0)
        k = int((apart / t.std(0)).abs().argmax())
        chosen.append(vectors[k] * apart[k].sign())
        accuracies.append(balanced_accuracy(points @ chosen[-1], positive, learnt))
    V = torch.stack(chosen)
    return Directions(
        space.name, method, [*names], V, found.sigma_along(V), found.mean, [*accuracies], [None] * len(names)
    )


def layers_of(space: Space, found: Directions, i: int, eye: ReadsAttributes, n: int, seed: int) -> list[int]:
    """The layers whose styles are best moved: a run of them, or all (an empty list)."""
    best = (-1.0, list[int]())
    for a, b in combinations(range(space.layers + 1 if isinstance(space, Style) else 1), 2):
        layers = list(range(a, b))
        level = least(space, found, i, eye, n=n, layers=layers, seed=seed)
        ((pure, _),) = matrix(space, found, [i], 0, eye, to=[level], n=n, layers=layers, seed=seed)
        best = max(best, (score(pure), layers))
    return best[1]


def score(pure: Purity) -> float:
    """How good an edit is: what it kept, or below 0 by how many it did not reach."""
    reached = pure.reached or 0.0
    return (pure.others or 0.0) if reached >= 0.9 else reached - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run of avatars")
    parser.add_argument("--spaces", nargs="+", default=[None], help="spaces of the model; the first by default")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--attributes", nargs="+", default=ATTRIBUTES)
    parser.add_argument("--samples", type=int, default=8000, help="samples that directions are learnt from")
    parser.add_argument("--proof", type=int, default=256, help="samples that choose a position, and others to measure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", action="store_true", help="look for the layers to edit, in w and w+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.spaces:
        space = opened(args.run, name, "cpu")
        eye = judges.reader(args.run, space.shape)
        assert eye is not None
        found = Measured.of(space.draw(args.samples, args.seed, None))
        table = judges.scores(eye, space.images(found.points))
        print(f"\n{space.model.title}, {space.name}, {args.samples} samples, {args.proof} moved\n")
        print("| direction | method | accuracy | to | layers | reached | kept |\n|---|---|---|---|---|---|---|")
        best: dict[str, tuple[float, str]] = {}
        for method in args.methods:
            learnt, _ = by_reader(
                space, found, None, table, eye.values, "means" if method in ("sefa", "pca") else method
            )
            wanted = [n for n in learnt.names if n.partition("=")[0] in args.attributes]
            if method in ("sefa", "pca"):
                try:
                    forms = {method: named(space, method, found, table, eye.values, wanted)}
                except ValueError as error:
                    print(f"| | {method} | {error} | | | | |")
                    continue
            else:
                apart = learnt.apart_from_all()
                apart = replace(apart, sigma=found.sigma_along(apart.vectors))
                forms = {method: learnt, f"{method}, all": apart}
            for form, result in forms.items():
                for n in wanted:
                    i = result.index(n)
                    is_asked = args.layers and isinstance(space, Style) and form == "logistic, all"
                    for where in (
                        [[], layers_of(space, result, i, eye, args.proof, args.seed + 1)] if is_asked else [[]]
                    ):
                        level = least(space, result, i, eye, n=args.proof, layers=where, seed=args.seed + 1)
                        ((pure, chance),) = matrix(
                            space, result, [i], 0, eye, to=[level], n=args.proof, layers=where, seed=args.seed + 2
                        )
                        shown = f"{where[0]}–{where[-1]}" if where else "all"
                        print(
                            f"| {n} | {form} | {result.accuracy[i] or 0:.2f} | {level:.2f} | {shown} |"
                            f" {pure.reached or 0:.2f} ({chance.reached or 0:.2f}) |"
                            f" {pure.others or 0:.2f} ({chance.others or 0:.2f}) |",
                            flush=True,
                        )
                        what = f"{form}: reached {pure.reached or 0:.2f}, kept {pure.others or 0:.2f}"
                        best[n] = max(best.get(n, (-1.0, "")), (score(pure), what))
        print("\n" + "\n".join(f"best for {n}: {what}" for n, (_, what) in best.items()))


if __name__ == "__main__":
    main()
