"""COCO json and a folder of pictures -> (picture, `Target`). Category ids and xywh boxes end here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from detect.transforms import Transform
from pictures.coco_json import read_annotations
from pictures.folders import check_files

from .boxed_pictures import BoxedPictures


class CocoDetection(BoxedPictures):
    """Pictures with boxes from a COCO json. `category_ids` and `image_ids` are the file's own."""

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        file_names: Iterable[str] | None = None,
        transform: Transform | None = None,
        cache: bool = False,
        strict: bool = False,
    ) -> None:
        """Read the json `annotations`; its pictures lie in the folder `images` and are opened when asked for.

        class_names: which classes, in this order (all, by category id); file_names: which pictures (all); transform,
        cache, strict: see `BoxedPictures`. Boxes that reach beyond their picture are clipped; boxes without area,
        outside the picture or not finite are dropped; pictures without objects stay. Raises ValueError or OSError in
        one line: see `read_annotations`; also where pictures are missing from the folder.
        """
        path, folder = Path(annotations), Path(images)
        read = read_annotations(path, class_names=class_names, file_names=file_names)
        check_files([picture.file_name for picture in read.pictures], folder, path)
        super().__init__(read, path, folder, transform=transform, cache=cache, strict=strict)

    def ground_truth(self) -> Path:
        """The file itself: it has the areas of objects that were outlined, by which COCO tells small from large."""
        return self.annotations
