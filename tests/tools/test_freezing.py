"""Parts that do not learn: no gradient, no step, no running statistics, whatever mode the rest is in."""

import pytest
import torch
from swiftsight_tools.training.freezing import freeze
from swiftsight_tools.training.runner import Task
from torch import Tensor, nn


class Net(nn.Module):
    """Two parts, each with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"first": norm_block(3), "second": norm_block(4)})
        self.head = norm_block(4)

    def losses(self, images: Tensor, truth: None) -> dict[str, Tensor]:
        """One that every parameter has a part in."""
        backbone = self.backbone
        return {"loss": self.head(backbone["second"](backbone["first"](images))).square().mean()}


def norm_block(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 4, 1), nn.BatchNorm2d(4))


@pytest.mark.parametrize(
    ("names", "changed"),
    [
        ([], {"backbone.first", "backbone.second", "head"}),
        (["backbone"], {"head"}),
        (["backbone.first", "head"], {"backbone.second"}),
        (["head.1", "backbone"], {"head.0"}),
    ],
)
def test_what_is_frozen_stays_bit_for_bit(names: list[str], changed: set[str]) -> None:
    torch.manual_seed(0)
    net = Net()
    task = Task(net, frozen_norms=freeze(net, names))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.5)
    for _ in range(2):
        task.eval()
        task.train()  # as after a validation
        task(torch.randn(6, 3, 5, 5), None, mode="loss")["loss"].backward()
        optimizer.step()
    after = net.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = {name for name in moved if "running" in name}
    assert {name for name in moved if not any(name.startswith(f"{part}.") for part in changed)} == set()
    assert all(any(name.startswith(f"{part}.") for name in moved) for part in changed)
    assert bool(statistics) == ("head.1" not in names)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["backbon"], r"no part called 'backbon' \(nearest: 'backbone'\)"),
        (["backbone.frist"], r"\(nearest: 'backbone\.first'\)"),
        (["backbone.first.0.weight"], "no part called"),
        (["xyz"], "expected one of backbone, head, or a part in it"),
        ([""], "no part called ''"),
        (["backbone", "head"], "with backbone, head frozen nothing is left to learn"),
    ],
)
def test_names_that_make_no_sense(names: list[str], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        freeze(Net(), names)
