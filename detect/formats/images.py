"""Picture files in, [H, W, 3] uint8 RGB arrays out; what is no whole picture is refused with its path."""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

_SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's plug-ins raise on damaged bytes.
_DAMAGE = (
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
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a picture file")
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes); expected a picture")
    try:
        return _decode(path)
    except PermissionError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path} is not a readable picture: {_reason(error, path)}") from error


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[H, W, 3] uint8 -> [h, w, 3], the aspect ratio not kept. Shrinking averages areas, so that nothing flickers."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _decode(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # on damaged EXIF, odd palettes, many pixels; Pillow's hard limit of 179 million stays
        with Image.open(path) as picture:
            picture.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(picture)), order="C")


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
    return np.asarray(picture.convert("RGB"))


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

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """sizes: (height, width) of each picture."""
        self._sizes = list(sizes)
        self._allocate()

    def _allocate(self) -> None:
        counts = [height * width * 3 for height, width in self._sizes]
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
        """Picture `index` as a read-only [H, W, 3] uint8 view, or None where nobody has put it here yet."""
        with self._lock:  # also the memory barrier between the pixels and their mark
            if not self._is_filled[index]:
                return None
        view = self._slot(index).view()
        view.flags.writeable = False
        return view

    def put(self, index: int, image: np.ndarray) -> None:
        """Keep `image`, [H, W, 3] uint8 of the size announced for `index`."""
        self._slot(index)[:] = image
        with self._lock:
            self._is_filled[index] = 1

    def _slot(self, index: int) -> np.ndarray:
        return self._pixels[self._starts[index] : self._starts[index + 1]].reshape(*self._sizes[index], 3)

    def __getstate__(self) -> dict[str, list[tuple[int, int]]]:
        return {"_sizes": self._sizes}

    def __setstate__(self, state: dict[str, list[tuple[int, int]]]) -> None:
        self._sizes = state["_sizes"]
        self._allocate()
