"""ZFNet's deconvnet, the autoencoder and the U-Net against PyTorch's own gradients and hand-computed values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d, max_unpool2d

from onnx_arch.architectures.initialization import randomize
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.architectures.zfnet import Deconvnet, alone, unpool


def tiny(name):
    entry = find_architecture(name)
    module = entry.build(entry.config("tiny")).eval()
    randomize(module, 0)
    return module


def picture(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_zfnet_has_the_map_sizes_of_figure_3():
    config = find_architecture("zfnet").config("published")
    assert [config.map_size(layer) for layer in range(1, 6)] == [55, 13, 13, 13, 6]


@pytest.mark.parametrize("size", [(9, 9), (10, 8), (3, 3), (12, 5)])
def test_unpooling_of_overlapping_windows_is_the_gradient_of_the_pool(size):
    x = picture(2, 3, *size).requires_grad_()
    pooled, switches = max_pool2d(x, 3, 2, ceil_mode=True, return_indices=True)
    signal = picture(*pooled.shape, seed=2)
    (wanted,) = torch.autograd.grad(pooled, x, signal)
    torch.testing.assert_close(unpool(signal, switches, x.shape[-2:]), wanted)


def test_first_layer_projects_to_activation_times_gradient():
    module = tiny("zfnet")
    image = picture(1, 3, 64, 64).requires_grad_()
    for feature in range(4):
        pixels, strengths = Deconvnet(module, 1)(image, torch.tensor([feature]))
        strongest = max_pool2d(module.layers[0].conv(image).relu(), 3, 2, ceil_mode=True)[0, feature].max()
        (gradient,) = torch.autograd.grad(strongest, image)
        assert strengths[0, feature] == strongest
        torch.testing.assert_close(pixels, strongest * gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_deconvnet_is_backpropagation_with_its_own_rule_at_rectifiers(depth):
    """The signal is rectified where backpropagation would stop what was not active; normalisation is passed by."""
    module = tiny("zfnet")
    image, feature = picture(2, 3, 64, 64), torch.tensor([1, 2])
    pixels, strengths = Deconvnet(module, depth)(image, feature)
    x, seen = image, []
    for layer in list(module.layers)[:depth]:
        linear = layer.conv(x.detach().requires_grad_())
        maps = max_pool2d(linear.relu(), 3, 2, ceil_mode=True) if layer.is_pooled else linear.relu()
        seen.append((layer, x))
        x = layer.norm(maps).detach()
    signal = alone(maps.detach(), feature)
    assert torch.equal(strengths, maps.flatten(2).amax(2))
    for layer, entered in reversed(seen):
        given = entered.detach().requires_grad_()
        linear = layer.conv(given)
        if layer.is_pooled:
            before = linear.relu().detach().requires_grad_()
            (signal,) = torch.autograd.grad(max_pool2d(before, 3, 2, ceil_mode=True), before, signal)
        (signal,) = torch.autograd.grad(linear, given, signal.relu())
    torch.testing.assert_close(pixels, signal, rtol=1e-4, atol=1e-5)
    assert pixels.any()


def test_one_activation_is_left_alone():
    maps = torch.tensor([[[[1.0, 5.0]], [[7.0, 2.0]]], [[[3.0, 1.0]], [[0.0, 4.0]]]])
    wanted = torch.tensor([[[[0.0, 5.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 4.0]]]])
    assert torch.equal(alone(maps, torch.tensor([0, 1])), wanted)


def test_decoder_puts_what_it_is_given_where_the_encoder_found_it():
    entry = find_architecture("conv-autoencoder")
    module = entry.build(replace(entry.config("tiny"), channels=(1,), kernel_sizes=(1,), image_size=4)).eval()
    with torch.no_grad():
        for layer in (module.encoder.convs[0], module.decoder.deconvs[0]):
            layer.weight.fill_(2.0)
            layer.bias.zero_()
        image = torch.tensor([[[[1.0, 2, 0, 0], [3, 0, 0, 5], [0, 0, 8, 7], [4, 0, 6, 0]]]])
        wanted = torch.tensor([[[[0.0, 0, 0, 0], [12, 0, 0, 20], [0, 0, 32, 0], [16, 0, 0, 0]]]])
        assert torch.equal(module(image), wanted)


def test_up_step_of_the_unet_unpools_with_its_levels_switches():
    up = tiny("unet").up[0]
    skip = picture(2, 4, 8, 8)
    pooled, switches = max_pool2d(skip, 2, return_indices=True)
    below = picture(*pooled.shape, seed=3)
    with torch.no_grad():
        placed = max_unpool2d(below, switches, 2)
        wanted = up.convs(torch.cat([up.deconv(placed).relu(), skip], 1))
        torch.testing.assert_close(up(below, switches, skip), wanted)


@pytest.mark.parametrize(("name", "multiple"), [("unet", 4), ("conv-autoencoder", 4)])
def test_sizes_that_the_pools_do_not_divide_are_refused(name, multiple):
    module = tiny(name)
    with pytest.raises(RuntimeError, match=f"height and width are multiples of {multiple}"):
        module(torch.zeros(1, 1, multiple, multiple + 2))
