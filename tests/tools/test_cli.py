"""The command's door: words in, one line and an exit code out."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

import pytest
from swiftsight_tools import cli
from swiftsight_tools.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "OpenCV needs the packages libgl1, libglib2.0-0 and libxcb1"


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Makes `swiftsight try --count N` run the function that it is given."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType("swiftsight_tools.attempt")
        vars(module).update(add_arguments=_add_count, run=run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.VERBS, "try", cli.Verb("attempt", "attempt something", "swiftsight try --count 2"))

    return install


def _add_count(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=1)


def _raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_a_verb_gets_its_words_and_gives_the_exit_code(verb) -> None:
    verb(lambda args: args.count)
    assert cli.main(["try"]) == 1
    assert cli.main(["try", "--count", "0"]) == 0
    assert cli.main(["--traceback", "try", "--count=7"]) == 7


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("size must be a multiple of 32, not 321"), 1, "size must be a multiple of 32, not 321"),
        (ValueError("first line\n  second line"), 1, "first line second line"),
        (ValueError(), 1, "ValueError"),
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), 1, "a.jpg: No such file or directory"),
        (OSError("the camera 3 gives no picture"), 1, "the camera 3 gives no picture"),
        (UsageError("--source is missing"), 2, "--source is missing"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            ImportError("libGL.so.1: cannot open shared object file"),
            1,
            f"a system library is missing: libGL.so.1: cannot open shared object file. {PACKAGES}",
        ),
    ],
)
def test_an_error_is_one_line_and_a_code(verb, capsys, error: BaseException, code: int, line: str) -> None:
    verb(_raising(error))
    assert cli.main(["try"]) == code
    printed = capsys.readouterr()
    assert printed.err == f"swiftsight: {line}\n"
    assert printed.out == ""


def test_a_defect_of_the_program_keeps_its_traceback(verb) -> None:
    for error in (RuntimeError("shapes do not match"), ModuleNotFoundError("No module named 'torch'")):
        verb(_raising(error))
        with pytest.raises(type(error)):
            cli.main(["try"])


def test_developers_can_ask_for_the_traceback(verb, monkeypatch) -> None:
    verb(_raising(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        cli.main(["--traceback", "try"])
    monkeypatch.setenv("SWIFTSIGHT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no"):
        cli.main(["try"])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["a verb is missing", "demo"]),
        (["dmeo"], ["unknown verb 'dmeo'", "'demo'", "train"]),
        (["--verison"], ["unknown option '--verison'", "'--version'"]),
        (["try", "--cuont", "3"], ["unknown option '--cuont'", "'--count'"]),
        (["try", "--cou", "3"], ["unknown option '--cou'", "'--count'"]),
        (["try", "--count", "three"], ["--count", "three"]),
        (["try", "something"], ["unexpected word 'something'"]),
    ],
)
def test_wrong_words_exit_with_two_and_name_the_nearest(verb, capsys, words: list[str], parts: list[str]) -> None:
    verb(lambda args: 0)
    assert cli.main(words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for part in parts:
        assert part in line


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_each_verb_shows_an_example_whose_words_it_takes(name: str, capsys, monkeypatch) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"\n  {cli.VERBS[name].example}\n" in capsys.readouterr().out

    taken: list[argparse.Namespace] = []
    module = import_module(f"swiftsight_tools.{cli.VERBS[name].module}")
    monkeypatch.setattr(module, "run", lambda args: taken.append(args) or 0)
    command, *words = shlex.split(cli.VERBS[name].example)
    assert (command, cli.main(words), len(taken)) == ("swiftsight", 0, 1)


def test_the_help_of_the_command_names_every_verb(capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    for name, described in cli.VERBS.items():
        assert f"  {name} " in printed
        assert described.help in printed


@pytest.mark.parametrize("package", ["tools", "swiftsight_tools"])
def test_the_command_runs_as_a_module(package: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"swiftsight {metadata.version('swiftsight')}\n")


_VERB_THAT_PRINTS = """
import sys
from types import ModuleType
from swiftsight_tools import cli
module = ModuleType("swiftsight_tools.attempt")
vars(module).update(add_arguments=lambda parser: None, run=lambda args: print("a line") or 0)
sys.modules[module.__name__] = module
cli.VERBS["try"] = cli.Verb("attempt", "attempt something", "swiftsight try")
sys.exit(cli.main(["try"]))
"""


@pytest.mark.parametrize("buffering", [[], ["-u"]])
def test_a_reader_that_goes_away_is_no_error(buffering: list[str]) -> None:
    command = [sys.executable, *buffering, "-c", _VERB_THAT_PRINTS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment) as process:
        process.stdout.close()  # before anything was written
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, b"")
