"""Every latent tool on a small model of every family, and what is refused in one line."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner.apply.images import ImageSource
from limner.cli import main
from limner.core.errors import LimnerError
from limner.latent.directions import read_directions
from limner.latent.project import pictures, rows_of
from limner.latent.results import opened
from limner.latent.walk import walk

Run = Callable[..., Any]
FAMILIES = ["autoencoder", "vae", "gan", "flow", "diffusion", "conditional", "stylegan"]
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


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer draws and coordinates than users get, so that no test takes seconds."""
    monkeypatch.setattr("limner.latent.traverse._LOOKED_AT", 12)
    monkeypatch.setattr("limner.latent.project._DRAWS", 60)
    monkeypatch.setattr("limner.latent.encoder._HELD_OUT", 20)
    monkeypatch.setattr("limner.latent.encoder._MEASURED", 40)
    monkeypatch.setattr("limner.latent.walk._SAMPLES", 40)
    monkeypatch.setattr("limner.latent.edit._CANDIDATES", 200)


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


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of dark and of bright pictures, with and without a white corner."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 110)):
        (root / name).mkdir()
        for k in range(20):
            Image.fromarray(rng.integers(low, low + 140, (SIDE, SIDE), dtype=np.uint8)).save(root / name / f"{k}.png")
    return root


TABLE = {
    "project": (["steps=2", "own=1", "n=1"], {".png", ".json"}),
    "encoder": (["steps=2", "batch=2"], {".safetensors", ".json"}),
    "directions": (
        ["method=pca", "k=2", "samples=40", "steps=3", "page=true"],
        {".safetensors", ".png", ".html", ".json"},
    ),
    "walk": (["n=6", "stops=2"], {".png", ".webp", ".json"}),
    "traverse": (["rows=2", "steps=3", "page=true"], {".png", ".webp", ".html", ".json"}),
    "search": (["like=PICTURE", "samples=30", "k=3", "refine=true", "steps=1"], {".png", ".json"}),
}
"""The settings of each tool, and the suffixes of what it writes."""


def source(verb: str, picture: Path) -> list[Path]:
    """The pictures that some tools take before the name of the result."""
    return [picture] if verb == "project" else []


@pytest.mark.parametrize("verb", TABLE)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tool_works_on_every_family(family: str, verb: str, family_file, picture, latent, tmp_path) -> None:
    settings, suffixes = TABLE[verb]
    settings = [word.replace("PICTURE", str(picture / "0.png")) for word in settings]
    settings += ["y=1"] if verb == "project" and family in ("conditional", "diffusion") else []
    document = latent(verb, family_file(family), *source(verb, picture), tmp_path / "out", *settings)
    assert finite(document)
    written = [Path(p) for p in document["written"]]
    assert {p.suffix for p in written} == suffixes
    assert all(p.stem == verb and p.stat().st_size > 100 for p in written if p.suffix != ".json")
    if verb == "directions":  # edits go along them, and say that without a reader there is no proof
        along = [f"directions={written[0]}", "n=2", "steps=1"]
        edited = latent("edit", family_file(family), tmp_path / "edit.png", *along)
        assert edited["direction"] == "component 1"
        assert "purity" not in edited


@pytest.mark.parametrize(("family", "space"), [("autoencoder", "code"), ("conditional", "y"), ("flow", "code")])
def test_tools_take_every_space_of_a_model(family: str, space: str, family_file, latent, tmp_path) -> None:
    for verb in ("walk", "traverse"):
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


