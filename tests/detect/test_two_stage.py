"""What every two-stage detector promises: shapes, losses, export, and that it learns."""

import math

import pytest
import torch

from detect import Target, create_detector, list_detectors
from detect.losses import head_losses_each, rpn_losses
from detect.matching import IGNORED
from detect.results import DetectorOutputs

LOSSES = {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}
QUICK = {"train_proposals": 100, "train_before_nms": 200, "samples": 32, "test_proposals": 50, "test_before_nms": 100}
FAMILIES = ("thundernet_snet49", "light_head_rcnn_xception145")
LOSS_CASES = [
    *((FAMILIES[0], sampling, box_loss) for sampling in ("ohem", "random") for box_loss in ("smooth_l1", "giou")),
    (FAMILIES[1], "ohem", "smooth_l1"),
]
LARGE = list_detectors("light_head_rcnn_resnet*")  # seconds to build; test_any_backbone.py has them


def make_target(*boxes, crowd=False, label=0):
    tensor = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    count = len(tensor)
    return Target(tensor, torch.full((count,), label), torch.full((count,), crowd), 1, (96, 128))


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_forward_has_fixed_shapes_inside_the_picture(name, pictures):
    detector = create_detector(name, num_classes=3, test_proposals=200).eval()
    with torch.inference_mode():
        raw = detector(pictures)
    assert raw.boxes.shape == (2, 200, 4)
    assert raw.scores.shape == (2, 200, 3)
    assert (raw.boxes[..., 0::2] <= 128).all()
    assert (raw.boxes[..., 1::2] <= 96).all()
    assert (raw.boxes >= 0).all()


@pytest.mark.parametrize("name", list_detectors())
def test_shapes_without_numbers(name):
    """On the meta device nothing is computed: so the cost of a large picture is counted in no time."""
    with torch.device("meta"):
        detector = create_detector(name, num_classes=3, test_proposals=70)
        raw = detector.eval()(torch.zeros(2, 3, 176, 144))
    assert raw.boxes.shape == (2, 70, 4)
    assert raw.scores.shape == (2, 70, 3)


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_is_all_zero(name, pictures):
    detector = create_detector(name, num_classes=3, test_proposals=200).eval()
    detector.rpn.nms_threshold = 0.05  # so strict that far fewer than 200 are left
    with torch.inference_mode():
        raw = detector(pictures)
    padding = raw.boxes[..., 2] == 0
    assert 0 < padding.sum() < padding.numel()
    assert not raw.boxes[padding].any()
    assert not raw.scores[padding].any()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(32, 32), (64, 160), (240, 240)])
def test_any_multiple_of_sixteen(name, size):
    """ThunderNet's paper trains at 240, 320 and 480."""
    detector = create_detector(name, num_classes=3, **QUICK)
    images = torch.rand(2, 3, *size) * 255
    assert all(torch.isfinite(loss) for loss in detector.losses(images, [make_target([2, 2, 30, 30])] * 2).values())
    boxes = detector.eval()(images).boxes.detach()
    assert boxes.shape[1] == min(QUICK["test_proposals"], QUICK["test_before_nms"])
    assert float(boxes.amax()) <= max(size)


@pytest.mark.parametrize("name", [name for name in list_detectors() if name not in LARGE])
def test_losses_are_finite_and_every_parameter_learns(name, pictures):
    detector = create_detector(name, num_classes=3, **QUICK)
    losses = detector.losses(pictures, [make_target([10, 10, 60, 80]), make_target([5, 5, 40, 30], label=2)])
    assert set(losses) == LOSSES
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    untouched = [key for key, value in detector.named_parameters() if value.grad is None or not value.grad.any()]
    assert untouched == []


@pytest.mark.parametrize(
    "target", [make_target(), make_target([0, 0, 128, 96], crowd=True)], ids=["nothing there", "all of it a crowd"]
)
@pytest.mark.parametrize(("name", "sampling", "box_loss"), LOSS_CASES)
def test_losses_without_objects(name, target, sampling, box_loss, pictures):
    detector = create_detector(name, num_classes=2, sampling=sampling, box_loss=box_loss, **QUICK)
    losses = detector.losses(pictures, [target, target])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_rpn_box"] == 0
    assert losses["loss_box"] == 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("sampling", ["ohem", "random"])
def test_what_lies_in_a_crowd_is_no_ones_example(sampling, pictures):
    detector = create_detector("thundernet_snet49", num_classes=2, sampling=sampling, **QUICK)
    crowded = detector.outputs(pictures, [make_target([0, 0, 128, 96], crowd=True)] * 2)
    assert (crowded.proposal_labels == IGNORED).all()


