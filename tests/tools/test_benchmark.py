"""`swiftsight bench`: that the clock measures the stage it names, that the counts are right, what it refuses."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools import benchmark, cli, samples
from swiftsight_tools.measuring import report as measured
from swiftsight_tools.measuring.part_times import DETECTOR_STAGES, SEGMENTER_STAGES, TimedNet, time_stages

import segment
from backbones.cost import Cost
from detect import Predictor, create_detector, save_detector

PAUSE = 0.03
DETECTOR_TIMES = ["prepare", "backbone", "neck", "rpn", "refine", "propose", "head", "finish"]


@pytest.fixture(autouse=True)
def _keep_threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_detector_as_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, picture = tmp_path / "bench.json", tmp_path / "grey.png"
    Image.new("L", (50, 40), 128).save(picture)
    words = ["bench", "thundernet_snet49", "--size", "64", "96", "--batch", "2", "--repeat", "3", "--threads", "1"]
    assert cli.main([*words, "--picture", str(picture), "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    numbers = json.loads(file.read_text())
    parts = numbers.pop("parts")
    assert list(parts) == [*DETECTOR_TIMES, "total"]
    assert parts["total"]["parameters"] == 1_154_199 == sum(parts[name]["parameters"] for name in DETECTOR_STAGES.parts)
    assert parts["total"]["multiply_adds"] == sum(parts[name]["multiply_adds"] for name in DETECTOR_STAGES.parts)
    assert all(part["ms_10"] <= part["ms"] <= part["ms_90"] for part in parts.values())
    # Medians of the stages need not add up to the median of the whole, but nothing large may be missing.
    assert sum(part["ms"] for name, part in parts.items() if name != "total") > 0.5 * parts["total"]["ms"]
    assert numbers.pop("frames_per_second") == pytest.approx(2000 / parts["total"]["ms"])
    assert numbers.pop("processor") in shown
    assert numbers == {
        "model": "thundernet_snet49",
        "weights": "random",
        "size": [64, 96],
        "batch": 2,
        "repeat": 3,
        "threads": 1,
        "torch": torch.__version__,
        "picture": "grey.png",
    }
    assert re.search(r"^total +1,154,199 +\d+\.\d\d M( +\d+\.\d\d){3}$", shown, re.M)
    assert re.search(r"^propose( +\d+\.\d\d){3}$", shown, re.M)


@pytest.mark.parametrize(("thin_stride", "places"), [(32, 3 * 4), (16, 6 * 8)])
def test_an_option_of_the_net(thin_stride: int, places: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The thin map's cost at both strides: 2 * 15 * 64 * (576 + 490) for each of its places; a part less is no row."""
    words = ["bench", "light_head_rcnn_xception145", "--size", "96", "128", "--repeat", "1", "--threads", "1"]
    assert cli.main([*words, "--set", f"thin_stride={thin_stride}", "--set", "test_proposals=10"]) == 0
    shown = capsys.readouterr().out
    assert f"light_head_rcnn_xception145, thin_stride {thin_stride}, test_proposals 10, weights: random" in shown
    assert re.search(rf"^neck +2,047,828 +{places * 2.04672:.2f} M", shown, re.M)
    assert not re.search("^refine", shown, re.M)


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("thin_strid=16", "unknown key 'light_head_rcnn_xception145.thin_strid' (nearest: 'thin_stride')"),
        ("fc_channels=many", "light_head_rcnn_xception145.fc_channels is 'many'; expected a whole number"),
        ("thin_stride", "--set 'thin_stride' is no assignment; expected key=value"),
    ],
)
def test_an_option_that_the_net_does_not_take(word: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "light_head_rcnn_xception145", "--set", word]) in (1, 2)
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("bisenet_xception39", ["detail_path", "backbone", "decoder", "classifier"]),
        ("dfanet_b", ["backbone", "decoder", "classifier"]),
    ],
)
def test_segmenter(name: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    words = ["bench", name, "--size", "64", "96", "--batch", "2", "--repeat", "1", "--threads", "1"]
    assert cli.main([*words, "--json", str(file)]) == 0
    assert f"{name}, weights: random, 64 x 96, batch 2, looking at " in capsys.readouterr().out
    found = json.loads(file.read_text())["parts"]
    assert list(found) == ["prepare", *parts, "finish", "total"]
    net = segment.create_segmenter(name)
    used = sum(value.numel() for key, value in net.named_parameters() if not key.startswith("auxiliary"))
    assert found["total"]["parameters"] == used == sum(found[part]["parameters"] for part in parts)
    assert found["total"]["multiply_adds"] == sum(found[part]["multiply_adds"] for part in parts)
    assert all(part["ms"] > 0 for part in found.values())


def test_the_clock_charges_the_part_of_a_segmenter_that_took_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = TimedNet(segment.create_segmenter("bisenet_xception39"), SEGMENTER_STAGES)
    predictor = segment.Predictor(timed, size=(64, 64))
    net, picture = timed.net, np.zeros((64, 64, 3), np.uint8)
    places = {
        "prepare": (net, "normalize"),
        "detail_path": (net.detail_path, "forward"),
        "backbone": (net.backbone, "forward"),
        "decoder": (net.decoder, "forward"),
        "classifier": (net.classifier, "forward"),
        "finish": (net, "_enlarge"),
    }
    assert list(places) == list(timed.stages)
    for stage, (owner, method) in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, late(getattr(owner, method)))
            times = time_stages(predictor, timed, picture, 1, 2)
        assert min(times[stage]) >= 1000 * PAUSE