def test_sampling_options_of_the_model_are_settings_of_a_tool(family_file, latent, tmp_path) -> None:
    spread = []
    for t in (2, 0.1):
        latent("walk", family_file("vae"), tmp_path / f"{10 * t:g}.png", "n=4", f"truncation={t}")
        with Image.open(tmp_path / f"{10 * t:g}.png") as strip:
            tiles = [np.asarray(strip, float)[:, k * (SIDE + 2) :][:, :SIDE] for k in range(4)]
        spread.append(np.std(tiles, axis=0).mean())
    assert spread[1] < 0.2 * spread[0]
    assert "truncation" in latent("walk", family_file("vae"), tmp_path / "x", "trunkation=1", refused=True)


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
    for verb in [*TABLE, "edit"]:
        words = {"search": [f"like={picture / '0.png'}"], "edit": ["a=x", "b=x", "c=x"]}.get(verb, [])
        assert has in latent(verb, gan, *source(verb, picture), out, "space=w", *words, refused=True)
        wrong = latent(verb, gan, *source(verb, picture), tmp_path / "out.jpg", *words, refused=True)
        assert f"limner latent {verb} does not make out.jpg" in wrong
    assert "gan has no space 'w+'; it has: z" in latent("mix", gan, out, refused=True)
    assert "has no encoder" in latent("walk", gan, out, f"pictures={picture}", refused=True)
    assert "at least 2 pictures" in latent(
        "walk", family_file("vae"), out, f"pictures={picture / '0.png'}", refused=True
    )
    assert "is not conditional" in latent("walk", gan, out, "y=3", refused=True)
    assert "leads from one label to another" in latent(
        "walk", family_file("conditional"), out, "space=y", "y=3", refused=True
    )
    for words, said in (
        (["walk", family_file("vae"), out, f"pictures={picture}", "n=3"], "has more than 3 pictures"),
        (["traverse", family_file("conditional"), out, "space=y", "y=3"], "leave y out"),
        (["traverse", family_file("conditional"), out, "space=y", "along=components"], "leave along out"),
        (["traverse", family_file("conditional"), out, "space=y", "pad=true"], "leave pad out"),
        (["search", gan, out, f"like={picture}"], "write like=PICTURE"),
        (["search", gan, out, "want=a=b", "fit=true"], "leave it out"),
        (["search", gan, out, f"like={picture / '0.png'}", "data=avatars"], "leave it out"),
        (["edit", gan, out, "a=x", "b=x", "c=x", "layers=0"], "leave them out of arithmetic"),
        (["edit", gan, out, "a=x", "b=x", "c=x", "to=2"], "leave them out of arithmetic"),
        (["edit", gan, out, f"directions={tmp_path}"], "is no file; make one with: limner latent directions"),
        (["directions", gan, out, "method=pca", "attribute=a"], "leave attribute out"),
        (["directions", gan, out, "method=means", "k=3"], "leave k out"),
        (["directions", gan, out, "extreme=0.1"], "leave extreme out"),
        (["edit", gan, out, "a=x", "b=x", "c=x", "amount=2"], "leave them out of arithmetic"),
        (["edit", gan, out, "a=x", "b=x", "c=x", "n=2"], "leave them out of arithmetic"),
        (["edit", gan, out, f"directions={tmp_path}", "examples=2"], "leave examples out"),
        (["search", gan, out, f"like={picture / '0.png'}", "steps=3"], "leave steps out"),
        (["walk", family_file("vae"), out, f"pictures={picture}", "stops=3"], "leave stops out"),
    ):
        assert said in latent(*words, refused=True)
    assert not out.exists()
    latent("walk", gan, out, "n=4", "stops=2")
    assert "exist already" in latent("walk", gan, out, refused=True)


