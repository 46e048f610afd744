"""torchvision's names of the tensors of its published nets, and ours for the same.

Each family is known by names that all its files have and no other family's. Where torchvision numbers all layers of a
net in one row (`features.7`), our stages and units are counted off the tables that build them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from . import mobilenet_v2, squeezenet

# A family's rules: (pattern of torchvision's whole layer name, ours under a `Classifier`). The tensor's own name
# ("weight", "running_mean") follows after a dot and is the same in both.
Rules = tuple[tuple[str, str], ...]


def _mobilenet_v2() -> Rules:
    counts = [sum(row.repeats for row in rows) for rows in mobilenet_v2.ROWS.values()]
    places = [f"backbone.stages.{stage}.{unit}" for stage, count in enumerate(counts, 1) for unit in range(count)]
    rules = [
        (r"features\.0\.(\d)", r"backbone.stages.0.\1"),
        (r"features\.1\.conv\.0\.(\d)", rf"{places[0]}.branch.0.\1"),  # its one unit that does not widen
        (r"features\.1\.conv\.1", f"{places[0]}.branch.1.0"),
        (r"features\.1\.conv\.2", f"{places[0]}.branch.1.1"),
        (rf"features\.{len(places) + 1}\.(\d)", r"head.0.\1"),
        (r"classifier\.1", "head.4"),
    ]
    for number, place in enumerate(places[1:], 2):
        rules += [
            (rf"features\.{number}\.conv\.([01])\.(\d)", rf"{place}.branch.\1.\2"),
            (rf"features\.{number}\.conv\.2", f"{place}.branch.2.0"),
            (rf"features\.{number}\.conv\.3", f"{place}.branch.2.1"),
        ]
    return tuple(rules)


def _squeezenet(version: str) -> Rules:
    rules = [(r"features\.0", "backbone.stages.0.0"), (r"classifier\.1", "head.1")]
    number = 2  # after the first convolution and its ReLU
    for stage, count in enumerate(squeezenet.VERSIONS[version].fires_at, 1):
        for unit in range(1, count + 1):  # 0 is the pool, here and there
            theirs, ours = rf"features\.{number + unit}", f"backbone.stages.{stage}.{unit}"
            rules += [
                (rf"{theirs}\.squeeze", f"{ours}.squeeze.0"),
                (rf"{theirs}\.expand(\d)x\d", rf"{ours}.expand_\1x\1.0"),
            ]
        number += count + 1
    return tuple(rules)


def _shufflenet_v2() -> Rules:
    unit, ours = r"stage(\d)\.(\d+)", r"backbone.stages.\1.\2"
    shortcut = ("shortcut.0.0", "shortcut.0.1", "shortcut.1.0", "shortcut.1.1")
    branch = {0: "branch.0.0", 1: "branch.0.1", 3: "branch.1.0", 4: "branch.1.1", 5: "branch.2.0", 6: "branch.2.1"}
    return (
        (r"conv1\.(\d)", r"backbone.stages.0.\1"),
        *((rf"{unit}\.branch1\.{place}", f"{ours}.{part}") for place, part in enumerate(shortcut)),
        *((rf"{unit}\.branch2\.{place}", f"{ours}.{part}") for place, part in branch.items()),
        (r"conv5\.(\d)", r"head.0.\1"),
        ("fc", "head.3"),
    )


def _resnet() -> Rules:
    rules = [("conv1", "backbone.stages.0.0"), ("bn1", "backbone.stages.0.1"), ("fc", "head.2")]
    for layer in range(1, 5):
        theirs, ours = rf"layer{layer}\.(\d+)", rf"backbone.stages.{layer + 1}.\1"  # our stage 1 is the pool
        rules.append((rf"{theirs}\.downsample\.(\d)", rf"{ours}.shortcut.\2"))
        for number in range(1, 4):
            rules.append((rf"{theirs}\.conv{number}", rf"{ours}.branch.{number - 1}.0"))
            rules.append((rf"{theirs}\.bn{number}", rf"{ours}.branch.{number - 1}.1"))
    return tuple(rules)


def _families() -> Iterator[tuple[set[str], Rules]]:
    """By what names a family is known, and its rules."""
    yield {"features.1.conv.0.0.weight", "features.2.conv.3.weight"}, _mobilenet_v2()
    yield {"features.3.squeeze.weight", "features.5.squeeze.weight"}, _squeezenet("1.0")
    yield {"features.3.squeeze.weight", "features.6.squeeze.weight"}, _squeezenet("1.1")
    yield {"conv1.0.weight", "stage2.0.branch1.0.weight"}, _shufflenet_v2()
    yield {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"}, _resnet()


def our_names(names: Collection[str]) -> dict[str, str]:
    """Ours -> torchvision's for the tensors that have a place with us; {} where it is no family that we know."""
    for marks, rules in _families():
        if marks.issubset(names):
            pairs = ((_translated(name, rules), name) for name in names)
            return {ours: theirs for ours, theirs in pairs if ours is not None}
    return {}


def _translated(name: str, rules: Rules) -> str | None:
    layer, _, tensor = name.rpartition(".")
    for pattern, ours in rules:
        match = re.fullmatch(pattern, layer)
        if match:
            return f"{match.expand(ours)}.{tensor}"
    return None