@pytest.mark.parametrize(("name", "sampling", "box_loss"), LOSS_CASES)
def test_losses_with_everything_ignored(name, sampling, box_loss, pictures):
    """A crowd that holds even the anchors beyond the edge: not one example is left for any loss."""
    detector = create_detector(name, num_classes=2, sampling=sampling, box_loss=box_loss, **QUICK)
    losses = detector.losses(pictures, [make_target([-999, -999, 999, 999], crowd=True)] * 2)
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_net_that_broke_gives_losses_that_say_so_and_no_boxes(name, pictures):
    detector = create_detector(name, num_classes=2, **QUICK)
    torch.nn.init.constant_(detector.rpn.deltas.bias, torch.nan)
    losses = detector.losses(pictures, [make_target([10, 10, 60, 80])] * 2)
    assert not torch.isfinite(losses["loss_rpn_box"])
    assert [len(found) for found in detector.predict(pictures)] == [0, 0]


def test_boxes_without_area_are_no_proposals(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2).eval()
    with torch.no_grad():
        detector.rpn.deltas.weight.zero_()
        detector.rpn.deltas.bias.view(-1, 4)[:, 1] = -50  # far above the picture: clipped, nothing is left of them
        assert not detector(pictures).scores.any()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("suppression", ["soft", "hard"])
def test_mixed_precision_on_the_processor(name, suppression, pictures):
    detector = create_detector(name, num_classes=2, **QUICK)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.losses(pictures, [make_target([10, 10, 60, 80])] * 2)
        found = detector.predict(pictures, score_threshold=0.0, suppression=suppression)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert [one.boxes.dtype for one in found] == [torch.float32] * 2


def test_predicting_leaves_frozen_parts_frozen(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2).train()
    detector.backbone.eval()
    detector.predict(pictures)
    assert not detector.backbone.training
    assert detector.rpn.training


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([make_target([1, 1, 9, 9])], "1 targets came with 2 pictures"),
        ([make_target([1, 1, 9, 9], label=2)] * 2, r"class 2; expected 0\.\.1"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, words, pictures):
    with pytest.raises(ValueError, match=words):
        create_detector("thundernet_snet49", num_classes=2).losses(pictures, targets)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_does_not_depend_on_its_batch_mates(name, pictures):
    detector = create_detector(name, num_classes=2).eval()
    with torch.inference_mode():
        together, alone = detector(pictures), detector(pictures[1:])
    torch.testing.assert_close(together.boxes[1:], alone.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(together.scores[1:], alone.scores, rtol=1e-4, atol=1e-5)


def test_bytes_and_numbers_give_the_same(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2).eval()
    with torch.inference_mode():
        torch.testing.assert_close(detector(pictures).scores, detector(pictures.float()).scores)


@pytest.mark.parametrize(
    ("shape", "words"), [((1, 3, 100, 128), "nearest: 96x128"), ((1, 1, 96, 96), "expected .N, 3, H, W.")]
)
def test_pictures_of_another_shape_are_refused(shape, words):
    with pytest.raises(ValueError, match=words):
        create_detector("thundernet_snet49")(torch.zeros(shape))


@pytest.mark.parametrize("name", FAMILIES)
def test_predicting_leaves_the_mode_and_the_statistics_alone(name, pictures):
    detector = create_detector(name, num_classes=2)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = detector.predict(pictures, score_threshold=0.0, max_detections=5)
    assert detector.training
    assert [len(one) for one in found] == [5, 5]
    for name, value in detector.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_box_loss_counts_positives_only():
    logits, deltas = torch.zeros(1, 3, 3), torch.ones(1, 3, 4)
    proposals = torch.tensor([[[0.0, 0, 10, 10]] * 3])
    labels = torch.tensor([[1, 2, IGNORED]])  # an object, background, neither
    classes, boxes = head_losses_each(logits, deltas, proposals, labels, proposals, box_loss="smooth_l1")
    log3 = 1.0986123
    torch.testing.assert_close(classes, torch.tensor([[log3, log3, 0.0]]))
    torch.testing.assert_close(boxes, torch.tensor([[4 * 0.5, 0.0, 0.0]]))  # |1 - 0| in four places, smooth: 0.5 each


def test_the_giou_loss_weighs_about_what_the_other_does():
    logits, deltas = torch.zeros(1, 1, 2), torch.zeros(1, 1, 4)
    proposals, truth = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[[0.0, 0, 10, 20]]])
    _, boxes = head_losses_each(logits, deltas, proposals, torch.tensor([[0]]), truth, box_loss="giou")
    torch.testing.assert_close(boxes, torch.tensor([[10 * (1 - 100 / 200)]]))  # nothing between the two is empty


