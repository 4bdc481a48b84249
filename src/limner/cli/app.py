"""The verbs. Each is a few lines over `limner.api`; heavy imports wait until a verb runs."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limner.cli import data as data_verbs
from limner.cli.settings import apart, settings
from limner.core.errors import LimnerError, unknown

if TYPE_CHECKING:
    from limner.apply.video import Clip
    from limner.core.run import Run

_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}
_Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
_Settings = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, e.g. train.batch=32.")]

app = typer.Typer(
    name="limner",
    help="Learn, train, judge and use generative image models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data_verbs.app, name="data", help="Look at image sets: list, get, check.")


def _version(wanted: bool) -> None:
    if wanted:
        from limner import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learn, train, judge and use generative image models."""


@app.command(context_settings=_ANYTHING)
def train(
    recipe: Annotated[str, typer.Argument(help="A name of 'limner list recipes', or a YAML file.")],
    words: _Settings = None,
    config: Annotated[Path | None, typer.Option("-c", "--config", help="YAML merged over the recipe.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, count and estimate; train nothing.")] = False,
    as_json: _Json = False,
) -> None:
    """Train a recipe: limner train vae-mnist data=photos/ time=20m out=runs/mine."""
    chosen = settings(words or [])
    out = chosen.pop("out", None)
    if dry_run:
        from limner import api

        _print_plan(api.dry_run(recipe, config=config, **chosen), as_json)
        return
    _on_devices(chosen)
    from limner import api
    from limner.cli.progress import terminal

    _print_run(api.train(recipe, out=out, config=config, progress=terminal(), **chosen), as_json)


@app.command(context_settings=_ANYTHING)
def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.")], words: _Settings = None, as_json: _Json = False
) -> None:
    """Go on with a run to the end of its recipe, as if it had never stopped."""
    chosen = settings(words or [])
    _on_devices(chosen if "device" in chosen or "train.device" in chosen else _recipe_of(run).get("train", {}))
    from limner import api
    from limner.cli.progress import terminal

    _print_run(api.resume(run, progress=terminal(), **chosen), as_json)


