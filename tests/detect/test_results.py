"""The value that a user holds."""

import pytest
import torch

from detect import Detections


@pytest.fixture
def three():
    boxes = torch.tensor([[0.0, 0, 10, 20], [5, 5, 6, 6], [1, 2, 3, 4]])
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0, 1, 0]))


def test_choosing_keeps_the_type(three):
    assert len(three) == 3
    assert three[three.scores > 0.4].labels.tolist() == [0, 1]
    assert three[:1].scores.tolist() == pytest.approx([0.9])
    assert three[1].boxes.tolist() == [[5, 5, 6, 6]]
    assert three[three.scores.argmin()].labels.tolist() == [0]
    assert len(three[torch.tensor([], dtype=torch.long)]) == 0


def test_scaled(three):
    assert three.scaled(2, 0.5).boxes[0].tolist() == [0, 0, 20, 10]
    assert three.boxes[0].tolist() == [0, 0, 10, 20]


def test_shapes_that_disagree_are_refused(three):
    with pytest.raises(ValueError, match=r"\(3, 4\), \(2,\), \(3,\).*expected \[K, 4\], \[K\] and \[K\]"):
        Detections(three.boxes, three.scores[:2], three.labels)
