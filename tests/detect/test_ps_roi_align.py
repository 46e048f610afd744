"""Position-sensitive RoI operators: torchvision's, the exportable form, and plain references agree."""

import pytest
import torch
import torchvision

from detect.ps_roi_align import METHODS, ROI_OPERATORS, PSRoIAlign, create_roi_operator


def plain_ps_roi(features, boxes, bins, stride, of_bin):
    """[N, R, C, bins, bins]: `of_bin(plane, box in cells, row, column)` of each bin's own channel, one by one."""
    batch, channels, _, _ = features.shape
    depth = channels // (bins * bins)
    out = torch.zeros(batch, boxes.shape[1], depth, bins, bins)
    for n in range(batch):
        for r, box in enumerate(boxes[n].tolist()):
            for d in range(depth):
                for row in range(bins):
                    for column in range(bins):
                        plane = features[n, (d * bins + row) * bins + column]
                        out[n, r, d, row, column] = of_bin(plane, [side / stride for side in box], row, column)
    return out


def sample_places(start, stop, bins, place):
    """Where the two samples of bin `place` lie along an axis: at its quarter points."""
    step = (stop - start) / bins
    return [start + (place + part) * step for part in (0.25, 0.75)]


def average_of_samples(plane, box, row, column, bins=3):
    """The mean of 2 x 2 bilinear samples; pixels stand at their middles, the border goes on for ever."""
    height, width = plane.shape

    def bilinear(y, x):
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        fy, fx = y - top, x - left
        upper = plane[top, left] * (1 - fx) + plane[top, right] * fx
        lower = plane[bottom, left] * (1 - fx) + plane[bottom, right] * fx
        return upper * (1 - fy) + lower * fy

    x1, y1, x2, y2 = (side - 0.5 for side in box)
    ys, xs = sample_places(y1, y2, bins, row), sample_places(x1, x2, bins, column)
    return sum(bilinear(y, x) for y in ys for x in xs) / 4


def largest_of_samples(plane, box, row, column, bins=3):
    """The largest of 2 x 2 bilinear samples; no half pixel is taken off, beyond the map stand zeros."""
    height, width = plane.shape

    def at(y, x):
        return float(plane[y, x]) if 0 <= y < height and 0 <= x < width else 0.0

    def bilinear(y, x):
        top, left = int(y), int(x)
        fy, fx = y - top, x - left
        upper = at(top, left) * (1 - fx) + at(top, left + 1) * fx
        lower = at(top + 1, left) * (1 - fx) + at(top + 1, left + 1) * fx
        return upper * (1 - fy) + lower * fy

    x1, y1, x2, y2 = box
    ys, xs = sample_places(y1, y2, bins, row), sample_places(x1, x2, bins, column)
    return max(bilinear(y, x) for y in ys for x in xs)


def average_of_cells(plane, box, row, column, bins=3, stride=16):
    """The mean of the cells that a bin touches, of a box whose corners are rounded to pixels; 0 where it has none."""
    x1, y1, x2, y2 = (round(side * stride) / stride for side in box)

    def cells(start, stop, place, length):
        size = max(stop - start, 0.1) / bins
        first, last = start + place * size, start + (place + 1) * size
        return [cell for cell in range(length) if cell + 1 > first + 1e-6 and cell < last - 1e-6]

    height, width = plane.shape
    values = [plane[y, x] for y in cells(y1, y2, row, height) for x in cells(x1, x2, column, width)]
    return sum(values) / max(len(values), 1)


PLAIN = {"align": average_of_samples, "align_max": largest_of_samples, "pool": average_of_cells}
FORMS = [
    ("align", "operator"),
    ("align", "grid_sample"),
    ("align", "roi_align"),
    ("align_max", "grid_sample"),
    ("pool", "operator"),
]


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5 * 9, 7, 6, generator=generator)
    corners = torch.rand(2, 4, 2, generator=generator) * torch.tensor([60.0, 70.0])
    sizes = torch.rand(2, 4, 2, generator=generator) * 36 + 0.5
    boxes = torch.cat((corners, (corners + sizes).minimum(torch.tensor([96.0, 112.0]))), dim=-1)
    boxes[0, 0] = torch.tensor([0.0, 0, 96, 112])  # the whole picture
    boxes[1, 0] = torch.tensor([3.0, 5, 96, 112])  # to its far corner
    return features, boxes


@pytest.mark.parametrize(("name", "method"), FORMS)
def test_equals_the_plain_reference(case, name, method):
    features, boxes = case
    found = create_roi_operator(name, 3, 16, method=method)(features, boxes)
    assert found.shape == (2, 4, 5, 3, 3)
    torch.testing.assert_close(found, plain_ps_roi(features, boxes, 3, 16, PLAIN[name]), rtol=1e-4, atol=1e-5)


