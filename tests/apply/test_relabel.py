"""Facts of pictures with another label: the code that is found, what the search leaves alone, and the identity kept."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limner.apply import tasks
from limner.apply.relabel import nearest_codes, of_features, pixels
from limner.core.condition import Attributes, Classes
from limner.core.errors import LimnerError
from limner.core.model import GenerativeModel
from limner.core.prior import Prior
from limner.metrics.extractors.attributes import attribute_reader
from limner.metrics.identity import difference, identity_kept

Z, SHAPE = 3, (1, 4, 4)
AGES = Classes(["young", "old"])


class Painter(GenerativeModel):
    """A small smooth generator of noise and a label."""

    condition: Any = AGES

    def __init__(self, kind: Any = "normal") -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="painter", to_dict=lambda: {"shape": list(SHAPE)})
        self.prior = Prior(kind, Z)
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(Z + 2, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return self.net(torch.cat([z, AGES.encode(y)], 1)).view(-1, *SHAPE)


class Encoding(Painter):
    """Its encoder, like one that was trained on generated pairs, finds the code roughly."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        noise = torch.randn(len(x), Z, generator=torch.Generator().manual_seed(int(1e4 * x.abs().sum()) % 1000))
        return self.true[(x[:, None] - self.pictures).flatten(2).norm(dim=2).argmin(1)] + noise

    def knows(self, z: Tensor, x: Tensor) -> None:
        self.true, self.pictures = z, x


def pictures(model: Painter, n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    z, y = model.prior.sample(n, torch.Generator().manual_seed(3)), torch.arange(n) % 2
    with torch.no_grad():
        return z, y, model.decode(z, y)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_the_code_of_a_generated_picture_is_found_again(kind: Any) -> None:
    model = Painter(kind).eval()
    _, y, x = pictures(model)
    found = nearest_codes(model, x, y)
    assert (found.after <= found.before).all()
    assert found.after.max() < 1e-4 < found.before.mean()
    with torch.no_grad():
        torch.testing.assert_close(pixels(model.decode(found.z, y), x), found.after)
    if kind == "uniform":
        assert found.z.abs().max() <= 1


def test_codes_stay_in_the_cube_of_a_uniform_prior_also_for_pictures_that_no_code_gives() -> None:
    model = Painter("uniform").eval()
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(5)).round() * 2 - 1
    assert nearest_codes(model, x, torch.arange(4) % 2).z.abs().max() <= 1


def test_a_search_that_leaves_the_finite_numbers_ends_where_it_began() -> None:
    model = Painter().eval()
    _, y, x = pictures(model, 1)
    start = nearest_codes(model, -x, y, steps=0)
    with torch.no_grad():
        first = model.decode(start.z, y)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        away = torch.is_grad_enabled() and float(pixels(a, first).detach()) > 1e-6
        return pixels(a, b) * (torch.nan if away else 1.0)

    found = nearest_codes(model, -x, y, distance)
    torch.testing.assert_close(found.z, start.z, atol=0.01, rtol=0)
    assert found.after <= found.before == start.before


def test_the_search_moves_no_weight_and_leaves_no_gradient() -> None:
    model = Painter().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    _, y, x = pictures(model)
    with torch.inference_mode():  # as in the tasks
        nearest_codes(model, x, y, steps=5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_more_steps_never_make_it_worse_and_none_leave_the_start() -> None:
    model = Painter().eval()
    _, y, _ = pictures(model)
    x = torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(5)) * 2 - 1  # no picture of the model
    losses = [nearest_codes(model, x, y, steps=k).after for k in (0, 1, 3, 10, 40)]
    assert all((b <= a + 1e-6).all() for a, b in pairwise(losses))
    start = nearest_codes(model, x, y, steps=0)
    assert torch.equal(start.before, start.after)
    assert (losses[-1] < losses[0]).all()


def test_a_picture_is_found_alone_whatever_stands_beside_it() -> None:
    model = Painter().eval()
    _, y, x = pictures(model)
    torch.testing.assert_close(nearest_codes(model, x, y).z[5:6], nearest_codes(model, x[5:6], y[5:6]).z)


def test_features_are_what_is_kept_where_they_are_what_is_minimised() -> None:
    """FR sees the upper half alone: its distance falls to 0, that of the rest need not."""
    model = Painter().eval()
    _, y, x = pictures(model)
    other = torch.cat([x[:, :, :2], -x[:, :, 2:]], 2)
    distance = of_features(lambda image: image[:, :, :2])
    by_features, by_pixels = nearest_codes(model, other, y, distance), nearest_codes(model, other, y)
    with torch.no_grad():
        kept = [distance(model.decode(found.z, y), other) for found in (by_features, by_pixels)]
    torch.testing.assert_close(kept[0], by_features.after)
    assert (kept[0] < 0.1 * kept[1]).all()


