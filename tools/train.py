"""Train a net as a config says: checkpoints to resume from, a log, and the best weights as safetensors."""

from __future__ import annotations

import argparse
import shlex
import signal
from contextlib import nullcontext
from pathlib import Path

from .configuration.config import find_config, load_config
from .destinations import refuse_file
from .device import add_device_argument, choose_device
from .errors import UsageError
from .training.hooks import StoppedError
from .training.journal import Screen
from .training.loader_errors import in_one_line
from .training.processes import (
    DEFAULT_TIMEOUT,
    LAUNCHERS,
    MOST_TIMEOUT,
    Processes,
    find_processes,
    joined,
    own_device,
)
from .training.run_folder import only_run_in, refuse_old_run, run_session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """CONFIG [--set key=value ...] [--freeze PARTS] [--resume] [--work-dir DIR] [--device cpu|cuda], and for several
    processes [--launcher pytorch|none] [--timeout SECONDS].
    """
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a shipped one such as detect/NAME.yaml")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="change one key; as often as needed"
    )
    parser.add_argument("--freeze", metavar="PARTS", help="parts of the net that do not learn, as in backbone,neck")
    parser.add_argument(
        "--strict", action="store_true", help="a detector: stop at data that would be left out or mended, and counted"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest whole checkpoint")
    parser.add_argument("--work-dir", metavar="DIR", type=Path, help="where the run lies (runs/ and the config's name)")
    add_device_argument(parser)
    several = parser.add_argument_group("with several processes, which torchrun starts")
    several.add_argument(
        "--launcher", choices=LAUNCHERS, help="pytorch insists on torchrun, none ignores it (as the environment says)"
    )
    several.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=DEFAULT_TIMEOUT,
        help=f"how long a process waits for the others ({DEFAULT_TIMEOUT})",
    )


def run(args: argparse.Namespace) -> int:
    """0 when the training is done, 130 after Ctrl-C, with everything saved."""
    processes = find_processes(args.launcher)
    try:
        return _run(args, processes)
    except (ValueError, OSError) as error:
        if processes.is_first:
            raise
        kind = UsageError if isinstance(error, UsageError) else OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{processes}: {_one_line(error)}") from error


def _run(args: argparse.Namespace, processes: Processes) -> int:
    if not 0 < args.timeout <= MOST_TIMEOUT:
        raise UsageError(f"--timeout {args.timeout:g}: expected more than 0 seconds, at most {MOST_TIMEOUT}")
    changes = [
        *args.set,
        *([f"freeze=[{args.freeze}]"] if args.freeze else []),
        *(["data.strict=true"] if args.strict else []),
    ]
    if args.freeze is not None and not args.freeze.strip(", "):
        raise UsageError(f"--freeze {args.freeze!r} names no part of the net")
    config = load_config(args.config, changes)
    device = own_device(choose_device(args.device), processes)
    work_dir = args.work_dir or Path("runs") / find_config(args.config).stem
    if processes.is_first:
        refuse_file(work_dir)
    if not args.resume and processes.is_first:
        refuse_old_run(work_dir)
    screen = Screen(silent=not processes.is_first)
    try:
        from .training.session import TrainingSession  # here: it brings mmengine, which a misspelt word does not need

        with in_one_line(args.config), joined(processes, device, args.timeout):
            # What is refused leaves no folder behind.
            session = TrainingSession(config, work_dir, device, screen, processes)
            with only_run_in(work_dir) if processes.is_first else nullcontext():
                run_session(session, resume=args.resume)
    except StoppedError as stop:
        screen.say(f"stopped and saved; go on with: {_words_to_resume(args, changes, work_dir, processes)}")
        return 128 + stop.number
    except KeyboardInterrupt:
        screen.say("stopped without saving")
        return 128 + signal.SIGINT
    finally:
        screen.close()
    return 0


def _words_to_resume(args: argparse.Namespace, changes: list[str], work_dir: Path, processes: Processes) -> str:
    words = [word for assignment in changes for word in ("--set", assignment)]
    for option in ("device", "launcher"):
        if getattr(args, option) is not None:
            words += [f"--{option}", getattr(args, option)]
    command = shlex.join(["train", args.config, *words, "--resume", "--work-dir", str(work_dir)])
    started_by = "torchrun, as before, --no-python " if processes.count > 1 else ""
    return f"{started_by}swiftsight {command}"


def _one_line(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
