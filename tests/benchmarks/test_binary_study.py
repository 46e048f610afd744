"""The study's machinery on made-up pictures: runs are kept and not run again, bits score what they must, the table."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def study(tiny_coco, monkeypatch):
    """The study with one set, of coloured blocks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import binary_study
    import factorized_study
    import object_crops

    sources = [object_crops.Source(tiny_coco / f"{part}.json", tiny_coco / "images") for part in ("train", "val")]
    crops = object_crops.load_crops(sources, side=16, min_side=8)

    def load():
        parts = crops.split_by_picture(0.4, seed=0)
        return factorized_study.Examples(*(factorized_study.part_of(crops, part) for part in parts))

    schedule = factorized_study.Schedule(epochs=8, batch_size=4, side=14, lr=0.05, flips=True)
    monkeypatch.setattr(binary_study, "SETS", {"blocks": (load, schedule)})
    monkeypatch.setattr(binary_study, "RATES", {"blocks": dict.fromkeys(binary_study.MODES, 0.05)})
    monkeypatch.setattr(binary_study, "NETS", {"blocks": binary_study.seven_layers})
    return binary_study


def test_runs_are_kept_and_are_not_run_again(study, tmp_path, monkeypatch):
    path = tmp_path / "work" / "runs.jsonl"
    study.run_all(path, ["blocks"], [0])
    runs = study.read_runs(path)
    assert set(runs) == {("blocks", mode, 0) for mode in ("real", "bwn", "xnor", "xnor_k")}
    assert runs["blocks", "real", 0]["accuracy"] == 1  # red from blue
    binary = [run for (_, mode, _), run in runs.items() if mode != "real"]
    assert all(run["accuracy_of_bits"] == run["accuracy"] for run in binary)
    before = path.read_text()
    study.run_all(path, ["blocks"], [0])
    assert path.read_text() == before
    assert study.table(runs).splitlines()[2] == "| real | 100.0 |"
    monkeypatch.setattr(study, "RATES", {"blocks": dict.fromkeys(study.MODES, 0.1)})
    with pytest.raises(ValueError, match="another schedule"):
        study.read_runs(path)


def test_the_table_gives_mean_and_deviation(study):
    values = {0: 0.5, 1: 0.75}
    runs = {("blocks", "bwn", seed): {"accuracy": value} for seed, value in values.items()}
    assert "| BWN | 62.5 ± 17.7 |" in study.table(runs)


def test_rates_are_chosen_on_a_part_that_is_held_out(study, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "CHOICES", (0.02, 0.05))
    load, schedule = study.SETS["blocks"]
    monkeypatch.setattr(study, "SETS", {"blocks": (load, schedule._replace(epochs=1))})
    path = tmp_path / "choices.jsonl"
    study.choose_rates(path, ["blocks"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["mode"], row["lr"]) for row in rows] == [("bwn", 0.02), ("bwn", 0.05), ("xnor", 0.02), ("xnor", 0.05)]
    study.choose_rates(path, ["blocks"])
    assert len(path.read_text().splitlines()) == 4
