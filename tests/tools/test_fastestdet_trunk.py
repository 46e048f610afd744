"""A trunk whose norms were folded away gets norms again: the features stay, and it can be trained."""

import pytest
import torch
from PIL import Image
from swiftsight_tools import fastestdet_trunk
from swiftsight_tools.fastestdet_trunk import build_trunk, read_batches, trunk_layers
from torch import nn

from backbones import create_backbone

WIDTHS = {"first_conv": (3, 24), "stage2": (24, 24), "stage3": (48, 48), "stage4": (96, 96)}


def folded_trunk():
    """Random filters and biases under FastestDet's names, with norms that change nothing."""
    state = {}
    for conv, norm in trunk_layers():
        part, *place = conv.split(".")
        before, half = WIDTHS[part]
        is_first, is_side = place[0] == "0", "branch_proj" in place
        if part == "first_conv":
            shape = 24, 3, 3, 3
        elif place[-1] == ("0" if is_side else "3"):
            shape = before if is_side else half, 1, 3, 3
        else:
            shape = half, before if is_first and (is_side or place[-1] == "0") else half, 1, 1
        state[f"{conv}.weight"] = torch.randn(shape) / (shape[1] * shape[2] * shape[3]) ** 0.5
        state[f"{norm}.weight"] = torch.full(shape[:1], (1 + 1e-5) ** 0.5)
        state[f"{norm}.bias"] = torch.randn(shape[0]) * 0.1
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = torch.zeros(shape[0]), torch.ones(shape[0])
    return state


def test_the_features_stay_and_the_norms_know_their_batch(tmp_path):
    state = folded_trunk()
    state["stage2.0.branch_main.0.weight"][3] = 0  # a filter that has died
    torch.save(state, tmp_path / "folded.pth")
    folded = create_backbone("shufflenet_v2_x0_5", weights=tmp_path / "folded.pth").eval()
    images = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    net = build_trunk(state, [images])
    seen = images / 255
    for ours, theirs in zip(net(seen), folded(seen), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    as_known = net(seen)
    for trained, known in zip(net.train()(seen), as_known, strict=True):
        torch.testing.assert_close(trained, known, rtol=1e-2, atol=1e-3)
    lengths = [conv.weight.flatten(1).norm(dim=1) for conv in net.modules() if isinstance(conv, nn.Conv2d)]
    of_all = torch.cat(lengths)
    assert (of_all == 0).sum() == 1
    torch.testing.assert_close(of_all[of_all > 0], torch.full_like(of_all[of_all > 0], 3**-0.5))


def test_hidden_files_are_no_pictures_to_measure_by(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"what macOS leaves")
    assert [batch.shape for batch in read_batches(tmp_path)] == [(1, 3, 352, 352)]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="holds no picture"):
        list(read_batches(tmp_path))


def test_a_trunk_of_another_width_is_refused():
    state = folded_trunk()
    state["stage3.1.branch_main.3.weight"] = state["stage3.1.branch_main.3.weight"][:24]
    with pytest.raises(ValueError, match=r"no trunk of FastestDet: size mismatch for .*: copying"):
        build_trunk(state, [])


@pytest.mark.parametrize("content", [b"no net", b""])
def test_another_file_is_one_line(tmp_path, capsys, content):
    pytest.importorskip("onnx", reason="the extra `fast` is not installed")
    (tmp_path / "some.onnx").write_bytes(content)
    words = [str(tmp_path / "some.onnx"), "--pictures", str(tmp_path), "--output", str(tmp_path / "trunk.safetensors")]
    assert fastestdet_trunk.main(words) == 1
    told = capsys.readouterr().err
    assert "some.onnx is no" in told
    assert told.count("\n") == 1


def test_the_real_file_gives_finite_features(data_dir, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx", reason="the extra `fast` is not installed")
    monkeypatch.setattr(fastestdet_trunk, "PICTURES", 8)
    words = [str(data_dir / "peers" / "fastestdet_352.onnx"), "--pictures", str(data_dir / "coco_mini" / "train2017")]
    path = tmp_path / "trunk.safetensors"
    assert fastestdet_trunk.main([*words, "--output", str(path)]) == 0, capsys.readouterr().err
    net = create_backbone("shufflenet_v2_x0_5", weights=path)
    assert net.input_std == (255.0, 255.0, 255.0)
    variances = torch.cat([norm.running_var for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)])
    assert variances.isfinite().all()
