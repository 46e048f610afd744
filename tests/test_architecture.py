"""Who may import whom, and the few rules of form that a formatter does not know: read from the sources with `ast`."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50
PACKAGES = ("compress", "backbones", "pictures", "detect", "segment", "joint", "tools")
NAMES_FOR_ANYTHING = {"utils", "util", "misc", "common", "helpers", "helper"}

# What each floor may import besides the standard library. A dotted name admits that module and what lies below it.
_NETS = {"torch", "mmengine.registry", "backbones"}
_COMPRESS = {"torch", "numpy", "compress"}
_FILES = {"pictures", "numpy", "cv2", "albumentations", "msgspec", "pycocotools", "PIL"}
_DETECT = _NETS | {"torchvision", "detect"}
_SEGMENT = _NETS | {"torchvision", "segment"}
FLOORS = {
    "compress": _COMPRESS,
    "compress/xnor_kernel.py": _COMPRESS | {"numba"},
    "compress/xnor_vectors.py": _COMPRESS | {"numba", "llvmlite"},
    "backbones": _NETS | {"safetensors", "compress"},
    "pictures": _FILES | {"backbones"},
    "detect": _DETECT | {"compress"},
    "detect/formats": _DETECT | _FILES | {"yaml"},
    "detect/transforms.py": _DETECT | _FILES,
    "detect/metrics.py": _DETECT | _FILES,
    "detect/voc_metric.py": _DETECT | _FILES,
    "detect/coco_figures.py": _DETECT | {"numpy"},
    "detect/result_rows.py": _DETECT | _FILES,
    "detect/predictor.py": _DETECT | _FILES,
    "detect/multi_pass.py": _DETECT | _FILES,
    "detect/merging.py": _DETECT | {"pictures.windows"},
    "segment": _SEGMENT | {"compress"},
    "segment/formats": _SEGMENT | _FILES,
    "segment/transforms.py": _SEGMENT | _FILES,
    "segment/pasting.py": _SEGMENT | _FILES,
    "segment/inference.py": _SEGMENT | {"pictures.windows"},
    "segment/metrics.py": _SEGMENT | _FILES,
    "segment/cityscapes_scores.py": _SEGMENT | _FILES,
    "segment/predictor.py": _SEGMENT | _FILES,
    "joint": _NETS | {"detect", "segment", "joint"},
    "joint/predictor.py": _NETS | {"detect", "segment", "joint"} | _FILES,
    "configs": set(),
}
# Above the floors stands `tools`. It is installed under another name, so its own modules must be imported relatively.
_NOT_FOR_THE_TOP = {"tools", "configs", "swiftsight_tools", "tests"}
# Its rooms, and whose modules each may import besides its own and the plain files at the top.
ROOMS = {
    "configuration": set(),
    "training": {"configuration"},
    "engines": set(),
    "frames": {"engines"},
    "measuring": {"configuration", "engines"},
    "scoring": {"configuration", "training", "engines", "frames"},
    "squeezing": {"configuration", "training"},
}
VERBS = {"train", "evaluate", "demo", "benchmark", "export", "squeeze", "listing", "weights_verb"}


class Import(NamedTuple):
    module: str  # with the imported name behind it: `from mmengine import registry` reaches mmengine.registry
    line: int
    relative: bool


def imports_in(source: str, package: str) -> list[Import]:
    """Every import in `source`, also those inside functions, with relative ones made absolute from `package`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, relative=False) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            found += [Import(".".join([*base, alias.name]), node.lineno, node.level > 0) for alias in node.names]
    return found


def forbidden_imports(source: str, path: str) -> list[str]:
    """What the file at `path`, relative to the checkout, imports from above, from beside, or outside of its list."""
    package = path.rpartition("/")[0].replace("/", ".")
    imports = [found for found in imports_in(source, package) if not _in_standard_library(found.module)]
    floor = next((floor for floor in sorted(FLOORS, key=len, reverse=True) if _lies_in(path, floor)), None)
    if floor is not None:
        refused = [found for found in imports if not any(_lies_below(found.module, name) for name in FLOORS[floor])]
    else:
        refused = [found for found in imports if not found.relative and _root(found.module) in _NOT_FOR_THE_TOP]
    return [f"{path}:{found.line} imports {found.module}" for found in refused]


