"""ThunderNet: the published counts, its ablations, its weights files, and what it refuses."""

import pytest
import torch

from backbones import measure_cost, save_weights
from backbones.cost import measure_cost_by_part
from detect import Target, create_detector, save_detector

# Parameters with 80 classes, million multiply-adds at 320: the paper's tables, with halves in the stride-2 units.
COUNTS = {
    "thundernet_snet49": (1_154_199, 263.46),
    "thundernet_snet146": (1_878_519, 502.28),
    "thundernet_snet535": (4_661_115, 1299.26),
}
PARTS_SNET49 = {"backbone": 103.46, "neck": 24.43, "rpn": 42.90, "refine": 25.09, "head": 67.58}
QUICK = {"train_proposals": 100, "train_before_nms": 200, "samples": 32}


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_parameters_and_multiply_adds(name, counts):
    cost = measure_cost(create_detector(name), (320, 320))
    assert cost.parameters == counts[0]
    assert cost.multiply_adds == pytest.approx(counts[1] * 1e6, rel=0.005)


def test_the_cost_of_each_part():
    costs = measure_cost_by_part(create_detector("thundernet_snet49"), (320, 320), tuple(PARTS_SNET49))
    for part, millions in PARTS_SNET49.items():
        assert costs[part].multiply_adds / 1e6 == pytest.approx(millions, abs=0.01), part


# Without CEM stage 4 (147,960) and conv5 (123,904) of SNet49 go as well: nothing reads them. Its 1x1: 120 * 245 + 245.
ABLATIONS = {
    "no context": ({"context_enhancement": False}, {"backbone": 90_684, "neck": 29_645, "refine": 63_210}),
    "no attention": ({"spatial_attention": False}, {"backbone": 362_548, "neck": 281_015, "refine": 0}),
    "neither": (
        {"context_enhancement": False, "spatial_attention": False},
        {"backbone": 90_684, "neck": 29_645, "refine": 0},
    ),
}


@pytest.mark.parametrize(("options", "expected"), ABLATIONS.values(), ids=ABLATIONS)
def test_parts_can_be_left_out(options, expected, pictures):
    detector = create_detector("thundernet_snet49", num_classes=2, **QUICK, **options)
    parameters = dict.fromkeys(expected, 0)
    for name, value in detector.named_parameters():
        parameters[name.split(".")[0]] = parameters.get(name.split(".")[0], 0) + value.numel()
    assert {part: parameters[part] for part in expected} == expected
    truth = Target(torch.tensor([[10.0, 10, 60, 80]]), torch.tensor([1]), torch.tensor([False]), 1, (96, 128))
    sum(detector.losses(pictures, [truth, truth]).values()).backward()
    assert [name for name, value in detector.named_parameters() if value.grad is None] == []
    assert [len(found) for found in detector.predict(pictures, score_threshold=0.0, max_detections=3)] == [3, 3]


@pytest.mark.parametrize(("kernel_size", "parameters"), [(5, 245 * 25), (3, 245 * 9)])
def test_the_rpns_depthwise_kernel(kernel_size, parameters):
    detector = create_detector("thundernet_snet49", rpn_kernel_size=kernel_size)
    assert detector.rpn.trunk[0][0].weight.numel() == parameters
    assert detector.rpn.trunk(torch.zeros(1, 245, 5, 7)).shape == (1, 256, 5, 7)


@pytest.mark.parametrize("roi_operator", ["align", "align_max", "pool"])
def test_the_heads_operator_is_a_choice(roi_operator, pictures):
    torch.manual_seed(0)
    mine = create_detector("thundernet_snet49", num_classes=2, roi_operator=roi_operator).eval()
    torch.manual_seed(0)
    plain = create_detector("thundernet_snet49", num_classes=2).eval()
    with torch.inference_mode():
        differs = bool((mine(pictures).scores - plain(pictures).scores).abs().max() > 1e-6)
    assert differs == (roi_operator != "align")


def test_there_and_back_with_options_and_class_names(tmp_path, pictures):
    detector = create_detector(
        "thundernet_snet49", num_classes=2, anchor_scales=(16, 32, 64), input_size=(96, 128)
    ).eval()
    detector.class_names = ("cat", "dog")
    save_detector(detector, tmp_path / "net.safetensors", half=False)
    other = create_detector("thundernet_snet49", weights=tmp_path / "net.safetensors").eval()
    assert (other.class_names, other.input_size, other.num_classes) == (("cat", "dog"), (96, 128), 2)
    assert other.rpn.anchors.per_cell == 15
    with torch.inference_mode():
        torch.testing.assert_close(other(pictures).scores, detector(pictures).scores, rtol=0, atol=0)


