"""A person before another background: edges, backgrounds, and a mask that keeps still."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools.frames import cutout
from swiftsight_tools.frames.cutout import CutOut, blurred, composite_, fill, parse_background, working_size
from swiftsight_tools.frames.soft_edges import guided_lines, refine_mask
from swiftsight_tools.frames.steady import SteadyScores

SIZE = (144, 192)


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def _disc(centre: tuple[float, float], radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def _scene(truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """A dark textured wall, a bright textured person, and a camera's noise that differs with `seed`."""
    texture = cv2.resize(np.random.default_rng(99).normal(0, 12, (24, 32)), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(seed).normal(0, 3, (*SIZE, 3))
    brightness = np.where(truth, 170, 80) + texture
    return np.clip(brightness[:, :, None] + noise, 0, 255).astype(np.uint8)


def _close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        torch.from_numpy(np.asarray(actual, np.float64)),
        torch.from_numpy(np.asarray(expected, np.float64)),
        rtol=0,
        atol=tolerance,
    )


# Edges.


def test_the_guided_filter_equals_its_definition():
    random = np.random.default_rng(0)
    guide, values = random.random((2, 12, 14), np.float32)
    radius, epsilon = 2, 0.01
    padded = [np.pad(array.astype(np.float64), 2 * radius, mode="symmetric") for array in (guide, values)]
    slopes, offsets = np.zeros((2, 16, 18))
    for row, column in np.ndindex(slopes.shape):
        box = np.s_[row : row + 2 * radius + 1, column : column + 2 * radius + 1]
        g, v = padded[0][box], padded[1][box]
        slopes[row, column] = ((g * v).mean() - g.mean() * v.mean()) / (g.var() + epsilon)
        offsets[row, column] = v.mean() - slopes[row, column] * g.mean()
    expected = np.zeros(guide.shape)
    for row, column in np.ndindex(guide.shape):
        box = np.s_[row : row + 2 * radius + 1, column : column + 2 * radius + 1]
        expected[row, column] = slopes[box].mean() * guide[row, column] + offsets[box].mean()
    inside = np.s_[radius:-radius, radius:-radius]  # at the rim the order of mirroring and averaging differs
    slope, offset = guided_lines(guide, values, radius, epsilon)
    _close((slope * guide + offset)[inside], expected[inside])


def test_a_mask_that_is_off_is_drawn_to_the_edge_of_the_picture():
    truth = _disc((72, 96), 45)
    off = cv2.GaussianBlur(_disc((74, 98), 46).astype(np.float32), (0, 0), 3)
    refined = refine_mask(off, _scene(truth))
    assert refined.dtype == np.float32
    assert (refined.min(), refined.max()) >= (0, 0.999)
    assert refined.max() <= 1
    assert _iou(refined > 0.5, truth) > _iou(off > 0.5, truth) + 0.02


def test_edges_found_on_a_small_picture_are_those_of_the_large_one():
    truth = _disc((144, 192), 90, (288, 384))
    picture = np.kron(np.where(truth, 170, 80)[:, :, None], np.ones((1, 1, 3))).astype(np.uint8)
    off = cv2.GaussianBlur(_disc((148, 196), 92, (288, 384)).astype(np.float32), (0, 0), 6)
    small = cv2.resize(off, (96, 72), interpolation=cv2.INTER_AREA)
    refined = refine_mask(small, picture)
    assert refined.shape == truth.shape
    assert _iou(refined > 0.5, truth) > 0.97 > _iou(cv2.resize(small, (384, 288)) > 0.5, truth)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_that_is_sure_stays_whatever_the_picture_shows(value):
    mask = np.full(SIZE, value, np.float32)
    _close(refine_mask(mask, _scene(_disc((72, 96), 45))), mask, tolerance=0)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (5, 7)])
def test_tiny_pictures_have_edges_too(size):
    picture, mask = np.zeros((*size, 3), np.uint8), np.full(size, 0.5, np.float32)
    assert refine_mask(mask, picture).shape == size
    blurred(picture, mask, picture)
    assert SteadyScores()(picture, mask).shape == size
    assert CutOut(blurred)(picture, mask).shape == picture.shape


# Backgrounds.


