"""A detector under a teacher: opinions on boxes by hand, completed truth, a net's second look, taught pictures."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.testing import assert_close

from compress.distill import Distiller
from compress.hints import Hint
from detect import create_detector, save_detector
from detect.distill import BoxLesson, Judge, ProposalLesson, Taught, box_opinions, complete
from detect.formats.coco import CocoDetection
from detect.formats.taught_pictures import AnsweredPictures, AskedPictures, JoinedTaught, bare_pictures
from detect.results import Detections, DetectorOutputs, Target
from detect.rpn import RPNOutput
from detect.transforms import Resize, SSDAugmentation
from detect.two_stage import TwoStageDetector

OPTIONS: dict[str, Any] = {
    "fc_channels": 32, "rpn_channels": 32, "train_proposals": 60, "samples": 20, "sampling": "random", "num_classes": 2,
}  # fmt: skip


def detector(seed: int, **options: Any) -> TwoStageDetector:
    torch.manual_seed(seed)
    return create_detector("thundernet_snet49", **{**OPTIONS, **options})


def target(boxes: list[list[float]], labels: list[int], crowds: list[bool] | None = None) -> Target:
    is_crowd = torch.tensor(crowds or [False] * len(labels), dtype=torch.bool)
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), is_crowd, 7, (64, 64))


def taught(known: Target, boxes: list[list[float]], scores: list[float], labels: list[int]) -> Taught:
    return Taught(
        known, torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
    )


NOTHING = target([], [])
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
TARGETS = [target([[8.0, 8.0, 40.0, 56.0]], [1]), NOTHING]


def test_opinions_on_proposals_by_hand() -> None:
    """Overlaps of the first box with the proposals: 1, 1/2 (which counts), 0."""
    known = taught(
        NOTHING, [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], [0.6, 0.1, 0.3, 0.9], [0, 1, 0, 1]
    )
    proposals = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [30, 30, 40, 40]])
    expected = torch.tensor([[0.6, 0.1, 0.3], [0.6, 0.1, 0.3], [0.0, 0.0, 1.0]])
    assert_close(box_opinions(proposals, known, 2), expected)
    both = taught(NOTHING, [[0, 0, 10, 10], [0, 0, 10, 10]], [0.9, 0.6], [0, 1])
    assert_close(box_opinions(proposals[:1], both, 2), torch.tensor([[0.6, 0.4, 0.0]]))
    nobody = taught(NOTHING, [], [], [])
    assert_close(box_opinions(proposals, nobody, 2), torch.tensor([[0.0, 0.0, 1.0]] * 3))


def test_the_soft_loss_of_boxes_by_hand() -> None:
    """One class. The student says 1/2; the teacher 0.75 of the first proposal, nothing of the second; padding counts
    nowhere.
    """
    known = taught(NOTHING, [[0, 0, 10, 10]], [0.75], [0])
    proposals = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]]])
    logits = torch.zeros(1, 3, 2)
    nothing = torch.zeros(1, 3)
    outputs = DetectorOutputs(*[nothing] * 3, proposals, nothing, proposals, logits, proposals)
    first, second = 0.75 * math.log(1.5) + 0.25 * math.log(0.5), math.log(2)
    lesson = BoxLesson(1, weight=2.0)
    assert_close(lesson.losses(outputs, [known]), {"loss_soft_class": torch.tensor(2 * (first + second) / 2)})
    assert BoxLesson(1, weight=0.0).losses(outputs, [known]) == {}


def test_sure_boxes_complete_the_truth_and_doubtful_ones_are_ignored() -> None:
    known = target([[0, 0, 20, 20], [40, 40, 60, 60]], [0, 0], [False, True])
    answer = taught(
        known,
        [
            [0, 0, 20, 18],  # the object that is there already
            [0, 0, 20, 18],  # the same place, another class: an object of its own
            [30, 0, 40, 20],  # a new object ...
            [30, 0, 40, 19],  # ... found twice
            [50, 0, 60, 20],  # doubtful
            [2, 2, 10, 10],  # doubtful, but inside an object
            [0, 40, 10, 60],  # too faint to count
            [5, 5, 5, 9],  # no box at all
        ],
        [0.9, 0.8, 0.7, 0.95, 0.3, 0.4, 0.1, 0.99],
        [0, 1, 0, 0, 0, 0, 0, 0],
    )
    found = complete(answer, 0.5, 0.25)
    assert_close(found.boxes[:2], known.boxes)
    assert found.boxes[2:].tolist() == [[30, 0, 40, 19], [0, 0, 20, 18], [50, 0, 60, 20]]
    assert found.labels[2:].tolist() == [0, 1, 0]
    assert found.is_crowd.tolist() == [False, True, False, False, True]
    assert (found.image_id, found.original_size) == (7, (64, 64))
    assert len(complete(answer, None, None).boxes) == 2
    assert complete(answer, 0.5, None).is_crowd.tolist() == [False, True, False, False]
    only_doubt = complete(taught(NOTHING, [[0, 0, 9, 9]], [0.9], [1]), None, 0.25)
    assert only_doubt.is_crowd.tolist() == [True]
    assert_close(complete(taught(TARGETS[0], [], [], []), 0.5, 0.25).boxes, TARGETS[0].boxes)


def test_a_student_learns_from_boxes_that_come_with_the_pictures(tmp_path: Path) -> None:
    student = detector(0)
    answers = [
        taught(TARGETS[0], [[10, 10, 40, 52]], [0.8], [1])._replace(features=(torch.rand(5, 4, 4),)),
        taught(NOTHING, [[30, 30, 60, 60]], [0.9], [0])._replace(features=(torch.rand(5, 4, 4),)),
    ]
    distiller = Distiller(student, None, BoxLesson(2), hints=(Hint("backbone[0]", "990", 5),))
    distiller.train()
    losses = distiller.losses(IMAGES, answers)
    assert set(losses) == {
        "loss_rpn_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_soft_class", "loss_hint_1",
    }  # fmt: skip
    assert all(torch.isfinite(loss) and loss >= 0 for loss in losses.values())
    assert losses["loss_box"] > 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in distiller.parameters())
    with pytest.raises(ValueError, match="came with Target; expected Taught"):
        distiller.losses(IMAGES, TARGETS)
    save_detector(distiller, tmp_path / "student.safetensors")
    loaded = create_detector("thundernet_snet49", weights=tmp_path / "student.safetensors")
    assert_close(loaded.state_dict()["rpn.deltas.weight"], student.rpn.deltas.weight.detach().half().float())
    assert list(loaded.state_dict()) == list(student.state_dict())


def test_any_net_may_give_the_boxes() -> None:
    teacher = detector(1)
    teacher.predict = lambda images, **settings: [  # type: ignore[method-assign]
        Detections(torch.tensor([[8.0, 8.0, 30.0, 30.0]]), torch.tensor([0.9]), torch.tensor([0])) for _ in images
    ]
    lesson = BoxLesson(2)
    answer = lesson.ask(teacher, IMAGES, TARGETS)
    assert [len(known.boxes) for known in lesson.truth(TARGETS, answer)] == [2, 1]


def test_a_net_judges_the_students_own_proposals() -> None:
    """A teacher with the student's weights finds nothing to teach; another one does, and learns nothing."""
    student, teacher = detector(0), detector(1)
    same = copy.deepcopy(student)
    torch.manual_seed(3)
    losses = Distiller(student, same, ProposalLesson(), truth_weight=0.0).eval().losses(IMAGES, TARGETS)
    assert_close(losses["loss_soft_class"].detach(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(losses["loss_soft_objectness"].detach(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.nn.init.normal_(teacher.head.classify.weight)
    distiller = Distiller(
        student, teacher, ProposalLesson(temperature=2.0), hints=(Hint("neck.middle", "neck.middle"),)
    )
    losses = distiller.train().losses(IMAGES, TARGETS)
    assert min(losses["loss_soft_class"], losses["loss_soft_objectness"]) > 1e-4
    sum(losses.values()).backward()
    assert student.head.classify.weight.grad is not None
    assert student.rpn.objectness.weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


class Told(nn.Module):
    """A head that gives these class logits whatever it is shown."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, thin: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits, proposals


def test_the_losses_of_a_second_look_by_hand() -> None:
    """The student says 1/2 throughout. The teacher says 3/4 of the first proposal, 1/2 of the second, and a third is
    padding; of two anchors it holds the first for an object with 3/4, the second with 1/4: 3/4 + 1/2 objects.
    """
    proposals = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]]])
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 8, 16, 16]])
    three, nothing = math.log(3), torch.zeros(1, 3)
    outputs = DetectorOutputs(
        anchors, torch.zeros(1, 2, 2), nothing, proposals, nothing, proposals, torch.zeros(1, 3, 2), proposals
    )
    proposed = RPNOutput(nothing, torch.tensor([[[0.0, three], [three, 0.0]]]), nothing, anchors)
    judge = Judge(proposed, nothing, Told(torch.tensor([[[three, 0.0], [0.0, 0.0], [three, 0.0]]])))
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    losses = ProposalLesson(weight=0.25, objectness_weight=3.0).losses(outputs, judge)
    expected = {
        "loss_soft_class": torch.tensor(0.25 * one / 2), "loss_soft_objectness": torch.tensor(3 * 2 * one / 1.25),
    }  # fmt: skip
    assert_close(losses, expected)
    assert ProposalLesson(weight=0.0, objectness_weight=0.0).losses(outputs, judge) == {}


def test_objectness_is_not_learnt_from_other_anchors() -> None:
    teacher = detector(1, anchor_ratios=[1.0])
    student = detector(0)
    with pytest.raises(ValueError, match=r"the teacher has other anchors \(80, the student 400\).*objectness_weight 0"):
        Distiller(student, teacher, ProposalLesson()).losses(IMAGES, TARGETS)
    losses = Distiller(student, teacher, ProposalLesson(objectness_weight=0)).losses(IMAGES, TARGETS)
    assert "loss_soft_class" in losses
    assert "loss_soft_objectness" not in losses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"object_score": 0}, "object_score is 0; expected above 0"),
        ({"ignore_score": 1.5}, "ignore_score is 1.5"),
        ({"object_score": 0.2, "ignore_score": 0.3}, "ignore_score is 0.3, object_score 0.2; expected no more"),
        ({"temperature": 0}, "temperature is 0"),
        ({"weight": -1}, "soft_weight is -1"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BoxLesson(2, **options)


def results(folder: Path) -> list[dict[str, Any]]:
    """A teacher that sees every object of train shifted by three pixels, the first of them faintly."""
    rows = json.loads((folder / "train.json").read_text())["annotations"]
    return [
        {
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "bbox": [row["bbox"][0] + 3, *row["bbox"][1:]],
            "score": 0.3 if number == 0 else 0.9,
        }
        for number, row in enumerate(rows)
    ]


def test_boxes_of_a_file_go_through_the_transform(tiny_coco: Path) -> None:
    plain = CocoDetection(tiny_coco / "train.json", tiny_coco / "images", transform=Resize((64, 96)))
    rows = [*results(tiny_coco), {"image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "score": 0.5}]
    data = AnsweredPictures(plain, rows, "boxes.json")
    assert len(data) == len(plain)
    assert str(data.report).endswith(f"{len(rows) - 1} boxes of the teacher, 1 of other pictures, categories or places "
                                     "left out")  # fmt: skip
    for index in range(len(plain)):
        (image, known), (expected, truth) = data[index], plain[index]
        assert_close(image, expected)
        assert_close(known.target.boxes, truth.boxes)
        assert_close(known.target.is_crowd, truth.is_crowd)
        shift = torch.tensor([3.0 * 96 / truth.original_size[1], 0.0] * 2)
        assert_close(known.boxes, (truth.boxes + shift).clamp(max=96), atol=1e-3, rtol=0)
        assert_close(known.labels, truth.labels)
        assert known.scores.tolist() == pytest.approx([0.3 if index == 0 else 0.9] * len(known.boxes))
    assert data.labels_per_picture() == plain.labels_per_picture()


def test_boxes_of_a_file_are_mirrored_and_cut_with_their_picture(tiny_coco: Path) -> None:
    augmentation = SSDAugmentation(crop_probability=0, expand_probability=0, flip_probability=1)
    plain = CocoDetection(tiny_coco / "train.json", tiny_coco / "images", transform=augmentation)
    data = AnsweredPictures(plain, results(tiny_coco), "boxes.json")
    _, known = data[0, 5, (160, 120)]
    width = 120
    rows = results(tiny_coco)
    x, y, w, h = rows[0]["bbox"]
    assert_close(known.boxes, torch.tensor([[width - x - w, y, width - x, y + h]], dtype=torch.float32))
    again = data[0, 5, (160, 120)][1]
    assert_close(again.boxes, known.boxes)


@pytest.mark.parametrize(("object_score", "is_object"), [(0.3, True), (0.5, False), (None, False)])
def test_what_the_lesson_takes_for_an_object_is_cut_as_one(
    tmp_path: Path, object_score: float | None, is_object: bool
) -> None:
    """A box of score 0.4 at the left edge, in crops that hold the other one's centre: a sliver of it is no object."""
    Image.new("RGB", (100, 50)).save(tmp_path / "a.png")
    augmentation = SSDAugmentation(
        expand_probability=0, crop_min_overlaps=[0.3], crop_min_side=0.5, crop_aspect=(0.2, 5), flip_probability=0
    )
    plain = bare_pictures(tmp_path, [(1, "person")], transform=augmentation)
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in (([0, 0, 30, 50], 0.4), ([60, 0, 30, 50], 0.9))
    ]
    data = AnsweredPictures(plain, rows, "boxes.json", object_score=object_score)
    lesson = BoxLesson(1, object_score=object_score, ignore_score=0.25)
    widths, found = [], []
    for seed in range(60):
        _, known = data[0, seed, (100, 100)]
        found.append(known.scores.tolist())
        faint = known.boxes[known.scores < 0.5]
        widths += (faint[:, 2] - faint[:, 0]).tolist()
        wanted = lesson.truth(None, [known])[0]
        assert len(wanted.labels) - int(wanted.is_crowd.sum()) == sum(
            object_score is not None and score >= object_score for score in known.scores.tolist()
        )
    assert (min(widths) < 15) != is_object, "whether slivers of the faint box are left"
    if object_score is not None:  # else crops look for none
        assert (pytest.approx([0.4]) in found) == is_object, "whether crops look for the faint box alone"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, "boxes.json has the score 1.5; a teacher's has to be a probability"),
        ({"category_id": 5}, "boxes.json has no box in these pictures"),
    ],
)
def test_results_that_cannot_teach_are_refused(change: dict[str, Any], message: str, tiny_coco: Path) -> None:
    plain = CocoDetection(tiny_coco / "train.json", tiny_coco / "images")
    with pytest.raises(ValueError, match=message):
        AnsweredPictures(plain, [{**row, **change} for row in results(tiny_coco)], "boxes.json")


