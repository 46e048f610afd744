"""The light box head: one wide enough fully connected layer, scores per class, one box for all classes.

References: Li et al., Light-Head R-CNN, arXiv:1711.07264, section 3.3; Qin et al., ThunderNet, arXiv:1903.11752,
section 3.2 (7x7x5 to 1024).
Deviations: the released codes of both have a box per class, that of ThunderNet also a second layer, which costs
more than the paper's 92 M multiply-adds. Neither paper says how the wide layer starts: here from He's normal numbers.
"""

from __future__ import annotations

from torch import Tensor, nn


class LightHead(nn.Module):
    """RoI operator, fully connected layer with ReLU, and two linear answers; background is the last class.

    align: (thin map [N, k * bins^2, h, w], boxes [N, R, 4] in input pixels) -> [N, R, k, bins, bins], of `in_features`.
    """

    def __init__(self, align: nn.Module, in_features: int, num_classes: int, *, fc_channels: int = 1024) -> None:
        super().__init__()
        self.align = align
        wide = nn.Linear(in_features, fc_channels)
        nn.init.kaiming_normal_(wide.weight, nonlinearity="relu")
        nn.init.zeros_(wide.bias)
        self.fc = nn.Sequential(wide, nn.ReLU(inplace=True))
        self.classify = nn.Linear(fc_channels, num_classes + 1)
        self.regress = nn.Linear(fc_channels, 4)
        for layer, deviation in ((self.classify, 0.01), (self.regress, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """thin map [N, c, h, w], proposals [N, R, 4] -> class logits [N, R, C + 1], box deltas [N, R, 4]."""
        aligned = self.align(features, proposals)
        pooled = self.fc(aligned.flatten(2).flatten(0, 1))  # two dimensions: an in-place ReLU on a view is copied back
        counts = aligned.shape[:2]
        return self.classify(pooled).unflatten(0, counts), self.regress(pooled).unflatten(0, counts)
