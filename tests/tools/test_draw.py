"""Boxes and labels on pictures."""

from itertools import combinations

import numpy as np
import pytest
import torch
from swiftsight_tools.frames import draw
from swiftsight_tools.frames.draw import class_colour, contrasting, draw_detections, draw_note, label_places, style_for

from detect import Detections

GREY = 128


def _grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def _found(*boxes: tuple[float, float, float, float], labels: list[int] | None = None) -> Detections:
    scores = torch.linspace(0.9, 0.5, len(boxes))
    return Detections(torch.tensor(boxes).view(-1, 4), scores, torch.tensor(labels or [0] * len(boxes)))


def _changed(drawn: np.ndarray) -> np.ndarray:
    return (drawn != GREY).any(axis=2)


def test_the_picture_that_was_given_is_left_alone():
    picture = _grey(100, 100)
    drawn = draw_detections(picture, _found((10, 40, 60, 90)), ["person"])
    assert (picture == GREY).all()
    assert drawn.dtype == np.uint8
    assert drawn.shape == picture.shape
    assert not np.shares_memory(drawn, picture)


def test_nothing_found_draws_nothing():
    assert (draw_detections(_grey(20, 30), _found(), ["person"]) == GREY).all()


def test_a_box_has_its_classes_colour_in_rgb_on_its_edges():
    drawn = draw_detections(_grey(100, 100), _found((10, 40, 61, 91), labels=[1]), ["person", "dog"])
    for row, column in ((70, 10), (70, 60), (90, 30)):
        assert tuple(drawn[row, column]) == class_colour(1)
    assert tuple(drawn[70, 30]) == (GREY, GREY, GREY)
    assert not _changed(drawn)[95:].any()


def test_a_box_over_the_whole_picture_keeps_all_four_sides():
    drawn = draw_detections(_grey(90, 120), _found((0, 0, 120, 90)), ["person"])
    colour = class_colour(0)
    assert [tuple(drawn[45, 0]), tuple(drawn[45, 119]), tuple(drawn[89, 60])] == [colour] * 3
    assert tuple(drawn[0, 119]) == colour


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (5, 5, 5.2, 5.2), (-30, -20, 10, 10), (190, 140, 260, 300)])
def test_odd_boxes_do_no_harm(box):
    assert draw_detections(_grey(150, 200), _found(box), ["person"]).shape == (150, 200, 3)


def test_the_best_detection_is_drawn_over_the_others():
    boxes = _found((20, 20, 80, 80), (20, 20, 80, 80), labels=[0, 1])
    drawn = draw_detections(_grey(100, 100), boxes, ["person", "dog"])
    assert tuple(drawn[79, 50]) == class_colour(0)


