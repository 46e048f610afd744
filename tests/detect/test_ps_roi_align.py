"""Position-sensitive RoI align: torchvision's, the exportable form, and a plain reference agree."""

import pytest
import torch
import torchvision

from detect.ps_roi_align import PSRoIAlign, ps_roi_align_by_sampling


def plain_ps_roi_align(features, boxes, bins, stride):
    """From the definition: each bin of its own channel, the mean of 2 x 2 bilinear samples at quarter points."""
    batch, channels, height, width = features.shape
    depth = channels // (bins * bins)
    out = torch.zeros(batch, boxes.shape[1], depth, bins, bins)

    def bilinear(plane, y, x):
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        fy, fx = y - top, x - left
        upper = plane[top, left] * (1 - fx) + plane[top, right] * fx
        lower = plane[bottom, left] * (1 - fx) + plane[bottom, right] * fx
        return upper * (1 - fy) + lower * fy

    for n in range(batch):
        for r, box in enumerate(boxes[n].tolist()):
            x1, y1, x2, y2 = (side / stride - 0.5 for side in box)
            step_x, step_y = (x2 - x1) / bins, (y2 - y1) / bins
            for d in range(depth):
                for row in range(bins):
                    for column in range(bins):
                        plane = features[n, (d * bins + row) * bins + column]
                        samples = [
                            bilinear(plane, y1 + (row + part_y) * step_y, x1 + (column + part_x) * step_x)
                            for part_y in (0.25, 0.75)
                            for part_x in (0.25, 0.75)
                        ]
                        out[n, r, d, row, column] = sum(samples) / 4
    return out


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5 * 9, 7, 6, generator=generator)
    corners = torch.rand(2, 4, 2, generator=generator) * torch.tensor([60.0, 70.0])
    sizes = torch.rand(2, 4, 2, generator=generator) * 36 + 0.5
    boxes = torch.cat((corners, (corners + sizes).minimum(torch.tensor([96.0, 112.0]))), dim=-1)
    boxes[0, 0] = torch.tensor([0.0, 0, 96, 112])  # the whole picture
    return features, boxes


@pytest.mark.parametrize("method", ["operator", "grid_sample"])
def test_equals_the_plain_reference(case, method):
    features, boxes = case
    found = PSRoIAlign(3, 16, method=method)(features, boxes)
    assert found.shape == (2, 4, 5, 3, 3)
    torch.testing.assert_close(found, plain_ps_roi_align(features, boxes, 3, 16), rtol=1e-4, atol=1e-5)


def test_equals_the_diagonal_of_torchvisions_roi_align(case):
    features, boxes = case
    rois = torchvision.ops.roi_align(features, list(boxes), 3, 1 / 16, sampling_ratio=2, aligned=True)
    rois = rois.view(2, 4, 5, 3, 3, 3, 3)  # picture, box, depth, channel's row and column, bin's row and column
    own = rois.diagonal(dim1=3, dim2=5).diagonal(dim1=3, dim2=4)
    torch.testing.assert_close(PSRoIAlign(3, 16)(features, boxes), own, rtol=0, atol=0)


def test_both_forms_have_the_same_gradient(case):
    features, boxes = case
    gradients = []
    for method in ("operator", "grid_sample"):
        leaf = features.clone().requires_grad_()
        weights = torch.arange(2 * 4 * 5 * 9).view(2, 4, 5, 3, 3).float().cos()
        (PSRoIAlign(3, 16, method=method)(leaf, boxes) * weights).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.export
def test_the_sampling_form_exports(case):
    class Net(torch.nn.Module):
        def forward(self, features, boxes):
            return ps_roi_align_by_sampling(features, boxes, 3, 1 / 16, 2)

    exported = torch.export.export(Net(), case).module()
    torch.testing.assert_close(exported(*case), Net()(*case))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'operater': it is one of operator, grid_sample"):
        PSRoIAlign(7, 16, method="operater")
