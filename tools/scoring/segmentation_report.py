"""What a segmenter's evaluation shows: a table of the classes, and the confusion matrix as a picture file."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from segment.cityscapes_scores import CityscapesScores
from segment.metrics import ConfusionMatrix, SegmentationScores

from ..table import format_table

_MOST_WITH_NUMBERS = 24  # classes; the numbers in the cells of a larger matrix could not be read
_INCH_PER_CLASS = 0.42


def class_table(scores: SegmentationScores) -> str:
    """IoU, accuracy and share of the labelled pixels of each scored class, and the means; "-" where undefined."""
    total = scores.pixels.sum()
    rows = [
        (
            scores.class_names[place],
            _per_cent(scores.class_iou[place]),
            _per_cent(scores.class_accuracy[place]),
            _per_cent(scores.pixels[place] / total),
        )
        for place in np.flatnonzero(scores.scored)
    ]
    rows.append(("mean of classes", _per_cent(scores.mean_iou), _per_cent(scores.mean_accuracy), ""))
    rows.append(("mean by pixels", _per_cent(scores.frequency_weighted_iou), _per_cent(scores.pixel_accuracy), ""))
    return format_table(("class", "IoU %", "accuracy %", "pixels %"), rows)


def cityscapes_table(scores: CityscapesScores) -> str:
    """IoU and instance-weighted IoU of Cityscapes' classes and categories, as its own evaluation lists them."""
    columns = scores.classes.class_names, scores.classes.class_iou, scores.classes.scored
    classes = [
        (name, _per_cent(iou), _per_cent(scores.class_iiou.get(name, math.nan)))
        for name, iou, is_scored in zip(*columns, strict=True)
        if is_scored
    ]
    classes.append(("mean of classes", _per_cent(scores.classes.mean_iou), _per_cent(scores.mean_class_iiou)))
    categories = [
        (name, _per_cent(iou), _per_cent(scores.category_iiou.get(name, math.nan)))
        for name, iou in scores.category_iou.items()
    ]
    means = _per_cent(scores.mean_category_iou), _per_cent(scores.mean_category_iiou)
    categories.append(("mean of categories", *means))
    tables = [
        format_table((what, "IoU %", "iIoU %"), rows) for what, rows in (("class", classes), ("category", categories))
    ]
    return "\n\n".join(tables)


def draw_confusion(confusion: ConfusionMatrix, class_names: Sequence[str], path: Path, title: str) -> None:
    """Writes a PNG: for each class that is labelled somewhere, what part of its pixels was taken for which class.

    Predictions of ignored classes stand together in one column. Raises OSError where the file cannot be written.
    """
    scored = np.flatnonzero(confusion.scored)
    rows = scored[confusion.matrix[scored].any(axis=1)]
    counts = confusion.matrix[np.ix_(rows, scored)]
    column_names = [class_names[place] for place in scored.tolist()]
    as_ignored = confusion.matrix[rows].sum(axis=1) - counts.sum(axis=1)
    if as_ignored.any():
        counts, column_names = np.column_stack((counts, as_ignored)), [*column_names, "ignored"]
    shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    figure = Figure(
        figsize=(3 + _INCH_PER_CLASS * len(column_names), 2.5 + _INCH_PER_CLASS * len(rows)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=100), label="% of the labelled pixels")
    axes.set(title=title, xlabel="prediction", ylabel="label")
    axes.set_xticks(range(len(column_names)), column_names, rotation=90)
    axes.set_yticks(range(len(rows)), [class_names[place] for place in rows.tolist()])
    if len(column_names) <= _MOST_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                colour = "white" if share > 55 else "black"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _per_cent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"
