"""The parts between a config and mmengine: groups of parameters, the task, the metric's frame, what is not finite."""

from pathlib import Path

import pytest
import torch
from swiftsight_tools.configuration.training_config import OptimizerConfig
from swiftsight_tools.training.assembly import create_optimizer
from swiftsight_tools.training.detection_task import DetectionMetric
from swiftsight_tools.training.runner import ClippingOptimWrapper, NotFiniteError, Task
from torch import Tensor, nn

from detect.results import Detections, Target


class Net(nn.Module):
    """Two parts, and losses that can be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def losses(self, images: Tensor, truth: Tensor, *, weight: float = 1.0) -> dict[str, Tensor]:
        """One good loss, and one that is what `truth` says."""
        good = self.head(self.backbone(images.float()).mean((2, 3))).square().mean()
        return {"loss_good": good, "loss_odd": weight * truth}

    def predict(self, images: Tensor) -> Tensor:
        """Strides, to see the memory format."""
        return torch.tensor(images.stride())


def test_groups_of_parameters() -> None:
    net = Net()
    config = OptimizerConfig(kind="sgd", lr=0.1, momentum=0.8, weight_decay=0.05, backbone_lr_factor=0.5)
    groups = create_optimizer(net, config).param_groups
    found = {
        tuple(sorted(name for name, own in net.named_parameters() if any(own is one for one in group["params"]))): (
            group["lr"],
            group["weight_decay"],
            group["momentum"],
        )
        for group in groups
    }
    assert found == {
        ("backbone.0.weight",): (0.05, 0.05, 0.8),
        ("backbone.0.bias", "backbone.1.bias", "backbone.1.weight"): (0.05, 0.0, 0.8),
        ("head.weight",): (0.1, 0.05, 0.8),
        ("head.bias",): (0.1, 0.0, 0.8),
    }


def test_learning_rates_by_name() -> None:
    """Of two patterns that match the later counts; the backbone's own factor comes on top."""
    config = OptimizerConfig(lr=0.1, backbone_lr_factor=0.5, lr_factors={"head.*": 10.0, "*.bias": 4.0})
    groups = create_optimizer(Net(), config).param_groups
    rates = {tuple(one.shape): group["lr"] for group in groups for one in group["params"]}
    assert rates[4, 3, 1, 1] == pytest.approx(0.05)
    assert rates[2, 4] == pytest.approx(1.0)
    assert rates[(2,)] == pytest.approx(0.4)
    assert sorted(group["lr"] for group in groups) == pytest.approx([0.05, 0.05, 0.2, 0.4, 1.0])
    with pytest.raises(ValueError, match=r"no parameter of this net is called 'haed\.\*' \(nearest: 'head\.\*'\)"):
        create_optimizer(Net(), OptimizerConfig(lr=0.1, lr_factors={"haed.*": 10.0}))


def test_a_net_without_a_backbone() -> None:
    assert len(create_optimizer(nn.Linear(2, 2), OptimizerConfig(lr=0.1, kind="adamw")).param_groups) == 2
    with pytest.raises(ValueError, match="no part called backbone"):
        create_optimizer(nn.Linear(2, 2), OptimizerConfig(lr=0.1, backbone_lr_factor=0.5))


def test_the_task_has_the_only_mode() -> None:
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    task = Task(Net(), torch.channels_last)
    assert set(task(images, torch.tensor(1.0), mode="loss")) == {"loss_good", "loss_odd"}
    heavy = Task(Net(), loss_options={"weight": 3.0})
    assert heavy(images, torch.tensor(2.0), mode="loss")["loss_odd"] == 6
    assert task(images, None, mode="predict").tolist() == [60, 1, 15, 3]
    assert Task(Net())(images, None).tolist() == [60, 20, 5, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(value: float) -> None:
    task = Task(Net())
    with pytest.raises(NotFiniteError, match="not finite: loss_odd is") as caught:
        task.parse_losses(task(torch.ones(2, 3, 4, 4), torch.tensor(value), mode="loss"))
    assert list(caught.value.terms) == ["loss_odd"]


def test_gradients_are_clipped_or_refused_before_the_weights_change() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0]))
    wrapper = ClippingOptimWrapper(torch.optim.SGD([weight], lr=1.0), max_norm=1.0)
    wrapper.update_params((weight * torch.tensor([3.0, 4.0])).sum())
    assert wrapper.grad_norm == 5.0
    torch.testing.assert_close(weight.data, torch.tensor([0.4, 0.2]), rtol=0, atol=1e-5)
    before = weight.data.clone()
    with pytest.raises(NotFiniteError, match="the gradients' norm is"):
        wrapper.update_params((weight * float("inf")).sum())
    torch.testing.assert_close(weight.data, before, rtol=0, atol=0)


def test_the_metric_works_in_the_picture_on_disk(tiny_coco: Path) -> None:
    """Perfect boxes in the net's frame score 1: they go back to each picture's own size and the file's ids."""
    from detect.formats.boxed_pictures import collate
    from detect.formats.coco import CocoDetection
    from detect.transforms import Resize

    data = CocoDetection(tiny_coco / "val.json", tiny_coco / "images", transform=Resize((64, 96)))
    metric = DetectionMetric(data.annotations, data.category_ids)
    images, targets = collate([data[index] for index in range(len(data))])
    metric.process((images, targets), [perfect(target) for target in targets])
    figures = metric.evaluate(len(data))
    assert figures["val/AP"] == pytest.approx(1.0)
    metric.process((images, targets), [perfect(target)[:0] for target in targets])
    assert metric.evaluate(len(data))["val/AP"] == 0


def perfect(target: Target) -> Detections:
    return Detections(target.boxes, torch.ones(len(target.boxes)), target.labels)
