"""The study's machinery on made-up pictures: crops, split, training, what a second start finds, table and plot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch):
    """(object_crops, factorized_study, factorized_report), imported as the scripts import each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import factorized_report
    import factorized_study
    import object_crops

    return object_crops, factorized_study, factorized_report


def squares(object_crops, tiny_coco, **options):
    sources = [object_crops.Source(tiny_coco / f"{part}.json", tiny_coco / "images") for part in ("train", "val")]
    return object_crops.load_crops(sources, side=16, min_side=8, **options)


def test_a_crop_is_the_square_around_the_box_with_the_edge_repeated(modules):
    picture = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8, 1).repeat(3, axis=2)
    cut = modules[0].cut(picture, (6, 1, 2, 4), 4)  # 4 high, so columns 5 to 8, of which 8 lies outside
    assert cut[..., 0].tolist() == [[row * 8 + column for column in (5, 6, 7, 7)] for row in range(1, 5)]
    assert modules[0].cut(picture, (2, 2, 2, 1), 8, context=2).shape == (8, 8, 3)


def test_crops_carry_their_class_and_leave_crowds_out(modules, tiny_coco):
    crops = squares(modules[0], tiny_coco)
    middles = crops.images[:, :, 8, 8].float()
    is_red = middles[:, 0] > middles[:, 2]
    assert [crops.class_names[label] == "red block" for label in crops.labels] == is_red.tolist()
    truths = [json.loads((tiny_coco / f"{part}.json").read_text()) for part in ("train", "val")]
    entries = [entry for truth in truths for entry in truth["annotations"]]
    assert len(crops.labels) == sum(not entry["iscrowd"] for entry in entries) < len(entries)
    assert len(squares(modules[0], tiny_coco, num_classes=1, most_of_a_class=3).labels) == 3


def test_no_picture_gives_crops_to_both_parts(modules, tiny_coco):
    crops = squares(modules[0], tiny_coco)
    first, second = crops.split_by_picture(0.4, seed=0)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(len(crops.labels)))
    assert not set(crops.pictures[first].tolist()) & set(crops.pictures[second].tolist())
    assert len(crops.pictures[second].unique()) == round(0.4 * len(crops.pictures.unique()))


@pytest.fixture
def tiny_study(modules, tiny_coco, monkeypatch):
    """The study with one set, of coloured blocks, and two convolutions."""
    crops_module, study, report = modules
    crops = squares(crops_module, tiny_coco)

    def load():
        return study.Examples(*(study.part_of(crops, part) for part in crops.split_by_picture(0.4, seed=0)))

    schedule = study.Schedule(epochs=12, batch_size=4, side=14, lr=0.05, flips=True)
    few = {name: study.CONVOLUTIONS[name] for name in ("standard", "sic_topology")}
    for module in (study, report):
        monkeypatch.setattr(module, "SETS", {"blocks": (load, schedule)})
        monkeypatch.setattr(module, "CONVOLUTIONS", few)
    return study, report


def test_runs_learn_are_kept_and_are_not_run_again(tiny_study, tmp_path, monkeypatch):
    study, _ = tiny_study
    path = tmp_path / "work" / "runs.jsonl"
    study.run_all(path, ["blocks"], [0])
    runs = study.read_runs(path)
    assert set(runs) == {("blocks", "standard", 0), ("blocks", "sic_topology", 0)}
    assert all(run["accuracy"] == 1 for run in runs.values())  # red from blue
    before = path.read_text()
    study.run_all(path, ["blocks"], [0])
    assert path.read_text() == before
    study.run_all(path, ["blocks"], [1])
    assert len(study.read_runs(path)) == 4

    load, schedule = study.SETS["blocks"]
    monkeypatch.setattr(study, "SETS", {"blocks": (load, schedule._replace(lr=0.1))})
    with pytest.raises(ValueError, match="another schedule"):
        study.read_runs(path)


def test_a_run_can_be_repeated(tiny_study):
    study, _ = tiny_study
    load, schedule = study.SETS["blocks"]
    losses = {study.run_one("standard", load(), schedule._replace(epochs=2), seed)["train_loss"] for seed in (0, 0, 1)}
    assert len(losses) == 2


def test_the_report_holds_every_net_and_the_mean_of_its_runs(tiny_study, tmp_path, monkeypatch):
    study, report = tiny_study
    load, schedule = study.SETS["blocks"]
    about = {"schedule": schedule._asdict(), "set": study.describe(load())}
    values = {("standard", 0): 0.5, ("standard", 1): 0.75, ("sic_topology", 0): 0.25, ("sic_topology", 1): 0.25}
    runs = {("blocks", conv, seed): {"accuracy": value, **about} for (conv, seed), value in values.items()}
    small = {name: study.build(factory, 2).eval() for name, factory in study.CONVOLUTIONS.items()}
    monkeypatch.setattr(report, "tracks", lambda: [report.Track("small net", 16, small)])
    report.write_report(runs, tmp_path / "study", rounds=2)
    text = (tmp_path / "study.md").read_text()
    assert "62.5 ± 17.7" in text  # 50 and 75
    assert "25.0 ± 0.0" in text
    assert "chance 50.0 %" in text
    times = json.loads((tmp_path / "study.json").read_text())["times"]
    assert [row["ratio"] for row in times if row["conv"] == "standard"] == [1]
    assert times[1]["multiply_adds"] < times[0]["multiply_adds"]
    assert (tmp_path / "study.png").stat().st_size > 5000


def test_every_convolution_is_one_of_the_study(modules):
    _, study, report = modules
    assert set(report.LABELS) == set(study.CONVOLUTIONS)
    pictures = torch.rand(2, 3, 28, 28)
    for factory in study.CONVOLUTIONS.values():
        assert study.build(factory, 5)(pictures).shape == (2, 5)
