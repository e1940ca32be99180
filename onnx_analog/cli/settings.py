"""Makes options of the command line from the declarations of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

import click

from onnx_analog.cli.console import Finite, Floats, Integers, Whole, several
from onnx_analog.settings import Setting, settings_of

F = TypeVar("F", bound=Callable[..., Any])

SYNONYMS: Mapping[str, tuple[str, ...]] = {"granularity": ("--scope",), "side_bits_per_cell": ("--bits-per-cell",)}


def options_of(
    cls: type, *, without: Sequence[str] = (), unset: bool = False, complete: Mapping[str, Any] | None = None
) -> Callable[[F], F]:
    """Return a decorator that adds an option for each setting of a dataclass.

    Parameters
    ----------
    cls : type
    without : sequence of str
        Settings that get no option.
    unset : bool
        Whether options have no default, so that only what the user gives is passed on.
    complete : mapping of str to function
        Shell completion, by setting.
    """
    return several(
        *(
            _option(name, declared, kind, None if unset else default, (complete or {}).get(name))
            for name, (declared, kind, default) in settings_of(cls).items()
            if name not in without
        )
    )


def _option(name: str, declared: Setting, kind: Any, default: Any, complete: Any) -> Any:
    names = (f"--{name.replace('_', '-')}", *SYNONYMS.get(name, ()))
    return click.option(
        *names, name, type=_type(declared, kind), default=default, help=declared.help, shell_complete=complete
    )


def _type(declared: Setting, kind: Any) -> Any:
    if declared.choices is not None:
        return click.Choice(declared.choices)
    plain = next((argument for argument in get_args(kind) if argument is not NoneType), kind)
    if get_origin(kind) is tuple:
        return Integers(least=int(declared.least or 0)) if plain is int else Floats()
    if plain is int:
        least, most = (None if end is None else int(end) for end in (declared.least, declared.most))
        return Whole(least, most)
    if plain is float:
        return Finite(above=declared.above, least=declared.least, most=declared.most)
    return str
