"""The one interface of all feature extractors: a row of stages, of which some are handed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from .layers import conv_norm_act, depthwise_norm, hold_stride_, pooled_linear

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class FeatureInfo(NamedTuple):
    """What one feature map is like: `stride` input pixels per place, `channels` deep."""

    stride: int
    channels: int


class Backbone(nn.Module):
    """Stages in a row. Stages deeper than the largest of `out_strides` are not kept.

    feature_info: one per map that `forward` returns, finest first. Of two stages at one stride the later counts.
    input_mean, input_std: the normalisation (RGB, 0..255) that the weights expect; who owns the pictures applies it.
    Raises ValueError for an out_stride that the net does not have.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        stage_info: Sequence[FeatureInfo],
        *,
        out_strides: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if len(stages) != len(stage_info):
            raise ValueError(f"{len(stages)} stages came with {len(stage_info)} entries of stage_info")
        if isinstance(out_strides, int):
            raise ValueError(f"out_strides is {out_strides}; expected several numbers, as in ({out_strides},)")
        last_at_stride = {info.stride: index for index, info in enumerate(stage_info)}
        wanted = sorted(last_at_stride) if out_strides is None else sorted(set(out_strides))
        if not wanted or any(stride not in last_at_stride for stride in wanted):
            raise ValueError(f"out_strides {list(out_strides or [])}: this net has {sorted(last_at_stride)}")
        self._output_indices = tuple(last_at_stride[stride] for stride in wanted)
        self.stages = nn.ModuleList(stages[: self._output_indices[-1] + 1])
        self.feature_info = tuple(stage_info[index] for index in self._output_indices)
        self.extra_stage: nn.Module | None = None
        self.input_mean: tuple[float, ...] = IMAGENET_MEAN
        self.input_std: tuple[float, ...] = IMAGENET_STD

    def classifier_head(self, num_classes: int) -> nn.Module:
        """What the published classifier puts on the last stage: [N, channels, H, W] -> logits [N, num_classes]."""
        return pooled_linear(self.feature_info[-1].channels, num_classes)

    def tensors_beside_classifier(self, head: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002 (most read none)
        """What this net has and the classifier that it was pre-trained as has not, by name; `head`: of the classifier.

        Nothing for most nets.
        """
        return {}

    def forward(self, images: Tensor) -> list[Tensor]:
        """images [N, 3, H, W], normalised -> one [N, channels, ceil(H/s), ceil(W/s)] per out_stride, finest first."""
        features = []
        for index, stage in enumerate(self.stages):
            images = stage(images)
            if index in self._output_indices:
                features.append(images)
        if self.extra_stage is not None:
            features.append(self.extra_stage(images))
        return features

    def extend(self) -> None:
        """Append `extra_stage`: a 3x3 depthwise and a 1x1 convolution, which halve the last map and keep its depth.

        For a head that needs a coarser map than the net has; it is no part of the published net.
        """
        last = self.feature_info[-1]
        self.extra_stage = nn.Sequential(
            depthwise_norm(last.channels, 3, stride=2), conv_norm_act(last.channels, last.channels, 1)
        )
        self.feature_info = (*self.feature_info, FeatureInfo(2 * last.stride, last.channels))

    def hold_last_stride(self, *, dilation: int = 1) -> None:
        """The last map becomes as large as the one before it: the stages between the two stop striding.

        No weight changes. dilation: holes in their convolutions; 2 makes them see as much of the picture as before.
        Raises ValueError for a net with one map, and for stages that cannot (`layers.hold_stride_`), which stay as they
        were.
        """
        if len(self.feature_info) < 2:
            raise ValueError(
                f"{type(self).__name__} gives one map; two are needed to make the last as large as the other"
            )
        between = self.stages[self._output_indices[-2] + 1 :] if self.extra_stage is None else [self.extra_stage]
        hold_stride_(nn.ModuleList(between), dilation=dilation)
        *others, before, last = self.feature_info
        self.feature_info = (*others, before, FeatureInfo(before.stride, last.channels))
