"""Anchors: the boxes that proposals start from.

Reference: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.1; ThunderNet (arXiv:1903.11752), section 3.2, for the
five scales and five ratios. Deviations: an anchor sits on the middle of its cell, (column + 0.5) * stride; the papers
do not say where.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def cell_anchors(scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors around the point (0, 0): [len(scales) * len(ratios), 4], all ratios of the first scale first.

    A scale is the side of the square with the anchor's area, in input pixels; a ratio is height / width.
    """
    sides = torch.tensor(scales, dtype=torch.float32)[:, None]
    roots = torch.tensor(ratios, dtype=torch.float32).sqrt()[None, :]
    widths, heights = (sides / roots).flatten(), (sides * roots).flatten()
    return torch.stack((-widths, -heights, widths, heights), dim=1) / 2


class AnchorGrid(nn.Module):
    """The same anchors on every cell of a feature map. ValueError for no scale or ratio, or one that is not above 0."""

    cells: Tensor

    def __init__(self, scales: Sequence[float], ratios: Sequence[float], stride: int) -> None:
        super().__init__()
        for name, values in (("anchor_scales", scales), ("anchor_ratios", ratios)):
            if not values or not all(value > 0 for value in values):
                raise ValueError(f"{name} is {list(values)}; expected at least one number, all above 0")
        self.stride = stride
        self.register_buffer("cells", cell_anchors(scales, ratios), persistent=False)

    @property
    def per_cell(self) -> int:
        """How many anchors stand on one cell."""
        return len(self.cells)

    def forward(self, feature_size: tuple[int, int]) -> Tensor:
        """(rows, columns) -> [rows * columns * per_cell, 4] xyxy input pixels: row by row; not clipped."""
        rows, columns = feature_size
        device = self.cells.device
        ys = (torch.arange(rows, device=device) + 0.5) * self.stride
        xs = (torch.arange(columns, device=device) + 0.5) * self.stride
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centres = torch.stack((x, y, x, y), dim=-1)
        return (centres[:, :, None, :] + self.cells).reshape(-1, 4)