def _root(module: str) -> str:
    return module.split(".")[0]


def _in_standard_library(module: str) -> bool:
    return _root(module) in sys.stdlib_module_names


def _lies_in(path: str, floor: str) -> bool:
    return path == floor or path.startswith(f"{floor}/")


def _lies_below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def long_functions(source: str, path: str) -> list[str]:
    """Functions whose body, docstring included, is over the limit. A long list of parameters hides no logic."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    lengths = [(node, (node.end_lineno or 0) - node.body[0].lineno + 1) for node in functions]
    return [f"{path}:{node.lineno} {node.name}: {lines} lines" for node, lines in lengths if lines > MAX_FUNCTION_LINES]


def _sources(*folders: str) -> Iterator[tuple[str, str]]:
    """(path relative to the checkout, text) of every Python file in the folders."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_nobody_imports_upward_or_sideways() -> None:
    seen, wrong = set(), []
    for path, source in _sources(*PACKAGES, "configs"):
        wrong += forbidden_imports(source, path)
        seen |= {_root(found.module) for found in imports_in(source, "")}
    assert wrong == []
    assert {"torch", "torchvision", "cv2", "albumentations", "pycocotools"} <= seen  # the check saw the real imports


@pytest.mark.parametrize(
    ("path", "source", "refused"),
    [
        ("backbones/snet.py", "import torch\nfrom mmengine.registry import Registry\nfrom .base import Backbone", []),
        ("compress/prune.py", "import numpy\nfrom torch import nn\nfrom .layers import layers_of", []),
        ("compress/prune.py", "from backbones.weights import load_weights", ["backbones.weights.load_weights"]),
        ("backbones/snet.py", "from detect.boxes import iou", ["detect.boxes.iou"]),
        ("backbones/snet.py", "import torchvision", ["torchvision"]),
        ("backbones/registry.py", "from mmengine.runner import Runner", ["mmengine.runner.Runner"]),
        ("backbones/layers/conv.py", "def build():\n    from tools import config", ["tools.config"]),
        ("detect/boxes.py", "import cv2", ["cv2"]),
        ("detect/boxes.py", "from detect.formats import coco\nimport numpy", ["numpy"]),
        ("detect/boxes.py", "from .formats import coco\nfrom ..segment import base", ["segment.base"]),
        ("detect/formats/coco.py", "import cv2, json\nfrom ..results import Target", []),
        ("detect/formats/coco.py", "from pictures.images import read_image", []),
        ("detect/boxes.py", "from pictures.images import read_image", ["pictures.images.read_image"]),
        ("pictures/images.py", "import cv2\nfrom detect.results import Target", ["detect.results.Target"]),
        ("segment/formats/camvid.py", "import cv2\nfrom detect.transforms import Resize", ["detect.transforms.Resize"]),
        ("detect/transforms.py", "import albumentations\nimport tools.config", ["tools.config"]),
        ("detect/two_stage.py", "from segment.base import Segmenter", ["segment.base.Segmenter"]),
        ("detect/two_stage.py", "from swiftsight_tools import cli", ["swiftsight_tools.cli"]),
        ("joint/joint_net.py", "import torch\nfrom detect import boxes\nfrom segment.base import Segmenter", []),
        ("joint/joint_net.py", "import cv2\nfrom swiftsight_tools import demo", ["cv2", "swiftsight_tools.demo"]),
        ("segment/base.py", "from joint import create_joint", ["joint.create_joint"]),
        ("configs/__init__.py", "import torch", ["torch"]),
        ("tools/train.py", "from .config import read_config\nimport cv2", []),
        ("tools/train.py", "from tools.config import read_config", ["tools.config.read_config"]),
        ("tools/train.py", "import swiftsight_tools.configuration.config", ["swiftsight_tools.configuration.config"]),
        ("tools/train.py", "from tests.conftest import tiny_coco", ["tests.conftest.tiny_coco"]),
    ],
)
def test_the_check_of_imports_finds_what_is_wrong(path: str, source: str, refused: list[str]) -> None:
    assert [line.rpartition(" imports ")[2] for line in forbidden_imports(source, path)] == refused


