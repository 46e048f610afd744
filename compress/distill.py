"""A net that learns from another one: its softened answers as targets, its features as hints.

References: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, section 2 (temperature,
T squared); for the hints see hints.py.
Deviations: the divergence in place of the cross-entropy, which has the same gradient and is 0 where both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hints import Hint, correlation_loss, create_regressors, recorded

REGRESSORS = "distillation_regressors"  # the one part of a `Distiller` that its student does not have


class Lesson(Protocol):
    """What is taught, and how it is scored: the one thing here that knows a task. Everything is about one batch."""

    def ask(self, teacher: Any, images: Tensor, truth: Any) -> Any:
        """The teacher's answer; called without gradients. teacher is None where the truth brings the answers along."""
        ...

    def truth(self, truth: Any, answer: Any) -> Any:
        """What the student's own `outputs` and `losses_from` are to take for the truth."""
        ...

    def losses(self, outputs: Any, answer: Any) -> dict[str, Tensor]:
        """Scalars named loss_*, weighted, of the student's `outputs` beside the answer."""
        ...

    def features(self, answer: Any) -> Sequence[Tensor]:
        """The maps that the truth brought along for the hints, in their order; asked where there is no teacher net."""
        ...


class Distiller(nn.Module):
    """A student under a teacher. It is trained, asked, saved and loaded as the student itself.

    Its parts, parameters and buffers are the student's own, under the student's names, and so is its state dict. With
    hints it has one part more, the regressors, which learn but stand in no state dict: `regressors.state_dict()` is
    theirs. The teacher is none of its parts: it is moved along to a device, but neither trained nor saved nor copied,
    stays in evaluation mode, and gets no gradient.

    Of the student it takes `outputs(images, truth)`, `losses_from(outputs, truth)` and `predict`; what is asked of the
    teacher is the lesson's. truth_weight: of the student's own losses; hint_weight: of each hint's. Raises ValueError
    for a hint that cannot be.
    """

    student: nn.Module

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        lesson: Lesson,
        *,
        truth_weight: float = 1.0,
        hints: Sequence[Hint] = (),
        hint_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, weight in (("truth_weight", truth_weight), ("hint_weight", hint_weight)):
            if weight < 0:
                raise ValueError(f"{name} is {weight}; expected a number from 0")
        own = vars(student)
        # The same dictionaries: a tensor that a move to a device replaces is replaced for both.
        self._parameters, self._buffers = own["_parameters"], own["_buffers"]
        self._non_persistent_buffers_set = own["_non_persistent_buffers_set"]
        self._modules = dict(own["_modules"])
        vars(self)["student"] = student  # past nn.Module, to which it would be a part
        self.lesson, self.truth_weight, self.hint_weight = lesson, truth_weight, hint_weight
        self.hints = tuple(hints)
        self._teacher = _Apart(None if teacher is None else teacher.eval().requires_grad_(False))
        if hints:
            self.add_module(REGRESSORS, create_regressors(student, teacher, hints))
            self.register_state_dict_post_hook(_leave_out_regressors)
            self.register_load_state_dict_post_hook(_miss_no_regressors)

    @property
    def teacher(self) -> nn.Module | None:
        """The net that teaches, None where the data bring its answers along."""
        return self._teacher.net

    @property
    def regressors(self) -> nn.ModuleList:
        """One for each hint: the student's map -> a map of the teacher's channels."""
        found = self._modules.get(REGRESSORS)
        return found if isinstance(found, nn.ModuleList) else nn.ModuleList()

    def forward(self, images: Tensor) -> Any:
        """The student's."""
        return self.student(images)

    def losses(self, images: Tensor, truth: Any, **options: Any) -> dict[str, Tensor]:
        """The student's own losses, those of the lesson and "loss_hint_1", ...; options: of its `losses_from`."""
        answer, wanted = self._ask(images, truth)
        told = self.lesson.truth(truth, answer)
        student: Any = self.student
        with recorded(student, [hint.student for hint in self.hints]) as seen:
            outputs = student.outputs(images, told)
        losses: dict[str, Tensor] = {}
        if self.truth_weight:
            own = student.losses_from(outputs, told, **options)
            losses = {name: self.truth_weight * loss for name, loss in own.items()}
        losses |= self.lesson.losses(outputs, answer)
        for number, (hint, regressor, theirs) in enumerate(
            zip(self.hints, self.regressors, wanted, strict=True), start=1
        ):
            resembled = correlation_loss(regressor(seen[hint.student]), theirs)
            losses[f"loss_hint_{number}"] = self.hint_weight * resembled
        return losses

    def predict(self, *arguments: Any, **settings: Any) -> Any:
        """The student's."""
        student: Any = self.student
        return student.predict(*arguments, **settings)

    @torch.no_grad()
    def _ask(self, images: Tensor, truth: Any) -> tuple[Any, Sequence[Tensor]]:
        """The teacher's answer, and its maps for the hints."""
        if self.teacher is None:
            answer = self.lesson.ask(None, images, truth)
            return answer, self.lesson.features(answer) if self.hints else ()
        with recorded(self.teacher, [hint.teacher for hint in self.hints]) as seen:
            answer = self.lesson.ask(self.teacher, images, truth)
        silent = [hint.teacher for hint in self.hints if hint.teacher not in seen]
        if silent:
            raise ValueError(f"a hint names the teacher's {silent[0]}, which is not asked in this lesson")
        return answer, [seen[hint.teacher] for hint in self.hints]

    def train(self, mode: bool = True) -> Distiller:
        """The student and the regressors in that mode; the teacher stays as it is."""
        super().train(mode)
        self.student.training = mode
        return self

    def _apply(self, *arguments: Any, **options: Any) -> Distiller:
        """Whatever moves or casts the student does so to the teacher."""
        if self.teacher is not None:
            self.teacher._apply(*arguments, **options)  # noqa: SLF001 (as nn.Module does it with its parts)
        super()._apply(*arguments, **options)
        return self

    def __getattr__(self, name: str) -> Any:
        """What the student says of itself: its name, classes, options, input size."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "student" not in vars(self):
                raise
            return getattr(self.student, name)


class _Apart:
    """Holds a net where torch does not look for parts, and which no copy is made of."""

    def __init__(self, net: nn.Module | None) -> None:
        self.net = net

    def __deepcopy__(self, memo: dict[int, Any]) -> _Apart:
        return self


class LogitLesson:
    """The teacher's logits, softened by the temperature, for nets that give logits.

    `outputs` are logits [N, C] or [N, C, ...], or have them as `logits`. weight: of the loss, which is called
    "loss_soft". Raises ValueError for numbers that cannot be.
    """

    def __init__(self, *, temperature: float = 4.0, weight: float = 1.0) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected a number above 0")
        if weight < 0:
            raise ValueError(f"soft_weight is {weight}; expected a number from 0")
        self.temperature, self.weight = temperature, weight

    def ask(self, teacher: Any, images: Tensor, truth: Any) -> Any:
        """The teacher's outputs."""
        return teacher.outputs(images, truth)

    def truth(self, truth: Any, answer: Any) -> Any:  # noqa: ARG002 (it belongs to the interface)
        """As it is."""
        return truth

    def losses(self, outputs: Any, answer: Any) -> dict[str, Tensor]:
        """{"loss_soft": mean over pictures, and over pixels where there are any}."""
        logits, wanted = (getattr(each, "logits", each) for each in (outputs, answer))
        return {"loss_soft": self.weight * soft_loss(logits, wanted, self.temperature, dim=1).mean()}

    def features(self, answer: Any) -> Sequence[Tensor]:  # noqa: ARG002 (it belongs to the interface)
        """None: a teacher with logits is a net that is asked."""
        return ()


