"""Checks all recipes on a GPU and measures the speed of the main nets, in a few minutes.

    PYTHONPATH=src python benchmarks/gpu.py --minutes 12 --json gpu.json
    PYTHONPATH=src python benchmarks/gpu.py --minutes 1 --device cpu          tests the script itself
    PYTHONPATH=src python benchmarks/gpu.py --only speed "DCGAN 64" r3gan-64  kinds, nets and recipes

It runs from a checkout with what limner itself needs, and needs no network. The most important parts come first: the
facts of the machine, a recipe of each model, the other recipes, then the speed of the main nets (`gpu_work.py` says how
all this is done). Checks may take three fifths of the time as long as there are speeds to measure. Every piece is done
in a second process, one after the other; if it fails, hangs or breaks the device's context, that is reported, and the
next piece goes on in a new process. The JSON file is written after every piece, so a kit that is stopped leaves what it
has found.

The exit code is 1 if any piece failed; a recipe fails that gives other results on the device than it should.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

CHECKS = 0.6  # most of the time that checks take while speeds are to be measured
SECONDS = {"facts": 60.0, "recipe": 120.0, "speed": 150.0}  # after which a piece is given up
MEASURE = {"cuda": 1.5, "cpu": 0.5}  # seconds of measuring in a speed
NETS = (
    "mlp GAN 28",
    "DCGAN 32",
    "DCGAN 64",
    "WGAN-GP 64",
    "R3GAN 64",
    "pix2pix 256 b1",
    "pix2pix 256 b16",
    "CycleGAN 256 b1",
    "VAE 28",
)
ROUNDS = {  # ways in the order of their worth; each round is for all nets
    "cuda": (
        ("tf32 plain", "tf32 eager", "tf32 graph", "bf16 graph"),
        ("fp32 plain", "fp32 eager", "fp32 graph", "bf16 eager", "bf16 channels_last graph"),
        ("tf32 compile", "tf32 compile graph", "bf16 compile graph"),
    ),
    "cpu": (("fp32 plain", "fp32 eager"), ("bf16 eager", "fp32 channels_last eager"), ("fp32 compile",)),
}


@dataclass
class Piece:
    """A piece of work and what was found."""

    kind: str
    name: str
    how: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} {self.how}".strip()


class Worker:
    """A process that does pieces of work, and is replaced when it dies or hangs."""

    def __init__(self, device: str) -> None:
        self.device, self.process, self.log = device, None, Path(tempfile.mkstemp(suffix=".log")[1])

    def do(self, piece: Piece, seconds: float, limit: float) -> dict[str, Any]:
        """What the process finds within `limit` seconds."""
        process = self.process = self.process or self._started()
        work = {"kind": piece.kind, "name": piece.name, "how": piece.how, "seconds": seconds}
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(work) + "\n")
            process.stdin.flush()
            line = self.answers.get(timeout=limit)
        except queue.Empty:
            return self._lost(f"took more than {limit:.0f} s")
        except BrokenPipeError:
            line = ""
        if not line:
            return self._lost(f"the process died: {self._last_words()}")
        return json.loads(line)

    def _started(self) -> subprocess.Popen[str]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("gpu_work.py")), self.device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        assert process.stdout is not None
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(process.stdout, self.answers), daemon=True).start()
        return process

    @staticmethod
    def _read(lines: IO[str], answers: queue.Queue[str]) -> None:
        for line in lines:
            answers.put(line)
        answers.put("")

    def _lost(self, reason: str) -> dict[str, Any]:
        self.stop()
        return {"ok": False, "error": reason}

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace", encoding="utf-8").strip().splitlines()
        return lines[-1][:300] if lines else "no output"

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def recipes_by_worth() -> list[str]:
    """A recipe of each model, then the others."""
    import limner
    from limner.config import recipe

    models = {name: recipe.load(name).model.name for name in limner.list_recipes()}
    first = {model: name for name, model in reversed(models.items())}
    return [*first.values(), *(name for name in models if name not in first.values())]


def wanted(only: list[str], kind: str) -> Iterator[Piece]:
    """All pieces of work, in order."""
    chosen = set(only)
    for name in recipes_by_worth():
        if not chosen or chosen & {"recipes", name}:
            yield Piece("recipe", name)
    for ways in ROUNDS[kind]:
        for net in NETS:
            if not chosen or chosen & {"speed", net}:
                yield from (Piece("speed", net, way) for way in ways)


def line(piece: Piece) -> str:
    """What was found, in a line."""
    found = piece.found
    head = f"{'ok  ' if found['ok'] else 'FAIL'} {found.get('seconds', 0):6.1f} s  {piece!s:<40}"
    if piece.kind == "speed" and "rate" in found:
        return f"{head} {found['rate']:>10,.0f} images/s  ({found['low']:,.0f} to {found['high']:,.0f})"
    if piece.kind == "recipe" and "twenty" in found:
        a, b = found["agreement"], found["twenty"]
        apart = f"apart {a['apart']:.1e} ({a['worst']})" if "apart" in a else a["error"]
        names = ("same_bits", "finite", "shape")
        bits = ", ".join(f"{k} {b[k]}" for k in names if not b[k]) or "20 = 10 + 10" if "finite" in b else b["error"]
        noted = "".join(f"; {note}" for note in b.get("notes", []))
        return f"{head} {apart}; {bits}; {b.get('replayed', 0)} replayed{noted}"
    return f"{head} {found.get('error', '')}"


def table(pieces: list[Piece], kind: str) -> list[str]:
    """Speeds side by side: a line a net and precision, images a second, and how many times the plain step."""
    rates = {(p.name, p.how): p.found["rate"] for p in pieces if p.kind == "speed" and "rate" in p.found}
    if not rates:
        return []
    ways = ("plain", "eager", "graph", "channels_last eager", "channels_last graph", "compile", "compile graph")
    ways = tuple(w for w in ways if any(how.partition(" ")[2] == w for _, how in rates))
    short = {"channels_last eager": "cl eager", "channels_last graph": "cl graph"}
    note = "; for a CPU all nets are cut down to 32 pixels and few channels" if kind == "cpu" else ""
    lines = [
        f"images/s (times the plain step){note}",
        f"{'':<18}{'':>5}" + "".join(f"{short.get(w, w):>17}" for w in ways),
    ]
    for net in NETS:
        base = rates.get((net, "tf32 plain")) or rates.get((net, "fp32 plain"))
        for kind in ("fp32", "tf32", "bf16"):
            row = [rates.get((net, f"{kind} {w}")) for w in ways]
            plain = rates.get((net, f"{kind} plain")) or base
            if any(row):
                cells = (f"{r:,.0f}" + (f" (×{r / plain:.2f})" if plain else "") if r else "" for r in row)
                lines.append(f"{net:<18}{kind:>5}" + "".join(f"{c:>17}" for c in cells))
    return lines


def asked(command: list[str]) -> str | None:
    """What a program answers, if it is there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, encoding="utf-8")
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """Driver and commit."""
    here = str(Path(__file__).parent)
    return {
        "driver": asked(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]),
        "commit": asked(["git", "-C", here, "rev-parse", "HEAD"]),
        "uncommitted": bool(asked(["git", "-C", here, "status", "--porcelain"])),
    }


