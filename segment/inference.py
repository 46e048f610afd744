"""From a net to the answer for whole pictures: at once, in windows, at several scales, mirrored.

Memory stays bounded: labels are found class by class, and windows, scales and mirror pictures are added into one map of
32-bit probabilities, whatever their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pictures.windows import spread

Logits = Callable[[Tensor], Tensor]  # a net: images [N, 3, h, w], RGB 0..255 -> logits [N, C, h, w]


@torch.inference_mode()
def predict_probabilities(
    net: Logits,
    images: Tensor,
    *,
    window: Sequence[int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """images [N, 3, H, W], RGB 0..255, of any size -> [N, C, H, W] probabilities of the classes at their full size.

    By default the net sees each picture once, as it is. `window` (height, width): it sees windows of that size instead,
    spread evenly so that neighbours share at least the part `overlap` of a window; where several cover a pixel their
    probabilities are averaged. `scales`: the picture is also seen that many times as large, and `flip`: each time also
    mirrored, and all answers are averaged; such figures must not stand beside single-scale ones unmarked. The net
    should be in evaluation mode. Raises ValueError for settings that make no sense.
    """
    if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"scales are {list(scales)}; expected one or more numbers above 0")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}; expected a part of a window, 0 <= overlap < 1")
    if window is not None and (len(window) != 2 or min(window) < 1):
        raise ValueError(f"window is {list(window)}; expected (height, width) in pixels")
    size = (images.shape[-2], images.shape[-1])
    total: Tensor | None = None
    for scale in scales:
        scaled = resize_images(images, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        for mirror in (False, True) if flip else (False,):
            seen = scaled.flip(-1) if mirror else scaled
            found = _whole(net, seen) if window is None else _windows(net, seen, (window[0], window[1]), overlap)
            found = resize_scores(found.flip(-1) if mirror else found, size)
            total = found if total is None else total.add_(found)
    assert total is not None  # there is at least one scale
    return total.div_(len(scales) * (2 if flip else 1))


def _whole(net: Logits, images: Tensor) -> Tensor:
    return net(images).float().softmax(dim=1)


def _windows(net: Logits, images: Tensor, window: tuple[int, int], overlap: float) -> Tensor:
    """[N, C, H, W] probabilities; pictures smaller than a window are seen as they are."""
    size = (images.shape[-2], images.shape[-1])
    rows, columns = (spread(*sides, overlap) for sides in zip(size, window, strict=True))
    total: Tensor | None = None
    cover = images.new_zeros(size, dtype=torch.float32)
    for row in rows:
        for column in columns:
            part = (..., slice(*row), slice(*column))
            found = _whole(net, images[part])
            if total is None:
                total = found.new_zeros((*found.shape[:2], *size))
            total[part] += found
            cover[part] += 1
    assert total is not None  # every picture has a window
    return total.div_(cover)


def predict_labels(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """logits [N, C, h, w] -> the likeliest class of each pixel at (height, width) `size`, [N, H, W] int64.

    Logits are resized bilinearly, one class at a time: no map of all classes at full size is made, which is also
    quicker. Of equal classes the first wins.
    """
    best = resize_scores(logits[:, :1], size)[:, 0].clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=logits.device)  # labels have 8 bits on disk, too
    for label in range(1, logits.shape[1]):
        rival = resize_scores(logits[:, label : label + 1], size)[:, 0]
        labels.masked_fill_(rival > best, label)
        torch.maximum(best, rival, out=best)
    return labels.long()


def resize_scores(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits or probabilities [N, C, h, w] -> [N, C, H, W], bilinear, the corners of the pictures (not pixels) kept."""
    if tuple(scores.shape[-2:]) == size:
        return scores
    return F.interpolate(scores, size, mode="bilinear", align_corners=False)


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """images [N, 3, H, W] uint8 or float -> [N, 3, h, w]. Shrinking averages over areas, so that nothing flickers."""
    if tuple(images.shape[-2:]) == size:
        return images
    if images.device.type != "cpu" or size == (1, 1):
        images = images.float()  # torch resizes whole numbers on the processor only, and not to a single pixel
    return F.interpolate(images, size, mode="bilinear", antialias=True)
