"""Engines: the same answer from each, the fastest remembered, and a line for what cannot run."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from swiftsight_tools.engines import engine as engine_module
from swiftsight_tools.engines import engine_choice
from swiftsight_tools.engines.engine import OnnxRuntimeEngine, OpenVinoEngine, TorchEngine
from swiftsight_tools.engines.engine_choice import MEMORY, fastest, memory_key, open_engine
from swiftsight_tools.engines.picture_graph import GraphSettings, PictureGraph

pytest.importorskip("onnxruntime")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIFTSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _images(count: int = 1, height: int = 64, width: int = 96) -> np.ndarray:
    """[N, 3, h, w] seen from [N, h, w, 3]."""
    noise = np.random.default_rng(5).integers(0, 256, (count, height // 8, width // 8, 3), dtype=np.uint8)
    return noise.repeat(8, axis=1).repeat(8, axis=2).transpose(0, 3, 1, 2)


def test_each_engine_gives_the_same(exported_detector):
    images = _images(2)
    graph = PictureGraph(exported_detector.net, GraphSettings((64, 96), 16, batch=None, max_detections=20))
    answers = {
        "torch": open_engine(graph, threads=1)(images),
        "onnxruntime": open_engine(exported_detector.path, "onnxruntime", threads=1)(images),
        "openvino": open_engine(exported_detector.path, "openvino", threads=2)(images),
    }
    for name, found in answers.items():
        assert [each.dtype for each in found] == [np.float32, np.float32, np.int64, np.int64]
        np.testing.assert_array_equal(found[3], answers["torch"][3], err_msg=name)
        np.testing.assert_allclose(found[1], answers["torch"][1], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(found[0], answers["torch"][0], atol=0.01, err_msg=name)
    assert answers["torch"][3].min() > 3


def test_pictures_are_not_copied_on_their_way_in_and_answers_are_the_callers(exported_detector):
    images = _images()
    assert np.shares_memory(engine_module._as_pictures(images), images)
    copied = engine_module._as_pictures(np.ascontiguousarray(images))
    np.testing.assert_array_equal(copied, engine_module._as_pictures(images))
    for name in ("onnxruntime", "openvino"):
        engine = open_engine(exported_detector.path, name, threads=1)
        first = engine(images)
        kept = [each.copy() for each in first]
        engine(255 - images)
        for own, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(own, before)


def test_threads_and_precision_are_set_and_not_guessed(exported_detector, exported_segmenter):
    before = torch.get_num_threads()
    try:
        TorchEngine(torch.nn.Identity(), threads=3)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    options = OnnxRuntimeEngine(exported_detector.path, threads=3)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    engine = OpenVinoEngine(exported_segmenter.path, threads=1, callers=2)  # it takes no more than there are cores
    free = engine._requests_for((1, 64, 96, 3))
    assert free.qsize() == 2  # one for each caller
    graph = free.get().get_compiled_model()
    assert graph.get_property("INFERENCE_NUM_THREADS") == 1
    assert graph.get_property("NUM_STREAMS") == 1
    assert graph.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_openvino_compiles_for_the_first_sizes_and_then_once_for_all(exported_segmenter, monkeypatch):
    monkeypatch.setattr(engine_module, "_MOST_SHAPES", 1)
    engine = OpenVinoEngine(exported_segmenter.path, threads=1)
    expected = OnnxRuntimeEngine(exported_segmenter.path, threads=1)
    for size in ((64, 96), (48, 72), (40, 40), (64, 96)):
        images = _images(1, *size)
        np.testing.assert_allclose(engine(images)[1], expected(images)[1], atol=1e-4)
    assert set(engine._free) == {(1, 64, 96, 3), None}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_several_threads_at_once_get_their_own_answers(exported_detector, name):
    engine = open_engine(exported_detector.path, name, threads=1, callers=2)
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8).transpose(0, 3, 1, 2) for _ in range(12)]
    alone = [engine(picture) for picture in pictures]
    with ThreadPoolExecutor(3) as pool:  # one more than was said
        together = list(pool.map(engine, pictures))
    for one, other in zip(alone, together, strict=True):
        for own, before in zip(one, other, strict=True):
            np.testing.assert_array_equal(own, before)


@pytest.mark.parametrize(
    ("name", "images", "why"),
    [
        ("onnxruntime", _images(1, 64, 88), "the pictures are 1 x 64 x 88 x 3; the file takes any x 64 x 96 x 3"),
        ("openvino", _images(1, 64, 88), "the pictures are 1 x 64 x 88 x 3; the file takes any x 64 x 96 x 3"),
        ("openvino", _images()[0], "images are [3, 64, 96] of uint8; expected [N, 3, h, w] of uint8"),
        ("onnxruntime", _images() / 255, "images are [1, 3, 64, 96] of float64; expected [N, 3, h, w] of uint8"),
    ],
)
def test_wrong_pictures_get_a_line(exported_detector, name, images, why):
    engine = open_engine(exported_detector.path, name, threads=1)
    with pytest.raises(ValueError, match=f"^{why.replace('[', chr(92) + '[')}$"):
        engine(images)


def test_engines_that_cannot_run_a_file_get_a_line(exported_detector, tmp_path, monkeypatch):
    path = exported_detector.path
    with pytest.raises(ValueError, match="no engine is called 'onnx'; expected auto, torch, onnxruntime, openvino"):
        open_engine(path, "onnx")
    with pytest.raises(ValueError, match=r"torch cannot run net\.onnx; expected --engine onnxruntime or openvino"):
        open_engine(path, "torch")
    with pytest.raises(ValueError, match="a module is run by torch; export it for openvino"):
        open_engine(torch.nn.Identity(), "openvino")
    with pytest.raises(FileNotFoundError, match="no exported file at"):
        open_engine(tmp_path / "none.onnx")
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(ValueError, match=r"onnxruntime runs \.onnx files, not net\.xml"):
        open_engine(tmp_path / "net.xml", "onnxruntime")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:5000])
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(ValueError, match=r"cut\.onnx cannot be run by .*: \S") as caught:
            open_engine(tmp_path / "cut.onnx", name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(engine_module, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs the package onnxruntime.*pip install \"\.\[fast\]\" in the checkout"):
        open_engine(path)


class _Fake:
    """An engine that needs no time; `opened` counts how often it was wanted."""

    opened = 0
    name = "fake"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        type(self).opened += 1

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        _Fake.now += self.seconds
        return (images,)

    now = 0.0


@pytest.fixture
def choose(exported_detector, cache, monkeypatch):
    """Chooses between two engines of 5 and 2 ms; gives the choice, and how many were opened for it."""
    monkeypatch.setattr(engine_choice.time, "perf_counter", lambda: _Fake.now)

    def _choose(threads: int = 1) -> tuple[str, int]:
        _Fake.opened = 0
        openers = {"slow": lambda: _Fake(0.005), "quick": lambda: _Fake(0.002)}
        return fastest(exported_detector.path, openers, threads=threads), _Fake.opened

    return _choose


def test_the_fastest_is_measured_once_and_remembered(choose, cache):
    assert choose() == ("quick", 2)
    assert choose() == ("quick", 0)
    assert choose(threads=2) == ("quick", 2)  # another setting, another measurement
    assert list(json.loads((cache / MEMORY).read_text()).values()) == ["quick", "quick"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 3}', "\x00\xff"])
def test_a_damaged_memory_is_measured_again(choose, cache, content):
    cache.mkdir()
    (cache / MEMORY).write_text(content)
    assert choose() == ("quick", 2)
    assert choose() == ("quick", 0)


def test_a_memory_that_cannot_be_written_is_no_error(choose, cache):
    cache.write_text("a file where the folder should be")
    assert choose() == ("quick", 2)
    assert choose() == ("quick", 2)


def test_an_engine_that_fails_does_not_count(exported_detector, cache):
    def fail():
        raise ValueError("it cannot")

    assert fastest(exported_detector.path, {"bad": fail, "good": lambda: _Fake(0)}, threads=1) == "good"
    with pytest.raises(ValueError, match=r"no engine runs .*: it cannot"):
        fastest(exported_detector.path, {"bad": fail, "worse": fail}, threads=2)


def test_what_is_remembered_goes_with_file_threads_versions_and_processor(exported_detector, tmp_path):
    path = exported_detector.path
    other = tmp_path / "other.onnx"
    other.write_bytes(path.read_bytes() + b" ")
    keys = {
        memory_key(path, ["onnxruntime", "openvino"], 1),
        memory_key(path, ["onnxruntime", "openvino"], 2),
        memory_key(path, ["onnxruntime"], 1),
        memory_key(other, ["onnxruntime", "openvino"], 1),
    }
    assert len(keys) == 4
    assert all("onnxruntime 1." in key for key in keys)
