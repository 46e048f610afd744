"""Cross-entropy over pixels by hand: hard pixels, the least number kept, weights, and nothing to count."""

import math

import pytest
import torch
from torch.nn import functional as F

from segment.losses import PixelLoss


def logits_for(*probabilities):
    """[1, 2, 1, P] logits under which class 0 has the given probabilities."""
    given = torch.tensor(probabilities)
    return torch.stack((given.log(), (1 - given).log())).view(1, 2, 1, -1)


def zeros(count):
    return torch.zeros(1, 1, count, dtype=torch.int64)


def test_all_pixels_are_averaged_and_ignored_ones_left_out():
    logits, labels = logits_for(0.5, 0.25, 0.1), torch.tensor([[[0, 0, 255]]])
    expected = -(math.log(0.5) + math.log(0.25)) / 2
    torch.testing.assert_close(PixelLoss("all")(logits, labels), torch.tensor(expected))


def test_ohem_takes_those_under_the_threshold():
    logits = logits_for(0.9, 0.69, 0.71, 0.2)
    expected = -(math.log(0.69) + math.log(0.2)) / 2
    torch.testing.assert_close(PixelLoss("ohem", 0.7, 1 / 4)(logits, zeros(4)), torch.tensor(expected))


def test_ohem_takes_the_hardest_where_too_few_are_under_the_threshold():
    """Of 8 labelled pixels a quarter, 2, are kept; one is hard. The ignored pixel, the hardest, counts nowhere."""
    logits = logits_for(0.6, 0.99, 0.98, 0.8, 0.97, 0.96, 0.95, 0.94, 0.01)
    labels = zeros(9)
    labels[..., -1] = 255
    expected = -(math.log(0.6) + math.log(0.8)) / 2
    torch.testing.assert_close(PixelLoss("ohem", 0.7, 1 / 4)(logits, labels), torch.tensor(expected))


def test_ohem_keeps_a_sixteenth_of_the_labelled_pixels():
    logits = logits_for(*[0.99] * 30, 0.8, 0.9)
    expected = -(math.log(0.8) + math.log(0.9)) / 2  # 32 / 16 = 2
    torch.testing.assert_close(PixelLoss()(logits, zeros(32)), torch.tensor(expected))


def test_ohem_keeps_at_least_one_pixel():
    torch.testing.assert_close(PixelLoss()(logits_for(0.9, 0.8), zeros(2)), torch.tensor(-math.log(0.8)))


def test_only_the_pixels_taken_get_a_gradient():
    logits = logits_for(0.9, 0.2, 0.99).requires_grad_()
    PixelLoss("ohem", 0.7, 0.1)(logits, zeros(3)).backward()
    assert logits.grad[0, 0, 0].ne(0).tolist() == [False, True, False]


@pytest.mark.parametrize("pixels", ["all", "ohem"])
def test_class_weights_are_those_of_cross_entropy(pixels):
    """With a threshold of 1 every pixel is hard, so that both are the same."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 7), torch.randint(0, 3, (2, 5, 7))
    labels[0, 0] = 255
    weights = [0.5, 2.0, 7.0]
    expected = F.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=255)
    loss = PixelLoss(pixels, threshold=1.0, class_weights=weights)
    torch.testing.assert_close(loss(logits, labels), expected)


def test_hard_pixels_are_weighted_by_their_class():
    """Hard: one of class 0, weight 3, with ln 2, and one of class 1, weight 1, with ln 4; the easy one counts not."""
    logits, labels = logits_for(0.5, 0.75, 0.9), torch.tensor([[[0, 1, 0]]])
    expected = (3 * math.log(2) + math.log(4)) / (3 + 1)
    loss = PixelLoss("ohem", 0.7, 1 / 4, class_weights=[3.0, 1.0])
    torch.testing.assert_close(loss(logits, labels), torch.tensor(expected))


@pytest.mark.parametrize("loss", [PixelLoss("all"), PixelLoss("ohem"), PixelLoss("ohem", class_weights=[1.0, 2.0])])
def test_nothing_to_count_is_exactly_zero_without_a_gradient(loss):
    logits = torch.full((1, 2, 2, 2), float("inf"), requires_grad=True)  # zero times their loss is no zero
    value = loss(logits, torch.full((1, 2, 2), 255))
    value.backward()
    assert value.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros(1, 2, 2, 2))


def test_pixels_without_weight_are_zero_as_well():
    logits = logits_for(0.5, 0.2).requires_grad_()
    value = PixelLoss("all", class_weights=[0.0, 1.0])(logits, zeros(2))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


def test_half_precision_logits_are_counted_in_full():
    logits = logits_for(0.5, 0.25)
    value = PixelLoss("all")(logits.bfloat16(), zeros(2))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, PixelLoss("all")(logits, zeros(2)), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pixels": "hard"}, "pixels is 'hard'.*one of all, ohem"),
        ({"threshold": 0}, "threshold of the hard pixels is 0"),
        ({"least_kept": 2}, "least_kept of the hard pixels is 2"),
        ({"class_weights": [1, -1]}, r"class_weights are \[1, -1\]"),
    ],
)
def test_numbers_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PixelLoss(**options)
