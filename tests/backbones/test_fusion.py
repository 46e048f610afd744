"""Batch norms folded into convolutions."""

import torch
from torch import nn

from backbones import create_backbone
from backbones.fusion import fused_copy


def _used(module: nn.Module) -> nn.Module:
    """With statistics and scales as after training, in training mode."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.running_mean, part.weight.data, part.bias.data):
                values.normal_(std=0.5)
            part.running_var.uniform_(0.5, 2.0)
    return module.train()


def test_a_backbone_loses_all_its_batch_norms_and_computes_the_same():
    net = _used(create_backbone("snet49"))
    fused = fused_copy(net)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), net.eval()(images), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fused.modules())


def test_the_original_keeps_its_mode_and_its_numbers():
    net = _used(create_backbone("snet49"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fused_copy(net)(torch.randn(1, 3, 64, 64))
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


def test_a_batch_norm_with_no_convolution_before_it_stays():
    net = _used(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))
    fused = fused_copy(net)
    images = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(fused(images), net.eval()(images))
    assert [type(part) for part in fused] == [nn.BatchNorm2d, nn.Conv2d, nn.ReLU, nn.BatchNorm2d]