def soften(probabilities: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """Probabilities -> those of the same logits divided by the temperature."""
    raised = probabilities.float() ** (1 / temperature)
    return raised / raised.sum(dim=dim, keepdim=True)


def divergence(logits: Tensor, wanted: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """T squared times KL(wanted || softmax(logits / T)), summed over `dim`; wanted: probabilities, softened already."""
    found = (logits.float() / temperature).log_softmax(dim=dim)
    return temperature**2 * F.kl_div(found, wanted.float(), reduction="none").sum(dim=dim)


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """T squared times the divergence of both softened answers, each [...] without `dim`.

    ValueError where the shapes differ.
    """
    if logits.shape != teacher_logits.shape:
        shapes = f"{list(logits.shape)}, the teacher's {list(teacher_logits.shape)}"
        raise ValueError(f"the student's logits have the shape {shapes}; expected the same")
    return divergence(logits, (teacher_logits.float() / temperature).softmax(dim=dim), temperature, dim)


def check_same_classes(student: Sequence[str], teacher: Sequence[str], what: str = "the teacher") -> None:
    """ValueError where they differ, also in order."""
    if tuple(student) != tuple(teacher):
        knows, learns = (f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" for names in (teacher, student))
        raise ValueError(
            f"{what} knows {len(teacher)} classes ({knows}); expected the student's {len(student)} ({learns})"
        )


def _leave_out_regressors(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}{REGRESSORS}.")]:
        del state[name]


def _miss_no_regressors(_module: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if f".{REGRESSORS}." not in f".{key}"]
