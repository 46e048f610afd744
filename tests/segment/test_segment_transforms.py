"""Picture and labels are cut, scaled and mirrored alike; what lies outside is ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from pictures.images import resize_image
from segment.formats.labelled_pictures import collate
from segment.formats.mask_folder import MaskFolder
from segment.transforms import ScaleCropFlip, resize_labels

COLOURS = np.uint8([[250, 20, 20], [20, 250, 20], [20, 20, 250]])
PLAIN = {"distort_probability": 0.0}


def scene(height: int = 96, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose colours say its labels: areas of at least 16 pixels of three classes."""
    classes = np.random.default_rng(4).integers(0, 3, (height // 16 + 1, width // 16 + 1), np.uint8)
    labels = classes.repeat(16, axis=0).repeat(16, axis=1)[:height, :width].copy()
    return COLOURS[labels], labels


def read_colours(image: np.ndarray) -> np.ndarray:
    """The class that each pixel's colour is nearest to; 255 for the fill."""
    palette = np.concatenate([COLOURS, [[124, 116, 104]]]).astype(int)
    nearest = np.abs(image[:, :, None].astype(int) - palette).sum(axis=3).argmin(axis=2)
    return np.array([0, 1, 2, 255], np.uint8)[nearest]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("relative_to", ["picture", "crop", "stretched"])
@pytest.mark.parametrize("size", [(64, 64), (97, 45), (200, 300)])
def test_labels_follow_their_pixels(seed: int, relative_to: str, size: tuple[int, int]) -> None:
    transform = ScaleCropFlip(scale=(0.4, 2.5), relative_to=relative_to, **PLAIN)
    image, labels = transform(*scene(), seed=seed, size=size)
    assert (image.shape, labels.shape, image.dtype, labels.dtype) == ((*size, 3), size, np.uint8, np.uint8)
    agree = read_colours(image) == labels
    assert agree.mean() > 0.88  # edges between areas are mixed colours
    assert agree[labels == 255].all()  # whether there are any: see the next test


@pytest.mark.parametrize(("relative_to", "shown"), [("picture", (48, 64)), ("crop", (24, 32)), ("stretched", (32, 32))])
def test_beside_a_picture_of_half_the_scale_all_is_filled_and_ignored(relative_to: str, shown: tuple[int, int]) -> None:
    """96 x 128 at one half of: its own pixels, the 48 x 64 that the crop holds, all of 64 x 64."""
    transform = ScaleCropFlip(scale=(0.5, 0.5), relative_to=relative_to, **PLAIN)
    image, labels = transform(*scene(), seed=3, size=(64, 64))
    inside = np.argwhere(labels != 255)
    assert tuple(inside.max(axis=0) + 1 - inside.min(axis=0)) == shown
    assert (labels == 255).sum() == 64 * 64 - shown[0] * shown[1]
    assert (image[labels == 255] == (124, 116, 104)).all()


def test_scale_one_is_the_pictures_own_pixels() -> None:
    source, source_labels = scene()
    transform = ScaleCropFlip(scale=(1, 1), flip_probability=0, **PLAIN)
    image, labels = transform(source, source_labels, seed=5, size=(40, 50))
    places = [
        (top, left)
        for top in range(96 - 40 + 1)
        for left in range(128 - 50 + 1)
        if np.array_equal(source[top : top + 40, left : left + 50], image)
    ]
    assert len(places) >= 1
    top, left = places[0]
    np.testing.assert_array_equal(labels, source_labels[top : top + 40, left : left + 50])


def test_a_picture_smaller_than_the_crop_stays_whole_and_the_rest_is_ignored() -> None:
    source, source_labels = scene(30, 40)
    transform = ScaleCropFlip(scale=(1, 1), flip_probability=0, fill=(1, 2, 3), **PLAIN)
    image, labels = transform(source, source_labels, seed=1, size=(64, 64))
    inside = np.argwhere(labels != 255)
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
    assert (bottom - top, right - left) == (30, 40)
    np.testing.assert_array_equal(labels[top:bottom, left:right], source_labels)
    np.testing.assert_array_equal(image[top:bottom, left:right], source)
    assert (image[labels == 255] == [1, 2, 3]).all()


def test_relative_to_the_crop_the_whole_picture_is_drawn_as_large_as_fits() -> None:
    transform = ScaleCropFlip(scale=(1, 1), relative_to="crop", flip_probability=0, **PLAIN)
    _, labels = transform(*scene(96, 128), seed=1, size=(64, 64))
    inside = np.argwhere(labels != 255)
    assert tuple(inside.max(axis=0) + 1 - inside.min(axis=0)) == (48, 64)


def test_stretched_the_whole_picture_covers_the_asked_size() -> None:
    transform = ScaleCropFlip(scale=(1, 1), relative_to="stretched", flip_probability=0, **PLAIN)
    source, source_labels = scene(96, 128)
    image, labels = transform(source, source_labels, seed=1, size=(64, 96))
    np.testing.assert_array_equal(image, resize_image(source, (64, 96)))
    np.testing.assert_array_equal(labels, resize_labels(source_labels, (64, 96)))


def test_a_flip_exchanges_left_and_right() -> None:
    options = {"scale": (1, 1), **PLAIN}
    plain = ScaleCropFlip(flip_probability=0, **options)(*scene(), seed=3, size=(50, 60))
    flipped = ScaleCropFlip(flip_probability=1, **options)(*scene(), seed=3, size=(50, 60))
    for one, other in zip(plain, flipped, strict=True):
        np.testing.assert_array_equal(one[:, ::-1], other)


def test_halving_is_as_likely_as_doubling() -> None:
    transform = ScaleCropFlip(scale=(0.5, 2.0), **PLAIN)
    random = np.random.default_rng(0)
    shown = [transform._draw_window((400, 400), (100, 100), random) for _ in range(5000)]
    heights = np.array([bottom - top for _, top, _, bottom in shown])
    assert (heights.min(), heights.max()) == (50, 200)
    assert 0.47 < (heights > 100).mean() < 0.53
    assert min(top for _, top, _, _ in shown) >= 0
    assert max(bottom for _, _, _, bottom in shown) <= 400


def test_the_seed_decides_everything() -> None:
    transform = ScaleCropFlip()
    one, same, other = (transform(*scene(), seed=seed, size=(64, 80)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert (one[0] != other[0]).any()


def test_colours_change_the_picture_and_not_the_labels() -> None:
    plain = ScaleCropFlip(scale=(1, 1), **PLAIN)(*scene(), seed=2, size=(96, 128))
    coloured = ScaleCropFlip(scale=(1, 1), distort_probability=1.0)(*scene(), seed=2, size=(96, 128))
    assert (plain[0] != coloured[0]).any()
    assert (plain[1] == coloured[1]).mean() == 1


def test_the_source_is_not_written_to() -> None:
    image, labels = scene()
    image.flags.writeable = labels.flags.writeable = False
    ScaleCropFlip()(image, labels, seed=1, size=(32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2, 1)}, "scale is .* two rising numbers"),
        ({"scale": (0, 1)}, "scale is"),
        ({"relative_to": "fit"}, "relative_to is 'fit'; expected 'picture', 'crop', 'stretched'"),
        ({"fill": (0, 0)}, "fill is"),
        ({"fill": (0, 0, 300)}, "fill is"),
        ({"flip_probability": 1.5}, "flip_probability is 1.5"),
        ({"hue": 0.7}, "hue is 0.7"),
    ],
)
def test_numbers_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleCropFlip(**options)


def test_a_size_that_is_none() -> None:
    with pytest.raises(ValueError, match="two positive whole numbers"):
        ScaleCropFlip()(*scene(), seed=0, size=(0, 5))


def test_labels_are_resized_at_pixel_middles() -> None:
    """Of 6 pixels in a row drawn as 2, those at 1.5 - 0.5 and 4.5 - 0.5 are taken: the middles, not the corners."""
    row = np.uint8([[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(resize_labels(row, (1, 2)), [[1, 4]])
    np.testing.assert_array_equal(resize_labels(np.uint8([[3, 9]]), (1, 4)), [[3, 3, 9, 9]])


@pytest.fixture
def folder(tmp_path: Path) -> MaskFolder:
    for number in range(4):
        for part, values in zip(("images", "labels"), scene(40 + number, 60), strict=True):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / part / f"{number}.png")
    return MaskFolder(tmp_path / "images", tmp_path / "labels", ["a", "b", "c"], transform=ScaleCropFlip())


def test_evaluation_leaves_picture_and_labels_alone(folder: MaskFolder) -> None:
    image, labels = folder[2]
    expected_image, expected = scene(42, 60)
    torch.testing.assert_close(labels, torch.from_numpy(expected))
    torch.testing.assert_close(image, torch.from_numpy(expected_image.transpose(2, 0, 1).copy()))


def test_workers_give_the_same_bytes(folder: MaskFolder) -> None:
    requests = [[(0, 11, (32, 48)), (3, 12, (32, 48))], [(1, 13, (64, 64))]]
    alone = [collate([folder[request] for request in batch]) for batch in requests]
    loaded = list(DataLoader(folder, batch_sampler=requests, num_workers=1, collate_fn=collate))
    for (images, labels), (other_images, other_labels) in zip(alone, loaded, strict=True):
        torch.testing.assert_close(images, other_images, rtol=0, atol=0)
        torch.testing.assert_close(labels, other_labels, rtol=0, atol=0)
    assert [tuple(images.shape) for images, _ in alone] == [(2, 3, 32, 48), (1, 3, 64, 64)]
