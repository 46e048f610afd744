"""`swiftsight demo` from the words to the files, with a detector that finds red blocks; and once with a real net."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from swiftsight_tools import cli, demo, samples, video
from swiftsight_tools.destinations import SourceKind, pictures_in, source_kind
from swiftsight_tools.device import choose_device
from swiftsight_tools.errors import UsageError
from swiftsight_tools.frames import model_views
from swiftsight_tools.frames.frame_log import FrameLog
from swiftsight_tools.frames.stages import StageClock
from swiftsight_tools.frames.video_sink import VideoSink
from swiftsight_tools.model_choice import choose_weights
from swiftsight_tools.samples import CLIP, PICTURE, find_sample
from swiftsight_tools.video import frames
from torch import Tensor, nn

import segment
from backbones import read_metadata
from detect import Detections, RawDetections, create_detector, registry, save_detector
from pictures.images import read_image

BOX = [40, 30, 100, 90]  # xyxy of the red block in every picture and frame made here


class BlockFinder(nn.Module):
    """Answers like a detector: one box around whatever is red, of class "block"."""

    class_names = ("nothing", "block")
    input_size = (96, 128)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0
        self.interrupt_at, self.interrupt_by = -1, signal.SIGINT

    def forward(self, images: Tensor) -> RawDetections:
        self.calls += 1
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), self.interrupt_by)
        red = (images[0, 0] > 150) & (images[0, 1] < 100) & (images[0, 2] < 100)
        rows, columns = torch.nonzero(red, as_tuple=True)
        if not len(rows):
            return RawDetections(torch.zeros(1, 1, 4), torch.zeros(1, 1, 2))
        corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return RawDetections(torch.stack(corners).float()[None, None], torch.tensor([[[0.0, 0.875]]]))


@pytest.fixture
def finder(monkeypatch) -> BlockFinder:
    net = BlockFinder()
    monkeypatch.setattr(model_views, "create_detector", lambda name, weights: net)
    monkeypatch.setattr(model_views, "choose_weights", lambda model, weights: ("blocks", Path("blocks")))
    return net


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def _scene(block: bool = True) -> np.ndarray:
    picture = np.full((192, 256, 3), 128, np.uint8)
    if block:
        picture[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (220, 20, 20)
    return picture


def _save(path: Path, block: bool = True) -> Path:
    Image.fromarray(_scene(block)).save(path)
    return path


def _clip(path: Path, count: int = 12, empty: int = 0) -> Path:
    """A clip whose last `empty` frames show no block."""
    with VideoSink(path, 10) as sink:
        for number in range(count):
            sink.write(_scene(number < count - empty))
    return path


def _demo(*words: object) -> int:
    return cli.main(["demo", *map(str, words)])


def _records(path: str) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text())


def _count_frames(path: Path) -> int:
    with frames(path) as clip:
        return sum(1 for _ in clip)


# Pictures


def test_a_picture_is_annotated_noted_and_reported(finder, tmp_path, capsys):
    source = _save(tmp_path / "scene.png")
    before = source.read_bytes()
    assert _demo("--source", source, "--json", "out/found.json") == 0
    (record,) = _records("out/found.json")
    (found,) = record.pop("detections")
    assert record == {"source": str(source), "width": 256, "height": 192}
    assert (found["label"], found["score"]) == ("block", 0.875)
    np.testing.assert_allclose(found["box"], BOX, atol=2)
    drawn = read_image("demo_output/scene_detected.png")
    assert drawn.shape == (192, 256, 3)
    assert (drawn != _scene()).any(axis=2)[BOX[1] : BOX[3], BOX[0]].all()
    assert source.read_bytes() == before
    told = capsys.readouterr().out
    assert "1 object found" in told
    assert "block   0.88" in told
    for stage in ("decode", "prepare", "net", "finish", "draw", "write"):
        assert f"\n{stage} " in told
    assert "frames per second for prepare + net + finish" in told


def test_a_picture_without_anything_says_so(finder, tmp_path, capsys):
    assert _demo("--source", _save(tmp_path / "scene.jpg", block=False), "--output", "drawn.jpg") == 0
    assert "0 objects found" in capsys.readouterr().out
    assert Path("drawn.jpg").is_file()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_every_suffix_can_be_read_and_written(finder, tmp_path, suffix):
    assert _demo("--source", _save(tmp_path / f"scene{suffix}"), "--output", "drawn") == 0
    assert read_image(f"drawn/scene_detected{suffix}").shape == (192, 256, 3)


def test_the_score_and_the_classes_choose_what_counts(finder, tmp_path, capsys):
    source = _save(tmp_path / "scene.png")
    assert _demo("--source", source, "--score", 0.9) == 0
    assert _demo("--source", source, "--classes", "nothing") == 0
    assert capsys.readouterr().out.count("0 objects found") == 2
    assert _demo("--source", source, "--classes", "block", "nothing") == 0
    assert "1 object found" in capsys.readouterr().out


def test_bad_pictures_of_a_folder_are_named_and_the_rest_is_done(finder, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "c.jpg", "e.png"):
        _save(folder / name, block=name != "e.png")
    (folder / "b.jpg").write_text("no picture, but words")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("not a picture and not named like one")
    assert _demo("--source", folder, "--output", "drawn", "--json", "found.json") == 1
    assert sorted(path.name for path in Path("drawn").iterdir()) == [
        "a_detected.png",
        "c_detected.jpg",
        "e_detected.png",
    ]
    records = _records("found.json")
    assert [Path(record["source"]).name for record in records] == ["a.png", "b.jpg", "c.jpg", "d.png", "e.png"]
    assert [len(record.get("detections", "xx")) for record in records] == [1, 2, 1, 2, 0]
    assert all(record["source"] in record["error"] for record in records if "error" in record)
    told = capsys.readouterr()
    assert "2 of 5 pictures could not be read: b.jpg, d.png" in told.err
    assert "block: found in 2 of 3 pictures, 2 boxes" in told.out


def test_a_folder_is_done_again_over_the_results_of_the_first_time(finder, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    _save(folder / "a.png")
    assert [_demo("--source", folder, "--output", "drawn") for _ in range(2)] == [0, 0]
    assert [path.name for path in Path("drawn").iterdir()] == ["a_detected.png"]


# Videos


def test_a_video_becomes_a_playable_video_and_a_record_a_frame(finder, tmp_path, capsys):
    source = _clip(tmp_path / "clip.mp4", 12, empty=3)
    assert _demo("--source", source, "--json", "found.json") == 0
    with frames("demo_output/clip_detected.mp4") as drawn:
        assert drawn.info == ((192, 256), 10.0, 12)
        assert sum(1 for _ in drawn) == 12
    records = _records("found.json")
    assert [record["frame"] for record in records] == list(range(12))
    np.testing.assert_allclose([record["time"] for record in records], np.arange(12) / 10, atol=1e-3)
    assert [len(record["detections"]) for record in records] == [1] * 9 + [0] * 3
    told = capsys.readouterr().out
    assert "block: found in 9 of 12 frames, 9 boxes" in told
    assert "with everything" in told


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm"])
def test_the_output_may_be_another_kind_of_video(finder, tmp_path, suffix):
    source = _clip(tmp_path / "clip.mkv")
    assert _demo("--source", source, "--output", f"drawn{suffix}", "--max-frames", 5) == 0
    assert _count_frames(Path(f"drawn{suffix}")) == 5


def test_json_lines_hold_a_frame_a_line(finder, tmp_path):
    assert _demo("--source", _clip(tmp_path / "clip.mp4", 4), "--json", "found.jsonl") == 0
    lines = Path("found.jsonl").read_text().splitlines()
    assert [json.loads(line)["frame"] for line in lines] == [0, 1, 2, 3]


def test_of_a_video_that_breaks_off_everything_before_is_kept(finder, tmp_path, capsys):
    source = _clip(tmp_path / "clip.mkv", 100)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert _demo("--source", source, "--json", "found.json", "--output", "drawn.mp4") == 1
    told = capsys.readouterr()
    read = len(_records("found.json"))
    assert f"breaks off at frame {read} of 100" in told.err
    assert 10 < read < 90
    assert _count_frames(Path("drawn.mp4")) == read
    assert f"block: found in {read} of {read} frames" in told.out


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_video_ends_cleanly(finder, tmp_path, capsys, kind):
    finder.interrupt_at, finder.interrupt_by = 30, kind  # the first call is a warm-up
    assert _demo("--source", _clip(tmp_path / "clip.mp4", 40), "--json", "found.json", "--output", "drawn.mp4") == 130
    kept = len(_records("found.json"))
    assert 20 <= kept <= 30  # frames are looked at ahead, and as many as the cores at once
    assert _count_frames(Path("drawn.mp4")) == kept
    assert "interrupted; what came before is kept" in capsys.readouterr().err
    assert not list(Path().glob(".*"))


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_folder_keeps_what_is_done(finder, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        _save(folder / f"{number}.png")
    finder.interrupt_at = 4
    assert _demo("--source", folder, "--json", "found.json") == 130
    assert len(_records("found.json")) == 2
    assert "interrupted after 2 of 5 pictures" in capsys.readouterr().err


# Cameras


class EndlessCamera:
    """Gives the scene again and again, blue first as cameras do."""

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray]:
        threading.Event().wait(0.01)
        return True, np.ascontiguousarray(_scene()[:, :, ::-1])

    def get(self, _: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


def test_a_camera_without_a_display_is_recorded(finder, monkeypatch, capsys):
    monkeypatch.setattr(video, "_open_live", lambda source: EndlessCamera())
    assert _demo("--source", 0, "--max-frames", 6, "--json", "found.jsonl") == 0
    (recorded,) = Path("demo_output").glob("camera_0_*.mp4")
    assert _count_frames(recorded) >= 1
    assert len(Path("found.jsonl").read_text().splitlines()) == 6
    told = capsys.readouterr().out
    assert "no window can open here: there is no display; the result goes into a file" in told
    assert f"recording into {recorded}" in told
    assert "block: found in 6 of 6 frames" in told


class ShownWindow:
    """Stands for a window whose user presses q at the third picture."""

    def __init__(self, title: str) -> None:
        self.pictures: list[np.ndarray] = []
        windows.append(self)

    def __enter__(self) -> "ShownWindow":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, picture: np.ndarray, *, wait: bool = False) -> bool:
        self.pictures.append(picture)
        return len(self.pictures) < 3


windows: list[ShownWindow] = []


@pytest.fixture
def screen(monkeypatch):
    windows.clear()
    monkeypatch.setattr(demo, "Window", ShownWindow)
    monkeypatch.setattr(demo, "why_no_window", lambda: None)


@pytest.mark.usefixtures("screen")
def test_a_camera_with_a_window_is_shown_until_q_and_not_recorded(finder, monkeypatch, capsys):
    monkeypatch.setattr(video, "_open_live", lambda source: EndlessCamera())
    assert _demo("--source", "rtsp://me:secret@host/front") == 0
    assert len(windows[0].pictures) == 3
    assert not Path("demo_output").exists()
    assert "secret" not in capsys.readouterr().out


@pytest.mark.usefixtures("screen")
def test_a_window_for_a_camera_can_be_declined_and_for_a_video_be_asked_for(finder, monkeypatch, tmp_path):
    monkeypatch.setattr(video, "_open_live", lambda source: EndlessCamera())
    assert _demo("--source", 0, "--no-show", "--max-frames", 4, "--output", "camera.avi") == 0
    assert not windows
    assert _demo("--source", _clip(tmp_path / "clip.mp4"), "--show") == 0
    assert _count_frames(Path("demo_output/clip_detected.mp4")) == len(windows[0].pictures) == 3
    assert _demo("--source", _save(tmp_path / "scene.png"), "--show") == 0
    assert len(windows[1].pictures) == 1


def test_a_camera_that_is_not_there_leaves_nothing_behind(finder, capsys):
    assert _demo("--source", 97, "--json", "found.json") == 1
    assert "camera 97 gives no picture" in capsys.readouterr().err
    assert not Path("found.json").exists()


# Bad words and bad input


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["--source", "none.png"], "no file or folder at none.png", 1),
        (["--source", ""], "the source is empty", 1),
        (["--source", "99999999999"], "99999999999 is no camera's number; expected 0..999", 1),
        (["--source", "notes.txt"], "suffix '.txt'; expected one of .jpg", 1),
        (["--source", "plain"], "suffix ''; expected one of", 1),
        (["--source", "words.jpg"], "words.jpg is not a readable picture", 1),
        (["--source", "words.mp4"], "words.mp4 cannot be opened as a video", 1),
        (["--source", "empty"], "empty holds no picture; expected files that end in .jpg", 1),
        (["--source", "scene.png", "--output", "drawn.mp4"], "expected a folder or a file in .jpg", 1),
        (["--source", "clip.mp4", "--output", "drawn.png"], "expected a folder or a file in .mp4", 1),
        (["--source", "scene.png", "--output", "notes.txt/deep"], "cannot make the folder notes.txt/deep", 1),
        (["--source", "scene.png", "--json", "found.csv"], "found.csv'; expected one of .json, .jsonl", 1),
        (["--source", "scene.png", "--json", "notes.txt/found.json"], "notes.txt is a file; expected a folder", 1),
        (["--source", "sample", "--output", "drawn.mp4"], "the sample gives two files and needs a folder", 1),
        (["--source", "scene.png", "--classes", "blok"], "no class 'blok' (nearest: 'block')", 1),
        (["--source", "scene.png", "--score", "30"], "'30'; expected a number in 0..1", 2),
        (["--source", "scene.png", "--score", "high"], "'high'; expected a number in 0..1", 2),
        (["--source", "clip.mp4", "--max-frames", "0"], "'0'; expected a whole number, 1 or more", 2),
        (["--source", "scene.png", "--max-frames", "3"], "--max-frames is for videos and cameras", 2),
        (["--source", ".", "--show"], "--show is for one picture, a video or a camera", 2),
        (["--source", "scene.png", "--size", "0", "32"], "size is [0, 32]; expected (height, width)", 1),
        (["--source", "scene.png", "--output", "scene.png"], "is the source itself and would be overwritten", 1),
        (["--source", "scene.png", "--output", "link.png"], "is the source itself and would be overwritten", 1),
        (["--source", "clip.mp4", "--output", "clip.mp4"], "is the source itself and would be overwritten", 1),
        (["--source", ".", "--output", "."], "is the source folder itself", 1),
        (["--source", ".", "--output", "scene.png"], "is a file; a folder of pictures needs a folder", 1),
        (["--source", ".", "--output", "drawn.jpg"], "drawn.jpg is named as a file; a folder of pictures needs", 2),
        ([], "--source", 2),
    ],
)  # fmt: skip
def test_bad_words_and_bad_files_give_one_line_and_lose_nothing(finder, monkeypatch, capsys, words, told, code):
    monkeypatch.setattr(demo, "find_sample", lambda sample: Path("scene.png"))
    Path("empty").mkdir()
    _save(Path("scene.png"))
    _clip(Path("clip.mp4"), 3)
    for name in ("notes.txt", "plain", "words.jpg", "words.mp4"):
        Path(name).write_text("words")
    os.link("scene.png", "link.png")
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert _demo(*words) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
    assert not Path("drawn.jpg").exists()


def test_a_result_that_cannot_be_written_stops_a_folder(finder, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    _save(folder / "a.png")
    Path("drawn/.a_detected.png.part").mkdir(parents=True)  # even root cannot write a file over a folder
    assert _demo("--source", folder, "--output", "drawn") == 1
    assert ".a_detected.png.part: Is a directory" in capsys.readouterr().err


def test_a_picture_that_the_suffix_cannot_hold_is_refused(tmp_path):
    from swiftsight_tools.frames.annotate import write_image

    with pytest.raises(OSError, match=r"a picture of 20000 x 1 cannot be written as \.webp"):
        write_image(tmp_path / "wide.webp", np.zeros((1, 20000, 3), np.uint8))


# Parts


def test_kinds_of_source(tmp_path):
    _save(tmp_path / "scene.PNG")
    (tmp_path / "clip.MP4").touch()
    assert source_kind("sample") is SourceKind.SAMPLE
    assert source_kind("0") is source_kind("rtsp://host/front") is SourceKind.LIVE
    assert source_kind(str(tmp_path)) is SourceKind.FOLDER
    assert source_kind(str(tmp_path / "scene.PNG")) is SourceKind.PICTURE
    assert source_kind(str(tmp_path / "clip.MP4")) is SourceKind.VIDEO
    (tmp_path / "._scene.PNG").touch()  # macOS leaves such files beside what it copies
    assert pictures_in(tmp_path) == [tmp_path / "scene.PNG"]


def test_an_older_log_lives_until_the_first_record(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("[1]")
    with pytest.raises(KeyboardInterrupt), FrameLog(path):
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == [1]
    with FrameLog(path):
        pass
    assert json.loads(path.read_text()) == []
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    with FrameLog(path) as log:
        log.write("a", (2, 3), nothing, ())
        assert '"a"' in path.read_text()  # at once, not at the end
        log.write_error("b", "why")
        log.write_error(os.fsdecode(b"caf\xe9.jpg"), "why")
    assert json.loads(path.read_text())[1:] == [
        {"source": "b", "error": "why"},
        {"source": os.fsdecode(b"caf\xe9.jpg"), "error": "why"},
    ]


def test_medians_of_stages():
    clock = StageClock()
    with clock.stage("net"), clock.stage("inner"):
        pass
    clock.seconds["net"].extend([0.2, 0.3])
    assert clock.medians()["net"] == pytest.approx(200)
    with pytest.raises(ZeroDivisionError), clock.stage("failed"):
        _ = 1 / 0
    assert list(clock.medians()) == ["inner", "net"]


def test_a_sample_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setattr(samples, "find_spec", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match=r"astronaut\.png comes with scikit-image: pip install '\.\[demo\]' in the checkout"
    ):
        find_sample(PICTURE)


def test_the_installed_samples_are_annotated(finder, capsys):
    try:
        find_sample(PICTURE), find_sample(CLIP)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert _demo("--source", "sample", "--max-frames", 3, "--json", "demo_output/detections.json") == 0
    assert read_image("demo_output/astronaut_detected.png").shape == (512, 512, 3)
    assert _count_frames(Path("demo_output/bikes_detected.mp4")) == 3
    records = _records("demo_output/detections.json")
    assert [record.get("frame") for record in records] == [None, 0, 1, 2]
    told = capsys.readouterr().out
    assert "astronaut.png, 512 x 512 pixels" in told
    assert "bikes.mp4: 3 frames" in told


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cuda: torch finds no CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(None) == choose_device("cuda") == torch.device("cuda")


# Which weights


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A folder of shipped weights: of one net for two data sets."""
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    net = create_detector("thundernet_shufflenet_v2_x0_5", num_classes=1)
    net.class_names = ("person",)
    for dataset in ("birds", "person"):
        save_detector(net, folder / f"{net.name}_{dataset}.safetensors")
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", folder)
    return folder


