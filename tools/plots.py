"""Precision-recall curves as a picture file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detect.metrics import DetectionScores

OVERLAPS = (0.5, 0.6, 0.7, 0.8, 0.9)
MAX_NAMED = 8  # more classes than this: only the best and the worst are named, the others stay grey
# Told apart by people with any colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")


def draw_curves(scores: DetectionScores, path: Path, title: str) -> None:
    """Write a PNG: to the left the mean over the classes at several overlaps, to the right each class at overlap 0.5.

    A dot marks the score threshold with the best F1, the number beside a class in the legend. Raises OSError where the
    file cannot be written.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    _draw_overlaps(left, scores)
    _draw_classes(right, scores)
    for axes, name in ((left, "all classes"), (right, "by class, overlap 0.5")):
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=name)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, fontsize="small")
        else:
            axes.text(0.5, 0.5, "no objects in the ground truth", ha="center", va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _draw_overlaps(axes: Axes, scores: DetectionScores) -> None:
    present = (scores.precision > -1).all(axis=(0, 1))
    if not present.any():
        return
    for overlap, colour in zip(OVERLAPS, COLOURS, strict=False):
        place = int(np.argmin(abs(scores.iou_thresholds - overlap)))
        curve = scores.precision[place][:, present].mean(axis=1)
        axes.plot(scores.recalls, curve, color=colour, label=f"overlap {overlap:.1f}: AP {curve.mean():.3f}")


def _draw_classes(axes: Axes, scores: DetectionScores) -> None:
    half = int(np.argmin(abs(scores.iou_thresholds - 0.5)))
    names = list(scores.per_class)
    ranked = sorted(
        (place for place, name in enumerate(names) if scores.per_class[name]["AP50"] > -1),
        key=lambda place: -scores.per_class[names[place]]["AP50"],
    )
    named = ranked if len(ranked) <= MAX_NAMED else ranked[: MAX_NAMED // 2] + ranked[-MAX_NAMED // 2 :]
    colours = dict(zip(named, COLOURS, strict=False))
    for place in sorted(ranked, key=lambda place: place in colours):  # the named ones last, on top
        curve, thresholds = scores.precision[half, :, place], scores.scores[half, :, place]
        reached = thresholds > 0
        if place not in colours:
            axes.plot(scores.recalls[reached], curve[reached], color="#cccccc", linewidth=0.8)
            continue
        label = f"{names[place]}: AP {scores.per_class[names[place]]['AP50']:.3f}"
        if reached.any():
            recall, precision, threshold = best_operating_point(scores.recalls, curve, thresholds)
            axes.plot(recall, precision, "o", color=colours[place])
            label += f", F1 {_f1(precision, recall):.2f} at score {threshold:.2f}"
        axes.plot(scores.recalls[reached], curve[reached], color=colours[place], label=label)


def best_operating_point(
    recalls: Sequence[float] | np.ndarray, precision: np.ndarray, thresholds: np.ndarray
) -> tuple[float, float, float]:
    """(recall, precision, score threshold) where F1 is highest; the three inputs have one value per recall point."""
    place = int(np.argmax([_f1(p, r) for p, r in zip(precision, recalls, strict=True)]))
    return float(recalls[place]), float(precision[place]), float(thresholds[place])


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / max(precision + recall, 1e-12)
