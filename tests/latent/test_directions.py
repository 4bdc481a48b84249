"""Facts of directions, edits and projections, on points and models that are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from limner.apply.relabel import pixels
from limner.core.errors import LimnerError
from limner.latent.directions import Directions, balanced_accuracy, by_reader, normal, pca, read_directions, sefa
from limner.latent.edit import examples, least, matrix, moved, purity, target_of
from limner.latent.encoder import fit
from limner.latent.mix import attribution, groups, mixed
from limner.latent.project import looked_at, nearest, places, projected
from limner.latent.search import described
from limner.latent.spaces import Measured, measured, space_of
from limner.metrics.extractors.features import Extractor

N = torch.tensor([0.6, -0.8, 0.0], dtype=torch.float64)


def planted(n: int = 600) -> tuple[Tensor, Tensor]:
    """Points of which those on one side of a plane with the normal N have an attribute, and how sure that is."""
    points = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return points, points @ N - 0.3


@pytest.mark.parametrize("method", ["means", "logistic", "svm"])
def test_every_method_finds_a_planted_direction(method) -> None:
    points, score = planted()
    n = normal(points, score > 0, score, method)
    assert float(n.norm()) == pytest.approx(1)
    assert float(n @ N) > 0.98


@pytest.mark.parametrize("method", ["logistic", "svm"])
def test_boundaries_do_not_depend_on_the_scale_of_a_coordinate(method) -> None:
    points, score = planted()
    scale = torch.tensor([100.0, 1.0, 0.01], dtype=torch.float64)
    n = normal(points * scale, score > 0, score, method) * scale
    assert float(n @ N / n.norm()) > 0.98


def test_accuracy_is_that_of_points_nothing_was_learnt_from() -> None:
    points, score = planted()
    learnt = torch.arange(len(points)) % 4 != 3
    assert balanced_accuracy(points @ N, score > 0, learnt) > 0.98
    across = torch.tensor([0.8, 0.6, 0.0], dtype=torch.float64)
    assert balanced_accuracy(points @ across, score > 0, learnt) == pytest.approx(0.5, abs=0.1)
    shifted = torch.where(learnt, points @ N, points @ N + 100)  # all held-out points lie beyond the threshold
    assert balanced_accuracy(shifted, score > 0, learnt) == 0.5
    t = torch.tensor([0.0, 1, 2, 3, 4, 5, 6, 7, 4.5, 10, 1, 6])  # of 8 without it and 2 with it each half counts alike
    positive = torch.tensor([False] * 8 + [True, True, False, True])
    assert balanced_accuracy(t, positive, torch.arange(12) < 10) == 1.0


def test_rare_values_are_left_out_and_named(linear) -> None:
    points, score = planted(200)
    found = Measured.of(points)
    has = torch.stack([-score, score], 1).log_softmax(1)
    table = {"glasses": has, "hat": torch.tensor([[0.0, -9.0]]).expand(200, 2)}
    values = {"glasses": ["none", "round"], "hat": ["none", "red"]}
    result, rare = by_reader(space_of(linear), found, None, table, values, "means")
    assert result.names == ["glasses=round"]
    assert rare == ["hat=red (0 of 200)"]
    assert float(result.vectors[0] @ N) > 0.95
    torch.testing.assert_close(result.sigma, (points @ result.vectors.T).std(0))
    with pytest.raises(LimnerError, match=r"too few samples .* hat=red \(0 of 200\)"):
        by_reader(space_of(linear), found, None, table, values, "means", "hat=red")
    with pytest.raises(LimnerError, match="unknown value of glasses 'roumd'; did you mean 'round'"):
        by_reader(space_of(linear), found, None, table, values, "means", "glasses=roumd")


def test_the_mean_of_a_class_is_taken_away(linear) -> None:
    points, score = planted()
    classes = (score > 0).long()
    shifted = points + 50 * classes[:, None] * torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    noisy = score + torch.randn(len(score), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = {"a": torch.stack([-noisy, noisy], 1).log_softmax(1)}
    result, _ = by_reader(space_of(linear), Measured.of(shifted), classes, table, {"a": ["no", "yes"]}, "means")
    assert abs(float(result.vectors[0, 2])) < 0.2  # without, it is above 0.99


def test_labels_that_come_in_turn_are_both_learnt_from_and_held_out(linear) -> None:
    points, _ = planted(400)
    classes = torch.arange(400) % 4
    table = {"class": nn.functional.one_hot(classes).double().log_softmax(1)}
    values = {"class": list("abcd")}
    result, rare = by_reader(space_of(linear), Measured.of(points), classes, table, values, "means")
    assert rare == []
    assert result.accuracy == pytest.approx(
        [0.5] * 4, abs=0.2
    )  # points less the mean of their class tell nothing of it


def test_sefa_takes_the_singular_vectors_of_the_first_linear_layer(linear, styled) -> None:
    class Net(type(linear)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.norm = nn.LayerNorm(3)
            self.net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))

        def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            return self.net(torch.cat([z, torch.ones(len(z), 2)], 1)).view(-1, 1, 2, 2)

    model = Net()
    vectors = sefa(space_of(model), 2)
    expected = torch.linalg.svd(model.net[0].weight.detach()[:, :3])[2][:2]
    torch.testing.assert_close((vectors * expected).sum(1).abs(), torch.ones(2))
    torch.testing.assert_close(sefa(space_of(styled, "w"), 1).abs(), torch.tensor([[0.0, 1.0, 0.0]]))
    with pytest.raises(LimnerError, match="no linear layer of linear takes its z as it is"):
        sefa(space_of(linear), 1)


def test_principal_components_of_noise_are_those_of_its_pictures(linear) -> None:
    space = space_of(linear)
    found = measured(space, 500)
    expected = torch.linalg.svd(linear.A.detach())[2][:2].float()
    cosines = (pca(space, found, None, 2) * expected).sum(1).abs()
    assert cosines.min() > 0.98


def test_directions_come_back_from_their_file_and_belong_to_one_model(linear, invertible, tmp_path: Path) -> None:
    V, nones = torch.eye(3)[:2], [None, None]
    before = Directions("z", "means", ["a=b", "c=d"], V, torch.ones(2), torch.zeros(3), [0.9, None], [*nones])
    path = tmp_path / "directions.safetensors"
    path.write_bytes(before.file(space_of(linear)))
    again = read_directions(path, linear)
    assert (again.names, again.accuracy, again.space, again.method) == (before.names, before.accuracy, "z", "means")
    assert torch.equal(again.vectors, V)
    assert again.normals is None
    path.write_bytes(replace(before, normals=2 * V).file(space_of(linear)))
    assert torch.equal(read_directions(path, linear).positions(torch.ones(1, 3), 1), torch.full((1,), 2.0))
    linear.A.data += 1
    with pytest.raises(LimnerError, match="belongs to another run, or to this one before it was trained on"):
        read_directions(path, linear)
    linear.A.data -= 1
    save_file({"vectors": V}, path)
    with pytest.raises(LimnerError, match="holds no directions"):
        read_directions(path, linear)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(LimnerError, match="not a safetensors file"):
        read_directions(path, linear)
    with pytest.raises(LimnerError):
        read_directions(tmp_path / "missing.safetensors", linear)


def test_apart_takes_the_share_of_other_directions_away() -> None:
    V = nn.functional.normalize(torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), dim=1)
    found = Directions("z", "means", ["a", "b", "c"], V, torch.ones(3), torch.zeros(3), [None] * 3, [None] * 3)
    apart = found.apart(["b"])
    torch.testing.assert_close(apart.vectors[0], torch.tensor([0.0, 1.0, 0.0]))
    assert torch.equal(apart.vectors[1:], V[1:])


def found_along(V: Tensor, names: list[str], mean: Tensor | None = None, normals: Tensor | None = None) -> Directions:
    """Directions in w of points with unit deviations."""
    nones: list[None] = [None] * len(names)
    mean = torch.zeros(V.shape[1], dtype=V.dtype) if mean is None else mean
    return Directions("w", "means", names, V, torch.ones(len(V), dtype=V.dtype), mean, nones, [*nones], normals)


def test_steps_to_a_position_end_there_and_points_beyond_it_stay() -> None:
    points = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean, normals = (
        torch.tensor([0.5, 0, 0], dtype=torch.float64),
        0.5 * N[None],
    )  # a deviation of 2 across the boundary
    found = found_along(torch.eye(3, dtype=torch.float64)[:1], ["a"], mean, normals)
    before = found.positions(points, 0)
    torch.testing.assert_close(before, (points - mean) @ N / 2)
    for to, expected in ((0.3, before.clamp_min(0.3)), (-0.3, before.clamp_max(-0.3))):
        step = found.step(0, points, 5.0, to)
        torch.testing.assert_close(found.positions(points + step, 0), expected)
        assert step[:, 1:].abs().max() == 0  # along the vector, not along the normal
    torch.testing.assert_close(found.step(0, points, 1.5), torch.tensor([[1.5, 0, 0]]).double().expand(50, -1))
    own = replace(found, normals=None, sigma=torch.full((1,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(own.positions(points, 0), (points[:, 0] - 0.5) / 4)


def test_a_direction_apart_from_all_has_the_least_of_other_attributes() -> None:
    V = nn.functional.normalize(torch.tensor([[1.0, 1, 0], [1, 0, 0.2], [0, 0, 1], [1, 0.9, 0]]).double(), dim=1)
    names = ["a=x", "b=p", "b=q", "a=y"]
    found = found_along(V, names)
    apart = found.apart_from_all()
    others = V[1:3]
    A = others.T @ others / 2
    A = A + 0.25 * A.diagonal().mean() * torch.eye(3)

    def cost(d: Tensor) -> Tensor:  # of the least point on m · δ = 1
        d = d / (d @ V[0])[..., None]
        return ((d @ A) * d).sum(-1)

    tried = apart.vectors[0] + 0.1 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    assert cost(apart.vectors[0]) < cost(tried).min()
    assert (others @ apart.vectors[0]).abs().max() < (others @ V[0]).abs().max()
    torch.testing.assert_close(apart.vectors.norm(dim=1), torch.ones(4).double())
    torch.testing.assert_close(apart.normals, V)  # where a point lies is still told by the boundary
    alone = found_along(V[:1], names[:1])
    torch.testing.assert_close(alone.apart_from_all().vectors, V[:1])


class Sides:
    """Reads whether the first and the second number of a picture are positive."""

    key = "sides"

    def __init__(self) -> None:
        self.about: dict[str, str] = {}
        self.values = {"first": ["no", "yes"], "second": ["no", "yes"]}

    def logits(self, x: Tensor, *, batch: int = 256) -> dict[str, Tensor]:
        a, b = x.flatten(1)[:, :2].unbind(1)
        return {"first": torch.stack([-a, a], 1), "second": torch.stack([-b, b], 1)}


def test_a_purity_matrix_says_what_a_step_changed_beside_a_random_one(styled) -> None:
    space = space_of(styled, "w")
    found = measured(space, 200)
    V = torch.eye(3)[:1]
    one = Directions("w", "means", ["first=yes"], V, found.sigma_along(V), found.mean, [1.0], [None])
    ((pure, chance),) = matrix(space, one, [0], 10.0, Sides(), n=100)
    assert pure.target == ("first", "yes")
    assert pure.reached == 1.0
    assert pure.kept["second"] == 1.0
    assert pure.others == 1.0
    assert chance.others is not None
    assert chance.others < 1.0
    ((pure, chance),) = matrix(space, replace(one, sigma=torch.zeros(1)), [0], 10.0, Sides(), n=100)
    assert pure.reached == chance.reached == 0.0  # as no step has a length


def test_samples_that_lie_beyond_a_position_are_not_moved_and_neither_are_random_ones(styled) -> None:
    space, far = space_of(styled, "w"), torch.tensor([-100.0, 0, 0])
    one = found_along(torch.eye(3)[:1], ["first=yes"], far)
    ((pure, chance),) = matrix(space, one, [0], 0.0, Sides(), to=[1.0], n=50)
    assert pure.reached == chance.reached == 0.0
    assert chance.kept == {"first": 1.0, "second": 1.0}
    ((pure, chance),) = matrix(space, replace(one, mean=-far), [0], 0.0, Sides(), to=[1.0], n=50)
    assert (pure.reached, pure.others) == (1.0, 1.0)
    assert chance.others is not None
    assert chance.others < 0.9  # as random steps are about 100 long
    half = replace(one, mean=torch.zeros(3), normals=torch.tensor([[1e-3, 0, 0]]))  # steps of a hundred, of one half
    ((_, chance),) = matrix(space, half, [0], 0.0, Sides(), to=[0.0], n=200)
    assert chance.kept["first"] > 0.6


@pytest.mark.parametrize(("below", "level"), [(0.0, 0.25), (1.1, 1.25), (9.0, 0.25)])
def test_the_least_position_is_that_at_which_nine_in_ten_show_it(below: float, level: float, styled) -> None:
    one = found_along(torch.eye(3)[:1], ["first=yes"], torch.tensor([-below, 0, 0]))
    assert least(space_of(styled, "w"), one, 0, Sides(), n=50) == level  # of 9 none suffices, and all are alike
    with pytest.raises(LimnerError, match="component 1 has learnt no value that sides reads"):
        least(space_of(styled, "w"), replace(one, names=["component 1"]), 0, Sides())


def test_a_row_of_purity_is_counted() -> None:
    before = {"a": torch.tensor([0, 0, 1, 2]), "b": torch.tensor([0, 1, 0, 1])}
    after = {"a": torch.tensor([1, 0, 1, 1]), "b": torch.tensor([0, 1, 1, 1])}
    row = purity("a=y", ("a", "y"), before, after, {"a": ["x", "y", "z"], "b": ["p", "q"]})
    assert row.reached == pytest.approx(2 / 3)
    assert row.kept == {"a": 0.5, "b": 0.75}
    assert row.others == 0.75
    assert target_of("a=y", {"a": ["x", "y"]}) == ("a", "y")
    assert target_of("component 1", {"a": ["x"]}) is None


def test_a_step_in_some_layers_changes_these_only(styled) -> None:
    space = space_of(styled, "w")
    points = space.draw(2, 0, None)
    whole, changed = moved(space, points, torch.tensor([1.0, 0.0, 0.0]) / 8, [1, 2])
    difference = whole.images(changed) - space.images(points)
    assert difference[:, :, [0, 3]].abs().max() == 0
    torch.testing.assert_close(difference[:, 0, 1:3, 0], torch.full((2, 2), 0.125))
    each = torch.tensor([[0.1, 0, 0], [0.2, 0, 0]])  # another step for each point
    _, changed = moved(space, points, each, [1])
    torch.testing.assert_close(changed[:, 1] - points, each)
    assert torch.equal(changed[:, 0], points)
    step = torch.arange(12.0).view(4, 3)  # of w+, another for each layer
    ws = space_of(styled, "w+").draw(2, 0, None)
    _, changed = moved(space_of(styled, "w+"), ws, step.flatten(), [1, 3])
    torch.testing.assert_close(changed - ws, (step * torch.tensor([0.0, 1, 0, 1])[:, None]).expand(2, -1, -1))


def test_examples_of_a_description_show_all_of_it(linear) -> None:
    found = Measured.of(torch.eye(3))
    p = torch.tensor([[0.99, 0.45], [0.55, 0.55], [0.6, 0.9]])  # the product of the first is above that of the second
    table = {name: torch.stack([1 - p[:, k], p[:, k]], 1).log() for k, name in enumerate(("first", "second"))}
    what = "first=yes second=yes"
    points = examples(space_of(linear), what, 2, Sides(), found, table, False)
    assert torch.equal(points, found.points[[2, 1]])
    with pytest.raises(LimnerError, match="only 2 of 3 samples show"):
        examples(space_of(linear), what, 3, Sides(), found, table, False)


def test_mixing_takes_some_layers_and_says_what_they_decide(styled) -> None:
    space = space_of(styled, "w+")
    a, b = space.draw(80, 0, None).chunk(2)
    assert groups(4) == {"coarse": [0, 1], "middle": [2], "fine": [3]}
    both = mixed(a, b, [2])
    assert torch.equal(both[:, 2], b[:, 2])
    assert torch.equal(both[:, [0, 1, 3]], a[:, [0, 1, 3]])
    table = attribution(space, a, b, groups(4), Sides())  # Sides looks at the first row, which is the first layer
    assert table["coarse"] == {"first": 1.0, "second": 1.0}
    assert table["middle"] == table["fine"] == {"first": 0.0, "second": 0.0}


def test_a_description_is_the_product_of_its_probabilities() -> None:
    x = torch.tensor([[0.3, -0.2], [0.5, 0.4]]).view(2, 1, 1, 2)
    p = torch.sigmoid(2 * torch.tensor([[0.3, -0.2], [0.5, 0.4]]))
    torch.testing.assert_close(described(Sides(), x, "first=yes second=yes").exp(), p.prod(1))
    torch.testing.assert_close(described(Sides(), x, "second=no").exp(), 1 - p[:, 1])


class Pixels(Extractor):
    key, dims = "pixels", 4

    def features(self, x: Tensor, *, batch: int = 256) -> Tensor:
        return x.flatten(1)


def test_a_picture_of_the_model_is_found_again(linear) -> None:
    space = space_of(linear)
    found, truth = measured(space, 300), space.draw(3, 9, None)
    x, before = space.images(truth).double(), linear.A.detach().clone()
    for method, steps, db in (("lbfgs", 50, 60), ("adam", 200, 30)):
        result = projected(space, x, None, found, Pixels(), pixels, steps=steps, method=method)
        assert result.start == "the nearest of 300 draws"
        assert result.psnr.min() > db
        assert all(min(c) < c[0] for c in result.curves)
    assert torch.equal(linear.A, before)
    assert linear.A.grad is None


def test_an_encoder_of_the_model_is_where_a_search_begins(invertible) -> None:
    space = space_of(invertible, "code")
    found, truth = measured(space, 60), space.draw(2, 9, None)
    points, _, start = nearest(space, space.images(truth).double(), None, found, pixels, steps=0)
    assert start == "the model's encoder"
    torch.testing.assert_close(points, truth, rtol=1e-4, atol=1e-4)


def test_the_place_of_a_draw_is_even_and_that_of_a_far_point_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    stretch = torch.tensor([[3.0, 0.0], [2.9, 0.1]])  # almost on a line
    found = Measured.of(torch.randn(1000, 2, generator=generator) @ stretch)
    draws = torch.randn(400, 2, generator=generator) @ stretch
    place = places(draws, found)
    assert float(place.mean()) == pytest.approx(0.5, abs=0.05)
    off = torch.tensor([[0.0, 2.0]])  # no farther than most draws, but off the line
    assert float(places(off, found)) == 1.0
    assert float(places(found.mean[None], found)) < 0.05


def test_the_features_of_a_projection_have_a_gradient_that_leads_to_the_picture() -> None:
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.zeros_like(x).requires_grad_()
    distance = looked_at(1, 0.5)
    (gradient,) = torch.autograd.grad(distance(y, x).sum(), y)
    assert distance(y - 1e-2 * gradient / gradient.abs().max(), x).sum() < distance(y, x).sum()
    assert distance(x, x).abs().max() < 1e-6


def test_a_fitted_encoder_finds_the_noise_of_new_samples(linear) -> None:
    _, error = fit(space_of(linear), 40, 16)
    assert error < 0.6  # 1 is the mean of all
