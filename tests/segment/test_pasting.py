"""Objects of one training picture in another."""

import pytest
import torch
from numpy.random import default_rng

from segment.losses import IGNORE
from segment.pasting import PastedObjects


class Blocks:
    """Picture i is all of value 10 i; with an object at column i, an unsure column beside it; moved by the seed."""

    def __len__(self):
        return 5

    def __getitem__(self, request):
        index, seed, (height, width) = request
        image = torch.full((3, height, width), 10 * index, dtype=torch.uint8)
        labels = torch.zeros((height, width), dtype=torch.uint8)
        column = (index + seed % 3) % (width - 1)
        labels[:, column], labels[:, column + 1] = 1, IGNORE
        return image, labels


def test_the_sure_part_of_another_picture_goes_over_the_picture():
    data, plain = PastedObjects(Blocks(), 1.0), Blocks()
    pasted = 0
    for seed in range(40):
        image, labels = data[2, seed, (4, 12)]
        before_image, before = plain[2, seed, (4, 12)]
        is_new = image[0] != before_image[0]
        assert (labels[is_new] == 1).all()  # what came along is labelled
        assert torch.equal(labels[~is_new & (labels != 1)], before[~is_new & (labels != 1)])  # the rest is as it was
        assert len(image[0][is_new].unique()) <= 1  # of one other picture
        pasted += bool(is_new.any())
    assert pasted >= 25  # all but those that met themselves


def test_the_same_request_gives_the_same_and_the_chance_is_kept():
    data, plain = PastedObjects(Blocks(), 0.3), Blocks()
    changed = 0
    for seed in range(300):
        image, labels = data[0, seed, (3, 9)]
        again_image, again = data[0, seed, (3, 9)]
        assert torch.equal(image, again_image)
        assert torch.equal(labels, again)
        changed += not torch.equal(labels, plain[0, seed, (3, 9)][1])
    assert 0.15 < changed / 300 < 0.35  # a few fall onto the object that is there


def test_what_is_pasted_does_not_hang_on_the_transforms_own_numbers():
    """Of the pictures whose transform draws below a half first (and mirrors), half get objects; not all of them."""
    asked = []

    class Noted(Blocks):
        def __getitem__(self, request):
            asked.append(request)
            return super().__getitem__(request)

    data, mirrored = PastedObjects(Noted(), 0.5), [seed for seed in range(400) if default_rng(seed).random() < 0.5]
    for seed in mirrored:
        data[0, seed, (1, 3)]
    assert 0.4 < (len(asked) - len(mirrored)) / len(mirrored) < 0.6


def test_a_probability_is_checked():
    with pytest.raises(ValueError, match=r"paste_probability is 1\.5"):
        PastedObjects(Blocks(), 1.5)
