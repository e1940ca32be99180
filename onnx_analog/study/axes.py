"""The axes of a grid: values for `integers` and any setting of `Scheme` or `Paper`, from Python, TOML, or text.

    cells_small=1,2,4          bits_per_cell=1,2         granularity=tensor,channel
    cells=1/20,2/20            shares=0.05,0.01          side_channel=none,pcm,rram-wan

Values have commas between them. A value that is a list has slashes between its numbers: one for each class. A channel
that has options keeps its own commas, as in gaussian:sigma=0.1,low=0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from onnx_analog.arguments import Arguments
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.errors import OptionError
from onnx_analog.settings import is_number, settings_of, suggestion, synonyms_of

CHANNELS = ("channel", "side_channel")
INTEGERS = "integers"  # bits of the integers to which weights are quantised
SETTINGS = {  # that can be axes, by name
    **settings_of(Scheme),
    **settings_of(Paper),
    INTEGERS: settings_of(Arguments)[INTEGERS],
}
_REQUIRED = ("channel", INTEGERS)  # without a default, and with a value at each point
_SYNONYMS = synonyms_of(Scheme, Paper)


def parse(texts: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return the axes that texts like "cells_small=1,2,4" describe, in their order.

    Raises
    ------
    OptionError
        If a text has another form, a setting is unknown or given twice, or a value is out of its range.

    Examples
    --------
    >>> parse(["cells=1/20,2/20", "bits_per_cell=1,2"])
    {'cells': ((1, 20), (2, 20)), 'side_bits_per_cell': (1, 2)}
    """
    given: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise OptionError(f"{text!r} is not an axis; write NAME=VALUE,VALUE,...")
        name = _known(name.strip())
        if name in given:
            raise OptionError(f"{name} is an axis twice: give all its values together")
        given[name] = values
    return checked(given)


def channel_texts(texts: Iterable[str]) -> list[str]:
    """Return the values of the axes that are channels, as they are written; each may be a file.

    >>> channel_texts(["channel=pcm,mine.json", "classes=2,3"])
    ['pcm', 'mine.json']
    """
    named = [(_known(name.strip()), values) for name, _, values in (text.partition("=") for text in texts)]
    return [value for name, values in named if name in CHANNELS for value in _split(name, values)]


def checked(axes: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return axes with each value in the type of its setting, and text parsed; raises what `parse` raises.

    Parameters
    ----------
    axes : mapping of str to sequence
        Values by setting; text is "1,2,4", or each entry of a list may be text.
    """
    typed: dict[str, tuple[Any, ...]] = {}
    for given, values in axes.items():
        name = _known(given)
        if name in typed:
            raise OptionError(f"{name} is an axis twice: give all its values together")
        listed = _split(name, values) if isinstance(values, str) else values
        if isinstance(listed, Mapping) or not isinstance(listed, Iterable):
            raise OptionError(f"the axis {name} is {values!r}; it must be a list of values")
        typed[name] = tuple(_typed(name, value) for value in listed)
        if not typed[name]:
            raise OptionError(f"the axis {name} must not be empty")
        again = next((value for value, times in Counter(typed[name]).items() if times > 1), None)
        if again is not None:
            raise OptionError(f"the axis {name} contains {word(again)} twice")
    return typed


def word(value: Any) -> Any:
    """Return a value as a table holds it: a list as its numbers with slashes between them."""
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    return value if isinstance(value, int | float | str | NoneType) else str(value)


def value_text(value: object) -> str:
    """Return the value of a setting as a user writes it."""
    if isinstance(value, list | tuple):
        return "/".join(map(value_text, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _known(name: str) -> str:
    name = _SYNONYMS.get(name.replace("-", "_"), name.replace("-", "_"))
    if name not in SETTINGS:
        raise OptionError(f"{name[:40]!r} is not a setting that can be varied: {suggestion(name, SETTINGS)}")
    return name


def _split(name: str, text: str) -> list[str]:
    values: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            raise OptionError(f"the axis {name} is {text!r}, which has an empty entry")
        if name in CHANNELS and values and "=" in part and ":" in values[-1] and ":" not in part:
            values[-1] += f",{part}"  # an option of the channel before it
        else:
            values.append(part)
    return values


def _typed(name: str, value: Any) -> Any:
    declared, kind, default = SETTINGS[name]
    chosen = declared.choices is not None and value in declared.choices
    if not chosen and (value is None or (isinstance(value, str) and value.lower() == "none")):
        if default is None and name not in _REQUIRED:
            return None
        raise OptionError(f"{name} is {value!r}, and it must have a value")
    if name in CHANNELS:
        from onnx_analog import channels

        return channels.resolve(value)
    if get_origin(kind) is tuple:
        parts = value.split("/") if isinstance(value, str) else value
        entry = get_args(kind)[0]
        if is_number(parts):
            parts = (parts,)
        if not isinstance(parts, Iterable):
            raise OptionError(f"{name} is {value!r}; it must be numbers, as 1/20")
        return declared.check(name, [_number(part, entry) for part in parts], kind)
    plain = next((argument for argument in get_args(kind) if argument is not NoneType), kind)
    return declared.check(name, _number(value, plain), kind)


def _number(value: Any, kind: type) -> Any:
    """Return text as a number where it is one; what is not is refused by its setting."""
    if kind not in (int, float) or not isinstance(value, str):
        return value
    try:
        return kind(value)
    except ValueError:
        return value
