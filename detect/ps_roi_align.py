"""Position-sensitive RoI align: each bin of a box reads its own group of channels.

References: Dai et al., R-FCN, NeurIPS 2016, arXiv:1605.06409, section 2 (the position-sensitive maps); He et al., Mask
R-CNN, ICCV 2017 (align); Li et al., Light-Head R-CNN, arXiv:1711.07264, section 3.3 (both together).
Deviations: samples are averaged and pixels stand at their middles (torchvision's operator); the authors' released code
takes the maximum and does not shift by half a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import ps_roi_align

METHODS = ("operator", "grid_sample")


def _with_picture_index(boxes: Tensor) -> Tensor:
    """boxes [N, R, 4] -> [N * R, 5], the picture's number first."""
    pictures = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    return torch.cat((pictures[:, None, None].expand(-1, boxes.shape[1], 1), boxes), dim=-1).flatten(0, 1)


def ps_roi_align_by_sampling(features: Tensor, boxes: Tensor, bins: int, spatial_scale: float, samples: int) -> Tensor:
    """The same numbers as torchvision's operator by one grouped `grid_sample`, which every exporter knows.

    features [N, C * bins * bins, h, w], boxes [N, R, 4] inside the picture -> [N, R, C, bins, bins].
    """
    batch, channels, height, width = features.shape
    count, cells = boxes.shape[1], bins * bins
    offsets = (torch.arange(bins * samples, device=boxes.device, dtype=boxes.dtype) + 0.5) / (bins * samples)
    scaled = boxes * spatial_scale - 0.5
    xs = scaled[..., 0:1] + offsets * (scaled[..., 2:3] - scaled[..., 0:1])
    ys = scaled[..., 1:2] + offsets * (scaled[..., 3:4] - scaled[..., 1:2])
    # Sample points in the frame of grid_sample with aligned corners: -1 and 1 are the middles of the outermost pixels.
    xs = xs.clamp(0, width - 1) * (2.0 / max(width - 1, 1)) - 1
    ys = ys.clamp(0, height - 1) * (2.0 / max(height - 1, 1)) - 1
    grid_y = ys.view(batch, count, bins, 1, samples, 1).expand(-1, -1, -1, bins, -1, samples)
    grid_x = xs.view(batch, count, 1, bins, 1, samples).expand(-1, -1, bins, -1, samples, -1)
    grid = torch.stack((grid_x, grid_y), dim=-1).permute(0, 2, 3, 1, 4, 5, 6)
    grid = grid.reshape(batch * cells, count, samples * samples, 2)
    groups = features.view(batch, channels // cells, cells, height, width).transpose(1, 2).flatten(0, 1)
    sampled = F.grid_sample(groups, grid, mode="bilinear", padding_mode="border", align_corners=True).mean(dim=-1)
    return sampled.view(batch, bins, bins, -1, count).permute(0, 4, 3, 1, 2)


class PSRoIAlign(nn.Module):
    """features [N, C * bins * bins, h, w] and boxes [N, R, 4] (input pixels) -> [N, R, C, bins, bins].

    Channel order of the thin map: c * bins * bins + row * bins + column. `method` is "operator" (torchvision's) or
    "grid_sample" (the form that exports); they differ by rounding.
    """

    def __init__(self, bins: int, stride: int, *, samples: int = 2, method: str = "operator") -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"PSRoIAlign method {method!r}: it is one of {', '.join(METHODS)}")
        self.bins, self.stride, self.samples, self.method = bins, stride, samples, method

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """See the class."""
        if self.method == "grid_sample":
            return ps_roi_align_by_sampling(features, boxes, self.bins, 1 / self.stride, self.samples)
        # In mixed precision the maps come in 16 bits: bfloat16 has no kernel, and half would round the boxes.
        exact = torch.promote_types(features.dtype, torch.float32)
        rois = _with_picture_index(boxes.to(exact))
        pooled = ps_roi_align(features.to(exact), rois, self.bins, 1 / self.stride, self.samples)
        return pooled.to(features.dtype).unflatten(0, (boxes.shape[0], boxes.shape[1]))
