"""Facts of latent spaces: which a model has, how their points are moved, and what is measured of them."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.core.codes import CodePrior
from limner.core.condition import Attributes, Classes
from limner.core.errors import LimnerError
from limner.core.interpolation import lerp
from limner.core.model import GenerativeModel
from limner.latent.judges import _pinned, correlation
from limner.latent.spaces import Measured, fingerprint, measured, space_of, spaces
from limner.latent.traverse import sliders, traversed
from limner.latent.walk import length, through
from limner.metrics.extractors.readers import ReadsQuantities


class Conditional(GenerativeModel):
    """Shows noise in its first row and the label's vector in the others."""

    def __init__(self, condition: Any, z: int = 4, prior: Any = None) -> None:
        super().__init__()
        self.spec: Any = SimpleNamespace(name="shower", to_dict=lambda: {"z": z})
        self.condition = condition
        self.prior = prior or CodePrior([2], z)
        self.weight = torch.nn.Parameter(torch.ones(()))

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        v = self.condition.encode(y) if y.dim() == 1 else y
        return torch.cat([z, v], 1)[:, None, None].expand(-1, 1, 2, -1) / 4


def test_a_model_has_the_spaces_of_its_capabilities(linear, invertible, styled) -> None:
    assert list(spaces(linear)) == ["z"]
    assert list(spaces(invertible)) == ["z", "code"]
    assert list(spaces(Conditional(Classes(3)))) == ["z", "y"]
    assert list(spaces(styled)) == ["w", "w+", "z"]
    with pytest.raises(LimnerError, match=r"linear has no space 'w'; it has: z \(noise of the prior\)"):
        space_of(linear, "w")
    without: Any = GenerativeModel()
    without.spec = SimpleNamespace(name="pix2pix")
    with pytest.raises(LimnerError, match="pix2pix has no latent space: it makes images of images"):
        space_of(without)


def test_points_that_no_prior_gives_are_moved_to_the_nearest_it_knows() -> None:
    uniform = space_of(Conditional(Classes(2)))
    z = torch.tensor([[3.0, -3.0, 0.5, 0.0]])
    assert uniform.decode(z, torch.tensor([0]))[0, 0, 0, :4].mul(4).tolist() == [1.0, -1.0, 0.5, 0.0]


def test_draws_of_the_code_space_are_the_codes_of_samples(invertible) -> None:
    z, code = spaces(invertible).values()
    torch.testing.assert_close(code.draw(5, 3, None).float(), z.draw(5, 3, None), rtol=1e-5, atol=1e-5)


def test_the_three_spaces_of_styles_give_the_same_pictures_of_the_same_noise(styled) -> None:
    z, w, ws = (space_of(styled, name).draw(4, 0, None) for name in ("z", "w", "w+"))
    assert (w.shape, ws.shape) == ((4, 3), (4, 4, 3))
    expected = space_of(styled, "z").images(z)
    assert torch.equal(space_of(styled, "w").images(w), expected)
    assert torch.equal(space_of(styled, "w+").images(ws), expected)


def test_styles_are_truncated_as_the_model_says(styled) -> None:
    before = space_of(styled, "w").draw(5, 0, None)
    styled.factors[:] = 0.25
    torch.testing.assert_close(space_of(styled, "w").draw(5, 0, None), 0.25 * before)
    styled.factors[2:] = 1.0
    ws = space_of(styled, "w+").draw(5, 0, None)
    torch.testing.assert_close(ws, torch.stack([0.25 * before] * 2 + [before] * 2, 1))
    with pytest.raises(LimnerError, match=r"write space=w\+"):
        space_of(styled, "w").draw(5, 0, None)


