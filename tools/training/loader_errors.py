"""What a training raises as one line: with the config's file, without the page that torch wraps a worker's error in."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..configuration.config import find_config
from ..configuration.schema import SectionError


@contextmanager
def in_one_line(config: str) -> Iterator[None]:
    """Within the block a wrong section of the config names its file, and a worker's error is its own."""
    try:
        yield
    except SectionError as error:
        raise ValueError(f"{find_config(config)}: {error}") from error
    except (ValueError, OSError, RuntimeError) as error:
        plain = unwrap_worker_error(error)
        if plain is error:
            raise
        raise plain from error


def unwrap_worker_error(error: Exception) -> Exception:
    """The error as it was raised in the worker (OSError or ValueError, one line), an OSError for a worker that died,
    any other error as it is.
    """
    text = str(error)
    if text.startswith("DataLoader worker") and "\n" not in text.strip():
        return OSError(f"{text.strip()} Perhaps the memory was full: fewer workers need less")
    if not text.startswith("Caught ") or "\n" not in text:
        return error
    kind, _, what = text.strip().splitlines()[-1].partition(": ")
    is_about_files = kind.endswith(("OSError", "NotFoundError", "PermissionError"))
    return (OSError if is_about_files else ValueError)(what or kind)
