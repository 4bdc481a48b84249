"""Every latent tool on a small model of every family, and what is refused in one line."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner.cli import main
from limner.latent.walk import walk

Run = Callable[..., Any]
FAMILIES = ["autoencoder", "vae", "gan", "flow", "diffusion", "conditional"]
SIDE = 8  # pixels of the small models of `family_file`


@pytest.fixture
def latent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``limner latent …`` in this process: the document of its result, or the one line of its error."""

    def run(*words: object, refused: bool = False) -> Any:
        arguments = ["limner", "latent", *map(str, words), "device=cpu", "--json"]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == (2 if refused else 0), said.err
        if refused:
            assert said.err.count("\n") == 1, said.err
            return said.err
        return json.loads(said.out)

    return run


def finite(document: Any) -> bool:
    """Whether no number in a document is NaN or infinite."""
    if isinstance(document, dict):
        return all(map(finite, document.values()))
    if isinstance(document, list):
        return all(map(finite, document))
    return not isinstance(document, float) or math.isfinite(document)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A folder of four grey pictures of the size of the small models."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(folder / f"{k}.png")
    return folder


TABLE = {
    "walk": (["n=6", "stops=2"], {".png", ".webp", ".json"}),
    "traverse": (["rows=2", "steps=3", "page=true"], {".png", ".webp", ".html", ".json"}),
}
"""The settings of each tool, and the suffixes of what it writes."""


@pytest.mark.parametrize("verb", TABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tool_works_on_every_family(family: str, verb: str, family_file, latent, tmp_path) -> None:
    settings, suffixes = TABLE[verb]
    document = latent(verb, family_file(family), tmp_path / "out", *settings)
    assert finite(document)
    written = [Path(p) for p in document["written"]]
    assert {p.suffix for p in written} == suffixes
    assert all(p.stem == verb and p.stat().st_size > 100 for p in written if p.suffix != ".json")


@pytest.mark.parametrize(("family", "space"), [("autoencoder", "code"), ("conditional", "y"), ("flow", "code")])
def test_tools_take_every_space_of_a_model(family: str, space: str, family_file, latent, tmp_path) -> None:
    for verb in TABLE:
        assert latent(verb, family_file(family), tmp_path / verb, f"space={space}", *TABLE[verb][0])["space"] == space


def test_a_walk_is_the_same_on_the_sheet_in_the_loop_and_in_python(family_file, tmp_path) -> None:
    shown = walk(family_file("vae"), tmp_path / "walk.webp", n=6, stops=2, seed=3, device="cpu")
    with Image.open(shown.written[0]) as loop:
        assert loop.n_frames == 6
        assert loop.size == (14 * SIDE, 14 * SIDE)
    for n, name in ((6, "a.gif"), (6, "a.png")):
        assert walk(family_file("vae"), tmp_path / name, n=n, stops=2, device="cpu").written == [tmp_path / name]
    with Image.open(tmp_path / "a.png") as strip:
        assert strip.size == (6 * (SIDE + 2) - 2, SIDE)


def test_a_walk_passes_through_the_reconstructions_of_pictures(family_file, picture, latent, tmp_path) -> None:
    import limner
    from limner.core.batch import to_float

    path = family_file("autoencoder")
    latent("walk", path, tmp_path / "w.png", f"pictures={picture}", "n=8")
    with Image.open(tmp_path / "w.png") as strip, Image.open(picture / "1.png") as image:
        x = to_float(torch.from_numpy(np.asarray(image).copy()))[None, None]
        at_stop = np.asarray(strip)[:, 2 * (SIDE + 2) :][:, :SIDE]
    model = limner.load(path)
    with torch.no_grad():
        expected = ((model.decode(model.encode(x)) + 1) * 127.5)[0, 0]
    assert (torch.from_numpy(at_stop.copy()) - expected).abs().max() <= 1


def test_what_cannot_be_done_is_said_in_one_line(family_file, picture, latent, tmp_path) -> None:
    gan, out = family_file("gan"), tmp_path / "out"
    has = "gan has no space 'w'; it has: z (noise of the prior)"
    for verb in TABLE:
        assert has in latent(verb, gan, out, "space=w", refused=True)
        assert "does not make out.jpg" in latent(verb, gan, tmp_path / "out.jpg", refused=True)
    assert "has no encoder" in latent("walk", gan, out, f"pictures={picture}", refused=True)
    assert "at least 2 pictures" in latent(
        "walk", family_file("vae"), out, f"pictures={picture / '0.png'}", refused=True
    )
    assert "is not conditional" in latent("walk", gan, out, "y=3", refused=True)
    assert "leads from one label to another" in latent(
        "walk", family_file("conditional"), out, "space=y", "y=3", refused=True
    )
    assert not out.exists()
    latent("walk", gan, out, "n=4", "stops=2")
    assert "exist already" in latent("walk", gan, out, refused=True)
