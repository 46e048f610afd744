"""The `swiftsight` command: one verb a module, imported only when it is called, so that a word of help costs no torch.

Every verb's module offers `add_arguments(parser)` and `run(args) -> int`.
Exit codes: 0 done, 1 the work failed, 2 the words are wrong, 130 interrupted. An error is one line on stderr.
"""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import takewhile
from typing import NamedTuple, NoReturn

from .errors import UsageError


class Verb(NamedTuple):
    """Where a verb lives in this package, what the help says of it, and a line that runs."""

    module: str
    help: str
    example: str


VERBS = {
    "list": Verb("listing", "show the names of the nets that can be built", "swiftsight list detectors"),
    "train": Verb(
        "train",
        "train a net as a config says",
        "swiftsight train configs/detect/thundernet_snet49_person.yaml --set optimizer.lr=0.01",
    ),
    "eval": Verb(
        "evaluate",
        "score weights on a config's data, or anybody's results file by COCO's figures",
        "swiftsight eval --predictions results.json --annotations instances.json",
    ),
    "demo": Verb(
        "demo",
        "find objects, or label pixels, in a picture, a folder, a video or a camera",
        "swiftsight demo --source sample --output demo_output",
    ),
    "export": Verb(
        "export",
        "write a net as one file for onnxruntime or OpenVINO, once it is found to answer as torch does",
        "swiftsight export thundernet_shufflenet_v2_x0_5 --weights person --format onnx --output person.onnx",
    ),
    "bench": Verb("benchmark", "measure what a net costs, part by part", "swiftsight bench thundernet_snet49"),
    "squeeze": Verb(
        "squeeze",
        "make a net's weights file several times smaller",
        "swiftsight squeeze thundernet_shufflenet_v2_x0_5 --weights person "
        "--density 0.6 --bits 8 5 --output person.packed",
    ),
    "weights": Verb(
        "weights_verb",
        "show which ImageNet weights are published for our backbones, or fetch some into the cache",
        "swiftsight weights fetch shufflenet_v2_x0_5",
    ),
}

_SYSTEM_LIBRARIES = "libgl1, libglib2.0-0 and libxcb1"


class _Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError, takes no abbreviations, and names the nearest option."""

    def __init__(self, prog: str, description: str, epilog: str, usage: str | None = None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, usage, description, epilog, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def parse_words(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses `words`; a misspelt option is named first, before argparse misses what it was meant to give."""
        for word in takewhile(lambda word: word != "--", words):
            option = word.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                raise UsageError(f"unknown option '{option}'{_nearest(option, self._option_string_actions)}")
        parsed, unexpected = self.parse_known_args(words)
        if unexpected:
            self.error(f"unexpected word '{unexpected[0]}'")
        return parsed


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command with `words` (default: the process's own arguments) and gives its exit code."""
    words = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    verb_at = next((index for index, word in enumerate(words) if not word.startswith("-")), len(words))
    show_traceback = "--traceback" in words[:verb_at] or os.environ.get("SWIFTSIGHT_TRACEBACK") == "1"
    try:
        return _dispatch(words[:verb_at], words[verb_at:])
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        return _leave_closed_pipe()
    except (ValueError, OSError, ImportError) as error:
        if show_traceback or not _is_explained(error):
            raise
        return _complain(_one_line(error), 2 if isinstance(error, UsageError) else 1)


def _dispatch(options: Sequence[str], words: Sequence[str]) -> int:
    try:
        _command_parser().parse_words(options)
        if not words:
            raise UsageError(f"a verb is missing: expected one of {', '.join(VERBS)} (see swiftsight --help)")
        return _run_verb(words[0], words[1:])
    finally:
        sys.stdout.flush()  # here and not at exit, so that `main` sees that the reader of a pipe went away


def _run_verb(name: str, words: Sequence[str]) -> int:
    if name not in VERBS:
        raise UsageError(f"unknown verb '{name}'{_nearest(name, VERBS)}: expected one of {', '.join(VERBS)}")
    verb = VERBS[name]
    module = importlib.import_module(f".{verb.module}", __package__)
    parser = _Parser(f"swiftsight {name}", _sentence(verb.help), f"example:\n  {verb.example}")
    module.add_arguments(parser)
    return int(module.run(parser.parse_words(words)))


def _command_parser() -> _Parser:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    parser = _Parser(
        "swiftsight",
        "Finds objects in pictures and video with small networks, on an ordinary processor.",
        f"verbs:\n{verbs}\n\n`swiftsight VERB --help` shows the words of a verb and a line that runs.",
        usage="swiftsight [--version] [--traceback] VERB ...",
    )
    parser.add_argument("--version", action="version", version=f"swiftsight {metadata.version('swiftsight')}")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose, for developers")
    return parser


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _nearest(word: str, choices: Iterable[str]) -> str:
    from backbones.registry import nearest  # here: it brings torch, which a right word does not need

    return nearest(word, list(choices))


def _is_explained(error: Exception) -> bool:
    """Whether one line says enough. A package that fails to import is a broken installation: show all of it."""
    return not isinstance(error, ImportError) or "cannot open shared object file" in str(error)


def _one_line(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"a system library is missing: {error}. OpenCV needs the packages {_SYSTEM_LIBRARIES}"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _complain(message: str, code: int) -> int:
    print(f"swiftsight: {message}", file=sys.stderr)
    return code


def _leave_closed_pipe() -> int:
    """The reader of our output went away (`swiftsight list | head -1`): stop without a word, also at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
