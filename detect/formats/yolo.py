"""YOLO's data.yaml with its pictures and label files -> (picture, `Target`).

Format: https://docs.ultralytics.com/datasets/detect/: a label file has a line for each object, `class x y width
height`, the class as a number from 0, the centre and the sides as parts of the picture. The file of .../images/a/b.jpg
is .../labels/a/b.txt, or b.txt beside the picture where no folder is called images; a picture without one has no
objects. A line with the corners of an outline, `class x y x y x y ...`, gives the box around them. Where the yaml has a
`kpt_shape`, each line has an object's keypoints behind its box, and they are not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from detect.transforms import Transform
from pictures.boxes import BoxRow, Corners, Picture, fit_box, gather
from pictures.folders import is_hidden, list_pictures
from pictures.report import AnnotationReport
from pictures.splits import read_split

from .annotated_pictures import choose_classes, choose_names, measure_picture, refuse_no_boxes, refuse_nothing
from .boxed_pictures import BoxedPictures
from .data_yaml import read_data_yaml

_BEYOND = 1e-6  # of a picture's side: what rounding to six digits may push an edge over the picture's
_NO_LABELS = "classes.txt"  # some tools keep the names of the classes among the labels


class YoloDetection(BoxedPictures):
    """Pictures with boxes from YOLO's files. `category_ids` are the class numbers; `image_ids` count from 1."""

    def __init__(
        self,
        data_yaml: str | os.PathLike[str],
        split: str = "train",
        *,
        class_names: Sequence[str] | None = None,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
        cache: bool = False,
        strict: bool = False,
    ) -> None:
        """Read the pictures of `split` (train, val or test) of `data_yaml`: see `read_data_yaml`.

        class_names: which classes, in this order (all, by number); file_names: which pictures (all), relative to the
        folder `images`, which is the yaml's `path`; transform, cache, strict: see `BoxedPictures`.

        Counted in the report, and not in the way of a training unless `strict`: pictures left out because they are
        missing or cannot be read, label files without a picture; lines of a class number that the yaml does not have,
        with numbers outside 0..1, without area or that are no box. Raises ValueError or OSError in one line where the
        yaml is broken, a folder is missing, or no picture has a label file.
        """
        data = read_data_yaml(Path(data_yaml))
        report = AnnotationReport(crowd_word="")
        place = Path(data_yaml)
        found = _find_all(data.sources(split), data.root, report)
        names = choose_names(found, file_names, place)
        chosen = choose_classes(data.class_names, class_names, place)
        label_of = {data.class_names.index(name): label for label, name in enumerate(chosen)}
        reader = _LabelReader(label_of, len(data.class_names), data.keypoint_numbers, report)
        pictures: list[Picture] = []
        rows: list[list[BoxRow]] = []
        for name in names:
            size = measure_picture(data.root, name, report)
            picture_rows = None if size is None else reader.read(data.root, name, size)
            if size is not None and picture_rows is not None:
                pictures.append(Picture(len(pictures) + 1, name, size))
                rows.append(picture_rows)
        refuse_nothing(pictures, report, place)
        reader.refuse_no_labels(data.root, names)
        read = gather(pictures, [(number, data.class_names[number]) for number in label_of], rows, report)
        refuse_no_boxes(report, place)
        super().__init__(read, place, data.root, transform=transform, cache=cache, strict=strict)


