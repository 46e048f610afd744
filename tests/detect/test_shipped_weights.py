"""The weights that come with the package do what is said of them."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from backbones import read_metadata, read_state_dict
from detect import Predictor, create_detector, shipped_weights
from detect.boxes import pairwise_iou
from detect.formats.boxed_pictures import collate
from detect.formats.coco import CocoDetection
from detect.metrics import coco_results, evaluate_detections
from detect.transforms import Resize
from pictures.images import read_image

ASTRONAUT = [[24.0, 14, 365, 512]]  # noted by hand: hair, both shoulders, the lower edge


@pytest.fixture
def person_detector():
    return create_detector("thundernet_shufflenet_v2_x0_5", weights="person")


@pytest.mark.parametrize("stem", shipped_weights())
def test_each_file_is_small_half_precision_and_names_its_net(stem):
    path = shipped_weights()[stem]
    metadata = read_metadata(path)
    assert stem.startswith(metadata["name"] + "_")
    assert json.loads(metadata["class_names"])
    assert path.stat().st_size < 5_000_000
    kinds = {value.dtype for value in read_state_dict(path).values()}
    assert kinds <= {torch.float16, torch.int64}


def test_there_is_a_person_detector():
    assert any(stem.endswith("_person") for stem in shipped_weights())


def test_the_astronaut_is_found(person_detector):
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        pytest.skip("scikit-image is not installed: no picture of the astronaut here")
    picture = read_image(Path(package.origin).parent / "data" / "astronaut.png")
    found = Predictor(person_detector, score_threshold=0.5)(picture)
    assert len(found) == 1
    assert float(pairwise_iou(found.boxes, torch.tensor(ASTRONAUT))) > 0.5


def test_average_precision_on_the_held_out_pictures(person_detector, data_dir):
    folder = data_dir / "coco_person"
    data = CocoDetection(folder / "person_val.json", folder / "val", transform=Resize(person_detector.input_size))
    results = []
    for start in range(0, len(data), 10):
        images, targets = collate([data[index] for index in range(start, start + 10)])
        for target, found in zip(targets, person_detector.predict(images), strict=True):
            (height, width), (net_height, net_width) = target.original_size, images.shape[-2:]
            scaled = found.scaled(width / net_width, height / net_height)
            results += coco_results(scaled, target.image_id, data.category_ids)
    figures = evaluate_detections(results, folder / "person_val.json").figures
    assert figures["AP"] >= 0.25
    assert figures["AP50"] >= 0.49
