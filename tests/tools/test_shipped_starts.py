"""The shipped configs that begin with weights find them, by a variable or by the word for shipped ones."""

from collections.abc import Callable
from typing import Any

import pytest
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.training import detection_task, joint_task, segmentation_task
from torch import nn
from torch.testing import assert_close

import detect
import joint
import segment

PERSON = ("person",)
NAMES = ("background", "person")
MAKERS: dict[str, Callable[[Any], nn.Module]] = {
    "detect": lambda config: detection_task.create_net(config, PERSON),
    "segment": lambda config: segmentation_task.create_net(config, NAMES),
    "joint": lambda config: joint_task.create_net(config, joint_task.ClassNames(PERSON, NAMES)),
}
FLOORS = {"detect": detect, "segment": segment, "joint": joint}


@pytest.mark.parametrize(
    ("config", "variable"),
    [
        ("detect/thundernet_shufflenet_v2_x0_5_person_continued", "PERSON_WEIGHTS"),
        ("segment/bisenet_shufflenet_v2_x0_5_person_pasted", "PERSON_WEIGHTS"),
        ("joint/joint_thundernet_bisenet_shufflenet_v2_x0_5_person", "JOINT_WEIGHTS"),
    ],
)
@pytest.mark.parametrize("said_as", ["variable", "word"])
def test_a_config_begins_with_the_weights_that_it_names(config, variable, said_as, monkeypatch):
    kind, name = config.split("/")
    net = name.partition("_person")[0]
    shipped = FLOORS[kind].shipped_weights()[f"{net}_person"]
    monkeypatch.setenv("SWIFTSIGHT_DATA", "/data")
    monkeypatch.setenv(variable, str(shipped))
    changes = ["model.weights=person"] if said_as == "word" else []
    made = MAKERS[kind](load_config(f"{config}.yaml", changes)).state_dict()
    create = {"detect": detect.create_detector, "segment": segment.create_segmenter, "joint": joint.create_joint}[kind]
    for key, tensor in create(net, weights="person").state_dict().items():
        assert_close(made[key], tensor, rtol=0, atol=0)
