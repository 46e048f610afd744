"""One backbone pass gives what the two nets give alone; truth may lack boxes or labels; files go there and back."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones import measure_cost, read_metadata
from detect import Target, create_detector, save_detector
from detect.boxes import pairwise_iou
from joint import JointAnswer, JointNet, JointTruth, apart, create_joint, list_joints, save_joint
from joint.deployed import DeployedJoint
from segment import create_segmenter, save_segmenter

NAME = "joint_thundernet_bisenet_snet49"
SMALL = {"fc_channels": 32, "rpn_channels": 32, "train_proposals": 60, "samples": 20, "test_proposals": 20}
CLASSES = {"detector_classes": 2, "segmenter_classes": 3}


def small(name: str = NAME, **more) -> JointNet:
    torch.manual_seed(0)
    return create_joint(name, **CLASSES, detector_options=SMALL, input_size=(64, 96), **more)


@pytest.fixture(scope="module")
def settled() -> JointNet:
    """Statistics of some pictures in its norms, so that features differ from place to place. For `net` alone."""
    made = small()
    with torch.no_grad():
        for _ in range(3):
            made(pictures(4))
    return made.eval()


@pytest.fixture
def net(settled: JointNet) -> JointNet:
    """A copy of its own for each test."""
    return copy.deepcopy(settled)


def pictures(count: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)


def target(*boxes: tuple[int, int, int, int]) -> Target:
    count = len(boxes)
    return Target(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.ones(count, dtype=torch.int64),
        torch.zeros(count, dtype=torch.bool),
        7,
        (64, 96),
    )


def labels() -> torch.Tensor:
    made = torch.zeros(64, 96, dtype=torch.int64)
    made[10:40, 20:60], made[:2] = 2, 255
    return made


@pytest.mark.parametrize("name", [name for name in list_joints() if "net_s" not in name])
def test_every_kind_of_name_gives_boxes_and_logits(name):
    with torch.device("meta"):  # shapes alone: nothing is computed
        found = small(name).eval()(torch.zeros(2, 3, 64, 96))
    assert [each.shape for each in found.detections] == [(2, 20, 4), (2, 20, 2)]
    assert found.logits.shape == (2, 3, 64, 96)


@pytest.mark.parametrize("size", [(64, 96), (80, 48)])
def test_the_answers_are_those_of_the_two_nets_alone(net, size):
    images = pictures(2, *size)
    detector, segmenter = apart(net)
    with torch.inference_mode():
        both, boxes, logits = net(images), detector(images), segmenter(images)
    torch.testing.assert_close(both.detections, boxes)
    torch.testing.assert_close(both.logits, logits)
    assert both.detections.scores.std() > 0


def test_the_backbone_is_run_once_and_paid_once(net):
    detector, segmenter = apart(net)
    joint, *alone, backbone = (
        measure_cost(each, (64, 96)).multiply_adds for each in (net, detector, segmenter, net.backbone)
    )
    assert joint == sum(alone) - backbone


def test_apart_the_two_can_be_saved_and_used_alone(net, tmp_path):
    detector, segmenter = apart(net)
    save_detector(detector, tmp_path / "boxes.safetensors", half=False)
    save_segmenter(segmenter, tmp_path / "pixels.safetensors", half=False)
    images = pictures(1)
    again = (
        create_detector("thundernet_snet49", weights=tmp_path / "boxes.safetensors").eval(),
        create_segmenter("bisenet", weights=tmp_path / "pixels.safetensors").eval(),
    )
    with torch.inference_mode():
        torch.testing.assert_close(again[0](images), net(images).detections)
        torch.testing.assert_close(again[1](images), net(images).logits)
    assert again[0].input_size == again[1].input_size == (64, 96)


def test_losses_are_those_of_the_pictures_that_have_truth(net):
    """Frozen norms: then a picture's losses do not depend on what else is in the batch."""
    images = pictures(4)
    targets, classes = [None, target((4, 4, 40, 40)), None, target()], [labels(), None, labels(), None]
    detector, segmenter = apart(net)
    torch.manual_seed(1)
    both = net.losses(images, JointTruth(targets, classes))
    torch.manual_seed(1)
    boxes = detector.losses(images[[1, 3]], [targets[1], targets[3]])
    pixels = segmenter.losses(images[[0, 2]], torch.stack([labels(), labels()]))
    assert {name.removeprefix("loss_detector_") for name in both if "detector" in name} == {
        name.removeprefix("loss_") for name in boxes
    }
    for name, value in boxes.items():
        torch.testing.assert_close(both[f"loss_detector_{name.removeprefix('loss_')}"], value)
    for name, value in pixels.items():
        torch.testing.assert_close(both[f"loss_segmenter_{name.removeprefix('loss_')}"], value)
    assert len(both) == len(boxes) + len(pixels)


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        (JointTruth(targets=[target((4, 4, 40, 40)), None]), "detector"),
        (JointTruth(labels=torch.stack([labels(), labels()])), "segmenter"),
        (JointTruth([None, None], [labels(), labels()]), "segmenter"),
    ],
    ids=["boxes", "stacked labels", "labels"],
)
def test_a_batch_may_lack_one_kind_of_truth(truth, kind):
    net = small().train()
    losses = net.losses(pictures(2), truth)
    assert losses
    assert all(name.startswith(f"loss_{kind}_") and torch.isfinite(value) for name, value in losses.items())
    sum(losses.values()).backward()
    learns = {(name.split(".")[0], value.grad is not None) for name, value in net.named_parameters()}
    assert learns == {("backbone", True), (kind, True), (_other(kind), False)}


