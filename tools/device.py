"""Where a verb computes."""

import argparse

import torch

from .errors import UsageError


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to compute (cuda where there is one)")


def choose_device(asked: str | None) -> torch.device:
    """The device that was asked for, or cuda where there is one; UsageError where it is not there."""
    has_cuda = torch.cuda.is_available()
    if asked == "cuda" and not has_cuda:
        raise UsageError("--device cuda: torch finds no CUDA device here; expected cpu")
    return torch.device(asked or ("cuda" if has_cuda else "cpu"))