class _LabelReader:
    """Reads label files; label_of: number of a class that was asked for -> its place; of `num_classes` in all.

    keypoint_numbers: how many numbers follow each box; where it is not 0, there are no outlines.
    """

    def __init__(
        self, label_of: Mapping[int, int], num_classes: int, keypoint_numbers: int, report: AnnotationReport
    ) -> None:
        self.label_of, self.num_classes, self.report = label_of, num_classes, report
        self.keypoint_numbers = keypoint_numbers
        self._files = 0

    def read(self, root: Path, name: str, size: tuple[int, int]) -> list[BoxRow] | None:
        """The objects of a picture; None where its label file is damaged and the picture is left out."""
        path = _label_path(root / name)
        if not path.is_file():
            return []
        self._files += 1
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            self.report.leave_out("pictures left out: the label file is no text", os.path.relpath(path, root))
            return None
        shown = os.path.relpath(path, root)
        numbered = ((line.split(), f"line {number} of {shown}") for number, line in enumerate(lines, 1))
        rows = (self._row(words, size, place) for words, place in numbered if words)
        return [row for row in rows if row is not None]

    def refuse_no_labels(self, root: Path, names: Sequence[str]) -> None:
        """ValueError where not one picture had a label file: they are most likely looked for in the wrong place."""
        if not self._files:
            sought = f"the first was sought at {_label_path(root / names[0])}"
            raise ValueError(f"none of {len(names)} pictures in {root} has a label file; {sought}")

    def _row(self, words: list[str], size: tuple[int, int], place: str) -> BoxRow | None:
        """One line, split into words; None where it is dropped or of a class that was not asked for."""
        try:
            number, *values = map(float, words)
        except ValueError:
            self.report.drop("no numbers", place)
            return None
        defect = self._wrong_count(len(values))
        if defect is not None:
            self.report.drop(defect, f"{len(values)} numbers after the class in {place}")
            return None
        values = values[: len(values) - self.keypoint_numbers]
        if number not in range(self.num_classes):
            near = f"{words[0][:20]} in {place}, expected 0..{self.num_classes - 1}"
            self.report.drop("class number not in the list", near)
            return None
        if not all(0 <= value <= 1 for value in values):
            odd = next(word for word, value in zip(words[1:], values, strict=False) if not 0 <= value <= 1)
            self.report.drop("numbers out of 0..1", f"{odd[:20]} in {place}")
            return None
        if int(number) not in self.label_of:
            self.report.other_classes += 1
            return None
        box = fit_box(_corners(values, size), size, self.report, place)
        return None if box is None else BoxRow(box, self.label_of[int(number)], is_crowd=False)

    def _wrong_count(self, count: int) -> str | None:
        """What a line is that has `count` numbers after its class, where it cannot be right."""
        if self.keypoint_numbers:
            expected = 4 + self.keypoint_numbers
            return None if count == expected else f"no box with keypoints, which are {expected} numbers"
        return None if count == 4 or (count >= 6 and count % 2 == 0) else "neither a box nor an outline"


def _corners(values: Sequence[float], size: tuple[int, int]) -> Corners:
    """xyxy in a picture of `size` (height, width) of a box or an outline in parts of it."""
    if len(values) == 4:
        x, y, width, height = values
        x1, y1, x2, y2 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    height, width = size
    return _inside(x1) * width, _inside(y1) * height, _inside(x2) * width, _inside(y2) * height


def _inside(value: float) -> float:
    """Without what rounding alone put beyond 0 or 1."""
    limited = min(max(value, 0.0), 1.0)
    return limited if abs(value - limited) <= _BEYOND else value


def _label_path(picture: Path) -> Path:
    """.../images/a/b.jpg -> .../labels/a/b.txt; the last folder called images counts."""
    *folders, name = Path(os.path.abspath(picture)).parts
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, name).with_suffix(".txt")


def _find_all(sources: Iterable[Path], root: Path, report: AnnotationReport) -> list[str]:
    """The pictures of folders and lists, relative to `root`, each once; what is missing is noted."""
    found = chain.from_iterable(
        _in_folder(source, root, report) if source.is_dir() else _in_list(source, root, report) for source in sources
    )
    return list(dict.fromkeys(os.path.relpath(path, root) for path in found))


def _in_folder(folder: Path, root: Path, report: AnnotationReport) -> list[Path]:
    """Pictures in the folder and below; label files that belong to none are noted, hidden ones passed over."""
    pictures = list_pictures(folder, below=True)
    labels = _label_path(folder / "any.jpg").parent
    if labels != Path(os.path.abspath(folder)):
        known = {_label_path(path) for path in pictures}
        for path in sorted(labels.rglob("*.txt")):
            if path not in known and path.name != _NO_LABELS and not is_hidden(path, labels):
                report.leave_out("label files left out: without a picture", os.path.relpath(path, root))
    return pictures


def _in_list(path: Path, root: Path, report: AnnotationReport) -> list[Path]:
    """Pictures that a text file names, relative to its folder or to `root`; those that are not there are noted."""
    pictures = []
    for name in read_split(path):
        place = next((place for place in (path.parent / name, root / name) if place.is_file()), None)
        if place is None:
            report.leave_out("pictures left out: not in the folder", name)
        else:
            pictures.append(place)
    return pictures
