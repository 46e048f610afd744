"""COCO's matching and its twelve figures on arrays: pycocotools' numbers to the last digit, in a fraction of its time.

Reference: https://cocodataset.org/#detection-eval, and pycocotools' COCOeval, whose rules the docs leave open: a
detection takes the free object that it overlaps most, of equals the later one, and an object that counts before any
that is ignored; a crowd can be taken any number of times.
Deviations: none in the numbers. Only overlaps of at least the lowest threshold are kept, and the detections of all
pictures are matched side by side: first each picture's best, then each one's second.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)  # of a picture and class
_AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large, square pixels
_ALL_AREAS = 0
_MOST_PAIRS = 1 << 20  # of a detection and an object, compared in one go


class Objects(NamedTuple):
    """Ground truth: pictures, classes [G] int64, their places from 0; boxes_xywh [G, 4], areas [G], is_crowd [G]."""

    pictures: np.ndarray
    classes: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    is_crowd: np.ndarray


class Found(NamedTuple):
    """Detections: pictures, classes [D] int64, their places from 0; boxes_xywh [D, 4], scores [D]."""

    pictures: np.ndarray
    classes: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray

    def rows(self, chosen: np.ndarray) -> Found:
        """Those that an index or a mask chooses."""
        return Found(*(column[chosen] for column in self))


class Curves(NamedTuple):
    """T thresholds, R recalls, C classes, A ranges of areas (all, small, medium, large), M of MAX_DETECTIONS.

    precision: [T, R, C, A] interpolated, with the most detections; recall: [T, C, A, M]; both -1 where no object
    counts. scores: [T, R, C] at which each recall is reached, objects of all areas, 0 where it is not, -1 as above.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


class _Matches(NamedTuple):
    """Of each detection, area range and threshold, [D, A, T] bool: has it an object, and is that one ignored?"""

    is_matched: np.ndarray
    is_ignored: np.ndarray


def draw_curves(objects: Objects, found: Found, num_pictures: int, num_classes: int) -> Curves:
    """Match and accumulate; boxes are in file order, which decides between equal scores and equal overlaps."""
    objects_group = objects.classes * num_pictures + objects.pictures
    order = np.argsort(objects_group, kind="stable")
    objects, objects_group = Objects(*(column[order] for column in objects)), objects_group[order]
    found_group = found.classes * num_pictures + found.pictures
    order = np.lexsort((-found.scores, found_group))
    found, found_group = found.rows(order), found_group[order]
    ranks = _ranks(found_group)
    kept = ranks < MAX_DETECTIONS[-1]
    found, found_group, ranks = found.rows(kept), found_group[kept], ranks[kept]
    with np.errstate(over="ignore", invalid="ignore"):  # an area may be beyond any number
        is_ignored = objects.is_crowd[:, None] | _outside(objects.areas)
        matches = _match(objects, objects_group, is_ignored, found, found_group)
        is_outside = _outside(found.boxes_xywh[:, 2] * found.boxes_xywh[:, 3])
    counts = np.stack([np.bincount(objects.classes[~column], minlength=num_classes) for column in is_ignored.T])
    by_score = np.lexsort((-found.scores, found.classes))
    sorted_matches = _Matches(*(column[by_score] for column in matches))
    return _accumulate(found.rows(by_score), ranks[by_score], sorted_matches, is_outside[by_score], counts)


def summarize(curves: Curves) -> dict[str, float]:
    """FIGURES: -1 where the ground truth leaves one undefined."""
    precision, recall = curves.precision, curves.recall
    half, three_quarters = (int(np.argmin(abs(IOU_THRESHOLDS - overlap))) for overlap in (0.5, 0.75))
    parts = [precision[..., 0], precision[half, ..., 0], precision[three_quarters, ..., 0]]
    parts += [precision[..., area] for area in (1, 2, 3)]
    parts += [recall[..., 0, most] for most in range(len(MAX_DETECTIONS))]
    parts += [recall[..., area, -1] for area in (1, 2, 3)]
    return {name: defined_mean(part) for name, part in zip(FIGURES, parts, strict=True)}


def defined_mean(values: np.ndarray) -> float:
    """The mean over what is defined, not -1; -1 where nothing is."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _outside(areas: np.ndarray) -> np.ndarray:
    """[N] -> [N, A] bool."""
    outside: np.ndarray = (areas[:, None] < _AREAS[:, 0]) | (areas[:, None] > _AREAS[:, 1])
    return outside


def _ranks(groups: np.ndarray) -> np.ndarray:
    """groups: [N], equal ones together -> [N] the place of each within its group, from 0."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))


class _Edges(NamedTuple):
    """Pairs that overlap enough for the lowest threshold; found, objects [E]: their rows, ious [E]."""

    found: np.ndarray
    objects: np.ndarray
    ious: np.ndarray


def _match(
    objects: Objects, objects_group: np.ndarray, is_ignored: np.ndarray, found: Found, found_group: np.ndarray
) -> _Matches:
    """is_ignored: [G, A]. Rows of either side are sorted by group, a class in a picture, found ones then by score."""
    shape = len(found.scores), len(_AREAS), len(IOU_THRESHOLDS)
    matches = _Matches(np.zeros(shape, bool), np.zeros(shape, bool))
    edges = _overlapping(objects, objects_group, found, found_group)
    with_edges, row_of = np.unique(edges.found, return_inverse=True)
    rounds = _ranks(found_group[with_edges])[row_of]
    order = np.lexsort((edges.objects, edges.ious, edges.found, rounds))
    edges, rounds = _Edges(*(column[order] for column in edges)), rounds[order]
    is_taken = np.zeros((len(objects.areas), *shape[1:]), bool)
    limits = np.searchsorted(rounds, np.arange(rounds[-1] + 2 if len(rounds) else 1))
    for start, stop in zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True):
        part = _Edges(*(column[start:stop] for column in edges))
        _match_round(part, is_taken, objects.is_crowd, is_ignored, matches)
    return matches


