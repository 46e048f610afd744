"""Any backbone under both detectors, built from what the backbone says of itself; also through a weights file."""

import pytest
import torch

from backbones import create_backbone, list_backbones
from detect import Target, create_detector, save_detector

SIZE = (64, 96)


FAMILIES = {
    "thundernet": {"fc_channels": 64},
    # The thin map at stride 16 asks most of a backbone: its last stage must not stride.
    "light_head_rcnn": {"thin_stride": 16, "middle_channels": 8, "rpn_channels": 16, "fc_channels": 64},
}


@pytest.mark.parametrize("name", list_backbones())
@pytest.mark.parametrize("family", FAMILIES)
def test_every_backbone_under_every_detector(family, name):
    detector = create_detector(family, backbone=name, num_classes=3, input_size=SIZE, **FAMILIES[family])
    pictures = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    boxes = torch.tensor([[8.0, 8.0, 60.0, 50.0]])
    truth = Target(boxes, torch.tensor([2]), torch.tensor([False]), 1, SIZE)
    empty = Target(boxes[:0], truth.labels[:0], truth.is_crowd[:0], 2, SIZE)
    losses = detector.losses(pictures, [truth, empty])
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    first = next(detector.backbone.parameters())
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()
    found = detector.eval().predict(pictures, score_threshold=0.0)
    assert [len(detections) > 0 for detections in found] == [True, True]
    assert all(detections.boxes.max() <= max(SIZE) for detections in found)


def test_a_built_backbone_and_a_file_of_one_by_name(tmp_path):
    built = create_detector("thundernet", backbone=create_backbone("resnet18", out_strides=(16, 32)), num_classes=2)
    assert built.backbone.feature_info[-1].channels == 512
    with pytest.raises(ValueError, match=r"^option 'backbone' of thundernet is ResNet, which a file cannot hold"):
        save_detector(built, tmp_path / "built.safetensors")
    named = create_detector("thundernet", backbone="squeezenet1_1", num_classes=2).eval()
    save_detector(named, tmp_path / "squeeze.safetensors", half=False)
    again = create_detector("thundernet", weights=tmp_path / "squeeze.safetensors").eval()
    pictures = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(again(pictures).scores, named(pictures).scores)


def test_options_of_the_backbone_go_along(tmp_path):
    thin = create_detector("thundernet", backbone="mobilenet_v1", backbone_options={"width": 0.3}, num_classes=2).eval()
    assert thin.backbone.feature_info[-1].channels == int(1024 * 0.3)
    save_detector(thin, tmp_path / "thin.safetensors", half=False)
    again = create_detector("thundernet", weights=tmp_path / "thin.safetensors").eval()
    pictures = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(again(pictures).scores, thin(pictures).scores)
    with pytest.raises(ValueError, match=r"mobilenet_v1 has no option 'with' \(nearest: 'width'\)"):
        create_detector("thundernet", backbone="mobilenet_v1", backbone_options={"with": 0.3})
    with pytest.raises(ValueError, match="a built backbone, which has its own"):
        create_detector("thundernet", backbone=create_backbone("snet49"), backbone_options={"width": 0.3})
