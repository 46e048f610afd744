"""The training's order of pictures: every picture once an epoch, and the same from wherever it begins."""

import numpy as np
import pytest
from swiftsight_tools.training.sampler import TrainingSampler, repeat_factors

SIZES = [(64, 64), (96, 64), (128, 96)]


def batches(sampler: TrainingSampler, epoch: int, start: int = 0) -> list[list[tuple[int, int, tuple[int, int]]]]:
    sampler.set_position(epoch, start)
    return list(sampler)


def test_an_epoch_shows_every_picture_once_and_drops_the_rest() -> None:
    sampler = TrainingSampler(23, 4, SIZES, seed=5)
    epoch = batches(sampler, 0)
    assert len(epoch) == len(sampler) == 5
    indices = [index for batch in epoch for index, _, _ in batch]
    assert len(set(indices)) == 20
    assert set(indices) <= set(range(23))
    shown = [{index for batch in batches(sampler, number) for index, _, _ in batch} for number in range(9)]
    assert set.intersection(*shown) != shown[0]  # not always the same three are dropped


def test_one_size_a_batch_and_all_sizes_in_turn() -> None:
    sampler = TrainingSampler(60, 2, SIZES, seed=0)
    sizes = [{size for _, _, size in batch} for batch in batches(sampler, 0)]
    assert all(len(found) == 1 for found in sizes)
    assert set().union(*sizes) == set(SIZES)


def test_epochs_and_seeds_differ() -> None:
    sampler = TrainingSampler(20, 4, SIZES, seed=5)
    first = batches(sampler, 0)
    assert first == batches(TrainingSampler(20, 4, SIZES, seed=5), 0)
    assert first != batches(sampler, 1)
    assert first != batches(TrainingSampler(20, 4, SIZES, seed=6), 0)
    seeds = [seed for number in range(5) for batch in batches(sampler, number) for _, seed, _ in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_it_goes_on_in_the_middle(start: int) -> None:
    sampler = TrainingSampler(20, 4, SIZES, seed=5)
    whole = batches(sampler, 3)
    assert batches(TrainingSampler(20, 4, SIZES, seed=5), 3, start) == whole[start:]
    assert [sampler.batch(3, place) for place in range(start, 5)] == whole[start:]
    assert len(sampler) == 5


def test_too_few_pictures() -> None:
    with pytest.raises(ValueError, match="batch_size is 8, but there are only 7 pictures"):
        TrainingSampler(7, 8, SIZES, seed=0)


def test_other_sizes_from_an_epoch_on_and_the_rest_unchanged() -> None:
    plain = TrainingSampler(40, 4, SIZES, seed=5)
    late = TrainingSampler(40, 4, SIZES, seed=5, late=(2, [(192, 160)]))
    assert batches(late, 1) == batches(plain, 1)
    assert {size for batch in batches(late, 2) for _, _, size in batch} == {(192, 160)}
    without_sizes = [[[request[:2] for request in batch] for batch in batches(sampler, 3)] for sampler in (plain, late)]
    assert without_sizes[0] == without_sizes[1]


def test_repeat_factors_by_hand() -> None:
    """f: class 0 in 4 of 5 pictures, class 1 in 2, class 2 in 1; threshold 0.8, so sqrt(1), sqrt(2), sqrt(4)."""
    factors = repeat_factors([{0}, {0, 1}, {0, 1, 2}, {0}, set()], 0.8)
    assert factors.tolist() == pytest.approx([1, 2**0.5, 2, 1, 1])
    assert repeat_factors([{0}, {0, 1}, {0, 1, 2}, {0}, set()], 0.1).tolist() == [1] * 5


def test_pictures_are_repeated_by_their_factors() -> None:
    """10.2 pictures an epoch: 10 in batches of 2 each time; a factor of 1.7 is one or two, on average 1.7."""
    factors = np.array([1, 1, 2, 1.7, 2.5, 1, 1])
    sampler = TrainingSampler(7, 2, SIZES, seed=3, repeats=factors)
    assert len(sampler) == 5
    counts = np.zeros(7)
    for epoch in range(600):
        order = sampler._order(epoch)
        shown = np.bincount(order[:, 0], minlength=7)
        assert (shown >= np.floor(factors)).all()
        assert (shown <= np.ceil(factors)).all()
        assert len(order) in (10, 11)
        counts += shown
        for index in range(7):
            assert sorted(order[order[:, 0] == index, 1]) == list(range(shown[index]))
    assert (counts / 600).tolist() == pytest.approx(factors.tolist(), abs=0.06)
    epoch = batches(sampler, 0)
    assert [len(batch) for batch in epoch] == [2] * 5
    requests = [request[:2] for batch in epoch for request in batch]
    assert len(set(requests)) == len(requests)  # a picture that comes twice is changed in two ways
    again = TrainingSampler(7, 2, SIZES, seed=3, repeats=factors)
    assert batches(again, 0, 2) == epoch[2:]


def test_factors_of_one_change_no_picture_and_no_seed() -> None:
    plain, balanced = (TrainingSampler(20, 4, SIZES, 5, repeats=repeats) for repeats in (None, np.ones(20)))
    shown = [{request[:2] for batch in batches(sampler, 1) for request in batch} for sampler in (plain, balanced)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_each_batch(count: int) -> None:
    """Together the batches of one process, without repeats, also from the middle on."""
    whole = batches(TrainingSampler(20, 6, SIZES, seed=5), 3, 1)
    parts = [batches(TrainingSampler(20, 6, SIZES, seed=5, share=(rank, count)), 3, 1) for rank in range(count)]
    for place, batch in enumerate(whole):
        shares = [part[place] for part in parts]
        assert [len(share) for share in shares] == [6 // count] * count
        assert sorted(request for share in shares for request in share) == sorted(batch)
    with pytest.raises(ValueError, match=r"batch_size is 6; 4 processes need a multiple, such as 4"):
        TrainingSampler(20, 6, SIZES, seed=5, share=(0, 4))
