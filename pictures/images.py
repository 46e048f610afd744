"""Picture files in, [H, W, 3] uint8 RGB arrays out; what is no whole picture is refused with its path."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

_SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_STRETCHED_GREY = {"L;2": 85, "L;4": 17}  # what Pillow multiplies the values of grey pictures of few bits with
_MANY = 4  # times the pixels that are wanted
_PNG_SIGNATURE = 8  # bytes
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
Read = TypeVar("Read")
# What Pillow's plug-ins raise on damaged bytes.
DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The picture as [H, W, 3] uint8 RGB, upright as its EXIF orientation says, in an array of its own.

    Grey, palette and CMYK pictures are converted; transparency is dropped (the stored colour counts); of 16-bit values
    the high byte is kept; of an animation the first frame. Raises OSError where there is no such file and ValueError
    where its contents are no whole picture of 8 or 16 bits per value, each in one line with the path.
    """

    def upright(picture: Image.Image) -> np.ndarray:
        ImageOps.exif_transpose(picture, in_place=True)  # no copy of what stands upright
        return np.array(_to_rgb(picture), order="C")

    return _read(Path(path), upright)


def read_values(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a picture of one channel as they are stored, [H, W] uint8: palette places, no colours.

    A picture of three equal channels counts as one. Raises as `read_image`; ValueError also for other colour pictures,
    for values over 255 and for JPEG, which does not keep values.
    """
    return _read(Path(path), _stored_values, whole=False)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of the upright picture, mostly without decoding it, which is quick. Raises as `read_image`."""

    def size(picture: Image.Image) -> tuple[int, int]:
        # Pillow decodes a PNG without EXIF in its head, since it may stand behind the pixels.
        is_known = picture.format == "PNG" and _is_plain_behind_pixels(Path(path))
        exif = Image.Image.getexif(picture) if is_known else picture.getexif()
        turned = exif.get(ExifTags.Base.Orientation, 1) in _QUARTER_TURNS
        turned = turned and picture.format != "TIFF"  # Pillow gives the upright size of those
        return (picture.width, picture.height) if turned else (picture.height, picture.width)

    return _read(Path(path), size, whole=False)


def check_picture(image: object) -> None:
    """ValueError for anything but [H, W, 3] uint8, and for a picture without pixels."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"the picture is a {type(image).__name__}; expected a NumPy array [H, W, 3] of uint8")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the picture is {list(image.shape)} of {image.dtype}; expected [H, W, 3] of uint8, RGB")


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 -> [h, w, 3], the aspect ratio not kept. Shrinking averages areas, so that nothing flickers.

    To a quarter of the pixels or fewer, sides are halved as often as it goes, and the rest is bilinear: from 1280 x 720
    to 320 x 320 that takes a seventh of the time of exact areas, and a detector scores the same.
    """
    height, width = size
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if height > rows or width > columns:
        if rows > 2 * height or columns > 2 * width:  # the side that shrinks first: bilinear would pass over pixels
            return resize_image(resize_image(image, (min(rows, height), min(columns, width))), size)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if rows * columns < _MANY * height * width:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    while rows > 2 * height or columns > 2 * width:  # further apart, bilinear samples would pass over pixels
        rows, columns = (side // 2 if side > 2 * goal else side for side, goal in ((rows, height), (columns, width)))
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _read(path: Path, convert: Callable[[Image.Image], Read], *, whole: bool = True) -> Read:
    """What `convert` makes of the opened picture, whose pixels are there if `whole`; see `read_image` for errors."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a picture file")
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); expected a picture")
    try:
        with warnings.catch_warnings():
            # On damaged EXIF, odd palettes, many pixels; Pillow's hard limit of 179 million stays.
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                if whole:
                    picture.load()
                return convert(picture)
    except PermissionError:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} is not a readable picture: {_reason(error, path)}") from error


def _is_plain_behind_pixels(path: Path) -> bool:
    """Whether a PNG's chunks are whole, and those from the pixels on hold nothing that could say how it is turned."""
    with path.open("rb") as file:
        file.seek(_PNG_SIGNATURE)
        has_pixels = False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            content = file.read(length)
            if file.read(4) != struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))):
                return False
            if kind == b"IEND":
                return has_pixels
            has_pixels = has_pixels or kind == b"IDAT"
            # Pillow looks for EXIF in texts too, and for an orientation in XMP.
            is_plain_text = kind == b"tEXt" and not any(word in content.lower() for word in (b"exif", b"xmp"))
            if has_pixels and kind not in (b"IDAT", b"tIME") and not is_plain_text:
                return False
    return False