def test_pictures_that_the_model_does_not_draw_are_refused(family_file, picture, latent, tmp_path) -> None:
    vae, out = family_file("vae"), tmp_path / "out"
    rng = np.random.default_rng(1)
    for name, shape in (("large", (9, 12)), ("colour", (SIDE, SIDE, 3)), ("alpha", (SIDE, SIDE, 4))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    for name, said in (("large", "12×9 grey"), ("colour", "8×8 colour"), ("alpha", "8×8 colour with alpha")):
        error = latent("project", vae, tmp_path / f"{name}.png", out, "overwrite=true", refused=True)
        assert f"{name}.png is {said}, and this model draws 8×8 grey; write fit=true" in error
        latent("project", vae, tmp_path / f"{name}.png", out, "fit=true", "steps=1", "own=1", "overwrite=true")
    assert "labels" in latent("project", family_file("conditional"), picture, tmp_path / "y", "space=y", refused=True)


def test_pictures_of_a_conditional_model_come_with_their_label(family_file, picture, latent, tmp_path) -> None:
    cvae, out = family_file("cvae-mnist"), tmp_path / "out"
    for words in (["project", cvae, picture, out], ["walk", cvae, out, f"pictures={picture}"],
                  ["edit", cvae, out, f"a={picture}", f"b={picture}", f"c={picture}"]):  # fmt: skip
        assert "is conditional, and a point gives another picture for each label" in latent(*words, refused=True)
    assert "is conditional" in latent("edit", cvae, out, "a=x=1", "b=x=2", "c=x=3", refused=True)
    assert "no place in y" in latent("walk", cvae, out, f"pictures={picture}", "space=y", refused=True)
    latent("walk", cvae, out, f"pictures={picture}", "y=3", "n=6")


def test_a_picture_that_is_not_square_fits_a_model_of_its_width_and_height(tmp_path: Path) -> None:
    Image.new("L", (9, 7)).save(tmp_path / "wide.png")
    names, x = pictures(tmp_path / "wide.png", (1, 7, 9), fit=False)
    assert (names, x.shape) == (["wide.png"], (1, 1, 7, 9))
    with pytest.raises(LimnerError, match="is 9×7 grey, and this model draws 7×9 grey"):
        pictures(tmp_path / "wide.png", (1, 9, 7), fit=False)


def test_the_page_of_a_projection_has_all_numbers(family_file, picture, latent, tmp_path) -> None:
    words = ["project", family_file("gan"), picture, tmp_path / "a.html", "steps=3", "own=2", "method=adam", "space=z"]
    document = latent(*words)
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert len(document["pictures"]) == 4
    assert len(document["own_samples"]) == 2
    assert html.count("data:image/png") == 2
    assert all(f"<td>{name}.png</td>" in html for name in range(4))


def test_directions_lead_to_edits_with_their_proof(family_file, labelled, picture, latent, tmp_path) -> None:
    gan, out = family_file("gan"), tmp_path / "out"
    found = latent("directions", gan, out, "method=means", f"data={labelled}", "samples=400", "steps=3")
    file = out / "directions.safetensors"
    if found["rare"]:
        pytest.skip("the samples of the small model look alike")
    (row,) = found["directions"]
    assert row["direction"] == "class=dark"
    assert row["held_out_accuracy"] > 0.6
    for more in (["n=2"], [f"source={picture}"], ["to=auto"], ["to=-1.5"]):
        words = [
            "edit",
            gan,
            tmp_path / "edited",
            f"directions={file}",
            f"data={labelled}",
            "proof=60",
            "steps=2",
            *more,
        ]
        document = latent(*words, "overwrite=true")
        (pure,) = document["purity"]
        assert (document.get("to"), document.get("amount")) == (
            pure.get("to"),
            None if more[0].startswith("to=") else 3.0,
        )
        assert pure["direction"] == "class=dark"
        assert set(pure["random"]["kept"]) == {"class"}
        assert finite(document)
    for wrong, said in (
        (["edit", family_file("vae"), tmp_path / "e", f"directions={file}"], "belongs to another run"),
        (["edit", gan, tmp_path / "e", f"directions={file}", "name=class=light"], "unknown direction"),
        (["edit", gan, tmp_path / "e", f"directions={picture / '0.png'}"], "0.png"),
        (["edit", gan, tmp_path / "e", f"directions={file}", "layers=0-1"], "has no layers"),
        (["edit", gan, tmp_path / "e", f"directions={file}", "a=x"], "write one of the two"),
        (["edit", gan, tmp_path / "e", f"directions={file}", "amount=1", "to=1"], "write one"),
        (["edit", gan, tmp_path / "e", f"directions={file}", "to=auto"], "to=auto needs a reader"),
        (["directions", gan, tmp_path / "e", "apart=all", "method=pca"], "needs the directions of all attributes"),
        (["directions", gan, tmp_path / "e", "apart=all", "attribute=class"], "leave attribute out"),
        (["directions", gan, tmp_path / "e"], "nothing is known of the pictures"),
        (["directions", gan, tmp_path / "e", f"data={labelled}", "attribute=hair"], "unknown attribute"),
        (["directions", gan, tmp_path / "e", f"data={labelled}", "samples=20"], "too few samples"),
        (["directions", gan, tmp_path / "e", f"data={picture}"], "no classes or attributes"),
    ):
        assert said in latent(*wrong, refused=True)


def test_a_sample_is_the_nearest_to_itself(family_file, labelled, latent, tmp_path) -> None:
    from limner.core.grid import make_grid

    space = opened(family_file("gan"), "z", "cpu")
    x = space.images(space.draw(30, 0, None))
    make_grid(x[7:8], 1).save(tmp_path / "seven.png")
    words = ["search", family_file("gan"), tmp_path / "out", "samples=30", "k=4"]
    document = latent(*words, f"like={tmp_path / 'seven.png'}")
    assert document["indices"][0] == 7
    assert document["distances"] == sorted(document["distances"])
    assert document["distances"][0] < 0.2 * document["distances"][1]
    found = latent(*words, "want=class=dark", f"data={labelled}", "overwrite=true")
    assert found["probabilities"] == sorted(found["probabilities"], reverse=True)
    for wrong, said in ((["want=class=dark"], "nothing reads"), ([], "one of the two"), (["k=31"], "one of the two")):
        assert said in latent(*words, *wrong, "overwrite=true", refused=True)


def test_styles_are_mixed_in_blocks_of_layers(styled, labelled, latent, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("limner.latent.results.load_model", lambda *_: styled)
    document = latent(
        "mix", "run", tmp_path / "out", "rows=2", "columns=3", f"data={labelled}", "proof=20", "page=true"
    )
    assert document["layers"] == {"coarse": [0, 1], "middle": [2], "fine": [3]}
    assert set(document["read_as_b"]) == {"coarse", "middle", "fine"}
    names = [name for group in ("coarse", "middle", "fine") for name in (f"B: {group}", "A 1", "A 2")]
    with Image.open(tmp_path / "out/mix.png") as sheet:
        assert sheet.size == rows_of([torch.ones(4, 1, 4, 3)] * 9, names).size


def test_an_edit_shows_points_moved_by_measured_deviations_and_arithmetic_a_less_b_and_c(
    family_file, picture, latent, tmp_path
) -> None:
    file, vae = tmp_path / "d.safetensors", family_file("vae")
    latent("directions", vae, file, "method=pca", "k=2", "samples=40")
    words = [f"directions={file}", "name=component 2", "amount=1.5", "n=2", "steps=2"]
    latent("edit", vae, tmp_path / "along.png", *words)
    space = opened(vae, "z", "cpu")
    found, points = read_directions(file, space.model), space.draw(2, 0, None)
    step = 1.5 * found.sigma[1] * found.vectors[1]
    rows = [space.images(points + t * step) for t in (0, 0.5, 1)]
    with Image.open(tmp_path / "along.png") as sheet:
        assert sheet.tobytes() == rows_of(rows, ["before", "+0.75 SD", "+1.5 SD"]).tobytes()

    parts = []
    for k, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        for i in (k, k + 1):
            shutil.copy(picture / f"{i}.png", tmp_path / name)
        x = torch.cat([part for _, part in ImageSource(tmp_path / name, space.shape).batches()])
        codes = space.points(x.float(), None)
        parts.append(torch.cat([codes, codes.mean(0, keepdim=True)]))
    a, b, c = parts
    latent("edit", vae, tmp_path / "sum.png", *(f"{n}={tmp_path / n}" for n in "abc"), "examples=2", "space=z")
    with Image.open(tmp_path / "sum.png") as sheet:
        rows, names = [space.images(p) for p in (a, b, c, a - b + c)], ["a", "b", "c", "a - b + c"]
        assert sheet.tobytes() == rows_of(rows, names, ["1", "2", "mean"]).tobytes()


def test_arithmetic_takes_pictures_and_descriptions(family_file, labelled, picture, latent, tmp_path) -> None:
    vae, out = family_file("vae"), tmp_path / "out"
    dark, bright = labelled / "dark", labelled / "bright"
    document = latent("edit", vae, out, f"a={dark}", f"b={bright}", f"c={bright}", "examples=2", f"data={labelled}")
    assert len(document["singles"]) == 2
    assert document["purity"][0]["direction"] == "a - b"
    assert "examples" in latent(
        "edit", vae, out, f"a={picture / '0.png'}", f"b={bright}", f"c={bright}", "overwrite=true", refused=True
    )
    (tmp_path / "empty").mkdir()
    latent("edit", vae, tmp_path / "x", f"a={tmp_path / 'empty'}", f"b={bright}", f"c={bright}", refused=True)
    assert "write one of the two" in latent("edit", vae, tmp_path / "x", f"a={dark}", refused=True)
    asked = ["edit", vae, tmp_path / "x", "a=class=dark", "b=class=lit", "c=class=dark", f"data={labelled}"]
    assert "class has no value 'lit'" in latent(*asked, refused=True)
