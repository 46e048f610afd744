"""Several passes over a picture: what the net is shown, where its boxes come to lie, and what a user gets."""

import numpy as np
import pytest
import torch
from torch import nn

from detect import Predictor, RawDetections, create_detector
from detect.multi_pass import MultiPassPredictor


class RedFinder(nn.Module):
    """Answers like a detector: a box around all that is red in what it is shown, surer where that is larger."""

    class_names = ("nothing", "block")
    input_size = (96, 128)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.shown = []

    def forward(self, images):
        self.shown.append(tuple(images.shape[2:]))
        red = (images[0, 0] > 150) & (images[0, 1] < 100)
        rows, columns = torch.nonzero(red, as_tuple=True)
        if len(rows) < 4:
            return RawDetections(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2))
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        score = min(0.95, 0.3 + len(rows) / 2000)
        return RawDetections(torch.stack(corners).float()[None, None], torch.tensor([[[0.0, score]]]))


class LoneSided:
    """Finds a block only where it lies in the right half of what it is shown, always at the same place."""

    class_names = ("block",)
    input_size = (96, 128)

    def __call__(self, images):
        is_right = bool((images[0, 0, :, 64:] > 150).any())
        score = 0.8 if is_right else 0.0
        return RawDetections(torch.tensor([[[80.0, 24, 112, 48]]]), torch.tensor([[[score]]]))


def scene(*blocks, size=(192, 256)):
    picture = np.full((*size, 3), 128, np.uint8)
    for x1, y1, x2, y2 in blocks:
        picture[y1:y2, x1:x2] = (220, 20, 20)
    return picture


def several(net, score_threshold=0.2, **options):
    predictor = MultiPassPredictor(Predictor(net, score_threshold=score_threshold), **options)
    return predictor, predictor.predictor._model


def test_one_look_answers_as_the_predictor_does():
    picture = scene((40, 30, 100, 90))
    simple = Predictor(RedFinder())(picture)
    one = MultiPassPredictor(Predictor(RedFinder()))(picture)
    torch.testing.assert_close(one.boxes, simple.boxes)
    torch.testing.assert_close(one.scores, simple.scores)
    assert one.labels.tolist() == simple.labels.tolist() == [1]


@pytest.mark.parametrize("options", [{"flip": True}, {"scales": (0.5, 1, 1.5)}, {"flip": True, "scales": (1, 2)}])
def test_every_look_sees_the_same_object(options):
    predictor, net = several(RedFinder(), **options)
    found = predictor(scene((40, 30, 100, 90)))
    assert len(found) == 1
    torch.testing.assert_close(found.boxes, torch.tensor([[40.0, 30, 100, 90]]), atol=2.5, rtol=0)
    turns = 2 if "flip" in options else 1
    sizes = [(96 * scale, 128 * scale) for scale in options.get("scales", (1,)) for _ in range(turns)]
    assert net.shown == sizes


def test_mirrored_boxes_come_back_and_scores_are_averaged():
    # In the picture 256 x 192 the block is at x 40..100; mirrored, and at half the size, at 78..108.
    picture = scene((40, 48, 100, 96))
    assert len(Predictor(LoneSided())(picture)) == 0
    found = MultiPassPredictor(Predictor(LoneSided(), score_threshold=0.3), flip=True)(picture)
    torch.testing.assert_close(found.boxes, torch.tensor([[2 * (128 - 112.0), 48, 2 * (128 - 80.0), 96]]))
    torch.testing.assert_close(found.scores, torch.tensor([0.4]))
    assert len(MultiPassPredictor(Predictor(LoneSided(), score_threshold=0.5), flip=True)(picture)) == 0


def test_windows_see_small_things_in_a_large_picture():
    """Blocks that are specks in the whole picture; one of them across the edges of windows."""
    blocks = [(20, 20, 40, 40), (900, 500, 920, 520), (395, 30, 421, 50)]
    picture = scene(*blocks, size=(600, 1000))
    predictor, net = several(RedFinder(), score_threshold=0.34, window=(192, 256))
    found = predictor(picture)
    windows = [looks[0].window for looks in predictor.looks((600, 1000))]
    assert windows[0] == (0, 0, 1000, 600)
    assert len(windows) == 1 + 4 * 5 == len(net.shown)
    assert set(net.shown) == {(96, 128)}
    right = [box for box in found.boxes.tolist() if box[2] - box[0] < 100]
    torch.testing.assert_close(torch.tensor(sorted(right)), torch.tensor(sorted(blocks)).float(), atol=3, rtol=0)


def test_a_picture_within_one_window_is_seen_once():
    predictor, net = several(RedFinder(), window=(400, 400))
    predictor(scene((40, 30, 100, 90)))
    assert net.shown == [(96, 128)]


def test_all_together_and_an_empty_picture():
    predictor, net = several(RedFinder(), window=(96, 128), scales=(0.5, 1), flip=True, overlap=0.0)
    assert len(predictor(scene())) == 0
    assert len(net.shown) == (1 + 4) * 2 * 2
    assert (predictor.class_names, predictor.size, predictor.device) == (
        ("nothing", "block"),
        (96, 128),
        torch.device("cpu"),
    )


def test_at_most_so_many():
    net = create_detector("thundernet_shufflenet_v2_x0_5", num_classes=3).eval()
    with torch.no_grad():
        net.head.classify.bias[-1] = -3  # an untrained net that finds things everywhere
    picture = np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)
    single = Predictor(net, size=(96, 96), score_threshold=0.05, max_detections=7)
    found = MultiPassPredictor(single, flip=True, window=(100, 100))(picture)
    assert len(found) == 7
    assert (found.scores.diff() <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([200.0, 150, 200, 150])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": ()}, r"scales are \[\]; expected one or more numbers above 0"),
        ({"scales": (1, -1)}, r"scales are \[1, -1\]"),
        ({"scales": (float("nan"),)}, "scales are"),
        ({"scales": (1, 1e9)}, "expected one or more numbers above 0, at most 16"),
        ({"window": (100,)}, r"window is \(100,\); expected \(height, width\)"),
        ({"window": (0, 10)}, "window is"),
        ({"window": 352}, "window is 352; expected"),
        ({"window": (64.5, 64)}, "window is"),
        ({"window": (64, 64), "overlap": 1.0}, "overlap is 1.0; expected a part of a window"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MultiPassPredictor(Predictor(RedFinder()), **options)


def test_a_picture_that_is_none_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        MultiPassPredictor(Predictor(RedFinder()), flip=True)(np.zeros((10, 10, 3)))