def test_the_operators_by_hand():
    """A map of 2 x 2 cells, one bin: cells 1 2 / 3 4, the whole picture of 32 x 32."""
    features = torch.tensor([[[[1.0, 2], [3, 4]]]])
    boxes = torch.tensor([[[0.0, 0, 32, 32]]])
    found = {name: create_roi_operator(name, 1, 16)(features, boxes).item() for name in ROI_OPERATORS}
    # Samples at cells 0 and 1, their middles: 1 2 3 4. Not shifted, at 0.5 and 1.5: only the first lies within; of the
    # others half of the mean of 2 and 4, half of that of 3 and 4, and a quarter of 4 are left.
    assert found == pytest.approx({"align": 2.5, "align_max": 2.5, "pool": 2.5})
    shifted = features - 3
    found = {name: create_roi_operator(name, 1, 16)(shifted, boxes).item() for name in ROI_OPERATORS}
    assert found == pytest.approx({"align": -0.5, "align_max": 0.25, "pool": -0.5})


def test_equals_the_diagonal_of_torchvisions_roi_align(case):
    features, boxes = case
    rois = torchvision.ops.roi_align(features, list(boxes), 3, 1 / 16, sampling_ratio=2, aligned=True)
    rois = rois.view(2, 4, 5, 3, 3, 3, 3)  # picture, box, depth, channel's row and column, bin's row and column
    own = rois.diagonal(dim1=3, dim2=5).diagonal(dim1=3, dim2=4)
    torch.testing.assert_close(PSRoIAlign(3, 16)(features, boxes), own, rtol=0, atol=0)


@pytest.mark.parametrize("padding", [0, 16, 300])
def test_boxes_padded_with_zeros_give_finite_numbers(case, padding):
    features, boxes = case
    boxes = torch.cat((boxes, torch.zeros(2, padding, 4)), dim=1)
    for name in ROI_OPERATORS:
        assert create_roi_operator(name, 3, 16)(features, boxes).isfinite().all()


def gradient(operator, features, boxes):
    leaf = features.clone().requires_grad_()
    weights = torch.arange(2 * 4 * 5 * 9).view(2, 4, 5, 3, 3).float().cos()
    (operator(leaf, boxes) * weights).sum().backward()
    assert leaf.grad.abs().max() > 0.1
    return leaf.grad


@pytest.mark.parametrize(("name", "method"), FORMS)
def test_gradient_equals_that_of_the_plain_reference(case, name, method):
    features, boxes = case
    found = gradient(create_roi_operator(name, 3, 16, method=method), features, boxes)
    generator = torch.Generator().manual_seed(1)
    step = 1e-3 * torch.randn(features.shape, generator=generator)
    weights = torch.arange(2 * 4 * 5 * 9).view(2, 4, 5, 3, 3).float().cos()
    ahead, behind = (
        (plain_ps_roi(features + sign * step, boxes, 3, 16, PLAIN[name]) * weights).sum() for sign in (1, -1)
    )
    torch.testing.assert_close((found * step).sum(), (ahead - behind) / 2, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("name", ROI_OPERATORS)
def test_half_precision_maps_are_read_exactly(case, name):
    features, boxes = case
    for dtype in (torch.bfloat16, torch.float16):
        found = create_roi_operator(name, 3, 16)(features.to(dtype), boxes)
        expected = create_roi_operator(name, 3, 16)(features.to(dtype).float(), boxes).to(dtype)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.export
@pytest.mark.parametrize(("name", "method"), FORMS)
def test_the_operators_export(case, name, method):
    operator = create_roi_operator(name, 3, 16, method=method)
    exported = torch.export.export(operator, case).module()
    torch.testing.assert_close(exported(*case), operator(*case))


@pytest.mark.compile
@pytest.mark.parametrize(("name", "method"), FORMS)
def test_the_operators_compile_without_a_break(case, name, method):
    operator = create_roi_operator(name, 3, 16, method=method)
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*case), operator(*case))


def test_maps_of_a_single_cell():
    features, boxes = torch.randn(1, 9, 1, 1), torch.tensor([[[0.0, 0, 16, 16]]])
    expected = features.view(1, 1, 1, 3, 3)
    torch.testing.assert_close(PSRoIAlign(3, 16)(features, boxes), expected)
    for method in METHODS:
        torch.testing.assert_close(PSRoIAlign(3, 16, method=method)(features, boxes), expected)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="'operater': it is one of operator, grid_sample"):
        PSRoIAlign(7, 16, method="operater")
    with pytest.raises(ValueError, match="reduce 'mean': it is one of average, max"):
        PSRoIAlign(7, 16, reduce="mean")
    with pytest.raises(ValueError, match="roi_operator 'aligned': it is one of align, align_max, pool"):
        create_roi_operator("aligned", 7, 16)
    with pytest.raises(ValueError, match="method 'sample': it is one of operator, grid_sample"):
        create_roi_operator("pool", 7, 16, method="sample")
