"""Which published ImageNet weights there are for our backbones; fetch some, when the user asks for it."""

from __future__ import annotations

import argparse
from pathlib import Path

from backbones.published import ADDRESS, IMAGENET, LICENCE, PUBLISHED, cache_folder, fetched_path
from backbones.registry import nearest

from .destinations import result_file, result_folder
from .errors import UsageError
from .fetching import fetched
from .table import format_table

_ACTIONS = ("list", "fetch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[list | fetch NAME] [--output PATH] [--address URL]."""
    parser.add_argument("action", metavar="ACTION", nargs="?", default="list", help="list (the default) or fetch")
    parser.add_argument("name", metavar="NAME", nargs="?", help="fetch: the backbone, see swiftsight weights")
    parser.add_argument(
        "--output",
        metavar="PATH",
        type=Path,
        help="fetch: a folder, or a file that ends in .safetensors "
        "(default: the cache: $SWIFTSIGHT_CACHE, $XDG_CACHE_HOME/swiftsight or ~/.cache/swiftsight)",
    )
    parser.add_argument(
        "--address", metavar="URL", default=ADDRESS, help=f"fetch: the folder of a mirror (default {ADDRESS})"
    )


def run(args: argparse.Namespace) -> int:
    """0 when the list is printed, or the weights lie where the last lines say."""
    if args.action not in _ACTIONS:
        raise UsageError(f"unknown action {args.action!r}{nearest(args.action, _ACTIONS)}: expected list or fetch")
    if args.action == "list" and args.name is not None:
        raise UsageError(f"unexpected word {args.name!r} behind list")
    if args.action == "list":
        print(describe_published())
        return 0
    if args.name not in PUBLISHED:
        near = nearest(args.name, PUBLISHED) if args.name else ""
        what = f"no ImageNet weights are published for {args.name!r}" if args.name else "fetch needs a backbone's name"
        raise UsageError(f"{what}{near}: there are {', '.join(PUBLISHED)}")
    path = _destination(args.name, args.output)
    if is_whole(args.name, path):
        print(f"there already: {path}")
    else:
        if args.output is not None and path.exists():
            raise ValueError(f"{path} exists and is something else; name another place, or remove it first")
        fetch(args.name, path, args.address)
        print(f"written to {path}\n{LICENCE}")
    weights = str(path) if args.output is not None else IMAGENET
    print(f'in Python: create_backbone("{args.name}", weights="{weights}")')
    return 0


def describe_published() -> str:
    """What can be fetched, and what is in the cache."""
    rows = [
        [name, f"{file.mebibytes:.1f}", f"{file.top1:.1f}", file.file_name, _state(fetched_path(name))]
        for name, file in PUBLISHED.items()
    ]
    table = format_table(["backbone", "MiB", "top-1", "file", "in the cache"], rows)
    notes = {
        "files": f"{ADDRESS}/FILE; {LICENCE}",
        "cache": cache_folder(),
        "fetch one": f"swiftsight weights fetch {rows[0][0]}",
    }
    return "\n".join([table, "", *(f"{what}: {words}" for what, words in notes.items())])


def _state(path: Path) -> str:
    return "yes" if path.is_file() else "no"


def fetch(name: str, path: Path, address: str = ADDRESS) -> None:
    """Download the published file of `name` below `address`, check it, and write it to `path` as safetensors.

    `path` is written whole or not at all. Raises as `fetched`, and ValueError where the file does not fit the net.
    """
    published = PUBLISHED[name]
    source = f"{address.rstrip('/')}/{published.file_name}"
    part = path.with_name(f"{published.file_name}.part")
    with fetched(source, part, sha256_prefix=published.sha256_prefix) as sha256:
        _convert(name, part, path, {"source": source, "licence": LICENCE, "sha256": sha256})


def is_whole(name: str, path: Path) -> bool:
    """Whether the published weights of `name` lie at `path` already, readable to the last number."""
    from backbones import create_classifier, read_metadata

    if not path.exists():
        return False
    try:
        create_classifier(name, weights=path)
        return read_metadata(path).get("sha256", "").startswith(PUBLISHED[name].sha256_prefix)
    except ValueError:
        return False


def _convert(name: str, source: Path, path: Path, notes: dict[str, str]) -> None:
    """A publisher's file as ours, with every number as it was, and with class names and notes beside them."""
    from torchvision.models import get_model_weights

    from backbones import create_classifier, load_weights, save_classifier

    classifier = create_classifier(name)
    classifier.class_names = tuple(get_model_weights(name).DEFAULT.meta["categories"])
    report = load_weights(classifier, source)
    if report.unused:
        raise ValueError(f"{source} does not fit {name}: {report.unused[0]} has no place in it")
    try:
        save_classifier(classifier, path, half=False, notes=notes)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _destination(name: str, output: Path | None) -> Path:
    """Where the weights go, in a folder that is there and may be written to."""
    usual = fetched_path(name)
    path = result_file(output, usual.name, (usual.suffix,)) if output else result_folder(usual.parent) / usual.name
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file and cannot be replaced; name another place")
    return path.absolute()
