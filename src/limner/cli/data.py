"""`limner data`: examine a folder of images, fetch a named set, list what there is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(help="Check a folder or ZIP of images, fetch a named set, list all sets.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A folder or a ZIP of images.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Find bad files, mixed sizes, duplicates and small classes before you train."""
    from limner.data.checks import check as examine

    report = examine(path)
    _say(report.to_dict() if as_json else report.text())


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name from 'limner data list'.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Fetch a named set and say what it is."""
    from limner.data import get as fetch

    found = fetch(name)
    if as_json:
        _say(found)
        return
    shape = "×".join(str(side) for side in found["shape"])
    classes = f", {len(found['classes'])} classes" if found["classes"] else ""
    what = {"pairs": "pairs", "domains": "images in each of two domains,"}.get(found["gives"], "images")
    _say(f"{found['name']}: {found['images']} {what} of {shape}{classes}; {found['held_out']} held out for testing")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all named sets."""
    from limner.data import list_sources

    sources = list_sources()
    width = max(map(len, sources))
    _say(sources if as_json else "\n".join(f"{name:<{width}}  {text}" for name, text in sources.items()))


def _say(what: dict[str, Any] | str) -> None:
    typer.echo(what if isinstance(what, str) else json.dumps(what, indent=2, ensure_ascii=False))
