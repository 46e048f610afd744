"""The lists of short trainings: what they hold, in which order, how a run is planned and resumed, the table."""

import json
import re
from pathlib import Path

import pytest
import torch
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.configuration.detection_config import DetectionConfig
from swiftsight_tools.configuration.schema import arguments

from backbones.registry import find_builder
from detect.registry import DETECTORS
from detect.results import Target
from detect.transforms import SSDAugmentation

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

CONFIG = """
model: {{name: thundernet_snet49, fc_channels: 32, rpn_channels: 32, train_proposals: 60, samples: 20}}
data:
  train: {{annotations: {folder}/train.json, images: {folder}/images}}
  val: {{annotations: {folder}/val.json, images: {folder}/images}}
sizes: [[64, 64]]
eval_size: [64, 64]
batch_size: 2
epochs: 9
optimizer: {{kind: adamw, lr: 0.003}}
workers: 0
threads: 1
"""
LISTS = """
tiny:
  title: Tiny
  config: {config}
  minutes: 0.01
  runs:
    - {{name: plain}}
    - {{name: "GIoU, 3x3", set: [model.box_loss=giou], epochs: 3, seeds: [0, 1]}}
"""


@pytest.fixture
def small_set(monkeypatch):
    """The script, imported as it imports its neighbours."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import small_set

    yield small_set
    DETECTORS.module_dict.pop(small_set.ssdlite.NAME, None)  # other tests list the detectors


@pytest.fixture
def lists(tiny_coco, tmp_path):
    """A file with one list of two runs."""
    (tmp_path / "tiny.yaml").write_text(CONFIG.format(folder=tiny_coco))
    (tmp_path / "lists.yaml").write_text(LISTS.format(config=tmp_path / "tiny.yaml"))
    return tmp_path / "lists.yaml"


@pytest.mark.parametrize("name", ["scratch", "helps", "person", "fine_tuning"])
def test_every_shipped_run_is_a_config_whose_options_are_known(name, small_set, monkeypatch, tmp_path):
    small_set.ssdlite.register()
    monkeypatch.setenv("SWIFTSIGHT_DATA", str(tmp_path))
    args = small_set.parse_words([name])
    jobs = list(small_set.jobs_of(small_set.read_list(small_set.LISTS, name), tmp_path, args))
    assert len({job.folder for job in jobs}) == len(jobs) >= 3
    for job in jobs:
        config = load_config(job.config, job.changes)
        assert isinstance(config, DetectionConfig)
        assert config.late_sizes is None  # the time of a step is measured on the first sizes
        options = {key: value for key, value in config.model.items() if key not in ("name", "weights", "new_classes")}
        arguments(find_builder(DETECTORS, config.model["name"]), options, "model")
        arguments(SSDAugmentation, config.augmentation, "augmentation")


def test_seeds_come_one_after_the_other_and_words_choose(small_set, lists, tmp_path):
    runs = small_set.read_list(lists, "tiny")

    def chosen(*words):
        jobs = small_set.jobs_of(runs, tmp_path, small_set.parse_words(["tiny", *words]))
        return [(job.name, job.seed, job.minutes, job.epochs, job.folder.name) for job in jobs]

    assert chosen() == [
        ("plain", 0, 0.01, None, "plain_seed0"),
        ("GIoU, 3x3", 0, 0.01, 3, "giou_3x3_seed0"),
        ("GIoU, 3x3", 1, 0.01, 3, "giou_3x3_seed1"),
    ]
    assert chosen("--only", "plain", "--seeds", "4", "--minutes", "2") == [("plain", 4, 2.0, None, "plain_seed4")]
    assert chosen("--only", "GIoU", "--seeds", "4", "--minutes", "2") == [("GIoU, 3x3", 4, 2.0, None, "giou_3x3_seed4")]
    assert chosen("--only", "plain", "--epochs", "5") == [("plain", 0, 0.01, 5, "plain_seed0")]
    with pytest.raises(ValueError, match="the runs are called plain, GIoU, 3x3"):
        chosen("--only", "glou")
    with pytest.raises(ValueError, match="no list 'tini'; it has tiny"):
        small_set.read_list(lists, "tini")


def test_a_run_is_measured_trained_scored_and_not_done_again(small_set, lists, tmp_path, capsys):
    words = ["tiny", "--lists", str(lists), "--work-dir", str(tmp_path / "runs"), "--only", "plain", "--pictures", "1"]
    small_set.main(words)
    folder = tmp_path / "runs" / "tiny" / "plain_seed0"
    plan, figures = (json.loads((folder / f"{name}.json").read_text()) for name in ("plan", "figures"))
    assert plan["epochs"] == max(1, round(0.6 / (plan["seconds_per_step"] * 4)))
    assert figures["steps"] == 4 * plan["epochs"]
    assert figures["minutes"] > 0
    assert not (folder / "trial").exists()
    before = (folder / "run" / "log.jsonl").stat().st_mtime_ns
    capsys.readouterr()
    small_set.main([*words, "--table"])
    small_set.main(words)
    table = capsys.readouterr().out
    assert (folder / "run" / "log.jsonl").stat().st_mtime_ns == before
    assert table.count("| plain | ") == 2
    command = f"swiftsight train {tmp_path / 'tiny.yaml'} --set seed=0 --set epochs={plan['epochs']}"
    assert command in table
    (folder / "figures.json").unlink()
    with pytest.raises(SystemExit, match=r"was made for 0\.01 minutes, not 3"):
        small_set.main([*words, "--minutes", "3"])


def test_the_table_has_the_mean_and_the_spread_over_seeds(small_set):
    row = {"name": "plain", "AP": 0.5, "AP50": 0.8, "per_class": {"red": 0.4, "white": 0.6}, "minutes": 5.94,
           "steps": 1234, "parameters": 1154199, "bytes": 2_345_678, "command": "swiftsight train x", "run": "r",
           }  # fmt: skip
    other = {**row, "AP": 0.6, "AP50": 0.9, "minutes": 6.06, "per_class": {"red": 0.5, "white": 0.7}, "run": "s"}
    table = small_set.small_set_report.table([row, other], {"plain": [10.0, 11.0, 12.0, 30.0, 9.0]})
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]
    assert cells == [
        "plain", "0.550 (0.500 to 0.600)", "0.850 (0.800 to 0.900)", "0.450 (0.400 to 0.500)",
        "0.650 (0.600 to 0.700)", "6.0 (5.9 to 6.1)", "1,234", "2", "1,154,199", "2.35", "11.0 (9.0 to 30.0)",
    ]  # fmt: skip
    assert len(re.findall("swiftsight train x    # plain", table)) == 2


def test_ssdlite_answers_like_one_of_our_detectors(small_set):
    """A perfect stranger to the training: losses with a gradient, also for a crowd alone, and classes from 0 on."""
    net = small_set.ssdlite.build(num_classes=2)
    images = torch.randint(0, 256, (2, 3, 320, 320), dtype=torch.uint8)
    boxes, labels = torch.tensor([[20.0, 30, 200, 220]]), torch.tensor([1])
    targets = [Target(boxes, labels, torch.tensor([crowd]), 0, (320, 320)) for crowd in (False, True)]
    losses = net.train().losses(images, targets)
    sum(losses.values()).backward()
    assert set(losses) == {"loss_box", "loss_class"}
    assert float(next(net.parameters()).grad.abs().sum()) > 0
    found = net.predict(images, score_threshold=0.01, max_detections=5)
    assert net.training
    assert [len(one) for one in found] == [5, 5]
    assert all(0 <= int(one.labels.min()) <= int(one.labels.max()) <= 1 for one in found)
    with pytest.raises(ValueError, match="takes pictures of 320 x 320, not 416 x 416"):
        small_set.ssdlite.build(num_classes=2, input_size=(416, 416))
