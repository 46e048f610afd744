"""ThunderNet: the published counts, what every detector promises, and that it learns."""

import pytest
import torch

from backbones import measure_cost, save_weights
from backbones.cost import measure_cost_by_part
from detect import Target, create_detector, list_detectors, save_detector
from detect.losses import head_losses_each
from detect.matching import IGNORED

# Parameters with 80 classes, million multiply-adds at 320: the paper's tables, with halves in the stride-2 units.
COUNTS = {
    "thundernet_snet49": (1_154_199, 263.46),
    "thundernet_snet146": (1_878_519, 502.28),
    "thundernet_snet535": (4_661_115, 1299.26),
}
PARTS_SNET49 = {"backbone": 103.46, "neck": 24.43, "rpn": 42.90, "refine": 25.09, "head": 67.58}
LOSSES = {"loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box"}
QUICK = {"train_proposals": 100, "train_before_nms": 200, "samples": 32, "test_proposals": 50, "test_before_nms": 100}


def make_target(*boxes, crowd=False, label=0):
    tensor = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    count = len(tensor)
    return Target(tensor, torch.full((count,), label), torch.full((count,), crowd), 1, (96, 128))


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


@pytest.mark.parametrize("name", list_detectors())
def test_forward_has_fixed_shapes_and_empty_padding(name, pictures):
    detector = create_detector(name, num_classes=3).eval()
    with torch.inference_mode():
        raw = detector(pictures)
    anchors = 6 * 8 * 25
    assert raw.boxes.shape == (2, min(200, anchors), 4)
    assert raw.scores.shape == (2, min(200, anchors), 3)
    assert (raw.boxes[..., 0::2] <= 128).all()
    assert (raw.boxes[..., 1::2] <= 96).all()
    assert (raw.boxes >= 0).all()


def test_padding_is_all_zero(pictures):
    detector = create_detector("thundernet_snet49", num_classes=3).eval()
    detector.rpn.nms_threshold = 0.05  # so strict that far fewer than 200 are left
    with torch.inference_mode():
        raw = detector(pictures)
    padding = raw.boxes[..., 2] == 0
    assert 0 < padding.sum() < padding.numel()
    assert not raw.boxes[padding].any()
    assert not raw.scores[padding].any()


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (240, 240)])
def test_any_multiple_of_sixteen(size):
    """The paper trains at 240, 320 and 480."""
    detector = create_detector("thundernet_snet49", num_classes=3, **QUICK)
    images = torch.rand(2, 3, *size) * 255
    assert all(torch.isfinite(loss) for loss in detector.losses(images, [make_target([2, 2, 30, 30])] * 2).values())
    boxes = detector.eval()(images).boxes.detach()
    assert boxes.shape[1] == min(QUICK["test_proposals"], QUICK["test_before_nms"])
    assert float(boxes.amax()) <= max(size)


@pytest.mark.parametrize("name", list_detectors())
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
@pytest.mark.parametrize("sampling", ["ohem", "random"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_losses_without_objects(target, sampling, box_loss, pictures):
    detector = create_detector("thundernet_snet49", num_classes=2, sampling=sampling, box_loss=box_loss, **QUICK)
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


@pytest.mark.parametrize("sampling", ["ohem", "random"])
@pytest.mark.parametrize("box_loss", ["smooth_l1", "giou"])
def test_losses_with_everything_ignored(sampling, box_loss, pictures):
    """A crowd that holds even the anchors beyond the edge: not one example is left for any loss."""
    detector = create_detector("thundernet_snet49", num_classes=2, sampling=sampling, box_loss=box_loss, **QUICK)
    losses = detector.losses(pictures, [make_target([-999, -999, 999, 999], crowd=True)] * 2)
    assert all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()


def test_a_net_that_broke_gives_losses_that_say_so_and_no_boxes(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2, **QUICK)
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


@pytest.mark.parametrize("suppression", ["soft", "hard"])
def test_mixed_precision_on_the_processor(suppression, pictures):
    detector = create_detector("thundernet_snet49", num_classes=2, **QUICK)
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


def test_a_picture_does_not_depend_on_its_batch_mates(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2).eval()
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


def test_predicting_leaves_the_mode_and_the_statistics_alone(pictures):
    detector = create_detector("thundernet_snet49", num_classes=2)
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


@pytest.mark.export
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("roi_align", ["operator", "grid_sample"])
def test_forward_goes_through_export(batch, roi_align, pictures):
    detector = create_detector("thundernet_shufflenet_v2_x0_5", num_classes=2, roi_align=roi_align).eval()
    inputs = (pictures[:batch].float(),)
    with torch.inference_mode():
        expected = detector(*inputs)
    exported = torch.export.export(detector, inputs).module()
    found = exported(*inputs)
    torch.testing.assert_close(found[0], expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[1], expected.scores, rtol=1e-4, atol=1e-5)


@pytest.mark.compile
@pytest.mark.parametrize("batch", [1, 2])
def test_forward_compiles_in_one_graph(batch, pictures):
    detector = create_detector("thundernet_shufflenet_v2_x0_5", num_classes=2).eval()
    compiled = torch.compile(detector, fullgraph=True, backend="eager")
    with torch.inference_mode():
        found, expected = compiled(pictures[:batch]), detector(pictures[:batch])
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


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


def test_it_learns_two_pictures_by_heart():
    """COCO's AP of at least 0.9 through `predict` in 200 steps: boxes must be tight as well."""
    torch.manual_seed(0)
    truths = [make_target([12, 20, 60, 84], [70, 10, 120, 50]), make_target([30, 8, 100, 70], label=1)]
    images = torch.full((2, 3, 96, 128), 90, dtype=torch.uint8)
    for image, truth in zip(images, truths, strict=True):
        for (x1, y1, x2, y2), label in zip(truth.boxes.int().tolist(), truth.labels.tolist(), strict=True):
            image[:, y1:y2, x1:x2] = torch.tensor([[200, 60, 40], [40, 80, 210]][label], dtype=torch.uint8).view(
                3, 1, 1
            )
    detector = create_detector("thundernet_snet49", num_classes=2, train_proposals=200, train_before_nms=500)
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=200)
    for _ in range(200):
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
