"""The confusion matrix and its figures, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from segment.metrics import ConfusionMatrix, runs

# Three classes, one picture of 3 x 4; 255 is void.
LABEL = np.array([[0, 0, 0, 255], [0, 1, 1, 255], [1, 1, 2, 2]], np.uint8)
PREDICTION = np.array([[0, 0, 1, 2], [0, 1, 1, 0], [1, 0, 2, 0]], np.uint8)


def _close(actual: object, expected: object) -> None:
    torch.testing.assert_close(
        torch.as_tensor(actual, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
        rtol=1e-12,
        atol=0,
        equal_nan=True,
    )


def _matrix(*pictures: tuple[np.ndarray, np.ndarray], num_classes: int = 3) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    for prediction, label in pictures:
        confusion.update(prediction, label)
    return confusion


def test_a_matrix_of_three_classes_counted_by_hand():
    confusion = _matrix((PREDICTION, LABEL))
    # rows: what the label says, columns: the prediction, void last
    assert confusion.matrix.tolist() == [[3, 1, 0, 0], [1, 3, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]]
    scores = confusion.scores(["road", "tree", "car"])
    _close(scores.class_iou, [3 / 6, 3 / 5, 1 / 2])  # void pixels are no false alarms
    _close(scores.class_accuracy, [3 / 4, 3 / 4, 1 / 2])
    _close(scores.mean_iou, (3 / 6 + 3 / 5 + 1 / 2) / 3)
    _close(scores.mean_accuracy, 2 / 3)
    _close(scores.pixel_accuracy, 7 / 10)
    _close(scores.frequency_weighted_iou, (4 * 3 / 6 + 4 * 3 / 5 + 2 * 1 / 2) / 10)
    assert scores.pixels.tolist() == [4, 4, 2]
    assert scores.class_names == ("road", "tree", "car")


def test_pictures_are_summed_before_anything_is_divided():
    first = np.array([[0, 0, 0, 1]]), np.array([[0, 0, 0, 0]])
    second = np.array([[0]]), np.array([[1]])
    scores = _matrix(first, second, num_classes=2).scores()
    _close(scores.class_iou, [3 / 5, 0])  # the mean over the pictures would be 3 / 8 for class 0


def test_the_matrix_does_not_depend_on_the_layout_or_the_type():
    expected = _matrix((PREDICTION, LABEL)).matrix
    ways = [
        (torch.from_numpy(PREDICTION).long(), torch.from_numpy(LABEL)),
        (np.asfortranarray(PREDICTION), LABEL.astype(np.int32)),
        (PREDICTION[None].repeat(1, axis=0), LABEL[None]),
        (PREDICTION.T, LABEL.T),
        (PREDICTION[:, ::-1], LABEL[:, ::-1]),
    ]
    for prediction, label in ways:
        assert (_matrix((prediction, label)).matrix == expected).all()


def test_noise_without_areas_is_counted_pixel_by_pixel():
    random = np.random.default_rng(0)
    label, prediction = random.integers(0, 5, (2, 40, 30), dtype=np.uint8)
    expected = np.zeros((6, 6), int)
    for truth, seen in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        expected[truth, seen] += 1
    assert (_matrix((prediction, label), num_classes=5).matrix == expected).all()


def test_a_class_that_nothing_shows_has_no_iou_and_does_not_count():
    label, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]])
    scores = _matrix((prediction, label), num_classes=3).scores()
    _close(scores.class_iou, [2 / 3, 1 / 2, math.nan])
    _close(scores.mean_iou, (2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_with_nothing():
    label, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]])
    scores = _matrix((prediction, label), num_classes=3).scores()
    _close(scores.class_iou, [1, 1 / 2, 0])
    _close(scores.class_accuracy, [1, 1 / 2, math.nan])
    _close(scores.mean_iou, 1 / 2)
    _close(scores.mean_accuracy, 3 / 4)


def test_to_predict_ignore_is_a_miss():
    scores = _matrix((np.array([[0, 255]]), np.array([[0, 0]])), num_classes=1).scores()
    _close(scores.class_iou, [1 / 2])
    _close(scores.pixel_accuracy, 1 / 2)


def test_predictions_of_an_ignored_class_are_misses_and_its_labels_count_nowhere():
    confusion = ConfusionMatrix(3, ignored=[1])
    confusion.update(np.array([[0, 1, 2, 0, 2]]), np.array([[0, 0, 2, 1, 1]]))
    scores = confusion.scores()
    _close(scores.class_iou, [1 / 2, math.nan, 1])
    _close(scores.class_accuracy, [1 / 2, math.nan, 1])
    _close(scores.pixel_accuracy, 2 / 3)
    assert scores.pixels.tolist() == [2, 0, 1]


def test_a_void_label_changes_nothing_whatever_is_predicted_there():
    confusion = _matrix((PREDICTION, LABEL))
    before = confusion.scores()
    confusion.update(np.array([[0, 1, 2, 255]]), np.full((1, 4), 255))
    assert confusion.scores().mean_iou == before.mean_iou
    assert confusion.scores().pixel_accuracy == before.pixel_accuracy


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ([], "no picture was counted"),
        ([(np.zeros((0, 4), int), np.zeros((0, 4), int))], "no picture was counted"),
        ([(np.zeros((2, 3), int), np.full((2, 3), 255))], "all 6 pixels are ignored"),
    ],
)
def test_an_empty_set_is_refused(pictures, words):
    with pytest.raises(ValueError, match=f"nothing to score: {words}"):
        _matrix(*pictures).scores()


@pytest.mark.parametrize(
    ("prediction", "label", "words"),
    [
        (PREDICTION[:2], LABEL, r"the prediction is \[2, 4\], the label \[3, 4\]"),
        (PREDICTION, np.full((3, 4), 3), r"the label holds the value 3 \(12 pixels\); expected 0 to 2, or 255"),
        (np.full((3, 4), 7), LABEL, "the prediction holds the value 7"),
        (PREDICTION, LABEL.astype(np.int64) - 1, "the label holds values from -1 to 254"),
        (np.full((3, 4), 1000), LABEL, "the prediction holds values from 1000 to 1000"),
        (PREDICTION.astype(np.float32), LABEL, "the prediction is float32; expected integers"),
    ],
)
def test_what_is_no_label_is_refused_and_not_counted(prediction, label, words):
    confusion = _matrix((PREDICTION, LABEL))
    before = confusion.matrix.copy()
    with pytest.raises(ValueError, match=words) as caught:
        confusion.update(prediction, label)
    assert "\n" not in str(caught.value)
    assert (confusion.matrix == before).all()


def test_numbers_of_classes_and_names_are_checked():
    for wrong in (0, 256):
        with pytest.raises(ValueError, match="expected 1 to 255"):
            ConfusionMatrix(wrong)
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        _matrix((PREDICTION, LABEL)).scores(["road", "tree"])


def test_runs_end_where_any_map_changes():
    starts, lengths = runs(np.array([[1, 1, 1], [1, 2, 2]]), np.array([[5, 5, 6], [6, 6, 6]]))
    assert (starts.tolist(), lengths.tolist()) == ([0, 2, 4], [2, 2, 2])
    starts, lengths = runs(np.zeros((0, 3)))
    assert (starts.tolist(), lengths.tolist()) == ([], [])
