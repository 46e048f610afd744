"""A segmenter under a teacher: pixels by hand, ignored ones, what is saved."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from compress.distill import Distiller
from compress.hints import Hint
from segment import create_segmenter, save_segmenter
from segment.distill import PixelLesson
from segment.losses import IGNORE
from segment.results import SegmenterOutputs


def test_pixels_by_hand() -> None:
    """The teacher says 3/4 and 1/4 of the left pixel, what the student says of the right one; the left is ignored."""
    logits, wanted = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    wanted[0, 0, 0, 0] = math.log(3)
    labels = torch.tensor([[[IGNORE, 1]]])
    left = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    lesson = PixelLesson(temperature=1.0, weight=3.0)
    outputs = SegmenterOutputs(logits, [logits, wanted])

    def teacher(images: torch.Tensor) -> torch.Tensor:
        return wanted

    assert_close(lesson.losses(outputs, lesson.ask(teacher, logits, labels)), {"loss_soft": torch.tensor(3 * left / 2)})
    labelled = PixelLesson(temperature=1.0, pixels="labelled", auxiliary_weight=0.5)
    found = labelled.losses(outputs, labelled.ask(teacher, logits, torch.tensor([[[1, IGNORE]]])))
    expected = {"loss_soft": left, "loss_soft_auxiliary_1": 0.5 * left, "loss_soft_auxiliary_2": 0.0}
    assert_close(found, {name: torch.tensor(value) for name, value in expected.items()})
    nowhere = labelled.losses(outputs, labelled.ask(teacher, logits, torch.full((1, 1, 2), IGNORE)))
    assert nowhere["loss_soft"] == 0


def test_where_nothing_is_labelled_the_teacher_still_speaks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = create_segmenter("dfanet_b", num_classes=3, pixels="all")
    teacher = create_segmenter("bisenet_shufflenet_v2_x0_5", num_classes=3)
    distiller = Distiller(student, teacher, PixelLesson(), hints=(Hint("backbone[2]", "backbone[0]"),))
    distiller.train()
    images = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8)
    losses = distiller.losses(images, torch.full((2, 32, 40), IGNORE))
    assert losses["loss_main"] == 0
    assert losses["loss_soft"] > 0
    assert losses["loss_hint_1"] > 0
    sum(losses.values()).backward()
    assert student.classifier.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    save_segmenter(distiller, tmp_path / "student.safetensors")
    loaded = create_segmenter("dfanet_b", weights=tmp_path / "student.safetensors")
    assert list(loaded.state_dict()) == list(student.state_dict())
    assert_close(distiller.predict(images)[0].labels, student.predict(images)[0].labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": "al"}, "pixels is 'al'; expected one of all, labelled"),
        ({"auxiliary_weight": -1}, "auxiliary_weight is -1"),
        ({"temperature": -2}, "temperature is -2"),
    ],
)
def test_wrong_words_and_numbers_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelLesson(**options)