def test_which_weights_are_meant(shipped, tmp_path):
    name = "thundernet_shufflenet_v2_x0_5"
    person, birds = shipped / f"{name}_person.safetensors", shipped / f"{name}_birds.safetensors"
    own = tmp_path / "own.safetensors"
    own.write_bytes(birds.read_bytes())
    assert choose_weights(None, None) == (name, person)
    assert choose_weights(name, None) == (name, person)
    assert choose_weights(f"{name}_birds", None) == (name, birds)
    assert choose_weights(None, f"{name}_birds") == (name, birds)
    assert choose_weights(name, "birds") == (name, birds)
    assert choose_weights(name, str(own)) == (name, own)
    assert choose_weights(None, str(own)) == (name, own)
    assert choose_weights(None, "person") == (name, person)
    assert choose_weights(None, "birds") == (name, birds)


def test_a_data_set_whose_weights_several_nets_have(shipped, tmp_path, monkeypatch):
    """The net that stands for all others if it is one of them; else the one to take has to be named."""
    birds, pixels = "thundernet_snet49", "bisenet_shufflenet_v2_x0_5"
    for name, data_set, folder in ((birds, "birds", shipped), (birds, "person", shipped), (pixels, "dogs", tmp_path)):
        (other,) = shipped.glob("*x0_5_person.safetensors")
        words = {**read_metadata(other), "name": name}
        save_file(load_file(other), folder / f"{name}_{data_set}.safetensors", metadata=words)
    monkeypatch.setattr(segment.registry, "WEIGHTS_FOLDER", tmp_path)
    assert choose_weights(None, "person")[0] == "thundernet_shufflenet_v2_x0_5"
    assert choose_weights(None, "dogs") == (pixels, tmp_path / f"{pixels}_dogs.safetensors")
    both = "thundernet_shufflenet_v2_x0_5, thundernet_snet49"
    with pytest.raises(ValueError, match=f"several nets come with weights 'birds'; name the MODEL as well: {both}$"):
        choose_weights(None, "birds")


