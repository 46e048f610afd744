"""`swiftsight weights` from a server on the loopback address to a backbone that holds the numbers."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision
from swiftsight_tools import cli, weights_verb

from backbones import create_backbone, create_classifier, read_metadata
from backbones.published import PUBLISHED, PublishedFile

NAME = "shufflenet_v2_x0_5"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """torchvision's net with random numbers, as the file that its publisher would serve from tmp_path/mirror."""
    torch.manual_seed(3)
    net = torchvision.models.shufflenet_v2_x0_5(weights=None)
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    prefix = hashlib.sha256(content.getvalue()).hexdigest()[:10]
    published = PublishedFile(f"shufflenetv2_x0.5-{prefix}.pth", 5.3, 60.0)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / published.file_name).write_bytes(content.getvalue())
    monkeypatch.setitem(PUBLISHED, NAME, published)
    return net


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: torch.nn.Module) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path / "cache"))
    handler = partial(_Quiet, directory=str(tmp_path / "mirror"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_fetched_is_torchvisions_net(tmp_path: Path, mirror: str, theirs, capsys) -> None:
    assert cli.main(["weights", "fetch", NAME, "--address", mirror]) == 0
    path = tmp_path / "cache" / f"{NAME}_imagenet.safetensors"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"written to {path}"
    assert lines[-1] == f'in Python: create_backbone("{NAME}", weights="imagenet")'
    assert files_in(tmp_path / "cache") == [path.name]
    pictures = torch.rand(2, 3, 64, 64)
    ours = create_classifier(NAME, weights="imagenet").eval()
    with torch.inference_mode():
        torch.testing.assert_close(ours(pictures), theirs.eval()(pictures), rtol=1e-5, atol=1e-5)
    backbone = create_backbone(NAME, weights=path)
    torch.testing.assert_close(backbone.state_dict(), ours.backbone.state_dict(), rtol=0, atol=0)
    assert ours.class_names[:2] == ("tench", "goldfish")
    words = read_metadata(path)
    file_name = PUBLISHED[NAME].file_name
    assert (words["name"], words["source"]) == (NAME, f"{mirror}{file_name}")
    assert words["sha256"] == hashlib.sha256((tmp_path / "mirror" / file_name).read_bytes()).hexdigest()
    assert "BSD-3-Clause" in words["licence"]


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(tmp_path: Path, mirror: str, capsys) -> None:
    words = ["weights", "fetch", NAME, "--address", mirror]
    assert cli.main(words) == 0
    path = tmp_path / "cache" / f"{NAME}_imagenet.safetensors"
    before = path.read_bytes()
    capsys.readouterr()
    assert cli.main([*words[:-1], "http://127.0.0.1:1/"]) == 0
    assert capsys.readouterr().out.startswith(f"there already: {path}\n")
    path.write_bytes(before[:-100])
    assert not weights_verb.is_whole(NAME, path)
    assert cli.main(words) == 0
    assert weights_verb.is_whole(NAME, path)


def test_a_named_place(tmp_path: Path, mirror: str, capsys) -> None:
    path = tmp_path / "own" / "net.safetensors"
    words = ["weights", "fetch", NAME, "--address", mirror, "--output"]
    assert cli.main([*words, str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f'in Python: create_backbone("{NAME}", weights="{path}")'
    assert cli.main([*words, str(path.parent)]) == 0
    assert files_in(path.parent) == ["net.safetensors", f"{NAME}_imagenet.safetensors"]
    assert not (tmp_path / "cache").exists()


def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path, mirror: str, capsys) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"mine")
    assert cli.main(["weights", "fetch", NAME, "--address", mirror, "--output", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"swiftsight: {path} exists and is something else; name another place, or remove it first\n"
    )
    assert path.read_bytes() == b"mine"


def test_a_file_of_another_net_leaves_nothing_under_the_final_name(tmp_path: Path, mirror: str, capsys) -> None:
    file_name = PUBLISHED[NAME].file_name
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, content)
    (tmp_path / "mirror" / file_name).write_bytes(content.getvalue())
    words = ["weights", "fetch", NAME, "--address", mirror]
    assert cli.main(words) == 1
    assert re.search(r"has a SHA-256 that begins with \w{10}, expected ", capsys.readouterr().err)
    assert files_in(tmp_path / "cache") == []
    prefix = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    PUBLISHED[NAME] = PublishedFile(f"other-{prefix}.pth", 1.0, 0.0)
    (tmp_path / "mirror" / f"other-{prefix}.pth").write_bytes(content.getvalue())
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert "does not fit" in error
    assert error.splitlines()[-1].startswith("swiftsight: ")
    assert not (tmp_path / "cache" / f"{NAME}_imagenet.safetensors").exists()


def test_a_disk_that_is_full_at_the_conversion(tmp_path: Path, mirror: str, monkeypatch, capsys) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    words = ["weights", "fetch", NAME, "--address", mirror]
    with monkeypatch.context() as patch:
        patch.setattr("backbones.files.os.fsync", full)
        assert cli.main(words) == 1
    path = tmp_path / "cache" / f"{NAME}_imagenet.safetensors"
    assert capsys.readouterr().err.splitlines()[-1] == f"swiftsight: {path}: No space left on device"
    assert not path.exists()
    assert cli.main([*words[:-1], mirror]) == 0
    assert path.is_file()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["fetch"], ["fetch needs a backbone's name", "there are mobilenet_v2, "]),
        (["fetch", "resnet19"], ["no ImageNet weights are published for 'resnet19' (nearest: 'resnet18')"]),
        (["fecth", "resnet18"], ["unknown action 'fecth' (nearest: 'fetch')"]),
        (["list", "resnet18"], ["unexpected word 'resnet18'"]),
    ],
)
def test_wrong_words(words: list[str], parts: list[str], capsys) -> None:
    assert cli.main(["weights", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


def test_the_list_shows_what_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path))
    (tmp_path / "resnet18_imagenet.safetensors").write_bytes(b"")
    assert cli.main(["weights"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["resnet18"] == ["resnet18", "44.7", "69.8", "resnet18-f37072fd.pth", "yes"]
    assert lines["resnet50"][-1] == "no"
    assert lines["cache:"][1] == str(tmp_path)
    assert set(PUBLISHED) <= set(lines)


def test_a_list_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path / "none"))
    assert set(re.findall(r" (yes|no)$", weights_verb.describe_published(), re.MULTILINE)) == {"no"}
    assert not (tmp_path / "none").exists()