def test_the_search_keeps_more_of_the_identity_than_the_encoder_alone() -> None:
    """Antipov et al. 2017, table 1, in small: identity is the signs of the code, which nobody optimised."""
    model = Encoding().eval()
    z, y, x = pictures(model, 40)
    model.knows(z, x)

    def read(codes: Tensor) -> dict[str, Tensor]:
        return {str(k): torch.stack([-c, c], 1) for k, c in enumerate(codes.unbind(1))}

    encoder, found = (identity_kept(read(z), read(nearest_codes(model, x, y, steps=k).z)) for k in (0, 100))
    gain, low, _ = difference(found, encoder)
    assert found.value > 0.95 > encoder.value
    assert 0 < low < gain


def test_the_command_writes_the_picture_of_the_other_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Painter().eval()
    monkeypatch.setattr(tasks, "load_model", lambda *_: model)
    z, _, _ = pictures(model, 1)
    with torch.no_grad():
        young, old = (model.decode(z, torch.tensor([k])) for k in (0, 1))
    picture = tmp_path / "young.png"
    Image.fromarray(((young[0, 0] + 1) * 127.5).round().byte().numpy()).save(picture)
    done = tasks.apply("run", picture, tmp_path / "old.png", task="relabel", was="young", y="old", device="cpu")
    assert (done["task"], done["n"]) == ("relabel", 1)
    with Image.open(tmp_path / "old.png") as image:
        written = torch.tensor(list(image.convert("L").tobytes())).view(4, 4) / 127.5 - 1
    assert (written - old[0, 0]).abs().max() < 0.05
    assert (written - young[0, 0]).abs().max() > 0.1


LOOKS = Attributes({"glasses": ["round", "none"]})


class Faces(Painter):
    """A generator of colour pictures whose label is an attribute that avatars-v1 reads."""

    condition: Any = LOOKS

    def __init__(self) -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="faces", to_dict=lambda: {"shape": [3, 8, 8]})
        self.net[2] = nn.Linear(16, 3 * 8 * 8)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return self.net(torch.cat([z, y], 1)).view(-1, 3, 8, 8)


def test_a_net_that_knows_faces_decides_what_is_kept_and_reads_the_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, reader = Faces().eval(), attribute_reader("avatars-v1")
    monkeypatch.setattr(tasks, "load_model", lambda *_: model)
    asked: list[tuple[Tensor, Tensor]] = []

    def search(model: Any, x: Tensor, y: Tensor, distance: Any, **settings: Any) -> Any:
        found = nearest_codes(model, x, y, distance, **settings)
        with torch.no_grad():
            torch.testing.assert_close(of_features(reader.features)(model.decode(found.z, y), x), found.after)
        asked.append((x, y))
        return found

    monkeypatch.setattr(tasks, "nearest_codes", search)
    x = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 255).byte()
    Image.fromarray(x[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    settings: dict[str, Any] = {"task": "relabel", "y": "glasses=none", "keep": "avatars-v1", "device": "cpu"}
    for k, was in enumerate(({}, {"was": "glasses=round"}, {"was": "glasses=none"})):
        tasks.apply("run", tmp_path / "a.png", tmp_path / f"{k}.png", **settings, **was)
    read = reader.values["glasses"][int(reader.logits(x)["glasses"].argmax())]
    assert [LOOKS.name(y) for _, y in asked] == [[f"glasses={v}"] for v in (read, "round", "none")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"y": "old"}, "write was=LABEL"),
        ({"y": "old", "keep": "avatars-v1"}, "write was=LABEL"),
        ({"y": "old", "was": "young", "keep": "avatar-v1"}, "did you mean 'avatars-v1'"),
        ({"y": "old", "was": "yong"}, "did you mean 'young'"),
        ({"y": "older", "was": "young"}, "did you mean 'old'"),
        ({"was": "young"}, "write y=CLASS"),
        ({"y": "old", "was": "young", "steps": 3}, "steps is not for relabel"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "load_model", lambda *_: Painter().eval())
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(LimnerError, match=message):
        tasks.apply("run", tmp_path / "a.png", tmp_path / "b.png", task="relabel", device="cpu", **settings)
    assert not (tmp_path / "b.png").exists()
