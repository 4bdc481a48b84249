"""The verbs, each a few lines around a Python function; torch is imported only when a verb runs."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from limner.cli.grammar import Result, Verb
from limner.config.signatures import Setting, read_texts
from limner.core.errors import LimnerError, unknown
from limner.core.yaml_text import Text

if TYPE_CHECKING:
    from limner.core.run import Run

_SHOWN = 5  # files that are named where many are left out

VERBS: dict[str, Verb] = {}
_Function = Callable[..., Result | None]


def verb(
    source: str = "",
    more: Mapping[str, str] | None = None,
    named: Callable[[str], Mapping[str, Sequence[Setting]]] | None = None,
) -> Callable[[_Function], _Function]:
    """Registers a function as a verb with the settings of `source` (a dotted path) and of `more`, by help heading."""

    def register(function: _Function) -> _Function:
        name = function.__name__.rstrip("_").replace("_", " ")
        VERBS[name] = Verb(name, function, ({"Settings": source} if source else {}) | dict(more or {}), named)
        return function

    return register


@verb("limner.api.train")
def train(recipe: str, *, dry_run: bool = False, **settings: str) -> Result | None:
    """Train a recipe, score the result and write its report: limner train vae-mnist data=photos/ out=runs/mine.

    Args:
        recipe: a name of `limner list recipes`, or a YAML file; or a folder or ZIP of images, for which one is chosen.
        dry_run: print the recipe, parameter counts and estimates of memory and time, without training.
        **settings: settings of `limner.train`.
    """
    from limner.config import recipe as recipes
    from limner.config.advice import is_data

    if not is_data(recipe):
        recipes.find(recipe)  # an unknown name is an error before torch is imported
    if not dry_run:
        _launch_on_devices(settings)
    from limner import api
    from limner.cli.progress import terminal

    values = read_texts(api.train, settings)
    if dry_run:
        values.pop("out", None)
        return _dry_run_result(api.dry_run(recipe, **values))
    return _run_result(api.train(recipe, progress=terminal(), **values))


@verb("limner.api.resume")
def resume(path: str, **settings: str) -> Result | None:
    """Continue a run as if it had never stopped: limner resume runs/mine images=2M."""
    from limner import api
    from limner.cli.progress import terminal
    from limner.core.run import Run

    written = Run(path).recipe.get("train")
    is_said = bool({"device", "train.device"} & settings.keys())
    _launch_on_devices(written if isinstance(written, dict) and not is_said else settings)
    return _run_result(api.resume(path, progress=terminal(), **read_texts(api.resume, settings)))


def _sampling_settings(path: str) -> Mapping[str, Sequence[Setting]]:
    """The sampling options of a run."""
    from limner.config.explain import explain as explain_
    from limner.core.paths import exists

    rows = explain_(path).sampling if exists(f"{path}/recipe.yaml") else []
    settings = [Setting(r["name"], r["type"], r["default"], f"{r['type']}: {r['text']}") for r in rows]
    return {f"Sampling options of {path}": settings}


@verb("limner.apply.draw.draw", named=_sampling_settings)
def sample(path: str, out: str, **settings: str) -> Result:
    """Draw samples from a trained model: limner sample runs/mine samples.png n=16.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``; with a run, --help lists its sampling options.
        out: a .png or .webp file for one grid, or a folder for single images.
        **settings: settings of `limner.apply.draw.draw`.
    """
    from limner.apply.draw import draw

    drawn = draw(path, out, **read_texts(draw, settings))
    document = asdict(drawn) | {"written": [str(p) for p in drawn.written]}
    return Result(document, f"wrote {drawn.n} samples to {out}")


@verb("limner.apply.tasks.apply")
def apply(path: str, source: str, out: str, **settings: str) -> Result:
    """Translate, colourise, upscale, inpaint, denoise, score: limner apply runs/mine photos/ out/."""
    from limner.apply import tasks

    result = tasks.apply(path, source, out, **read_texts(tasks.apply, settings))
    return Result(result, tasks.text(result, out))


@verb("limner.config.import_weights.import_weights")
def import_(kind: str, file: str, out: str, **settings: str) -> Result:
    """Make a model from published weights: limner import cyclegan horse2zebra.pth zebra.safetensors."""
    from limner.cli.progress import terminal
    from limner.config.import_weights import USES, import_weights

    written = import_weights(kind, file, out, progress=terminal(), **read_texts(import_weights, settings))
    use = f"limner {USES[kind].format(written)}"
    return Result({"written": str(written)}, f"wrote {written}; use it with: {use}")


@verb(
    "limner.painting.stylise",
    {"With model=RUN, in one pass": "limner.painting.paint", "With model=RUN, of a clip": "limner.painting.paint_clip"},
)
def stylise(content: str, *style: str, out: str | None = None, model: str | None = None, **settings: str) -> Result:
    """Paint a picture in the style of another: limner stylise photo.jpg painting.jpg out=painted.jpg size=512.

    Args:
        content: the picture to paint; with model=RUN also a folder, a ZIP or a clip.
        style: a painting, or several.
        out: file or folder of the result; default in the current folder, named after the picture, and numbered where
            that exists.
        model: a run of fast_style, adain or wct, which paints in one pass.
        **settings: settings of `limner.stylise`, or with a model of `limner.painting`.
    """
    from limner import painting
    from limner.apply import tasks
    from limner.apply.video import is_clip
    from limner.cli.progress import ClipProgress, terminal
    from limner.data.sources.content_style import style_names

    styles, clip = [s for name in style for s in style_names(name)], is_clip(content)
    out = out or painting.default_output(content)
    if clip and model is None:
        raise LimnerError("clips are painted in one pass: limner stylise clip.mp4 [painting.jpg] model=RUN")
    if clip:
        values = read_texts(painting.paint_clip, settings)
        clip_result = painting.paint_clip(str(model), content, out, styles, on_frame=ClipProgress(), **values)
        stopped = SystemExit(130) if clip_result.stopped is not None else None
        return Result(asdict(clip_result) | {"path": str(clip_result.path)}, clip_result.text, stopped)
    if model is not None:
        written = painting.paint(model, content, out, styles, **read_texts(painting.paint, settings))
        document = written.document("stylise")
        return Result(document, tasks.text(document, out))
    if not styles:
        raise LimnerError(
            "name a painting too: limner stylise photo.jpg painting.jpg, or a model that paints: model=RUN"
        )
    painting.stylise(content, styles, out, progress=terminal(), **read_texts(painting.stylise, settings))
    path = str(painting.single_output(out, content))
    return Result({"written": path}, path)


@verb("limner.evaluation.scoring.evaluate", named=_sampling_settings)
def evaluate(*paths: str, **settings: str) -> Result:
    """Score runs or pictures by six properties, and find copies: limner evaluate runs/mine only=quality,coverage."""
    from limner.cli.progress import terminal
    from limner.evaluation import scoring

    cards = scoring.evaluate(*paths, progress=terminal(), **read_texts(scoring.evaluate, settings))
    return Result(cards, scoring.table(cards))


@verb("limner.doctor.diagnosis.diagnose", {"With --try": "limner.curing.cure"})
def doctor(path: str, *, try_: bool = False, **settings: str) -> Result:
    """Say what is wrong with a training and what helps: limner doctor runs/mine.

    The exit code is 1 if a check fails.

    Args:
        path: run folder.
        try_: train once more with the remedy that has helped most often, and compare both runs.
        **settings: settings of `limner.diagnose`, or with --try of `limner.cure`.
    """
    if try_:
        from limner import curing
        from limner.cli.progress import terminal

        cure = curing.cure(path, progress=terminal(), **read_texts(curing.cure, settings))
        return Result(cure.to_dict(), cure.text, SystemExit(1) if cure.failed else None)
    from limner.doctor.diagnosis import diagnose

    if others := settings.keys() - inspect.signature(diagnose).parameters.keys():
        raise LimnerError(f"doctor has no setting {sorted(others)[0]!r}; settings of a training need --try")
    diagnosis = diagnose(path, **read_texts(diagnose, settings))
    return Result(diagnosis.to_dict(), diagnosis.text, SystemExit(1) if diagnosis.failed else None)


@verb("limner.bench.compare.run")
def compare(*recipes: str, **settings: str) -> Result:
    """Train recipes under equal conditions; test which is better: limner compare vae-mnist gan-mnist budget=10m."""
    from limner.bench import compare as comparison
    from limner.cli.progress import terminal

    result = comparison.run(*recipes, progress=terminal(), **read_texts(comparison.run, settings))
    return Result(result, f"{comparison.text(result)}\n{result['page']}")


@verb()
def list_(what: str = "recipes") -> Result:
    """List recipes, models, nets, data sets, labs or benches: limner list models.

    Args:
        what: recipes, models, nets, data, labs or benches; recipes by default.
    """
    from limner.config import catalogue

    kinds = {"recipes": "recipe", "models": "model", "nets": "net", "data": "data"}
    packages = {"labs": "limner.labs", "benches": "limner.bench"}
    if what in packages:
        lines: dict[str, str] = import_module(packages[what]).titles()
    elif what in kinds:
        lines = {n: _summary(kinds[what], n) for n in catalogue.names(kinds[what])}
    else:
        raise unknown("list", what, [*kinds, *packages])
    return Result(lines, "\n".join(f"{n:<24} {text}" for n, text in lines.items()))


def _summary(kind: str, name: str) -> str:
    """One line on a recipe, model, net or data set, read without importing a model."""
    from limner.config import catalogue

    if kind == "recipe":
        return (catalogue.RECIPES / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
    file = catalogue.RECIPES.parent / "models" / f"{name}.py"
    is_shipped = kind == "model" and file.is_file()  # a plug-in's module is imported
    doc = (
        ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        if is_shipped
        else inspect.getdoc(catalogue.find(kind, name))
    )
    return (doc or "").partition("\n")[0]


@verb()
def explain(key: str, *, schema: bool = False) -> Result:
    """Explain a recipe, model or option, and when to change it: limner explain train.batch.

    Args:
        key: a recipe, model, net, data set, an option such as train.batch or sampling.truncation, a run folder, or a
            check of `limner doctor`, such as doctor.collapse.
        schema: JSON Schema of a constructor's arguments instead; that of a model has its sampling options in "$defs".
    """
    from limner.config.explain import explain as explain_
    from limner.config.explain import sampling_schema
    from limner.config.spec import schema as schema_

    if key.partition(".")[0] == "doctor":
        from limner.doctor.explaining import explain as explain_  # the floor above that of the other names
    explanation = explain_(key)
    if schema:
        if explanation.kind not in ("model", "net", "data", "optimiser", "train"):
            raise LimnerError(f"{key} is not a constructor; write the name of a model, net, data set or optimiser")
        json_schema = schema_(explanation.kind, "trainer" if explanation.kind == "train" else key)
        if explanation.sampling:
            json_schema["$defs"] = {"sampling": sampling_schema(key)}
        return Result(json_schema, json.dumps(json_schema, indent=1))
    blocks = [explanation.text] if explanation.text else []
    blocks += map(_explained, explanation.options)
    if explanation.sampling and explanation.options:
        blocks.append("Sampling options, as in limner sample RUN out.png KEY=VALUE:")
    blocks += map(_explained, explanation.sampling)
    return Result(explanation.to_dict(), "\n\n".join(blocks))


def _explained(row: Mapping[str, Any]) -> str:
    """Name, value, owner, type, default and meaning of an option."""
    value = f" = {row['value']}" if "value" in row else ""
    owner = f" of {row['of']}" if "of" in row else ""
    default = "required" if row["required"] else f"default {row['default']}"
    return f"{row['name']}{value}{owner}  ({row['type']}, {default})\n    {row['text'] or 'see the documentation'}"


@verb("limner.labs._bench.Bench", {"Settings of this lab": "limner.labs.{name}.run"})
def lab(name: str, **settings: str) -> Result:
    """Run a lecture's lab, from training to a page of figures: limner lab style content=photo.jpg style=painting.jpg.

    Args:
        name: a name of `limner list labs`; limner lab NAME --help lists its own settings.
        **settings: settings of the lab.
    """
    from limner import labs
    from limner.cli.progress import terminal

    result = labs.run(name, progress=terminal(), **{key: Text(text) for key, text in settings.items()})
    wrong = LimnerError(f"lab {name}: a number differs from the expected one; see the page")
    return Result(result, labs.summary(result), None if all(c["ok"] for c in result["checks"]) else wrong)


@verb("limner.bench.{name}.run")
def bench(name: str, **settings: str) -> Result:
    """Answer a question by many trainings: limner bench modes recipes=toy-gan, limner bench augment per_class=10,50.

    Args:
        name: a name of `limner list benches`; limner bench NAME --help lists its settings.
        **settings: settings of the bench.
    """
    from limner import bench as benches
    from limner.cli.progress import terminal

    if name not in benches.titles():
        raise unknown("bench", name, benches.titles())
    module = import_module(f"limner.bench.{name}")
    result = benches.run(name, progress=terminal(), **read_texts(module.run, settings))
    return Result(result, f"{module.text(result['trainings'])}\n{result['page']}")


@verb("limner.api.demo")
def demo(**settings: str) -> Result | None:
    """Train on the included digits and write a report: limner demo time=2m."""
    from limner import api
    from limner.cli.progress import terminal

    return _run_result(api.demo(progress=terminal(), **read_texts(api.demo, settings)))


@verb()
def data_list() -> Result:
    """List all named sets of images: limner data list."""
    from limner.data import list_sources

    sources = list_sources()
    width = max(map(len, sources))
    return Result(sources, "\n".join(f"{name:<{width}}  {text}" for name, text in sources.items()))


@verb()
def data_get(name: str) -> Result:
    """Download a named set and describe it: limner data get mnist.

    Args:
        name: a name of `limner data list`.
    """
    from limner.data import get

    info = get(name)
    shape = "×".join(str(side) for side in info["shape"])
    classes = next((f", {len(info[key])} {key}" for key in ("classes", "attributes") if info[key]), "")
    what = {"pairs": "pairs", "domains": "images in each of two domains,"}.get(info["gives"], "images")
    text = f"{info['name']}: {info['images']} {what} of {shape}{classes}; {info['held_out']} held out for testing"
    return Result(info, text)


@verb("limner.data.preparing.prepare")
def data_prepare(path: str, out: str, **settings: str) -> Result:
    """Decode a set once into a store that trainings map: limner data prepare photos/ photos.limner size=64.

    Args:
        path: a folder, a ZIP, Parquet files, a Hugging Face data set on the disk, or WebDataset tars.
        out: the new store, NAME.limner.
        **settings: settings of `limner.data.prepare`.
    """
    from limner.cli.progress import Counter
    from limner.data import prepare
    from limner.data.preparing import prepare as prepare_

    result = prepare(path, out, on_image=Counter(), **read_texts(prepare_, settings))
    shape = "×".join(str(side) for side in result["shape"])
    left_out = [f"left out {file}: {reason}" for file, reason in result["left_out"]]
    more = [f"left out {len(left_out) - _SHOWN} more files (--json lists all)"] if len(left_out) > _SHOWN else []
    last = f"wrote {result['images']} images of {shape} to {out}; train with data={out}"
    return Result(result, "\n".join([*result["notes"], *left_out[:_SHOWN], *more, last]))


@verb()
def data_check(path: str) -> Result:
    """Find bad files, duplicates and small classes in good time: limner data check photos/.

    Args:
        path: a folder or a ZIP of images, or the name of a set.
    """
    from limner.data import check

    report = check(path)
    return Result(report.to_dict(), report.text())


@verb("limner.latent.walk.walk")
def latent_walk(path: str, out: str, **settings: str) -> Result:
    """Walk through a latent space, as a strip, a loop or a page: limner latent walk runs/mine walk/.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or one file: a strip (.png), a loop (.webp, .gif) or a page (.html).
        **settings: settings of `limner.latent.walk.walk`.
    """
    return _looked("walk", path, out, settings)


@verb("limner.latent.traverse.traverse")
def latent_traverse(path: str, out: str, **settings: str) -> Result:
    """Move one number of a point and show what changes: limner latent traverse runs/mine traverse/ page=true.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or one file: a sheet (.png), a loop (.webp, .gif) or a page with sliders (.html).
        **settings: settings of `limner.latent.traverse.traverse`.
    """
    return _looked("traverse", path, out, settings)


@verb("limner.latent.project.project")
def latent_project(path: str, source: str, out: str, **settings: str) -> Result:
    """Find the points whose pictures are nearest to given ones: limner latent project runs/mine photos/ found/.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        source: a picture, a folder, a ZIP or a named set (its held-out part), of the size that the model draws.
        out: a folder, or one file: a sheet (.png) or a page with all numbers (.html).
        **settings: settings of `limner.latent.project.project`.
    """
    return _looked("project", path, out, settings, source)


@verb("limner.latent.encoder.encoder")
def latent_encoder(path: str, out: str, **settings: str) -> Result:
    """Fit an encoder to a model that has none: limner latent encoder runs/mine encoder.safetensors steps=2000.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or a file that ends in .safetensors.
        **settings: settings of `limner.latent.encoder.encoder`.
    """
    return _looked("encoder", path, out, settings)


@verb("limner.latent.directions.directions")
def latent_directions(path: str, out: str, **settings: str) -> Result:
    """Find directions along which an attribute grows: limner latent directions runs/mine found/ method=logistic.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or one file: directions (.safetensors), a sheet (.png) or a page with sliders (.html).
        **settings: settings of `limner.latent.directions.directions`.
    """
    return _looked("directions", path, out, settings)


@verb("limner.latent.edit.edit")
def latent_edit(path: str, out: str, **settings: str) -> Result:
    """Move pictures along a direction and prove what changed: limner latent edit runs/mine out/ directions=FILE.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or one file: a sheet (.png) or a page with the purity matrix (.html).
        **settings: settings of `limner.latent.edit.edit`.
    """
    return _looked("edit", path, out, settings)


@verb("limner.latent.mix.mix")
def latent_mix(path: str, out: str, **settings: str) -> Result:
    """Mix the styles of samples, layer by layer: limner latent mix runs/mine mixed/ rows=3 columns=5.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``, of a model with styles (StyleGAN).
        out: a folder, or one file: a sheet (.png) or a page (.html).
        **settings: settings of `limner.latent.mix.mix`.
    """
    return _looked("mix", path, out, settings)


@verb("limner.latent.search.search")
def latent_search(path: str, out: str, **settings: str) -> Result:
    """Find samples like a picture, or with what is described: limner latent search runs/mine out/ like=photo.png.

    Args:
        path: run folder, checkpoint folder or ``model.safetensors``.
        out: a folder, or one file: a sheet (.png), the best first.
        **settings: settings of `limner.latent.search.search`.
    """
    return _looked("search", path, out, settings)


def _looked(tool: str, path: str, out: str, settings: Mapping[str, str], *source: str) -> Result:
    """The result of the latent tool of that name, of a run and the names that come before `out`."""
    function = getattr(import_module(f"limner.latent.{tool}"), tool)
    shown = function(path, *source, out, **read_texts(function, settings))
    return Result(shown.document(), shown.text)


def _without_rows(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe to be shown: the condition of a model without the labels of the data that it keeps, which are many."""
    model = dict(recipe["model"])
    if isinstance(model.get("condition"), Mapping):
        model["condition"] = {key: value for key, value in model["condition"].items() if key != "rows"}
    return {**recipe, "model": model}