@pytest.mark.parametrize(
    ("model", "weights", "told"),
    [
        (
            "thundernet_snet94",
            None,
            "no detector, segmenter or joint net is called 'thundernet_snet94' (nearest: 'thundernet_snet49')",
        ),
        ("thundernet_snet49", None, "no weights come with swiftsight for thundernet_snet49 (shipped are"),
        ("thundernet_snet49", "cars", "no weights file 'cars'"),
        (None, "none.safetensors", "none.safetensors"),
        ("runs/best.safetensors", None, "runs/best.safetensors is a weights file; give it by --weights runs/best.safe"),
        ("small.packed", None, "small.packed is a weights file; give it by --weights small.packed"),
        (None, "words.safetensors", "words.safetensors"),
        ("thundernet_snet49", "thundernet_shufflenet_v2_x0_5_birds", "holds weights of thundernet_shufflenet"),
        ("thundernet_shufflenet_v2_x0_5_birds", "own", "leave out --weights own"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(shipped, tmp_path, capsys, model, weights, told):
    Path("words.safetensors").write_text("words")
    words = [model] if model else []
    words += ["--weights", weights] if weights else []
    assert _demo(*words, "--source", _save(tmp_path / "scene.png")) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]


def test_without_any_weights_the_demo_says_what_to_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "WEIGHTS_FOLDER", tmp_path / "none")
    assert _demo("--source", _save(tmp_path / "scene.png")) == 1
    assert "no weights come with swiftsight for a demo; name a MODEL and --weights" in capsys.readouterr().err


def test_a_real_net_goes_the_whole_way(shipped, tmp_path, capsys):
    source = _clip(tmp_path / "clip.mp4", 3)
    assert _demo("--source", source, "--size", 96, 128, "--score", 0.05, "--json", "found.json", "--device", "cpu") == 0
    found = [one for record in _records("found.json") for one in record["detections"]]
    assert found
    assert {one["label"] for one in found} == {"person"}
    for left, top, right, bottom in (one["box"] for one in found):
        assert 0 <= left <= right <= 256
        assert 0 <= top <= bottom <= 192
    assert _count_frames(Path("demo_output/clip_detected.mp4")) == 3
    assert "person: found in 3 of 3 frames" in capsys.readouterr().out