def test_every_parameter_learns():
    net = small(segmenter_options={"pixels": "all"}).train()
    truth = JointTruth([target((4, 4, 40, 40)), target((50, 8, 90, 60))], [labels(), labels()])
    sum(net.losses(pictures(2), truth).values()).backward()
    assert [name for name, value in net.named_parameters() if value.grad is None] == []


def test_the_segmenters_losses_are_weighed(net):
    truth = JointTruth(labels=[labels(), labels()])
    images = pictures(2)
    light = net.losses(images, truth)
    net.segmenter_weight = 0.25
    heavy = net.losses(images, truth)
    for name, value in light.items():
        torch.testing.assert_close(heavy[name], 0.25 * value)


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (JointTruth(), "no picture of the batch has boxes or labels"),
        (JointTruth([None, None], [None, None]), "no picture of the batch has boxes or labels"),
        (JointTruth([target()], None), "1 targets came with 2 pictures"),
        (JointTruth(None, [labels()] * 3), "3 labels came with 2 pictures"),
        (JointTruth(None, [labels()[:32]] * 2), "labels are torch.int64 \\[2, 32, 96\\]"),
    ],
)
def test_truth_that_does_not_fit_is_refused(net, truth, words):
    with pytest.raises(ValueError, match=words):
        net.losses(pictures(2), truth)


def test_predict_gives_objects_and_labels_and_leaves_the_mode(net):
    net.train()
    net.backbone.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    answers = net.predict(pictures(2), scores=True, score_threshold=0.0, suppression="hard")
    assert net.detector.training
    assert not net.backbone.training
    net.eval()
    torch.testing.assert_close(dict(net.state_dict()), before)
    assert [type(answer) for answer in answers] == [JointAnswer] * 2
    for answer in answers:
        assert len(answer.detections) > 0
        torch.testing.assert_close(answer.segmentation.scores.argmax(0), answer.segmentation.labels)


@pytest.mark.parametrize("keep_scores", [False, True])
def test_deployed_it_says_what_predict_says(net, keep_scores):
    images = pictures(2)
    boxes, scores, found, counts, classes, *soft = DeployedJoint(
        net, score_threshold=0.2, max_detections=7, keep_scores=keep_scores
    ).eval()(images)
    expected = net.predict(images, scores=True, score_threshold=0.2, max_detections=7, suppression="hard")
    for place, answer in enumerate(expected):
        count = int(counts[place])
        assert count == len(answer.detections) > 0
        torch.testing.assert_close(boxes[place, :count], answer.detections.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(scores[place, :count], answer.detections.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[place, :count], answer.detections.labels)
        assert (classes[place] == answer.segmentation.labels).float().mean() > 0.999
        if keep_scores:
            torch.testing.assert_close(soft[0][place], answer.segmentation.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.export
def test_forward_goes_through_export(net):
    images = pictures(1)
    with torch.no_grad():
        program = torch.export.export(net, (images,)).module()
        torch.testing.assert_close(program(images), net(images), rtol=1e-4, atol=1e-3)


def test_there_and_back_with_options_and_class_names(net, tmp_path):
    path = tmp_path / "joint.safetensors"
    net.detector.class_names, net.segmenter.class_names = ("cat", "dog"), ("ground", "cat", "dog")
    save_joint(net, path, half=False)
    again = create_joint(NAME, weights=path).eval()
    assert (again.detector.class_names, again.segmenter.class_names) == (("cat", "dog"), ("ground", "cat", "dog"))
    assert again.input_size == (64, 96)
    assert again.options == net.options
    images = pictures(1)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), net(images), rtol=0, atol=0)
    larger = create_joint(NAME, weights=path, input_size=(128, 96), detector_options={"test_proposals": 9}).eval()
    assert (larger.input_size, larger.detector.test_proposals) == ((128, 96), 9)