def test_components_are_those_of_the_covariance(linear) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 3, dtype=torch.float64, generator=generator) @ torch.randn(
        3, 3, dtype=torch.float64, generator=generator
    )
    vectors, sigmas = Measured.of(points).components(2)
    values, expected = torch.linalg.eigh(points.T.cov())
    torch.testing.assert_close(sigmas, values.flip(0)[:2].sqrt())
    torch.testing.assert_close((vectors * expected.T.flip(0)[:2]).sum(1).abs(), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(Measured.of(points).sigma_along(vectors), sigmas)


def test_a_closed_walk_passes_every_stop_and_comes_back(linear) -> None:
    space = space_of(linear)
    stops = space.draw(3, 0, None).double()
    way = through(space, stops, 12, closed=True)
    torch.testing.assert_close(way[[0, 4, 8]], stops)
    torch.testing.assert_close(through(space, stops, 5), torch.stack([stops[0], *through(space, stops, 9)[2::2]]))
    torch.testing.assert_close(
        through(space, stops, 12, closed=True)[10], space.between(stops[2:], stops[:1], torch.tensor([0.5]))[0]
    )
    for wrong, n in ((stops[:1], 5), (stops, 2)):
        with pytest.raises(LimnerError):
            through(space, wrong, n)


def test_the_length_of_straight_ways_of_a_linear_model_is_that_of_their_images(invertible) -> None:
    class Eye:
        key, dims = "pixels", 4

        def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
            return x.flatten(1).double()

    model = invertible
    space = space_of(model)
    space.between = lerp
    stops = 0.1 * torch.rand(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    value, _ = length(space, stops, None, Eye())
    expected = (model.A.detach() @ (stops[1] - stops[0])).square().sum()
    assert value == pytest.approx(float(expected), rel=1e-3)


def test_a_coordinate_moves_three_measured_deviations_and_leaves_all_others(linear) -> None:
    space = space_of(linear)
    found = measured(space, 300)
    base = space.draw(2, 1, None)
    moves = sliders(space, found, 7)
    assert len(moves) == 3
    moved = moves[1].move(base)
    assert moved.shape == (2, 7, 3)
    torch.testing.assert_close(moved[:, :, [0, 2]], base[:, None, [0, 2]].expand(-1, 7, -1))
    expected = found.mean[1] + found.sigma[1] * torch.linspace(-3, 3, 7)
    torch.testing.assert_close(moved[0, :, 1], expected)


def test_components_move_along_their_vector_only(linear) -> None:
    space = space_of(linear)
    found, base = measured(space, 300), space_of(linear).draw(2, 1, None)
    slider = sliders(space, found, 5, "components", 1)[0]
    vectors, sigmas = found.components(1)
    difference = slider.move(base) - base[:, None]
    across = difference - (difference @ vectors[0])[..., None] * vectors[0]
    assert across.abs().max() < 1e-5
    step = (slider.move(base)[:, 1] - slider.move(base)[:, 0]) @ vectors[0]
    torch.testing.assert_close(step, (1.5 * sigmas[0]).expand(2))


def test_uniform_numbers_stay_in_range_and_codes_take_their_values() -> None:
    model = Conditional(Classes(2), z=5, prior=CodePrior([3, "uniform"], 5))
    space = space_of(model)
    moves = sliders(space, measured(space, 200), 4)
    assert [m.name for m in moves] == ["c1", "c2", "z[0]"]
    base = space.draw(1, 0, None)
    assert torch.equal(moves[0].move(base)[0, :, 1:4], torch.eye(3))
    assert moves[1].move(base)[0, :, 4].tolist() == pytest.approx([-1, -1 / 3, 1 / 3, 1])
    assert moves[2].move(base).abs().max() <= 1


def test_labels_take_all_values_of_an_attribute_and_keep_the_others() -> None:
    faces = Attributes({"hair": ["red", "grey", "none"], "glasses": ["none", "round"]})
    space = space_of(Conditional(faces), "y")
    moves = sliders(space, measured(space, 20), 9)
    assert [(m.name, m.labels) for m in moves] == [("hair", ["red", "grey", "none"]), ("glasses", ["none", "round"])]
    base = faces.vectors(torch.tensor([[1, 1]]))
    assert faces.features(moves[0].move(base)[0]).tolist() == [[0, 1], [1, 1], [2, 1]]
    digits = space_of(Conditional(Classes(4)), "y")
    assert torch.equal(sliders(digits, measured(digits, 8), 9)[0].move(torch.zeros(1, 4))[0], torch.eye(4))


def test_rows_come_in_the_order_of_their_change(linear) -> None:
    space = space_of(linear)
    found = measured(space, 300)
    rows = traversed(space, sliders(space, found, 5), space.draw(3, 1, None), None, 2)
    changes = (6 * found.sigma * linear.A.abs().mean(0) / 2).sort(descending=True).values
    assert [r.change for r in rows] == pytest.approx(changes[:2].tolist(), rel=1e-5)


def test_a_slider_is_named_by_what_a_reader_sees_move() -> None:
    class Reader:
        key = "bright"

        def __init__(self) -> None:
            self.about: dict[str, Any] = {}
            self.values = {"light": ["dark", "bright"], "shape": ["a", "b"]}

        def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
            light = x.mean((1, 2, 3))
            return {"light": torch.stack([-light, light], 1), "shape": torch.stack([0 * light, light * 1e-4], 1)}

    t = torch.linspace(-3, 3, 7)
    x = t.view(1, 7, 1, 1, 1).expand(2, 7, 1, 2, 2) / 3
    found = correlation(Reader(), t, x)
    assert (found.attribute, found.is_name) == ("light", True)
    assert abs(found.r) > 0.95
    p = torch.sigmoid(torch.tensor(2.0))
    assert abs(found.effect) == pytest.approx(float(2 * p - 1), abs=1e-5)
    apart = torch.tensor([0.0, -9.0]).view(2, 1, 1, 1, 1)  # rows are compared with themselves alone
    assert abs(correlation(Reader(), t, x + apart).r) > 0.9
    still = correlation(Reader(), t, x * 1e-3)
    assert not still.is_name  # r is as large, and nothing moves
    assert "unnamed" in str(still)


class Quantities:
    """Reads a width and an angle, which repeats after 180, from the first two pixels, and a colour that stays."""

    key = "quantities"
    values: Any = MappingProxyType(
        {"width": list("01234"), "angle": ["0", "36", "72", "108", "144"], "colour": ["a", "b"]}
    )
    quantities: Any = MappingProxyType({"width": None, "angle": 180.0})
    about: Any = MappingProxyType({})

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        width, angle = x[:, 0, 0, 0] * 4, x[:, 0, 0, 1] * 5
        each = torch.arange(5.0)
        away = (angle[:, None] - each + 2.5).remainder(5) - 2.5
        return {
            "width": -4 * (width[:, None] - each).square(),
            "angle": -4 * away.square(),
            "colour": torch.zeros(len(x), 2),
        }


@pytest.mark.parametrize(
    ("width", "angle", "said", "r", "effect"),
    [
        ((0.0, 1.0), (0.2, 0.2), "width, r = +1.00, +", 1.0, 1.0),
        ((1.0, 0.5), (0.2, 0.2), "width, r = -", -1.0, -0.5),
        ((0.5, 0.5), (0.8, 1.2), "angle, r = +0.9", 0.98, 0.8),  # across the end, where its value jumps from 144 to 0
        ((0.5, 0.52), (0.2, 0.2), "unnamed (nearest width", 1.0, 0.02),
    ],
)
def test_a_slider_of_quantities_is_named_by_the_one_that_goes_evenly_with_it(width, angle, said, r, effect) -> None:
    t = torch.linspace(-3, 3, 9)
    x = torch.zeros(2, 9, 1, 2, 2)
    x[:, :, 0, 0, 0], x[:, :, 0, 0, 1] = torch.linspace(*width, 9), torch.linspace(*angle, 9)
    found = correlation(Quantities(), t, x)
    assert str(found).startswith(said)
    assert found.value is None
    assert found.r == pytest.approx(r, abs=0.03)
    assert found.effect == pytest.approx(effect, abs=0.05)


def test_sprites_and_heads_have_readers_of_quantities() -> None:
    for name, values in (("mini-dsprites", {"angle": 5, "x": 8}), ("solids", {"azimuth": 13, "width": 7})):
        found = _pinned(name, "cpu")
        assert isinstance(found, ReadsQuantities)
        assert {attribute: len(found.values[attribute]) for attribute in values} == values
        logits = found.logits(torch.zeros(2, 1, 32, 32))
        assert {a: x.shape[1] for a, x in logits.items()} == {a: len(known) for a, known in found.values.items()}


def test_the_hash_of_a_model_changes_with_its_weights(linear) -> None:
    before = fingerprint(linear)
    assert fingerprint(linear) == before
    linear.A.data[0, 0] += 1e-7
    assert fingerprint(linear) != before