def test_the_rooms_of_the_application_import_each_other_in_one_direction() -> None:
    wrong = []
    for path, source in _sources("tools"):
        room = path.split("/")[1]
        for found in imports_in(source, path.rpartition("/")[0].replace("/", ".")):
            above = found.module.split(".")[1] if found.relative else ""
            is_wrong = above in ROOMS.keys() - ROOMS.get(room, ROOMS.keys()) - {room}
            if is_wrong or (above in VERBS and room != "cli.py"):
                wrong.append(f"{path}:{found.line} imports {found.module}")
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    sources = dict(_sources(*PACKAGES))
    modules = {path.removesuffix(".py").replace("/", "."): path for path in sources}
    wants: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = [each.module for each in imports_in(sources[path], path.rpartition("/")[0].replace("/", "."))]
        wants[name] = {known for module in found for known in (module, module.rpartition(".")[0]) if known in modules}
    try:
        TopologicalSorter(wants).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")
    assert wants["tools.cli"]  # the check saw real imports


@pytest.mark.parametrize(
    ("package", "own"), [("detect", "detect.two_stage"), ("segment", "segment.base"), ("joint", "joint.joint_net")]
)
def test_importing_the_nets_does_not_import_what_only_files_need(package: str, own: str) -> None:
    heavy = ["cv2", "albumentations", "pycocotools", "mmengine.runner", "matplotlib"]
    late = [f"{package}.{name}" for name in ("formats", "transforms", "metrics", "predictor")]
    assert _modules_after(f"import {package}, backbones", [*heavy, "pictures", *late, own]) == [own]


def test_the_command_imports_a_verb_only_when_it_is_called() -> None:
    verbs = [f"swiftsight_tools.{name}" for name in ("train", "evaluate", "demo", "benchmark", "listing")]
    watched = ["torch", "numpy", "cv2", "mmengine", "argparse", *verbs]
    assert _modules_after("import swiftsight_tools.cli", watched) == ["argparse"]


def _modules_after(statement: str, watched: list[str]) -> list[str]:
    """Which of `watched` a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {watched!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_no_file_is_named_after_nothing() -> None:
    paths = [path for path, _ in _sources(*PACKAGES, "configs", "tests", "benchmarks")]
    assert [path for path in paths if NAMES_FOR_ANYTHING & set(Path(path).with_suffix("").parts)] == []


def test_functions_and_files_stay_short() -> None:
    too_long = []
    for path, source in _sources(*PACKAGES, "tests", "benchmarks"):
        too_long += long_functions(source, path)
        lines = len(source.splitlines())
        if lines > MAX_FILE_LINES and not path.startswith("tests/"):
            too_long.append(f"{path}: {lines} lines")
    assert too_long == []


def test_the_check_of_lengths_finds_a_long_function() -> None:
    source = "class Net:\n    def forward(self):\n" + "        step()\n" * 51
    assert long_functions(source, "detect/net.py") == ["detect/net.py:2 forward: 51 lines"]
    assert long_functions(source.replace("        step()\n", "", 1), "detect/net.py") == []


def test_every_package_folder_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    installed_as = {folder: package for package, folder in setuptools["package-dir"].items()}
    folders = {Path(path).parent for path, _ in _sources(*installed_as)}
    packages = {".".join([installed_as[folder.parts[0]], *folder.parts[1:]]) for folder in folders}
    assert packages == set(setuptools["packages"])
    for folder in PACKAGES:
        assert (ROOT / folder / "py.typed").is_file()


def test_every_imported_package_is_a_requirement_and_the_other_way_round() -> None:
    imports = [found for path, source in _sources(*PACKAGES) for found in imports_in(source, "")]
    imported = {_root(found.module) for found in imports if not found.relative}
    if any(_lies_below(found.module, "torch.utils.tensorboard") for found in imports):
        imported.add("tensorboard")  # torch reaches for it, but does not bring it
    ours = {*PACKAGES, "swiftsight_configs", *sys.stdlib_module_names}
    distributions = {
        "cv2": "opencv-python",
        "yaml": "pyyaml",
        "PIL": "pillow",
        "llvmlite": "numba",
    }  # numba brings llvmlite
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared, fast = (
        {re.split(r"[<>=]", requirement)[0] for requirement in requirements}
        for requirements in (project["dependencies"], project["optional-dependencies"]["fast"])
    )
    assert {distributions.get(name, name) for name in imported - ours} - fast == declared
