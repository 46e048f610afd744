"""What a segmenter says of a picture: the class of each pixel, as colours, or as a person before another background."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from segment.formats import camvid, cityscapes

from ..destinations import label_picture_name
from ..table import format_table
from .cutout import Background, CutOut, working_size
from .draw import Colour, class_colour
from .frame_log import FrameLog
from .label_pictures import write_labels
from .overlay import LEAST_SHARE, count_labels, draw_classes_
from .views import FramePredictor, View, class_numbers, count

PERSON = "person"
_GREY = (128, 128, 128)
_NOTHING = ("background", "void")  # nothing in particular: not coloured or counted unless asked for
_OFFICIAL_COLOURS = {kind.CLASS_NAMES: kind.CLASS_COLOURS for kind in (camvid, cityscapes)}


class LabelledFrame(NamedTuple):
    """labels: [h, w] uint8; person: [h, w] float32, the person's scores where one is cut out; both of the picture's
    size, or smaller where they only serve to cut out. shares: class -> its part of the pixels; classes that are not
    there are left out.
    """

    labels: np.ndarray
    person: np.ndarray | None
    shares: dict[str, float]


class PixelPredictor(FramePredictor, Protocol):
    """A `segment.Predictor`, or what answers like one."""

    def label_map(self, raw: Any, picture_size: tuple[int, int], /) -> np.ndarray:
        """What the net gave -> the class of each pixel of the picture of (height, width), [H, W] uint8."""
        ...

    def class_scores(self, raw: Any, picture_size: tuple[int, int], label: int, /) -> np.ndarray:
        """What the net gave -> the probabilities of one class, [H, W] float32."""
        ...


class SegmentationView(View[LabelledFrame]):
    """Classes as colours with a legend; or, with a background, everything replaced that is no person.

    Cityscapes' and CamVid's classes have their official colours. classes: the names of those to colour and count, None
    for all that are something. background: needs a predictor that has scores. label_folder: where the labels of each
    picture go as a PNG. Raises ValueError for a class that the net does not know, be it the person to cut out.
    """

    def __init__(
        self,
        predictor: PixelPredictor,
        *,
        classes: Sequence[str] | None = None,
        background: Background | None = None,
        label_folder: Path | None = None,
    ) -> None:
        self.predictor: PixelPredictor = predictor
        names = predictor.class_names
        shown = class_numbers(classes, names, "segmenter")
        self.hidden = [
            label for label, name in enumerate(names) if (name in _NOTHING if shown is None else label not in shown)
        ]
        self.colours = _OFFICIAL_COLOURS.get(names) or _told_apart(names)
        if background is not None and PERSON not in names:
            raise ValueError(f"the segmenter knows no {PERSON} to cut out; its classes are {', '.join(names)}")
        self.cut_out = None if background is None else CutOut(background)
        self.label_folder = label_folder

    def begin(self) -> None:
        """See `View`."""
        if self.cut_out is not None:
            self.cut_out.start_over()

    def finish(self, raw: Any, picture_size: tuple[int, int]) -> LabelledFrame:
        """See `View`."""
        names, person = self.predictor.class_names, None
        if self.cut_out is None:
            labels = self.predictor.label_map(raw, picture_size)
        else:
            size = working_size(picture_size) if self.label_folder is None else picture_size
            label = names.index(PERSON)
            person = self.predictor.class_scores(raw, size, label)
            is_alone = len(names) == 2  # its scores then say all
            labels = ((person > 0.5) == bool(label)).view(np.uint8) if is_alone else self.predictor.label_map(raw, size)
        counts = count_labels(labels).tolist()
        shares = {name: number / labels.size for name, number in zip(names, counts, strict=False) if number}
        return LabelledFrame(labels, person, shares)

    def draw(self, picture: np.ndarray, answer: LabelledFrame) -> np.ndarray:
        """See `View`."""
        if self.cut_out is None:
            names = self.predictor.class_names
            draw_classes_(picture, answer.labels, names, colours=self.colours, hidden=self.hidden)
        else:
            assert answer.person is not None  # see `finish`
            self.cut_out.draw_(picture, answer.person)
        return picture

    def note(
        self, log: FrameLog | None, source: str, size: tuple[int, ...], answer: LabelledFrame, **when: float
    ) -> None:
        """See `View`; the label picture is written, too."""
        if log is not None:
            log.write_shares(source, size, answer.shares, **when)
        if self.label_folder is not None:
            path = self.label_folder / label_picture_name(source, when.get("frame"))
            write_labels(path, answer.labels)

    def amounts(self, answer: LabelledFrame) -> Mapping[str, float]:
        """Parts of the picture, of the classes that are in the legend; see `View`."""
        hidden = {self.predictor.class_names[label] for label in self.hidden}
        return {name: share for name, share in answer.shares.items() if name not in hidden and share >= LEAST_SHARE}

    def describe(self, answer: LabelledFrame) -> str:
        """See `View`."""
        amounts = self.amounts(answer)
        told = f"{count(len(amounts), 'class', 'classes')} found"
        rows = [[name, f"{share:.1%}"] for name, share in sorted(amounts.items(), key=lambda item: -item[1])]
        return f"{told}\n{format_table(('class', 'pixels'), rows)}" if rows else told

    def describe_amount(self, _name: str, total: float, frames: int, /) -> str:
        """See `View`."""
        return f"{total / frames:.1%} of all pixels"


def _told_apart(class_names: Sequence[str]) -> list[Colour]:
    """Colours in the order of those that are something, so that a person is red as with a detector."""
    coloured = [name for name in class_names if name not in _NOTHING]
    return [class_colour(coloured.index(name)) if name in coloured else _GREY for name in class_names]
