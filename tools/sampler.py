"""Which picture comes when: a function of seed, epoch and place alone, so that a resumed run goes on with the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

Size = tuple[int, int]  # (height, width)
Request = tuple[int, int, Size]  # index of the picture, seed of everything random about it, size to deliver


class TrainingSampler:
    """Batches of requests for a `DataLoader(batch_sampler=...)`: shuffled per epoch, one of `sizes` per batch.

    late: (epoch, sizes), the sizes from that epoch on, counted from 0. The last batch is dropped where it is not full,
    so that every step weighs the same. Raises ValueError where there is not one full batch.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        sizes: Sequence[Size],
        seed: int,
        *,
        late: tuple[int, Sequence[Size]] | None = None,
    ) -> None:
        if num_pictures < batch_size:
            raise ValueError(f"batch_size is {batch_size}, but there are only {num_pictures} pictures")
        self.num_pictures = num_pictures
        self.batch_size = batch_size
        self.sizes = _as_pairs(sizes)
        self.late_epoch, self.late_sizes = (late[0], _as_pairs(late[1])) if late else (0, self.sizes)
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever this one starts."""
        return self.num_pictures // self.batch_size

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration begins with batch `start` of `epoch`."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[Request]]:
        order = self._order(self.epoch)
        for place in range(self.start, len(self)):
            yield self._requests(order, self.epoch, place)

    def batch(self, epoch: int, place: int) -> list[Request]:
        """The requests of one batch, whatever is being iterated."""
        return self._requests(self._order(epoch), epoch, place)

    def _order(self, epoch: int) -> np.ndarray:
        """[num_pictures] int64: this epoch's order."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_pictures)

    def _requests(self, order: np.ndarray, epoch: int, place: int) -> list[Request]:
        sizes = self.late_sizes if epoch >= self.late_epoch else self.sizes
        size = sizes[np.random.default_rng([self.seed, epoch, place]).integers(len(sizes))]
        first = place * self.batch_size
        indices = order[first : first + self.batch_size].tolist()
        return [(index, self._picture_seed(epoch, index), size) for index in indices]

    def _picture_seed(self, epoch: int, index: int) -> int:
        # The leading 1 keeps this stream apart from the one that draws sizes.
        return int(np.random.SeedSequence([1, self.seed, epoch, index]).generate_state(1)[0])


def _as_pairs(sizes: Sequence[Size]) -> list[Size]:
    return [(int(height), int(width)) for height, width in sizes]
