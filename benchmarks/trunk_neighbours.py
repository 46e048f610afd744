"""What a pretrained trunk knows before any training: object crops classified by their nearest neighbour.

    python benchmarks/trunk_neighbours.py --weights shufflenetv2_x0_5_trunk.pth [--name shufflenet_v2_x0_5]

Every object of `coco_mini` (SWIFTSIGHT_DATA names the folder that holds it) in the chosen number of most frequent
classes is cut out and goes through the backbone; its coarsest map is averaged over the places, and the class of the
most similar other crop (cosine) is the answer. Crops of the same picture do not count as neighbours. Beside the
weights, the same net with random weights, and the share of the most frequent class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from object_crops import Crops, coco_mini, data_folder, load_crops
from torch import Tensor
from torch.nn.functional import normalize

from backbones import Backbone, create_backbone


def describe(backbone: Backbone, images: Tensor) -> Tensor:
    """images [M, 3, H, W] uint8 RGB -> [M, C]: the averages of the coarsest map, of length 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.input_mean, backbone.input_std))
    with torch.inference_mode():
        maps = [backbone.eval()((batch - mean) / std)[-1] for batch in images.split(64)]
    return normalize(torch.cat([each.mean((2, 3)) for each in maps]))


def nearest_class(features: Tensor, crops: Crops) -> float:
    """The share of crops whose nearest neighbour in another picture is of their class."""
    likeness = features @ features.T
    likeness[crops.pictures[:, None] == crops.pictures] = -2
    return (crops.labels[likeness.argmax(1)] == crops.labels).double().mean().item()


def main() -> None:
    """Reads the arguments and prints a line a net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--name", default="shufflenet_v2_x0_5", help="of the backbone")
    parser.add_argument("--side", type=int, default=96, help="of a crop, in pixels")
    parser.add_argument("--classes", type=int, default=10, help="as many of the most frequent ones")
    parser.add_argument("--min-side", type=float, default=32, help="smaller objects are left out")
    parser.add_argument("--most", type=int, default=100, help="crops of a class")
    parser.add_argument("--seeds", type=int, default=3, help="nets with random weights")
    args = parser.parse_args()
    torch.set_num_threads(1)
    crops = load_crops(
        [coco_mini(data_folder())],
        side=args.side,
        min_side=args.min_side,
        num_classes=args.classes,
        most_of_a_class=args.most,
    )
    counts = crops.labels.bincount()
    print(f"{len(crops.labels)} crops of {len(counts)} classes from {len(crops.pictures.unique())} pictures; "
          f"most frequent class {100 * counts.max() / counts.sum():.1f} %")  # fmt: skip
    trained = create_backbone(args.name, weights=args.weights)
    print(f"{args.weights.name}: {100 * nearest_class(describe(trained, crops.images), crops):.1f} %")
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        share = nearest_class(describe(create_backbone(args.name), crops.images), crops)
        print(f"random, seed {seed}: {100 * share:.1f} %")


if __name__ == "__main__":
    main()