def _stored_values(picture: Image.Image) -> np.ndarray:
    """[H, W] uint8 in an array of its own, of a picture whose pixels are not read yet."""
    if picture.format == "JPEG":
        raise ValueError("a JPEG, which does not keep values; expected PNG")
    tiles: Any = getattr(picture, "tile", None)  # Pillow's plan of reading the file: gone once that is done
    step = _STRETCHED_GREY.get(str(tiles[0].args), 1) if tiles else 1
    values = np.asarray(picture) // step if step > 1 else np.asarray(picture)
    if picture.mode == "RGB" and (values == values[:, :, :1]).all():
        values = values[:, :, 0]
    if values.ndim != 2:
        raise ValueError(f"colours ({picture.mode}); expected one value a pixel: a grey or palette PNG")
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
        raise ValueError(f"values from {values.min()} to {values.max()}; expected whole numbers 0..255")
    return np.array(values, np.uint8, order="C")


def _to_rgb(picture: Image.Image) -> np.ndarray:
    """[H, W, 3] uint8; may be read-only."""
    if picture.mode in _SIXTEEN_BIT_GREY or picture.mode == "I":
        values = np.asarray(picture)
        if picture.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise ValueError("32-bit integers; expected 8 or 16 bits per value")
        # Pillow's own conversion clips at 255; the high byte is also what it keeps of 16-bit colour.
        return np.repeat((values.astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.mode == "F":
        raise ValueError("floating point values; expected 8 or 16 bits per value")
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _reason(error: Exception, path: Path) -> str:
    """One line, without the path, which the caller names."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "its contents are of no known picture format"
    text = " ".join(str(error).split()).replace(f"{str(path)!r}", "it")
    return text or type(error).__name__


class PictureCache:
    """Decoded pictures in memory that forked workers share: whoever reads a picture first fills its place for all.

    The memory is anonymous and shared, not in /dev/shm, which is often too small; it is taken page by page as pictures
    come. A copy that is pickled (workers started by spawn) begins empty and is not shared.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], *, channels: int = 3) -> None:
        """sizes: (height, width) of each picture, all with so many `channels`."""
        self._sizes, self._channels = list(sizes), channels
        self._allocate()

    def _allocate(self) -> None:
        counts = [height * width * self._channels for height, width in self._sizes]
        self._starts = list(itertools.accumulate(counts, initial=0))
        try:
            self._pixels = np.frombuffer(mmap.mmap(-1, max(self._starts[-1], 1)), np.uint8)
        except (OSError, OverflowError) as error:
            needed = self._starts[-1] / 2**30
            raise OSError(
                f"no memory for a cache of {len(counts)} pictures, {needed:.1f} GiB; switch it off"
            ) from error
        self._is_filled = np.frombuffer(mmap.mmap(-1, max(len(counts), 1)), np.uint8)
        self._lock = multiprocessing.Lock()

    def get(self, index: int) -> np.ndarray | None:
        """Picture `index` as a read-only [H, W, channels] uint8 view, or None where nobody has put it here yet."""
        with self._lock:  # also the memory barrier between the pixels and their mark
            if not self._is_filled[index]:
                return None
        view = self._slot(index).view()
        view.flags.writeable = False
        return view

    def put(self, index: int, image: np.ndarray) -> None:
        """Keep `image`, [H, W, channels] uint8 of the size announced for `index`."""
        self._slot(index)[:] = image
        with self._lock:
            self._is_filled[index] = 1

    def _slot(self, index: int) -> np.ndarray:
        return self._pixels[self._starts[index] : self._starts[index + 1]].reshape(*self._sizes[index], self._channels)

    def __getstate__(self) -> dict[str, Any]:
        return {"_sizes": self._sizes, "_channels": self._channels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._sizes, self._channels = state["_sizes"], state["_channels"]
        self._allocate()
