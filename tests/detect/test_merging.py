"""Merging of several looks: windows that cover, votes by hand, and objects across the edges of windows."""

import itertools

import pytest
import torch

from detect import merging
from detect.merging import fuse, spread_windows, stitch
from detect.results import Detections


def found(*rows):
    """Rows of (box, score) or (box, score, label) as detections."""
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).view(-1, 4)
    labels = torch.tensor([row[2] if len(row) > 2 else 0 for row in rows], dtype=torch.long)
    return Detections(boxes, torch.tensor([row[1] for row in rows], dtype=torch.float32), labels)


def assert_same(merged, *rows):
    expected = found(*rows)
    torch.testing.assert_close(merged.boxes, expected.boxes)
    torch.testing.assert_close(merged.scores, expected.scores)
    assert merged.labels.tolist() == expected.labels.tolist()


# Windows


@pytest.mark.parametrize("size", [(720, 1280), (100, 2000), (321, 320), (50, 50), (320, 640)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_windows_cover_the_picture_and_share_enough(size, overlap):
    windows = spread_windows(size, (320, 320), overlap)
    seen = torch.zeros(size, dtype=torch.long)
    for left, top, right, bottom in windows:
        assert (bottom - top, right - left) == (min(320, size[0]), min(320, size[1]))
        seen[top:bottom, left:right] += 1
    assert seen.min() == 1 or overlap > 0
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({window[axis] for window in windows})
        assert all(second - first <= 320 * (1 - overlap) for first, second in itertools.pairwise(starts))
    assert len(windows) == len(set(windows))


def test_windows_by_hand():
    assert spread_windows((320, 720), (320, 320), 0.25) == [(0, 0, 320, 320), (200, 0, 520, 320), (400, 0, 720, 320)]
    assert spread_windows((100, 100), (320, 320), 0.25) == [(0, 0, 100, 100)]


def test_far_too_many_windows_are_refused():
    message = "290625 windows of 16 x 16 with overlap 0.99 in a picture of 480 x 640; expected at most 4096"
    with pytest.raises(ValueError, match=message):
        spread_windows((480, 640), (16, 16), 0.99)


# Passes over the same pixels


def test_votes_by_hand():
    # Seen twice: the mean weighted by score, scores averaged. Seen once of two looks: half the score. Of another class,
    # or too far off: an object of its own.
    first = found(([0, 0, 10, 10], 0.9), ([50, 50, 60, 60], 0.4))
    second = found(([0, 0, 10, 12], 0.3), ([0, 0, 10, 10], 0.2, 1))
    assert_same(
        fuse([first, second]),
        ([0, 0, 10, 10.5], 0.6),
        ([50, 50, 60, 60], 0.2),
        ([0, 0, 10, 10], 0.1, 1),
    )


def test_a_look_has_one_vote_for_an_object():
    """What the first look itself told apart stays apart: the second look's box goes to the one it is most like."""
    first = found(([0, 0, 10, 10], 0.9), ([0, 0, 10, 14], 0.8))
    merged = fuse([first, found(([0, 0, 10, 14], 0.4))])
    assert_same(merged, ([0, 0, 10, 14], 0.6), ([0, 0, 10, 10], 0.45))


def test_two_boxes_of_one_look_do_not_join_the_same_object():
    """Both are most like the first look's; the worse one, IoU 0.9, finds its own look there already."""
    merged = fuse([found(([0, 0, 10, 10], 0.9)), found(([0, 0, 10, 10], 0.6), ([0, 0, 10, 9], 0.4))])
    assert_same(merged, ([0, 0, 10, 10], 0.75), ([0, 0, 10, 9], 0.2))


def test_one_look_and_empty_looks():
    one = found(([0, 0, 10, 10], 0.9))
    assert fuse([one]) is one
    assert_same(fuse([one, found()]), ([0, 0, 10, 10], 0.45))
    assert len(fuse([found(), found()])) == 0
    assert len(stitch([found(), found()], [(0, 0, 10, 10), (5, 0, 15, 10)], (10, 15))) == 0


# Windows with an overlap from x = 80 to 100, beside the whole picture of 180 x 100

SIZE = (100, 180)
LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)


def test_an_object_in_the_overlap_is_one_object():
    seen = [found(([84, 10, 95, 40], 0.6)), found(([84, 10, 97, 40], 0.3))]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([84, 10, 95 + 2 / 3, 40], 0.6))


def test_halves_are_joined():
    seen = [found(([60, 10, 100, 40], 0.6)), found(([80, 12, 150, 40], 0.7))]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([60, 10, 150, 40], 0.7))


def test_a_half_gives_way_to_the_whole():
    seen = [found(([60, 10, 151, 40], 0.5)), found(([60, 10, 99, 41], 0.9)), found(([81, 9, 150, 40], 0.8))]
    assert_same(stitch(seen, [WHOLE, LEFT, RIGHT], SIZE), ([60, 10, 151, 40], 0.9))


