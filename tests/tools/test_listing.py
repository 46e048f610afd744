"""`swiftsight list`: every name, the counts to the digit, the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from swiftsight_tools import cli

import joint
import joint.registry
import segment.registry
from backbones import list_backbones, measure_cost
from detect import create_detector, list_detectors, registry, save_detector
from segment import create_segmenter, list_segmenters, save_segmenter


def row(shown: str, name: str) -> list[str]:
    """The words of the one line that begins with `name`."""
    (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
    return line.split()


def test_detectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "detectors"]) == 0
    shown = capsys.readouterr().out
    for name in list_detectors():
        assert len(row(shown, name)) == 7
    assert row(shown, "thundernet_snet49")[1:] == ["1,154,199", "263.46", "M", "320", "x", "320"]
    assert row(shown, "thundernet_snet535")[1:3] == ["4,661,115", "1299.26"]
    assert "top-1" not in shown


def test_backbones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "backbones"]) == 0
    shown = capsys.readouterr().out
    for name in list_backbones():
        row(shown, name)
    snet49 = ["snet49", "875,548", "51.21", "M", "60.3", "arXiv:1903.11752", "Table", "5"]
    assert row(shown, "snet49") == snet49
    assert row(shown, "snet535")[4] == "-"
    assert "thundernet" not in shown


def test_the_documented_table_is_the_printed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "backbones", "--markdown"]) == 0
    page = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
    assert capsys.readouterr().out in page.read_text(encoding="utf-8")


def test_shipped_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(registry, "list_names", lambda *_: ["thundernet_snet49"])
    assert cli.main(["list", "detectors"]) == 0
    assert "no detector weights come with this package" in capsys.readouterr().out
    for stem, names in (("few", ("person", "dog")), ("many", tuple("abcdefg"))):
        net = create_detector("thundernet_snet49", num_classes=len(names), input_size=(256, 320))
        net.class_names = names
        save_detector(net, tmp_path / f"thundernet_snet49_{stem}.safetensors")
    assert cli.main(["list", "detectors"]) == 0
    shown = capsys.readouterr().out
    # Half of four bytes for each of 992,700 to 998,000 numbers, and the running statistics.
    assert row(shown, "thundernet_snet49_few")[1:] == ["2.2", "256", "x", "320", "person,", "dog"]
    assert row(shown, "thundernet_snet49_many")[2:] == ["256", "x", "320", "7:", "a,", "b,", "c,", "d,", "..."]


def test_segmenters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(segment.registry, "WEIGHTS_FOLDER", tmp_path)
    net = create_segmenter("bisenet_xception39", num_classes=2, input_size=(240, 320))
    net.class_names = ("background", "person")
    save_segmenter(net, tmp_path / "bisenet_xception39_person.safetensors")
    assert cli.main(["list", "segmenters"]) == 0
    shown = capsys.readouterr().out
    for name in list_segmenters():
        row(shown, name)
    # 3.065 G at 640 x 360 in the author's measure; the input here has 5.12 times as many pixels.
    name, parameters, multiply_adds, *_ = row(shown, "bisenet_xception39")
    assert parameters == "1,541,963"
    assert float(multiply_adds) == pytest.approx(3065 * 5.12, rel=0.006)
    assert row(shown, "bisenet_xception39_person")[2:] == ["240", "x", "320", "background,", "person"]


def test_joints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    name = "joint_thundernet_bisenet_snet49"
    monkeypatch.setattr(joint.registry, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(joint.registry, "list_names", lambda *_: [name])
    net = joint.create_joint(name, detector_classes=1, segmenter_classes=2, input_size=(64, 96))
    net.detector.class_names, net.segmenter.class_names = ("person",), ("background", "person")
    joint.save_joint(net, tmp_path / f"{name}_people.safetensors")
    assert cli.main(["list", "joints"]) == 0
    shown = capsys.readouterr().out
    detector, segmenter = joint.apart(joint.create_joint(name))
    costs = [measure_cost(each, (320, 320)) for each in (detector, segmenter, detector.backbone)]
    both, shared = costs[0].multiply_adds + costs[1].multiply_adds, costs[2]
    words = row(shown, name)
    assert words[1] == f"{costs[0].parameters + costs[1].parameters - shared.parameters:,}"
    assert words[2] == f"{(both - shared.multiply_adds) / 1e6:.2f}"
    assert words[4] == f"{both / 1e6:.2f}"
    assert row(shown, f"{name}_people")[2:] == ["64", "x", "96", "person,", "background"]


def test_joints_without_weights_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Detectors and segmenters do come with some."""
    monkeypatch.setattr(joint.registry, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setattr(joint.registry, "list_names", lambda *_: ["joint_thundernet_bisenet_snet49"])
    assert cli.main(["list", "joints"]) == 0
    assert capsys.readouterr().out.endswith("no joint weights come with this package\n")


def test_all_lists_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert row(shown, "snet49")
    assert row(shown, "thundernet_snet49")
    assert row(shown, "dfanet_a")


def test_unknown_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "detector"]) == 2
    assert capsys.readouterr().err == (
        "swiftsight: there is no list of 'detector' (nearest: 'detectors'): "
        "expected backbones, detectors, segmenters or joints\n"
    )
