"""The segmenters' weights that come with the package do what is said of them."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from backbones import read_metadata, read_state_dict
from pictures.images import read_image
from segment import Predictor, create_segmenter, shipped_weights
from segment.formats.coco_masks import CocoMasks
from segment.metrics import ConfusionMatrix

NAME = "bisenet_shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def label_people():
    return Predictor(create_segmenter(NAME, weights="person"))


@pytest.mark.parametrize("stem", shipped_weights())
def test_each_file_is_small_half_precision_and_names_its_net(stem):
    path = shipped_weights()[stem]
    metadata = read_metadata(path)
    assert stem.startswith(metadata["name"] + "_")
    assert json.loads(metadata["class_names"])
    assert path.stat().st_size < 4_000_000
    assert {value.dtype for value in read_state_dict(path).values()} <= {torch.float16, torch.int64}


def test_the_astronaut_is_cut_out(label_people):
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image is not installed: no picture of the astronaut here")
    labels = label_people(read_image(Path(package.origin).parent / "data" / "astronaut.png")).labels.numpy()
    assert labels.shape == (512, 512)
    assert labels[120:480, 180:260].mean() > 0.9  # face, neck, chest, by eye
    assert labels[:250, :60].mean() < 0.2  # the flag behind her
    assert labels[20:200, 420:500].mean() < 0.2  # the shuttle


def test_iou_on_the_held_out_pictures(label_people, data_dir):
    folder = data_dir / "coco_person"
    data = CocoMasks(folder / "person_val.json", folder / "val", class_names=("person",))
    assert len(data) == 113
    confusion = ConfusionMatrix(2)
    for index in range(len(data)):
        image, labels = data[index]
        found = label_people(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        confusion.update(found.labels, labels)
    assert confusion.scores(("background", "person")).class_iou[1] >= 0.6
