"""Facts of the diffusion models: what a perfect net makes of them, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.config.spec import Spec
from limner.core.batch import Images
from limner.core.errors import LimnerError
from limner.core.rng import Noise
from limner.models.ddpm import DDPM, alphas_bar
from limner.models.edm import EDM
from limner.models.mean_flow import MeanFlow
from limner.models.rectified_flow import RectifiedFlow
from limner.nets import protocols
from limner.nets.denoiser import MLP
from limner.samplers.diffusion import DiffusionModel

S = 0.7  # standard deviation of the Gaussian data, whose denoiser is D = x S² / (S² + σ²)
SHAPE = (2, 1, 1)


class Exact(protocols.Denoiser):
    """The net that makes the denoiser of N(0, S²) exact, from what it should predict."""

    def __init__(self, predict: Callable[[Tensor, Tensor], Tensor], times: int = 1) -> None:
        super().__init__(times=times, shape=SHAPE)
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.predict = predict

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction for x_t at c."""
        return self.weight * self.predict(x, c.view(len(x), -1)[:, 0].view(-1, 1, 1, 1))


def flow_velocity(x_t: Tensor, t: Tensor) -> Tensor:
    """E[ε − x | x_t] of rectified flow."""
    return (t - (1 - t) * S**2) / ((1 - t) ** 2 * S**2 + t**2) * x_t


def described(model: DiffusionModel, name: str) -> DiffusionModel:
    model.spec = Spec("model", name, {})
    return model.eval()


def ddpm(**more: Any) -> DiffusionModel:
    levels = torch.tensor(alphas_bar(1000, "linear"), dtype=torch.float64)

    def noise(x_t: Tensor, c: Tensor) -> Tensor:
        index = (c * 1000).double()
        log_sigma = ((1 - levels) / levels).log() / 2
        low = index.long().clamp(0, 998)
        sigma = torch.lerp(log_sigma[low], log_sigma[low + 1], index - low).exp().float()
        x = x_t * (1 + sigma**2).sqrt()
        return sigma * x / (S**2 + sigma**2)

    return described(DDPM(Exact(noise), shape=SHAPE, **more), "ddpm")


def edm() -> DiffusionModel:
    model = EDM(Exact(lambda x, c: x), sigma_data=0.5, shape=SHAPE)

    def f(x: Tensor, c: Tensor) -> Tensor:
        sigma = (4 * c).exp()
        total = sigma**2 + 0.25
        x = x * total.sqrt()
        return (S**2 / (S**2 + sigma**2) - 0.25 / total) * x * total.sqrt() / (sigma * 0.5)

    model.F = Exact(f)
    return described(model, "edm")


