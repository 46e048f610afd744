"""`swiftsight demo` with a segmenter that sees red as a person: colours, backgrounds, labels, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from swiftsight_tools import cli
from swiftsight_tools.frames import model_views
from swiftsight_tools.frames.video_sink import VideoSink
from swiftsight_tools.model_choice import choose_weights
from swiftsight_tools.video import frames
from torch import Tensor, nn

import segment.registry
from pictures.images import read_image
from segment import create_segmenter, save_segmenter
from segment.formats import camvid, cityscapes

NAME = "bisenet_xception39"
BLOCK = np.s_[40:120, 60:140]  # rows, columns of the person
INSIDE, OUTSIDE = np.s_[60:100, 80:120], np.s_[130:190, 160:250]
RED = (220, 20, 20)
SHARE = 80 * 80 / (192 * 256)


class RedPerson(nn.Module):
    """Answers like a segmenter: red is class 2, all else 0; class 1 is nowhere."""

    class_names = ("background", "dog", "person")
    input_size = (192, 256)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.faint_at, self.calls = -1, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        red = ((images[:, 0] > 150) & (images[:, 1] < 100)).float()
        if self.calls == self.faint_at:
            red = 0.45 * red
        return 8 * torch.stack((1 - red, torch.full_like(red, -1), red), dim=1)


@pytest.fixture
def net(monkeypatch) -> RedPerson:
    net = RedPerson()
    monkeypatch.setattr(model_views, "create_segmenter", lambda name, weights: net)
    monkeypatch.setattr(model_views, "choose_weights", lambda model, weights: (NAME, Path("red")))
    return net


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _scene(person: bool = True) -> np.ndarray:
    picture = np.full((192, 256, 3), 100, np.uint8)
    if person:
        picture[BLOCK] = RED
    return picture


def _save(path: str, person: bool = True) -> str:
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(_scene(person)).save(path)
    return path


def _clip(path: str, count: int = 6) -> str:
    with VideoSink(path, 10) as sink:
        for _ in range(count):
            sink.write(_scene())
    return path


def _demo(*words: object) -> int:
    return cli.main(["demo", NAME, *map(str, words)])


# Classes


def test_a_picture_is_coloured_noted_labelled_and_reported(net, capsys):
    assert _demo("--source", _save("scene.png"), "--json", "found.json", "--labels", "labels") == 0
    drawn = read_image("demo_output/scene_detected.png")
    assert (drawn[INSIDE] != RED).any(axis=2).all()
    assert (drawn[OUTSIDE] == 100).all()  # the background is not coloured
    (record,) = json.loads(Path("found.json").read_text())
    shares = record.pop("shares")
    assert record == {"source": "scene.png", "width": 256, "height": 192}
    assert shares == pytest.approx({"background": 1 - SHARE, "person": SHARE}, abs=1e-5)
    labels = np.asarray(Image.open("labels/scene.png"))
    assert (labels.shape, labels.dtype) == ((192, 256), np.uint8)
    assert (labels == np.where((_scene() == RED).all(axis=2), 2, 0)).all()
    told = capsys.readouterr().out
    assert "scene.png, 256 x 192 pixels: 1 class found" in told
    assert f"person   {SHARE:.1%}" in told
    for stage in ("decode", "prepare", "net", "finish", "draw", "write"):
        assert f"\n{stage} " in told


def test_only_the_chosen_classes_are_coloured_and_counted(net, capsys):
    _save("scene.png")
    assert _demo("--source", "scene.png", "--classes", "dog") == 0
    assert (read_image("demo_output/scene_detected.png") == _scene()).all()
    assert "0 classes found" in capsys.readouterr().out
    assert _demo("--source", "scene.png", "--classes", "background", "dog") == 0
    drawn = read_image("demo_output/scene_detected.png")
    assert (drawn[INSIDE] == RED).all()
    assert (drawn[OUTSIDE] != 100).any(axis=2).all()
    assert f"background   {1 - SHARE:.1%}" in capsys.readouterr().out


@pytest.mark.parametrize("data_set", [camvid, cityscapes])
def test_the_classes_of_a_data_set_have_its_colours(net, data_set):
    net.class_names = data_set.CLASS_NAMES
    assert _demo("--source", _save("scene.png")) == 0
    drawn = read_image("demo_output/scene_detected.png").astype(int)
    for place, label, picture in ((INSIDE, 2, RED), (OUTSIDE, 0, 3 * [100])):
        tint = np.array(data_set.CLASS_COLOURS[label])
        assert (abs(drawn[place] - (tint + picture) / 2) <= 1).all()


def test_a_folder_gives_labels_under_the_names_of_its_pictures(net, capsys):
    _save("pictures/a.png")
    _save("pictures/b.jpg", person=False)
    assert _demo("--source", "pictures", "--labels", "labels") == 0
    assert sorted(path.name for path in Path("labels").iterdir()) == ["a.png", "b.png"]
    assert np.asarray(Image.open("labels/b.png")).max() == 0
    assert f"person: found in 1 of 2 pictures, {SHARE / 2:.1%} of all pixels" in capsys.readouterr().out


def test_a_video_gives_a_video_a_record_and_a_label_picture_a_frame(net, capsys):
    assert _demo("--source", _clip("clip.mp4"), "--json", "found.jsonl", "--labels", "labels") == 0
    with frames("demo_output/clip_detected.mp4") as drawn:
        assert sum(1 for _ in drawn) == 6
    records = [json.loads(line) for line in Path("found.jsonl").read_text().splitlines()]
    assert [record["frame"] for record in records] == list(range(6))
    assert all(abs(record["shares"]["person"] - SHARE) < 0.01 for record in records)
    assert sorted(path.name for path in Path("labels").iterdir()) == [f"clip_{number:06d}.png" for number in range(6)]
    assert "person: found in 6 of 6 frames" in capsys.readouterr().out


# Another background


def test_a_colour_or_a_picture_stands_behind_the_person(net):
    _save("scene.png")
    assert _demo("--source", "scene.png", "--background", "#00b140", "--output", "cut.png") == 0
    drawn = read_image("cut.png")
    assert (drawn[INSIDE] == RED).all()
    assert (drawn[OUTSIDE] == (0, 177, 64)).all()
    Image.fromarray(np.full((30, 40, 3), (10, 20, 250), np.uint8)).save("sea.png")
    assert _demo("--source", "scene.png", "--background", "sea.png", "--output", "cut.png") == 0
    assert (read_image("cut.png")[OUTSIDE] == (10, 20, 250)).all()


def test_a_frame_in_which_the_net_hesitates_does_not_lose_the_person(net):
    net.faint_at = 5  # the first call is a warm-up
    words = ("--source", _clip("clip.mp4"), "--labels", "labels", "--background", "green", "--output", "cut.mp4")
    assert _demo(*words, "--threads", "2") == 0  # so that one frame is looked at at a time
    assert np.asarray(Image.open("labels/clip_000003.png")).max() == 0  # what the net said
    with frames("cut.mp4") as cut:
        for frame in cut:
            assert abs(frame.picture[80, 100].astype(int) - RED).max() < 60
            assert abs(frame.picture[160, 200].astype(int) - (0, 128, 0)).max() < 30


def test_pictures_of_a_folder_are_not_mixed(net):
    """Both look almost alike, so that a video's memory would keep the person of the first in the second."""
    _save("pictures/a.png")
    faint = _scene()
    faint[BLOCK] = (149, 20, 20)  # a red that is no person any more
    almost = _scene()
    almost[BLOCK] = (151, 20, 20)
    Image.fromarray(almost).save("pictures/a.png")
    Image.fromarray(faint).save("pictures/b.png")
    assert _demo("--source", "pictures", "--background", "green", "--output", "cut") == 0
    assert (read_image("cut/a_detected.png")[INSIDE] == (151, 20, 20)).all()
    assert (read_image("cut/b_detected.png")[INSIDE] == (0, 128, 0)).all()


