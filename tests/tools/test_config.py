"""Configs: what a YAML file may say, and one clear line for everything else."""

import dataclasses
from os import PathLike
from pathlib import Path

import pytest
import yaml
from swiftsight_tools.configuration.config import CONFIGS, as_plain, differences, find_config, load_config
from swiftsight_tools.configuration.schema import arguments, convert
from swiftsight_tools.errors import UsageError

SMALL = """
model: {name: thundernet_snet49}
data:
  train: {annotations: train.json, images: images}
  val: {annotations: val.json, images: images}
epochs: 4
optimizer: {lr: 1e-3}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def complaint(path: Path, *assignments: str) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        load_config(path, assignments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_get_their_types_and_paths_their_folder(config_file: Path) -> None:
    config = load_config(config_file, ["sizes=[[64, 96]]", "ema=null", "checkpoint.every_iters=7"])
    assert config.optimizer.lr == 0.001  # YAML itself reads 1e-3 as text
    assert config.sizes == ((64, 96),)
    assert config.ema is None
    assert (config.checkpoint.every_iters, config.checkpoint.keep_last) == (7, 3)
    assert config.data.train.annotations == config_file.parent / "train.json"


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optimizer.Lr=1", ("unknown key 'optimizer.Lr'", "nearest: 'lr'")),
        ("epoch=3", ("unknown key 'epoch'", "nearest: 'epochs'")),
        ("data.train.image=x", ("unknown key 'data.train.image'", "nearest: 'images'")),
        ("epochs=many", ("epochs is 'many'", "a whole number")),
        ("epochs=2.5", ("epochs is 2.5", "a whole number")),
        ("epochs=true", ("epochs is True", "a whole number")),
        ("epochs=0", ("epochs is 0", "at least 1")),
        ("optimizer.lr=-1", ("optimizer.lr is -1", "more than 0")),
        ("optimizer.lr=.nan", ("optimizer.lr is nan", "a number")),
        ("optimizer.kind=adam", ("optimizer.kind is 'adam'", "sgd, adamw", "nearest: 'adamw'")),
        ("channels_last=1", ("channels_last is 1", "true or false")),
        ("sizes=[[64]]", ("sizes[0] is [64]", "a list of 2")),
        ("sizes=320", ("sizes is 320", "a list")),
        ("sizes=[]", ("sizes is empty", "[height, width]")),
        ("eval_size=[100, 320]", ("[100, 320]", "multiple of 16")),
        ("data=5", ("data is 5", "a mapping")),
        ("schedule.milestones=[1, 2]", ("schedule.milestones is set", "cosine")),
        ("schedule.kind=step", ("schedule.milestones is missing", "epochs")),
        ("schedule.power=2", ("schedule.power is set", "cosine")),
        ("schedule.kind=linaer", ("schedule.kind is 'linaer'", "nearest: 'linear'")),
        ("optimizer.lr_factors={head.*: fast}", ("optimizer.lr_factors.head.* is 'fast'", "a number")),
        ("task=segmnt", ("task is 'segmnt'", "detect, classify")),
        ("task=null", ("task is None", "detect, classify")),
        ("label_smoothing=0.1", ("unknown key 'label_smoothing'",)),
        ("late_sizes={after: 2, sizes: [[100, 64]]}", ("late_sizes.sizes holds [100, 64]", "multiple of 16")),
        ("seed=5000000000", ("seed is 5000000000", "at most")),
        ("model.name=null", ("model.name is missing", "swiftsight list")),
        ("data.val.images=${SWIFTSIGHT_NO_SUCH}/x", ("data.val.images", "SWIFTSIGHT_NO_SUCH is not set")),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(config_file: Path, assignment: str, words: tuple[str, ...]) -> None:
    text = complaint(config_file, assignment)
    assert all(word in text for word in (str(config_file), *words)), text


def test_a_misspelt_key_in_the_file_itself(config_file: Path) -> None:
    config_file.write_text(SMALL.replace("epochs", "epohcs"))
    assert "unknown key 'epohcs' (nearest: 'epochs')" in complaint(config_file)


def test_a_missing_key(config_file: Path) -> None:
    config_file.write_text(SMALL.replace("epochs: 4", ""))
    assert "epochs is missing; expected a whole number" in complaint(config_file)


@pytest.mark.parametrize("assignment", ["epochs", "=3", "a..b=1", "epochs=[1"])
def test_a_word_that_is_no_assignment(config_file: Path, assignment: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_config(config_file, [assignment])


@pytest.mark.parametrize(
    "line",
    [
        "seed: !!python/object/apply:os.system ['touch {marker}']",
        "seed: !!python/name:os.system",
        "seed: !!python/object/new:subprocess.Popen [['touch', '{marker}']]",
    ],
)
def test_hostile_yaml_is_refused_and_not_run(config_file: Path, tmp_path: Path, line: str) -> None:
    marker = tmp_path / "was_run"
    config_file.write_text(SMALL + line.format(marker=marker) + "\n")
    assert "could not determine a constructor" in complaint(config_file)
    assert not marker.exists()


def test_a_python_file_is_no_config_and_no_base(config_file: Path, tmp_path: Path) -> None:
    code = tmp_path / "base.py"
    marker = tmp_path / "was_run"
    code.write_text(f"open({str(marker)!r}, 'w')\nepochs = 3\n")
    config_file.write_text("base: base.py\n" + SMALL)
    assert "base.py is no YAML file" in complaint(config_file)
    assert "base.py is no YAML file" in complaint(code)
    assert not marker.exists()


def test_a_base_lies_below_and_keeps_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text(SMALL)
    top = tmp_path / "top.yaml"
    top.write_text("base: below/base.yaml\nepochs: 9\ndata: {val: {images: other}}\n")
    config = load_config(top)
    assert config.epochs == 9
    assert config.data.val.images == tmp_path / "other"
    assert config.data.val.annotations == tmp_path / "below" / "val.json"
    (tmp_path / "below" / "base.yaml").write_text("base: again.yaml\n" + SMALL)
    assert "one base at most" in complaint(top)


def test_a_key_given_twice(config_file: Path) -> None:
    config_file.write_text(SMALL + "epochs: 5\n")
    assert "'epochs' comes twice" in complaint(config_file)


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n", "just words", "a: [1", "\x00"])
def test_what_is_no_mapping(config_file: Path, text: str) -> None:
    config_file.write_text(text)
    assert str(config_file) in complaint(config_file)


def test_variables_are_filled_into_paths_only(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURES", "/somewhere")
    config = load_config(config_file, ["data.val.images=${PICTURES}/val", "data.class_names=['${PICTURES}']"])
    assert config.data.val.images == Path("/somewhere/val")
    assert config.data.class_names == ("${PICTURES}",)


def test_the_arguments_of_a_function_are_checked_alike() -> None:
    def build(*, depth: int = 3, ratios: tuple[float, ...] = (1.0,)) -> None: ...

    assert arguments(build, {"depth": 4, "ratios": [1, 2.5]}, "model") == {"depth": 4, "ratios": (1.0, 2.5)}
    with pytest.raises(ValueError, match=r"unknown key 'model.dpeth' \(nearest: 'depth'\)"):
        arguments(build, {"dpeth": 4}, "model")
    with pytest.raises(ValueError, match=r"model.depth is 'deep'; expected a whole number"):
        arguments(build, {"depth": "deep"}, "model")


def test_a_config_survives_being_written(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file, ["schedule.warmup_iters=5", "clip_grad=2"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(as_plain(config)))
    assert load_config(again) == config


def test_a_written_config_names_its_files_from_anywhere(config_file: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "start.safetensors").touch()
    config_file.write_text(SMALL.replace("snet49}", "snet49, weights: start.safetensors}", 1))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "own.safetensors").touch()
    for assignments, place in (([], "start.safetensors"), (["model.weights=own.safetensors"], "here/own.safetensors")):
        written = as_plain(load_config(config_file, assignments), whole_paths=True)
        assert written["model"]["weights"] == str(tmp_path / place)
    written = as_plain(load_config(config_file, ["model.weights=person"]), whole_paths=True)
    assert written["model"]["weights"] == "person"


def test_differences_name_the_keys(config_file: Path) -> None:
    before = as_plain(load_config(config_file))
    after = as_plain(load_config(config_file, ["optimizer.lr=0.5", "ema=null"]))
    assert differences(before, after) == {"ema": (before["ema"], None), "optimizer.lr": (0.001, 0.5)}


SHIPPED = sorted(path.stem for path in Path(find_config("detect/thundernet_snet49_person.yaml")).parent.glob("*.yaml"))


@pytest.mark.parametrize("stem", SHIPPED)
def test_shipped_configs_are_found_from_anywhere(stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWIFTSIGHT_DATA", "/data")
    for name in (f"detect/{stem}.yaml", f"configs/detect/{stem}.yaml"):
        config = load_config(name)
        assert stem.startswith(config.model["name"])
        folder = config.data.train.images if config.data.layout == "coco" else config.data.root
        assert folder.is_relative_to("/data")


def test_an_unknown_config_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nearest: 'detect/thundernet_snet49_person.yaml'"):
        load_config("detect/thundernet_snet49_persom.yaml")


def test_every_key_is_read() -> None:
    """A key that nothing reads would be a promise that is not kept."""
    folder = Path(__file__).parents[2] / "tools"
    readers = "".join(path.read_text() for path in folder.rglob("*.py") if not path.name.endswith("config.py"))
    fields = [field.name for config in CONFIGS.values() for field in dataclasses.fields(config)]
    assert [name for name in fields if f"config.{name}" not in readers] == []


def test_weights_are_a_word_or_a_path() -> None:
    kind = str | PathLike[str] | None
    assert convert("imagenet", kind, "model.backbone_weights") == "imagenet"
    for text in ("runs/best", "best.safetensors"):
        assert convert(text, kind, "model.backbone_weights") == Path.cwd() / text
