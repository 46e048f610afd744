"""DFANet: one light backbone run three times, each on what the one before it made.

Reference: Li et al., DFANet: Deep Feature Aggregation for Real-Time Semantic Segmentation, CVPR 2019, arXiv:1904.02216,
section 3, Table 1, Figure 3.
Deviations: see backbones/xception.py for the blocks. Sub-network aggregation enlarges the attention's output to the
size of the enc2 before it; sub-stage aggregation takes enc4 before its attention. The decoder's convolutions are 1x1
and 64 channels wide, with norm and ReLU, which fits the paper's multiply-adds (3x3 would cost twice as many); what is
summed goes straight into a 1x1 convolution to the classes. Enlargements keep corner pixels on corner pixels. The
paper's "Params (M)" are megabytes, and its tables build a net with 7 to 12 % fewer. Its A' is A at 512 x 1024.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from backbones import create_backbone, load_weights, read_state_dict
from backbones.base import FeatureInfo
from backbones.layers import conv_norm_act
from backbones.registry import preset
from backbones.xception import DFANET_CHANNELS, FullyConnectedAttention, dfanet_stages

from .base import Segmenter, checked_classes, checked_input_size, resize
from .losses import PixelLoss
from .registry import SEGMENTERS

BRANCHES = 3
DECODER_CHANNELS = 64


class LaterBranch(nn.Module):
    """enc2, enc3, enc4 once more, each on what came just before it, beside what the branch before has in its place.

    channels: of enc2, enc3, enc4.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        enc2, enc3, enc4 = channels
        self.stages = nn.ModuleList(dfanet_stages((enc4 + enc2, enc2 + enc3, enc3 + enc4), channels))

    def forward(self, before: Sequence[Tensor], attended: Tensor) -> list[Tensor]:
        """The maps of the branch before and its attended enc4 -> this branch's maps, each at half the size."""
        made = []
        worked = resize(attended, before[0].shape[-2:])
        for stage, aside in zip(self.stages, before, strict=True):
            worked = stage(torch.cat((worked, aside), dim=1))
            made.append(worked)
        return made


class AggregationDecoder(nn.Module):
    """The first attention, the two later branches, and the light decoder (Figure 3).

    feature_info: of the first branch's enc2, enc3, enc4.
    """

    def __init__(self, feature_info: Sequence[FeatureInfo], *, bounded_attention: bool) -> None:
        super().__init__()
        channels = [info.channels for info in feature_info]
        enc2, _, enc4 = channels
        self.branches = nn.ModuleList(LaterBranch(channels) for _ in range(BRANCHES - 1))
        self.attentions = nn.ModuleList(
            FullyConnectedAttention(enc4, bounded=bounded_attention) for _ in range(BRANCHES)
        )
        self.low = nn.ModuleList(conv_norm_act(enc2, DECODER_CHANNELS, 1) for _ in range(BRANCHES))
        self.low_sum = conv_norm_act(DECODER_CHANNELS, DECODER_CHANNELS, 1)
        self.high = nn.ModuleList(conv_norm_act(enc4, DECODER_CHANNELS, 1) for _ in range(BRANCHES))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[enc2 [N, c2, h, w], enc3, enc4] at 1/4, 1/8, 1/16 -> [[N, 64, h, w]]."""
        maps = list(features)
        attended = [self.attentions[0](maps[-1])]
        finest = [maps[0]]
        for branch, attention in zip(self.branches, self.attentions[1:], strict=True):
            maps = branch(maps, attended[-1])
            attended.append(attention(maps[-1]))
            finest.append(maps[0])
        size = finest[0].shape[-2:]
        low = _sum_enlarged([layer(each) for layer, each in zip(self.low, finest, strict=True)], size)
        high = _sum_enlarged([layer(each) for layer, each in zip(self.high, attended, strict=True)], size)
        return [self.low_sum(low) + high]


def _sum_enlarged(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    first, *others = [each if each.shape[-2:] == size else resize(each, size) for each in maps]
    return sum(others, first)


def dfanet(
    variant: str = "a",
    *,
    num_classes: int = 19,
    backbone_weights: str | PathLike[str] | None = None,
    input_size: Sequence[int] = (1024, 1024),
    bounded_attention: bool = True,
    pixels: str = "all",
    ohem_threshold: float = 0.7,
    ohem_least_kept: float = 1 / 16,
    class_weights: Sequence[float] | None = None,
) -> Segmenter:
    """DFANet A or B.

    backbone_weights: a file of the backbone `xception_a` or `_b` without attention, or of the classifier on it, whose
    linear layer then becomes that of all three attentions (section 3.2). input_size: (height, width) the net is meant
    for; any size works. bounded_attention: False leaves out the sigmoid that the paper's figure does not show. pixels
    ("all" or "ohem"), ohem_threshold, ohem_least_kept, class_weights: see `segment.losses.PixelLoss`.
    Raises ValueError for a word or number that cannot be, and for weights that do not fit.
    """
    checked_classes(num_classes, class_weights)
    height, width = checked_input_size(input_size)
    backbone = create_backbone(f"xception_{variant}", attention=False, out_strides=(4, 8, 16))
    decoder = AggregationDecoder(backbone.feature_info, bounded_attention=bounded_attention)
    if backbone_weights is not None:
        load_weights(backbone, backbone_weights)
        _adopt_classifier(decoder.attentions, backbone_weights)
    return Segmenter(
        backbone,
        decoder,
        nn.Conv2d(DECODER_CHANNELS, num_classes, 1),
        num_classes=num_classes,
        loss=PixelLoss(pixels, ohem_threshold, ohem_least_kept, class_weights),
        input_size=(height, width),
    )


def _adopt_classifier(attentions: nn.ModuleList, path: str | PathLike[str]) -> None:
    """Put the linear layer of a classifier's file, if it is one with as many classes, into all attentions."""
    head = {
        name.rpartition(".")[2]: tensor for name, tensor in read_state_dict(path).items() if name.startswith("head.")
    }
    for attention in attentions:
        assert isinstance(attention, FullyConnectedAttention)
        if head and head["weight"].shape == attention.fc.weight.shape:
            attention.fc.load_state_dict({name: tensor.float() for name, tensor in head.items()})


for _variant in DFANET_CHANNELS:
    SEGMENTERS.register_module(name=f"dfanet_{_variant}", module=preset(dfanet, variant=_variant))
