"""Position-sensitive RoI operators: each bin of a box reads its own group of channels.

References: Dai et al., R-FCN, NeurIPS 2016, arXiv:1605.06409, section 2 (the position-sensitive maps, and pooling); He
et al., Mask R-CNN, ICCV 2017 (align); Li et al., Light-Head R-CNN, arXiv:1711.07264, section 3.3 (both together).
Deviations: "align" averages 2 x 2 samples and has pixels at their middles, as torchvision's operator. "align_max" takes
the largest of them and does not shift by half a pixel, and beyond the map stand zeros, as in Light-Head R-CNN's
released code; a sample that lies exactly on a pixel counts once, where that code counts it twice or four times.
ThunderNet's release, which takes the largest as well, gives a box a side of at least 0.1 places of the map. "pool" is
R-FCN's own; torchvision's `ps_roi_pool` never reads the last row and column of the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import ps_roi_align, roi_align

METHODS = ("operator", "grid_sample", "roi_align")
REDUCTIONS = ("average", "max")
ROI_OPERATORS = ("align", "align_max", "pool")

_LEAST_SIDE = 0.1  # of a box, in cells, as in R-FCN's code
_TOUCH = 1e-3  # a bin that reaches less than this into a cell does not read it: rounding must not decide


def create_roi_operator(name: str, bins: int, stride: int, *, method: str = "operator") -> nn.Module:
    """An operator by name, "align", "align_max" or "pool": (thin map, boxes) -> [N, R, C, bins, bins].

    method: as in `PSRoIAlign`; only "align" has several, the others export as they are. Raises ValueError for an
    unknown word.
    """
    for what, word, words in (("roi_operator", name, ROI_OPERATORS), ("method", method, METHODS)):
        if word not in words:
            raise ValueError(f"{what} {word!r}: it is one of {', '.join(words)}")
    if name == "pool":
        return PSRoIPool(bins, stride)
    return PSRoIAlign(bins, stride, reduce="max" if name == "align_max" else "average", method=method)


def _with_picture_index(boxes: Tensor) -> Tensor:
    """boxes [N, R, 4] -> [N * R, 5], the picture's number first."""
    pictures = torch.arange(len(boxes), device=boxes.device, dtype=boxes.dtype)
    return torch.cat((pictures[:, None, None].expand(-1, boxes.shape[1], 1), boxes), dim=-1).flatten(0, 1)