@pytest.mark.parametrize("side", [120, 640, 3000])
def test_text_and_its_background_fill_their_rectangle_and_no_more(side):
    style = style_for(side, side)
    canvas = _grey(side, side)
    draw.draw_text(canvas, "gyps Q 0.93", (10, side // 2), class_colour(0), style)
    rows, columns = np.nonzero(_changed(canvas))
    width, height = draw.text_box_size("gyps Q 0.93", style)
    assert (columns.min(), columns.max()) == (10, 10 + width - 1)
    assert (rows.min(), rows.max()) == (side // 2 - height, side // 2 - 1)
    letters = (canvas[rows.min() : rows.max(), 10 : 10 + width] != class_colour(0)).any(axis=2)
    assert 0.1 < letters.mean() < 0.6


@pytest.mark.parametrize("corner", [(-15, 50), (170, 60), (20, 10), (30, 108), (-400, 50), (20, -90), (500, 500)])
def test_a_text_that_reaches_over_the_rim_is_cut_there(corner):
    """As on a larger canvas, of which the picture is a part; twice, since what was written is kept."""
    style, margin = style_for(100, 200), 600
    for _ in range(2):
        large, canvas = _grey(100 + 2 * margin, 200 + 2 * margin), _grey(100, 200)
        draw.draw_text(large, "dog 0.50", (corner[0] + margin, corner[1] + margin), class_colour(1), style)
        draw.draw_text(canvas, "dog 0.50", corner, class_colour(1), style)
        assert (canvas == large[margin:-margin, margin:-margin]).all()


@pytest.mark.parametrize("label_size", [(30, 10), (100, 80), (7, 3)])
def test_labels_that_fit_lie_inside_the_picture(label_size):
    for seed in range(200):
        corners = np.random.default_rng(seed).uniform(-20, 140, 4)
        box = (*np.minimum(corners[:2], corners[2:]), *np.maximum(corners[:2], corners[2:]))
        places = label_places(box, label_size, (80, 100))
        assert places
        for left, top, right, bottom in places:
            assert 0 <= left < right <= 100
            assert 0 <= top < bottom <= 80
            assert (right - left, bottom - top) == label_size


def test_label_places_by_hand():
    def places(*box: float) -> list[tuple[int, ...]]:
        return label_places(box, (30, 10), (100, 100))

    assert places(50, 40, 90, 75) == [(50, 30, 80, 40), (50, 40, 80, 50), (50, 75, 80, 85)]  # on it, inside, under it
    assert places(50, 5, 90, 60) == [(50, 5, 80, 15), (50, 60, 80, 70)]  # no room above the picture's rim
    assert places(50, 40, 90, 59) == [(50, 30, 80, 40), (50, 59, 80, 69)]  # inside it would hide half of the box
    assert places(90, 40, 99, 59)[0] == (70, 30, 100, 40)  # moved left
    assert places(20, 0, 90, 100) == [(20, 0, 50, 10)]  # a box as high as the picture
    assert places(20, 2, 90, 15) == [(20, 15, 50, 25)]  # a low box at the upper rim
    assert label_places((5, 2, 9, 9), (200, 100), (100, 100)) == [(0, 0, 200, 100)]  # as large as the picture
    assert label_places((5, 2, 9, 95), (30, 10), (9, 100)) == [(5, 0, 35, 10)]  # higher than the picture


def test_where_labels_crowd_the_class_is_left_out_and_the_score_stays(monkeypatch):
    written = []
    monkeypatch.setattr(draw, "draw_text", lambda _, text, corner, *__: written.append((text, corner)))
    crowd = _found(*[(20 + 3 * place, 40, 30 + 3 * place, 60) for place in range(3)], (290, 40, 300, 60))
    draw_detections(_grey(100, 400), crowd, ["a bird"])
    # On the first box, under the second; the third finds both taken; the fourth stands apart. The best is drawn last.
    assert [text for text, _ in reversed(written)] == ["a bird 0.90", "a bird 0.77", "0.63", "a bird 0.50"]
    corners = [corner for _, corner in reversed(written)]
    assert corners[0] == (20, 40)
    assert corners[1][1] > 60
    assert corners[3] == (290, 40)


def test_labels_of_boxes_with_one_top_do_not_cover_each_other():
    names = ["person", "bicycle"]
    boxes = _found((100, 100, 200, 300), (110, 100, 210, 300), labels=[0, 1])
    drawn = draw_detections(_grey(400, 400), boxes, names)
    alone = draw_detections(_grey(400, 400), _found((110, 200, 210, 300), labels=[1]), names)
    text = contrasting(class_colour(1))
    written = [int((picture == text).all(axis=2).sum()) for picture in (drawn, alone)]
    assert written[0] >= written[1]


def test_a_long_name_is_shortened_and_keeps_its_score():
    name = "a class with a remarkably long name"
    narrow = draw_detections(_grey(200, 60), _found((5, 100, 50, 190)), [name])
    assert _changed(narrow)[80:100].any()
    assert (narrow[80:100] == contrasting(class_colour(0))).all(axis=2).any()


def test_lines_and_letters_grow_with_the_picture():
    small, middle, large = style_for(150, 200), style_for(720, 1280), style_for(3000, 4000)
    assert small.line_width == 1
    assert small.text_height >= 10
    assert 2 <= middle.line_width <= 4
    assert 18 <= middle.text_height <= 30
    assert large.line_width >= 8
    assert large.text_height >= 60


def test_eighty_classes_have_eighty_colours_and_neighbours_differ_clearly():
    colours = [np.array(class_colour(label), float) for label in range(80)]
    assert min(np.abs(one - other).sum() for one, other in combinations(colours, 2)) > 40
    assert all(np.abs(colours[place] - colours[place + 1]).sum() > 100 for place in range(79))
    assert min(np.abs(one - other).sum() for one, other in combinations(colours[:8], 2)) > 140


def test_a_classes_colour_stays_the_same_over_versions():
    assert [class_colour(label) for label in (0, 1, 2)] == [(255, 38, 142), (95, 255, 38), (38, 47, 255)]


def test_the_text_stands_out_from_every_colour():
    def luminance(colour):
        return sum(part * (value / 255) ** 2.2 for part, value in zip((0.2126, 0.7152, 0.0722), colour, strict=True))

    for label in range(80):
        both = luminance(class_colour(label)), luminance(contrasting(class_colour(label)))
        assert (max(both) + 0.05) / (min(both) + 0.05) > 4.5  # what WCAG 2 asks of small text


def test_a_note_stands_in_the_lower_left_corner():
    drawn = draw_note(_grey(100, 300), "24 frames/s")
    assert _changed(drawn)[99, 0]
    assert not _changed(drawn)[:60].any()
