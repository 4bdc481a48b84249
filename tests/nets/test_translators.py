"""Facts of the nets of pix2pix and CycleGAN."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limner.nets import patchgan, resnet, unet

PHOTO = (3, 256, 256)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts_are_the_published_ones():
    assert size(unet.Generator(shape=PHOTO, source=PHOTO)) == 54_413_955
    assert size(patchgan.PairDiscriminator(shape=PHOTO, source=PHOTO)) == 2_768_705
    assert size(resnet.Generator(shape=PHOTO, source=PHOTO)) == 11_378_179
    assert size(patchgan.Discriminator(norm="instance", shape=PHOTO)) == 2_764_737


@pytest.mark.parametrize("patch", [1, 16, 34, 70, 142])
def test_a_logit_sees_a_square_of_the_named_side(patch):
    """The receptive field is where the gradient of one logit is not zero."""
    torch.manual_seed(0)
    net = patchgan.Discriminator(width=4, patch=patch, norm="none", shape=(1, 256, 256)).double()
    for p in net.parameters():
        p.data = p.data.abs() + 0.01  # nothing cancels
    x = torch.rand(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    middle = logits.shape[2] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    columns = gradient[0, 0].abs().sum(0).nonzero().flatten()
    assert len(rows) == len(columns) == patch
    assert int(rows[-1] - rows[0]) + 1 == patch


def test_images_too_small_for_a_patch_are_refused_with_a_remedy():
    with pytest.raises(ValueError, match=r"16×16 are too small for patches of 70; use a smaller D\.patch"):
        patchgan.Discriminator(shape=(3, 16, 16))


@pytest.mark.parametrize("kind", [unet, resnet])
@pytest.mark.parametrize("hw", [(37, 53), (64, 16), (16, 16), (65, 9)])
def test_any_size_gives_the_same_size(kind, hw):
    net = kind.Generator(width=4, shape=(3, 32, 32), source=(2, 32, 32)).eval()
    y = net(torch.randn(2, 2, *hw))
    assert y.shape == (2, 3, *hw)
    assert float(y.abs().max()) <= 1


@pytest.mark.parametrize("kind", [unet, resnet])
def test_a_translation_does_not_depend_on_the_batch(kind):
    net = kind.Generator(width=4, dropout=0.0, shape=(3, 32, 32), source=(3, 32, 32)).eval()
    x = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(net(x)[3:4], net(x[3:4]), rtol=1e-4, atol=1e-5)


def test_batch_norm_of_one_image_is_the_same_in_training_and_evaluation():
    """Isola et al. 2017, section 3.4: statistics of the test batch, which is of one picture."""
    net = unet.Generator(width=4, dropout=0.0, shape=(3, 32, 32), source=(3, 32, 32))
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(net.train()(x), net.eval()(x), rtol=1e-4, atol=1e-5)


def test_dropout_is_active_in_evaluation_mode_and_can_be_left_out():
    x = torch.randn(1, 3, 64, 64)
    noisy = unet.Generator(width=4, shape=(3, 64, 64), source=(3, 64, 64)).eval()
    assert not torch.equal(noisy(x), noisy(x))
    still = unet.Generator(width=4, dropout=0.0, shape=(3, 64, 64), source=(3, 64, 64)).eval()
    assert torch.equal(still(x), still(x))


def test_three_maps_of_the_deepest_u_net_have_dropout():
    count = {d: sum("AlwaysOnDropout" in type(m).__name__ for m in unet.Generator(
        4, depth=d, shape=PHOTO, source=PHOTO).modules()) for d in (8, 7, 6, 5)}  # fmt: skip
    assert count == {8: 3, 7: 2, 6: 1, 5: 1}


def test_every_skip_is_used():
    """Each map of the encoder reaches the picture by its own skip: a change of it alone changes the picture."""
    torch.manual_seed(0)
    net = unet.Generator(width=4, dropout=0.0, norm="instance", shape=(3, 32, 32), source=(3, 32, 32)).eval()
    x = torch.randn(1, 3, 32, 32)
    skips = []
    for layer in net.down[:-1]:
        layer.register_forward_hook(lambda module, args, out: skips.append(out) or out)
    net(x)
    y = net(x)
    grads = torch.autograd.grad(y.sum(), skips[-len(net.down) + 1 :])
    assert all(float(g.abs().sum()) > 0 for g in grads)


def test_a_residual_net_starts_near_its_source():
    torch.manual_seed(0)
    net = unet.Generator(width=4, norm="instance", residual=True, shape=(3, 32, 32), source=(4, 32, 32)).eval()
    x = torch.rand(2, 4, 32, 32) * 2 - 1
    assert float((net(x) - x[:, :3]).abs().mean()) < 0.1
    with pytest.raises(ValueError, match="residual=false"):
        unet.Generator(residual=True, shape=(3, 32, 32), source=(1, 32, 32))