def _launch_on_devices(values: Mapping[str, Any]) -> None:
    """Starts this command once per device if several are requested."""
    devices = str(values.get("device", values.get("train.device", "auto")))
    if "," not in devices:
        return
    from limner.core import device, dist

    if not dist.under_torchrun():
        raise SystemExit(dist.launch(device.devices(devices), sys.argv[1:]))


def _run_result(run: Run) -> Result | None:
    """Prints the scores of a run on stderr and returns its folder; with several processes only in the first."""
    from limner.core import dist
    from limner.core.run import relative

    is_first = dist.rank() == 0
    dist.leave()
    if not is_first:
        return None
    scores = run.read_json("scores.json") or {}
    last_line = (run.metrics() or [{}])[-1]
    for name, s in scores.items():
        if isinstance(s["value"], (int, float)):
            error = f" ± {s['error']:.2g}" if s.get("error") else ""
            unit, on = (f" {s['unit']}" if s.get("unit") else ""), (f", {s['on']}" if s.get("on") else "")
            sys.stderr.write(f"{name} {s['value']:.4g}{error}{unit}{on}\n")
    sys.stderr.write(f"report: {relative(run.path / 'report.html')}\n")
    document = {
        "run": relative(run.path),
        "images": last_line.get("images"),
        "seconds": last_line.get("seconds"),
        "scores": scores,
        "data": {
            "notes": next((e["notes"] for e in reversed(run.events()) if "notes" in e), []),
            "left_out": run.read_json("quarantine.json") or [],
        },
    }
    return Result(document, relative(run.path))


