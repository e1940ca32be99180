"""Every error this package raises on purpose.

AnalogError               exit code
├── OptionError           2   an argument is out of its range, or two exclude each other
├── ModelError            1   the file is no ONNX model, or not one that a pass can work on
│   └── NothingToStore    3   no tensor of the model is to be stored
├── ChannelError          2   no such channel, or not with these options
│   ├── LevelError        1   a level lies outside what a channel can hold
│   └── MeasurementError  1   measurements of a device cannot be read, or do not describe a channel
├── DataError             1   the evaluation data do not fit the model
│   └── FunctionError     1   a function of the user's raised an error
├── EngineError           1   workers cannot be reached, or die again and again
├── ManifestError         1   a manifest does not describe its model
└── OutputError           1   a file cannot be written, or is there already

An option or argument that is refused has the code 2, whatever it sets; the content of a file has the code 1, also where
the same value is refused as an option: `located` and `of_content` see to that.

Each message is one line of at most 300 characters and says what was found, where, and what to do. `AnalogError` sees to
the line: what a message quotes (names, paths, other programs' messages) may hold anything. A message begins with a
small letter, unless with a name, and has no full stop at its end.
"""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import TypeVar

LONGEST = 300  # characters of a message
OR_DECODE = ", or run DecodePass on this one first"  # a remedy that the command line does not have
IMPORT_FIRST = "import its module first"  # the remedy where a file names a class of the user's


class AnalogError(Exception):
    """Base class: catch this to catch them all."""

    exit_code = 1
    names_fields = False  # whether the message names fields of a file, and not arguments

    def __init__(self, message: str) -> None:
        super().__init__(without_stop(one_line(message)))


class OptionError(AnalogError, ValueError):
    """An argument is out of its range, or two exclude each other."""

    exit_code = 2


class ModelError(AnalogError):
    """The file is no ONNX model, or not one that a pass can work on."""


class NothingToStore(ModelError):  # noqa: N818 - the name says what happened; it is no fault of the model
    """No tensor of the model is to be stored."""

    exit_code = 3


class ChannelError(AnalogError):
    """No such channel, or not with these options."""

    exit_code = 2


class LevelError(ChannelError, ValueError):
    """A level lies outside what a channel can hold."""

    exit_code = 1


class MeasurementError(ChannelError):
    """Measurements of a device cannot be read, or do not describe a channel."""

    exit_code = 1


class DataError(AnalogError):
    """The evaluation data do not fit the model."""


class FunctionError(DataError):
    """A function of the user's raised an error."""


class EngineError(AnalogError):
    """Workers cannot be reached, or die again and again."""


class ManifestError(AnalogError, ValueError):
    """A manifest does not describe its model."""


class OutputError(AnalogError, OSError):
    """A file cannot be written, or is there already."""


Located = TypeVar("Located", bound=AnalogError)


def located(error: Located, where: str) -> Located:
    """Return an error about the content of a file, which is at fault, with the place before it."""
    return of_content(type(error)(f"{where}: {error}"))


def of_content(error: Located) -> Located:
    """Return an error as one about the content of a file: it has the exit code of these, and names fields."""
    error.names_fields, error.exit_code = True, AnalogError.exit_code
    return error


def require_int(name: str, value: object) -> int:
    """Return `value` as an int, or raise `OptionError` if it is no whole number: 1.5 and True are none."""
    if isinstance(value, bool):
        raise OptionError(f"{name} is {value}; it must be a whole number")
    try:
        return operator.index(value)  # type: ignore[arg-type]  # other types raise
    except TypeError:
        raise OptionError(f"{name} is {brief(value)}; it must be a whole number") from None


def require_path(name: str, value: object) -> Path:
    """Return `value` as a Path, or raise `OptionError` if it is no path, or an empty one."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise OptionError(f"{name} is {brief(value)}; it must be a path")
    if not text:
        raise OptionError(f"{name} is an empty path")
    return Path(text)


def is_function_name(text: str) -> bool:
    """Return whether text is module:function, and no file is called so."""
    return ":" in text and "\0" not in text and not os.path.exists(text)  # noqa: PTH110 - `Path` fails for a long name


def brief(value: object) -> str:
    """Return a value for a message: itself if it is plain, its type if it is not.

    Examples
    --------
    >>> brief("0.5"), brief((1, None)), brief(object())
    ("'0.5'", '(1, None)', 'of type object')
    """
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, list | tuple) and all(
        entry is None or isinstance(entry, int | float | str) for entry in value
    ):
        return repr(value)
    return f"of type {type(value).__name__}"


def without_stop(text: str) -> str:
    """Return a text without the full stop at its end, as messages have none; dots of an omission stay.

    >>> without_stop("it is damaged. Write it again.")
    'it is damaged. Write it again'
    """
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def printable(text: str) -> str:
    r"""Return `text` as a terminal may show it: control and format characters, and lone surrogates, are escaped.

    Examples
    --------
    >>> print(printable("conv\x1b[31m.weight"))
    conv\x1b[31m.weight
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    """Return `text` as `printable` does, but for the ends of its lines."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str, longest: int = LONGEST) -> str:
    r"""Return `text` as one printable line of at most `longest` characters, what is too much taken from its middle.

    Words stay whole, unless one is longer than a third of what is left.

    Examples
    --------
    >>> one_line("the names of all inputs must be those of the model", longest=30)
    'the names of ... the model'
    >>> one_line("no such\n  tensor: " + "x" * 90, longest=40)
    'no such tensor: xxxx ... xxxxxxxxxxxxxxx'
    """
    line = printable(" ".join(text.split()))
    if len(line) <= longest:
        return line
    kept = longest - len(" ... ")
    end, start = kept - kept * 3 // 7, len(line) - kept * 3 // 7
    end, start = _word_at(line, end, kept // 3)[0], _word_at(line, start, kept // 3)[1]
    return f"{line[:end].rstrip()} ... {line[start:].lstrip()}"


def _word_at(line: str, place: int, longest: int) -> tuple[int, int]:
    """Return both ends of the word that a cut at a place divides; the place if it divides none, or a longer one."""
    first, last = line.rfind(" ", 0, place) + 1, line.find(" ", place)
    last = len(line) if last < 0 else last
    divides = first < place < last
    return (first, last) if divides and last - first <= longest else (place, place)
