"""Soft targets by hand, and a student under a teacher: what is whose, what learns, what is saved."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from compress.distill import (
    Distiller,
    LogitLesson,
    check_same_classes,
    divergence,
    soft_loss,
    soften,
)
from compress.hints import Hint, correlation_loss, recorded


class Net(nn.Module):
    """A convolution, norm and average; `pair` gives two maps."""

    def __init__(self, channels: int = 4, num_classes: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1,), 0.5))
        self.body = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.pair = Pair()
        self.head = nn.Linear(channels, num_classes)
        self.name, self.class_names = "net", tuple(f"class {index}" for index in range(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pair(self.body(images - self.mean))[0].mean((2, 3)))

    def outputs(self, images: Tensor, labels: Any) -> Tensor:
        return self(images)

    def losses_from(self, outputs: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> dict[str, Tensor]:
        return {"loss_class": F.cross_entropy(outputs, labels, label_smoothing=smoothing)}

    def predict(self, images: Tensor) -> Tensor:
        return self(images).argmax(dim=1)


class Pair(nn.Module):
    def forward(self, features: Tensor) -> list[Tensor]:
        return [features, F.avg_pool2d(features, 2)]


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0])


def create(hints: tuple[Hint, ...] = (), **options: Any) -> tuple[Distiller, Net, Net]:
    torch.manual_seed(0)
    student, teacher = Net(4), Net(6)
    return Distiller(student, teacher, LogitLesson(temperature=2.0), hints=hints, **options), student, teacher


def test_the_divergence_of_two_classes_by_hand() -> None:
    """The teacher says 3/4 and 1/4, the student 1/2 each; at T = 4 the teacher's odds are the fourth root of 3."""
    logits, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert_close(soft_loss(logits, teacher, 1.0), torch.tensor([0.75 * math.log(1.5) + 0.25 * math.log(0.5)]))
    first = 3**0.25 / (1 + 3**0.25)
    by_hand = first * math.log(2 * first) + (1 - first) * math.log(2 * (1 - first))
    assert_close(soft_loss(logits, teacher, 4.0), torch.tensor([16 * by_hand]))
    assert by_hand == pytest.approx(0.00934, abs=2e-6)


def test_at_a_high_temperature_logits_are_matched() -> None:
    """The paper's limit: the gradient is (student's - teacher's) / classes, for logits with the mean 0."""
    logits = torch.tensor([1.0, 0.5, -1.5], requires_grad=True)
    teacher = torch.tensor([-2.0, 3.0, -1.0])
    soft_loss(logits, teacher, 1000.0).backward()
    assert_close(logits.grad, (logits.detach() - teacher) / 3, rtol=5e-3, atol=5e-3)


def test_probabilities_are_softened_as_their_logits_would_be() -> None:
    logits = torch.tensor([[0.3, 2.0, -1.0]])
    assert_close(soften(logits.softmax(dim=1), 3.0), (logits / 3).softmax(dim=1))
    sure = torch.tensor([[1.0, 0.0]])
    assert_close(soften(sure, 2.0), sure)
    assert_close(divergence(torch.zeros(1, 2), sure, 1.0), torch.tensor([math.log(2)]))


def test_logits_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[1, 2\], the teacher's \[1, 3\]; expected the same"):
        soft_loss(torch.zeros(1, 2), torch.zeros(1, 3), 1.0)