def test_composite_shows_either_picture_or_both():
    picture, background = np.full((1, 3, 3), 200, np.uint8), np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 127, 255]], np.uint8)
    composite_(picture, background, mask)
    assert picture[0, :, 0].tolist() == [100, 150, 200]
    assert (background == 100).all()


def test_a_colour_fills_everything_behind():
    picture = np.zeros((4, 5, 3), np.uint8)
    for word, colour in (("green", (0, 128, 0)), ("#00b140", (0, 177, 64)), ("#00b140ff", (0, 177, 64))):
        behind = np.full((8, 10, 3), 9, np.uint8)
        parse_background(word)(picture, np.zeros((4, 5), np.float32), behind)
        assert (behind == colour).all()


def test_a_picture_fills_everything_behind_and_keeps_its_shape(tmp_path):
    background = np.zeros((40, 200, 3), np.uint8)
    background[:, 80:120] = 255  # a square in the middle
    Image.fromarray(background).save(tmp_path / "beach.png")
    behind = parse_background(str(tmp_path / "beach.png"))
    for size in ((80, 160), (20, 40), (80, 80)):
        filled = np.full((*size, 3), 9, np.uint8)
        behind(filled, np.zeros(size, np.float32), filled)
        white = (filled[size[0] // 2, :, 0] > 127).sum()
        assert abs(white - size[0]) <= 1  # as wide as high
    upright = fill(np.zeros((300, 20, 3), np.uint8), (50, 90))
    assert upright.shape == (50, 90, 3)


@pytest.mark.parametrize("word", ["gren", "", "no_such_picture.jpg", "#12"])
def test_what_is_no_background_is_refused_in_one_line(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="expected blur, a colour such as green") as caught:
        parse_background(word)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="is not a readable picture"):
        parse_background(str(tmp_path / "notes.txt"))


def test_the_blur_takes_nothing_from_the_person():
    picture = np.full((*SIZE, 3), 60, np.uint8)
    person = _disc((72, 96), 40)
    picture[person] = (255, 0, 0)
    behind = np.zeros_like(picture)
    parse_background(cutout.BLUR)(picture, _disc((72, 96), 44).astype(np.float32), behind)
    outside = ~_disc((72, 96), 44)
    _close(behind[outside].max(), 60, tolerance=3)
    _close(behind[outside].min(), 60, tolerance=3)
    striped = np.zeros((*SIZE, 3), np.uint8)
    striped[:, ::8] = 255
    blurred(striped, np.zeros(SIZE, np.float32), behind)
    assert behind.std() < 0.2 * striped.std()


def test_a_person_who_fills_the_view_is_no_trouble():
    picture = _scene(np.ones(SIZE, bool))
    everything = np.ones(SIZE, np.float32)
    assert (CutOut(blurred)(picture, everything) == picture).all()
    nobody = CutOut(parse_background("green"))(picture, 1 - everything)
    assert (nobody == (0, 128, 0)).all()


# Still pictures and video.


def _walk(frames: int = 40) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(frame, scores [2, H, W] of a net that wavers, the truth) while a person walks three pixels a frame."""
    random = np.random.default_rng(1)
    walk = []
    for number in range(frames):
        truth = _disc((80, 30 + 3 * number), 24)
        sure = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 3)
        wavering = cv2.resize(random.normal(0, 0.2, (18, 24)), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        person = np.clip(0.8 * sure + 0.1 + wavering, 0, 1).astype(np.float32)
        walk.append((_scene(truth, seed=number), np.stack((1 - person, person)), truth))
    return walk


def _flips(masks: list[np.ndarray], truths: list[np.ndarray]) -> float:
    """The part of the pixels outside moving areas that change from frame to frame."""
    flipped = total = 0
    for place in range(1, len(masks)):
        moved = cv2.dilate((truths[place] ^ truths[place - 1]).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        flipped += int(((masks[place] ^ masks[place - 1]) & ~moved).sum())
        total += int((~moved).sum())
    return flipped / total


def test_steady_scores_flip_half_as_often_and_follow_what_moves():
    steady = SteadyScores()
    frames, scores, truths = zip(*_walk(), strict=True)
    raw = [each[1] > 0.5 for each in scores]
    kept = [steady(frame, each)[1] > 0.5 for frame, each in zip(frames, scores, strict=True)]
    assert _flips(raw, truths) > 0.01
    assert _flips(kept, truths) < 0.5 * _flips(raw, truths)
    ious = [np.mean([_iou(mask, truth) for mask, truth in zip(masks, truths, strict=True)]) for masks in (raw, kept)]
    assert ious[1] > ious[0] - 0.01


def test_scores_without_doubt_lose_nothing_behind_a_moving_person():
    steady = SteadyScores()
    worst = 1.0
    for frame, _, truth in _walk():
        worst = min(worst, _iou(steady(frame, truth.astype(np.float32)) > 0.5, truth))
    assert worst > 0.97


def test_a_cut_and_another_size_start_anew():
    steady, one, other = SteadyScores(), _disc((72, 50), 30), _disc((72, 140), 30)
    steady(_scene(one), one.astype(np.float32))
    dark = 255 - _scene(other)
    _close(steady(dark, other.astype(np.float32)), other, tolerance=1e-6)
    half = np.full((72, 96), 0.3, np.float32)
    _close(steady(np.zeros((72, 96, 3), np.uint8), half), half, tolerance=0)
    _close(steady(np.zeros((72, 96, 3), np.uint8), 2 * half, cell=2), 2 * half, tolerance=0)


def test_start_over_forgets():
    steady, picture = SteadyScores(), _scene(_disc((72, 96), 30))
    steady(picture, np.ones(SIZE, np.float32))
    assert steady(picture, np.zeros(SIZE, np.float32)).min() > 0.5
    steady.start_over()
    assert steady(picture, np.zeros(SIZE, np.float32)).max() == 0


def test_the_scores_that_were_given_stay_as_they_are():
    steady, picture = SteadyScores(), _scene(_disc((72, 96), 30))
    first, second = np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)
    kept = steady(picture, first)
    steady(picture, second)
    assert first.min() == 1
    assert kept.min() == 1
    assert second.max() == 0


def test_the_person_stays_and_the_rest_is_replaced():
    truth = _disc((72, 96), 45)
    picture = _scene(truth)
    person = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 2) * 0.96 + 0.02
    cut = CutOut(parse_background("#00b140"))
    shown = cut(picture, person)
    inside, outside = _disc((72, 96), 40), ~_disc((72, 96), 50)
    assert (shown[inside] == picture[inside]).all()
    assert (shown[outside] == (0, 177, 64)).all()
    mask = cut.mask(picture, person)
    assert mask.dtype == np.uint8
    assert ((mask > 12) & (mask < 243)).sum() > 100  # the edge is soft
    cut.start_over()
    other = cut(picture, 1 - person)
    assert (other[inside] == (0, 177, 64)).all()


@pytest.mark.parametrize("size", [(432, 768), (431, 767)])
def test_a_large_picture_is_cut_out_by_its_small_mask(size):
    """Also where the small mask's places are no whole numbers of pixels."""
    truth = _disc((200, 500), 120, size)
    picture = np.where(truth[:, :, None], (220, 180, 160), (60, 70, 80)).astype(np.uint8)
    soft = cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 4)
    small = cv2.resize(soft, working_size(size)[::-1], interpolation=cv2.INTER_AREA)
    cuts = [CutOut(parse_background("#00b140")).mask(picture, each) for each in (soft, small)]
    assert small.size < soft.size / 3
    assert _iou(cuts[1] > 127, truth) > 0.98
    _close(cuts[1], cuts[0], tolerance=2)
    drawn = CutOut(parse_background("#00b140"))(picture, small)
    sure = cuts[1] == 255
    assert (drawn[sure] == picture[sure]).all()
    assert (drawn[cuts[1] == 0] == (0, 177, 64)).all()


def test_specks_far_from_any_person_are_nothing():
    scores = np.zeros((432, 768), np.float32)
    scores[100:300, 100:300] = 1
    scores[20:24, 600:604] = 0.08
    picture = np.full((432, 768, 3), 90, np.uint8)
    mask = CutOut(blurred).mask(picture, scores)
    assert mask[200, 200] == 255
    assert mask[:, 400:].max() == 0
