"""Who answers for which object: a table by hand, crowds, empty ground truth, and what is drawn."""

import torch

from detect.matching import IGNORED, draw_sample, match
from detect.results import Target
from detect.sampling import ProposalSampling, sample_proposals

BOXES = torch.tensor(
    [
        [0.0, 0, 10, 10],  # exactly the first object: IoU 1
        [0, 0, 10, 20],  # IoU 0.5 with the first
        [0, 0, 10, 40],  # IoU 0.25 with the first
        [100, 100, 110, 108],  # IoU 0.4 with the second, the best that it has
        [200, 200, 210, 210],  # nothing
        [50, 50, 60, 60],  # wholly inside the crowd
    ]
)


def make_target(*, crowd=True, objects=True):
    boxes = [[0.0, 0, 10, 10], [100, 100, 110, 120]] if objects else []
    boxes += [[40.0, 40, 80, 80]] if crowd else []
    is_crowd = [False] * (2 if objects else 0) + [True] * crowd
    labels = torch.arange(len(boxes))
    return Target(torch.tensor(boxes).view(-1, 4), labels, torch.tensor(is_crowd, dtype=torch.bool), 1, (300, 300))


def test_the_table_by_hand():
    found = match(BOXES, make_target(), positive_iou=0.7, negative_iou=0.3)
    assert found.is_positive.tolist() == [True, False, False, False, False, False]
    assert found.is_negative.tolist() == [False, False, True, False, True, False]  # 0.5 and 0.4 lie between
    assert found.truth[0] == 0


def test_low_quality_gives_each_object_its_best_box():
    found = match(BOXES, make_target(), positive_iou=0.7, negative_iou=0.3, low_quality=True)
    assert found.is_positive.tolist() == [True, False, False, True, False, False]
    assert found.truth[3] == 1


def test_low_quality_does_not_choose_boxes_without_overlap():
    found = match(BOXES[4:5], make_target(crowd=False), positive_iou=0.7, negative_iou=0.3, low_quality=True)
    assert not found.is_positive.any()


def objects_at(*boxes):
    return Target(torch.tensor(boxes), torch.arange(len(boxes)), torch.zeros(len(boxes), dtype=torch.bool), 1, (99, 99))


def test_a_best_box_of_little_overlap_is_no_background():
    """IoU 10 x 10 / 10 x 50 = 0.2, below what makes background: one example must not have two classes."""
    boxes, target = torch.tensor([[0.0, 0, 10, 50], [0, 0, 10, 80]]), objects_at([0.0, 0, 10, 10])
    found = match(boxes, target, positive_iou=0.7, negative_iou=0.3, low_quality=True)
    assert found.is_positive.tolist() == [True, False]
    assert found.is_negative.tolist() == [False, True]


def test_a_positive_box_stays_with_its_object_where_it_is_the_best_of_another():
    """The second box: IoU 80 / 120 with the first object, 100 / 400 with the second, whose best it is (80 / 420)."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 2, 10, 12]])
    target = objects_at([0.0, 0, 10, 10], [0.0, 2, 10, 42])
    found = match(boxes, target, positive_iou=0.6, negative_iou=0.3, low_quality=True)
    assert found.is_positive.tolist() == [True, True]
    assert found.truth.tolist() == [0, 0]


def test_half_of_a_box_in_a_crowd_makes_it_no_background():
    boxes = torch.tensor([[34.0, 50, 44, 60], [35, 50, 45, 60], [36, 50, 46, 60]])  # 40 %, 50 % and 60 % inside
    found = match(boxes, make_target(), positive_iou=0.7, negative_iou=0.3)
    assert found.is_negative.tolist() == [True, False, False]


def test_indices_point_past_a_crowd_that_stands_first():
    target = make_target()
    first = Target(target.boxes.flip(0), target.labels.flip(0), target.is_crowd.flip(0), 1, (300, 300))
    found = match(BOXES, first, positive_iou=0.7, negative_iou=0.3, low_quality=True)
    assert found.truth[0] == 2
    assert found.truth[3] == 1


def test_without_objects_all_is_background_but_crowds():
    everything = match(BOXES, make_target(crowd=False, objects=False), positive_iou=0.7, negative_iou=0.3)
    assert everything.is_negative.all()
    assert not everything.is_positive.any()
    crowded = match(BOXES, make_target(objects=False), positive_iou=0.7, negative_iou=0.3)
    assert crowded.is_negative.tolist() == [True, True, True, True, True, False]


def test_the_sample_is_filled_up_with_negatives():
    found = match(BOXES.repeat(50, 1), make_target(), positive_iou=0.7, negative_iou=0.3)
    positives, negatives = draw_sample(found, 40, 0.25)
    assert len(positives) == 10
    assert len(negatives) == 30
    assert found.is_positive[positives].all()
    assert found.is_negative[negatives].all()
    few, rest = draw_sample(match(BOXES, make_target(), positive_iou=0.7, negative_iou=0.3), 40, 0.25)
    assert (len(few), len(rest)) == (1, 2)


def test_the_sample_is_drawn_anew_each_time():
    found = match(BOXES.repeat(50, 1), make_target(), positive_iou=0.7, negative_iou=0.3)
    draws = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        draws.append([sorted(places.tolist()) for places in draw_sample(found, 40, 0.25)])
    assert draws[0][0] != draws[1][0]  # 10 of 50 positives
    assert draws[0][1] != draws[1][1]  # 30 of 100 negatives
    assert all(len(set(places)) == len(places) for draw in draws for places in draw)


def head_that_finds_the_last_hardest(proposals):
    """Scores so that a proposal's class loss grows with its place; no box moves."""
    logits = torch.zeros(*proposals.shape[:2], 3)
    logits[..., 0] = torch.arange(proposals.shape[1]).float()
    return logits, torch.zeros_like(proposals)


