"""The section `distill` of a config: who teaches, what is taught, and how much it counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from .schema import ChosenBy, Limits, OneOrMore
from .training_config import NotNegative, Positive

Score = Annotated[float, Limits(above=0, most=1)]


@dataclass(frozen=True, kw_only=True)
class NetTeacher:
    """A net of this project with the student's classes: `name` as in model.name; weights: a file, or their word."""

    kind: Literal["net"] = "net"
    name: str
    weights: str | Path

    def __str__(self) -> str:
        return f"{self.name} ({self.weights})"


@dataclass(frozen=True, kw_only=True)
class DetectorTeacher(NetTeacher):
    """objectness_weight: of its RPN's answer to every anchor; 0 where its anchors are not the student's."""

    objectness_weight: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class BoxesTeacher:
    """Whoever gives boxes with scores; object_score, ignore_score: see `detect.distill.BoxLesson`."""

    file: Path
    object_score: Score | None = 0.5
    ignore_score: Score | None = 0.25

    def __post_init__(self) -> None:
        if self.object_score is not None and self.ignore_score is not None and self.ignore_score > self.object_score:
            raise ValueError(f"ignore_score is {self.ignore_score}; expected at most object_score, {self.object_score}")

    def __str__(self) -> str:
        return str(self.file)


@dataclass(frozen=True, kw_only=True)
class YoloxNanoTeacher(BoxesTeacher):
    """YOLOX-nano as an ONNX file, asked about each view."""

    kind: Literal["yolox_nano"]


@dataclass(frozen=True, kw_only=True)
class FastestDetTeacher(BoxesTeacher):
    """FastestDet as an ONNX file, asked about each view."""

    kind: Literal["fastestdet"]


@dataclass(frozen=True, kw_only=True)
class ResultsTeacher(BoxesTeacher):
    """Anybody's boxes on the whole pictures, as a COCO results file (swiftsight_tools.teacher_boxes writes one)."""

    kind: Literal["results"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """temperature, soft_weight: of the teacher's softened answers; truth_weight: of what the student would learn from
    alone; hints: the student's part -> the teacher's that it is to resemble ("backbone[1]", where a part gives several
    maps; a tensor's name in an ONNX file), hint_weight: of each.
    """

    temperature: Positive = 4.0
    soft_weight: NotNegative = 1.0
    truth_weight: NotNegative = 1.0
    hints: dict[str, str] | None = None
    hint_weight: NotNegative = 1.0

    def __post_init__(self) -> None:
        more = (getattr(self, "auxiliary_weight", 0), getattr(getattr(self, "teacher", None), "objectness_weight", 0))
        if not any((self.soft_weight, self.truth_weight, self.hints and self.hint_weight, *more)):
            raise ValueError("soft_weight, truth_weight and the weights of all else are 0: nothing would be learnt")


@dataclass(frozen=True, kw_only=True)
class ClassifierDistillConfig(DistillConfig):
    """See `compress.distill.LogitLesson`."""

    teacher: NetTeacher


@dataclass(frozen=True, kw_only=True)
class BarePart:
    """Pictures without truth. file_names: a text file, a name a line, that chooses some of the folder's."""

    images: Path
    file_names: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SegmenterDistillConfig(DistillConfig):
    """auxiliary_weight, pixels: see `segment.distill.PixelLesson`; unlabelled: pictures to learn from as well."""

    teacher: NetTeacher
    auxiliary_weight: NotNegative = 0.0
    pixels: Literal["all", "labelled"] = "all"
    unlabelled: Annotated[tuple[BarePart, ...], OneOrMore()] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled and self.pixels == "labelled":
            raise ValueError("pixels is labelled, which leaves nothing of unlabelled pictures; expected all")


@dataclass(frozen=True, kw_only=True)
class DetectorDistillConfig(DistillConfig):
    """See `detect.distill`; unlabelled: pictures to learn from as well, for teachers that are asked about each view."""

    asked: ClassVar[tuple[type, ...]] = (YoloxNanoTeacher, FastestDetTeacher)

    temperature: Positive = 1.0
    teacher: Annotated[
        DetectorTeacher | YoloxNanoTeacher | FastestDetTeacher | ResultsTeacher, ChosenBy("kind", default="net")
    ]
    unlabelled: Annotated[tuple[BarePart, ...], OneOrMore()] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled and not isinstance(self.teacher, self.asked):
            kinds = "yolox_nano or fastestdet"
            raise ValueError(f"unlabelled is set, but teacher.kind is {self.teacher.kind}; expected {kinds}")
        if self.hints and isinstance(self.teacher, ResultsTeacher):
            raise ValueError("hints is set, but teacher.kind is results, which has no features; expected another kind")
