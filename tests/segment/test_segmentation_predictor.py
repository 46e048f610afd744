"""The predictor: any picture in, a label for each of its own pixels out."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segment import Predictor, Segmenter, create_segmenter
from segment.inference import predict_labels
from segment.predictor import labels_at


class Stripes:
    """Answers like a net that was made for 32 x 64: three classes in equal stripes from left to right."""

    class_names = ("left", "middle", "right")
    input_size = (32, 64)

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        columns = torch.arange(images.shape[-1]) * 3 // images.shape[-1]
        return 8.0 * nn.functional.one_hot(columns).T[None, :, None].expand(1, 3, *images.shape[-2:])


@pytest.fixture(scope="module")
def net() -> Segmenter:
    torch.manual_seed(0)
    return create_segmenter("bisenet_xception39", num_classes=3)


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(32, 64), (120, 90), (64, 128), (1, 30), (30, 1)])
def test_each_pixel_of_the_picture_gets_a_label(size):
    found = Predictor(Stripes())(_picture(*size))
    assert found.labels.shape == size
    assert found.labels.dtype == torch.int64
    assert found.scores is None
    if size[1] == 90:
        assert found.labels[:, [10, 45, 80]].unique(dim=0).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize(
    ("picture", "seen"),
    [((32, 64), (32, 64)), ((64, 128), (32, 64)), ((64, 32), (64, 32)), ((90, 90), (45, 45)), ((8, 16), (32, 64))],
)
def test_the_net_sees_as_many_pixels_as_it_is_made_for_in_the_shape_of_the_picture(picture, seen):
    stripes = Stripes()
    Predictor(stripes)(_picture(*picture))
    assert stripes.seen == [(1, 3, *seen)]


def test_a_size_of_ones_own_replaces_the_nets():
    stripes = Stripes()
    Predictor(stripes, size=(16, 16))(_picture(40, 40))
    assert stripes.seen == [(1, 3, 16, 16)]


def test_scores_are_kept_on_request():
    found = Predictor(Stripes(), keep_scores=True)(_picture(60, 90))
    assert found.scores is not None
    assert found.scores.shape == (3, 60, 90)
    torch.testing.assert_close(found.scores.sum(dim=0), torch.ones(60, 90))
    torch.testing.assert_close(found.scores.argmax(dim=0), found.labels, rtol=0, atol=0)
    assert 0 < found.scores[1, 30, 30] < found.scores[1, 30, 45]  # soft at the edge of the stripe


@pytest.mark.parametrize("classes", [2, 5])
def test_the_scores_of_one_class_are_those_of_all(net, classes):
    logits = torch.randn(1, classes, 20, 30, generator=torch.Generator().manual_seed(0))
    every = Predictor(net, keep_scores=True).finish(logits, (37, 50)).scores.numpy()
    for label, expected in enumerate(every):
        np.testing.assert_allclose(Predictor(net).class_scores(logits, (37, 50), label), expected, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("size", [(37, 50), (20, 30), (9, 61)])
def test_labels_are_those_of_the_resized_logits(classes, size):
    logits = torch.randn(1, classes, 20, 30, generator=torch.Generator().manual_seed(0))
    kept = logits.clone()
    expected = predict_labels(logits, size)[0]
    found = labels_at(logits[0].numpy(), size)
    assert found.dtype == np.uint8
    assert (torch.from_numpy(found) == expected).float().mean() > 0.999  # but for ties within rounding
    torch.testing.assert_close(logits, kept, rtol=0, atol=0)
    assert labels_at(torch.zeros(classes, 4, 4).numpy(), (8, 8)).max() == 0  # of equal classes the first


def test_a_net_answers_as_its_own_predict(net):
    net.eval()
    picture = _picture(64, 96)
    found = Predictor(net, size=(64, 96), keep_scores=True)(picture)
    expected = net.predict(torch.from_numpy(picture).permute(2, 0, 1)[None], scores=True)[0]
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)  # batch norms are folded in
    assert (found.labels == expected.labels).float().mean() > 0.99


def test_training_the_net_on_does_not_change_the_predictor(net):
    predictor, picture = Predictor(net, size=(64, 64), keep_scores=True), _picture(64, 64)
    before = predictor(picture).scores
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(predictor(picture).scores, before, rtol=0, atol=0)
    for parameter in net.parameters():
        parameter.data.sub_(1.0)


def test_a_read_only_view_of_a_larger_picture_is_taken():
    picture = _picture(64, 128)[:, ::-2]
    picture.flags.writeable = False
    images = Predictor(Stripes(), size=(64, 64)).prepare(picture)
    torch.testing.assert_close(images[0, 0], torch.from_numpy(picture[:, :, 0].copy()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((4, 4), np.uint8), r"\[4, 4\] of uint8"),
        (np.zeros((4, 4, 3), np.float32), "of float32; expected .* uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "a Tensor; expected a NumPy array"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_line(picture, words):
    with pytest.raises(ValueError, match=words) as caught:
        Predictor(Stripes())(picture)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(0, 32), (32,), (32, -1)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="expected \\(height, width\\)"):
        Predictor(Stripes(), size=size)