def test_weights_of_another_detector_or_class_count_are_refused(tmp_path):
    detector = create_detector("thundernet_snet49", num_classes=2)
    detector.class_names = ("cat", "dog")
    path = tmp_path / "net.safetensors"
    save_detector(detector, path)
    with pytest.raises(ValueError, match="holds weights of thundernet_snet49, not of thundernet_snet146"):
        create_detector("thundernet_snet146", weights=path)
    with pytest.raises(ValueError, match=r"has 2 classes \(cat, dog\), not 5"):
        create_detector("thundernet_snet49", num_classes=5, weights=path)
    with pytest.raises(FileNotFoundError, match="shipped for thundernet_snet49"):
        create_detector("thundernet_snet49", weights="persn")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampling": "omeh"}, "it is one of ohem, random"),
        ({"roi_operator": "aline"}, "it is one of align, align_max, pool"),
        ({"box_loss": "l1"}, "it is one of smooth_l1, giou"),
        ({"anchor_scale": (16,)}, "nearest: 'anchor_scales'"),
        ({"backbone": "snet146"}, "no option 'backbone'"),
        ({"num_classes": 0}, "num_classes is 0; expected at least 1"),
        ({"anchor_scales": []}, r"anchor_scales is \[\]"),
        ({"anchor_ratios": [0]}, r"anchor_ratios is \[0\]"),
        ({"rpn_kernel_size": 4}, "expected an odd number"),
        ({"bins": 0}, "bins is 0"),
        ({"samples": 0}, "samples of the sampling is 0"),
        ({"positive_fraction": 2.0}, "at most 1"),
        ({"rpn_positive_iou": 0.3, "rpn_negative_iou": 0.7}, "rising"),
        ({"input_size": (330, 330)}, "nearest: 336x336"),
        ({"input_size": (320,)}, "height, width"),
    ],
)
def test_a_wrong_option_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_detector("thundernet_snet49", **options)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"class_names": "[oops"}, "no JSON"),
        ({"class_names": '"person"'}, "expected a list of names"),
        ({"options": "[1]"}, "expected the builder's own"),
        ({"options": '{"foo": 1}'}, "no option 'foo'"),
        ({"options": '{"backbone_weights": "/etc/hostname"}'}, "expected the builder's own"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused_in_one_line(tmp_path, metadata, words):
    path = tmp_path / "odd.safetensors"
    save_weights(create_detector("thundernet_snet49"), path, metadata={"name": "thundernet_snet49", **metadata})
    with pytest.raises(ValueError, match=words) as caught:
        create_detector("thundernet_snet49", weights=path)
    assert "odd.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tensors_without_a_place_are_refused(tmp_path):
    torch.save({**create_detector("thundernet_snet49").state_dict(), "extra": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"more\.pth does not fit thundernet_snet49: extra"):
        create_detector("thundernet_snet49", weights=tmp_path / "more.pth")


def test_what_could_not_be_read_back_is_not_saved(tmp_path):
    mine = create_detector("thundernet_snet49", num_classes=2)
    mine.name = "mine"
    with pytest.raises(ValueError, match="'mine' cannot be made again"):
        save_detector(mine, tmp_path / "a.safetensors")
    named = create_detector("thundernet_snet49", num_classes=2)
    named.class_names = ("cat",)
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        save_detector(named, tmp_path / "b.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_backbone_of_a_detectors_file_keeps_its_normalisation(tmp_path):
    detector = create_detector("thundernet_snet49", num_classes=2)
    detector.mean.fill_(0)
    detector.std.fill_(255)
    save_detector(detector, tmp_path / "bytes.safetensors")
    again = create_detector("thundernet_snet49", weights=tmp_path / "bytes.safetensors")
    finer = create_detector("thundernet_snet49", num_classes=5, backbone_weights=tmp_path / "bytes.safetensors")
    assert again.backbone.input_std == (255.0, 255.0, 255.0)
    torch.testing.assert_close(finer.std, detector.std)
