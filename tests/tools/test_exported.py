"""Exported files where a net is expected: demo, eval and bench take them, and what is none gets a line."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from swiftsight_tools.cli import main
from swiftsight_tools.engines import conversion
from swiftsight_tools.engines.exported import ExportedDetector, ExportedNet, ExportedSegmenter, detections_from
from swiftsight_tools.engines.exported_words import read_words
from swiftsight_tools.engines.picture_graph import GraphSettings

import detect
import segment

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")


def _swiftsight(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    caught = capsys.readouterr()
    return code, caught.out + caught.err


def _picture(block_pictures: Path, place: int = 0) -> np.ndarray:
    return np.array(Image.open(block_pictures / f"{place}.png"))


def test_a_file_finds_what_the_net_finds(exported_detector, block_pictures):
    net, picture = exported_detector.net, _picture(block_pictures)
    expected = detect.Predictor(net, score_threshold=0.3, suppression="hard", max_detections=20)(picture)
    found = ExportedDetector(ExportedNet(exported_detector.path, threads=1), score_threshold=0.3)(picture)
    assert len(found) == len(expected) > 2
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.02)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.labels, expected.labels)


def test_a_file_labels_what_the_net_labels(exported_segmenter, block_pictures):
    net, picture = exported_segmenter.net, _picture(block_pictures)
    expected = segment.Predictor(net, keep_scores=True)(picture)
    predictor = ExportedSegmenter(ExportedNet(exported_segmenter.path, threads=1), keep_scores=True)
    found = predictor(picture)
    one = predictor.class_scores(predictor.infer(predictor.prepare(picture)), picture.shape[:2], 1)
    np.testing.assert_array_equal(one, found.scores[1].numpy())
    torch.testing.assert_close(found.scores.sum(dim=0), torch.ones(72, 104))
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=0.02)  # enlarged before and after softmax
    assert (found.labels == expected.labels).float().mean() > 0.99


def test_a_file_of_a_fixed_batch_takes_any_number_of_pictures(exported_detector):
    net = ExportedNet(exported_detector.path, engine="onnxruntime", threads=1)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 12, 3), dtype=np.uint8)
    images = images.repeat(8, axis=1).repeat(8, axis=2).transpose(0, 3, 1, 2)
    whole = net(images)
    object.__setattr__(net.words, "batch", 2)  # as if the file said so; it takes two, too
    seen = []
    engine = net.engine
    net.engine = lambda chunk: (seen.append(len(chunk)), engine(chunk))[1]
    for own, expected in zip(net(images), whole, strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-3)
    object.__setattr__(net.words, "batch", None)
    assert seen == [2, 2, 2]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path, net: path.write_bytes(net.read_bytes()[:3000]), r"net\.onnx is no readable ONNX file: \S"),
        (lambda path, net: path.write_bytes(b""), r"net\.onnx is no export of swiftsight: its metadata lacks 'net'"),
        (lambda path, net: None, r"no exported file at net\.onnx"),
        (lambda path, net: _with_words(path, net, net=None), r"is no export of swiftsight: its metadata lacks 'net'"),
        (lambda path, net: _with_words(path, net, input_size="[0]"), r"makes no sense: the input size is \(0,\)"),
        (lambda path, net: _with_words(path, net, batch="-1"), r"makes no sense: the batch is -1"),
        (lambda path, net: _with_words(path, net, task="poetry"), r"the task is 'poetry'; expected detection"),
        (lambda path, net: _with_words(path, net, class_names="["), r"its metadata makes no sense: Expecting value"),
    ],
)
def test_what_is_no_exported_file_gets_a_line(exported_detector, make, why, capsys):
    make(Path("net.onnx"), exported_detector.path)
    for verb in (["demo", "net.onnx", "--source", "sample"], ["bench", "net.onnx"]):
        code, said = _swiftsight(capsys, *verb)
        assert (code, said.count("\n")) == (1, 1)
        assert re.search(why, said)


def _with_words(path: Path, source: Path, **changes: str | None) -> None:
    model = onnx.load(source)
    words = {prop.key: prop.value for prop in model.metadata_props} | changes
    onnx.helper.set_model_props(model, {key: value for key, value in words.items() if value is not None})
    onnx.save(model, path)


def test_openvino_files_that_are_none_get_a_line():
    Path("net.xml").write_text("<net>")
    with pytest.raises(FileNotFoundError, match=r"needs its weights beside it, and net\.bin is missing"):
        read_words(Path("net.xml"))
    Path("net.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"net\.xml is no readable OpenVINO file: \S"):
        read_words(Path("net.xml"))
    Path("run.py").write_text("")
    with pytest.raises(ValueError, match=r"run\.py is no exported net; expected a file that ends in \.onnx or \.xml"):
        read_words(Path("run.py"))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"size": (64, 64)}, "size is 64x64; the exported file is made for 64x96 alone"),
        ({"score_threshold": 0.01}, r"the file leaves out what scores at most 0.05: export with a lower one"),
        ({"max_detections": 50}, "max_detections is 50; the file gives at most 20"),
    ],
)
def test_settings_that_the_file_does_not_have_get_a_line(exported_detector, settings, why):
    net = ExportedNet(exported_detector.path, engine="onnxruntime", threads=1)
    with pytest.raises(ValueError, match=why):
        ExportedDetector(net, **settings)


def test_a_file_of_the_other_kind_gets_a_line(exported_detector, exported_segmenter):
    finder, labeller = (ExportedNet(each.path, engine="onnxruntime", threads=1)
                        for each in (exported_detector, exported_segmenter))  # fmt: skip
    with pytest.raises(ValueError, match="the exported bisenet labels pixels; expected a detector"):
        ExportedDetector(labeller)
    with pytest.raises(ValueError, match="the exported thundernet finds boxes; expected a segmenter"):
        ExportedSegmenter(finder)
    object.__setattr__(labeller.words, "keep_scores", False)
    with pytest.raises(ValueError, match="gives labels alone; export it with --scores"):
        ExportedSegmenter(labeller, keep_scores=True)


@pytest.mark.parametrize(
    ("counts", "labels", "why"),
    [(3, [0, 0], "the file gives 3 boxes, of at most 2"), (2, [0, 7], "classes from 0 to 7; expected 0..1")],
)
def test_answers_that_make_no_sense_get_a_line(counts, labels, why):
    answers = (np.zeros((1, 2, 4)), np.ones((1, 2)), np.array([labels]), np.array([counts]))
    with pytest.raises(ValueError, match=why):
        detections_from(answers, 0, 2)


def test_the_demo_draws_what_a_file_finds(exported_detector, exported_segmenter, block_pictures, capsys):
    code, said = _swiftsight(capsys, "demo", exported_detector.path, "--source", block_pictures / "0.png", "--json",
                             "found.json", "--score", "0.3", "--engine", "onnxruntime")  # fmt: skip
    assert code == 0, said
    (row,) = json.loads(Path("found.json").read_text())
    expected = detect.Predictor(exported_detector.net, score_threshold=0.3, suppression="hard", max_detections=20)
    assert len(row["detections"]) == len(expected(_picture(block_pictures)))
    assert Path("demo_output/0_detected.png").is_file()
    code, said = _swiftsight(capsys, "demo", exported_segmenter.path, "--source", block_pictures / "0.png",
                             "--background", "#00ff00", "--output", "cut.png")  # fmt: skip
    assert code == 0, said
    cut, picture = np.array(Image.open("cut.png")).astype(int), _picture(block_pictures).astype(int)
    assert (cut - picture)[..., 1].mean() > 20  # the random net sees a background of about half a chance
    assert (cut - picture)[..., 0].mean() < -20


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--weights", "person"], "--weights is for a net by name"),
        (["--device", "cpu"], "--device is for torch; exported files run on the processor"),
        (["--flip"], "--flip is for a net by name; an exported file looks once"),
        (["--background", "blur"], "--background is for nets that label pixels; thundernet finds boxes"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
    ],
)
def test_words_that_do_not_go_with_a_file_get_a_line(exported_detector, words, why, capsys):
    code, said = _swiftsight(capsys, "demo", exported_detector.path, "--source", "sample", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert why in said


def test_bench_measures_a_file(exported_detector, exported_segmenter, capsys):
    for each, batch in ((exported_detector, 3), (exported_segmenter, 1)):
        code, said = _swiftsight(capsys, "bench", each.path, "--repeat", 2, "--batch", batch, "--json", "cost.json",
                                 "--engine", "onnxruntime", "--threads", 1)  # fmt: skip
        assert code == 0, said
        cost = json.loads(Path("cost.json").read_text())
        assert list(cost["parts"]) == ["prepare", "net", "finish", "total"]
        assert cost["engine"].startswith("onnxruntime 1.")
        assert cost["size"] == [64, 96]
        total = cost["parts"]["total"]["ms"]
        assert total > 0
        assert cost["frames_per_second"] == pytest.approx(1000 * batch / total)


@pytest.fixture
def config(tiny_coco) -> Path:
    part = {"images": str(tiny_coco / "images"), "annotations": str(tiny_coco / "val.json")}
    content = {
        "task": "detect",
        "model": {"name": "thundernet", "backbone": "squeezenet1_1", "rpn_channels": 16, "fc_channels": 32,
                  "test_proposals": 30, "test_before_nms": 80, "input_size": [64, 96]},
        "epochs": 1, "optimizer": {"lr": 0.01}, "sizes": [[64, 96]],
        "data": {"layout": "coco", "class_names": ["red block", "blue block"], "train": part, "val": part},
        "eval_size": [64, 96], "eval_batch_size": 3, "workers": 0,
    }  # fmt: skip
    Path("config.yaml").write_text(yaml.safe_dump(content))
    return Path("config.yaml")


def _figures(said: str) -> dict[str, str]:
    return dict(re.findall(r"^(A[PR]\w*)\s+(\S+)", said, re.MULTILINE))


def test_eval_scores_a_file_as_it_scores_the_net(exported_detector, config, capsys):
    code, by_torch = _swiftsight(capsys, "eval", config, exported_detector.weights, "--hard-nms",
                                 "--max-detections", 20)  # fmt: skip
    assert code == 0, by_torch
    code, by_file = _swiftsight(capsys, "eval", config, exported_detector.path, "--threads", 1)
    assert code == 0, by_file
    assert len(_figures(by_torch)) == 12
    assert _figures(by_file) == _figures(by_torch)
    assert "hard suppression" in by_file
    for words, why in (
        (["--flip"], "--flip is for torch; it does not go with"),
        (["--device", "cpu"], "--device is for torch; it does not go with"),
        (["--size", "96", "96"], "size is 96x96; the exported file is made for 64x96 alone"),
        (["--score-threshold", "0.01"], "export with a lower one"),
    ):
        code, said = _swiftsight(capsys, "eval", config, exported_detector.path, *words)
        assert (code, said.count("\n")) == (2 if why.startswith("--") else 1, 1)
        assert why in said


def test_eval_scores_a_segmenters_file_of_one_size(exported_segmenter, block_pictures, tmp_path, capsys):
    """What the words call a file of one size sees pictures squeezed; this one takes any size, so both can be scored."""
    fixed = tmp_path / "fixed.onnx"
    _with_words(fixed, exported_segmenter.path, free_size="false")
    for path in block_pictures.glob("*.png"):
        red = np.array(Image.open(path))[:, :, 0] > 200
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(red.astype(np.uint8)).save(tmp_path / "labels" / path.name)
    part = {"images": str(block_pictures), "labels": str(tmp_path / "labels")}
    content = {
        "task": "segment", "model": {"name": "bisenet", "backbone": "squeezenet1_1"},
        "data": {"layout": "masks", "class_names": ["background", "person"], "train": part, "val": part},
        "epochs": 1, "optimizer": {"lr": 0.01}, "sizes": [[64, 96]], "eval_size": [64, 96], "workers": 0,
    }  # fmt: skip
    config = tmp_path / "masks.yaml"
    config.write_text(yaml.safe_dump(content))
    said = {}
    for path in (exported_segmenter.path, fixed):
        code, said[path] = _swiftsight(capsys, "eval", config, path, "--threads", 1)
        assert code == 0, said[path]
        assert re.search(r"^person +\d", said[path], re.MULTILINE)
    assert "squeezed into it" in said[fixed]
    assert "squeezed" not in said[exported_segmenter.path]


def test_a_net_by_name_is_converted_once_and_kept(exported_detector, block_pictures, tmp_path, capsys, monkeypatch):
    written = []

    def write(net, settings, words, target, **_):  # the real thing is tested with the command
        written.append(settings)
        target.write_bytes(exported_detector.path.read_bytes())

    monkeypatch.setattr(conversion, "write_export", write)
    monkeypatch.setattr(conversion, "check_pictures", lambda folder: ([], "none"))
    words = ["demo", "--weights", exported_detector.weights, "--engine", "onnxruntime", "--score", "0.3",
             "--source", block_pictures / "0.png", "--json", "found.json"]  # fmt: skip
    for _ in range(2):
        code, said = _swiftsight(capsys, *words)
        assert code == 0, said
    assert len(written) == 1
    assert (written[0].size, written[0].batch, written[0].score_threshold) == ((64, 96), 1, 0.05)
    assert [path.suffix for path in (tmp_path / "cache" / "converted").iterdir()] == [".onnx"]
    code, said = _swiftsight(capsys, *words, "--size", 48, 96)
    code, said = _swiftsight(capsys, *words, "--score", 0.01)
    assert [each.score_threshold for each in written] == [0.05, 0.05, 0.01]
    other = detect.create_detector("thundernet", weights=exported_detector.weights)
    before = conversion.fingerprint(other, written[0])
    with torch.no_grad():
        other.head.classify.bias[0] += 1e-3
    plain = conversion.fingerprint(other, written[0])
    assert plain != before
    other.binarize_("bwn")
    assert conversion.fingerprint(other, written[0]) != plain  # another function of the same tensors
    plain = conversion.fingerprint(other, written[0])
    monkeypatch.setattr(conversion, "_sources", lambda: "other code")
    assert conversion.fingerprint(other, written[0]) != plain


def test_a_cached_file_that_is_cut_off_is_made_anew_and_old_ones_go(exported_detector, tmp_path, monkeypatch):
    whole = exported_detector.path.read_bytes()
    monkeypatch.setattr(conversion, "write_export", lambda net, settings, words, target, **_: target.write_bytes(whole))
    monkeypatch.setattr(conversion, "_MOST_KEPT", 2)
    net = detect.create_detector("thundernet", weights=exported_detector.weights)
    first = conversion.converted(net, GraphSettings((64, 96), 16), threads=1)
    first.write_bytes(whole[:1000])
    assert conversion.converted(net, GraphSettings((64, 96), 16), threads=1).read_bytes() == whole
    for place, width in enumerate((48, 80, 96)):
        path = conversion.converted(net, GraphSettings((64, width), 16), threads=1)
        os.utime(path, (place, place))
    kept = conversion.converted(net, GraphSettings((64, 112), 16), threads=1)
    assert set(first.parent.iterdir()) == {first, kept}


def test_where_the_cache_cannot_be_written_a_net_is_converted_beside_it(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder = conversion._writable(tmp_path / "cache" / "converted")
    assert folder.is_dir()
    assert tmp_path not in folder.parents
