"""Light-Head R-CNN: the counts of both settings, the stride of the thin map, what the RPN and the head read."""

import pytest
import torch
import torch.nn.functional as F

from backbones import create_backbone
from backbones.cost import measure_cost_by_part
from detect import Target, create_detector, save_detector
from detect.light_head_rcnn import LargeSeparableConv

# By hand: of the large separable convolution 2 * (15 * c5 * C_mid + C_mid + 15 * C_mid * 490 + 490), of the RPN
# 9 * c4 * c + c + 90 * (c + 1), of the head 490 * 2048 + 2048 + 2048 * (81 + 4) + 81 + 4.
HEAD = 1_179_733
COUNTS = {
    "light_head_rcnn_xception145": {"neck": 2_047_828, "rpn": 686_938, "head": HEAD},
    "light_head_rcnn_resnet50": {"neck": 19_493_332, "rpn": 4_765_274, "head": HEAD},
    "light_head_rcnn_resnet101": {"neck": 19_493_332, "rpn": 4_765_274, "head": HEAD},
}
QUICK = {"train_proposals": 100, "train_before_nms": 200, "samples": 32, "test_proposals": 50, "test_before_nms": 100}
TINY = {**QUICK, "backbone": "shufflenet_v2_x0_5", "middle_channels": 8, "fc_channels": 32, "num_classes": 2}


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (2, 3, 80, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "parameters"), COUNTS.items())
def test_parameters(name, parameters):
    with torch.device("meta"):
        detector = create_detector(name)
    found = {part: sum(each.numel() for each in detector.get_submodule(part).parameters()) for part in parameters}
    assert found == parameters
    assert detector.rpn.anchors.per_cell == 15
    assert (detector.sampling.kind, detector.sampling.samples) == ("ohem", 256)
    assert (detector.sampling.proposals, detector.test_proposals) == (2000, 1000)


@pytest.mark.parametrize(("thin_stride", "places"), [(32, 25 * 38), (16, 50 * 75)])
def test_the_cost_of_setting_s_at_both_strides(thin_stride, places):
    """At the paper's 800 x 1200: 1.9 or 7.7 G for the thin map, 1.18 G for 1,000 proposals."""
    with torch.device("meta"):
        detector = create_detector("light_head_rcnn_xception145", thin_stride=thin_stride)
    costs = measure_cost_by_part(detector, detector.input_size, ("neck", "rpn", "head"))
    assert costs["neck"].multiply_adds == places * 2 * 15 * 64 * (576 + 490)
    assert costs["rpn"].multiply_adds == 50 * 75 * (9 * 288 * 256 + 90 * 256)
    assert costs["head"].multiply_adds == 1000 * (490 * 2048 + 2048 * (81 + 4))


def test_the_large_separable_convolution_is_a_dense_one_of_low_rank():
    """Of one channel, k x 1 and 1 x k in a row are the k x k convolution of their outer product."""
    layer = LargeSeparableConv(1, 1, 1, kernel_size=3)
    for weight in (weight for weight in layer.parameters() if weight.ndim == 4):
        torch.nn.init.normal_(weight)
    tall, wide = (each.weight.flatten() for each in layer.tall_first)
    other_wide, other_tall = (each.weight.flatten() for each in layer.wide_first)
    dense = torch.outer(tall, wide) + torch.outer(other_tall, other_wide)
    features = torch.randn(1, 1, 6, 7)
    torch.testing.assert_close(layer(features), F.conv2d(features, dense.view(1, 1, 3, 3), padding=1).relu())


@pytest.mark.parametrize(("thin_stride", "thin_size"), [(32, (3, 4)), (16, (5, 7))])
def test_rpn_reads_c4_and_head_reads_the_thin_map(thin_stride, thin_size, pictures):
    detector = create_detector("light_head_rcnn", thin_stride=thin_stride, **TINY).eval()
    with torch.no_grad():
        middle, coarse = features = detector.backbone(detector.normalize(pictures))
        maps = detector.neck(features)
        assert maps.proposals is middle
        assert middle.shape == (2, 96, 5, 7)
        assert maps.thin.shape == (2, 490, *thin_size)
        raw = detector.forward_features(features, (80, 112))
        changed = detector.forward_features([middle, coarse + 1], (80, 112))
        proposals = detector.rpn.propose(detector.rpn(middle), (80, 112), before=100, count=50)
        pooled = detector.head.align(maps.thin, proposals)
    assert pooled.shape == (2, 50, 10, 7, 7)
    assert raw.boxes.shape == changed.boxes.shape == (2, 50, 4)
    assert (raw.scores - changed.scores).abs().max() > 1e-6


