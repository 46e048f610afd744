"""What counts as the same answer: rounding at a threshold does, anything else does not."""

import pytest
import torch
from swiftsight_tools.engines.parity import (
    BOX_BOUND,
    SCORE_BOUND,
    BoxAgreement,
    ObjectAgreement,
    PixelAgreement,
    Suppression,
    add_boxes,
    add_objects,
    add_pixels,
)

from detect import Detections, RawDetections

SETTING = Suppression(score_threshold=0.25, iou_threshold=0.5, max_detections=4)
# Two objects, each seen twice, and one far away that scores little; two classes.
BOXES = torch.tensor(
    [[0.0, 0, 40, 40], [2.0, 2, 42, 42], [100.0, 0, 140, 60], [104.0, 0, 144, 60], [200.0, 200, 230, 230]]
)
SCORES = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.1, 0.7], [0.1, 0.6], [0.3, 0.1]])
RAW = RawDetections(BOXES[None], SCORES[None])
RIGHT = ((0, 0), (2, 1), (4, 0))  # row, class


def _found(*chosen: tuple[int, int], boxes: torch.Tensor = BOXES, scores: torch.Tensor = SCORES) -> Detections:
    rows, labels = [row for row, _ in chosen], [label for _, label in chosen]
    return Detections(boxes[rows], scores[rows, labels], torch.tensor(labels, dtype=torch.int64))


def _refusal(found: Detections, raw: RawDetections = RAW, setting: Suppression = SETTING) -> str:
    agreement = BoxAgreement()
    add_boxes(agreement, found, raw, raw, setting)
    return agreement.refusal()


def test_torchs_own_answer_is_right_and_its_figures_are_told():
    agreement = BoxAgreement()
    moved = _found(*RIGHT, boxes=BOXES + BOX_BOUND / 2, scores=SCORES - SCORE_BOUND / 2)
    add_boxes(agreement, moved, RAW, RAW, SETTING)
    assert agreement.refusal() == ""
    assert (agreement.expected, agreement.found, agreement.missing) == (3, 3, 0)
    assert str(agreement) == "3 boxes, at most 0.0250 pixels and 0.000250 in score apart"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (_found(*RIGHT, boxes=BOXES + 3 * BOX_BOUND), "pixels"),
        (_found(*RIGHT, scores=SCORES - 3 * SCORE_BOUND), "in score away"),
        (_found((0, 0), (4, 0)), "2 of 3 boxes that torch finds are missing"),
        (_found((0, 0), (1, 0), (2, 1), (4, 0)), "1 pairs of boxes overlap by more than 0.5"),
        (_found((1, 0), (2, 1), (4, 0)), "1 of 3 boxes that torch finds are missing"),
        (Detections(torch.full((1, 4), float("nan")), torch.ones(1), torch.zeros(1, dtype=torch.int64)), "nan"),
    ],
)  # fmt: skip
def test_a_real_difference_is_named(found, why):
    assert why in _refusal(found)


def test_a_score_on_the_threshold_may_be_in_or_out():
    on_it = SETTING._replace(score_threshold=0.3 + SCORE_BOUND / 2)
    assert _refusal(_found(*RIGHT[:2]), setting=on_it) == ""
    assert _refusal(_found(*RIGHT), setting=SETTING._replace(score_threshold=0.3 - SCORE_BOUND / 2)) == ""
    assert _refusal(_found(*RIGHT[:2]), setting=SETTING._replace(score_threshold=0.29)) != ""


def test_an_overlap_on_the_threshold_may_suppress_or_not():
    overlap = 38 * 38 / (2 * 40 * 40 - 38 * 38)  # of the first two boxes
    on_it = SETTING._replace(iou_threshold=overlap)
    assert _refusal(_found((0, 0), (2, 1), (4, 0)), setting=on_it) == ""
    assert _refusal(_found((0, 0), (1, 0), (2, 1), (4, 0)), setting=on_it) == ""


@pytest.mark.parametrize(("apart", "may_differ"), [(0.004, True), (0.006, False)])
def test_an_overlap_near_the_threshold_is_on_it_as_far_as_rounding_moves_the_sides(apart, may_differ):
    """Both sides of both boxes, 40 long, may move by 0.05: 4 * 0.05 / 40 = 0.005 of an overlap."""
    overlap = 38 * 38 / (2 * 40 * 40 - 38 * 38)  # of the first two boxes
    first_two = RawDetections(BOXES[None, :2], SCORES[None, :2])
    below, above = (SETTING._replace(iou_threshold=overlap + sign * apart) for sign in (-1, 1))
    assert (_refusal(_found((0, 0), (1, 0)), first_two, below) == "") is may_differ  # torch has the first alone
    assert (_refusal(_found((0, 0)), first_two, above) == "") is may_differ  # torch has both


def test_of_two_that_score_the_same_either_may_stay():
    equal = SCORES.clone()
    equal[1, 0] = 0.9
    raw = RawDetections(BOXES[None], equal[None])
    for first in (0, 1):
        assert _refusal(_found((first, 0), (2, 1), (4, 0), scores=equal), raw) == ""


def test_what_does_not_fit_into_a_full_file_is_not_missing():
    full = SETTING._replace(max_detections=2)
    assert _refusal(_found(*RIGHT[:2]), setting=full) == ""
    assert _refusal(_found((0, 0), (4, 0)), setting=full) != ""  # a better one was left out


