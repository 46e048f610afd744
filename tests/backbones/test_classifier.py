"""A classifier's losses, answers and files."""

import math
from pathlib import Path

import pytest
import torch

from backbones import (
    Classifier,
    create_backbone,
    create_classifier,
    load_weights,
    read_metadata,
    save_classifier,
    save_weights,
)
from backbones.layers.factorized import standard

NAME = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    made = create_classifier(NAME, num_classes=3)
    made.class_names, made.input_size = ("ape", "bee", "cat"), (64, 96)
    made.expect((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    for module in made.modules():  # statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    return made


def test_label_smoothing_by_hand(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities 0.5, 0.3, 0.2, the truth the first, a tenth of it spread over three classes."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2]])
    monkeypatch.setattr(classifier, "forward", lambda _: probabilities.log())
    images, labels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.tensor([0])
    plain = classifier.losses(images, labels)
    assert list(plain) == ["loss_class"]
    assert plain["loss_class"].item() == pytest.approx(-math.log(0.5))
    smooth = classifier.losses(images, labels, label_smoothing=0.1)["loss_class"].item()
    spread = 0.1 / 3
    expected = -(0.9 + spread) * math.log(0.5) - spread * math.log(0.3) - spread * math.log(0.2)
    assert smooth == pytest.approx(expected)


def test_pictures_are_normalised_as_the_weights_expect(classifier: Classifier) -> None:
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    by_hand = (pictures.float() - torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)) / torch.tensor([4.0, 5.0, 6.0]).view(
        3, 1, 1
    )
    torch.testing.assert_close(classifier.normalize(pictures), by_hand)
    with torch.no_grad():
        expected = classifier.eval()(by_hand).softmax(dim=1)
    torch.testing.assert_close(classifier.predict(pictures), expected)
    classifier.train()
    classifier.backbone.stages[0].eval()  # a part that is frozen on purpose stays so
    torch.testing.assert_close(classifier.predict(pictures), expected)
    assert (classifier.training, classifier.backbone.stages[0].training) == (True, False)
    with pytest.raises(ValueError, match=r"images have shape \[3, 8, 8\]"):
        classifier.predict(torch.zeros(3, 8, 8))


def test_a_file_gives_back_everything(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_classifier(classifier, path, half=False)
    again = create_classifier(NAME, weights=path)
    assert (again.class_names, again.input_size, again.num_classes) == (("ape", "bee", "cat"), (64, 96), 3)
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(again.predict(pictures), classifier.predict(pictures))
    backbone = create_backbone(NAME, weights=path, out_strides=(8, 16))
    assert (backbone.input_mean, backbone.input_std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    weight = "stages.0.0.weight"
    torch.testing.assert_close(backbone.state_dict()[weight], classifier.backbone.state_dict()[weight], rtol=0, atol=0)
    other = create_classifier(NAME, num_classes=7, backbone_weights=path)
    assert other.head[-1].out_features == 7
    torch.testing.assert_close(other.mean.flatten(), torch.tensor([1.0, 2.0, 3.0]))


def test_the_state_is_that_of_the_published_net(classifier: Classifier) -> None:
    """A published file has no mean and deviation, and needs none."""
    assert {name.split(".")[0] for name in classifier.state_dict()} == {"backbone", "head"}


def test_what_does_not_fit_is_one_line(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_classifier(classifier, path)
    for options, message in (
        ({"name": "snet49"}, "holds weights of shufflenet_v2_x0_5, not of snet49"),
        ({"name": NAME, "num_classes": 4}, "has 3 classes, not 4"),
        ({"name": NAME, "out_strides": (8,)}, "a classifier needs all of"),
        ({"name": NAME, "widht": 2}, "no option 'widht'"),
        ({"name": "snet94"}, "nearest: 'snet49'"),
    ):
        with pytest.raises(ValueError, match=message):
            create_classifier(**options, weights=path)
    with pytest.raises(OSError, match="nowhere"):
        create_classifier(NAME, weights=tmp_path / "nowhere.safetensors")
    save_weights(classifier, path, metadata={"class_names": "{"})
    with pytest.raises(ValueError, match="its metadata is no JSON"):
        create_classifier(NAME, weights=path)
    save_weights(classifier, path, metadata={"input_size": "[224]"})
    with pytest.raises(ValueError, match=r"input_size \[224\]; expected \[height, width\]"):
        create_classifier(NAME, weights=path)


def test_what_could_not_be_read_back_is_not_saved(tmp_path: Path) -> None:
    made = Classifier(create_backbone(NAME), num_classes=3)
    with pytest.raises(ValueError, match="cannot be made again by name"):
        save_classifier(made, tmp_path / "x.safetensors")
    made.name, made.class_names = NAME, ("ape",)
    with pytest.raises(ValueError, match="1 class names for 3 classes"):
        save_classifier(made, tmp_path / "x.safetensors")
    told = create_classifier("resnet18", num_classes=3, conv=standard)
    with pytest.raises(ValueError, match=r"^option 'conv' of resnet18 is standard, which a file cannot hold"):
        save_classifier(told, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_classes", [0, -1, "2", 2.5])
def test_a_number_of_classes_that_cannot_be_is_refused(num_classes: object) -> None:
    with pytest.raises(ValueError, match=f"^num_classes is {num_classes!r}; expected a whole number from 1 up$"):
        create_classifier(NAME, num_classes=num_classes)


def test_bare_weights_of_a_classifier(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(classifier.state_dict(), path)
    made = create_classifier(NAME, num_classes=3, weights=path)
    assert made.class_names == ("class 0", "class 1", "class 2")
    assert "name" not in read_metadata(path)
    assert load_weights(made, path).unused == ()
