"""Cityscapes' scores: against figures worked out by hand, and against the data set's own evaluation."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from segment.cityscapes_scores import AVERAGE_INSTANCE_PIXELS, CATEGORIES, CityscapesEvaluation
from segment.formats.cityscapes import LABELS

ROOT = Path(__file__).resolve().parents[2]
ROAD, PARKING, PERSON, RIDER, CAR, CARAVAN = 7, 9, 24, 25, 26, 29


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark's script, which makes frames and runs the data set's own evaluation."""
    path = ROOT / "benchmarks" / "segmentation_metric.py"
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _close(actual: float, expected: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0, equal_nan=True)


def _scores(prediction, label, instances=None):
    evaluation = CityscapesEvaluation()
    as_row = [None if values is None else np.array([values]) for values in (prediction, label, instances)]
    evaluation.update(*as_row)
    return evaluation.scores()


def test_every_label_with_instances_that_is_scored_has_a_mean_size():
    assert set(AVERAGE_INSTANCE_PIXELS) == {label.name for label in LABELS if label.has_instances and not label.ignored}
    assert CATEGORIES == ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


def test_classes_and_categories_by_hand():
    label = [ROAD, ROAD, ROAD, PERSON, PERSON, RIDER, PARKING, 0]
    prediction = [ROAD, PARKING, 0, PERSON, RIDER, CAR, ROAD, CAR]
    scores = _scores(prediction, label)
    iou = dict(zip(scores.classes.class_names, scores.classes.class_iou.tolist(), strict=True))
    _close(iou["road"], 1 / 3)  # what was taken for an ignored class is missed; on ignored labels nothing is wrong
    _close(iou["person"], 1 / 2)
    _close(iou["rider"], 0.0)
    _close(iou["car"], 0.0)
    _close(scores.classes.mean_iou, (1 / 3 + 1 / 2) / 4)
    assert math.isnan(iou["parking"])
    assert math.isnan(iou["truck"])
    _close(scores.category_iou["human"], 2 / 3)  # person and rider within it are not told apart
    _close(scores.category_iou["flat"], 1 / 3)
    _close(scores.category_iou["vehicle"], 0.0)
    _close(scores.mean_category_iou, (2 / 3 + 1 / 3 + 0) / 3)


def test_instances_count_alike_whatever_their_size():
    label = [CAR] * 5 + [ROAD] * 3 + [0, PARKING]  # what is predicted on the last two counts nowhere
    instances = [CAR * 1000 + 1] * 4 + [CAR * 1000 + 2] + [ROAD] * 3 + [0, PARKING]
    prediction = [CAR, CAR, CAR, ROAD, CARAVAN, CAR, CARAVAN, ROAD, CAR, CAR]
    scores = _scores(prediction, label, instances)
    size = AVERAGE_INSTANCE_PIXELS["car"]
    large, small = size / 4, size / 1
    _close(scores.class_iiou["car"], 3 * large / (4 * large + small + 1))
    # For the category a caravan, though not scored itself, is a vehicle, as a hit and as a false alarm.
    _close(scores.category_iiou["vehicle"], (3 * large + small) / (4 * large + small + 2))
    _close(scores.category_iou["vehicle"], 3 / (3 + 1 + 2))
    assert set(scores.category_iiou) == {"human", "vehicle"}


def test_groups_and_ignored_instances_have_no_instance_score():
    label = [PERSON, PERSON, CARAVAN, ROAD]
    scores = _scores(label, label, [PERSON, PERSON, CARAVAN * 1000 + 3, ROAD])
    _close(dict(zip(scores.classes.class_names, scores.classes.class_iou.tolist(), strict=True))["person"], 1.0)
    assert all(math.isnan(value) for value in scores.class_iiou.values())
    assert math.isnan(scores.mean_class_iiou)


def test_without_instances_only_the_iou_is_defined():
    scores = _scores([CAR, ROAD], [CAR, ROAD])
    _close(scores.classes.mean_iou, 1.0)
    assert math.isnan(scores.class_iiou["car"])


@pytest.mark.parametrize(
    ("prediction", "label", "instances", "words"),
    [
        ([255, 7], [7, 7], None, "the prediction holds the value 255; expected label ids from 0 to 33"),
        ([7, 7], [34, 7], None, "the label holds the value 34"),
        ([7], [7, 7], None, "the prediction is .*, the label .*; expected one size"),
        ([7, 7], [7, 7], [7], "the instance ids are .*; expected integers of the label's size"),
        ([7, 7], [7, 7], [7.0, 7.0], "of float64"),
        ([7, 7], [7, 7], [7, 34000], "the instance ids reach from 7 to 34000"),
        ([7, 7], [7, 7], [-1, 7], "the instance ids reach from -1 to 7"),
    ],
)
def test_what_are_no_ids_is_refused_and_not_counted(prediction, label, instances, words):
    with pytest.raises(ValueError, match=words) as caught:
        _scores(prediction, label, instances)
    assert "\n" not in str(caught.value)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="nothing to score"):
        CityscapesEvaluation().scores()
    with pytest.raises(ValueError, match="all 2 pixels are ignored"):
        _scores([7, 7], [0, PARKING])


def test_it_equals_the_published_evaluation_on_full_size_frames(benchmark, tmp_path, monkeypatch):
    for needed in ("cityscapesscripts", "pyquaternion"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: no published evaluation to compare with")
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # so that what the script mends does not outlive the test
    frames = [benchmark.make_frame(seed) for seed in range(3)]
    assert all(frame.label.shape == (1024, 2048) for frame in frames)
    pairs = benchmark.write_frames(tmp_path, frames)
    theirs = benchmark.published_scores(benchmark.published_evaluation(), pairs)
    ours = benchmark.our_scores(benchmark.read_frames(pairs))
    assert 0.2 < ours.classes.mean_iou < 0.95  # the frames hold right and wrong answers
    assert 0.2 < ours.mean_class_iiou < 0.95
    off = benchmark.differences(theirs, ours)
    assert len(off) == 4 + 2 * 34 + 2 * 8
    assert max(off.values()) < 1e-12
    matrix = np.array(theirs["confMatrix"], dtype=np.int64)
    evaluation = CityscapesEvaluation()
    for frame in frames:
        evaluation.update(frame.prediction, frame.label, frame.instances)
    assert (evaluation.confusion.matrix[:-1, :-1] == matrix).all()


def test_the_comparison_finds_a_figure_that_is_off(benchmark, tmp_path):
    frame = benchmark.make_frame(0, (64, 128))
    ours = benchmark.our_scores([frame])
    other = benchmark.our_scores([frame._replace(prediction=np.roll(frame.prediction, 9))])
    theirs = {
        "averageScoreClasses": other.classes.mean_iou,
        "averageScoreInstClasses": other.mean_class_iiou,
        "averageScoreCategories": other.mean_category_iou,
        "averageScoreInstCategories": math.nan,
        "classScores": {"road": 0.5},
        "classInstScores": {},
        "categoryScores": {},
        "categoryInstScores": {},
    }
    off = benchmark.differences(theirs, ours)
    assert off["mean IoU of classes"] > 1e-3
    assert off["mean iIoU of categories"] == math.inf
