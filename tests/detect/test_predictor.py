"""The predictor: any picture in, detections in the picture's own pixels out."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from detect import Predictor, RawDetections, create_detector
from pictures.images import resize_image


class FixedAnswers:
    """Answers like a net with an input of 64 x 32: the same three boxes for every picture."""

    class_names = ("cat", "dog")
    input_size = (64, 32)

    def __call__(self, images: Tensor) -> RawDetections:
        assert images.shape == (1, 3, 64, 32)
        boxes = [[2.0, 4.0, 16.0, 32.0], [20.0, 40.0, 40.0, 70.0], [0.0, 0.0, 8.0, 8.0]]
        scores = [[0.1, 0.9], [0.6, 0.2], [0.35, 0.0]]
        return RawDetections(torch.tensor([boxes]), torch.tensor([scores]))


def _picture(height: int = 128, width: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_boxes_are_scaled_to_the_picture_and_clipped_to_it():
    found = Predictor(FixedAnswers(), score_threshold=0.3)(
        _picture(height=128, width=320)
    )  # twice as high, ten times as wide
    torch.testing.assert_close(
        found.boxes, torch.tensor([[20.0, 8, 160, 64], [200, 80, 320, 128], [0, 0, 80, 16]]), rtol=0, atol=0
    )
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.35]))
    assert found.labels.tolist() == [1, 0, 0]


def test_threshold_and_limit_are_honoured():
    assert len(Predictor(FixedAnswers(), score_threshold=0.5)(_picture())) == 2
    assert len(Predictor(FixedAnswers(), score_threshold=0.95)(_picture())) == 0
    found = Predictor(FixedAnswers(), score_threshold=0.0, max_detections=1)(_picture())
    assert found.labels.tolist() == [1]


def test_prepare_resizes_and_keeps_red_first():
    picture = _picture()
    images = Predictor(FixedAnswers()).prepare(picture)
    assert images.dtype == torch.uint8
    expected = torch.from_numpy(resize_image(picture, (64, 32)))
    torch.testing.assert_close(images[0].permute(1, 2, 0), expected, rtol=0, atol=0)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_a_view_of_a_larger_picture_is_taken():
    picture = _picture(64, 64)
    flipped = Predictor(FixedAnswers()).prepare(picture[:, ::-2])
    torch.testing.assert_close(flipped[0, 0], torch.from_numpy(picture[:, ::-2, 0].copy()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((4, 4), np.uint8), r"\[4, 4\] of uint8"),
        (np.zeros((3, 4, 4), np.uint8), r"\[3, 4, 4\] of uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"\[4, 4, 4\] of uint8"),
        (np.zeros((4, 4, 3), np.float32), "of float32; expected .* uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "a Tensor; expected a NumPy array"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(picture, words):
    with pytest.raises(ValueError, match=words) as caught:
        Predictor(FixedAnswers())(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"score_threshold": 1.5}, {"iou_threshold": -0.1}, {"max_detections": 0}, {"size": (64,)}, {"size": (0, 32)},
     {"size": (32.5, 32)}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        Predictor(FixedAnswers(), **settings)


def test_the_suppression_may_be_chosen():
    """Two boxes that overlap by 0.6: hard suppression drops the second, linear leaves it 0.9 * 0.4."""

    class TwoAnswers:
        class_names, input_size = ("thing",), (64, 64)

        def __call__(self, _images):
            boxes = torch.tensor([[[0.0, 0, 40, 40], [10, 0, 50, 40]]])
            return RawDetections(boxes, torch.tensor([[[0.95], [0.9]]]))

    picture = np.zeros((64, 64, 3), np.uint8)
    for suppression, scores in (("soft", [0.95, 0.36]), ("hard", [0.95]), ("gaussian", [0.95, 0.9 * math.exp(-0.72)])):
        found = Predictor(TwoAnswers(), score_threshold=0.1, suppression=suppression)(picture)
        torch.testing.assert_close(found.scores, torch.tensor(scores))
    with pytest.raises(ValueError, match="suppression 'softly': it is one of soft, gaussian, hard"):
        Predictor(TwoAnswers(), suppression="softly")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create_detector("thundernet_snet49", num_classes=2, input_size=(96, 64)).train()


def test_a_real_net_answers_as_its_own_predict_does(detector):
    picture = _picture(150, 110)
    found = Predictor(detector, score_threshold=0.05)(picture)
    images = torch.from_numpy(resize_image(picture, (96, 64))).permute(2, 0, 1)[None]
    expected = detector.predict(images)[0].scaled(110 / 64, 150 / 96)
    assert len(found) == len(expected) > 0
    # Almost equal scores may change places, so compare them sorted and the boxes as sums.
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.boxes.mean(0), expected.boxes.mean(0), rtol=1e-2, atol=0.5)


def test_the_net_that_was_given_goes_on_training_undisturbed(detector):
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    predictor = Predictor(detector)
    first = predictor.infer(predictor.prepare(_picture()))
    assert detector.training
    torch.testing.assert_close(dict(detector.state_dict()), before, rtol=0, atol=0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(1.0)
    second = predictor.infer(predictor.prepare(_picture()))
    detector.load_state_dict(before)
    torch.testing.assert_close(second, first, rtol=0, atol=0)


def test_another_input_size_may_be_chosen(detector):
    predictor = Predictor(detector, size=(64, 128), score_threshold=0.05)
    assert predictor.prepare(_picture()).shape == (1, 3, 64, 128)
    boxes = predictor(_picture(50, 70)).boxes
    assert len(boxes)
    assert boxes[:, [0, 2]].max() <= 70
    assert boxes[:, [1, 3]].max() <= 50
    assert boxes.min() >= 0


def test_a_size_that_the_net_cannot_take_is_refused_with_the_nearest(detector):
    with pytest.raises(ValueError, match=r"multiples of 16.*nearest: 96x64"):
        Predictor(detector, size=(100, 64))(_picture())
