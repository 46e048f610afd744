"""The wheel, installed into an environment that holds nothing else of ours, and used from another folder."""

import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Name in an installation -> folder in the checkout.
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]

_LOOK_AROUND = """
import importlib, json
from importlib import resources
import detect
from detect import create_detector, list_detectors
shipped = detect.shipped_weights()
names = [stem.rpartition("_") for stem in shipped]
print(json.dumps({
    "files": {name: importlib.import_module(name).__file__ for name in %r},
    "configs": sorted(path.name for path in (resources.files("swiftsight_configs") / "detect").iterdir()),
    "detectors": list_detectors(),
    "weights": sorted(shipped),
    "classes": {stem: create_detector(name, weights=data).class_names for stem, (name, _, data) in zip(shipped, names)},
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a folder `build` behind, and would pick up an old one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES.values():
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    _run([sys.executable, "-m", "pip", "wheel", *options, str(source)], folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what it requires is borrowed from this one by a `.pth` file."""
    folder = tmp_path_factory.mktemp("environment")
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder)
    python = folder / "bin" / "python"
    install = ["install", "--no-deps", "--no-index", "--quiet", "--no-compile", str(wheel)]
    _run([sys.executable, "-m", "pip", "--python", str(python), *install], folder)
    # Its own packages come first on the path. The lines of a .pth file found through this one are not carried out,
    # so that an editable installation of the checkout does not come along.
    _site_packages(folder).joinpath("borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def _site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_the_packages_and_nothing_called_tools(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "__pycache__" in name]
    for part in ("licenses/LICENSE", "licenses/NOTICE"):
        assert any(name.endswith(f".dist-info/{part}") for name in names)


def test_the_wheel_holds_every_file_of_the_checkout(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {".py", ".yaml", ".txt", ".safetensors", ".typed"}
    for package, folder in PACKAGES.items():
        paths = [path for path in (ROOT / folder).rglob("*") if path.suffix in wanted]
        assert {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in paths} <= names


def test_it_is_imported_from_there_with_configs_and_weights(environment: Path, tmp_path: Path) -> None:
    printed = _run([str(environment / "bin" / "python"), "-c", _LOOK_AROUND % list(PACKAGES)], tmp_path)
    found = json.loads(printed)
    for package, file in found["files"].items():
        assert Path(file) == _site_packages(environment) / package / "__init__.py"
    assert "thundernet_snet49_person.yaml" in found["configs"]
    assert "thundernet_snet49" in found["detectors"]
    assert [stem for stem in found["weights"] if stem.endswith("_person")]
    for stem, class_names in found["classes"].items():
        assert (stem.endswith("_person"), class_names) == (True, ["person"])


def test_its_command_runs_from_another_folder(environment: Path, tmp_path: Path) -> None:
    command = str(environment / "bin" / "swiftsight")
    assert _run([command, "--version"], tmp_path) == "swiftsight 0.1.0\n"
    assert "thundernet_snet49" in _run([command, "list", "detectors"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_called_tools_is_importable_there(environment: Path, tmp_path: Path) -> None:
    code = "from importlib.util import find_spec; print([name for name in ('tools', 'configs') if find_spec(name)])"
    assert _run([str(environment / "bin" / "python"), "-c", code], tmp_path) == "[]\n"
