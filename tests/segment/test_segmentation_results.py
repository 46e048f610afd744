"""The labelled picture that a user holds refuses what is none."""

import pytest
import torch

from segment import Segmentation


def test_labels_and_scores_that_go_together():
    found = Segmentation(torch.zeros(4, 5, dtype=torch.int64), torch.zeros(3, 4, 5))
    assert found.to("meta").scores.device.type == "meta"
    assert Segmentation(found.labels).to("meta").scores is None


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        (torch.zeros(1, 4, 5).long(), None, r"torch.int64 \[1, 4, 5\]; expected torch.int64 \[H, W\]"),
        (torch.zeros(4, 5), None, "labels are torch.float32"),
        (torch.zeros(4, 5).long(), torch.zeros(3, 5, 4), r"\[3, 5, 4\] and \[4, 5\]"),
        (torch.zeros(4, 5).long(), torch.zeros(4, 5), "expected"),
    ],
)
def test_others_are_refused(labels, scores, words):
    with pytest.raises(ValueError, match=words):
        Segmentation(labels, scores)