@app.command()
def sample(
    model: Annotated[Path, typer.Argument(help="A run folder, a checkpoint folder or a model.safetensors.")],
    out: Annotated[Path, typer.Argument(help="A .png or .webp for one sheet, or a folder for single images.")],
    n: Annotated[int, typer.Option("-n", help="How many images.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    y: Annotated[int | None, typer.Option(help="Class index, for conditional models.")] = None,
    truncation: Annotated[
        float | None, typer.Option(help="Largest number in the noise, e.g. 0.7: more typical, less varied.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: _Json = False,
) -> None:
    """Draw samples from a trained model."""
    from limner.apply.draw import draw

    written = draw(model, out, n=n, seed=seed, y=y, truncation=truncation, device=device)
    _print({"written": [str(p) for p in written], "n": n, "seed": seed}, as_json, f"wrote {n} samples to {out}")


@app.command()
def apply(
    model: Annotated[Path, typer.Argument(help="A run folder, a checkpoint folder or a model.safetensors.")],
    source: Annotated[str, typer.Argument(help="A picture, a folder, a ZIP or a named data set.")],
    out: Annotated[Path, typer.Argument(help="Where the results go: a folder, or a file for one picture.")],
    task: Annotated[
        str | None, typer.Option(help="reconstruct, denoise or anomaly; default what the model was trained for.")
    ] = None,
    to: Annotated[str, typer.Option(help="Domain wanted of a model that translates both ways: b, or a.")] = "b",
    mask: Annotated[
        Path | None, typer.Option(help="White where something is missing: a file, or a folder of the same names.")
    ] = None,
    blend: Annotated[
        Path | None, typer.Option(help="A picture to lay into SOURCE where the mask is white, without a seam.")
    ] = None,
    degrade: Annotated[
        bool, typer.Option("--degrade", help="Make sources of whole pictures first, as in training.")
    ] = False,
    tile: Annotated[
        int | None, typer.Option(help="Side of the tiles of a large picture; 512 from a megapixel on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of noise in use (dropout).")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: _Json = False,
) -> None:
    """Use a trained model on pictures: translate, colourise, upscale, inpaint, denoise, score anomalies."""
    from limner.apply import tasks

    done = tasks.apply(
        model, source, out, task=task, to=to, mask=mask, blend=blend, degrade=degrade, tile=tile, seed=seed,
        device=device,
    )  # fmt: skip
    _print(done, as_json, f"{done['task']}: {done['n']} pictures, written to {out}")


@app.command(name="import")
def import_(
    kind: Annotated[str, typer.Argument(help="pix2pix, cyclegan, adain or wct.")],
    file: Annotated[Path, typer.Argument(help="The .pth (or .safetensors) of a generator, or of a decoder.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors to write.")],
    back: Annotated[Path | None, typer.Option(help="Of cyclegan: the generator the other way.")] = None,
    size: Annotated[int, typer.Option(help="Side of the pictures it was trained on.")] = 256,
    dropout: Annotated[float | None, typer.Option(help="Dropout in use; 0.5 in a U-Net, 0 in a ResNet.")] = None,
    vgg: Annotated[str, typer.Option(help="Of adain and wct: the file of VGG-19's weights.")] = "vgg19",
    as_json: _Json = False,
) -> None:
    """Make a model of weights that others published: limner import cyclegan horse2zebra.pth zebra.safetensors."""
    from limner.config.import_weights import import_weights

    written = import_weights(kind, file, out, back=back, size=size, dropout=dropout, vgg=vgg)
    use = (
        f"limner stylise IN PAINTING model={written}" if kind in ("adain", "wct") else f"limner apply {written} IN OUT"
    )
    _print({"written": str(written)}, as_json, f"wrote {written}; use it with: {use}")


@app.command(context_settings=_ANYTHING)
def stylise(
    content: Annotated[
        Path, typer.Argument(help="The picture to paint; with model=RUN also a folder, a ZIP or a clip.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STYLE] [KEY=VALUE]...", help="A painting, or several with commas; and settings."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Paint a picture in the style of another: limner stylise photo.jpg painting.jpg out=result.jpg size=512.

    Settings: out, size, strength, iterations, optimiser (lbfgs or adam), start (content, style or noise), scales,
    keep_colours, style_shares, masks, style_size, weights, run, and any key of the recipe stylise.

    With model=RUN, in one pass: out, size, strength, style_shares, style_size, keep_colours, device; and of a clip
    steady, start, end, sound.
    """
    from limner import painting
    from limner.apply.video import is_clip
    from limner.cli.progress import Ticker, terminal

    names, rest = apart(words or [])
    styles, chosen = [s for name in names for s in name.split(",")], settings(rest)
    clip = is_clip(content)
    out = Path(str(chosen.pop("out", f"{content.stem}-stylised{content.suffix if clip else '.png'}")))
    model = chosen.pop("model", None)
    if clip and model is None:
        raise LimnerError("clips are painted in one pass: limner stylise clip.mp4 [painting.jpg] model=RUN")
    if clip:
        made = painting.paint_clip(str(model), content, out, styles, said=Ticker(), **chosen)
        _print(asdict(made) | {"path": str(made.path)}, as_json, _of_clip(made))
        if made.stopped is not None:
            raise typer.Exit(130)
        return
    if model is not None:
        written = painting.paint(str(model), content, out, styles, **chosen)
        _print({"written": [str(w) for w in written]}, as_json, f"wrote {len(written)} pictures to {out}")
        return
    if not styles:
        raise LimnerError(
            "name a painting too: limner stylise photo.jpg painting.jpg; or a model that paints: model=RUN"
        )
    painting.stylise(content, styles, out, progress=terminal(), **chosen)
    _print({"written": str(out)}, as_json, str(out))


def _of_clip(made: Clip) -> str:
    if made.stopped is not None:
        return f"stopped at {made.stopped:.2f} s: {made.path} has {made.frames} frames; go on with start={made.stopped}"
    told = f"wrote {made.frames} frames to {made.path} in {made.seconds:.0f} s"
    if made.flicker is None or made.flicker_before is None:
        return told
    return (
        f"{told}; a point changes by {made.flicker:.1f} of 255 per frame ({made.flicker_before:.1f} in the clip itself)"
    )


@app.command(context_settings=_ANYTHING)
def evaluate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [KEY=VALUE]...",
            help="Run folders (or folders of pictures, with data=NAME), and n=10000 seeds=5 only=quality,coverage"
            " data=NAME extractor=random weights=FILE which=best likelihood=AIS device=auto.",
        ),
    ],
    as_json: _Json = False,
) -> None:
    """Fill in the scorecard of one run or several: six properties and a guard against copying."""
    from limner.cli.progress import terminal
    from limner.evaluation import scoring as evaluation

    paths, rest = apart(words)
    chosen = settings(rest)
    known = inspect.signature(evaluation.evaluate).parameters
    for key in chosen:
        if key not in known or key in ("paths", "progress"):
            raise unknown("setting", key, [k for k in known if k not in ("paths", "progress")])
    cards = evaluation.evaluate(*paths, progress=terminal(), **chosen)
    _print(cards, as_json, evaluation.table(cards))


@app.command(context_settings=_ANYTHING)
def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE... [KEY=VALUE]...",
            help="Two recipes or more, and seeds=3 budget=10m (or budget=500k images) data=NAME n=10000"
            " only=quality,coverage extractor=random out=DIR, or keys of every recipe, e.g. data.size=32.",
        ),
    ],
    as_json: _Json = False,
) -> None:
    """Train recipes under equal budget, data and seeds, judge all alike, and say which is better, or that none is."""
    from limner.bench import compare as comparison
    from limner.cli.progress import terminal

    names, rest = apart(words)
    chosen = settings(rest)
    chosen.pop("progress", None)
    result = comparison.work(*names, progress=terminal(), **chosen)
    _print(result, as_json, f"{comparison.text(result)}\n{result['page']}")


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="recipes, models, nets, data, labs or benches.")] = "recipes",
    as_json: _Json = False,
) -> None:
    """List recipes, models, nets, data sets, labs or benches."""
    from limner.config import catalogue

    kinds = {"recipes": "recipe", "models": "model", "nets": "net", "data": "data"}
    own = {"labs": "limner.labs", "benches": "limner.bench"}
    if what in own:
        found: dict[str, str] = import_module(own[what]).titles()
    elif what in kinds:
        found = {n: _summary(kinds[what], n) for n in catalogue.names(kinds[what])}
    else:
        raise unknown("list", what, [*kinds, *own])
    _print(found, as_json, "\n".join(f"{n:<24} {text}" for n, text in found.items()))


def _summary(kind: str, name: str) -> str:
    """One line on a recipe, model, net or data set, read without importing a model."""
    import ast
    import inspect

    from limner.config import catalogue

    if kind == "recipe":
        lines = (catalogue.RECIPES / f"{name}.yaml").read_text().splitlines()
        return lines[0].lstrip("# ").strip() if lines else ""
    if kind == "model":
        file = Path(catalogue.__file__).parent.parent / "models" / f"{name}.py"
        doc = ast.get_docstring(ast.parse(file.read_text())) if file.is_file() else ""
    else:
        doc = inspect.getdoc(catalogue.find(kind, name))
    return (doc or "").splitlines()[0] if doc else ""


@app.command()
def explain(
    key: Annotated[str, typer.Argument(help="A recipe, model, net, data set, or an option such as train.batch.")],
    schema: Annotated[bool, typer.Option("--schema", help="JSON Schema of a constructor's arguments.")] = False,
    as_json: _Json = False,
) -> None:
    """Explain a recipe, a model, or one option: type, default, meaning, when to raise or lower it."""
    from limner.config.explain import explain as explain_
    from limner.config.spec import schema as schema_

    found = explain_(key)
    if schema:
        if found.kind not in ("model", "net", "data", "optimiser", "train"):
            raise LimnerError(f"{key} is no constructor; ask for the schema of a model, net, data set or optimiser")
        typer.echo(json.dumps(schema_(found.kind, "trainer" if found.kind == "train" else key), indent=1))
        return
    blocks = [found.text] if found.text else []
    for row in found.options:
        value = f" = {row['value']}" if "value" in row else ""
        owner = f" of {row['of']}" if "of" in row else ""
        default = "required" if row["required"] else f"default {row['default']}"
        blocks.append(
            f"{row['name']}{value}{owner}  ({row['type']}, {default})\n    {row['text'] or 'see the documentation'}"
        )
    _print(found.to_dict(), as_json, "\n\n".join(blocks))


@app.command(context_settings=_ANYTHING)
def lab(
    name: Annotated[str, typer.Argument(help="A name from 'limner list labs'.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the lab, e.g. images=60k out=DIR.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Do a lecture's lab: train what it trains, check its numbers, draw its figures, write a page."""
    from limner import labs
    from limner.cli.progress import terminal

    result = labs.run(name, progress=terminal(), **settings(words or []))
    lines = [
        f"{'ok  ' if c['ok'] else 'FAIL'} {c['name']}: {c['measured']} (expected {c['expected']})"
        for c in result["checks"]
    ]
    _print(result, as_json, "\n".join([*lines, result["page"]]))
    if not all(c["ok"] for c in result["checks"]):
        raise LimnerError(f"lab {name}: a number is not what it must be; see the page")


@app.command(context_settings=_ANYTHING)
def bench(
    name: Annotated[str, typer.Argument(help="modes.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="E.g. recipes=toy-gan,toy-r1* testbeds=ring seeds=10 out=DIR."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Count modes: recipes × testbeds × seeds in one table, beside published ones. Goes on if it was cut off."""
    from limner import bench as benches
    from limner.cli.progress import terminal

    result = benches.run(name, progress=terminal(), **settings(words or []))
    table = import_module(f"limner.bench.{name}").text(result["trainings"])
    _print(result, as_json, f"{table}\n{result['page']}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    time: Annotated[str, typer.Option(help="Longest training time.")] = "4m",
    as_json: _Json = False,
) -> None:
    """Train on the embedded digits, draw samples, score them and leave a report to open."""
    from limner import api
    from limner.cli.progress import terminal

    _print_run(api.demo(out, time=time, progress=terminal()), as_json)


def _recipe_of(run: Path) -> dict[str, Any]:
    from limner.core.run import Run

    return Run(run).recipe


def _on_devices(chosen: dict[str, Any]) -> None:
    """Starts this very command once per device, when several are asked for."""
    wanted = chosen.get("device", chosen.get("train.device", "auto"))
    if "," not in str(wanted):
        return
    from limner.core import device, dist

    if not dist.under_torchrun():
        raise typer.Exit(dist.launch(device.devices(str(wanted)), sys.argv[1:]))


def _print(document: Any, as_json: bool, text: str) -> None:
    typer.echo(json.dumps(document, indent=1) if as_json else text)


def _print_run(run: Run, as_json: bool) -> None:
    from limner.core import dist
    from limner.core.run import relative

    if dist.rank() == 0:
        scores = run.read_json("scores.json") or {}
        last = (run.metrics() or [{}])[-1]
        for name, s in scores.items():
            if isinstance(s["value"], (int, float)):
                error = f" ± {s['error']:.2g}" if s.get("error") else ""
                unit = f" {s['unit']}" if s.get("unit") else ""
                typer.echo(f"{name} {s['value']:.4g}{error}{unit}, {s['on']}", err=True)
        typer.echo(f"report: {relative(run.path / 'report.html')}", err=True)
        document = {
            "run": relative(run.path),
            "images": last.get("images"),
            "seconds": last.get("seconds"),
            "scores": scores,
        }
        _print(document, as_json, relative(run.path))
    dist.leave()


def _print_plan(plan: dict[str, Any], as_json: bool) -> None:
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
    _print(plan, as_json, "\n".join(lines))
