"""Outlines for boxes, drawn by a stand-in for a segmenter that sees red as a person."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools import outline_boxes

from segment.formats.coco_masks import CocoMasks
from segment.losses import IGNORE

SIZE = 100, 120  # height, width
RED, FAINT = (230, 10, 10), (125, 60, 60)


class RedPerson(torch.nn.Module):
    """Pure red is surely class 1, the faint red hardly."""

    class_names, input_size = ("background", "person"), (64, 64)

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        redness = (images[:, 0].float() - images[:, 1].float()) / 220
        return torch.stack((torch.zeros_like(redness), 16 * redness - 8), dim=1)


@pytest.fixture
def outliner(monkeypatch):
    monkeypatch.setattr(outline_boxes, "choose_weights", lambda model, weights: ("red", weights))
    monkeypatch.setattr(outline_boxes, "create_segmenter", lambda name, weights: RedPerson())
    return outline_boxes.BoxOutliner("red.safetensors", "person")


def _picture() -> np.ndarray:
    """Grey; left a red block, right a faint one."""
    picture = np.full((*SIZE, 3), 90, np.uint8)
    picture[30:70, 20:40], picture[30:70, 80:100] = RED, FAINT
    return picture


def test_what_is_red_in_its_box_is_sure_and_what_is_grey_is_not(outliner):
    (sure,), unsure = outliner.outline(_picture(), [(15, 25, 45, 75)])
    assert sure[32:68, 22:38].all()
    assert not sure[:, :15].any()
    assert not sure[:25].any()
    corners = np.zeros(SIZE, bool)
    corners[26:29, 16:19] = corners[71:74, 41:44] = True
    assert not (sure | unsure)[corners].all()  # the least red fifth, at least
    assert not unsure[:, 45:].any()


def test_a_box_in_which_the_net_sees_little_still_holds_its_third(outliner):
    (sure,), unsure = outliner.outline(_picture(), [(75, 25, 105, 75)])
    assert 0.3 <= sure[25:75, 75:105].mean() <= 0.6
    assert sure[40:60, 85:95].mean() > 0.8
    assert unsure[25:75, 75:105].any()


def test_a_box_around_many_others_is_left_to_them(outliner):
    small = [(20 + 5 * step, 35, 24 + 5 * step, 40) for step in range(4)]
    sure, unsure = outliner.outline(_picture(), [*small, (10, 20, 110, 80)])
    assert not sure[-1].any()
    assert unsure[20:80, 10:110].all()


@pytest.fixture
def boxes_alone(tmp_path):
    """Two pictures: one object with an outline, one with a box."""
    Image.fromarray(_picture()).save(tmp_path / "a.png")
    Image.fromarray(_picture()).save(tmp_path / "b.png")
    own = [[20, 30, 40, 30, 40, 70, 20, 70]]
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "height": 100, "width": 120} for i, n in ((1, "a"), (2, "b"))],
        "categories": [{"id": 7, "name": "person"}, {"id": 8, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "bbox": [20, 30, 20, 40], "area": 800}
            | {"segmentation": own},
            {"id": 2, "image_id": 2, "category_id": 7, "iscrowd": 0, "bbox": [15, 25, 30, 50], "area": 1500},
            {"id": 3, "image_id": 2, "category_id": 8, "iscrowd": 0, "bbox": [1, 2, 3, 4], "area": 12},
        ],
    }
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return path


def test_the_file_can_be_learnt_from(outliner, boxes_alone, tmp_path, capsys):
    words = ["red.safetensors", "--annotations", str(boxes_alone), "--pictures", str(tmp_path)]
    path = tmp_path / "outlined.json"
    assert outline_boxes.main([*words, "--output", str(path)]) == 0
    assert "2 pictures: 1 outlines drawn, 1 objects left as they were" in capsys.readouterr().out
    data = CocoMasks(path, tmp_path, class_names=["person"])
    assert len(data) == 2  # without outlines of its own, the second would be left out
    own, drawn = (np.asarray(data[index][1]) for index in range(2))
    assert set(np.unique(own)) == {0, 1}
    assert (drawn[32:68, 22:38] == 1).all()
    assert (drawn[30:70, 80:100] == 0).all()  # outside the box, whatever it looks like
    assert IGNORE in drawn
    assert outline_boxes.main([*words, "--output", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_net_without_the_class_is_refused(outliner):
    with pytest.raises(ValueError, match="knows background, person, but not horse"):
        outline_boxes.BoxOutliner("red.safetensors", "horse")
