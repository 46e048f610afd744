"""The table of published files against torchvision's own, and the look-up of what was fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.models import get_model_weights

from backbones import create_backbone, create_classifier, list_backbones, save_classifier
from backbones.published import ADDRESS, PUBLISHED, cache_folder, fetched_path


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_row_says_what_torchvision_says(name: str) -> None:
    theirs = get_model_weights(name)["IMAGENET1K_V1"]
    row = PUBLISHED[name]
    assert f"{ADDRESS}/{row.file_name}" == theirs.url
    assert row.mebibytes == theirs.meta["_file_size"]
    assert row.top1 == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert len(row.sha256_prefix) >= 8
    assert set(row.sha256_prefix) <= set("0123456789abcdef")


def test_each_row_is_a_backbone_of_ours() -> None:
    assert set(PUBLISHED) <= set(list_backbones())


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWIFTSIGHT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "swiftsight"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    assert cache_folder() == tmp_path / ".cache" / "swiftsight"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "swiftsight"
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize("create", [create_backbone, create_classifier])
def test_imagenet_is_looked_up_and_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create) -> None:
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"run: swiftsight weights fetch shufflenet_v2_x0_5$") as caught:
        create("shufflenet_v2_x0_5", weights="imagenet")
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"^no weights file 'ImageNet' \(nearest: 'imagenet'\)$"):
        create("shufflenet_v2_x0_5", weights="ImageNet")
    with pytest.raises(ValueError, match=r"no ImageNet weights are published for snet49.*: there are mobilenet_v2, "):
        create("snet49", weights="imagenet")
    path = fetched_path("shufflenet_v2_x0_5")
    assert path == tmp_path / "shufflenet_v2_x0_5_imagenet.safetensors"
    saved = create_classifier("shufflenet_v2_x0_5")
    save_classifier(saved, path, half=False)
    found = create("shufflenet_v2_x0_5", weights="imagenet")
    first = next(parameter for parameter in found.parameters())
    assert first.equal(next(parameter for parameter in saved.parameters()))
