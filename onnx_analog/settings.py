"""Declares each setting once: its type, default, range, choices and help.

A setting is a field of a frozen dataclass, made by `setting`. From that one declaration follow the check of its value,
the keyword in Python, the key in JSON and TOML, and the option on the command line.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sized
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, wraps
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from onnx_analog.errors import OptionError, brief
from onnx_analog.spelling import nearest

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

MOST_ENTRIES = 2**16  # of a list: each is checked by itself


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The declaration of one setting.

    Attributes
    ----------
    help : str
        One line, for `--help` and the reference.
    least, most : float, optional
        Range, both ends included.
    above, below : float, optional
        Range, the end not included.
    choices : tuple of str, optional
    odd : bool
        Only odd numbers.
    unit : str
        Unit of a number that the name ends with, as "s" in read_after_s. An option takes other units too, and its name
        does without: --read-after 1h.
    repeatable : bool
        Each entry of a list is an option of its own.
    metavar : str, optional
        Stands for the value in `--help`.
    synonyms : tuple of str
        Further names, which options and the axes of a grid have too.
    """

    help: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None
    odd: bool = False
    unit: str = ""
    repeatable: bool = False
    metavar: str | None = None
    synonyms: tuple[str, ...] = ()

    def check(self, name: str, value: Any, kind: Any) -> Any:
        """Return `value` as the type `kind`, where one number stands for a list of it.

        Raises
        ------
        OptionError
            If it is of another type or out of its range; the message names the setting, the value and the range.
        """
        if kind in (int, float, str, bool):
            return self._single(name, value, kind)
        arguments = get_args(kind)
        if get_origin(kind) in (Union, UnionType):
            if value is None and NoneType in arguments:
                return None
            return self.check(name, value, next(argument for argument in arguments if argument is not NoneType))
        if get_origin(kind) is tuple:
            if arguments[0] in (int, float) and is_number(value):
                value = (value,)
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
                raise OptionError(f"{name} is {brief(value)}; it must be a list")
            if isinstance(value, Sized) and len(value) > MOST_ENTRIES:
                raise OptionError(f"{name} has {len(value):,} numbers; a list has at most {MOST_ENTRIES:,}")
            return tuple(self._single(name, entry, arguments[0]) for entry in value)
        if kind is not Any and isinstance(kind, type) and not isinstance(value, kind):
            raise OptionError(f"{name} is {brief(value)}; it must be of type {kind.__name__}")
        return value

    def _single(self, name: str, value: Any, kind: type) -> Any:
        if kind in (int, float):
            return self._number(name, value, kind)
        if not isinstance(value, kind):
            raise OptionError(f"{name} is {brief(value)}; it must be {'true or false' if kind is bool else 'text'}")
        if self.choices is not None and value not in self.choices:
            raise OptionError(f"{name} is {brief(value)}; choose from {', '.join(self.choices)}")
        return value

    def _number(self, name: str, value: Any, kind: type) -> int | float:
        number = _as_number(value, kind)
        if number is None:
            raise OptionError(f"{name} is {brief(value)}; it must be a {'whole ' if kind is int else ''}number")
        inside = (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )
        if not inside:
            raise OptionError(f"{name} is {number}; it must be {self.range}")
        if self.odd and number % 2 == 0:
            raise OptionError(f"{name} is {number}; it must be odd")
        return number

    @property
    def range(self) -> str:
        """The range in words: "from 1 to 8", "above 0"."""
        parts = []
        if self.least is not None and self.most is not None:
            parts.append(f"from {self.least:,} to {self.most:,}")
        elif self.least is not None:
            parts.append(f"{self.least:,} or more")
        elif self.most is not None:
            parts.append(f"at most {self.most:,}")
        if self.above is not None:
            parts.append(f"above {self.above:,}")
        if self.below is not None:
            parts.append(f"below {self.below:,}")
        return " and ".join(parts or ["finite"])


def is_number(value: Any) -> bool:
    """Return whether a value is one number, of Python or of NumPy; text and True are none."""
    return getattr(value, "ndim", 0) == 0 and _as_number(value, float) is not None


def _as_number(value: Any, kind: type) -> int | float | None:
    """Return `value` as an int or a float; None if it is not one: text, True, and for int a fraction are not."""
    if isinstance(value, bool | str | bytes):
        return None
    try:
        return operator.index(value) if kind is int else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def setting(default: Any = MISSING, **declaration: Any) -> Any:
    """Return a dataclass field with a `Setting`, whose attributes the keywords are."""
    return field(default=default, metadata=MappingProxyType({"setting": Setting(**declaration)}))


