"""Gives the reference of the site the types and defaults that functions and classes really have.

Griffe reads the source, so that a default such as `DEFAULTS.seed` stays a name, and parameters that share a line of a
docstring all have the type and the default of its first. Here each has its own, from `inspect.signature`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import griffe

import onnx_analog as oa

PACKAGE = f"{oa.__name__}."


class Signatures(griffe.Extension):
    """Amends the sections of parameters in the docstrings of what the library offers."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Amend the docstrings of a package that was read."""
        for thing in documented():
            entry = pkg[f"{thing.__module__}.{thing.__qualname__}".removeprefix(PACKAGE)]
            if entry.docstring is not None:
                entry.docstring.parsed = _sections(entry, thing)


def documented() -> Iterator[Callable[..., Any]]:
    """Yield the public functions and classes, and the methods that the classes define."""
    for name in oa.__all__:
        thing = getattr(oa, name)
        if callable(thing):
            yield thing
        if isinstance(thing, type):
            yield from _methods(thing)


def _methods(kind: type) -> Iterator[Callable[..., Any]]:
    for name in vars(kind):
        method = getattr(kind, name)
        if name.startswith("_") or not (inspect.isfunction(method) or inspect.ismethod(method)):
            continue
        if (method.__module__, method.__qualname__) == (kind.__module__, f"{kind.__qualname__}.{name}"):
            yield method


def _sections(entry: griffe.Object, thing: Callable[..., Any]) -> list[griffe.DocstringSection]:
    docstring: Any = entry.docstring
    sections: list[griffe.DocstringSection] = docstring.parse("numpy")
    listed = [section for section in sections if section.kind is griffe.DocstringSectionKind.parameters]
    if listed:
        real, written = parameters_of(thing), types_of(docstring.value)
        for row in (row for section in listed for row in section.value):
            _amend(row, entry, real, written)
    elif isinstance(thing, type) and (rows := _rows_of_settings(thing)):
        sections.insert(1, griffe.DocstringSectionParameters(rows))  # after the text
    return sections


def _amend(
    row: griffe.DocstringParameter,
    entry: griffe.Object,
    real: Mapping[str, inspect.Parameter],
    written: Mapping[str, str],
) -> None:
    """Give a row of a table its own type, which the docstring may state in words, and its own default."""
    name = row.name.lstrip("*")
    parameters: griffe.Parameters = entry.parameters  # type: ignore[attr-defined]  # a class has those of its __init__
    of_source = next((parameter for parameter in parameters if parameter.name == name), None)
    if of_source is not None and of_source.kind is griffe.ParameterKind.var_keyword:
        row.name, row.annotation, row.value = f"**{name}", of_source.annotation, "{}"
        return
    if row.name not in written:
        row.annotation = str(real[name].annotation) if of_source is None else of_source.annotation
    elif not isinstance(getattr(oa, written[row.name], None), type):  # words, rather than a class to link to
        row.annotation = written[row.name]
    row.value = default_of(real[name])


def types_of(docstring: str) -> dict[str, str]:
    """Return the types that a docstring states, by parameter."""
    lines = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*) : (.+)$", docstring, flags=re.MULTILINE)
    return {name: kind.removesuffix(", optional") for names, kind in lines for name in names.split(", ")}


def parameters_of(thing: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or class, with an example of each default that a dataclass makes anew."""
    entries = fields(thing) if is_dataclass(thing) else ()
    defaults = {entry.name: entry.default_factory() for entry in entries if entry.default_factory is not MISSING}
    return {
        name: parameter.replace(default=defaults[name]) if name in defaults else parameter
        for name, parameter in inspect.signature(thing).parameters.items()
    }


def default_of(parameter: inspect.Parameter) -> str | None:
    """Return the default of a parameter as it is shown; None if the parameter is required."""
    if parameter.default is inspect.Parameter.empty:
        return None
    if inspect.isroutine(parameter.default):
        return parameter.default.__name__
    kind = type(parameter.default)
    as_made = is_dataclass(kind) and parameter.default == kind()
    return f"{kind.__name__}()" if as_made else repr(parameter.default)


def _rows_of_settings(kind: type) -> list[griffe.DocstringParameter]:
    """Return a row for each setting of a class whose docstring leaves them to their declarations."""
    if not is_dataclass(kind):
        return []
    real = parameters_of(kind)
    return [
        griffe.DocstringParameter(
            entry.name,
            annotation=str(real[entry.name].annotation),
            description=entry.metadata["setting"].help,
            value=default_of(real[entry.name]),
        )
        for entry in fields(kind)
        if "setting" in entry.metadata
    ]
