"""PASCAL VOC's folders -> (picture, `Target`): an xml file for each picture, a list of names for each split.

Format: Everingham et al., The PASCAL Visual Object Classes Challenge 2007 development kit: Annotations/NAME.xml,
JPEGImages/NAME.jpg, ImageSets/Main/SPLIT.txt. Pixels are counted from 1 there, and both corners belong to the box, so
that xmin 1 and xmax 640 span a picture of 640: here 0 to 640.
Deviations: a box whose corners coincide would be one pixel by that rule; it is a slip of the hand and counts as no
area. A difficult object is marked as a crowd is: no loss asks for it, and no metric.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from backbones.registry import nearest
from detect.transforms import Transform
from pictures.boxes import Annotations, BoxRow, Corners, Picture, fit_box, gather
from pictures.folders import find_pictures, is_hidden
from pictures.report import AnnotationReport
from pictures.splits import read_split

from .annotated_pictures import (
    check_class_names,
    choose_names,
    measure_picture,
    refuse_no_boxes,
    refuse_nothing,
    without_ending,
)
from .boxed_pictures import BoxedPictures
from .plain_xml import Element, read_xml

_LOGGER = logging.getLogger("detect")
_FREQUENT, _ALIKE = 20, 0.6  # a slip is so many times rarer than the name that is meant, and so much like it
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocDetection(BoxedPictures):
    """Pictures with boxes from VOC's folders. `category_ids` are 1..C; `image_ids` count the pictures from 1."""

    crowds_are_difficult = True

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = None,
        *,
        class_names: Sequence[str] | None = None,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
        cache: bool = False,
        strict: bool = False,
        first_pixel: int = 1,
        images: str = "JPEGImages",
        annotations: str = "Annotations",
    ) -> None:
        """Read the pictures that root/ImageSets/Main/split.txt names; without a split, those that have an xml file.

        class_names: which classes, in this order (those that the xml files name, in alphabetical order); file_names:
        which of the pictures (all); transform, cache, strict: see `BoxedPictures`. first_pixel: the number of the
        leftmost pixel, 1 in VOC, 0 where a tool wrote corners that count from 0. images, annotations: the folders below
        `root`, "." where everything lies together.

        Counted in the report, and not in the way of a training unless `strict`: pictures left out because they or
        their xml are missing, damaged or disagree about the size; a size that the xml lacks, which the picture gives;
        boxes of names that are not among the classes, without area, outside the picture or without numbers. Raises
        ValueError or OSError in one line where there is no such folder or split, or nothing is left.
        """
        if first_pixel not in (0, 1):
            raise ValueError(f"first_pixel is {first_pixel}; expected 0 or 1")
        folder = Path(root)
        place, names = _listed(folder, split, annotations)
        report = AnnotationReport(crowd_word="difficult objects")
        found = _read_all(choose_names(names, file_names, place), folder / images, folder / annotations, report)
        refuse_nothing(found, report, place)
        chosen = check_class_names(class_names) if class_names is not None else _names_in(found, place)
        read = _assemble(found, chosen, first_pixel, report)
        refuse_no_boxes(report, place)
        super().__init__(read, place, folder / images, transform=transform, cache=cache, strict=strict)


class _Object(NamedTuple):
    """An object as the xml has it; corners are xmin, ymin, xmax, ymax, None where they are no four numbers."""

    name: str
    corners: Corners | None
    is_difficult: bool


class _Found(NamedTuple):
    """A picture with a readable xml; size is (height, width)."""

    file_name: str
    xml_name: str
    size: tuple[int, int]
    objects: list[_Object]


def _listed(root: Path, split: str | None, annotations: str) -> tuple[Path, list[str]]:
    """What lists the pictures, and their names without endings."""
    folder = root / annotations
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of xml files at {folder}")
    if split is None:
        return folder, sorted(path.stem for path in folder.glob("*.xml") if not is_hidden(path, folder))
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        near = nearest(split, (other.stem for other in path.parent.glob("*.txt")))
        raise FileNotFoundError(f"no list of pictures at {path}{near}")
    return path, [without_ending(name) for name in read_split(path)]


def _read_all(names: Sequence[str], images: Path, annotations: Path, report: AnnotationReport) -> list[_Found]:
    """The pictures that can be used; the others are noted."""
    pictures = find_pictures(names, images)
    found = []
    for name in names:
        if name not in pictures:
            report.leave_out("pictures left out: not in the folder", name)
        elif not (annotations / f"{name}.xml").is_file():
            report.leave_out("pictures left out: without xml", pictures[name])
        else:
            one = _read_one(images, pictures[name], annotations / f"{name}.xml", report)
            found += [] if one is None else [one]
    return found


