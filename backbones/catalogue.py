"""Every backbone by name: how it is built, what it costs, and what its paper says of it. One row a net.

The counts are expectations, from the papers' tables as they measure when built to the letter, and a test holds the nets
to them. Where a paper's own count differs, the net's file says so under Deviations. The accuracies are the papers'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .base import Backbone
from .mobilenet_v1 import MobileNetV1
from .mobilenet_v2 import MobileNetV2
from .registry import BACKBONES, preset
from .resnet import ResNet
from .shufflenet_v1 import ShuffleNetV1
from .shufflenet_v2 import ShuffleNetV2
from .snet import SNet
from .squeezenet import SqueezeNet
from .xception import Xception39, XceptionAB, xception145


class Row(NamedTuple):
    """One net under one name.

    build: takes `out_strides` and its own options; options: those that the name stands for. parameters: of the net
    with its published classifier for 1000 classes; multiply_adds: millions, of the same at 224 x 224. top1: accuracy
    on ImageNet in percent as `source` gives it, None where no figure is known. classifier_options: more options, for
    a published classifier that differs from the feature extractor.
    """

    name: str
    build: Callable[..., Backbone]
    options: Mapping[str, Any]
    parameters: int
    multiply_adds: float
    top1: float | None
    source: str
    classifier_options: Mapping[str, Any] = {}


_MOBILE_V1 = "arXiv:1704.04861 Table 6"
_MOBILE_V2 = "arXiv:1801.04381 Table 4"
_MOBILE_V2_CODE = "tensorflow/models, README of MobileNet"
_RESNET = "arXiv:1512.03385"
_SNET = "arXiv:1903.11752 Table 5"
_SHUFFLE_V1 = "arXiv:1707.01083"
_SHUFFLE_V2 = "arXiv:1807.11164 Table 8"
_SQUEEZE = "arXiv:1602.07360 Table 3"
_UNPADDED = {"padded": False}

ROWS = (
    Row("snet49", SNet, {"size": 49}, 875_548, 51.21, 60.3, _SNET),
    Row("snet146", SNet, {"size": 146}, 1_572_748, 161.14, 67.5, _SNET),
    Row("snet535", SNet, {"size": 535}, 4_535_144, 535.35, None, "not published"),
    Row("shufflenet_v2_x0_5", ShuffleNetV2, {"width": 0.5}, 1_366_792, 40.48, 60.3, _SHUFFLE_V2),
    Row("shufflenet_v2_x1_0", ShuffleNetV2, {"width": 1.0}, 2_278_604, 144.91, 69.4, _SHUFFLE_V2),
    Row("shufflenet_v2_x1_5", ShuffleNetV2, {"width": 1.5}, 3_503_624, 295.76, 72.6, _SHUFFLE_V2),
    Row("shufflenet_v2_x2_0", ShuffleNetV2, {"width": 2.0}, 7_393_996, 583.25, 74.9, _SHUFFLE_V2),
    Row("shufflenet_v1_g1", ShuffleNetV1, {"groups": 1, "width": 1.0}, 1_531_936, 143.08, 66.4, _SHUFFLE_V1),
    Row("shufflenet_v1_g2", ShuffleNetV1, {"groups": 2, "width": 1.0}, 1_733_848, 140.84, 67.3, _SHUFFLE_V1),
    Row("shufflenet_v1_g3", ShuffleNetV1, {"groups": 3, "width": 1.0}, 1_865_728, 137.46, 67.4, _SHUFFLE_V1),
    Row("shufflenet_v1_g4", ShuffleNetV1, {"groups": 4, "width": 1.0}, 1_968_344, 134.34, 67.2, _SHUFFLE_V1),
    Row("shufflenet_v1_g8", ShuffleNetV1, {"groups": 8, "width": 1.0}, 2_434_768, 138.37, 67.6, _SHUFFLE_V1),
    Row("shufflenet_v1_g3_x0_5", ShuffleNetV1, {"groups": 3, "width": 0.5}, 718_324, 37.59, 56.8, _SHUFFLE_V1),
    Row("shufflenet_v1_g3_x1_5", ShuffleNetV1, {"groups": 3, "width": 1.5}, 3_442_168, 292.44, 71.5, _SHUFFLE_V1),
    Row("shufflenet_v1_g3_x2_0", ShuffleNetV1, {"groups": 3, "width": 2.0}, 5_450_776, 524.05, 73.7, _SHUFFLE_V1),
    Row("shufflenet_v1_g8_x0_5", ShuffleNetV1, {"groups": 8, "width": 0.5}, 1_011_448, 40.47, 57.7, _SHUFFLE_V1),
    Row("shufflenet_v1_g8_x1_5", ShuffleNetV1, {"groups": 8, "width": 1.5}, 4_269_952, 290.19, None, "not published"),
    Row("shufflenet_v1_g8_x2_0", ShuffleNetV1, {"groups": 8, "width": 2.0}, 6_522_232, 521.94, None, "not published"),
    Row("xception145", xception145, {}, 1_531_936, 143.08, 65.9, "arXiv:1711.07264"),
    Row("xception39", Xception39, {}, 556_448, 39.73, None, "not published"),
    Row("xception_a", XceptionAB, {"variant": "a"}, 354_008, 79.54, None, "not published", {"attention": False}),
    Row("xception_b", XceptionAB, {"variant": "b"}, 206_232, 40.56, None, "not published", {"attention": False}),
    Row("mobilenet_v1", MobileNetV1, {}, 4_231_976, 568.74, 70.6, _MOBILE_V1),
    Row("mobilenet_v1_x0_75", MobileNetV1, {"width": 0.75}, 2_585_560, 325.40, 68.4, _MOBILE_V1),
    Row("mobilenet_v1_x0_5", MobileNetV1, {"width": 0.5}, 1_331_592, 149.50, 63.7, _MOBILE_V1),
    Row("mobilenet_v1_x0_25", MobileNetV1, {"width": 0.25}, 470_072, 41.03, 50.6, _MOBILE_V1),
    Row("mobilenet_v2", MobileNetV2, {}, 3_504_872, 300.77, 72.0, _MOBILE_V2),
    Row("mobilenet_v2_x1_4", MobileNetV2, {"width": 1.4}, 6_108_776, 582.20, 74.7, _MOBILE_V2),
    Row("mobilenet_v2_x0_75", MobileNetV2, {"width": 0.75}, 2_636_424, 209.07, 69.8, _MOBILE_V2_CODE),
    Row("mobilenet_v2_x0_5", MobileNetV2, {"width": 0.5}, 1_968_680, 97.13, 65.4, _MOBILE_V2_CODE),
    Row("mobilenet_v2_x0_35", MobileNetV2, {"width": 0.35}, 1_677_128, 59.29, 60.3, _MOBILE_V2_CODE),
    Row("squeezenet1_0", SqueezeNet, {"version": "1.0"}, 1_248_424, 818.92, 57.5, _SQUEEZE, _UNPADDED),
    Row("squeezenet1_1", SqueezeNet, {"version": "1.1"}, 1_235_496, 349.15, None, "not published", _UNPADDED),
    Row("resnet18", ResNet, {"depth": 18}, 11_689_512, 1814.07, 72.1, f"{_RESNET} Table 2, 10 crops"),
    Row("resnet50", ResNet, {"depth": 50}, 25_557_032, 4089.18, 77.2, f"{_RESNET} Table 3, 10 crops"),
    Row("resnet101", ResNet, {"depth": 101}, 44_549_160, 7801.41, 78.3, f"{_RESNET} Table 3, 10 crops"),
)

CATALOGUE = {row.name: row for row in ROWS}

for _row in ROWS:
    BACKBONES.register_module(name=_row.name, module=preset(_row.build, **_row.options))