def work(options: argparse.Namespace) -> tuple[dict[str, Any], list[Piece]]:
    """Does what time allows; what it does not is in the JSON file with nothing found."""
    end = time.monotonic() + 60 * options.minutes
    worker, facts = Worker(options.device), Piece("facts", "facts")
    found = {"argv": sys.argv[1:], "seed": 0, **machine(), **worker.do(facts, 0, SECONDS["facts"])}
    print(json.dumps({k: v for k, v in found.items() if v is not None}), flush=True)
    if not found["ok"]:
        return found, [facts]
    kind = kind_of(found)
    pieces = list(wanted(options.only, kind))
    order = [*pieces]
    checks_end = end - (1 - CHECKS) * 60 * options.minutes if any(p.kind == "speed" for p in pieces) else end
    try:
        while order and time.monotonic() < end:
            late = time.monotonic() > checks_end
            piece = next((p for p in order if p.kind == "speed"), order[0]) if late else order[0]
            order.remove(piece)
            limit = min(SECONDS[piece.kind], max(5.0, end - time.monotonic()))
            piece.found = worker.do(piece, MEASURE[kind], limit)
            cut = "took more than" in piece.found.get("error", "") and time.monotonic() >= end
            if cut:
                piece.found = {}  # the kit's time was up, which is no fault of the piece
                break
            print(line(piece), flush=True)
            write(options.json, found, pieces)
    finally:
        worker.stop()
    return found, pieces


def kind_of(facts: dict[str, Any]) -> str:
    """Of the device: cuda, or cpu for all others."""
    return "cuda" if str(facts.get("device")).startswith("cuda") else "cpu"


def write(path: Path | None, facts: dict[str, Any], pieces: list[Piece]) -> None:
    """All that was found so far."""
    if path is not None:
        path.write_text(
            json.dumps({"facts": facts, "pieces": [asdict(p) for p in pieces]}, indent=1) + "\n", encoding="utf-8"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="when to stop")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1 or cpu")
    parser.add_argument("--json", type=Path, help="where to write all that was found")
    parser.add_argument("--only", nargs="+", default=[], help="recipes, speed, or names of recipes and nets")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the second process does not outlive this one
    facts, pieces = work(options)
    write(options.json, facts, pieces)
    done = [p for p in pieces if p.found]
    print("\n" + "\n".join(table(done, kind_of(facts))))
    failed = [p for p in done if not p.found["ok"]]
    for kind, what in (("recipe", "recipes right"), ("speed", "speeds measured")):
        of = [p for p in done if p.kind == kind]
        missed = sum(p.kind == kind for p in pieces) - len(of)
        print(f"{sum(p.found['ok'] for p in of)} of {len(of)} {what}" + (f", {missed} not reached" if missed else ""))
    for piece in failed:
        print(line(piece))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