def same(cls: type, name: str) -> Any:
    """Return a dataclass field with the declaration and the default of another class's setting."""
    declared, _, default = settings_of(cls)[name]
    return field(default=default, metadata=MappingProxyType({"setting": declared}))


@cache
def settings_of(cls: type) -> Mapping[str, tuple[Setting, Any, Any]]:
    """Return the declaration, the type and the default of each setting of a dataclass, by name."""
    hints = get_type_hints(cls)
    return MappingProxyType(
        {
            entry.name: (entry.metadata["setting"], hints[entry.name], entry.default)
            for entry in fields(cls)
            if "setting" in entry.metadata
        }
    )


def synonyms_of(*classes: type) -> dict[str, str]:
    """Return the names of settings of dataclasses by their synonyms."""
    return {
        synonym: name
        for cls in classes
        for name, (declared, *_) in settings_of(cls).items()
        for synonym in declared.synonyms
    }


def check_settings(instance: Any) -> None:
    """Check each setting of a frozen dataclass and give it its type: call it in `__post_init__`.

    Raises
    ------
    OptionError
        If a value is of another type, out of its range, or none of the choices.
    """
    cls: type = type(instance)
    for name, (declared, kind, _) in settings_of(cls).items():
        object.__setattr__(instance, name, declared.check(name, getattr(instance, name), kind))


def check_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by setting, each with the type that the class declares; one text, too, stands for a list of it.

    Raises
    ------
    OptionError
        If a value is of another type or out of its range.
    """
    checked = {}
    for name, value in values.items():
        declared, kind, _ = settings_of(cls)[name]
        single = isinstance(value, str) and get_origin(kind) is tuple and get_args(kind)[0] is str
        checked[name] = declared.check(name, [value] if single else value, kind)
    return checked


# --------------------------------------------------------------------------------------------------------- names


def named(cls: type[T]) -> type[T]:
    """Decorate a dataclass whose constructor refuses an unknown keyword with an `OptionError` and a suggestion."""
    construct = cls.__init__
    known = [entry.name for entry in fields(cls) if entry.init]  # type: ignore[arg-type]  # a dataclass

    @wraps(construct)
    def checked(self: Any, /, **keywords: Any) -> None:
        check_names(f"{cls.__name__} has no setting", keywords, known, synonyms_of(cls))
        construct(self, **keywords)

    cls.__doc__ = _documented(cls)
    cls.__init__ = checked  # type: ignore[assignment]
    return cls


def _documented(cls: type) -> str:
    """Return the docstring of a dataclass with each of its settings, its default and its help."""
    lines = [
        f"{name}{'' if default in (None, MISSING) else f' : default {default!r}'}\n    {declared.help}"
        for name, (declared, _, default) in settings_of(cls).items()
    ]
    return "\n".join([inspect.cleandoc(cls.__doc__ or ""), *(["", "Settings", "--------"] if lines else []), *lines])


def takes(*classes: type) -> Callable[[F], F]:
    """Return a decorator that puts the settings of dataclasses into the signature of a function, for **settings."""

    def describe(function: F) -> F:
        parameters = inspect.signature(function).parameters.values()
        own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        names = {parameter.name for parameter in own}
        keyword = inspect.Parameter.KEYWORD_ONLY
        more = {
            name: inspect.Parameter(name, keyword, default=None, annotation=kind)
            for cls in classes
            for name, (_, kind, _) in settings_of(cls).items()
            if name not in names
        }
        function.__signature__ = inspect.Signature([*own, *more.values()])  # type: ignore[attr-defined]
        return function

    return describe


def keywords(function: F) -> F:
    """Decorate a function that refuses an unknown keyword with an `OptionError` and a suggestion."""
    known = inspect.signature(function).parameters
    name = function.__qualname__.rpartition(".__init__")[0] or function.__name__  # a class is called by its own

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        check_names(f"{name} has no argument", named, known)
        return function(*arguments, **named)

    return cast(F, checked)


def check_names(
    problem: str, names: Iterable[Any], known: Collection[str], synonyms: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Raise `OptionError` for the first of `names` that is not known, with a suggestion.

    Examples
    --------
    >>> check_names("a plan has no entry", ["defualt"], ("default", "schemes"))
    Traceback (most recent call last):
    ...
    onnx_analog.errors.OptionError: a plan has no entry 'defualt': did you mean 'default'?
    """
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise OptionError(f"{problem} {brief(unknown)}: {suggestion(unknown, known, synonyms)}")


def suggestion(name: Any, known: Collection[str], synonyms: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the known name that is most like an unknown one, as a question; all of them if none is alike."""
    text = str(name).replace("-", "_")
    similar = synonyms[text] if text in synonyms else nearest(text, known)
    return f"choose from {', '.join(known)}" if similar is None else f"did you mean {similar!r}?"