# Refused


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["--background", "gren"], "expected blur, a colour such as green", 1),
        (["--background", "notes.txt"], "notes.txt is not a readable picture", 1),
        (["--score", "0.3"], f"--score is for detectors; {NAME} gives every pixel a class", 2),
        (["--background", "blur", "--classes", "person"], "--classes says what to colour; with --background", 2),
        (["--classes", "dogg"], "the segmenter knows no class 'dogg' (nearest: 'dog')", 1),
        (["--labels", "."], "--labels . is the folder of the source; choose another", 1),
        (["--labels", "demo_output"], "--labels demo_output is the folder of the results; choose another", 1),
        (["--labels", "x", "--output", "x/drawn.png"], "--labels x is the folder of the results", 1),
        (["--labels", "notes.txt"], "cannot make the folder notes.txt", 1),
        (["--labels", "l", "--source", "pictures"], "2 pictures in pictures would have the labels a.png; rename", 1),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(net, capsys, words, told, code):
    _save("scene.png")
    _save("pictures/a.png")
    _save("pictures/a.jpg")
    Path("notes.txt").write_text("words")
    before = sorted(Path().rglob("*"))
    assert _demo("--source", "scene.png", *words) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert sorted(Path().rglob("*")) == before


def test_a_background_needs_a_net_that_knows_a_person(net, monkeypatch, capsys):
    monkeypatch.setattr(RedPerson, "class_names", ("sky", "road", "pedestrian"))
    assert _demo("--source", _save("scene.png"), "--background", "blur") == 1
    told = "swiftsight: the segmenter knows no person to cut out; its classes are sky, road, pedestrian\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("option", [("--background", "blur"), ("--labels", "labels")])