def test_the_finer_look_says_where_an_object_lies():
    """The whole picture has 1.8 times a window's pixels, so its vote weighs 1 / 1.8."""
    seen = [found(([10, 10, 30, 30], 0.9)), found(([12, 10, 30, 30], 0.9)), found()]
    start = (10 / 1.8 + 12) / (1 / 1.8 + 1)
    assert_same(stitch(seen, [WHOLE, LEFT, RIGHT], SIZE), ([start, 10, 30, 30], 0.9))


def test_a_half_that_looks_whole_does_not_shrink_the_whole():
    """The right window's box ends short of its edge; by way of the left window's half it joins the object."""
    seen = [
        found(([20, 10, 150, 90], 0.9)),
        found(([20, 10, 100, 90], 0.8)),
        found(([84, 10, 150, 90], 0.85)),
    ]
    assert_same(stitch(seen, [WHOLE, LEFT, RIGHT], SIZE), ([20, 10, 150, 90], 0.9))


def test_many_boxes_are_compared_block_by_block(monkeypatch):
    """The pairs, and their order, do not depend on how many boxes are taken at a time."""
    places = torch.rand(60, 2, generator=torch.Generator().manual_seed(0)) * 40
    rows = [([x, y, x + 20, y + 20], 0.9 - place / 100, place % 2) for place, (x, y) in enumerate(places.tolist())]
    looks = [found(*rows[start::3]) for start in range(3)]
    at_once = merging._Pool(looks).rivals()
    monkeypatch.setattr(merging, "_BLOCK", 7)
    assert len(at_once[0]) > 100
    assert [pairs.tolist() for pairs in merging._Pool(looks).rivals()] == [pairs.tolist() for pairs in at_once]


def test_a_half_that_nobody_confirms_is_left_out():
    seen = [found(([60, 10, 100, 40], 0.9), ([10, 10, 30, 30], 0.5)), found()]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([10, 10, 30, 30], 0.5))


def test_an_object_that_ends_at_the_picture_is_not_cut():
    seen = [found(([0, 0, 30, 100], 0.9)), found(([150, 0, 180, 100], 0.8))]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([0, 0, 30, 100], 0.9), ([150, 0, 180, 100], 0.8))


def test_neighbours_whose_ends_share_a_strip_stay_two():
    """Both are whole, and in the strip that both windows show they look alike; but they are two objects."""
    seen = [found(([20, 10, 90, 40], 0.9)), found(([83, 10, 150, 40], 0.8))]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([20, 10, 90, 40], 0.9), ([83, 10, 150, 40], 0.8))


def test_a_child_before_its_parent_stays():
    """Inside the other's box, but whole: no part of it."""
    seen = [found(([60, 10, 150, 90], 0.9)), found(([84, 50, 97, 90], 0.6)), found(([85, 50, 97, 90], 0.3))]
    merged = stitch(seen, [WHOLE, LEFT, RIGHT], SIZE)
    assert_same(merged, ([60, 10, 150, 90], 0.9), ([84 + 1 / 3, 50, 97, 90], 0.6))


def test_classes_are_merged_apart():
    seen = [found(([60, 10, 100, 40], 0.6, 1)), found(([80, 10, 150, 40], 0.7, 2), ([81, 10, 150, 40], 0.4, 1))]
    assert_same(stitch(seen, [LEFT, RIGHT], SIZE), ([60, 10, 150, 40], 0.6, 1))


def test_four_corners_of_one_object():
    windows = [(0, 0, 100, 100), (80, 0, 180, 100), (0, 80, 100, 180), (80, 80, 180, 180)]
    seen = [
        found(([40, 40, 100, 100], 0.9)),
        found(([80, 40, 140, 100], 0.8)),
        found(([40, 80, 100, 140], 0.7)),
        found(([80, 80, 140, 140], 0.6)),
    ]
    assert_same(stitch(seen, windows, (180, 180)), ([40, 40, 140, 140], 0.9))


@pytest.mark.parametrize("shift", range(0, 60, 4))
def test_wherever_an_object_lies_it_is_found_once_and_whole(shift):
    """A perfect finder that sees what a window shows: all objects come out once, with their own boxes, but for those
    that no window shows whole, which come out as wide as they are.
    """
    windows = spread_windows((200, 300), (100, 100), 0.25)
    objects = [
        [5 + shift, 10, 45 + shift, 60],
        [130 + shift, 90, 150 + shift, 115],
        [60, 130 + shift, 200, 140 + shift],
    ]
    seen = []
    for left, top, right, bottom in windows:
        boxes = torch.tensor(objects, dtype=torch.float32)
        low, high = torch.tensor([left, top]), torch.tensor([right, bottom])
        inside = torch.cat((boxes[:, :2].clamp(low, high), boxes[:, 2:].clamp(low, high)), dim=1)
        is_seen = ((inside[:, 2:] - inside[:, :2]) > 3).all(dim=1)
        seen.append(found(*((box.tolist(), 0.9) for box in inside[is_seen])))
    merged = stitch(seen, windows, (200, 300))
    rounded = (merged.boxes * 100).round() / 100
    torch.testing.assert_close(torch.tensor(sorted(rounded.tolist())), torch.tensor(sorted(objects)).float())