def test_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    assert cli.main(["bench", "snet49", "--repeat", "1", "--json", str(file)]) == 0
    assert "snet49, weights: random, 224 x 224, batch 1\n" in capsys.readouterr().out
    parts = json.loads(file.read_text())["parts"]
    assert list(parts) == ["total"]
    assert parts["total"]["parameters"] == 362_548
    assert parts["total"]["ms"] > 0


def test_weights_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The head of one class has 79 outputs less, of 1024 weights and a bias."""
    net = create_detector("thundernet_snet49", num_classes=1, input_size=(64, 64))
    net.class_names = ("person",)
    save_detector(net, tmp_path / "one.safetensors")
    assert (
        cli.main(["bench", "thundernet_snet49", "--weights", str(tmp_path / "one.safetensors"), "--repeat", "1"]) == 0
    )
    shown = capsys.readouterr().out
    assert f"{1_154_199 - 79 * 1025:,}" in shown
    assert "64 x 64" in shown


def test_the_clock_charges_the_stage_that_took_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage in turn is made to wait; its own time must grow by the wait, and no other stage's by as much."""
    timed = TimedNet(create_detector("thundernet_snet49"), DETECTOR_STAGES)
    predictor = Predictor(timed, size=(64, 64))
    net, picture = timed.net, np.zeros((64, 64, 3), np.uint8)
    places = {
        "prepare": (predictor, "prepare"),
        "backbone": (net.backbone, "forward"),
        "neck": (net.neck, "forward"),
        "rpn": (net.rpn, "forward"),
        "refine": (net.refine, "forward"),
        "propose": (net.rpn, "propose"),
        "head": (net.head.align, "forward"),
        "finish": (predictor, "finish"),
    }
    assert list(places) == list(timed.stages) == DETECTOR_TIMES
    for stage, (owner, method) in places.items():
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, late(getattr(owner, method)))
            times = time_stages(predictor, timed, picture, 1, 5)
        fastest = {name: min(values) for name, values in times.items() if name != "total"}
        assert fastest[stage] >= 1000 * PAUSE
        assert max(fastest, key=lambda name: fastest[name]) == stage


def late(method: Any) -> Any:
    def wait_first(*arguments: Any, **options: Any) -> Any:
        time.sleep(PAUSE)
        return method(*arguments, **options)

    return wait_first


def test_the_timed_net_answers_as_the_net_itself() -> None:
    torch.manual_seed(0)
    net = create_detector("thundernet_snet49").eval()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected, actual = net(images), TimedNet(net, DETECTOR_STAGES)(images)
    torch.testing.assert_close(actual.scores, expected.scores, rtol=1e-3, atol=1e-3)


def test_spread_by_hand() -> None:
    """Of 0 to 10: the middle is 5, a tenth of the way 1, nine tenths 9; one value is all three."""
    assert measured.spread([10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]) == (5, 1, 9)
    assert measured.spread([2.5]) == (2.5, 2.5, 2.5)


def test_frames_per_second_by_hand() -> None:
    """Four pictures in 50 ms are 80 in a second."""
    report = measured.Report({"batch": 4}, {"total": Cost(1, 2, 4)}, {"total": [40.0, 50.0, 90.0]})
    assert measured.frames_per_second(report) == 80


def test_noise_where_no_sample_picture_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PICTURE", samples.Sample("no_such_package", "no-such-package", "a.png"))
    picture, name = measured.choose_picture(None)
    assert (picture.shape, picture.dtype, name) == ((480, 640, 3), np.uint8, "noise")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["thundernet_snet50"], 1, "or backbone is called 'thundernet_snet50' (nearest: 'thundernet_snet5"),
        (
            ["bisenet_xception93"],
            1,
            "no detector, segmenter, joint net or backbone is called 'bisenet_xception93' (nearest: 'bi",
        ),
        (
            ["a/best.safetensors"],
            1,
            "a/best.safetensors is a weights file; give it by --weights a/best.safetensors, behind",
        ),
        (["snet49", "--batch", "0"], 2, "--batch 0: expected at least 1"),
        (["snet49", "--repeat", "-1"], 2, "--repeat -1: expected at least 1"),
        (["snet49", "--picture", "a.png"], 2, "--picture"),
        (["thundernet_snet49", "--weights", "nothing"], 1, "no weights file 'nothing'"),
        (["thundernet_snet49", "--size", "100", "64"], 1, "both sides must be multiples of 16"),
        (["thundernet_snet49", "--picture", "missing.png", "--size", "64", "64"], 1, "missing.png"),
    ],
)
def test_one_line_and_an_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *words]) == code
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert message in complaint[0]


def test_where_the_numbers_cannot_be_written_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda _: pytest.fail("the work began"))
    (tmp_path / "notes").write_text("words")
    for place, said in ((tmp_path / "notes" / "a.json", "notes is a file; expected a folder"),
                        (tmp_path, "is a folder; expected a file")):  # fmt: skip
        assert cli.main(["bench", "snet49", "--json", str(place)]) == 1
        assert said in capsys.readouterr().err


def test_a_joint_net_shows_both_ways_from_one_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "joint_thundernet_bisenet_snet49", "--size", "64", "96", "--batch", "2", "--repeat", "1"]
    assert cli.main([*words, "--threads", "1"]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    stages = ["prepare", "backbone", "segmenter.detail_path", "detector.neck", "detector.rpn", "detector.refine",
              "propose", "detector.head", "segmenter.decoder", "segmenter.classifier", "finish", "total"]  # fmt: skip
    assert [row for row in rows if row in stages] == stages
