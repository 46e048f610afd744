"""Classes drawn over a picture, and their legend."""

import numpy as np
import pytest
from swiftsight_tools.frames.draw import class_colour
from swiftsight_tools.frames.overlay import class_colours, draw_classes

NAMES = ["background", "person", "dog"]
GREY = 128


def _picture(height: int = 240, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def _labels(picture: np.ndarray, value: int = 1) -> np.ndarray:
    labels = np.zeros(picture.shape[:2], np.int64)
    labels[:, picture.shape[1] // 2 :] = value
    return labels


def test_pixels_take_the_colour_of_their_class_by_half_and_the_picture_stays():
    picture = _picture()
    drawn = draw_classes(picture, _labels(picture), NAMES, colours=[(0, 0, 0), (255, 0, 55), (0, 255, 0)])
    assert (picture == GREY).all()
    assert (drawn[200:, 165:] == (192, 64, 92)).all()  # round half to even
    assert (drawn[200:, :155] == 64).all()


def test_a_hidden_class_and_what_is_ignored_leave_the_picture_as_it_is():
    picture = _picture()
    drawn = draw_classes(picture, _labels(picture, 255), NAMES, hidden=[0])
    assert (drawn == GREY).all()  # not even a legend


def test_the_legend_names_the_classes_that_are_there_and_no_others():
    picture = _picture()
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0)]
    only_person = draw_classes(picture, _labels(picture), NAMES, colours=colours, hidden=[0], opacity=0)
    both = _labels(picture)
    both[:20] = 2
    with_dog = draw_classes(picture, both, NAMES, colours=colours, hidden=[0], opacity=0)
    assert (only_person == (255, 0, 0)).all(axis=2).sum() > 100
    assert not (only_person == (0, 255, 0)).all(axis=2).any()
    assert (with_dog == (0, 255, 0)).all(axis=2).sum() > 100
    a_few = _labels(picture, 0)
    a_few[100, 100] = 2  # one pixel of 76,800
    assert (draw_classes(picture, a_few, NAMES, hidden=[0], opacity=0) == GREY).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 30), (30, 400)])
def test_a_legend_without_room_does_no_harm(size):
    picture = _picture(*size)
    names = [f"a class with a long name {number}" for number in range(30)]
    labels = np.arange(picture[:, :, 0].size).reshape(size) % 30
    assert draw_classes(picture, labels, names).shape == picture.shape


def test_a_long_legend_goes_on_in_another_column():
    picture = _picture(100, 400)
    names = [str(number) for number in range(12)]
    labels = np.tile(np.arange(400) % 12, (100, 1))
    drawn = draw_classes(picture, labels, names, opacity=0)
    changed = (drawn != GREY).any(axis=2)
    for label in range(12):
        assert (drawn[changed] == class_colour(label)).all(axis=1).any()


def test_colours_are_the_data_sets_or_our_own():
    assert class_colours(2).tolist() == [list(class_colour(0)), list(class_colour(1))]
    with pytest.raises(ValueError, match="1 colours for 2 classes"):
        class_colours(2, [(1, 2, 3)])


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"labels are \[5, 5\]; expected the picture's size \[240, 320\]"):
        draw_classes(_picture(), np.zeros((5, 5), np.int64), NAMES)
