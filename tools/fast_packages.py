"""Packages that make things faster and that nobody must have: loaded where they are used, missed in one line."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

EXTRA = 'pip install ".[fast]" in the checkout of swiftsight'


def load_package(name: str, purpose: str) -> Any:
    """The module `name`; ValueError that says what it is for and how to install it where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        root = name.partition(".")[0]
        reason = (
            "is not installed" if isinstance(error, ModuleNotFoundError) and error.name == root else f"fails: {error}"
        )
        raise ValueError(f"{purpose} needs the package {root}, which {reason}; {EXTRA}") from None


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, None where there is none; nothing is imported."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def reason_of(error: Exception) -> str:
    """The last line of what a package says: its reason stands below the places in its own sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
