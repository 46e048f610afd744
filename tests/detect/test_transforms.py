"""Augmentation: boxes follow their objects, everything is in range, and a seed says it all."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest

from detect.transforms import Resize, SSDAugmentation, Transform, Transformed

STILL = {"distort_probability": 0.0}
NO_CROWDS = np.zeros(0, bool)


def blocks_on_black() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A 200 x 150 picture with a red, a green and a blue block, their boxes, and no crowds."""
    image = np.zeros((150, 200, 3), np.uint8)
    boxes = np.array([[20, 30, 60, 70], [90, 20, 150, 100], [130, 110, 190, 140]], np.float32)
    for channel, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2, channel] = 250
    return image, boxes, np.zeros(3, bool)


def extent(image: np.ndarray, channel: int) -> np.ndarray:
    """The xyxy of one block as its pixels say."""
    rows, columns = np.nonzero((image[..., channel] > 125) & (image.sum(axis=2) < 400))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_resize_scales_boxes_by_hand() -> None:
    image, boxes, crowds = blocks_on_black()
    done = Resize((300, 100))(image, boxes, crowds)
    assert done.image.shape == (300, 100, 3)
    np.testing.assert_array_equal(done.boxes, [[10, 60, 30, 140], [45, 40, 75, 200], [65, 220, 95, 280]])
    assert done.boxes.dtype == np.float32
    assert done.kept.tolist() == [0, 1, 2]
    assert Resize((300, 100))(image, boxes, crowds, size=(64, 32)).image.shape == (64, 32, 3)


def test_resize_without_objects_and_without_size() -> None:
    done = Resize((33, 47))(np.zeros((5, 7, 3), np.uint8), np.zeros((0, 4), np.float32), NO_CROWDS)
    assert done.boxes.shape == (0, 4)
    assert done.image.shape == (33, 47, 3)
    with pytest.raises(ValueError, match="no size"):
        Resize()(*blocks_on_black())


