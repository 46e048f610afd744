"""What the section `distill` of a config asks for: teachers opened, students put under them, pictures put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from backbones import create_classifier
from compress.distill import Distiller, Lesson, LogitLesson, check_same_classes
from compress.hints import Hint
from detect import TwoStageDetector, create_detector
from detect.distill import BoxLesson, ProposalLesson
from detect.formats.boxed_pictures import BoxedPictures
from detect.formats.taught_pictures import AnsweredPictures, AskedPictures, JoinedTaught, bare_pictures
from detect.result_rows import read_results
from detect.transforms import Size, Transform
from pictures.images import read_image
from pictures.splits import read_split
from segment import create_segmenter
from segment.distill import PixelLesson
from segment.losses import IGNORE
from segment.transforms import Transform as LabelTransform

from ..configuration.distill_config import (
    BarePart,
    BoxesTeacher,
    ClassifierDistillConfig,
    DetectorDistillConfig,
    DetectorTeacher,
    DistillConfig,
    NetTeacher,
    ResultsTeacher,
    SegmenterDistillConfig,
)
from ..peer_detectors import PEERS, Look, PeerDetector
from .sampler import Request
from .training_task import PictureSet


def teach_classifier(student: nn.Module, config: ClassifierDistillConfig | None) -> nn.Module:
    """The student under the config's teacher, or as it is. Raises ValueError or OSError for a wrong teacher."""
    if config is None:
        return student
    teacher = _open_net(create_classifier, config.teacher, student)
    lesson = LogitLesson(temperature=config.temperature, weight=config.soft_weight)
    return _under(student, teacher, lesson, config)


def teach_segmenter(student: nn.Module, config: SegmenterDistillConfig | None) -> nn.Module:
    """See `teach_classifier`."""
    if config is None:
        return student
    teacher = _open_net(create_segmenter, config.teacher, student)
    lesson = PixelLesson(
        temperature=config.temperature,
        weight=config.soft_weight,
        auxiliary_weight=config.auxiliary_weight,
        pixels=config.pixels,
    )
    return _under(student, teacher, lesson, config)


def teach_detector(
    student: TwoStageDetector, config: DetectorDistillConfig | None, peer: PeerDetector | None
) -> nn.Module:
    """See `teach_classifier`. peer: the ONNX teacher of the pictures, if it is one."""
    if config is None:
        return student
    if isinstance(config.teacher, DetectorTeacher):
        teacher = _open_net(create_detector, config.teacher, student)
        judged = ProposalLesson(
            temperature=config.temperature,
            weight=config.soft_weight,
            objectness_weight=config.teacher.objectness_weight,
        )
        return _under(student, teacher, judged, config)
    lesson = BoxLesson(
        student.num_classes,
        temperature=config.temperature,
        weight=config.soft_weight,
        object_score=config.teacher.object_score,
        ignore_score=config.teacher.ignore_score,
    )
    return _under(student, None, lesson, config, () if peer is None else peer.part_channels)


def _under(
    student: nn.Module, teacher: nn.Module | None, lesson: Lesson, config: DistillConfig, channels: Sequence[int] = ()
) -> Distiller:
    words = list((config.hints or {}).items())
    known: Sequence[int | None] = channels or [None] * len(words)
    hints = [Hint(ours, theirs, count) for (ours, theirs), count in zip(words, known, strict=True)]
    return Distiller(
        student, teacher, lesson, truth_weight=config.truth_weight, hints=hints, hint_weight=config.hint_weight
    )


def _open_net(create: Callable[..., Any], teacher: NetTeacher, student: Any) -> nn.Module:
    net: Any = create(teacher.name, weights=teacher.weights)
    check_same_classes(student.class_names, net.class_names, f"teacher {teacher}")
    opened: nn.Module = net
    return opened


def open_peer(config: DetectorDistillConfig | None, class_names: Sequence[str]) -> PeerDetector | None:
    """The ONNX detector that teaches, if one does. Raises ValueError or OSError as it does."""
    if config is None or not isinstance(config.teacher, config.asked):
        return None
    teacher = config.teacher
    assert isinstance(teacher, BoxesTeacher)
    parts = tuple((config.hints or {}).values())
    return PEERS[teacher.kind](teacher.file, class_names=class_names, parts=parts)


class _PeerLook:
    """A peer as `AskedPictures` asks its teacher."""

    def __init__(self, peer: PeerDetector) -> None:
        self.peer = peer

    def __call__(self, view: np.ndarray, shown: Size | None) -> Look:
        return self.peer.look(view, shown)


def taught_pictures(
    data: BoxedPictures,
    config: DetectorDistillConfig | None,
    peer: PeerDetector | None,
    transform: Transform,
    *,
    cache: bool,
) -> Any:
    """The training pictures with what their teacher says, and the unlabelled ones; `data` where a net teaches, or none.

    Raises ValueError or OSError for pictures or boxes that cannot be read.
    """
    if config is None or isinstance(config.teacher, DetectorTeacher):
        return data
    if isinstance(config.teacher, ResultsTeacher):
        rows, source = read_results(config.teacher.file), str(config.teacher.file)
        return AnsweredPictures(data, rows, source, object_score=config.teacher.object_score)
    assert peer is not None  # `open_peer` opened it
    classes = list(zip(data.category_ids, data.class_names, strict=True))
    bare = [
        bare_pictures(part.images, classes, transform=transform, file_names=_names(part), cache=cache)
        for part in config.unlabelled or ()
    ]
    return JoinedTaught([AskedPictures(each, _PeerLook(peer)) for each in (data, *bare)])


def _names(part: BarePart) -> list[str] | None:
    return None if part.file_names is None else list(read_split(part.file_names))


class WithUnlabelled(Dataset[tuple[Tensor, Tensor]]):
    """Pictures with labels, and behind them bare ones, all of whose pixels are ignored."""

    def __init__(self, labelled: PictureSet, folder: Path, names: Sequence[str], transform: LabelTransform) -> None:
        self.labelled, self.folder, self.names, self.transform = labelled, folder, tuple(names), transform

    @property
    def report(self) -> str:
        """What was read."""
        return f"{self.labelled.report}; {len(self.names)} unlabelled pictures"

    def __len__(self) -> int:
        return len(self.labelled) + len(self.names)

    def __getitem__(self, request: int | Request) -> tuple[Tensor, Tensor]:
        """(picture [3, h, w] uint8 RGB, labels [h, w] uint8), as the request asks for it; ValueError for an index."""
        if not isinstance(request, tuple):
            raise ValueError(f"pictures to learn from are asked for by (index, seed, size), not by {request}")
        index, seed, size = request
        if index < len(self.labelled):
            return self.labelled[request]
        image = read_image(self.folder / self.names[index - len(self.labelled)])
        nothing = np.full(image.shape[:2], IGNORE, np.uint8)
        drawn, labels = self.transform(image, nothing, seed=seed, size=size)
        return torch.from_numpy(np.array(drawn.transpose(2, 0, 1), order="C")), torch.from_numpy(labels.copy())


def with_unlabelled(data: PictureSet, config: SegmenterDistillConfig | None, transform: LabelTransform) -> PictureSet:
    """`data`, and behind it the config's unlabelled pictures. Raises ValueError or OSError as `bare_pictures`."""
    for part in (config.unlabelled if config else None) or ():
        names = bare_pictures(part.images, [(1, "anything")], file_names=_names(part)).file_names
        data = WithUnlabelled(data, part.images, names, transform)
    return data
