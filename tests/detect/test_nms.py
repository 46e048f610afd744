"""Suppression against plain versions of a few lines."""

import math

import pytest
import torch
import torchvision

from detect.boxes import pairwise_iou
from detect.nms import hard_nms, keep_mask, select_detections, soft_nms
from detect.results import RawDetections


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    return torch.cat((corners, corners + 8 + torch.rand(count, 2, generator=generator) * 40), dim=1)


def plain_soft_nms(boxes, scores, lower):
    """One class: Bodla et al.'s Figure 2, word for word. Returns (box, score) in the order of picking."""
    left = dict(enumerate(scores.tolist()))
    picked = []
    while left:
        best = max(left, key=left.get)
        picked.append((best, left.pop(best)))
        for other in left:
            iou = float(torchvision.ops.box_iou(boxes[best : best + 1], boxes[other : other + 1]))
            left[other] *= lower(iou)
    return picked


@pytest.mark.parametrize(
    ("sigma", "lower"),
    [(None, lambda iou: 1 - iou if iou > 0.5 else 1), (0.5, lambda iou: math.exp(-iou * iou / 0.5))],
    ids=["linear", "gaussian"],
)
def test_soft_nms_equals_the_plain_version_for_each_class(sigma, lower):
    boxes, scores = random_boxes(40), torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    rows, labels, values = soft_nms(boxes, scores, sigma=sigma, score_threshold=0.02, max_detections=1000)
    assert (values.diff() <= 0).all()
    for label in range(3):
        expected = [(box, score) for box, score in plain_soft_nms(boxes, scores[:, label], lower) if score > 0.02]
        assert rows[labels == label].tolist() == [box for box, _ in expected]
        torch.testing.assert_close(values[labels == label], torch.tensor([score for _, score in expected]))


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_many_boxes_and_few(sigma):
    """More boxes than overlaps are worked out for at once; their order does not matter."""
    boxes, scores = random_boxes(300), torch.rand(300, 1, generator=torch.Generator().manual_seed(6))
    lower = (lambda iou: math.exp(-iou * iou / sigma)) if sigma else (lambda iou: 1 - iou if iou > 0.5 else 1)
    expected = [(box, score) for box, score in plain_soft_nms(boxes, scores[:, 0], lower) if score > 0.1]
    rows, _, values = soft_nms(boxes, scores, sigma=sigma, score_threshold=0.1, max_detections=1000)
    assert len(rows) > 20
    assert rows.tolist() == [box for box, _ in expected]
    torch.testing.assert_close(values, torch.tensor([score for _, score in expected]))


def plain_nms(boxes, scores, threshold):
    """One class: the best box left stays, and what overlaps it by more than the threshold goes."""
    left = sorted(range(len(scores)), key=lambda box: -scores[box])
    kept = []
    while left:
        kept.append(left.pop(0))
        best = boxes[kept[-1] : kept[-1] + 1]
        left = [box for box in left if float(torchvision.ops.box_iou(best, boxes[box : box + 1])) <= threshold]
    return kept


def test_hard_nms_equals_the_plain_version_for_each_class():
    boxes, scores = random_boxes(60), torch.rand(60, 3, generator=torch.Generator().manual_seed(7))
    rows, labels, values = hard_nms(boxes, scores, iou_threshold=0.4, score_threshold=0.2, max_detections=1000)
    assert (values.diff() <= 0).all()
    torch.testing.assert_close(values, scores[rows, labels])
    for label in range(3):
        kept = plain_nms(boxes, scores[:, label].tolist(), 0.4)
        expected = [box for box in kept if scores[box, label] > 0.2]
        assert 5 < len(expected) < 60
        assert rows[labels == label].tolist() == expected
    best = hard_nms(boxes, scores, iou_threshold=0.4, score_threshold=0.2, max_detections=10)
    torch.testing.assert_close(best[0], rows[:10])


def test_the_best_hundred_of_all_classes():
    boxes, scores = random_boxes(60), torch.rand(60, 4, generator=torch.Generator().manual_seed(2))
    everything = soft_nms(boxes, scores, score_threshold=0.0, max_detections=10_000)
    best = soft_nms(boxes, scores, score_threshold=0.0, max_detections=100)
    for part, whole in zip(best, everything, strict=True):
        torch.testing.assert_close(part, whole[:100])


def test_soft_nms_by_hand():
    # IoU of the two is 60 / 140 + ... : 10 x 10 against the same shifted by 2: 80 / 120 = 2/3 > 0.5.
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 12, 10]])
    _, _, values = soft_nms(boxes, torch.tensor([[0.9], [0.6]]))
    torch.testing.assert_close(values, torch.tensor([0.9, 0.6 * (1 - 2 / 3)]))


def test_keep_mask_keeps_what_each_pictures_own_suppression_keeps():
    boxes = torch.stack([random_boxes(50, seed) for seed in range(3)])
    scores = torch.rand(3, 50, generator=torch.Generator().manual_seed(3))
    mask = keep_mask(boxes, scores, 0.5)
    for picture in range(3):
        kept = torchvision.ops.nms(boxes[picture], scores[picture], 0.5)
        assert sorted(kept.tolist()) == mask[picture].nonzero().flatten().tolist()
    assert 0 < mask.sum() < mask.numel()


@pytest.mark.compile
def test_the_compiled_form_keeps_the_same():
    boxes = torch.stack([random_boxes(50, seed) for seed in range(2)])
    scores = torch.rand(2, 50, generator=torch.Generator().manual_seed(3))
    compiled = torch.compile(keep_mask, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(boxes, scores, 0.5), keep_mask(boxes, scores, 0.5))


@pytest.mark.parametrize("suppression", ["soft", "gaussian", "hard"])
def test_selection(suppression):
    boxes = torch.stack((random_boxes(30), torch.zeros(30, 4)))
    scores = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(4))
    scores[1] = 0
    found, nothing = select_detections(RawDetections(boxes, scores), suppression=suppression, max_detections=7)
    assert len(found) == 7
    assert (found.scores.diff() <= 0).all()
    assert len(nothing) == 0
    assert nothing.boxes.shape == (0, 4)
    rows = [row for row, label in enumerate(found.labels.tolist()) if label == 1]
    ones = found[found.labels == 1]
    assert 0 < len(rows) < 7
    assert ones.labels.tolist() == [1] * len(rows)
    assert ones.scores.tolist() == [float(found.scores[row]) for row in rows]
    assert ones.boxes.tolist() == [found.boxes[row].tolist() for row in rows]


def test_hard_selection_leaves_no_overlap_within_a_class():
    raw = RawDetections(random_boxes(80)[None], torch.rand(1, 80, 2, generator=torch.Generator().manual_seed(5)))
    (found,) = select_detections(raw, suppression="hard", iou_threshold=0.4)
    same = found.labels[:, None] == found.labels[None]
    ious = pairwise_iou(found.boxes, found.boxes).fill_diagonal_(0)
    assert len(found) > 5
    assert ious[same].max() <= 0.4


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match="'sofft': it is one of soft, gaussian, hard"):
        select_detections(RawDetections(torch.zeros(1, 1, 4), torch.zeros(1, 1, 1)), suppression="sofft")