def _read_one(images: Path, file_name: str, xml: Path, report: AnnotationReport) -> _Found | None:
    """One picture and its xml; None where it is left out."""
    try:
        root = read_xml(xml, "annotation")
    except (ValueError, OSError) as error:
        report.leave_out("pictures left out: broken xml", str(error))
        return None
    size = measure_picture(images, file_name, report)
    if size is None:
        return None
    said = _size(root)
    if said is None:
        report.repair("xml files without a size, which was read from the picture", xml.name)
    elif said != size:
        place = f"{file_name} is {size[1]} x {size[0]}, its xml says {said[1]} x {said[0]}"
        report.leave_out("pictures left out: of another size than the xml says", place)
        return None
    return _Found(file_name, xml.name, size, [_object(part, xml.name, report) for part in root.findall("object")])


def _size(root: Element) -> tuple[int, int] | None:
    """(height, width), or None where the xml has no two whole numbers above 0."""
    sides = [(root.findtext(f"size/{side}") or "").strip() for side in ("height", "width")]
    if not all(side.isdecimal() and len(side) < 10 and int(side) > 0 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def _object(part: Element, xml_name: str, report: AnnotationReport) -> _Object:
    """What an <object> says. Its parts (a person's head or hand) have boxes of their own, which are not read."""
    flag = (part.findtext("difficult") or "0").strip()
    if flag not in ("0", "1"):
        report.repair("difficult flags besides 0 and 1, taken as 0", f"{flag[:20]!r} in {xml_name}")
    try:
        x1, y1, x2, y2 = (float(part.findtext(f"bndbox/{corner}") or "") for corner in _CORNERS)
        corners = x1, y1, x2, y2
    except ValueError:
        corners = None
    return _Object(" ".join((part.findtext("name") or "").split()), corners, flag == "1")


def _names_in(found: Sequence[_Found], place: Path) -> tuple[str, ...]:
    """Every name that an object has, in alphabetical order."""
    counts = Counter(one.name for picture in found for one in picture.objects if one.name)
    if not counts:
        raise ValueError(f"the pictures of {place} have no object with a name; expected class names, or objects")
    _say_slips(counts, place)
    return tuple(sorted(counts))


def _say_slips(counts: Mapping[str, int], place: Path) -> None:
    """One line in the log "detect" where a rare name looks like a frequent one with a slip of the hand."""
    slips = []
    for name, count in sorted(counts.items()):
        near = nearest(name, [other for other in counts if counts[other] >= _FREQUENT * count], cutoff=_ALIKE)
        slips += [f"{name!r} {count} times{near}"] if near else []
    if slips:
        said = "names that may be slips are classes of their own"
        _LOGGER.warning("%s: %s: %s; data.class_names chooses which count", place, said, ", ".join(slips))


def _assemble(
    found: Sequence[_Found], class_names: tuple[str, ...], first_pixel: int, report: AnnotationReport
) -> Annotations:
    """Boxes and labels of the pictures found."""
    label_of = {name: label for label, name in enumerate(class_names)}
    unknown: dict[str, list[str]] = {}
    rows: list[list[BoxRow]] = []
    for picture in found:
        rows.append([])
        for number, one in enumerate(picture.objects, 1):
            if one.name not in label_of:
                unknown.setdefault(one.name, []).append(picture.xml_name)
                continue
            box = _box(one.corners, picture.size, first_pixel, report, f"object {number} in {picture.xml_name}")
            if box is not None:
                rows[-1].append(BoxRow(box, label_of[one.name], one.is_difficult))
    for name, places in unknown.items():
        word = f"{name!r}{nearest(name, class_names)}" if name else "no name"
        text = f"{word} {len(places)} times, first in {places[0]}"
        report.drop("name not in the class list", text, len(places))
    pictures = [Picture(number, picture.file_name, picture.size) for number, picture in enumerate(found, 1)]
    return gather(pictures, list(enumerate(class_names, 1)), rows, report)


def _box(
    corners: Corners | None, size: tuple[int, int], first_pixel: int, report: AnnotationReport, place: str
) -> Corners | None:
    """xyxy in the picture, or None where the box is dropped."""
    if corners is None:
        report.drop("no four numbers", place)
        return None
    x1, y1, x2, y2 = corners
    if x1 >= x2 or y1 >= y2:
        report.drop("no area", place)
        return None
    return fit_box((x1 - first_pixel, y1 - first_pixel, x2, y2), size, report, place)
