"""The parts of pictures that a classifier sees, against numbers worked out by hand."""

import numpy as np
import pytest
from swiftsight_tools.training.crops import CropAugmentation, MiddleCrop

# The value of a pixel is 10 * its row + its column.
PICTURE = np.repeat((10 * np.arange(8)[:, None] + np.arange(10)).astype(np.uint8)[:, :, None], 3, axis=2)
PLAIN = {"brightness": 0, "contrast": 0, "saturation": 0}


@pytest.mark.parametrize(
    ("size", "share", "rows", "columns"),
    [
        ((4, 4), 0.5, (2, 6), (3, 7)),  # half of the shorter side, 8, in the middle
        ((8, 8), 1.0, (0, 8), (1, 9)),  # all of the shorter side
        ((2, 4), 0.4, (3, 5), (3, 7)),  # twice as wide as high: the width, 10, is what limits it
    ],
)
def test_the_middle(size: tuple[int, int], share: float, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    np.testing.assert_array_equal(MiddleCrop(size, share)(PICTURE), PICTURE[slice(*rows), slice(*columns)])


def test_another_size_in_the_call() -> None:
    assert MiddleCrop((4, 4))(PICTURE, size=(6, 2)).shape == (6, 2, 3)


def test_a_picture_of_one_pixel() -> None:
    one = PICTURE[:1, :1]
    assert MiddleCrop((4, 6))(one).shape == (4, 6, 3)
    assert CropAugmentation()(one, 0, (4, 6)).shape == (4, 6, 3)


def test_windows_have_the_area_and_the_aspect_that_were_asked_for() -> None:
    augmentation = CropAugmentation(crop_area=(0.2, 0.5), crop_aspect=(0.5, 2.0))
    windows = np.array([augmentation._draw_window((300, 400), 1.0, np.random.default_rng(seed)) for seed in range(500)])
    top, left, height, width = windows.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / (300 * 400), width / height
    assert 0.195 <= area.min() < 0.25 < 0.45 < area.max() <= 0.505
    assert 0.49 <= aspect.min() < 0.6 < 1.6 < aspect.max() <= 2.02
    # Every part of the picture comes into sight.
    assert top.min() < 10
    assert (top + height).max() > 290
    assert abs(np.median(np.log(aspect))) < 0.15  # as often wide as high


def test_a_picture_that_is_too_long_for_every_trial_gives_its_middle() -> None:
    window = CropAugmentation(crop_area=(1, 1), crop_aspect=(1, 1))._draw_window(
        (10, 1000), 1.0, np.random.default_rng()
    )
    assert window == (0, 495, 10, 10)


def test_mirrored_as_often_as_asked() -> None:
    whole = {"crop_area": (1, 1), "crop_aspect": (1, 1), **PLAIN}
    square = PICTURE[:, :8]
    always = CropAugmentation(flip_probability=1, **whole)(square, 0)
    np.testing.assert_array_equal(always, square[:, ::-1])
    sometimes = CropAugmentation(flip_probability=0.3, **whole)
    mirrored = sum(np.array_equal(sometimes(square, seed), square[:, ::-1]) for seed in range(400))
    assert 0.3 * 400 - 40 < mirrored < 0.3 * 400 + 40


def test_colours_by_hand() -> None:
    """Brightness 0.5: 200, 100, 40 become 100, 50, 20. Contrast 0 leaves the mean grey, saturation 0 each pixel's."""
    from swiftsight_tools.training.crops import _recoloured

    image = np.full((2, 2, 3), (200, 100, 40), np.uint8)
    image[0] = (0, 0, 0)
    np.testing.assert_array_equal(_recoloured(image, 0.5, 1, 1)[1, 0], (100, 50, 20))
    np.testing.assert_array_equal(_recoloured(image, 2, 1, 1)[1, 0], (255, 200, 80))
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 40 = 123.06, and half of the pixels are black: 61.53.
    np.testing.assert_array_equal(_recoloured(image, 1, 0, 1), np.full_like(image, 62))
    np.testing.assert_array_equal(_recoloured(image, 1, 1, 0)[1, 0], (123, 123, 123))
    np.testing.assert_array_equal(_recoloured(image, 1, 1, 1), image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_area": (0, 1)}, r"crop_area is \[0, 1\]; expected two rising numbers"),
        ({"crop_area": (0.5, 1.5)}, "crop_area"),
        ({"crop_aspect": (2, 1)}, "crop_aspect"),
        ({"flip_probability": 2}, "flip_probability is 2; expected a number in 0..1"),
        ({"brightness": -0.1}, "brightness is -0.1"),
    ],
)
def test_numbers_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CropAugmentation(**options)
