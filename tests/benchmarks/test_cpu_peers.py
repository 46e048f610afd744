"""The race of small nets: figures from made-up times, turns, who takes part, and one net from pictures to its row."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TIMES = {
    "one": [[1.0, 4.0, 1.0], [1.0, 6.0, 2.0], [1.0, 10.0, 1.0]],
    "two": [[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 2.0, 3.0]],
}


@pytest.fixture
def peers(monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cpu_peers

    return cpu_peers


def test_figures_are_medians_of_parts_and_of_ratios_within_a_round(peers, tmp_path) -> None:
    rows = peers.summary(TIMES)
    one = {"ms": 9, "ms_10": 6, "ms_90": 12, "of_first": 1, "prepare": 1, "net": 6, "finish": 1}
    two = {"ms": 4, "ms_10": 3, "ms_90": 6, "of_first": 0.5, "prepare": 1, "net": 1, "finish": 1}
    assert rows == {"one": one, "two": two}
    sizes = {"one": (320, 427), "two": (416, 416)}
    lines = peers.table(rows, sizes, {"one": 31.4, "two": 20.0}).splitlines()
    assert lines[2].split() == ["one", "427x320", "9.00", "6.00", "to", "12.00", "1.00", "6.00", "1.00", "1.00", "31"]
    assert "boxes" not in peers.table(rows, sizes, None)
    peers.draw(rows, tmp_path / "plots" / "peers.png", "made up")
    assert cv2.imread(str(tmp_path / "plots" / "peers.png")) is not None


def test_contenders_take_turns_on_the_same_picture(peers) -> None:
    seen = []

    def contender(name):
        return peers.Contender(
            lambda picture: picture + 1,
            lambda images: seen.append((name, int(images[0, 0, 0]))) or [images],
            lambda raw, size: range(size[0]),
            (4, 6),
        )

    pictures = [np.full((4, 6, 3), value, np.uint8) for value in (10, 20)]
    times, lengths = peers.race({"one": contender("one"), "two": contender("two")}, pictures, 3)
    assert seen[4:] == [("one", 11), ("two", 11), ("one", 21), ("two", 21), ("one", 11), ("two", 11)]
    assert lengths == {"one": 4, "two": 4}
    assert {name: np.shape(turns) for name, turns in times.items()} == {"one": (3, 3), "two": (3, 3)}


def test_boxes_go_back_into_the_picture_and_stay_inside(peers) -> None:
    boxes = np.array([[0, 10, 160, 400]], np.float32)
    np.testing.assert_array_equal(peers.in_picture(boxes, (320, 320), (480, 640)), [[0, 15, 320, 480]])


def test_raw_answers_of_yolo_are_read_class_by_class(peers) -> None:
    answer = np.zeros((1, 84, 4), np.float32)
    answer[0, :4] = np.array([[50, 60, 20, 10], [51, 60, 20, 10], [50, 60, 20, 10], [200, 200, 8, 8]]).T
    answer[0, 4:, :] = 0.01
    answer[0, 4 + 7, 0], answer[0, 4 + 7, 1], answer[0, 4 + 9, 2] = 0.9, 0.8, 0.7  # the second is the first again
    np.testing.assert_array_equal(peers.read_yolo(answer), [[40, 55, 60, 65], [40, 55, 60, 65]])


def test_what_cannot_take_part_is_told(peers, monkeypatch) -> None:
    monkeypatch.setattr(peers, "installed_version", lambda name: None)
    args = ["cpu_peers.py", "--pictures", "p", "--onnx", "fastestdet=f.onnx", "--engine", "torch"]
    monkeypatch.setattr(sys, "argv", args)
    found, absent = peers.choices(peers.parse())
    assert set(found) > {"thundernet_snet49", "thundernet_snet535", "thundernet_shufflenet_v2_x2_0", "ssdlite320"}
    assert [line.partition(":")[0] for line in absent] == ["fastestdet", "yolo11n"]
    with pytest.raises(SystemExit, match="no net 'fastestdet'"):
        peers.selected(found, ["fastestdet"])


def test_a_segmenter_goes_from_pictures_to_its_row(peers, monkeypatch, tmp_path, capsys) -> None:
    noise = np.random.default_rng(0)
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), noise.integers(0, 256, (60, 90, 3), np.uint8))
    words = f"cpu_peers.py --pictures {tmp_path} --task segment --select lraspp_mobilenet_v3_large --engine torch"
    words += f" --rounds 3 --threads 1 --size 64x32 --json {tmp_path / 'times.json'}"
    monkeypatch.setattr(sys, "argv", words.split())
    peers.main()
    report = json.loads((tmp_path / "times.json").read_text())
    turns = report["times"]["lraspp_mobilenet_v3_large"]
    assert np.shape(turns) == (3, 3)
    assert report["rows"]["lraspp_mobilenet_v3_large"]["ms"] == pytest.approx(sorted(map(sum, turns))[1])
    assert report["boxes"]["lraspp_mobilenet_v3_large"] == 60  # rows of labels, as the picture has
    assert "lraspp_mobilenet_v3_large" in capsys.readouterr().out
