"""The words for what runs a net, and which of them go together."""

import argparse
from pathlib import Path

from .errors import UsageError
from .multi_pass import MULTI_PASS_OPTIONS

ENGINE_NAMES = ("auto", "torch", "onnxruntime", "openvino")
EXPORTED_SUFFIXES = (".onnx", ".xml")


def add_engine_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Adds --engine and --threads."""
    engine = "what runs the net (torch; auto for an exported file): auto is the quickest that is installed"
    parser.add_argument("--engine", choices=ENGINE_NAMES, help=engine)
    parser.add_argument("--threads", metavar="N", type=int, help="threads of the processor for each picture")


def is_exported(word: str | None) -> bool:
    """Whether a word that may name a net or weights is a file of an exported net."""
    return word is not None and Path(word).suffix.lower() in EXPORTED_SUFFIXES


def runs_elsewhere(args: argparse.Namespace) -> bool:
    """Whether something else than torch is to run the weights."""
    return is_exported(args.weights) or args.engine not in (None, "torch")


def check_engine_words(args: argparse.Namespace) -> None:
    """UsageError for options of torch beside another engine, in a verb that takes weights, or too few threads."""
    if args.threads is not None and args.threads < 1:
        raise UsageError(f"--threads {args.threads}: expected at least 1")
    if not runs_elsewhere(args):
        return
    odd = [name for name in ("device", *MULTI_PASS_OPTIONS) if getattr(args, name) is not None]
    if odd:
        what = args.weights if is_exported(args.weights) else f"--engine {args.engine}"
        raise UsageError(f"--{odd[0].replace('_', '-')} is for torch; it does not go with {what}")