def _dry_run_result(plan: dict[str, Any]) -> Result:
    from limner.core.units import clock, size
    from limner.core.yaml_text import dump_yaml

    data, estimate = plan["data"], plan["estimate"]
    lines = [
        *plan.get("advice", []),
        dump_yaml(_without_rows(plan["recipe"])),
        f"data: {data['items']:,} images {'x'.join(map(str, data['shape']))} of {data['name']}",
        *(f"  {note}" for note in data["notes"]),
    ]
    for group, n in plan["parameters"].items():
        lines.append(f"{group}: {n['total']:,} parameters, {n['trainable']:,} trainable, {n['buffers']:,} buffers")
    about = "about" if estimate["measured_steps"] else "at least"
    duration, memory = clock(estimate["seconds"]), size(estimate["bytes"])
    lines.append(f"{plan['images']:,} images in {plan['steps']:,} steps: {about} {duration} on {estimate['device']}")
    lines.append(f"memory: {about} {memory} {'of the process' if estimate['device'] == 'cpu' else 'of tensors'}")
    measured, batch = estimate["measured_batch"], estimate["batch"]
    how = f"measured with {estimate['measured_steps']} steps of up to {measured} images"
    if not estimate["measured_steps"]:
        how = f"measured with a part of a step of {measured} images"
    lines.append(f"{how}, and extrapolated to {batch}" if measured < batch else how)
    return Result(plan, "\n".join(lines))
