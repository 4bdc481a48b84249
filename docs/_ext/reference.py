"""The reference, written from the catalogue and the signatures each time the documentation is built.

Nothing in it is kept by hand: a new model, recipe, net or data source appears because its file exists.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import yaml
from sphinx.application import Sphinx

import limner
from limner.config import catalogue
from limner.config.explain import explain
from limner.config.spec import Argument, arguments
from limner.doctor.checks import CHECKS
from limner.doctor.explaining import parts

LISTS = {
    "model": ("models", "Models", "What `model.name` may be, and the arguments each model takes."),
    "net": ("nets", "Nets", "What may be written where a model takes a net."),
    "data": ("data", "Data", "What `data.name` may be. A folder of your own images works as well."),
    "optimiser": ("optimisers", "Optimisers", "What `optim.GROUP.name` may be."),
    "train": ("training", "Training", "The keys of a recipe's `train:` part."),
}


def first_line(text: str | None) -> str:
    """The summary of a docstring."""
    return (text or "").strip().partition("\n")[0]


def cell(text: object) -> str:
    """Text that stays inside its table cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in row) + " |" for row in lines) + "\n"


def default(argument: Argument) -> str:
    """What happens when the argument is left out."""
    if argument.is_fact:
        return "from the data"
    return "required" if argument.required else f"`{argument.default!r}`"


def constructor(kind: str, name: str) -> str:
    """One entry of the catalogue: what it is, and its arguments."""
    found = catalogue.find(kind, name)
    module = importlib.import_module(found.__module__)
    about = first_line(module.__doc__) if kind == "model" else first_line(found.__doc__)
    rows: list[list[object]] = [
        [f"`{a.name}`", f"`{a.type}`", default(a), a.text] for a in arguments(kind, name).values()
    ]
    facts = table(["argument", "type", "default", "meaning"], rows) if rows else "No arguments.\n"
    chosen: list[list[object]] = [
        [f"`{row['name']}`", f"`{row['type']}`", f"`{row['default']!r}`", row["text"]]
        for row in (explain(name).sampling if kind == "model" else [])
    ]
    sampling = table(["sampling option", "type", "default", "meaning"], chosen) if chosen else ""
    return "\n".join(filter(None, [f"## `{name}`\n\n{about}\n\n{facts}", sampling]))


def catalogue_page(kind: str) -> str:
    """All entries of one kind."""
    _, title, about = LISTS[kind]
    return "\n".join([f"# {title}\n\n{about}\n", *(constructor(kind, name) for name in catalogue.names(kind))])


def named(part: dict[str, object] | str) -> object:
    """The name in a recipe's section, which may be nothing but a name."""
    return part["name"] if isinstance(part, dict) else part


def recipes_page() -> str:
    """All recipes that come with limner, each with its file."""
    out = ["# Recipes\n\n`limner train NAME` trains one; every key can be written over on the command line.\n"]
    for name in catalogue.names("recipe"):
        text = (catalogue.RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
        about = f"Model `{named(recipe['model'])}` on data `{named(recipe['data'])}`."
        out.append(f"## `{name}`\n\n{about}\n\n```yaml\n{text.rstrip()}\n```\n")
    return "\n".join(out)


def checks_page() -> str:
    """All checks of the doctor: what each means, its numbers, and its remedies with their rates."""
    out = ["# Checks\n", "What `limner doctor RUN` looks for. `limner explain doctor.NAME` prints the same.\n"]
    for name, check in CHECKS.items():
        text = "\n\n".join(filter(None, parts(check)))
        out += [f"## `{name}`\n", text.replace(":\n    ", ":\n\n    ") + "\n"]  # a block of code in Markdown
    return "\n".join(out)


def modules(package: str) -> list[str]:
    """The public modules of a package."""
    path = importlib.import_module(package).__path__
    return sorted(f"{package}.{m.name}" for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def automodule(module: str) -> str:
    """What makes Sphinx describe a module."""
    return f"```{{eval-rst}}\n.. automodule:: {module}\n```\n"


def api_page(package: str) -> str:
    """The Python of one package."""
    return "\n".join([f"# {package}\n", automodule(package), *(f"## {m}\n\n{automodule(m)}" for m in modules(package))])


def public_page() -> str:
    """What `import limner` offers."""
    functions = [n for n in sorted(limner.__all__) if inspect.isfunction(getattr(limner, n))]
    blocks = [f"```{{eval-rst}}\n.. autofunction:: limner.{n}\n```\n" for n in functions]
    return "\n".join([f"# limner\n\n{first_line(limner.__doc__)}\n", *blocks])


def pages() -> dict[str, str]:
    """File name -> text of every page of the reference."""
    packages = sorted(m.name for m in pkgutil.iter_modules(limner.__path__) if m.ispkg and m.name != "recipes")
    return (
        {"recipes": recipes_page(), "checks": checks_page(), "api/limner": public_page()}
        | {LISTS[kind][0]: catalogue_page(kind) for kind in LISTS}
        | {f"api/{p}": api_page(f"limner.{p}") for p in packages}
    )


def write(app: Sphinx) -> None:
    """Writes the pages that changed, and removes those whose subject is gone."""
    folder = Path(app.srcdir) / "reference" / "generated"
    made = {folder / f"{name}.md": text for name, text in pages().items()}
    for stale in set(folder.rglob("*.md")) - set(made):
        stale.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
