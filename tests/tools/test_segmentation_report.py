"""Tables and pictures of a segmenter's evaluation, label and colour files."""

import math

import numpy as np
import pytest
from PIL import Image
from swiftsight_tools.frames.label_pictures import write_cityscapes_ids, write_colours, write_labels
from swiftsight_tools.scoring.segmentation_report import cityscapes_table, class_table, draw_confusion

from segment.cityscapes_scores import CityscapesEvaluation
from segment.formats.cityscapes import CLASSES
from segment.metrics import ConfusionMatrix


def _confusion(num_classes: int = 3) -> ConfusionMatrix:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(np.array([[0, 0, 1, 1, 1, 1, 255]]), np.array([[0, 0, 0, 1, 1, 255, 1]]))
    return confusion


def test_the_table_names_classes_figures_and_means():
    lines = class_table(_confusion().scores(["road", "tree", "car"])).splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["road", "66.7", "66.7", "50.0"],
        ["tree", "50.0", "66.7", "50.0"],
        ["car", "-", "-", "0.0"],
        ["mean", "of", "classes", "58.3", "66.7"],
        ["mean", "by", "pixels", "58.3", "66.7"],
    ]


def test_cityscapes_table_lists_scored_classes_and_categories():
    evaluation = CityscapesEvaluation()
    evaluation.update(np.array([[7, 26, 26]]), np.array([[7, 26, 7]]), np.array([[7, 26001, 7]]))
    text = cityscapes_table(evaluation.scores())
    rows = {line.split("  ")[0]: line.split()[-2:] for line in text.splitlines() if line}
    assert rows["road"] == ["50.0", "-"]
    assert rows["car"][0] == "50.0"
    assert float(rows["car"][1]) > 99  # one false pixel beside an instance that counts for 12,794
    assert rows["vehicle"][0] == "50.0"
    assert "parking" not in rows
    assert "mean of classes" in rows
    assert "mean of categories" in rows


@pytest.mark.parametrize("num_classes", [3, 40])
def test_the_confusion_matrix_becomes_a_picture(num_classes, tmp_path):
    path = tmp_path / "new" / "confusion.png"
    names = [f"class {place}" for place in range(num_classes)]
    draw_confusion(_confusion(num_classes), names, path, "made up")
    picture = np.array(Image.open(path).convert("RGB"))
    assert min(picture.shape[:2]) > 150
    dark_blue = (picture[:, :, 2].astype(int) - picture[:, :, 0] > 60).mean()
    assert dark_blue > 0.005  # cells on the diagonal


def test_label_values_come_back_as_they_were(tmp_path):
    labels = np.array([[0, 1, 2], [255, 18, 7]])
    write_labels(tmp_path / "labels.png", labels)
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode == "L"
        assert np.array(picture).tolist() == labels.tolist()


def test_a_submission_holds_label_ids_under_the_name_that_the_server_finds(tmp_path):
    labels = np.array([[0, 11, 18], [255, 13, 2]])
    path = write_cityscapes_ids(tmp_path, "frankfurt_000000_000294_leftImg8bit.png", labels)
    assert path.name == "frankfurt_000000_000294_labelIds.png"
    ids = [[7, 24, 33], [0, 26, 11]]
    assert np.array(Image.open(path)).tolist() == ids


def test_colours_come_back_as_they_were(tmp_path):
    colours = np.array([label.colour for label in CLASSES], np.uint8)
    write_colours(tmp_path / "colours.png", np.array([[0, 13], [255, 18]]), colours)
    found = np.array(Image.open(tmp_path / "colours.png").convert("RGB")).tolist()
    assert found == [[[128, 64, 128], [0, 0, 142]], [[0, 0, 0], [119, 11, 32]]]


def test_formats_that_change_values_are_refused(tmp_path):
    for write in (
        lambda path: write_labels(path, np.zeros((2, 2))),
        lambda path: write_colours(path, np.zeros((2, 2)), []),
    ):
        with pytest.raises(ValueError, match=r"labels are written as \.png"):
            write(tmp_path / "labels.jpg")
    assert list(tmp_path.iterdir()) == []


def test_undefined_means_are_shown_as_such():
    evaluation = CityscapesEvaluation()
    evaluation.update(np.array([[7]]), np.array([[7]]))
    scores = evaluation.scores()
    assert math.isnan(scores.mean_category_iiou)
    assert cityscapes_table(scores).splitlines()[-1].split()[-2:] == ["100.0", "-"]