MODELS: dict[str, Callable[[], DiffusionModel]] = {
    "ddpm": ddpm,
    "edm": edm,
    "rectified_flow": lambda: described(RectifiedFlow(Exact(flow_velocity), shape=SHAPE), "rectified_flow"),
    "mean_flow": lambda: described(MeanFlow(Exact(flow_velocity, times=2), shape=SHAPE), "mean_flow"),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_exact_net_gives_the_exact_denoiser_at_every_noise_level(name: str) -> None:
    model, x = MODELS[name](), torch.randn(7, *SHAPE)
    for sigma in (0.02, 0.3, 1.0, 7.0, 79.0):
        s = torch.full((7,), sigma)
        expected = x * S**2 / (S**2 + sigma**2)
        torch.testing.assert_close(model.denoise(x, s), expected, rtol=2e-4, atol=2e-4 * sigma)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("sampler", ["dpm2m", "euler", "heun", "ancestral"])
def test_samples_of_an_exact_denoiser_have_the_deviation_of_the_data(name: str, sampler: str) -> None:
    x = MODELS[name]().sample(4000, seed=0, batch=4000, sampler=sampler, steps=100)
    assert abs(float(x.std()) - S) < 0.03
    assert abs(float(x.mean())) < 0.03


@pytest.mark.parametrize("name", MODELS)
def test_the_path_goes_back_to_noise_and_again_to_the_same_points(name: str) -> None:
    model = MODELS[name]().at(steps=60, sampler="heun")
    x = S * torch.randn(500, *SHAPE)
    z = model.encode(x).detach()
    assert abs(float(z.std()) - 1) < 0.1
    torch.testing.assert_close(model.decode(z), x, rtol=0, atol=2e-3)
    scaled = z.flatten() @ x.flatten() / (z.norm() * x.norm())
    assert float(scaled) > 0.9999, "the path of a Gaussian is a scaling"


def test_alphas_bar_end_in_noise_at_every_number_of_levels() -> None:
    for T in (25, 100, 400, 1000, 4000):
        assert alphas_bar(T, "linear")[-1] ** 0.5 < 0.02, T
        assert len(alphas_bar(T, "cosine")) == T
    a = alphas_bar(1000, "linear")
    assert a[0] == 1 - 1e-4, "index 0 has one step of noise"
    assert abs(a[-1] ** 0.5 - 0.0064) < 1e-4
    sigma = [((1 - v) / v) ** 0.5 for v in a]
    assert abs(sigma[0] - 0.0100) < 1e-4
    assert abs(sigma[-1] - 157.4) < 0.1


class Batches:
    """Noise and batches of a training step."""

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        self.x, self.y, self.batch, self.position = x, y, len(x), 0
        self.generator = torch.Generator().manual_seed(0)

    def __next__(self) -> Images:
        return Images(self.x, self.y)

    def randn(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator)

    def rand(self, *size: int) -> Tensor:
        return torch.rand(*size, generator=self.generator)

    def scalar(self, schedule: Callable[[int], float]) -> Tensor:
        return torch.tensor(schedule(self.position))


@torch.no_grad()
def loss_of(model: DiffusionModel, data: Batches) -> float:
    return float(model.step(data, lambda group, loss: None)["loss/F"])  # type: ignore[arg-type]


def test_the_loss_of_a_net_that_says_nothing_is_the_power_of_its_target() -> None:
    x = S * torch.randn(20_000, *SHAPE)
    zero = lambda times=1: Exact(lambda x, c: 0 * x, times)  # noqa: E731
    assert abs(loss_of(DDPM(zero(), shape=SHAPE), Batches(x)) - 1) < 0.02, "ε"
    assert abs(loss_of(RectifiedFlow(zero(), shape=SHAPE), Batches(x)) - (1 + S**2)) < 0.03, "ε − x"
    assert abs(loss_of(EDM(zero(), sigma_data=S, shape=SHAPE), Batches(x)) - 1) < 0.02, "unit variance"
    plain = MeanFlow(zero(2), p=0, shape=SHAPE)
    assert abs(loss_of(plain, Batches(x)) - (1 + S**2)) < 0.03, "no derivative: the velocity"


def test_edm_is_v_prediction_where_sigma_data_is_one() -> None:
    """The weighted loss is the mean squared error of v (Salimans and Ho 2022), and F = −v."""
    x, sigma, eps = torch.randn(5, *SHAPE), torch.tensor([0.1, 0.5, 1, 3, 20.0]), torch.randn(5, *SHAPE)
    s = sigma.view(-1, 1, 1, 1)
    alpha, noise = (1 + s**2).rsqrt(), s * (1 + s**2).rsqrt()
    v = alpha * eps - noise * x
    net = Exact(lambda x, c: x)
    net.predict = lambda inputs, c: -v
    model = EDM(net, sigma_data=1.0, shape=SHAPE)
    torch.testing.assert_close(model.denoise(x + s * eps, sigma), x, rtol=1e-4, atol=1e-4)


def test_mean_flow_learns_the_mean_of_the_velocity() -> None:
    """On points at 0 the mean velocity from t to r is z_t/t for every r: its loss is zero, also with the derivative."""
    model = MeanFlow(Exact(lambda z, t: z / t, times=2), ratio=1.0, shape=SHAPE)
    assert loss_of(model, Batches(torch.zeros(64, *SHAPE))) < 1e-8
    wrong = MeanFlow(Exact(lambda z, t: z, times=2), ratio=1.0, shape=SHAPE)
    assert loss_of(wrong, Batches(torch.zeros(64, *SHAPE))) > 1e-3


def test_the_exact_mean_velocity_of_a_gaussian_is_its_own_target() -> None:
    """The flow of N(0, S²) scales: z_r = z_t s_r/s_t with s_t² = (1−t)² S² + t², so u = z_t (1 − s_r/s_t)/(t − r)."""

    class Mean(Exact):
        def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
            t, gap = (c[:, k].view(-1, 1, 1, 1) for k in (0, 1))
            s_t, s_r = (((1 - time) ** 2 * S**2 + time**2).sqrt() for time in (t, t - gap))
            return x * (1 - s_r / s_t) / gap

    model = MeanFlow(Mean(lambda x, t: x, times=2), shape=SHAPE)
    t, r, z = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0.1, 0.5, 0.0]), torch.randn(3, *SHAPE)
    u, target = model._mean_and_target(z, flow_velocity(z, t.view(-1, 1, 1, 1)), t, r, None)
    torch.testing.assert_close(u, target, rtol=1e-4, atol=1e-5)


