"""Whole pictures, windows, scales and mirror pictures: where each probability comes from."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pictures.windows import spread
from segment.inference import predict_labels, predict_probabilities, resize_images


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


class BrightPixels:
    """Two classes, decided pixel by pixel: the second where the picture is bright. Notes what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        bright = images.float().mean(dim=1) / 64 - 2
        return torch.stack((-bright, bright), dim=1)


class LeftHalf(BrightPixels):
    """Sees the second class in the left half of whatever it is shown."""

    def __call__(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 2, *images.shape[-2:])
        logits[:, 1, :, : images.shape[-1] // 2] = 50
        logits[:, 0, :, images.shape[-1] // 2 :] = 50
        return logits


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 37, 53), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_whole_picture_is_seen_once_and_as_it_is(images):
    net = BrightPixels()
    found = predict_probabilities(net, images)
    assert net.seen == [(2, 3, 37, 53)]
    assert found.dtype == torch.float32
    _close(found, net(images).softmax(dim=1))


@pytest.mark.parametrize("window", [(16, 20), (37, 53), (64, 20), (100, 100), (1, 1)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_windows_of_any_size_cover_each_pixel(images, window, overlap):
    images = images[:, :, :9, :11] if window == (1, 1) else images
    net = BrightPixels()
    found = predict_probabilities(net, images, window=window, overlap=overlap)
    _close(found, BrightPixels()(images).softmax(dim=1))  # this net does not look beyond a pixel
    limit = tuple(min(sides) for sides in zip(window, images.shape[-2:], strict=True))
    assert {shape[-2:] for shape in net.seen} == {limit}


def test_where_windows_overlap_their_answers_are_averaged():
    images = torch.zeros(1, 3, 4, 6, dtype=torch.uint8)
    found = predict_probabilities(LeftHalf(), images, window=(4, 4), overlap=0.5)
    # windows over columns 0-3 and 2-5; in each the left two columns are the second class
    _close(found[0, 1], torch.tensor([1, 1, 0.5, 0.5, 0, 0]).expand(4, 6))


@pytest.mark.parametrize(
    ("length", "window", "overlap", "starts"),
    [
        (10, 4, 0.0, [0, 3, 6]),
        (10, 5, 0.0, [0, 5]),
        (10, 4, 0.5, [0, 2, 4, 6]),
        (10, 12, 0.5, [0]),
        (10, 10, 0.5, [0]),
        (1025, 1024, 0.25, [0, 1]),
        (3, 1, 0.9, [0, 1, 2]),
    ],
)
def test_windows_are_spread_evenly(length, window, overlap, starts):
    places = spread(length, window, overlap)
    assert [start for start, _ in places] == starts
    assert all(stop - start == min(window, length) for start, stop in places)
    assert places[-1][1] == length


def test_the_mirror_picture_is_mirrored_back():
    images = torch.zeros(1, 3, 2, 4, dtype=torch.uint8)
    _close(predict_probabilities(LeftHalf(), images, flip=True)[0, 1], torch.full((2, 4), 0.5))
    bright_left = images.clone()
    bright_left[..., :2] = 255
    net = BrightPixels()
    _close(predict_probabilities(net, bright_left, flip=True), net(bright_left).softmax(dim=1))
    assert len(net.seen) == 3


def test_scales_are_averaged_at_the_size_of_the_picture(images):
    net = BrightPixels()
    found = predict_probabilities(net, images, scales=(0.5, 1.0, 2.0), flip=True)
    assert net.seen == [(2, 3, *size) for size in ((18, 26), (37, 53), (74, 106)) for _ in range(2)]
    each = [
        F.interpolate(
            BrightPixels()(resize_images(images, size)).softmax(dim=1), (37, 53), mode="bilinear", align_corners=False
        )
        for size in ((18, 26), (37, 53), (74, 106))
    ]
    # Mirroring commutes with resizing but for the rounding of whole numbers.
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0), rtol=0, atol=1e-2)
    _close(found.sum(dim=1), torch.ones(2, 37, 53))


def test_windows_work_at_every_scale(images):
    net = BrightPixels()
    found = predict_probabilities(net, images, scales=(0.5, 1.0), window=(16, 16))
    assert {shape[-2:] for shape in net.seen} == {(16, 16)}
    expected = predict_probabilities(BrightPixels(), images, scales=(0.5, 1.0))
    _close(found, expected)


def test_a_tiny_scale_leaves_a_pixel():
    found = predict_probabilities(BrightPixels(), torch.full((1, 3, 4, 5), 200, dtype=torch.uint8), scales=(0.01,))
    assert found.shape == (1, 2, 4, 5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scales": ()}, "scales are"),
        ({"scales": (1.0, 0.0)}, "expected one or more numbers above 0"),
        ({"scales": (float("nan"),)}, "scales are"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"overlap": -0.1}, "overlap is -0.1"),
        ({"window": (0, 4)}, r"window is \[0, 4\]"),
        ({"window": (4,)}, "expected \\(height, width\\)"),
    ],
)
def test_settings_that_make_no_sense_are_refused(images, settings, words):
    with pytest.raises(ValueError, match=words):
        predict_probabilities(BrightPixels(), images, **settings)


@pytest.mark.parametrize("size", [(7, 9), (7, 20), (15, 5), (70, 90)])
def test_labels_are_those_of_the_resized_logits(size):
    logits = torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(1))
    labels = predict_labels(logits, size)
    resized = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    assert labels.dtype == torch.int64
    torch.testing.assert_close(labels, resized.argmax(dim=1), rtol=0, atol=0)


def test_of_equal_classes_the_first_wins_and_the_logits_stay():
    logits = torch.tensor([1.0, 3, 3, 2]).view(1, 4, 1, 1).expand(1, 4, 2, 2).clone()
    before = logits.clone()
    assert predict_labels(logits, (2, 2)).tolist() == [[[1, 1], [1, 1]]]
    torch.testing.assert_close(logits, before, rtol=0, atol=0)