class Echo:
    """A teacher that says how large a view is and how it was before."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def __call__(self, view: np.ndarray, shown: Any) -> Any:
        self.shown.append(shown)
        height, width = view.shape[:2]
        found = Detections(torch.tensor([[0.0, 0, width, height]]), torch.tensor([0.7]), torch.tensor([1]))
        return type("Answer", (), {"detections": found, "features": (torch.ones(2, 3, 3),)})()


def test_a_teacher_is_asked_about_the_very_view(tiny_coco: Path) -> None:
    plain = CocoDetection(tiny_coco / "train.json", tiny_coco / "images", transform=SSDAugmentation(crop_probability=0))
    bare = bare_pictures(tiny_coco / "images", [(3, "red block"), (7, "blue block")], transform=SSDAugmentation())
    echo = Echo()
    data = JoinedTaught([AskedPictures(plain, echo), AskedPictures(bare, echo)])
    assert len(data) == 8 + 12
    for request in ((0, 1, (64, 96)), (8, 1, (64, 96))):
        image, known = data[request]
        assert image.shape == (3, 64, 96)
        assert known.boxes.tolist() == [[0, 0, 96, 64]]
        assert known.features[0].shape == (2, 3, 3)
    assert_close(data[0, 1, (64, 96)][0], plain[0, 1, (64, 96)][0])
    assert len(data[0, 1, (64, 96)][1].target.boxes) == 1
    assert len(data[8, 1, (64, 96)][1].target.boxes) == 0
    height, width = echo.shown[0]
    assert height / width == pytest.approx(160 / 120, rel=0.02), "the proportion before the picture was stretched"
    assert data.labels_per_picture()[8:] == [set()] * 12
    assert "12 pictures (12 without objects)" in data.report


def test_bare_pictures_that_are_not_there_are_refused(tmp_path: Path, tiny_coco: Path) -> None:
    with pytest.raises(ValueError, match="no pictures in"):
        bare_pictures(tmp_path, [(1, "person")])
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures are not in .*first 'lost.jpg'"):
        bare_pictures(tiny_coco / "images", [(1, "person")], file_names=["blocks_00.jpg", "lost.jpg"])
    with pytest.raises(FileNotFoundError, match="no folder of pictures"):
        bare_pictures(tmp_path / "none", [(1, "person")])


def test_hidden_files_are_no_bare_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg")
    (tmp_path / "._a.jpg").write_bytes(b"what macOS leaves")
    assert bare_pictures(tmp_path, [(1, "person")]).file_names == ("a.jpg",)


def test_features_are_put_together(tiny_coco: Path) -> None:
    maps: list[Tensor] = [torch.rand(2, 3, 3), torch.rand(2, 3, 3)]
    answers = [taught(NOTHING, [], [], [])._replace(features=(each,)) for each in maps]
    assert_close(BoxLesson(2).features(answers), [torch.stack(maps)])