def test_ohem_keeps_the_hardest():
    target = make_target(crowd=False)._replace(labels=torch.tensor([1, 1]))
    proposals = torch.cat((BOXES[4:5].repeat(30, 1), torch.zeros(4, 4)))[None]  # 30 of background, 4 of padding
    setting = ProposalSampling("ohem", samples=5)
    sample = sample_proposals(
        proposals, [target], 2, setting, head=head_that_finds_the_last_hardest, box_loss="smooth_l1"
    )
    assert sample.labels.shape == (1, 5)
    assert (sample.labels == 2).all()  # background; the two objects stand first and are easiest here
    everything = sample_proposals(
        proposals, [target], 2, ProposalSampling("ohem", samples=99), head=head_that_finds_the_last_hardest,
        box_loss="smooth_l1",
    )  # fmt: skip
    assert everything.labels[0].tolist() == [1, 1] + [2] * 30 + [IGNORED] * 4


def test_ohem_counts_the_box_loss():
    """Of five boxes of one object, the third and the last have a smaller class loss but boxes that are far off."""

    def head(proposals):
        logits, deltas = torch.zeros(1, 5, 3), torch.zeros(1, 5, 4)
        logits[:, [2, 4], 0] = 1.0
        deltas[:, [2, 4], 0] = 10.0
        return logits, deltas

    proposals = torch.tensor([[[0.0, 0, 10, 10 + row] for row in range(4)]])  # the object itself is put before them
    setting = ProposalSampling("ohem", samples=2)
    target = objects_at([0.0, 0, 10, 10])
    sample = sample_proposals(proposals, [target], 2, setting, head=head, box_loss="smooth_l1")
    assert sorted(sample.proposals[0, :, 3].tolist()) == [11, 13]


def test_a_proposal_below_the_positive_overlap_is_background():
    """IoU 0.5, 0.3 and 0.05 with the object, which is a proposal itself."""
    proposals = torch.tensor([[[0.0, 0, 10, 5], [0, 0, 10, 3], [0, 0, 10, 0.5]]])
    sample = sample_proposals(
        proposals, [objects_at([0.0, 0, 10, 10])], 2, ProposalSampling(), head=head_that_finds_the_last_hardest,
        box_loss="smooth_l1",
    )  # fmt: skip
    assert sample.labels[0].tolist() == [0, 0, 2, 2]


def test_random_sampling_keeps_a_quarter_positive_and_pads_the_shorter_picture():
    with_objects = make_target(crowd=False)._replace(labels=torch.tensor([0, 1]))
    without = make_target(crowd=False, objects=False)
    near = BOXES[:1].repeat(20, 1) + torch.rand(20, 4)
    proposals = torch.stack((torch.cat((near, BOXES[4:5].repeat(30, 1))), torch.cat((BOXES[4:5], torch.zeros(49, 4)))))
    setting = ProposalSampling("random", samples=16)
    sample = sample_proposals(
        proposals, [with_objects, without], 2, setting, head=head_that_finds_the_last_hardest, box_loss="smooth_l1"
    )
    assert sample.labels.shape == (2, 16)
    assert ((sample.labels[0] >= 0) & (sample.labels[0] < 2)).sum() == 4
    assert (sample.labels[0] == 2).sum() == 12
    assert sample.labels[1].tolist() == [2] + [IGNORED] * 15
    positive = sample.labels[0] == 0
    torch.testing.assert_close(sample.boxes[0][positive], with_objects.boxes[:1].expand(int(positive.sum()), 4))
