"""The strided 1x1 convolution that picks its pixels first, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from backbones.fusion import fused_copy
from backbones.xception import PickedPointwise


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_it_is_the_strided_convolution_with_its_gradients(size):
    layer = PickedPointwise(5, 6, 2)
    features = torch.randn(2, 5, *size, requires_grad=True)
    ours, theirs = layer(features), F.conv2d(features, layer.weight, stride=2)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    inputs = (features, layer.weight)
    for got, expected in zip(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(theirs, inputs, weights), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_eight_channels_last_survive_the_backward_pass():
    # PyTorch 2.14's own strided convolution ends the process with these shapes.
    layer = PickedPointwise(8, 48, 2).to(memory_format=torch.channels_last)
    for _ in range(3):
        features = torch.randn(2, 8, 128, 128).contiguous(memory_format=torch.channels_last).requires_grad_()
        layer(features).square().sum().backward()
        assert features.grad.isfinite().all()


def test_its_norm_can_be_folded_into_it():
    pair = torch.nn.Sequential(PickedPointwise(5, 6, 2), torch.nn.BatchNorm2d(6)).eval()
    torch.nn.init.normal_(pair[1].bias)
    features = torch.randn(2, 5, 7, 10)
    torch.testing.assert_close(fused_copy(pair)(features), pair(features))
