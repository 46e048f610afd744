"""Random changes of brightness, contrast, saturation and hue; albumentations does them."""

from __future__ import annotations

import os
import random

import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for a newer version on import
import albumentations

from .checks import checked


class ColourDistortion:
    """Four distortions, each drawn on its own with `probability`, in the order of SSD (arXiv:1512.02325, section 2.2).

    A shift of at most `brightness` * 255, `contrast` and `saturation` times at most 1 + their value and at least 1 -
    it, and `hue` turned by at most its value, in whole turns. Raises ValueError, naming the argument, where a value is
    out of its range.
    """

    def __init__(
        self, probability: float, *, brightness: float, contrast: float, saturation: float, hue: float
    ) -> None:
        chance = checked("distort_probability", probability, 0, 1)
        brightness = checked("brightness", brightness, 0, 1)
        contrast = checked("contrast", contrast, 0, 1)
        saturation = checked("saturation", saturation, 0, 1)
        hue = checked("hue", hue, 0, 0.5)
        still = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
        changes = {
            "contrast": (1 - contrast, 1 + contrast),
            "saturation": (1 - saturation, 1 + saturation),
            "hue": (-hue, hue),
        }
        shift = albumentations.RandomBrightnessContrast((-brightness, brightness), (0, 0), p=chance)
        jitters = (albumentations.ColorJitter(**{**still, name: span}, p=chance) for name, span in changes.items())
        self._changes = albumentations.Compose([shift, *jitters])

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """image [H, W, 3] uint8 RGB -> another one; everything random comes from `rng`."""
        # One generator for all: `set_random_seed` would give each distortion the same draws.
        self._changes.set_random_state(rng, random.Random(int(rng.integers(2**63))))  # noqa: S311
        changed: np.ndarray = self._changes(image=image)["image"]
        return changed
