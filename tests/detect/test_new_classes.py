"""Weights of other classes as a start: what fits is taken, what depends on the classes begins anew."""

from pathlib import Path

import pytest
import torch

from detect import create_detector, save_detector
from detect.two_stage import TwoStageDetector

SMALL = {"fc_channels": 16, "rpn_channels": 16, "anchor_scales": [32, 64]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a detector of two classes, in full precision."""
    net = create_detector("thundernet_snet49", num_classes=2, **SMALL)
    net.class_names = ("cat", "dog")
    torch.nn.init.ones_(net.get_parameter("head.classify.bias"))  # a new one is zero
    path = tmp_path_factory.mktemp("weights") / "pets.safetensors"
    save_detector(net, path, half=False)
    return path


def changed(one: TwoStageDetector, other: TwoStageDetector) -> set[str]:
    """The tensors that the two do not have in common."""
    own, others = one.state_dict(), other.state_dict()
    assert own.keys() == others.keys()
    return {name for name in own if own[name].shape != others[name].shape or not torch.equal(own[name], others[name])}


@pytest.mark.parametrize("num_classes", [5, 2])
def test_only_the_last_layer_starts_anew(num_classes: int, saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where the numbers of classes happen to be the same; the file's options are kept."""
    before = create_detector("thundernet_snet49", weights=saved)
    net = create_detector("thundernet_snet49", num_classes=num_classes, weights=saved, new_classes=True)
    assert changed(net, before) == {"head.classify.weight", "head.classify.bias"}
    assert net.options["fc_channels"] == 16
    assert net.class_names == tuple(f"class {index}" for index in range(num_classes))
    assert len(caplog.messages) == 1
    assert "of cat, dog: everything is taken except head.classify.weight, head.classify.bias" in caplog.text
    assert "differ" not in caplog.text


def test_options_that_change_the_meaning_but_no_shape_are_named(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_detector("thundernet_snet49", num_classes=3, weights=saved, new_classes=True, anchor_scales=[20, 40])
    assert "options that differ from the file's: anchor_scales" in caplog.text


def test_what_does_not_fit_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="but weights is not given"):
        create_detector("thundernet_snet49", num_classes=3, new_classes=True)
    with pytest.raises(ValueError, match="but num_classes is not given"):
        create_detector("thundernet_snet49", weights=saved, new_classes=True)
    with pytest.raises(ValueError, match="weights of thundernet_snet49, not of thundernet_snet146"):
        create_detector("thundernet_snet146", num_classes=3, weights=saved, new_classes=True)
    with pytest.raises(ValueError, match=r"rpn\..* has shape .*, expected"):
        create_detector("thundernet_snet49", num_classes=3, weights=saved, new_classes=True, rpn_channels=32)
    with pytest.raises(ValueError, match="has 2 classes"):
        create_detector("thundernet_snet49", num_classes=3, weights=saved)