def test_one_box_in_a_hundred_may_hang_on_a_tie_of_proposals():
    far = torch.arange(200.0)[:, None] * 50 + torch.tensor([0.0, 0, 30, 30])
    raw = RawDetections(far[None], torch.full((1, 200, 1), 0.5))
    setting = SETTING._replace(max_detections=300)
    rows = [(row, 0) for row in range(200)]
    scores = raw.scores[0]
    assert _refusal(_found(*rows[:-2], boxes=far, scores=scores), raw, setting) == ""
    assert "3 of 200" in _refusal(_found(*rows[:-3], boxes=far, scores=scores), raw, setting)


def test_a_box_of_a_proposal_that_torch_suppressed_is_genuine():
    agreement = BoxAgreement()
    raw = RawDetections(BOXES[None, [0, 2, 4]], SCORES[None, [0, 2, 4]])
    add_boxes(agreement, _found(*RIGHT, boxes=BOXES), raw, RAW, SETTING)
    assert agreement.refusal() == ""
    other = BoxAgreement()
    add_boxes(other, _found((1, 0), (2, 1), (4, 0)), raw, raw, SETTING)
    assert "torch does not give" in other.refusal()


def test_int8_files_are_measured_by_the_objects_that_both_find():
    agreement = ObjectAgreement()
    add_objects(agreement, _found((1, 0), (2, 1), (4, 0)), _found(*RIGHT))
    assert (agreement.boxes, agreement.refusal()) == (6, "")
    assert agreement.agreed == pytest.approx(0.8 + 0.7 + 0.3 + 0.9 + 0.7 + 0.3)
    assert agreement.compared == pytest.approx(agreement.agreed)
    add_objects(agreement, _found((0, 0), (2, 1)), _found(*RIGHT))  # without the one that scores least
    assert agreement.refusal() == ""
    assert agreement.compared - agreement.agreed == pytest.approx(0.3)
    add_objects(agreement, _found(), _found(*RIGHT))
    assert agreement.agreed == pytest.approx(3.7 + 3.2)
    assert agreement.compared == pytest.approx(3.7 + 3.5 + 1.9)
    assert agreement.refusal() == "only 75.8% of the 14 best boxes, counted by their scores, are found by both"


def test_pixels_may_differ_where_two_classes_are_as_good_as_each_other():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 40, 50)
    labels = logits.argmax(dim=1).to(torch.uint8)
    logits[0, :, 3, 4] = 1.0
    agreement = PixelAgreement()
    for label in (0, 1, 2):
        labels[0, 3, 4] = label
        add_pixels(agreement, [labels, logits.softmax(dim=1)], logits)
    assert agreement.refusal() == ""
    assert (agreement.pixels, agreement.equal) == (6000, 5998)
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % 3
    add_pixels(agreement, [labels], logits)
    assert agreement.refusal() == "1 of 8000 pixels have another class, though torch's leads clearly"


def test_scores_of_pixels_are_compared_too():
    logits = torch.randn(1, 2, 8, 8)
    agreement = PixelAgreement()
    add_pixels(agreement, [logits.argmax(dim=1), logits.softmax(dim=1) + 0.01], logits)
    assert agreement.refusal() == "scores differ by 0.01000"


def test_int8_labels_have_a_floor():
    logits = torch.zeros(1, 2, 10, 10)
    logits[:, 1] = 1
    agreement = PixelAgreement(floor=0.9)
    labels = torch.ones(1, 10, 10)
    labels[0, 0] = 0
    add_pixels(agreement, [labels], logits)
    assert agreement.refusal() == ""
    labels[0, 1, 0] = 0
    add_pixels(agreement, [labels], logits)
    assert agreement.refusal() == "only 89.500% of 200 pixels have the same class"


def test_int8_labels_may_not_lose_a_class():
    logits = torch.zeros(1, 3, 10, 10)
    logits[:, 0] = 1
    logits[:, 1, :2, :4] = 2  # 8 of 100 pixels
    agreement = PixelAgreement(floor=0.9)
    labels = logits.argmax(dim=1)
    labels[0, 0, :4] = 0
    add_pixels(agreement, [labels], logits)
    assert agreement.refusal() == ""
    labels[0, 1, 0] = 0
    add_pixels(agreement, [labels], logits)
    assert agreement.refusal() == "of the pixels that either calls class 1, only 43.8% both do"


@pytest.mark.parametrize("agreement", [BoxAgreement(), ObjectAgreement()])
def test_where_nothing_was_found_nothing_was_compared(agreement):
    assert agreement.refusal() == ""
    assert str(agreement).startswith("no boxes: torch found none on these pictures")


def test_boxes_of_torchs_that_are_no_numbers_are_refused():
    raw = RAW._replace(scores=RAW.scores * float("nan"))
    with pytest.raises(ValueError, match="torch's own boxes and scores are not all finite"):
        add_boxes(BoxAgreement(), _found(), raw, raw, SETTING)


def test_scores_that_are_no_numbers_are_a_difference_which_stays():
    logits, agreement = torch.randn(1, 2, 8, 8), PixelAgreement()
    labels, scores = logits.argmax(dim=1), logits.softmax(dim=1)
    add_pixels(agreement, [labels, scores * float("nan")], logits)
    add_pixels(agreement, [labels, scores], logits)
    assert agreement.refusal() == "scores differ by nan"
    with pytest.raises(ValueError, match="torch's own scores are not all finite"):
        add_pixels(agreement, [labels, scores], logits * float("nan"))
