"""`swiftsight list`: every name, the counts to the digit, the shipped weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from swiftsight_tools import cli

from backbones import list_backbones
from detect import create_detector, list_detectors, registry, save_detector


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
    assert "no weights come with this package" in capsys.readouterr().out
    for stem, names in (("few", ("person", "dog")), ("many", tuple("abcdefg"))):
        net = create_detector("thundernet_snet49", num_classes=len(names), input_size=(256, 320))
        net.class_names = names
        save_detector(net, tmp_path / f"thundernet_snet49_{stem}.safetensors")
    assert cli.main(["list", "detectors"]) == 0
    shown = capsys.readouterr().out
    # Half of four bytes for each of 992,700 to 998,000 numbers, and the running statistics.
    assert row(shown, "thundernet_snet49_few")[1:] == ["2.2", "256", "x", "320", "person,", "dog"]
    assert row(shown, "thundernet_snet49_many")[2:] == ["256", "x", "320", "7:", "a,", "b,", "c,", "d,", "..."]


def test_both_lists_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    assert row(shown, "snet49")
    assert row(shown, "thundernet_snet49")


def test_unknown_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "detector"]) == 2
    assert capsys.readouterr().err == (
        "swiftsight: there is no list of 'detector' (nearest: 'detectors'): expected backbones or detectors\n"
    )