def _match_round(
    edges: _Edges, is_taken: np.ndarray, is_crowd: np.ndarray, is_ignored: np.ndarray, matches: _Matches
) -> None:
    """At most one detection of each group. Its edges stand together, the best overlap last; `is_taken` is changed."""
    starts = np.flatnonzero(np.diff(edges.found, prepend=-1))
    is_free = ~is_taken[edges.objects] | is_crowd[edges.objects, None, None]
    is_free &= (edges.ious[:, None] >= IOU_THRESHOLDS)[:, None]
    number = len(edges.found)
    # An object that counts goes before any that is ignored; 0 stands for none.
    worth = np.arange(1, number + 1)[:, None] + np.where(is_ignored[edges.objects], 0, number)
    best = np.maximum.reduceat(np.where(is_free, worth[:, :, None], 0), starts, axis=0)
    rows, areas, thresholds = np.nonzero(best)
    chosen = best[rows, areas, thresholds]
    is_taken[edges.objects[(chosen - 1) % number], areas, thresholds] = True
    places = edges.found[starts][rows], areas, thresholds
    matches.is_matched[places] = True
    matches.is_ignored[places] = chosen <= number


def _overlapping(objects: Objects, objects_group: np.ndarray, found: Found, found_group: np.ndarray) -> _Edges:
    """Every detection with every object of its group, those kept whose IoU is at least the lowest threshold."""
    first = np.searchsorted(objects_group, found_group, "left")
    counts = np.searchsorted(objects_group, found_group, "right") - first
    ends = np.cumsum(counts)
    parts = [_Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    start = 0
    while start < len(counts):
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + _MOST_PAIRS, "right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        others = np.arange(len(rows)) + (first - (ends - counts) + before)[rows]
        ious = _ious(found.boxes_xywh[rows], objects.boxes_xywh[others], objects.is_crowd[others])
        enough = ious >= IOU_THRESHOLDS[0]
        parts.append(_Edges(rows[enough], others[enough], ious[enough]))
        start = stop
    return _Edges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _ious(boxes: np.ndarray, others: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """[P, 4] xywh each -> [P]: of a crowd, how much of the box lies inside. Operation by operation as pycocotools."""
    sides = np.minimum(boxes[:, 2:] + boxes[:, :2], others[:, 2:] + others[:, :2])
    sides -= np.maximum(boxes[:, :2], others[:, :2])
    shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    areas = boxes[:, 2] * boxes[:, 3]
    whole = np.where(is_crowd, areas, areas + others[:, 2] * others[:, 3] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _accumulate(
    found: Found, ranks: np.ndarray, matches: _Matches, is_outside: np.ndarray, counts: np.ndarray
) -> Curves:
    """found: sorted by class, then by score; ranks: [D] within picture and class; counts: [A, C] objects that count."""
    num_areas, num_classes = counts.shape
    shape = len(IOU_THRESHOLDS), len(RECALLS), num_classes
    curves = Curves(
        np.full((*shape, num_areas), -1.0),
        np.full((shape[0], num_classes, num_areas, len(MAX_DETECTIONS)), -1.0),
        np.full(shape, -1.0),
    )
    limits = np.searchsorted(found.classes, np.arange(num_classes + 1))
    for area, threshold in np.ndindex(num_areas, len(IOU_THRESHOLDS)):
        is_matched, is_ignored = matches.is_matched[:, area, threshold], matches.is_ignored[:, area, threshold]
        is_hit = is_matched & ~is_ignored
        seen = np.concatenate([[0], np.cumsum(is_hit | ~(is_matched | is_outside[:, area]))])
        hits = np.flatnonzero(is_hit)
        hit_limits = np.searchsorted(hits, limits)
        has_objects = counts[area] > 0
        for place, most in enumerate(MAX_DETECTIONS):
            number = np.bincount(found.classes[hits[ranks[hits] < most]], minlength=num_classes)
            curves.recall[threshold, has_objects, area, place] = number[has_objects] / counts[area][has_objects]
        for label in np.flatnonzero(has_objects).tolist():
            own = hits[hit_limits[label] : hit_limits[label + 1]]
            places, precision = _interpolate(seen[own + 1] - seen[limits[label]], counts[area, label])
            curves.precision[threshold, :, label, area] = 0
            curves.precision[threshold, : len(places), label, area] = precision
            if area == _ALL_AREAS:
                scores = curves.scores[threshold, :, label]
                scores[:] = 0
                if limits[label] < limits[label + 1]:  # recall 0 is reached by the first, right or wrong
                    scores[0] = found.scores[limits[label]]
                scores[1 : len(places)] = found.scores[own[places[1:]]]
    return curves


def _interpolate(seen: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """seen: [H] how many detections count up to each hit, itself included; count: the objects.

    The hit that reaches each of the recalls that are reached, and the best precision there or further on. Between hits
    the precision only falls, so that the hits are enough.
    """
    numbers = np.arange(1, len(seen) + 1)
    precision = numbers / (seen + np.spacing(1))
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(numbers / count, RECALLS, side="left")
    places = places[places < len(seen)]
    return places, falling[places]
