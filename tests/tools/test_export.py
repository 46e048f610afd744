"""`swiftsight export`: what it writes, what it refuses to write, and the code that runs a file elsewhere."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools import export, fast_packages
from swiftsight_tools.cli import main
from swiftsight_tools.engines import export_file
from swiftsight_tools.engines.exported import ExportedNet, detections_from
from swiftsight_tools.engines.exported_words import read_words
from swiftsight_tools.engines.picture_graph import GraphSettings, PictureGraph, shrink
from swiftsight_tools.engines.quantize import quantized

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).resolve().parents[2]


def _pictures(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """[N, H, W, 3] uint8 with shapes in it."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return np.stack([np.array(Image.fromarray(each).resize((width, height))) for each in coarse])


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["export", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out + caught.err


def test_a_detector_answers_as_in_torch_whatever_the_batch(exported_detector):
    net, path = exported_detector.net, exported_detector.path
    for engine in ("onnxruntime", "openvino"):
        run = ExportedNet(path, engine=engine, threads=1)
        for count in (1, 4):
            pictures = _pictures(count)
            images = pictures.transpose(0, 3, 1, 2)
            wanted = net.predict(torch.from_numpy(images), suppression="hard", max_detections=20)
            found = run(images)
            for place, expected in enumerate(wanted):
                own = detections_from(found, place, 2)
                assert len(own) == len(expected) > 3
                torch.testing.assert_close(own.scores, expected.scores, rtol=0, atol=1e-4)
                torch.testing.assert_close(own.boxes, expected.boxes, rtol=0, atol=0.01)
                torch.testing.assert_close(own.labels, expected.labels)


def test_a_segmenter_answers_as_in_torch_at_sizes_that_it_was_not_traced_at(exported_segmenter):
    net = exported_segmenter.net
    for engine in ("onnxruntime", "openvino"):
        run = ExportedNet(exported_segmenter.path, engine=engine, threads=1)
        for size in ((64, 96), (51, 93), (40, 120)):
            images = _pictures(1, *size).transpose(0, 3, 1, 2)
            labels, scores = run(images)
            with torch.no_grad():
                logits = net(torch.from_numpy(images))
            assert labels.shape == (1, *size)
            assert labels.dtype == np.uint8
            torch.testing.assert_close(torch.from_numpy(scores), logits.softmax(dim=1), rtol=0, atol=1e-4)
            assert (torch.from_numpy(labels) == logits.argmax(dim=1)).float().mean() > 0.999
            assert 0.02 < labels.mean() < 0.98


def test_the_file_says_what_it_is_and_nothing_of_who_made_it_where(exported_detector):
    words = read_words(exported_detector.path)
    assert (words.net, words.task, words.class_names) == ("thundernet", "detection", ("red block", "blue block"))
    assert (words.input_size, words.batch, words.max_detections) == ((64, 96), None, 20)
    assert words.options["backbone"] == "squeezenet1_1"
    assert words.licence == "not stated"
    content = exported_detector.path.read_bytes()
    for trace in (str(ROOT), "site-packages", "picture_graph.py", "stack_trace", str(Path.home())):
        assert trace.encode() not in content
    model = onnx.load(exported_detector.path)
    shapes = {value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
              for value in (*model.graph.input, *model.graph.output)}  # fmt: skip
    assert shapes == {"images": ["N", 64, 96, 3], "boxes": ["N", 20, 4], "scores": ["N", 20], "labels": ["N", 20],
                      "counts": ["N"]}  # fmt: skip


def test_the_command_says_what_was_compared(exported_detector, exported_segmenter):
    for engine in ("onnxruntime", "openvino"):
        assert re.search(rf"{engine}: \d+ boxes, at most 0\.\d+ pixels", exported_detector.said)
        assert re.search(rf"{engine}: \d+\.\d+% of \d+ pixels have the same class", exported_segmenter.said)


def test_openvinos_own_format_holds_the_same(exported_detector, tmp_path):
    words = read_words(exported_detector.path)
    onnx_file = tmp_path / "net.onnx"
    onnx_file.write_bytes(exported_detector.path.read_bytes())
    path = export_file._as_openvino(onnx_file, words)
    assert read_words(path) == words
    images = _pictures(2).transpose(0, 3, 1, 2)
    for own, other in zip(ExportedNet(path)(images), ExportedNet(onnx_file, engine="openvino")(images), strict=True):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("what", "why"), [("weights", "is one that torch does not give"), ("suppression", "that torch finds are missing")]
)
def test_a_graph_that_is_not_the_nets_is_refused(exported_detector, block_pictures, what, why, tmp_path, monkeypatch,
                                                 capsys):  # fmt: skip
    def tampered(graph, words):
        model = onnx.load(exported_detector.path)
        if what == "weights":
            largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
            values = onnx.numpy_helper.to_array(largest) * np.float32(1.02)
            largest.raw_data = values.tobytes()
        else:
            (limits,) = [n.input[3] for n in model.graph.node if n.op_type == "NonMaxSuppression"][-1:]
            holder = next(each for each in model.graph.initializer if each.name == limits)
            holder.CopyFrom(onnx.numpy_helper.from_array(np.array([0.3], np.float32), limits))
        return model

    monkeypatch.setattr(export_file, "onnx_model", tampered)
    target = tmp_path / "net.onnx"
    target.write_text("what was there before")
    code, said = _run(capsys, "--weights", exported_detector.weights, "--output", target, "--batch", "free",
                      "--max-detections", 20, "--pictures", block_pictures)  # fmt: skip
    assert code == 1
    assert re.fullmatch(
        rf"swiftsight: the file differs from torch in onnxruntime: .*{why}.*; nothing was written\n", said
    )
    assert target.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_an_exporter_that_fails_is_a_line_and_no_file(block_weights, tmp_path, monkeypatch, capsys):
    def fail(*_args, **_settings):
        raise RuntimeError("no such operator: prims::guess\nat a place in its sources")

    monkeypatch.setattr(torch.export, "export", fail)
    code, said = _run(capsys, "--weights", block_weights, "--output", tmp_path / "net.onnx")
    assert (code, said) == (1, "swiftsight: the exporter failed: no such operator: prims::guess\n")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(block_weights, tmp_path, monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(fast_packages, "importlib", SimpleNamespace(import_module=missing))
    code, said = _run(capsys, "--weights", block_weights, "--output", tmp_path / "net.onnx")
    missed = "an export needs the package onnxscript, which is not installed"
    expected = f'{missed}; pip install ".[fast]" in the checkout of swiftsight'
    assert (code, said) == (1, f"swiftsight: {expected}\n")


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--output", "net.txt"], 2, "--output net.txt: expected a file that ends in .onnx or .xml"),
        (["--output", "net.xml", "--format", "onnx"], 2, "--output net.xml: expected a file that ends in .onnx"),
        (["--output", "net.onnx", "--format", "tflite"], 2, "invalid choice: 'tflite'"),
        (["--output", "net.onnx", "--free-size", "--resize"], 2, "--free-size and --resize do not go together"),
        (["--output", "net.onnx", "--batch", "0"], 2, "expected a whole number, 1 or more, or 'free'"),
        (["--output", "net.onnx", "--scores"], 2, "--scores is for segmenters; thundernet_snet49 is one of"),
        (["--output", "net.onnx", "--int8"], 2, "--int8 needs pictures to calibrate on: --calibration DIR"),
        (["--output", "net.onnx", "--float-heads"], 2, "go with --int8"),
        (["--output", "no/folder/net.onnx"], 1, "no folder no/folder for net.onnx"),
        (["--output", f"{__file__}/net.onnx"], 1, f"{__file__} is a file; expected a folder"),
        (["--output", "net.onnx", "--pictures", "nowhere"], 1, "no folder of pictures at nowhere"),
        (["--output", "net.onnx", "--size", "50", "96"], 1, "both sides must be multiples of 16 (nearest: 48x96)"),
        (["--output", "net.onnx", "--score-threshold", "2"], 1, "score_threshold is 2.0; expected a number in 0..1"),
    ],
)
def test_wrong_words_get_a_line(block_weights, words, code, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found, said = _run(capsys, "--weights", block_weights, *words)
    assert (found, said.count("\n")) == (code, 1)
    assert why in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_into_is_told_before_the_work(block_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("swiftsight_tools.destinations.os.access", lambda *_: False)
    monkeypatch.setattr(export, "create_net", lambda *_: pytest.fail("the work began"))
    code, said = _run(capsys, "--weights", block_weights, "--output", tmp_path / "net.onnx")
    assert (code, said) == (1, f"swiftsight: cannot write into the folder {tmp_path}\n")


def test_numbers_that_belong_to_no_file_of_ours_stay(block_weights, tmp_path, capsys):
    (tmp_path / "net.bin").write_bytes(b"somebody's")
    code, said = _run(capsys, "--weights", block_weights, "--output", tmp_path / "net.xml")
    assert (code, said.count("\n")) == (1, 1)
    assert "net.bin exists already" in said
    assert (tmp_path / "net.bin").read_bytes() == b"somebody's"


def test_a_detectors_words_are_not_for_a_segmenter(exported_segmenter, tmp_path, capsys):
    code, said = _run(capsys, "--weights", exported_segmenter.weights, "--output", tmp_path / "net.onnx",
                      "--max-detections", 5)  # fmt: skip
    assert (code, said) == (
        2, "swiftsight: --max-detections is for detectors; bisenet is one of the segmenters\n"
    )  # fmt: skip


def test_the_code_in_the_guide_runs_the_file_without_swiftsight(exported_detector, tmp_path, monkeypatch, capsys):
    guide = (ROOT / "docs" / "export.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert "swiftsight" not in re.sub(r"#.*", "", code)
    picture = _pictures(1, 90, 140)[0]
    Image.fromarray(picture).save(tmp_path / "street.png")
    (tmp_path / "person.onnx").write_bytes(exported_detector.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("street.jpg", "street.png"), "docs/export.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 3
    assert all(re.match(r"(red|blue) block 0\.\d\d", line) for line in lines)


def test_resizing_inside_averages_over_areas_and_gives_boxes_in_the_pictures_own_pixels(exported_detector):
    stripes = torch.zeros(1, 3, 128, 192, dtype=torch.uint8)
    stripes[..., ::2] = 200  # of one pixel: sampled without averaging they would flicker
    torch.testing.assert_close(shrink(stripes, (64, 96)), torch.full((1, 3, 64, 96), 100.0))
    net = exported_detector.net
    settings = GraphSettings((64, 96), 16, resize_inside=True)
    graph, pictures = PictureGraph(net, settings), torch.from_numpy(_pictures(1, 128, 288))
    with torch.no_grad():
        boxes, scores, _, counts = graph(pictures)
        seen = graph.seen(pictures)
        expected = net.predict(seen, suppression="hard")[0]
    assert seen.shape == (1, 3, 64, 96)
    assert int(counts) == len(expected) > 3
    torch.testing.assert_close(scores[0, : len(expected)], expected.scores, rtol=0, atol=1e-4)
    factors = torch.tensor([3.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(boxes[0, : len(expected)], expected.boxes * factors, rtol=0, atol=0.02)


def test_int8_keeps_the_words_and_on_request_the_heads(exported_detector, tmp_path):
    model = onnx.load(exported_detector.path)
    calibration = [picture[None] for picture in _pictures(3)]
    sizes = {}
    for float_heads in (False, True):
        made = quantized(model, calibration, tmp_path, float_heads=float_heads)
        sizes[float_heads] = len(made.SerializeToString())
        assert {prop.key for prop in made.metadata_props} == {prop.key for prop in model.metadata_props}
        produced = {name: node for node in made.graph.node for name in node.output}
        kept = [node.name for node in made.graph.node if node.op_type in ("Conv", "Gemm")
                and produced[node.input[0]].op_type != "DequantizeLinear"]  # fmt: skip
        assert all(re.search(r"\.(rpn|proposals|head)\.", name) for name in kept)
        assert bool(kept) is float_heads
    assert sizes[False] < sizes[True] < exported_detector.path.stat().st_size
