"""The verbs. Each is a few lines over a function of Python; heavy imports wait until a verb runs."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.cli.grammar import Answer, Verb
from limner.config.signatures import read_texts
from limner.core.errors import LimnerError, unknown

if TYPE_CHECKING:
    from limner.core.run import Run

VERBS: dict[str, Verb] = {}
_Function = Callable[..., Answer | None]


def verb(source: str = "", more: Mapping[str, str] | None = None) -> Callable[[_Function], _Function]:
    """Makes a function a verb with the settings of another one (a dotted path), and of more under headings of help."""

    def kept(function: _Function) -> _Function:
        name = function.__name__.rstrip("_").replace("_", " ")
        VERBS[name] = Verb(name, function, ({"Settings": source} if source else {}) | dict(more or {}))
        return function

    return kept


@verb("limner.api.train")
def train(recipe: str, *, dry_run: bool = False, **settings: str) -> Answer | None:
    """Train a recipe, score the result and write its report: limner train vae-mnist data=photos/ out=runs/mine.

    Args:
        recipe: a name of `limner list recipes`, or a YAML file.
        dry_run: resolve, count and estimate; train nothing.
        **settings: of `limner.train`.
    """
    from limner.config import recipe as recipes

    recipes.find(recipe)  # a name that is none is told at once
    if not dry_run:
        _on_devices(settings)
    from limner import api
    from limner.cli.progress import terminal

    chosen = read_texts(api.train, settings)
    if dry_run:
        chosen.pop("out", None)
        return _plan(api.dry_run(recipe, **chosen))
    return _trained(api.train(recipe, progress=terminal(), **chosen))


@verb("limner.api.resume")
def resume(path: str, **settings: str) -> Answer | None:
    """Go on with a run as if it had never stopped: limner resume runs/mine images=2M."""
    from limner import api
    from limner.cli.progress import terminal
    from limner.core.run import Run

    _on_devices(settings if {"device", "train.device"} & settings.keys() else Run(path).recipe.get("train", {}))
    return _trained(api.resume(path, progress=terminal(), **read_texts(api.resume, settings)))


@verb("limner.apply.draw.draw")
def sample(path: str, out: str, **settings: str) -> Answer:
    """Draw samples from a trained model: limner sample runs/mine samples.png n=16."""
    from limner.apply.draw import draw
    from limner.config.call import keywords

    chosen = {k: default for k, (_, default) in keywords(draw).items()} | read_texts(draw, settings)
    written = draw(path, out, **chosen)
    told = {"written": [str(p) for p in written], "n": chosen["n"], "seed": chosen["seed"]}
    return Answer(told, f"wrote {chosen['n']} samples to {out}")


@verb("limner.apply.tasks.apply")
def apply(path: str, source: str, out: str, **settings: str) -> Answer:
    """Translate, colourise, upscale, inpaint, denoise or score pictures: limner apply runs/mine photos/ out/."""
    from limner.apply import tasks

    done = tasks.apply(path, source, out, **read_texts(tasks.apply, settings))
    return Answer(done, f"{done['task']}: {done['n']} pictures, written to {out}")


@verb("limner.config.import_weights.import_weights")
def import_(kind: str, file: str, out: str, **settings: str) -> Answer:
    """Make a model of published weights: limner import cyclegan horse2zebra.pth zebra.safetensors."""
    from limner.config.import_weights import import_weights

    written = import_weights(kind, file, out, **read_texts(import_weights, settings))
    paints = kind in ("adain", "wct")
    use = f"limner stylise IN PAINTING model={written}" if paints else f"limner apply {written} IN OUT"
    return Answer({"written": str(written)}, f"wrote {written}; use it with: {use}")


@verb(
    "limner.painting.stylise",
    {"With model=RUN, in one pass": "limner.painting.paint", "With model=RUN, of a clip": "limner.painting.paint_clip"},
)
def stylise(content: str, *style: str, out: Path | None = None, model: str | None = None, **settings: str) -> Answer:
    """Paint a picture in the style of another: limner stylise photo.jpg painting.jpg out=painted.jpg size=512.

    Args:
        content: the picture to paint; with model=RUN also a folder, a ZIP or a clip.
        style: a painting, or several.
        out: where the result goes; default beside you, named after the picture.
        model: a run of fast_style, adain or wct, which paints in one pass.
        **settings: of `limner.stylise`, or of `limner.painting` with a model.
    """
    from limner import painting
    from limner.apply.video import is_clip
    from limner.cli.progress import Ticker, terminal

    styles, clip = [s for name in style for s in name.split(",")], is_clip(content)
    out = out or Path(f"{Path(content).stem}-stylised{Path(content).suffix if clip else '.png'}")
    if clip and model is None:
        raise LimnerError("clips are painted in one pass: limner stylise clip.mp4 [painting.jpg] model=RUN")
    if clip:
        chosen = read_texts(painting.paint_clip, settings)
        made = painting.paint_clip(str(model), content, out, styles, said=Ticker(), **chosen)
        stopped = SystemExit(130) if made.stopped is not None else None
        return Answer(asdict(made) | {"path": str(made.path)}, made.text, stopped)
    if model is not None:
        written = painting.paint(model, content, out, styles, **read_texts(painting.paint, settings))
        return Answer({"written": [str(w) for w in written]}, f"wrote {len(written)} pictures to {out}")
    if not styles:
        raise LimnerError(
            "name a painting too: limner stylise photo.jpg painting.jpg; or a model that paints: model=RUN"
        )
    painting.stylise(content, styles, out, progress=terminal(), **read_texts(painting.stylise, settings))
    return Answer({"written": str(out)}, str(out))


@verb("limner.evaluation.scoring.evaluate")
def evaluate(*paths: str, **settings: str) -> Answer:
    """Judge runs or pictures by six properties, and find copies: limner evaluate runs/mine only=quality,coverage."""
    from limner.cli.progress import terminal
    from limner.evaluation import scoring

    cards = scoring.evaluate(*paths, progress=terminal(), **read_texts(scoring.evaluate, settings))
    return Answer(cards, scoring.table(cards))


@verb("limner.bench.compare.run")
def compare(*recipes: str, **settings: str) -> Answer:
    """Train recipes alike and say which is better, if one is: limner compare vae-mnist gan-mnist budget=10m."""
    from limner.bench import compare as comparison
    from limner.cli.progress import terminal

    result = comparison.run(*recipes, progress=terminal(), **read_texts(comparison.run, settings))
    return Answer(result, f"{comparison.text(result)}\n{result['page']}")


@verb()
def list_(what: str = "recipes") -> Answer:
    """List recipes, models, nets, data sets, labs or benches: limner list models.

    Args:
        what: recipes, models, nets, data, labs or benches; recipes by default.
    """
    from limner.config import catalogue

    kinds = {"recipes": "recipe", "models": "model", "nets": "net", "data": "data"}
    own = {"labs": "limner.labs", "benches": "limner.bench"}
    if what in own:
        found: dict[str, str] = import_module(own[what]).titles()
    elif what in kinds:
        found = {n: _summary(kinds[what], n) for n in catalogue.names(kinds[what])}
    else:
        raise unknown("list", what, [*kinds, *own])
    return Answer(found, "\n".join(f"{n:<24} {text}" for n, text in found.items()))


def _summary(kind: str, name: str) -> str:
    """One line on a recipe, model, net or data set, read without importing a model."""
    from limner.config import catalogue

    if kind == "recipe":
        return (catalogue.RECIPES / f"{name}.yaml").read_text().partition("\n")[0].lstrip("# ")
    file = catalogue.RECIPES.parent / "models" / f"{name}.py"
    own = kind == "model" and file.is_file()  # a plug-in's is imported
    doc = ast.get_docstring(ast.parse(file.read_text())) if own else inspect.getdoc(catalogue.find(kind, name))
    return (doc or "").partition("\n")[0]


@verb()
def explain(key: str, *, schema: bool = False) -> Answer:
    """Explain a recipe, a model or an option, and when to change it: limner explain train.batch.

    Args:
        key: a recipe, model, net, data set, or an option such as train.batch.
        schema: JSON Schema of a constructor's arguments instead.
    """
    from limner.config.explain import explain as explain_
    from limner.config.spec import schema as schema_

    found = explain_(key)
    if schema:
        if found.kind not in ("model", "net", "data", "optimiser", "train"):
            raise LimnerError(f"{key} is no constructor; ask for the schema of a model, net, data set or optimiser")
        described = schema_(found.kind, "trainer" if found.kind == "train" else key)
        return Answer(described, json.dumps(described, indent=1))
    blocks = [found.text] if found.text else []
    for row in found.options:
        value = f" = {row['value']}" if "value" in row else ""
        owner = f" of {row['of']}" if "of" in row else ""
        default = "required" if row["required"] else f"default {row['default']}"
        blocks.append(
            f"{row['name']}{value}{owner}  ({row['type']}, {default})\n    {row['text'] or 'see the documentation'}"
        )
    return Answer(found.to_dict(), "\n\n".join(blocks))


@verb("limner.labs._bench.Bench", {"Settings of this lab": "limner.labs.{name}.run"})
def lab(name: str, **settings: str) -> Answer:
    """Do a lecture's lab, from training to a page of figures: limner lab style content=photo.jpg style=painting.jpg.

    Args:
        name: of `limner list labs`; limner lab NAME --help lists its own settings.
        **settings: of the lab.
    """
    from limner import labs
    from limner.cli.progress import terminal

    result = labs.run(name, progress=terminal(), **settings)
    lines = [
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {c['measured']} (expected {c['expected']})"
        for c in result["checks"]
    ]
    wrong = LimnerError(f"lab {name}: a number is not what it must be; see the page")
    return Answer(
        result, "\n".join([*lines, result["page"]]), None if all(c["ok"] for c in result["checks"]) else wrong
    )


@verb("limner.bench.{name}.run")
def bench(name: str, **settings: str) -> Answer:
    """Count modes of recipes beside published numbers: limner bench modes recipes=toy-gan,toy-r1* testbeds=ring.

    Args:
        name: of `limner list benches`; limner bench NAME --help lists its settings.
        **settings: of the bench.
    """
    from limner import bench as benches
    from limner.cli.progress import terminal

    if name not in benches.titles():
        raise unknown("bench", name, benches.titles())
    module = import_module(f"limner.bench.{name}")
    result = benches.run(name, progress=terminal(), **read_texts(module.run, settings))
    return Answer(result, f"{module.text(result['trainings'])}\n{result['page']}")


@verb("limner.api.demo")
def demo(**settings: str) -> Answer | None:
    """Train on embedded digits and leave a report to open: limner demo time=2m."""
    from limner import api
    from limner.cli.progress import terminal

    return _trained(api.demo(progress=terminal(), **read_texts(api.demo, settings)))


@verb()
def data_list() -> Answer:
    """List all named sets of images: limner data list."""
    from limner.data import list_sources

    sources = list_sources()
    width = max(map(len, sources))
    return Answer(sources, "\n".join(f"{name:<{width}}  {text}" for name, text in sources.items()))


@verb()
def data_get(name: str) -> Answer:
    """Fetch a named set and say what it is: limner data get mnist.

    Args:
        name: of `limner data list`.
    """
    from limner.data import get

    found = get(name)
    shape = "×".join(str(side) for side in found["shape"])
    classes = f", {len(found['classes'])} classes" if found["classes"] else ""
    what = {"pairs": "pairs", "domains": "images in each of two domains,"}.get(found["gives"], "images")
    told = f"{found['name']}: {found['images']} {what} of {shape}{classes}; {found['held_out']} held out for testing"
    return Answer(found, told)


@verb()
def data_check(path: str) -> Answer:
    """Find bad files, duplicates and small classes before you train: limner data check photos/.

    Args:
        path: a folder or a ZIP of images.
    """
    from limner.data import check

    report = check(path)
    return Answer(report.to_dict(), report.text())


def _on_devices(chosen: Mapping[str, Any]) -> None:
    """Starts this very command once per device, when several are asked for."""
    wanted = str(chosen.get("device", chosen.get("train.device", "auto")))
    if "," not in wanted:
        return
    from limner.core import device, dist

    if not dist.under_torchrun():
        raise SystemExit(dist.launch(device.devices(wanted), sys.argv[1:]))


def _trained(run: Run) -> Answer | None:
    """The folder of a run, after its scores on stderr; of several processes only the first answers."""
    from limner.core import dist
    from limner.core.run import relative

    answers = dist.rank() == 0
    dist.leave()
    if not answers:
        return None
    scores = run.read_json("scores.json") or {}
    last = (run.metrics() or [{}])[-1]
    for name, s in scores.items():
        if isinstance(s["value"], (int, float)):
            error = f" ± {s['error']:.2g}" if s.get("error") else ""
            unit = f" {s['unit']}" if s.get("unit") else ""
            sys.stderr.write(f"{name} {s['value']:.4g}{error}{unit}, {s['on']}\n")
    sys.stderr.write(f"report: {relative(run.path / 'report.html')}\n")
    told = {"run": relative(run.path), "images": last.get("images"), "seconds": last.get("seconds"), "scores": scores}
    return Answer(told, relative(run.path))


def _plan(plan: dict[str, Any]) -> Answer:
    from limner.core.units import clock, size
    from limner.core.yaml_text import dump_yaml

    data, estimate = plan["data"], plan["estimate"]
    lines = [
        dump_yaml(plan["recipe"]),
        f"data: {data['items']:,} images {'x'.join(map(str, data['shape']))} of {data['name']}",
    ]
    for group, n in plan["parameters"].items():
        lines.append(f"{group}: {n['total']:,} parameters, {n['trainable']:,} trainable, {n['buffers']:,} buffers")
    lines.append(
        f"{plan['images']:,} images in {plan['steps']:,} steps:"
        f" about {clock(estimate['seconds'])} on {estimate['device']}"
    )
    lines.append(f"memory: about {size(estimate['bytes'])}")
    return Answer(plan, "\n".join(lines))