def test_one_step_of_mean_flow_is_its_box() -> None:
    model = described(MeanFlow(Exact(lambda z, t: 0.25 * z, times=2), shape=SHAPE), "mean_flow")
    z = Noise(int(torch.empty((), dtype=torch.int64).random_(generator=torch.Generator().manual_seed(0))), 5)(0, *SHAPE)
    torch.testing.assert_close(model.sample(5, seed=0), 0.75 * z)
    torch.testing.assert_close(model.sample(5, seed=0, steps=2), 0.875**2 * z)


def test_optimal_transport_shortens_the_paths_and_keeps_labels() -> None:
    pytest.importorskip("scipy")
    x, noise = torch.randn(64, *SHAPE), torch.randn(64, *SHAPE)
    model = RectifiedFlow(MLP(shape=SHAPE), coupling="ot", shape=SHAPE)
    moved = model._coupled(x, noise)
    assert float((moved - x).square().sum()) < 0.8 * float((noise - x).square().sum())
    assert torch.equal(moved.flatten().sort().values, noise.flatten().sort().values), "the same noise in another order"
    assert not model.static
    with pytest.raises(ValueError, match="biases a conditional model"):
        RectifiedFlow(MLP(conditional=True, classes=3, shape=SHAPE), coupling="ot", shape=SHAPE, classes=3)


def test_labels_are_dropped_for_the_null_class_and_guidance_uses_it() -> None:
    model = RectifiedFlow(MLP(conditional=True, classes=3, shape=SHAPE), drop=0.25, shape=SHAPE, classes=3)
    y = torch.arange(3000) % 3
    dropped = model.dropped(y, Batches(torch.zeros(3000, *SHAPE)))  # type: ignore[arg-type]
    assert dropped is not None
    hidden = dropped == 3
    assert 0.2 < float(hidden.float().mean()) < 0.3
    assert torch.equal(dropped[~hidden], y[~hidden])
    described(model, "rectified_flow")
    torch.nn.init.normal_(model.F.last.weight)
    plain = model.sample(6, seed=0)
    assert torch.equal(model.sample(6, seed=0, guidance=1.0), plain)
    assert not torch.allclose(model.sample(6, seed=0, guidance=3.0), plain)
    assert not torch.allclose(model.sample(6, seed=0, y=0), plain)
    row = model.sample(6, seed=0, y=[0, 1, 2], columns=3, guidance=3.0)
    between = model.sample(6, seed=0, y=0, to=2, columns=3, guidance=3.0)  # vectors, of which zeros are the null label
    torch.testing.assert_close(between[[0, 2]], row[[0, 2]])
    shared = model.sample(4, seed=0, y=1, columns=2)
    torch.testing.assert_close(shared[0], shared[1])
    assert not torch.allclose(shared[1], shared[2]), "each row has noise of its own"


def test_the_bound_is_the_entropy_of_the_data_under_an_exact_net() -> None:
    """Points have no grey levels, so the decoder's term is left out; the other terms are known in closed form."""

    class Uncut(RectifiedFlow):
        def last_nats(self, x: Tensor, noisy: Tensor, y: Tensor | None) -> Tensor:
            return torch.zeros(len(x), dtype=torch.float64)

    torch.manual_seed(0)
    model = described(Uncut(Exact(flow_velocity), shape=SHAPE), "rectified_flow")
    x = S * torch.randn(4000, *SHAPE)
    nats = -model.elbo(x, torch.randn).detach()
    levels = torch.tensor(model.elbo_levels, dtype=torch.float64)
    lower, sigma, top = levels[:-1], levels[1:], levels[-1]
    variance = S**2 * sigma**2 / (S**2 + sigma**2)  # of x given its noisy value
    chain = 0.5 * ((lower**-2 - sigma**-2) * variance).sum()
    prior = 0.5 * ((top**2 + S**2) / (top**2 + 1) - 1 + torch.log((top**2 + 1) / top**2))
    assert abs(float(nats.mean()) / 2 - float(chain + prior)) < 0.05
    information = 0.5 * torch.log(1 + S**2 / lower[0] ** 2)
    assert float(information) < float(chain + prior) < float(information) + 0.1, "a bound, tight with many levels"