def test_what_only_a_segmenter_can_is_refused_for_a_detector(monkeypatch, capsys, option):
    monkeypatch.setattr(model_views, "choose_weights", lambda model, weights: ("thundernet_snet49", Path("boxes")))
    assert cli.main(["demo", "--source", _save("scene.png"), *option]) == 2
    told = f"swiftsight: {option[0]} is for nets that label pixels; thundernet_snet49 finds boxes\n"
    assert capsys.readouterr().err == told


# Which weights, and a real net


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A shipped weights file of a real net."""
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(segment.registry, "WEIGHTS_FOLDER", tmp_path / "shipped")
    torch.manual_seed(0)
    net = create_segmenter(NAME, num_classes=2, input_size=(96, 128))
    net.class_names = ("background", "person")
    path = tmp_path / "shipped" / f"{NAME}_person.safetensors"
    save_segmenter(net, path)
    return path


def test_which_weights_are_meant(weights):
    for model, word in ((NAME, None), (NAME, "person"), (None, f"{NAME}_person"), (None, str(weights))):
        assert choose_weights(model, word) == (NAME, weights)
    assert choose_weights(f"{NAME}_person", None) == (NAME, weights)
    assert choose_weights(None, None)[0].startswith("thundernet_")  # a detector is the default whatever is shipped


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("bisenet_xception93", "no detector, segmenter or joint net is called 'bisenet_xception93' (nearest: 'bisenet"),
        ("thundernet_snet94", "is called 'thundernet_snet94' (nearest: 'thundernet_snet49')"),
        ("dfanet_a", "no weights come with swiftsight for dfanet_a (shipped are thundernet_"),
    ],
)
def test_a_name_without_weights_gives_one_line(weights, capsys, model, told):
    assert cli.main(["demo", model, "--source", _save("scene.png")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize("more", [[], ["--background", "blur"]])
def test_a_real_net_goes_the_whole_way(weights, more):
    assert (
        _demo("--source", _clip("clip.mp4", 3), "--labels", "labels", "--size", 64, 64, "--device", "cpu", *more) == 0
    )
    with frames("demo_output/clip_detected.mp4") as drawn:
        assert sum(1 for _ in drawn) == 3
    labels = np.asarray(Image.open("labels/clip_000002.png"))
    assert labels.shape == (192, 256)
    assert labels.max() <= 1
