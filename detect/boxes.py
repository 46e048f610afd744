"""Arithmetic on boxes: xyxy pixels of the network's input throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# A box cannot be stretched by more than this in one step: exp of a wild early prediction would overflow.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """boxes [..., 4] -> centres [..., 2] and (width, height) [..., 2]."""
    corners, ends = boxes[..., :2], boxes[..., 2:]
    return (corners + ends) / 2, ends - corners


def encode_boxes(boxes: Tensor, references: Tensor, deviations: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The deltas that turn `references` into `boxes`, both [..., 4]; sizes must be above zero.

    (dx, dy) in units of the reference's width and height, (dw, dh) as logarithms, each divided by its deviation.
    Source: Girshick et al., R-CNN, CVPR 2014, appendix C.
    """
    centres, sizes = _centres_and_sizes(boxes)
    reference_centres, reference_sizes = _centres_and_sizes(references)
    deltas = torch.cat(((centres - reference_centres) / reference_sizes, (sizes / reference_sizes).log()), dim=-1)
    return deltas / deltas.new_tensor(deviations)


def decode_boxes(deltas: Tensor, references: Tensor, deviations: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Tensor:
    """The inverse of `encode_boxes`: deltas [..., 4] applied to references [..., 4] -> boxes [..., 4], not clipped."""
    deltas = deltas.to(references.dtype)
    deltas = deltas * deltas.new_tensor(deviations)
    centres, sizes = _centres_and_sizes(references)
    centres = centres + deltas[..., :2] * sizes
    half = sizes * deltas[..., 2:].clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.cat((centres - half, centres + half), dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """boxes [..., 4] with every corner moved into a picture of `size` (height, width)."""
    height, width = size
    columns, rows = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((columns[..., 0], rows[..., 0], columns[..., 1], rows[..., 1]), dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """boxes [..., 4] -> areas [...] in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersections(first: Tensor, second: Tensor) -> Tensor:
    """first [A, 4], second [B, 4] -> the area that each pair shares [A, B]."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """first [A, 4], second [B, 4] -> intersection over union [A, B]; 0 where both boxes are empty."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second)[None, :] - shared
    return shared / union.clamp(min=1e-9)
