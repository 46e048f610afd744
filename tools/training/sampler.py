"""Which picture comes when: a function of seed, epoch and place alone, so that a resumed run goes on with the next.

Reference for repeat factors: Gupta et al., LVIS, CVPR 2019, arXiv:1908.03195.
Deviations: the copies of an epoch are drawn so that their number is the same in every epoch (systematic sampling).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

Size = tuple[int, int]  # (height, width)
Request = tuple[int, int, Size]  # index of the picture, seed of everything random about it, size to deliver


def repeat_factors(labels: Sequence[AbstractSet[int]], threshold: float) -> np.ndarray:
    """labels: the classes of each picture -> [number of pictures] how often each is shown in an epoch, at least 1.

    A class that is in a part f of the pictures asks for max(1, sqrt(threshold / f)); of a picture's classes the one
    that asks for most counts.
    """
    counts = Counter(label for classes in labels for label in classes)
    wanted = {label: max(1.0, (threshold * len(labels) / count) ** 0.5) for label, count in counts.items()}
    return np.array([max((wanted[label] for label in classes), default=1.0) for classes in labels])


class TrainingSampler:
    """Batches of requests for a `DataLoader(batch_sampler=...)`: shuffled per epoch, one of `sizes` per batch.

    late: (epoch, sizes), the sizes from that epoch on, counted from 0. repeats: how often each picture is shown in an
    epoch, on average over epochs where it is no whole number; None shows each once. share: (rank, count), the part of
    each batch that is iterated here; the parts of all ranks together are the batch that one process would iterate. The
    last batch is dropped where it is not full, so that every step weighs the same. Raises ValueError where there is
    not one full batch, or a batch cannot be shared evenly.
    """

    def __init__(
        self,
        num_pictures: int,
        batch_size: int,
        sizes: Sequence[Size],
        seed: int,
        *,
        late: tuple[int, Sequence[Size]] | None = None,
        repeats: np.ndarray | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if num_pictures < batch_size:
            there = f"there are only {num_pictures} pictures; expected at most {num_pictures}"
            raise ValueError(f"batch_size is {batch_size}, but {there}")
        if batch_size % share[1]:
            near = f"{batch_size // share[1] * share[1] or share[1]}"
            raise ValueError(f"batch_size is {batch_size}; {share[1]} processes need a multiple, such as {near}")
        self.num_pictures = num_pictures
        self.batch_size = batch_size
        self.sizes = _as_pairs(sizes)
        self.late_epoch, self.late_sizes = (late[0], _as_pairs(late[1])) if late else (0, self.sizes)
        self.seed = seed
        self.repeats = repeats
        # Rounded first: a sum of many factors may end a hair below the whole number that it stands for.
        self.shown = num_pictures if repeats is None else int(round(repeats.sum(), 6))
        self.rank, self.count = share
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Batches in a whole epoch, wherever this one starts."""
        return self.shown // self.batch_size

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration begins with batch `start` of `epoch`."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[list[Request]]:
        """This process's part of each batch."""
        order = self._order(self.epoch)
        for place in range(self.start, len(self)):
            yield self._requests(order, self.epoch, place)[self.rank :: self.count]

    def batch(self, epoch: int, place: int) -> list[Request]:
        """The requests of one whole batch, whatever is being iterated."""
        return self._requests(self._order(epoch), epoch, place)

    def _order(self, epoch: int) -> np.ndarray:
        """[shown, 2] int64: this epoch's order of pictures, each with the number of its copy."""
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.num_pictures)
        if self.repeats is None:
            return np.stack([order, np.zeros_like(order)], axis=1)
        # The factors laid end to end on a line: each picture has a copy for every whole number in its piece. On
        # average that is its factor, and the sum varies by one at most.
        ends = np.floor(self.repeats[order].cumsum() + random.random()).astype(np.int64)
        copies = np.diff(ends, prepend=0)
        rows = np.stack([order.repeat(copies), np.arange(copies.sum()) - (ends - copies).repeat(copies)], axis=1)
        return random.permutation(rows)

    def _requests(self, order: np.ndarray, epoch: int, place: int) -> list[Request]:
        sizes = self.late_sizes if epoch >= self.late_epoch else self.sizes
        size = sizes[np.random.default_rng([self.seed, epoch, place]).integers(len(sizes))]
        first = place * self.batch_size
        rows = order[first : first + self.batch_size].tolist()
        return [(index, self._picture_seed(epoch, index, copy), size) for index, copy in rows]

    def _picture_seed(self, epoch: int, index: int, copy: int) -> int:
        # The leading 1 keeps this stream apart from the one that draws sizes.
        words = [1, self.seed, epoch, index] + ([copy] if copy else [])
        return int(np.random.SeedSequence(words).generate_state(1)[0])


def _as_pairs(sizes: Sequence[Size]) -> list[Size]:
    return [(int(height), int(width)) for height, width in sizes]