def test_a_learnt_variance_at_its_lower_bound_is_the_fixed_one_and_at_its_upper_bound_beta() -> None:
    class Pair(protocols.Denoiser):
        """The noise of a zero image, and a share of log β that is the same everywhere."""

        def __init__(self, share: float) -> None:
            super().__init__(heads=2, shape=SHAPE)
            self.share = share

        def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
            return torch.cat([0 * x, torch.full_like(x, 2 * self.share - 1)], 1)

    x = torch.randn(5, *SHAPE)
    models = {share: described(DDPM(Pair(share), shape=SHAPE), "ddpm") for share in (0.0, 1.0)}
    levels = torch.tensor(models[0.0].elbo_levels[400:402]).expand(5, 2).float()
    lower, sigma = levels.unbind(1)
    noisy = x + sigma.view(-1, 1, 1, 1) * torch.randn(5, *SHAPE)
    fixed = DDPM(Exact(lambda x, c: 0 * x), shape=SHAPE).step_nats(x, noisy, lower, sigma, None)
    learnt = {share: model.step_nats(x, noisy, lower, sigma, None) for share, model in models.items()}
    torch.testing.assert_close(learnt[0.0], fixed, rtol=1e-3, atol=1e-6)
    # β/β̃ = (1−ᾱ_t)/(1−ᾱ_s): KL of two numbers each is ½(β̃/β − 1 + ln β/β̃), and the error counts β̃/β times.
    ratio = (1 + lower**-2) / (1 + sigma**-2)
    expected = fixed / ratio + (1 / ratio - 1 + ratio.log())
    torch.testing.assert_close(learnt[1.0], expected.double(), rtol=1e-2, atol=1e-6)


def test_learnt_variance_is_trained_and_between_the_bounds() -> None:
    model = DDPM(MLP(heads=2, shape=SHAPE), shape=SHAPE)
    x = torch.randn(64, *SHAPE).clamp(-1, 1)
    losses: list[Tensor] = []
    model.step(Batches(x), lambda group, loss: losses.append(loss))  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(losses[0], model.F.last.weight)
    assert float(gradient[:2].norm()) > 0, "the mean"
    assert float(gradient[2:].norm()) > 0, "the variance"
    samples = described(model, "ddpm").sample(8, seed=0, sampler="ancestral", steps=5)
    assert torch.isfinite(samples).all()


def test_wrong_options_are_one_line() -> None:
    model = MODELS["rectified_flow"]()
    for options, message in (
        ({"sampler": "heum"}, "did you mean 'heun'"),
        ({"steps": 0}, "steps must be a whole number from 1 to 10000, got 0"),
        ({"steps": 1_000_000}, "steps must be a whole number from 1 to 10000"),
        ({"guidance": 2.0}, "trained without classes"),
        ({"grid": "discrete"}, "unknown grid 'discrete'"),
        ({"step": 3}, "no sampling option 'step'"),
        ({"eta": 2.0}, "eta must be a number from 0 to 1, got 2"),
    ):
        with pytest.raises(LimnerError, match=message):
            model.sample(1, **options)
        with pytest.raises(LimnerError, match=message):
            model.at(**options)
    with pytest.raises(LimnerError, match="sampling has no sampling option 'stepz'; did you mean 'steps'"):
        RectifiedFlow(Exact(flow_velocity), sampling={"stepz": 3}, shape=SHAPE)
    with pytest.raises(LimnerError, match="steps=2000 is more than the 1000"):
        ddpm().sample(1, steps=2000, grid="discrete")
    assert ddpm(sampling={"steps": 7}).sampling.steps == 7


@pytest.mark.parametrize("name", MODELS)
def test_the_density_along_the_probability_flow_is_that_of_the_data(name: str) -> None:
    model, x = MODELS[name]().at(steps=100), S * torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(0))
    exact = torch.distributions.Normal(0.0, S).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x), exact, rtol=0, atol=0.02)
    with torch.inference_mode():
        torch.testing.assert_close(model.log_prob(x[3:5]), model.log_prob(x)[3:5], rtol=0, atol=1e-4)


def test_probes_of_an_image_are_the_same_in_any_batch_and_their_mean_is_the_density() -> None:
    model = described(RectifiedFlow(Exact(flow_velocity), shape=(1, 5, 5)), "rectified_flow").at(steps=50)
    x = S * torch.randn(20, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    whole = model.log_prob(x)
    torch.testing.assert_close(model.log_prob(x[7:9]), whole[7:9], rtol=0, atol=1e-3)
    exact = torch.distributions.Normal(0.0, S).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(whole, exact, rtol=0, atol=0.25)  # the Jacobian is diagonal, where ±1 are exact


@pytest.mark.parametrize("name", MODELS)
def test_points_far_from_the_data_score_low_whatever_is_beside_them(name: str) -> None:
    model = MODELS[name]()
    x = torch.tensor([0.0, 1.0, 3.0]).view(-1, 1, 1, 1) * torch.ones(3, *SHAPE)
    scores = model.score_samples(x)
    assert scores[0] > scores[1] > scores[2]
    torch.testing.assert_close(model.score_samples(x[1:2]), scores[1:2])