def test_two_files_that_share_a_backbone_become_one_net(tmp_path):
    detector = create_detector("thundernet_snet49", num_classes=2, input_size=(96, 96), rpn_positive_iou=0.6, **SMALL)
    segmenter = create_segmenter("bisenet", backbone="snet49", num_classes=3, pixels="all")
    detector.class_names = ("cat", "dog")
    save_detector(detector, tmp_path / "boxes.safetensors", half=False)
    save_segmenter(segmenter, tmp_path / "pixels.safetensors", half=False)
    files = {"detector_weights": tmp_path / "boxes.safetensors", "segmenter_weights": tmp_path / "pixels.safetensors"}
    for owner, other in (("detector", segmenter), ("segmenter", detector)):
        net = create_joint("joint", segmenter="bisenet", backbone="snet49", backbone_of=owner, **files)
        kept = {"detector": detector, "segmenter": segmenter}[owner]
        torch.testing.assert_close(dict(net.backbone.state_dict()), dict(kept.backbone.state_dict()))
        own, theirs = (dict(part.state_dict()) for part in (getattr(net, _other(owner)), other))
        torch.testing.assert_close(own, {name: theirs[name] for name in own})
        assert net.detector.class_names == ("cat", "dog")
        assert (net.input_size, net.detector.rpn_positive_iou, net.segmenter.loss.pixels) == ((96, 96), 0.6, "all")


@pytest.mark.parametrize("owner", ["detector", "segmenter"])
def test_pictures_are_normalised_as_the_kept_backbone_expects(tmp_path, owner):
    """Its part's file has mean 10 and deviation 20: (50 - 10) / 20 = 2. The other part is as drawn, with ImageNet's."""
    if owner == "detector":
        part, save = create_detector("thundernet_snet49", num_classes=2, **SMALL), save_detector
    else:
        part, save = create_segmenter("bisenet", backbone="snet49", num_classes=3), save_segmenter
    part.mean.fill_(10)
    part.std.fill_(20)
    save(part, tmp_path / "part.safetensors")
    weights = {f"{owner}_weights": tmp_path / "part.safetensors"}
    net = create_joint("joint", backbone="snet49", backbone_of=owner, detector_options=SMALL, **weights)
    grey = torch.full((1, 3, 16, 16), 50, dtype=torch.uint8)
    for each in (net.detector, net.segmenter):
        assert each.normalize(grey)[0, :, 0, 0].tolist() == [2, 2, 2]


def _other(part: str) -> str:
    return "segmenter" if part == "detector" else "detector"