def _by_bin(features: Tensor, cells: int) -> Tensor:
    """The thin map [N, C * cells, h, w] as one map for each bin: [N * cells, C, h, w]."""
    batch, channels, height, width = features.shape
    groups = features.reshape(batch, channels // cells, cells, height * width).transpose(1, 2)
    return groups.reshape(batch * cells, channels // cells, height, width)


def _sample(features: Tensor, places: Tensor, bins: int, samples: int, padding: str) -> Tensor:
    """Each bin's own channels at samples x samples places in it, by one `grid_sample` on groups of channels.

    features [N, C * bins * bins, h, w], places [N, R, 4] the boxes in cells of the map, whole numbers at the cells'
    middles -> [N, bins * bins, C, samples * samples, R]: the boxes last, so that what the samples of a bin become is
    worked out for many boxes at once. padding: what lies beyond the map, "border" or "zeros".
    """
    height, width = features.shape[-2:]
    batch, count, cells = places.shape[0], places.shape[1], bins * bins
    parts = (torch.arange(bins * samples, device=places.device, dtype=places.dtype) + 0.5) / (bins * samples)
    along = places.transpose(1, 2)[:, :, None]  # [N, 4, 1, R]
    along_x = along[:, 0] + parts[:, None] * (along[:, 2] - along[:, 0])  # [N, bins * samples, R]
    along_y = along[:, 1] + parts[:, None] * (along[:, 3] - along[:, 1])
    # In grid_sample's frame -1 and 1 are the map's outer edges.
    xs = ((along_x * 2 + 1) / width - 1).view(batch, 1, bins, 1, samples, count)
    ys = ((along_y * 2 + 1) / height - 1).view(batch, bins, 1, samples, 1, count)
    every = (batch, bins, bins, samples, samples, count)
    grid = torch.stack((xs.expand(every), ys.expand(every)), dim=-1)
    grid = grid.reshape(batch * cells, samples * samples, count, 2)
    groups = _by_bin(features, cells)
    sampled = F.grid_sample(groups, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return sampled.unflatten(0, (-1, cells))


def _roi_align_of_bins(features: Tensor, boxes: Tensor, bins: int, spatial_scale: float, samples: int) -> Tensor:
    """Every bin as a box of its own, on its own group of channels -> [N, R, bins * bins, C]; boxes in input pixels."""
    batch, count, cells = boxes.shape[0], boxes.shape[1], bins * bins
    starts = torch.arange(bins, device=boxes.device, dtype=boxes.dtype) / bins
    top, left = torch.meshgrid(starts, starts, indexing="ij")
    near = torch.stack((left, top, left + 1 / bins, top + 1 / bins), dim=-1).view(cells, 4)
    corners, ends = boxes[..., None, :2], boxes[..., None, 2:]
    parts = torch.cat((corners, corners), dim=-1) + near * torch.cat((ends - corners, ends - corners), dim=-1)
    group = torch.arange(cells, device=boxes.device, dtype=boxes.dtype)[:, None].expand(batch, count, cells, 1)
    picture = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None, None]
    rois = torch.cat((group + picture * cells, parts), dim=-1).flatten(0, 2)
    aligned = roi_align(_by_bin(features, cells), rois, 1, spatial_scale, samples, aligned=True)
    return aligned.reshape(batch, count, cells, -1)


def ps_roi_align_by_sampling(features: Tensor, boxes: Tensor, bins: int, spatial_scale: float, samples: int) -> Tensor:
    """torchvision's operator by one grouped `grid_sample`, which every exporter knows: the same but for rounding.

    features [N, C * bins * bins, h, w], boxes [N, R, 4] inside the picture -> [N, R, bins * bins, C].
    """
    sampled = _sample(features, boxes * spatial_scale - 0.5, bins, samples, "border")
    return sampled.mean(dim=3).permute(0, 3, 1, 2)


def ps_roi_align_max(features: Tensor, boxes: Tensor, bins: int, spatial_scale: float, samples: int) -> Tensor:
    """The largest sample of each bin; arguments and result as in `ps_roi_align_by_sampling`."""
    return _sample(features, boxes * spatial_scale, bins, samples, "zeros").amax(dim=3).permute(0, 3, 1, 2)


class PSRoIAlign(nn.Module):
    """features [N, C * bins * bins, h, w] and boxes [N, R, 4] (input pixels) -> [N, R, C, bins, bins].

    Channel order of the thin map: c * bins * bins + row * bins + column. reduce: "average" or "max", see the file's
    head. method: "operator" (torchvision's, which only averages), or one of two forms that export: "grid_sample"
    (quicker in OpenVINO), "roi_align" (quicker in onnxruntime). The averages differ by rounding, and the maximum is
    sampled in any case.
    """

    def __init__(
        self, bins: int, stride: int, *, samples: int = 2, reduce: str = "average", method: str = "operator"
    ) -> None:
        super().__init__()
        for name, word, words in (("method", method, METHODS), ("reduce", reduce, REDUCTIONS)):
            if word not in words:
                raise ValueError(f"PSRoIAlign {name} {word!r}: it is one of {', '.join(words)}")
        self.bins, self.stride, self.samples, self.reduce, self.method = bins, stride, samples, reduce, method

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """See the class."""
        return self.by_bin(features, boxes).transpose(2, 3).unflatten(3, (self.bins, self.bins))

    def by_bin(self, features: Tensor, boxes: Tensor) -> Tensor:
        """The same numbers with the channels of a bin side by side, as they are worked out: [N, R, bins * bins, C]."""
        # In mixed precision the maps come in 16 bits: bfloat16 has no kernel, and half would round the boxes.
        exact = torch.promote_types(features.dtype, torch.float32)
        wide, boxes = features.to(exact), boxes.to(exact)
        scale = 1 / self.stride
        if self.reduce == "max":
            pooled = ps_roi_align_max(wide, boxes, self.bins, scale, self.samples)
        elif self.method == "grid_sample":
            pooled = ps_roi_align_by_sampling(wide, boxes, self.bins, scale, self.samples)
        elif self.method == "roi_align":
            pooled = _roi_align_of_bins(wide, boxes, self.bins, scale, self.samples)
        else:
            flat = ps_roi_align(wide, _with_picture_index(boxes), self.bins, scale, self.samples)
            pooled = flat.unflatten(0, boxes.shape[:2]).flatten(3).transpose(2, 3)
        return pooled.to(features.dtype)


class PSRoIPool(nn.Module):
    """The mean of all cells that a bin touches; arguments and result as in `PSRoIAlign`. Beyond the map is nothing: 0.

    Corners of boxes are rounded to whole input pixels. The sums come from a table of the sums above and to the left of
    each cell, in double precision, so that the work does not grow with the boxes.
    """

    def __init__(self, bins: int, stride: int) -> None:
        super().__init__()
        self.bins, self.stride = bins, stride

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """See the class."""
        height, width = features.shape[-2:]
        cells = boxes.to(torch.promote_types(features.dtype, torch.float32)).round() / self.stride
        left, right = self._edges(cells[..., 0], cells[..., 2], width)
        top, bottom = self._edges(cells[..., 1], cells[..., 3], height)
        sums = F.pad(features, (1, 0, 1, 0)).double().cumsum(dim=-2).cumsum(dim=-1)
        groups = sums.unflatten(1, (-1, self.bins, self.bins)).flatten(-2)  # [N, C, bins, bins, (h + 1) * (w + 1)]

        def above_left(ys: Tensor, xs: Tensor) -> Tensor:
            places = ys[..., :, None] * (width + 1) + xs[..., None, :]  # [N, R, bins, bins]
            places = places.permute(0, 2, 3, 1)[:, None].expand(-1, groups.shape[1], -1, -1, -1)
            return groups.gather(-1, places)

        inside = above_left(bottom, right) - above_left(top, right) - above_left(bottom, left) + above_left(top, left)
        counts = (bottom - top)[..., :, None] * (right - left)[..., None, :]
        means = inside.permute(0, 4, 1, 2, 3) / counts[:, :, None].clamp(min=1)
        return means.to(features.dtype)

    def _edges(self, starts: Tensor, stops: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Along one axis of `length` cells: boxes [N, R] -> first cell of each bin and the one past its last."""
        sizes = (stops - starts).clamp(min=_LEAST_SIDE)[..., None]
        parts = torch.arange(self.bins + 1, device=starts.device, dtype=starts.dtype) / self.bins
        edges = starts[..., None] + parts * sizes
        first, last = (edges[..., :-1] + _TOUCH).floor(), (edges[..., 1:] - _TOUCH).ceil()
        return first.clamp(0, length).long(), last.clamp(0, length).long()
