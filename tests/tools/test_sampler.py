"""The training's order of pictures: every picture once an epoch, and the same from wherever it begins."""

import pytest
from swiftsight_tools.sampler import TrainingSampler

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