def test_the_giou_loss_moves_a_box_by_its_divided_offsets():
    """Half a height down and twice as wide: (0, 5, 20, 15), 50 shared with the truth of 250, in a hull of 20 x 15."""
    logits, deltas = torch.zeros(1, 1, 2), torch.tensor([[[5.0, 5.0, 5 * math.log(2), 0.0]]])
    square = torch.tensor([[[0.0, 0, 10, 10]]])
    _, boxes = head_losses_each(logits, deltas, square, torch.tensor([[0]]), square, box_loss="giou")
    torch.testing.assert_close(boxes, torch.tensor([[10 * (1 - 50 / 250 + 50 / 300)]]))


def test_the_losses_of_three_anchors_by_hand():
    """One positive, 0.2 of its width beside the object; the anchors hold p(object) 3/4, 1/2 and 3/4."""
    anchors = torch.tensor([[2.0, 0, 12, 10], [50, 50, 60, 60], [70, 70, 80, 80]])
    objectness = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0], [0.0, math.log(3)]]])
    deltas = torch.tensor([[[0.8, 0.1, 0.0, 0.0], [9.0] * 4, [9.0] * 4]])  # wrong by 1 and by 0.1
    unused = torch.zeros(1, 0)
    outputs = DetectorOutputs(anchors, objectness, deltas, *[unused] * 5)
    losses = rpn_losses(
        outputs, [make_target([0, 0, 10, 10])], samples=3, positive_fraction=0.5, positive_iou=0.6, negative_iou=0.3
    )
    torch.testing.assert_close(
        losses["loss_rpn_objectness"], torch.tensor((math.log(4 / 3) + math.log(2) + math.log(4)) / 3)
    )
    # Smooth L1 with its bend at 1/9: 1 - 1/18 above it, 9/2 times the square below; over all three, not the positive.
    torch.testing.assert_close(losses["loss_rpn_box"], torch.tensor((17 / 18 + 0.045) / 3))


EXPORTED = [
    *(("thundernet", batch, roi_align) for batch in (1, 2) for roi_align in ("operator", "grid_sample")),
    ("light_head_rcnn", 2, "grid_sample"),
]


@pytest.mark.export
@pytest.mark.parametrize(("family", "batch", "roi_align"), EXPORTED)
def test_forward_goes_through_export(family, batch, roi_align, pictures):
    detector = create_detector(f"{family}_shufflenet_v2_x0_5", num_classes=2, roi_align=roi_align, **QUICK).eval()
    inputs = (pictures[:batch].float(),)
    with torch.inference_mode():
        expected = detector(*inputs)
    exported = torch.export.export(detector, inputs).module()
    found = exported(*inputs)
    torch.testing.assert_close(found[0], expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[1], expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize(("family", "batch"), [("thundernet", 1), ("thundernet", 2), ("light_head_rcnn", 2)])
def test_forward_compiles_in_one_graph(family, batch, pictures):
    detector = create_detector(f"{family}_shufflenet_v2_x0_5", num_classes=2, **QUICK).eval()
    compiled = torch.compile(detector, fullgraph=True, backend="eager")
    with torch.inference_mode():
        found, expected = compiled(pictures[:batch]), detector(pictures[:batch])
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("thundernet_snet49", {}, 200),
        ("light_head_rcnn_xception145", {"middle_channels": 16, "fc_channels": 256, "test_proposals": 100}, 100),
    ],
)
def test_it_learns_two_pictures_by_heart(name, options, steps):
    """COCO's AP of at least 0.9 through `predict`: boxes must be tight as well."""
    torch.manual_seed(0)
    truths = [make_target([12, 20, 60, 84], [70, 10, 120, 50]), make_target([30, 8, 100, 70], label=1)]
    images = torch.full((2, 3, 96, 128), 90, dtype=torch.uint8)
    for image, truth in zip(images, truths, strict=True):
        for (x1, y1, x2, y2), label in zip(truth.boxes.int().tolist(), truth.labels.tolist(), strict=True):
            image[:, y1:y2, x1:x2] = torch.tensor([[200, 60, 40], [40, 80, 210]][label], dtype=torch.uint8).view(
                3, 1, 1
            )
    detector = create_detector(name, num_classes=2, train_proposals=200, train_before_nms=500, **options)
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(detector.losses(images, truths).values()).backward()
        optimizer.step()
        schedule.step()
    assert average_precision(detector.predict(images), truths) >= 0.9


def average_precision(found, truths):
    """COCO's AP through pycocotools."""
    from detect.metrics import coco_results, evaluate_detections

    images, annotations, results = [], [], []
    for number, (detections, truth) in enumerate(zip(found, truths, strict=True), start=1):
        images.append({"id": number, "file_name": f"{number}.png", "width": 128, "height": 96})
        for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True):
            box_xywh, area = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label}
            annotations.append({**annotation, "bbox": box_xywh, "area": area, "iscrowd": 0})
        results += coco_results(detections, number, [0, 1])
    categories = [{"id": label, "name": str(label)} for label in range(2)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    return evaluate_detections(results, truth).figures["AP"]
