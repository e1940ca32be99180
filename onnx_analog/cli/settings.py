"""Makes options of the command line from the declarations of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import click

from onnx_analog.arguments import Arguments
from onnx_analog.cli.console import Option, several
from onnx_analog.cli.types import Finite, Floats, Integers, Seconds, Whole, Words
from onnx_analog.settings import Setting, settings_of

F = TypeVar("F", bound=Callable[..., Any])


def options_of(
    cls: type,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    section: str = "",
    depends: Mapping[str, str] | None = None,
    complete: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Return a decorator that adds an option for each setting of a dataclass.

    Parameters
    ----------
    cls : type
    only : sequence of str, optional
        Settings that get an option; all without it.
    without : sequence of str
        Settings that get no option.
    section : str
        Heading in the help under which the options stand.
    depends : mapping of str to str, optional
        If given, options have no default, so that only what the user gives is passed on. Help shows these defaults in
        words, and those of the declarations for all others.
    complete : mapping of str to function
        Shell completion, by setting.
    """
    options = []
    for name, (declared, kind, default) in settings_of(cls).items():
        if name not in without and (only is None or name in only):
            words = None if depends is None else depends.get(name, _text(default))
            more = {"section": section, "shell_complete": (complete or {}).get(name)}
            options.append(_option(name, declared, kind, default if depends is None else None, words, **more))
    return several(*options)


def argument(name: str, **changes: Any) -> Callable[[F], F]:
    """Return a decorator that adds the option of one of the `Arguments`.

    `changes` are those of `click.option`; `flag` is the option's name, if it is not that of the argument.
    """
    declared, kind, default = settings_of(Arguments)[name]
    option: Callable[[F], F] = _option(name, declared, kind, default, None, **changes)
    return option


def _option(name: str, declared: Setting, kind: Any, default: Any, words: str | None, **more: Any) -> Any:
    """Return the option of a setting; `words` are shown as its default."""
    flag = more.pop("flag", None) or (name.removesuffix(f"_{declared.unit}") if declared.unit else name)
    names = (*(f"--{word.replace('_', '-')}" for word in (flag, *declared.synonyms)), name)
    if declared.metavar is not None:
        more = {"metavar": declared.metavar, **more}
    shown = f"  [default: {words}]" if words and "[default:" not in declared.help else ""
    if kind is bool:
        return click.option(*names, is_flag=True, cls=Option, help=declared.help, **more)
    if declared.repeatable:
        return click.option(*names, multiple=True, cls=Option, help=declared.help, **more)
    attributes: dict[str, Any] = {"type": _type(declared, kind), "help": declared.help + shown, **more}
    if not attributes.get("required"):
        attributes["default"] = _default(default)
    return click.option(*names, cls=Option, **attributes)


def _default(value: Any) -> Any:
    """Return a default as a user would type it."""
    return _text(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _type(declared: Setting, kind: Any) -> Any:
    if get_origin(kind) in (Union, UnionType):
        kind = next(argument for argument in get_args(kind) if argument is not NoneType)
    plain = next(iter(get_args(kind)), kind)
    if declared.unit:
        return Seconds()
    if declared.choices is not None and get_origin(kind) is not tuple:
        return click.Choice(declared.choices)
    if get_origin(kind) is tuple:
        least = None if declared.least is None else int(declared.least)
        return {int: Integers(least=least or 0), float: Floats(), str: Words(declared.choices or ())}[plain]
    if plain is int:
        least, most = (None if end is None else int(end) for end in (declared.least, declared.most))
        return Whole(least, most)
    if plain is float:
        return Finite(above=declared.above, least=declared.least, most=declared.most, below=declared.below)
    return str
