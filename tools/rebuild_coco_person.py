"""Rebuild the person set from COCO val2017: its pictures at a longer side of 352, one category, boxes scaled along.

    python -m swiftsight_tools.rebuild_coco_person --annotations annotations/instances_val2017.json \
        --pictures val2017 --output coco_person

writes coco_person/{train,val}/*.jpg and coco_person/person_{train,val}.json. `train` is what the lists
coco_person_train.txt and coco_person_select.txt name together (2,284 pictures, 9,268 boxes), `val` is
coco_person_val.txt (300 pictures, 1,280 boxes).

How the boxes are made, as the set's own numbers show (those of picture 785 follow to the digit from COCO's): a picture
of w x h pixels becomes W x H with W = round(w * 352 / max(w, h)), H likewise, never larger than it was; x is scaled by
W / w and y by H / h, to two decimals. Every box of the category counts, crowd regions too, unmarked (`--mark-crowds`
marks them, which makes another and stricter set). Where a picture has one person only, its polygons and its true area
are kept; otherwise the area is that of the box.

What cannot be had to the bit: how the set's pictures were resampled is not known. Here Pillow's Lanczos filter and
JPEG of quality 86 (the set's files have its quantization tables) are used: expect slightly different scores. Why these
pictures of val2017 and not others that show people were in the set is not known either; the lists say which.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from pictures.boxes import Picture
from pictures.coco_json import load_coco, read_annotations
from pictures.images import read_image
from pictures.splits import read_split

LONGER_SIDE = 352
JPEG_QUALITY = 86
CATEGORY = "person"
SPLITS = {"train": ("coco_person_train.txt", "coco_person_select.txt"), "val": ("coco_person_val.txt",)}


def rebuild(annotations: Path, pictures: Path, output: Path, lists: Path, *, mark_crowds: bool = False) -> list[str]:
    """Write the set to `output`, which must not exist yet; one line of report per split.

    annotations: instances_val2017.json; pictures: the folder of its pictures; lists: the folder of the three lists.
    Nothing is left behind where it fails. Raises ValueError or OSError in one line.
    """
    if output.exists():
        raise FileExistsError(f"{output} exists already; name a folder that does not")
    names = {split: [name for part in parts for name in read_split(lists / part)] for split, parts in SPLITS.items()}
    everything = [name for part in names.values() for name in part]
    read = read_annotations(annotations, class_names=[CATEGORY], file_names=everything)
    persons = _entries_by_image(load_coco(annotations)["annotations"], read.category_ids[0])
    by_name = {picture.file_name: picture for picture in read.pictures}
    lines, first_id = [], 1
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        for split, split_names in names.items():
            chosen = sorted((by_name[name] for name in split_names), key=lambda picture: picture.image_id)
            content = _annotate(chosen, persons, split, first_id, mark_crowds=mark_crowds)
            (scratch / split).mkdir()
            for picture in chosen:
                _shrink(pictures / picture.file_name, scratch / split / picture.file_name, picture.size)
            (scratch / f"person_{split}.json").write_text(json.dumps(content), encoding="utf-8")
            first_id += len(content["annotations"])
            lines.append(f"{split}: {len(chosen)} pictures, {len(content['annotations'])} boxes")
        scratch.chmod(0o755)
        scratch.rename(output)
    except BaseException:
        shutil.rmtree(scratch)
        raise
    return lines


def shrunk_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) whose longer side is LONGER_SIDE at most."""
    scale = min(1.0, LONGER_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _entries_by_image(entries: Sequence[dict[str, Any]], category_id: int) -> Mapping[int, list[dict[str, Any]]]:
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in entries:
        if entry["category_id"] == category_id:
            by_image[entry["image_id"]].append(entry)
    return by_image


def _annotate(
    pictures: Sequence[Picture],
    persons: Mapping[int, list[dict[str, Any]]],
    split: str,
    first_id: int,
    *,
    mark_crowds: bool,
) -> dict[str, Any]:
    """The json of one split; annotations are numbered from `first_id`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        height, width = shrunk_size(picture.size)
        images.append({"id": picture.image_id, "file_name": picture.file_name, "width": width, "height": height})
        factors = width / picture.size[1], height / picture.size[0]
        entries = persons.get(picture.image_id, [])
        for entry in entries:
            scaled = _scaled(entry, factors, is_alone=len(entries) == 1)
            crowd = int(mark_crowds and bool(entry.get("iscrowd", 0)))
            ids = {"id": first_id + len(annotations), "image_id": picture.image_id, "category_id": 1, "iscrowd": crowd}
            annotations.append(ids | scaled)
    what = f"COCO val2017 images with people, longer side at most {LONGER_SIDE}, person boxes; {split}"
    categories = [{"id": 1, "name": CATEGORY, "supercategory": CATEGORY}]
    return {"info": {"description": what}, "images": images, "annotations": annotations, "categories": categories}


def _scaled(entry: Mapping[str, Any], factors: tuple[float, float], *, is_alone: bool) -> dict[str, Any]:
    """Box and area of one annotation, and its polygons where it is the only one of its picture."""
    fx, fy = factors
    x, y, width, height = entry["bbox"]
    box = [round(value, 2) for value in (x * fx, y * fy, width * fx, height * fy)]
    polygons = entry.get("segmentation")
    if not is_alone or not isinstance(polygons, list) or "area" not in entry:
        return {"bbox": box, "area": round(width * fx * height * fy, 2)}
    scaled = [[round(value * (fx, fy)[place % 2], 2) for place, value in enumerate(polygon)] for polygon in polygons]
    return {"bbox": box, "area": round(entry["area"] * fx * fy, 2), "segmentation": scaled}


def _shrink(source: Path, destination: Path, size: tuple[int, int]) -> None:
    """Resample one picture, which must have the (height, width) that the annotations say."""
    image = read_image(source)
    if image.shape[:2] != size:
        found = f"{image.shape[1]} x {image.shape[0]}"
        raise ValueError(f"{source} is {found} pixels, but the annotations say {size[1]} x {size[0]}")
    height, width = shrunk_size(size)
    destination.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    picture.save(destination, quality=JPEG_QUALITY)


def _installed_lists() -> Path:
    return Path(str(resources.files("swiftsight_configs"))) / "splits"


def main(words: Sequence[str] | None = None) -> int:
    """Run the script with `words` (the process's own by default); 0, or 1 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m swiftsight_tools.rebuild_coco_person",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--annotations", type=Path, required=True, help="COCO's instances_val2017.json")
    parser.add_argument("--pictures", type=Path, required=True, help="the folder of COCO's val2017 pictures")
    parser.add_argument("--output", type=Path, required=True, help="the folder to make")
    parser.add_argument("--lists", type=Path, help="another folder with the three lists of file names")
    parser.add_argument("--mark-crowds", action="store_true", help="keep COCO's crowd marks, unlike the original set")
    args = parser.parse_args(words)
    try:
        lists = args.lists or _installed_lists()
        lines = rebuild(args.annotations, args.pictures, args.output, lists, mark_crowds=args.mark_crowds)
    except (ValueError, OSError) as error:
        print(f"rebuild_coco_person: {error}", file=sys.stderr)
        return 1
    print("\n".join([*lines, f"written to {args.output}"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