@pytest.mark.parametrize("thin_stride", [32, 16])
def test_a_boxs_features_come_from_its_own_place(thin_stride):
    """The map's stride and the operator's are one: what lights up at a box's place is seen for that box alone."""
    detector = create_detector("light_head_rcnn", thin_stride=thin_stride, **TINY)
    thin = torch.zeros(1, 490, 160 // thin_stride, 160 // thin_stride)
    thin[..., : 64 // thin_stride, : 64 // thin_stride] = 1.0
    pooled = detector.head.align(thin, torch.tensor([[[16.0, 16, 48, 48], [112, 112, 144, 144]]]))
    torch.testing.assert_close(pooled[0, 0], torch.ones(10, 7, 7))
    torch.testing.assert_close(pooled[0, 1], torch.zeros(10, 7, 7))


def test_setting_l_dilates_the_last_stage():
    """ResNet's own dilated form with the same weights gives the same maps, and the plain net's weights fit."""
    detector = create_detector("light_head_rcnn", backbone="resnet18", setting="L", num_classes=2).eval()
    dilated = create_backbone("resnet18", dilate_last=True, out_strides=(16,)).eval()
    dilated.load_state_dict(detector.backbone.state_dict())
    assert create_backbone("resnet18").state_dict().keys() == dilated.state_dict().keys()
    images = torch.randn(1, 3, 80, 112)
    with torch.inference_mode():
        middle, coarse = detector.backbone(images)
        torch.testing.assert_close(dilated(images)[-1], coarse)
    assert [tuple(info) for info in detector.backbone.feature_info] == [(16, 256), (16, 512)]
    assert (middle.shape, coarse.shape) == ((1, 256, 5, 7), (1, 512, 5, 7))


def test_the_boxes_loss_is_doubled(pictures):
    boxes = torch.tensor([[8.0, 8, 60, 50]])
    truth = Target(boxes, torch.tensor([1]), torch.tensor([False]), 1, (80, 112))
    double, single = (create_detector("light_head_rcnn", **TINY, **words) for words in ({}, {"box_weight": 1.0}))
    outputs = double.outputs(pictures, [truth, truth])
    torch.manual_seed(0)
    doubled = double.losses_from(outputs, [truth, truth])
    torch.manual_seed(0)
    plain = single.losses_from(outputs, [truth, truth])
    assert plain["loss_box"] > 0
    torch.testing.assert_close(doubled["loss_box"], 2 * plain["loss_box"])
    torch.testing.assert_close(doubled["loss_class"], plain["loss_class"])


def test_there_and_back_through_a_file(tmp_path, pictures):
    words = {**TINY, "thin_stride": 16, "dilation": 2, "roi_operator": "align_max"}
    detector = create_detector("light_head_rcnn", **words).eval()
    save_detector(detector, tmp_path / "net.safetensors", half=False)
    again = create_detector("light_head_rcnn", weights=tmp_path / "net.safetensors").eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(pictures).scores, detector(pictures).scores, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("light_head_rcnn", {"setting": "l"}, r"setting 'l'.*: it is one of S, L"),
        ("light_head_rcnn", {"thin_stride": 8}, "thin_stride is 8; expected 16 or 32"),
        ("light_head_rcnn", {"dilation": 2}, "dilation is 2, but with thin_stride 32 no stage is dilated"),
        ("light_head_rcnn", {"middle_channels": 0}, "middle_channels is 0; expected at least 1"),
        ("light_head_rcnn", {"kernel_size": 14}, "kernel_size is 14; expected an odd number"),
        ("light_head_rcnn", {"box_weight": 0}, "box_weight is 0; expected a number above 0"),
        ("light_head_rcnn", {"num_classes": 0}, "num_classes is 0"),
        ("light_head_rcnn", {"test_proposals": 0}, "test_proposals is 0"),
        ("light_head_rcnn", {"roi_operator": "aline"}, "it is one of align, align_max, pool"),
        ("light_head_rcnn_resnet50", {"setting": "S"}, "no option 'setting'"),
        ("light_head_rcnn_xception145", {"thin_strides": 16}, "nearest: 'thin_stride'"),
    ],
)
def test_a_wrong_option_is_refused(name, options, words):
    with pytest.raises(ValueError, match=words), torch.device("meta"):
        create_detector(name, **options)