def test_correlation_sees_neither_size_nor_offset() -> None:
    features = torch.tensor([1.0, 2.0, 3.0, 6.0]).reshape(1, 1, 2, 2)
    assert_close(correlation_loss(features, 5 * features - 7), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(correlation_loss(1e-4 * features, features), torch.tensor(0.0), atol=1e-5, rtol=0)
    assert_close(correlation_loss(features, -features), torch.tensor(2.0), atol=1e-5, rtol=0)
    # mean 3, deviations -2 -1 0 3 and -1 1 -1 1: (2 - 1 + 3) / (sqrt(14) * 2)
    other = torch.tensor([0.0, 2.0, 0.0, 2.0]).reshape(1, 1, 2, 2)
    assert_close(correlation_loss(features, other), torch.tensor(1 - 4 / (2 * 14**0.5)), atol=1e-5, rtol=0)
    enlarged = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert_close(correlation_loss(features, enlarged), torch.tensor(0.0), atol=0.03, rtol=0)
    assert_close(correlation_loss(features, torch.ones(1, 1, 2, 2)), torch.tensor(1.0))


def test_the_losses_are_the_students_and_the_lessons() -> None:
    distiller, student, teacher = create(truth_weight=0.25)
    losses = distiller.losses(IMAGES, LABELS, smoothing=0.1)
    with torch.no_grad():
        own = 0.25 * F.cross_entropy(student(IMAGES), LABELS, label_smoothing=0.1)
        soft = soft_loss(student(IMAGES), teacher(IMAGES), 2.0).mean()
    assert_close({name: loss.detach() for name, loss in losses.items()}, {"loss_class": own, "loss_soft": soft})
    assert set(create(truth_weight=0.0)[0].losses(IMAGES, LABELS)) == {"loss_soft"}


def test_no_gradient_reaches_the_teacher_which_stays_in_evaluation_mode() -> None:
    distiller, student, teacher = create((Hint("body", "body"),))
    before = copy.deepcopy(teacher.state_dict())
    distiller.train()
    sum(distiller.losses(IMAGES, LABELS).values()).backward()
    assert student.training
    assert student.body.training
    assert distiller.regressors.training
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert_close(teacher.state_dict(), before)
    assert all(parameter.grad is not None for parameter in distiller.parameters())
    distiller.eval()
    assert not student.training


def test_it_is_named_saved_and_loaded_as_its_student() -> None:
    distiller, student, _ = create((Hint("pair[1]", "body"),))
    assert list(distiller.state_dict()) == list(student.state_dict()) == list(Net(4).state_dict())
    own = [name for name, _ in student.named_parameters()]
    assert [name for name, _ in distiller.named_parameters()] == [*own, "distillation_regressors.0.mix.weight"]
    alone = Net(4)
    alone.load_state_dict(distiller.state_dict())
    distiller.eval()
    assert_close(alone.eval()(IMAGES), distiller(IMAGES))
    assert_close(alone.predict(IMAGES), distiller.predict(IMAGES))
    other = create((Hint("pair[1]", "body"),))[0]
    other.load_state_dict(Net(4).state_dict())
    outer = nn.Sequential(other)
    outer.load_state_dict({f"0.{name}": tensor for name, tensor in student.state_dict().items()})
    assert_close(other.student.state_dict(), student.state_dict())
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({"mean": torch.ones(1)})
    assert (distiller.name, distiller.class_names) == (student.name, student.class_names)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = distiller.nonsense


def test_a_copy_has_its_own_student_and_the_same_teacher() -> None:
    distiller, student, teacher = create((Hint("body", "body"),))
    copied = copy.deepcopy(distiller)
    assert copied.teacher is teacher
    assert copied.student is not student
    assert copied.body is copied.student.body
    assert copied.regressors[0] is not distiller.regressors[0]
    copied.double()
    assert copied.student.mean.dtype == copied.mean.dtype == copied.student.head.weight.dtype == torch.float64
    assert student.head.weight.dtype == torch.float32
    assert teacher.head.weight.dtype == torch.float64, "the teacher goes where its student goes"


def test_a_hint_is_learnt_until_the_maps_agree() -> None:
    distiller, student, _ = create((Hint("body", "body"),), truth_weight=0.0, hint_weight=2.0)
    optimizer = torch.optim.Adam(distiller.parameters(), 0.02)
    values = []
    for _ in range(60):
        loss = distiller.losses(IMAGES, LABELS)["loss_hint_1"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item() / 2)
    assert values[0] > 0.7
    assert values[-1] < 0.5 * values[0]
    assert not any(module._forward_hooks for module in student.modules()), "nothing stays behind"


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Hint("boby", "body"), "a hint names 'boby', which this net does not have; its parts are body, pair, head"),
        (Hint("pair", "body"), r"a hint names pair, which gives 2 maps; expected a place, as in pair\[0\]"),
        (Hint("pair[2]", "body"), r"a hint names pair\[2\], which gives 2 maps"),
        (Hint("body[0]", "body"), r"a hint names body\[0\], which gives one map"),
        (Hint("body[x]", "body"), r"a hint names 'body\[x\]'; expected a part of the net"),
    ],
)
def test_a_hint_that_cannot_be_is_refused(hint: Hint, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create((hint,))


def test_a_hint_at_a_part_that_the_lesson_never_asks_is_refused() -> None:
    class Glance(LogitLesson):
        def ask(self, teacher: Any, images: Tensor, truth: Any) -> Tensor:
            teacher.body(images)
            return torch.zeros(len(images), 2)

    taught = Distiller(Net(), Net(), Glance(), hints=(Hint("pair[0]", "pair[0]"),))
    with pytest.raises(ValueError, match=r"a hint names the teacher's pair\[0\], which is not asked in this lesson"):
        taught.losses(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))


def test_wrong_numbers_and_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        LogitLesson(temperature=0)
    with pytest.raises(ValueError, match="soft_weight is -1"):
        LogitLesson(weight=-1)
    with pytest.raises(ValueError, match="hint_weight is -1"):
        create(hint_weight=-1)
    check_same_classes(("a", "b"), ("a", "b"))
    with pytest.raises(ValueError, match=r"the teacher knows 2 classes \(b, a\); expected the student's 2 \(a, b\)"):
        check_same_classes(("a", "b"), ("b", "a"))
    with pytest.raises(ValueError, match="has no channels"):
        Distiller(Net(), None, LogitLesson(), hints=(Hint("body", "990"),))


def test_a_part_without_a_map_can_give_no_hint() -> None:
    unused, flat = Net(), Net()
    unused.aside = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="the part aside gives nothing when the net is used"):
        Distiller(unused, Net(), LogitLesson(), hints=(Hint("aside", "body"),))
    flat.body.extend([nn.Flatten(2), nn.Unflatten(2, (-1, 8))])
    with pytest.raises(ValueError, match=r"the part body\.3 gives \[.*\]; expected a map"):
        Distiller(flat, Net(), LogitLesson(), hints=(Hint("body.3", "body"),))


def test_recording_ends_with_an_error_too() -> None:
    net = Net()
    with pytest.raises(ZeroDivisionError), recorded(net, ["body"]):
        _ = 1 / 0
    assert not net.body._forward_hooks
