"""Names to builders: one name, one function, and a near match for a misspelt one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from mmengine.registry import Registry

BACKBONES = Registry("backbone")


def nearest(word: object, choices: Iterable[str], *, cutoff: float = 0.4) -> str:
    """A clause for an error message that names the choice nearest to `word`: " (nearest: 'snet49')", or "" if none.

    Capitals do not matter. cutoff: how much alike they have to be at least, 0..1 (see `difflib.get_close_matches`).
    """
    by_letters = {choice.casefold(): choice for choice in choices}
    matches = difflib.get_close_matches(str(word).casefold(), by_letters, n=1, cutoff=cutoff)
    return f" (nearest: {by_letters[matches[0]]!r})" if matches else ""


def list_names(registry: Registry, pattern: str = "*") -> list[str]:
    """Registered names that match a shell-style pattern, in alphabetical order."""
    return sorted(name for name in registry.module_dict if fnmatchcase(name, pattern))


def find_builder(registry: Registry, name: str) -> Callable[..., Any]:
    """The function registered under `name`; ValueError with the nearest name otherwise."""
    builder = registry.module_dict.get(name)
    if builder is None:
        names = list_names(registry)
        near = nearest(name, names)
        raise ValueError(f"no {registry.name} is called {name!r}{near or ': there are ' + ', '.join(names)}")
    return builder


def check_overrides(name: str, builder: Callable[..., Any], overrides: Iterable[str]) -> None:
    """ValueError if `builder`, registered as `name`, has no parameter of one of these names."""
    known = list(inspect.signature(builder).parameters)
    for key in overrides:
        if key not in known:
            near = nearest(key, known)
            raise ValueError(f"{name} has no option {key!r}{near or ': it has ' + ', '.join(known)}")


def preset(build: Callable[..., Any], **choices: Any) -> Callable[..., Any]:
    """`build` with some options chosen, as a function of the rest: its signature no longer shows them."""
    chosen = partial(build, **choices)
    signature = inspect.signature(build, eval_str=True)
    left = [parameter for name, parameter in signature.parameters.items() if name not in choices]

    def builder(**options: Any) -> Any:
        return chosen(**options)

    shown: Any = builder
    shown.__doc__ = build.__doc__
    shown.__signature__ = signature.replace(parameters=left)
    return builder