@pytest.mark.parametrize("size", [(0, 5), (3,), (32.0, 32), "ab"])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match=r"height, width"):
        Resize(size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"height, width"):
        SSDAugmentation()(*blocks_on_black(), size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("upended", [0.0, 0.5])
def test_boxes_follow_their_pixels_through_every_change(upended: float) -> None:
    image, boxes, crowds = blocks_on_black()
    augment = SSDAugmentation(fill=(0, 0, 0), vertical_flip_probability=upended, **STILL)
    seen = 0
    for seed in range(150):
        done = augment(image, boxes, crowds, seed=seed, size=(240, 320))
        for box, row in zip(done.boxes, done.kept, strict=True):
            if min(box[2] - box[0], box[3] - box[1]) < 12:
                continue
            assert np.abs(extent(done.image, row) - box).max() <= 1.5  # pixels of the output
            seen += 1
    assert seen > 150


def random_boxes(rng: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    corners = np.sort(rng.random((count, 2, 2)), axis=1)
    boxes = (corners * np.array([width, height])).reshape(count, 4).astype(np.float32)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


@pytest.mark.parametrize("size", [(32, 32), (240, 320), (97, 53), None])
def test_every_output_is_in_range(size: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(0)
    augment = SSDAugmentation()
    for seed in range(60):
        height, width = (int(side) for side in rng.integers(3, 90, 2))
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        boxes = random_boxes(rng, int(rng.integers(0, 6)), width, height)
        crowds = rng.random(len(boxes)) < 0.3
        done = augment(image, boxes, crowds, seed=seed, size=size)
        high, wide = size or (height, width)
        assert done.image.shape == (high, wide, 3)
        assert done.image.dtype == np.uint8
        assert len(done.boxes) == len(done.kept) == len(set(done.kept.tolist()))
        assert (done.boxes >= 0).all()
        assert (done.boxes <= [wide, high, wide, high]).all()
        assert (done.boxes[:, 2:] - done.boxes[:, :2] >= 1).all()


def test_a_seed_says_everything_and_the_input_stays() -> None:
    image, boxes, crowds = blocks_on_black()
    image = image + np.random.default_rng(1).integers(0, 6, image.shape, dtype=np.uint8)
    image.flags.writeable = False
    before = image.copy(), boxes.copy()
    first, second = SSDAugmentation(), SSDAugmentation()
    second(image, boxes, crowds, seed=99, size=(64, 64))  # what came before must not matter
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter either
    outputs = [first(image, boxes, crowds, seed=seed, size=(64, 96)) for seed in range(20)]
    for seed, done in enumerate(outputs):
        again = second(image, boxes, crowds, seed=seed, size=(64, 96))
        for mine, yours in zip(done, again, strict=True):
            np.testing.assert_array_equal(mine, yours)
    assert len({done.image.tobytes() for done in outputs}) == 20
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(boxes, before[1])


def always(**changes: object) -> SSDAugmentation:
    """Nothing but the changes named."""
    off = {"expand_probability": 0, "crop_probability": 0, "flip_probability": 0, "distort_probability": 0}
    return SSDAugmentation(**(off | changes))  # type: ignore[arg-type]


def test_nothing_asked_nothing_changed() -> None:
    image, boxes, crowds = blocks_on_black()
    done = always()(image, boxes, crowds, seed=1)
    np.testing.assert_array_equal(done.image, image)
    np.testing.assert_array_equal(done.boxes, boxes)


def test_flip_by_hand() -> None:
    image, boxes, crowds = blocks_on_black()
    done = always(flip_probability=1)(image, boxes, crowds, seed=1)
    np.testing.assert_array_equal(done.image, image[:, ::-1])
    np.testing.assert_array_equal(done.boxes, [[140, 30, 180, 70], [50, 20, 110, 100], [10, 110, 70, 140]])


def test_vertical_flip_by_hand() -> None:
    image, boxes, crowds = blocks_on_black()
    done = always(vertical_flip_probability=1)(image, boxes, crowds, seed=1)
    np.testing.assert_array_equal(done.image, image[::-1])
    np.testing.assert_array_equal(done.boxes, [[20, 80, 60, 120], [90, 50, 150, 130], [130, 10, 190, 40]])
    both = always(vertical_flip_probability=1, flip_probability=1)(image, boxes, crowds, seed=1)
    np.testing.assert_array_equal(both.image, image[::-1, ::-1])
    np.testing.assert_array_equal(both.boxes[0], [140, 80, 180, 120])


def test_expand_fills_the_rest_and_keeps_every_object() -> None:
    image, boxes, crowds = blocks_on_black()
    augment = always(expand_probability=1, expand_ratio=(2, 2), fill=(9, 99, 199))
    places = set()
    for seed in range(10):
        done = augment(image, boxes, crowds, seed=seed, size=(300, 400))  # as large as the canvas: nothing is scaled
        rows, columns = np.nonzero((done.image != (9, 99, 199)).any(axis=2))
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (150, 200)
        moved = done.boxes - boxes
        np.testing.assert_array_equal(moved, np.tile([columns.min(), rows.min()], (3, 2)))
        places.add((int(columns.min()), int(rows.min())))
    assert len(places) > 5


@pytest.mark.parametrize("least", [0.1, 0.5, 0.9])
def test_crops_overlap_an_object_enough(least: float) -> None:
    image, boxes, crowds = (
        np.zeros((100, 100, 3), np.uint8),
        np.array([[20, 20, 80, 80.0]], np.float32),
        np.zeros(1, bool),
    )
    augment = always(crop_probability=1, crop_min_overlaps=[least], crop_trials=400)
    cropped = 0
    for seed in range(40):
        done = augment(image, boxes, crowds, seed=seed, size=(100, 100))
        assert len(done.boxes) == 1
        x1, y1, x2, y2 = done.boxes[0].tolist()
        if (x1, y1, x2, y2) == (20, 20, 80, 80):
            continue  # no window was found, or the whole picture
        cropped += 1
        # The object is 60 x 60; in the output it is (x2 - x1) percent of a window that is 100 units wide.
        assert ((x2 - x1) * (y2 - y1)) / 10_000 >= least - 0.02
    assert cropped >= (1 if least == 0.9 else 20)


def test_windows_keep_to_their_sides_and_aspect() -> None:
    """Of a canvas of 400 x 100 they are at least 120 x 30, and between half and twice as wide as high."""
    augment = always(crop_min_side=0.3, crop_aspect=(0.5, 2.0), crop_trials=1000)
    windows = augment._draw_windows((-50, -20, 350, 80), np.random.default_rng(0))
    widths, heights = windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1]
    assert 50 < len(windows) < 950, "most of what a wide canvas gives is too wide"
    assert (widths.min() >= 120, heights.min() >= 30) == (True, True)
    assert (widths <= 2 * heights).all()
    assert (2 * widths >= heights).all()
    assert (windows.min(axis=0) >= [-50, -20, -50, -20]).all()
    assert (windows.max(axis=0) <= [350, 80, 350, 80]).all()


def test_an_object_whose_centre_is_cut_off_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the window x 50..150, y 40..140: centres one pixel outside and inside each of its edges."""
    centres = [(49, 90), (51, 90), (149, 90), (151, 90), (100, 39), (100, 41), (100, 139), (100, 141)]
    boxes = np.array([[x - 10, y - 10, x + 10, y + 10] for x, y in centres], np.float32)
    augment = always(crop_probability=1)
    monkeypatch.setattr(augment, "_crop", lambda *_: (50, 40, 150, 140))
    image = np.zeros((200, 200, 3), np.uint8)
    done = augment(image, boxes, np.zeros(8, bool), seed=0, size=(100, 100))
    assert done.kept.tolist() == [1, 2, 5, 6]
    np.testing.assert_array_equal(done.boxes, [[0, 40, 11, 60], [89, 40, 100, 60], [40, 0, 60, 11], [40, 89, 60, 100]])
    crowds = np.arange(8) == 0  # of the first, which is a crowd now, 9 pixels are visible
    assert augment(image, boxes, crowds, seed=0, size=(100, 100)).kept.tolist() == [0, 1, 2, 5, 6]


def test_crowds_stay_visible_but_never_choose_the_crop() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[0, 0, 100, 40], [10, 60, 30, 80]], np.float32)
    crowds = np.array([True, False])
    augment = always(crop_probability=1, crop_min_overlaps=[0.0])
    partly = 0
    for seed in range(80):
        done = augment(image, boxes, crowds, seed=seed, size=(100, 100))
        assert 1 in done.kept  # the object's centre is in every window; the crowd's need not be
        partly += 0 in done.kept and done.boxes[done.kept.tolist().index(0), 3] < 25
    assert partly > 3


def test_pictures_without_objects_are_cropped_too() -> None:
    image = np.random.default_rng(2).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    augment = always(crop_probability=1, crop_min_overlaps=[0.3])
    none = np.zeros((0, 4), np.float32)
    outputs = {augment(image, none, NO_CROWDS, seed=seed).image.tobytes() for seed in range(8)}
    assert len(outputs) == 8


def test_colour_distortions_are_drawn_independently() -> None:
    """Four coins: if one seed threw them all, a picture would be left alone half of the time, not in one of sixteen."""
    image = np.random.default_rng(0).integers(60, 190, (16, 16, 3), dtype=np.uint8)
    augment = always(distort_probability=0.5)
    none = np.zeros((0, 4), np.float32)
    same = sum((augment(image, none, NO_CROWDS, seed=seed).image == image).all() for seed in range(400))
    assert 8 <= same <= 50  # 25 expected


def test_brightness_moves_all_channels_by_at_most_its_part_of_255() -> None:
    image = np.full((8, 8, 3), (100, 120, 140), np.uint8)
    augment = always(distort_probability=1, brightness=0.125, contrast=0, saturation=0, hue=0)
    shifts = set()
    for seed in range(30):
        out = augment(image, np.zeros((0, 4), np.float32), NO_CROWDS, seed=seed).image
        shift = out[0, 0].astype(int) - (100, 120, 140)
        assert np.ptp(shift) <= 1
        assert np.abs(shift).max() <= 33
        shifts.add(int(shift[0]))
    assert len(shifts) > 10
    assert min(shifts) < 0 < max(shifts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip_probability": 1.5},
        {"vertical_flip_probability": -0.5},
        {"expand_ratio": (0.5, 2)},
        {"expand_ratio": (3, 2)},
        {"fill": (1, 2)},
        {"fill": (1, 2, 300)},
        {"crop_min_overlaps": []},
        {"crop_min_overlaps": [2.0]},
        {"crop_min_side": 0},
        {"crop_aspect": (2, 1)},
        {"crop_trials": 0},
        {"hue": 0.9},
        {"brightness": "much"},
        {"min_box_side": -1},
    ],
)
def test_wrong_numbers_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SSDAugmentation(**wrong)  # type: ignore[arg-type]


def test_every_argument_of_the_augmentation_is_documented() -> None:
    documentation = inspect.getdoc(SSDAugmentation) or ""
    for name in inspect.signature(SSDAugmentation).parameters:
        assert name.removesuffix("_probability") in documentation, name


def test_both_fit_the_interface() -> None:
    transforms: list[Transform] = [Resize((8, 8)), SSDAugmentation()]
    assert [transform.is_random for transform in transforms] == [False, True]
    outputs: list[Callable[..., Transformed]] = [transform.__call__ for transform in transforms]
    assert all(output(*blocks_on_black(), seed=0, size=(8, 8)).image.shape == (8, 8, 3) for output in outputs)
