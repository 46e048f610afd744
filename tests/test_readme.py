"""What the README says is run, not believed: its Python example, and the words of each of its lines."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from swiftsight_tools import cli
from swiftsight_tools.configuration.config import load_config

from detect import list_detectors

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "results.md"]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _lines(word: str) -> list[str]:
    """Lines of the pages' shell blocks that begin with `word`; a line that ends in a backslash goes on in the next."""
    blocks = [block.replace("\\\n", " ") for page in PAGES for block in _blocks(page, "sh")]
    return [line for block in blocks for line in block.splitlines() if line.split()[:1] == [word]]


def test_the_python_examples_run_and_find_the_astronaut(tmp_path: Path) -> None:
    example = "\n".join(_blocks(ROOT / "README.md", "python"))  # the later ones go on from the first
    sample = Path(find_spec("skimage").origin).parent / "data" / "astronaut.png"
    shutil.copy(sample, tmp_path / "picture.jpg")
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    best = [float(number) for number in re.findall(r"[\d.]+", done.stdout.splitlines()[0])]
    assert len(best) == 5
    x1, y1, x2, y2, score = best
    assert x1 < 230 < x2  # her face, by eye
    assert y1 < 110 < y2
    assert 0.4 <= score <= 1


@pytest.mark.parametrize("line", _lines("swiftsight"))
def test_the_command_takes_the_words_of_each_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[argparse.Namespace] = []
    words = shlex.split(line, comments=True)[1:]
    module = import_module(f"swiftsight_tools.{cli.VERBS[words[0]].module}")
    monkeypatch.setattr(module, "run", lambda args: taken.append(args) or 0)
    assert (cli.main(words), len(taken)) == (0, 1)
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_the_config_can_be_read_and_points_beside_itself(tmp_path: Path) -> None:
    (text,) = _blocks(ROOT / "README.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    config = load_config(tmp_path / "mine.yaml")
    assert config.data.train.annotations == tmp_path / "train.json"
    assert config.model["name"] in list_detectors()


def test_each_make_line_names_a_target() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = {line.split()[1] for line in _lines("make")}
    assert {"demo", "test"} <= named <= set(targets)


def test_every_link_leads_to_a_file() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text())]
    assert len(links) > 5
    assert [(page.name, link) for page, link in links if "://" not in link and not (page.parent / link).exists()] == []
