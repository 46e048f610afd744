"""The published trunk on its way in, against a plain net written from its own description.

The reference below splits even and odd channels on entry and appends on exit, reads BGR / 255, and uses the file's
tensors as they are: nothing of the conversion is in it.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from backbones import create_backbone, create_classifier
from backbones.checkpoints import convert_shuffle_trunk

WIDTHS = {"stage2": (24, 24, 4), "stage3": (48, 48, 8), "stage4": (96, 96, 4)}  # channels in, half of those out, units


def random_trunk():
    """Tensors of the trunk's names and shapes."""
    state = {}

    def conv_norm(conv, norm, *shape):
        state[f"{conv}.weight"] = torch.randn(shape) / (shape[1] * shape[2] * shape[3]) ** 0.5
        state[f"{norm}.weight"] = torch.rand(shape[0]) + 0.5
        state[f"{norm}.running_var"] = torch.rand(shape[0]) + 0.5
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(shape[0]) * 0.1

    conv_norm("first_conv.0", "first_conv.1", 24, 3, 3, 3)
    for stage, (before, half, units) in WIDTHS.items():
        for unit in range(units):
            main, proj = f"{stage}.{unit}.branch_main", f"{stage}.{unit}.branch_proj"
            conv_norm(f"{main}.0", f"{main}.1", half, before if unit == 0 else half, 1, 1)
            conv_norm(f"{main}.3", f"{main}.4", half, 1, 3, 3)
            conv_norm(f"{main}.5", f"{main}.6", half, half, 1, 1)
            if unit == 0:
                conv_norm(f"{proj}.0", f"{proj}.1", before, 1, 3, 3)
                conv_norm(f"{proj}.2", f"{proj}.3", half, before, 1, 1)
    return state


def plain_trunk(state, pictures_bgr):
    """The trunk as its authors run it: pictures [N, 3, H, W] BGR 0..255 -> one map per stage."""

    def norm(x, name):
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, training=False)

    def pointwise(x, conv, after):
        return F.relu(norm(F.conv2d(x, state[f"{conv}.weight"]), after))

    def depthwise(x, conv, after, stride):
        weight = state[f"{conv}.weight"]
        return norm(F.conv2d(x, weight, stride=stride, padding=1, groups=len(weight)), after)

    def main_branch(x, name, stride):
        x = pointwise(x, f"{name}.0", f"{name}.1")
        x = depthwise(x, f"{name}.3", f"{name}.4", stride)
        return pointwise(x, f"{name}.5", f"{name}.6")

    x = F.conv2d(pictures_bgr / 255, state["first_conv.0.weight"], stride=2, padding=1)
    x = F.max_pool2d(F.relu(norm(x, "first_conv.1")), 3, 2, 1)
    maps = {}
    for stage, (_, _, units) in WIDTHS.items():
        proj = f"{stage}.0.branch_proj"
        shortcut = pointwise(depthwise(x, f"{proj}.0", f"{proj}.1", 2), f"{proj}.2", f"{proj}.3")
        x = torch.cat((shortcut, main_branch(x, f"{stage}.0.branch_main", 2)), dim=1)
        for unit in range(1, units):
            x = torch.cat((x[:, 0::2], main_branch(x[:, 1::2], f"{stage}.{unit}.branch_main", 1)), dim=1)
        maps[stage] = x
    return maps


def random_pictures():
    return torch.randint(0, 256, (2, 3, 96, 64), dtype=torch.uint8)


def assert_same_features(path, pictures):
    """Through the public road: our features from uint8 RGB pictures [N, 3, H, W], theirs from the same in BGR."""
    state = torch.load(path, weights_only=True, map_location="cpu")
    backbone = create_backbone("shufflenet_v2_x0_5", out_strides=(8, 16, 32), weights=path).eval()
    assert (backbone.input_mean, backbone.input_std) == ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    orders = convert_shuffle_trunk(state).channel_orders
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (backbone.input_mean, backbone.input_std))
    with torch.inference_mode():
        ours, theirs = backbone((pictures - mean) / std), plain_trunk(state, pictures.flip(1))
    for feature, (stage, expected) in zip(ours, theirs.items(), strict=True):
        assert sorted(orders[stage].tolist()) == list(range(expected.shape[1]))
        assert expected.std() > 1e-3  # a dead map would agree with anything
        torch.testing.assert_close(feature, expected[:, orders[stage]], rtol=0, atol=1e-4)


def test_a_trunk_of_random_weights_gives_the_same_features(tmp_path):
    torch.manual_seed(0)
    torch.save(random_trunk(), tmp_path / "trunk.pth")
    assert_same_features(tmp_path / "trunk.pth", random_pictures())


def test_the_real_trunk_gives_the_same_features_of_a_real_picture(data_dir):
    trunk = data_dir / "weights" / "shufflenetv2_x0_5_trunk.pth"
    file = min((data_dir / "coco_mini").rglob("*.jpg"))
    with Image.open(file) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None]
    assert_same_features(trunk, pixels)
    assert_same_features(trunk, random_pictures())


def test_all_of_the_real_trunk_is_used(data_dir, caplog):
    create_backbone("shufflenet_v2_x0_5", weights=data_dir / "weights" / "shufflenetv2_x0_5_trunk.pth")
    assert caplog.records == []


def test_the_trunk_of_another_net_is_refused(tmp_path):
    torch.save(random_trunk(), tmp_path / "trunk.pth")
    words = r"trunk\.pth holds shufflenet_v2_x0_5's weights \(FastestDet\), not shufflenet_v2_x1_0's"
    with pytest.raises(ValueError, match=words):
        create_backbone("shufflenet_v2_x1_0", weights=tmp_path / "trunk.pth")


def test_a_classifier_cannot_live_on_a_trunk_alone(tmp_path):
    torch.save(random_trunk(), tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"lacks 7 of 338 tensors, first head\.0\.0\.weight"):
        create_classifier("shufflenet_v2_x0_5", weights=tmp_path / "trunk.pth")


def test_a_trunk_with_a_hole_is_refused(tmp_path):
    state = random_trunk()
    del state["first_conv.1.weight"]
    torch.save(state, tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"trunk\.pth looks like .* not whole: 'first_conv\.1\.weight'"):
        create_backbone("shufflenet_v2_x0_5", weights=tmp_path / "trunk.pth")