def test_nets_that_read_other_maps_share_what_there_is():
    """DFANet reads strides 4, 8 and 16 of its backbone, ThunderNet 16 and an appended 32."""
    net = create_joint(
        "joint", backbone="xception_a", backbone_options={"attention": False}, segmenter="dfanet_a"
    ).eval()
    assert [info.stride for info in net.backbone.feature_info] == [4, 8, 16, 32]
    detector, segmenter = apart(net)
    images = pictures(1)
    with torch.inference_mode():
        torch.testing.assert_close(net(images).detections, detector(images))
        torch.testing.assert_close(net(images).logits, segmenter(images))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"detector": "light_head_rcnn", "detector_options": {"setting": "L"}}, "the shared backbone gives"),
        ({"segmenter": "bisenet_resnet18"}, "a part is not on snet49: its stages.0.0.weight is"),
        ({"segmenter": "bisnet"}, "no segmenter is called 'bisnet' \\(nearest: 'bisenet'\\)"),
        ({"backbone_of": "neither"}, "expected detector or segmenter"),
        ({"segmenter_weight": 0}, "segmenter_weight is 0"),
        ({"input_size": (100, 96)}, "multiples of 16"),
        ({"detector_options": {"bin": 7}}, "no option 'bin' \\(nearest: 'bins'\\)"),
        ({"detecter": "thundernet"}, "joint has no option 'detecter' \\(nearest: 'detector'\\)"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        create_joint("joint", **options)


def test_a_backbone_that_is_another_function_of_the_same_tensors_is_refused(tmp_path):
    binary = create_detector("thundernet_snet49", num_classes=1)
    binary.binarize_("bwn")
    save_detector(binary, tmp_path / "binary.safetensors")
    with pytest.raises(ValueError, match="the detector's weights are binary"):
        create_joint("joint", backbone="snet49", detector_weights=tmp_path / "binary.safetensors")
    bypass = create_detector("thundernet", backbone="squeezenet1_1", backbone_options={"bypass": "simple"})
    save_detector(bypass, tmp_path / "bypass.safetensors")
    options = {"backbone": "squeezenet1_1", "detector_weights": tmp_path / "bypass.safetensors"}
    with pytest.raises(ValueError, match=r"the detector's backbone has the options \{'bypass': 'simple'\}; expected"):
        create_joint("joint", **options)
    net = create_joint("joint", **options, backbone_options={"bypass": "simple"}).eval()
    images, alone = pictures(1), create_detector("thundernet", weights=tmp_path / "bypass.safetensors").eval()
    with torch.inference_mode():
        torch.testing.assert_close(net(images).detections, alone(images))


def test_weights_that_expect_other_pictures_are_refused(tmp_path):
    detector, segmenter = create_detector("thundernet_snet49"), create_segmenter("bisenet", backbone="snet49")
    segmenter.mean.zero_()
    save_detector(detector, tmp_path / "boxes.safetensors")
    save_segmenter(segmenter, tmp_path / "pixels.safetensors")
    with pytest.raises(
        ValueError, match=r"expect pictures with mean \[123.\d+, 116.\d+, 103.\d+\], the segmenter's \[0.0"
    ):
        create_joint(
            "joint",
            backbone="snet49",
            detector_weights=tmp_path / "boxes.safetensors",
            segmenter_weights=tmp_path / "pixels.safetensors",
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "joint"}, "holds weights of joint, not of joint_thundernet_bisenet_snet49"),
        ({"options": "["}, "is no JSON"),
        ({"options": "{}"}, "expected the builder's own"),
        ({"segmenter_class_names": "[1]"}, "segmenter_class_names \\[1\\]; expected a list of names"),
        ({"detector_class_names": None}, "lacks the class names"),
        ({"detector_class_names": json.dumps(["one"])}, "has shape"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(net, tmp_path, change, words):
    path = tmp_path / "joint.safetensors"
    save_joint(net, path)
    metadata = {name: word for name, word in {**read_metadata(path), **change}.items() if word is not None}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ValueError, match=words):
        create_joint(NAME, weights=path)


def test_a_whole_file_and_a_parts_file_together_are_refused(net, tmp_path):
    save_joint(net, tmp_path / "joint.safetensors")
    with pytest.raises(ValueError, match="came together with detector_weights"):
        create_joint(NAME, weights=tmp_path / "joint.safetensors", detector_weights="person")
    with pytest.raises(ValueError, match="its segmenter has 3 classes, not 5"):
        create_joint(NAME, weights=tmp_path / "joint.safetensors", segmenter_classes=5)
    with pytest.raises(FileNotFoundError, match="shipped for joint_thundernet_bisenet_snet49"):
        create_joint(NAME, weights="nobody")


def test_it_learns_two_pictures_by_heart():
    torch.manual_seed(0)
    net = small(segmenter_options={"pixels": "all"})
    images = torch.full((2, 3, 64, 96), 90, dtype=torch.uint8)
    images[0, :, 8:56, 8:48], images[1, :, 12:60, 40:88] = 220, 220
    truth = JointTruth([target((8, 8, 48, 56)), target((40, 12, 88, 60))], [(one[0] > 100).long() for one in images])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=60)
    for _ in range(60):
        optimizer.zero_grad()
        sum(net.losses(images, truth).values()).backward()
        optimizer.step()
        schedule.step()
    for answer, boxes, classes in zip(net.predict(images), truth.targets, truth.labels, strict=True):
        assert answer.detections.labels[0] == 1
        assert pairwise_iou(answer.detections.boxes[:1], boxes.boxes).item() > 0.6
        assert (answer.segmentation.labels == classes).float().mean() > 0.95


def test_the_shipped_pair_has_the_shipped_detectors_boxes():
    detector, _ = apart(create_joint("joint_thundernet_bisenet_shufflenet_v2_x0_5", weights="person"))
    alone = create_detector("thundernet_shufflenet_v2_x0_5", weights="person").state_dict()
    state = detector.state_dict()
    assert state.keys() == alone.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)
