"""Scores beside the usual implementations, in one process: seconds, ratios, agreement.

    python benchmarks/metrics.py                    # a minute or two on two cores
    python benchmarks/metrics.py --threads 1 --json metrics.json

Fréchet distance of two sets of moments in 2048 dimensions, Inception's, beside the formula with scipy's matrix root;
precision, recall, density and coverage of 10,000 and 10,000 images in 64 dimensions beside the `prdc` package. Both
sides have the same threads and take turns. The bars are 10× and 3×; the exit code is 1 where one is missed or figures
disagree. Wall time counts, so the machine should be quiet; where it is not, one thread and processor time say more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from threadpoolctl import threadpool_limits

from limner.metrics.frechet import Moments, frechet_distance
from limner.metrics.neighbours import neighbourhoods


class Seconds(NamedTuple):
    """Wall time, and processor time over all threads."""

    wall: float
    cpu: float


def in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], times: int) -> tuple[Any, Any, Seconds, Seconds]:
    """Results of the last turn and the median seconds of both."""
    taken: tuple[list[Seconds], list[Seconds]] = ([], [])
    for _ in range(times):
        results = []
        for call, mine in zip((ours, theirs), taken):
            wall, cpu = time.perf_counter(), time.process_time()
            results.append(call())
            mine.append(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
    medians = (Seconds(*(statistics.median(part) for part in zip(*mine))) for mine in taken)
    return *results, *medians


def frechet(d: int, times: int) -> dict[str, Any]:
    """Of sets with the spectra 1/i and 1/√i, from 2 d images each."""
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(2 * d, d)) / np.arange(1, d + 1) ** p + shift for p, shift in ((0.5, 0), (0.25, 0.1))]
    (mu1, s1), (mu2, s2) = (Moments().update(x).compute() for x in sets)

    def by_scipy() -> float:
        return float(((mu1 - mu2) ** 2).sum() + np.trace(s1 + s2) - 2 * np.trace(sqrtm(s1 @ s2)).real)

    ours, theirs, seconds, scipy_seconds = in_turn(lambda: frechet_distance(mu1, s1, mu2, s2), by_scipy, times)
    off = abs(ours - theirs) / theirs
    return row(f"Fréchet distance, {d}-d moments", "scipy's sqrtm", seconds, scipy_seconds, 10, off, 1e-6)


def neighbours(n: int, d: int, times: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(n, d)), 0.95 * rng.normal(size=(n, d)) + 0.05

    def by_prdc() -> dict[str, float]:
        with contextlib.redirect_stdout(io.StringIO()):
            return compute_prdc(real, fake, 5)

    before = peak()
    neighbourhoods(real=real, fake=fake, k_pr=5)
    memory = peak() - before
    ours, theirs, seconds, prdc_seconds = in_turn(lambda: neighbourhoods(real=real, fake=fake, k_pr=5), by_prdc, times)
    off = max(abs(getattr(ours, name) - value) for name, value in theirs.items())
    name = f"neighbourhoods, {n} × {n} × {d}-d"
    return row(name, "prdc", seconds, prdc_seconds, 3, float(off), 1e-12) | {"mib": memory}


def row(
    name: str, peer: str, ours: Seconds, theirs: Seconds, bar: float, off: float, tolerance: float
) -> dict[str, Any]:
    ratio = theirs.wall / ours.wall
    passed = ratio >= bar and off <= tolerance
    return {
        "what": name, "peer": peer, "seconds": ours.wall, "peer_seconds": theirs.wall, "ratio": ratio, "bar": bar,
        "cpu_seconds": ours.cpu, "peer_cpu_seconds": theirs.cpu, "cpu_ratio": theirs.cpu / ours.cpu,
        "difference": off, "tolerance": tolerance, "passed": passed,
    }  # fmt: skip


def peak() -> float:
    """MiB that the process has needed at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for both sides; default: all")
    parser.add_argument("--times", type=int, default=3, help="turns; medians are shown")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    with threadpool_limits(options.threads):
        rows = [neighbours(10_000, 64, options.times), frechet(2048, options.times)]
    print(f"{options.threads} threads of {os.cpu_count()}, load average {load:.1f} at the start")
    for r in rows:
        memory = f", {r['mib']:.0f} MiB" if "mib" in r else ""
        ratios = f"{r['ratio']:.1f}× (bar {r['bar']}×; {r['cpu_ratio']:.1f}× of processor time)"
        print(
            f"{r['what']:<36} {r['seconds']:6.2f} s{memory}; {r['peer']} {r['peer_seconds']:6.2f} s: {ratios},"
            f" difference {r['difference']:.1e}{'' if r['passed'] else '   MISSED'}"
        )
    if options.json:
        options.json.write_text(
            json.dumps({"threads": options.threads, "load": load, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )
    sys.exit(not all(r["passed"] for r in rows))


if __name__ == "__main__":
    main()
