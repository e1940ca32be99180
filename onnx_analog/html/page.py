"""A page of a report: what it says, as plain data, and how that becomes HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from onnx_analog.display import per_weight
from onnx_analog.errors import printable_lines

Tone = Literal["yes", "no", "open", "plain"]


class Number(NamedTuple):
    """A number of the head of a page."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart: `svg` is markup, made by `onnx_analog.html.svg` and by nothing else."""

    svg: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table: the first `left` columns hold words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    left: int = 1


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, under a heading."""

    title: str
    text: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()


class Reference(NamedTuple):
    """A source: in words, and as BibTeX."""

    text: str
    bibtex: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report.

    Attributes
    ----------
    title : str
    verdict : str
        The answer, in a sentence.
    tone : {"yes", "no", "open", "plain"}
        Whether it is good news.
    numbers : tuple of Number
        What the answer costs, and its rivals.
    warnings : tuple of str
    sections : tuple of Section
    command : str or None
        The command or the Python call that made the result.
    facts : tuple of (name, value)
        Seeds, samples, versions.
    references : tuple of Reference
    """

    title: str
    verdict: str
    tone: Tone
    numbers: tuple[Number, ...]
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    command: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    references: tuple[Reference, ...] = ()


def render(page: Page) -> str:
    """Return a page as HTML, all its text escaped; the same page gives the same text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _with_code
    template = environment.from_string(_text("page.html.j2"))
    return template.render(page=_printable(page), style=_text("page.css")) + "\n"


def _with_code(text: str) -> Any:
    """Return a text, escaped, in which what stands in backticks, as the names of commands, is code."""
    from markupsafe import Markup, escape

    code, parts = Markup("<code>{}</code>"), re.split(r"`([^`\n]+)`", text)
    return Markup().join(code.format(part) if number % 2 else escape(part) for number, part in enumerate(parts))


def _text(name: str) -> str:
    return files("onnx_analog.html").joinpath(name).read_text(encoding="utf-8")


def _printable(value: Any) -> Any:
    """Return a page without control characters, which HTML does not allow: names of tensors may hold them."""
    if isinstance(value, Chart):
        return replace(value, caption=printable_lines(value.caption))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _printable(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, tuple):
        parts = [_printable(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def table(head: Iterable[str], rows: Iterable[Iterable[object]], *, caption: str = "", left: int = 1) -> Table:
    """Return a table of anything that has a text."""
    return Table(head=tuple(head), rows=tuple(tuple(map(str, row)) for row in rows), caption=caption, left=left)


def given(*parts: tuple[bool, Any]) -> Iterator[Any]:
    """Yield the values whose condition holds."""
    return (value for holds, value in parts if holds)


def number(value: float | None, form: str | None = None) -> str:
    """Return a number as it is printed, as cells per weight are without `form`: a dash where it is not known.

    >>> number(2), number(None), number(float("inf"))
    ('2.000', '–', '∞')
    """
    if value is None or math.isnan(value):
        return "–"
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    return per_weight(value) if form is None else f"{value:{form}}"
