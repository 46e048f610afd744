"""One answer from several looks at a picture: mirrored, at other sizes, in windows.

References: Gidaris and Komodakis, Object detection via a multi-region CNN, ICCV 2015, arXiv:1505.01749, section 5
(boxes vote on where an object lies); Solovyev et al., Weighted boxes fusion, Image and Vision Computing 2021,
arXiv:1910.13302 (scores are averaged over all looks, also those that missed the object).
Deviations: a look gives an object at most one box. Windows, of which neither speaks, are stitched: two boxes are one
object where they agree on what both windows show, and what only a window's edge has cut off is no object.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pictures.windows import spread

from .boxes import areas, intersections
from .results import Detections

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture

_MOST_WINDOWS = 4096  # for a picture; all of them lie in memory at once
_BLOCK = 1024  # boxes that are compared with all others at a time
_NEAR_EDGE = 0.02  # of a window's side: a box that ends so near to an inner edge may be cut off by it


def spread_windows(picture_size: tuple[int, int], window: tuple[int, int], overlap: float) -> list[Window]:
    """Windows of (height, width) that cover a picture of (height, width), row by row.

    They are spread evenly, as few as suffice for neighbours to share at least the part `overlap` of a window. One that
    is larger than the picture ends with it. Raises ValueError where that would be thousands.
    """
    rows, columns = (spread(length, side, overlap) for length, side in zip(picture_size, window, strict=True))
    count = len(rows) * len(columns)
    if count > _MOST_WINDOWS:
        sizes = (
            f"{window[0]} x {window[1]} with overlap {overlap:g} in a picture of {picture_size[0]} x {picture_size[1]}"
        )
        raise ValueError(f"{count} windows of {sizes}; expected at most {_MOST_WINDOWS}: larger ones or less overlap")
    return [(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def fuse(looks: Sequence[Detections], *, iou_threshold: float = 0.55) -> Detections:
    """Looks at the same pixels, boxes in one frame -> what they say together, best first.

    Boxes of a class that overlap by more than `iou_threshold` are one object: it lies at their mean, weighted by score,
    and scores their sum divided by the number of looks. A single look stays as it is.
    """
    if len(looks) == 1:
        return looks[0]
    pool = _Pool(looks)
    later, earlier = pool.rivals()
    likeness = _ious(pool.boxes[later], pool.boxes[earlier])
    groups = pool.grouped(later, earlier, likeness, iou_threshold)
    means = _sums(groups, pool.boxes * pool.scores[:, None]) / _sums(groups, pool.scores[:, None]).clamp(min=1e-9)
    return _best_first(means, _sums(groups, pool.scores) / len(looks), pool.labels_of(groups))


def stitch(
    looks: Sequence[Detections],
    windows: Sequence[Window],
    picture_size: tuple[int, int],
    *,
    iou_threshold: float = 0.5,
) -> Detections:
    """What was found in each of the windows, boxes in the picture's frame -> the objects of the picture, best first.

    Boxes of a class are one object where they overlap by more than `iou_threshold`; if a window's inner edge cuts one
    of them off, what counts is the part that both windows show. The object is as its whole boxes say, at their mean,
    weighted by score and by how fine the net saw them (one over the window's area); those do not count in whose window
    the largest of them would not fit. Where all are cut, it is what they cover together; and a cut box that no other
    window confirms is left out. An object scores as its best box.
    """
    pool = _Pool(looks)
    edges = torch.tensor(windows, dtype=pool.boxes.dtype).view(-1, 4)[pool.sources]
    is_whole = ~_is_cut(pool.boxes, edges, picture_size)
    later, earlier = pool.rivals()
    first, second = pool.boxes[later], pool.boxes[earlier]
    seen_by_both = _ious(_clipped(first, edges[earlier]), _clipped(second, edges[later]))
    likeness = _ious(first, second).where(is_whole[later] & is_whole[earlier], seen_by_both)
    groups = pool.grouped(later, earlier, likeness, iou_threshold)
    is_voter = _sees_the_largest(pool.boxes, edges, is_whole, groups)
    weights = (pool.scores * is_voter / areas(edges))[:, None]
    means = _sums(groups, pool.boxes * weights) / _sums(groups, weights).clamp(min=1e-20)
    has_whole = _sums(groups, is_whole.float()) > 0
    merged = means.where(has_whole[:, None], _covered(groups, pool.boxes))
    is_object = has_whole | (groups.bincount() > 1)
    scores = merged.new_zeros(len(merged)).scatter_reduce(0, groups, pool.scores, "amax")
    return _best_first(merged[is_object], scores[is_object], pool.labels_of(groups)[is_object])


class _Pool:
    """The boxes of all looks, best first: boxes [K, 4], scores, labels and sources (the numbers of the looks) [K]."""

    def __init__(self, looks: Sequence[Detections]) -> None:
        scores = torch.cat([look.scores for look in looks])
        order = scores.argsort(descending=True, stable=True)
        self.scores = scores[order]
        self.boxes = torch.cat([look.boxes for look in looks])[order]
        self.labels = torch.cat([look.labels for look in looks])[order]
        lengths = torch.tensor([len(look) for look in looks])
        self.sources = torch.arange(len(looks)).repeat_interleave(lengths)[order]

    def rivals(self) -> tuple[Tensor, Tensor]:
        """Pairs of boxes of one class and different looks that share something: [P] the worse and [P] the better."""
        pairs = [self.labels.new_zeros((0, 2))]
        for start in range(0, len(self.scores), _BLOCK):
            rows = slice(start, start + _BLOCK)
            possible = (self.labels[rows, None] == self.labels) & (self.sources[rows, None] != self.sources)
            possible &= intersections(self.boxes[rows], self.boxes) > 0
            pairs.append(possible.tril(start - 1).nonzero() + self.labels.new_tensor([start, 0]))
        later, earlier = torch.cat(pairs).unbind(dim=1)
        return later, earlier

    def grouped(self, later: Tensor, earlier: Tensor, likeness: Tensor, threshold: float) -> Tensor:
        """How like the pairs of `rivals` are [P] -> [K] the number of each box's object, counted from the best on.

        In falling order of score, a box joins the object with the box that it is most like, above `threshold`, unless
        that object has a box of its own look already; else it is an object of its own.
        """
        near = torch.nonzero(likeness > threshold).flatten()
        near = near[likeness[near].argsort(descending=True, stable=True)]
        wishes: list[list[int]] = [[] for _ in self.scores]
        for box, better in zip(later[near].tolist(), earlier[near].tolist(), strict=True):
            wishes[box].append(better)
        numbers: list[int] = []
        looks_of: list[set[int]] = []
        for source, wished in zip(self.sources.tolist(), wishes, strict=True):
            open_to_it = (numbers[better] for better in wished if source not in looks_of[numbers[better]])
            number = next(open_to_it, len(looks_of))
            if number == len(looks_of):
                looks_of.append(set())
            looks_of[number].add(source)
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.long)

    def labels_of(self, groups: Tensor) -> Tensor:
        """The class of each object of `grouped`."""
        return self.labels.new_zeros(_count(groups)).scatter(0, groups, self.labels)


def _count(groups: Tensor) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _sums(groups: Tensor, values: Tensor) -> Tensor:
    """values [K] or [K, n] -> their sums over each group."""
    return values.new_zeros((_count(groups), *values.shape[1:])).index_add(0, groups, values)


def _covered(groups: Tensor, boxes: Tensor) -> Tensor:
    """The smallest box [G, 4] around those of each group."""
    signs = boxes.new_tensor([-1.0, -1.0, 1.0, 1.0])
    places = groups[:, None].expand(-1, 4)
    reach = boxes.new_full((_count(groups), 4), -torch.inf).scatter_reduce(0, places, boxes * signs, "amax")
    return reach * signs


def _is_cut(boxes: Tensor, windows: Tensor, picture_size: tuple[int, int]) -> Tensor:
    """boxes [K, 4], each one's window [K, 4] -> [K] whether it ends at an edge of it that is not the picture's."""
    height, width = picture_size
    sides = (windows[:, 2:] - windows[:, :2]).repeat(1, 2)
    is_inner = torch.cat((windows[:, :2] > 0, windows[:, 2:] < windows.new_tensor([width, height])), dim=1)
    return (is_inner & ((boxes - windows).abs() < _NEAR_EDGE * sides)).any(dim=1)


def _sees_the_largest(boxes: Tensor, windows: Tensor, is_whole: Tensor, groups: Tensor) -> Tensor:
    """[K] which whole boxes come from a window that shows all of the largest whole box of their object.

    In a window that shows a part of a large object, the net may end its box short of the edge, as if it were whole.
    """
    sizes = areas(boxes) * is_whole
    largest = sizes.new_zeros(_count(groups)).scatter_reduce(0, groups, sizes, "amax")
    is_largest = (is_whole & (sizes == largest[groups])).to(boxes.dtype)[:, None]
    reach = (_sums(groups, boxes * is_largest) / _sums(groups, is_largest).clamp(min=1))[groups]
    fits = ((_clipped(reach, windows) - reach).abs() < 1).all(dim=1)
    return is_whole & (fits | (is_largest[:, 0] > 0))


def _ious(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [P] of boxes [P, 4] and boxes [P, 4], pair by pair; 0 where both are empty."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    return shared / (areas(first) + areas(second) - shared).clamp(min=1e-9)


def _clipped(boxes: Tensor, windows: Tensor) -> Tensor:
    """Each box moved into each window, both [..., 4]; it has no area where there is nothing of it."""
    starts, stops = windows[..., :2], windows[..., 2:]
    return torch.cat([side.maximum(starts).minimum(stops) for side in (boxes[..., :2], boxes[..., 2:])], dim=-1)


def _best_first(boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
    order = scores.argsort(descending=True, stable=True)
    return Detections(boxes[order], scores[order], labels[order])
