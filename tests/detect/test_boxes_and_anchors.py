"""Box arithmetic and anchors against numbers worked out by hand."""

import math

import pytest
import torch

from detect.anchors import AnchorGrid, cell_anchors
from detect.boxes import areas, clip_boxes, decode_boxes, encode_boxes, intersections, pairwise_iou


def test_encode_by_hand():
    # Reference: centre (20, 30), 20 x 40. Box: centre (25, 20), 40 x 20.
    # dx = (25 - 20) / 20 = 0.25, dy = (20 - 30) / 40 = -0.25, dw = log 2, dh = log 0.5; over (0.1, 0.1, 0.2, 0.2).
    reference, box = torch.tensor([[10.0, 10, 30, 50]]), torch.tensor([[5.0, 10, 45, 30]])
    expected = torch.tensor([[2.5, -2.5, math.log(2) / 0.2, -math.log(2) / 0.2]])
    deltas = encode_boxes(box, reference, (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(deltas, expected)
    torch.testing.assert_close(decode_boxes(deltas, reference, (0.1, 0.1, 0.2, 0.2)), box)


def test_a_wild_delta_does_not_overflow():
    decoded = decode_boxes(torch.tensor([[0.0, 0, 1e6, 1e6]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(decoded, torch.tensor([[-492.0, -492, 508, 508]]))  # 16 * 1000 / 16 = 1000 wide


def test_overlaps_by_hand():
    # 10 x 10 and 10 x 10 shifted by (5, 5): 25 shared, 175 in all; and one apart; and one without area.
    first = torch.tensor([[0.0, 0, 10, 10]])
    second = torch.tensor([[5.0, 5, 15, 15], [20, 20, 30, 30], [3, 3, 3, 3]])
    torch.testing.assert_close(intersections(first, second), torch.tensor([[25.0, 0, 0]]))
    torch.testing.assert_close(pairwise_iou(first, second), torch.tensor([[25 / 175, 0, 0]]))
    torch.testing.assert_close(pairwise_iou(second[2:], second[2:]), torch.zeros(1, 1))
    torch.testing.assert_close(areas(second), torch.tensor([100.0, 100, 0]))


def test_clip():
    clipped = clip_boxes(torch.tensor([[-5.0, 3, 50, 99], [200, -9, 300, -1]]), (60, 40))
    torch.testing.assert_close(clipped, torch.tensor([[0.0, 3, 40, 60], [40, 0, 40, 0]]))


def test_cell_anchors_by_hand():
    # Scale 32, ratio 1/2 (height / width): width 32 * sqrt 2 = 45.25, height 22.63; ratio 1: 32 x 32.
    expected = torch.tensor([[-22.627417, -11.313708, 22.627417, 11.313708], [-16, -16, 16, 16]])
    torch.testing.assert_close(cell_anchors([32], [0.5, 1]), expected)
    assert cell_anchors([32, 64], [0.5, 1]).shape == (4, 4)


def test_the_grid_goes_row_by_row_and_sits_on_the_cells_middles():
    grid = AnchorGrid([16], [1.0, 4.0], stride=16)
    anchors = grid((2, 3))
    assert anchors.shape == (2 * 3 * 2, 4)
    torch.testing.assert_close(anchors[0], torch.tensor([0.0, 0, 16, 16]))
    torch.testing.assert_close(anchors[1], torch.tensor([4.0, -8, 12, 24]))  # 8 wide, 32 high, around (8, 8)
    torch.testing.assert_close(anchors[2], torch.tensor([16.0, 0, 32, 16]))  # the next column
    torch.testing.assert_close(anchors[6], torch.tensor([0.0, 16, 16, 32]))  # the next row


def test_the_papers_anchors_at_320():
    grid = AnchorGrid((32, 64, 128, 256, 512), (0.5, 0.75, 1, 4 / 3, 2), stride=16)
    assert grid.per_cell == 25
    assert grid((20, 20)).shape == (10_000, 4)
    assert areas(grid.cells).tolist() == pytest.approx([s * s for s in (32, 64, 128, 256, 512) for _ in range(5)])
