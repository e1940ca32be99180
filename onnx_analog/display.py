"""Shows results: one line in a console, a table in a notebook, a pandas DataFrame on request."""

from __future__ import annotations

import html
import inspect
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from itertools import accumulate, pairwise
from typing import Any, Protocol

from onnx_analog.errors import AnalogError, one_line

logger = logging.getLogger(__name__)

_ROUNDING = 1e-12  # of floats: a share that is nearer to 0 or 1 is none or all
NO_PANDAS = "pandas is not installed (pip install pandas)"


class Shown:
    """A result that is one line in a console and a table in a notebook."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {one_line(str(self), 200)}>"

    def _repr_html_(self) -> str:
        return html_table(type(self).__name__, ("", ""), self._lines())

    def _lines(self) -> Iterable[Sequence[object]]:
        """Return the rows of the table."""
        return [("", str(self))]


def finite(value: float | None) -> float | None:
    """Return a number for JSON, which has no infinite ones: None in their place."""
    return value if value is not None and math.isfinite(value) else None


def rounded_up(count: int) -> int:
    """Return a number to two digits, not below it.

    >>> rounded_up(1234), rounded_up(7)
    (1300, 7)
    """
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit


def rounded_alike(counts: Iterable[float]) -> list[int]:
    """Return whole numbers that add up to the rounded sum of `counts`, each less than 1 off; whole ones stay.

    >>> rounded_alike([0.4, 100, 0.4, 0.4])
    [0, 100, 1, 0]
    """
    ends = [math.floor(end + 0.5) for end in accumulate(counts, initial=0.0)]
    return [end - start for start, end in pairwise(ends)]


class Progress(Protocol):
    """Shows what is being done, the share that is done, from 0 to 1, and the seconds left, where these are known."""

    def __call__(self, text: str, fraction: float | None = None, left: float | None = None, /) -> None:
        """Show it."""


def silent(_text: str, _fraction: float | None = None, _left: float | None = None, /) -> None:
    """Show nothing."""


def progress_of(function: Callable[..., object]) -> Progress:
    """Return a function that is told all, and passes on what `function` has parameters for: `fraction` and `left`.

    It also logs each new text.

    >>> show = progress_of(lambda text, fraction=None: print(text, fraction))
    >>> show("reading", 0.5, 9.0), progress_of(print)("writing", 0.7)
    reading 0.5
    writing
    (None, None)
    """
    try:
        parameters = set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some functions that are written in C have none
        parameters = set()

    last = ""

    def show(text: str, fraction: float | None = None, left: float | None = None, /) -> None:
        nonlocal last
        if text != last:
            logger.info("%s", text)
            last = text
        given = {"fraction": fraction, "left": left}
        function(text, **{name: value for name, value in given.items() if name in parameters})

    return show


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number and what it counts: "1 cell", "2,000 cells"; `nouns` is the plural if it is not noun + s.

    >>> counted(1, "class", "classes"), counted(0, "cell")
    ('1 class', '0 cells')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def capital(text: str) -> str:
    """Return text as the start of a sentence: the rest, with its names, stays as it is.

    >>> capital("one α of LeNet")
    'One α of LeNet'
    """
    return text[:1].upper() + text[1:]


def bits(count: float) -> str:
    """Return bits per cell as they are printed: few of them with two significant digits.

    >>> bits(2.118), bits(0.02847)
    ('2.12', '0.028')
    """
    return f"{count:.2f}" if count >= 0.1 or count <= 0 else f"{count:.2g}"


def per_weight(count: float) -> str:
    """Return cells per weight as they are printed: very few of them with two significant digits.

    >>> per_weight(2.118), per_weight(0.02847), per_weight(0.000127), per_weight(0.0)
    ('2.118', '0.028', '0.00013', '0.000')
    """
    return f"{count:.3f}" if count >= 0.01 or count <= 0 else f"{count:.2g}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share in per cent, with more digits where it would be shown as all or none, and is not.

    >>> percent(0.05), percent(0.9375, 1), percent(0.9996), percent(1.0)
    ('5 %', '93.8 %', '99.96 %', '100 %')
    """
    apart = min(abs(share), abs(1 - share))
    if _ROUNDING < apart < 0.005:
        digits = max(digits, math.ceil(-math.log10(2 * 100 * apart)))
    return f"{100 * share:z.{digits}f} %"


def score(value: float, *, share: bool | None) -> str:
    """Return a value of a metric as it is printed: a share in per cent.

    >>> score(0.98671, share=True), score(3.25, share=False)
    ('98.67 %', '3.2500')
    """
    return percent(value, 2) if share else f"{value:z.4f}"


def change(value: float, *, share: bool | None, sign: str = "+") -> str:
    """Return a difference of two values of a metric as it is printed: of shares in percentage points.

    >>> change(0.0125, share=True), change(-2.5, share=False), change(0.001, share=True, sign="")
    ('+1.25 points', '-2.5000', '0.10 points')
    """
    return f"{100 * value:{sign}z.2f} points" if share else f"{value:{sign}z.4f}"


def score_ends(ends: tuple[float, float], *, share: bool | None, changes: bool = False) -> str:
    """Return an interval of values of a metric, or of changes of them, as it is printed.

    >>> score_ends((0.981, 0.992), share=True), score_ends((-0.001, 0.002), share=True, changes=True)
    ('98.10 to 99.20 %', '-0.10 to +0.20 points')
    """
    low, high = (change(end, share=share) if changes else score(end, share=share) for end in ends)
    unit = low.rpartition(" ")[1:] if share else ("", "")
    return f"{low.removesuffix(''.join(unit))} to {high}"


def percent_number(share: float, digits: int = 1) -> str:
    """Return the number of a share in per cent, for a column, whose width stays; what is not all or none has a sign.

    >>> percent_number(0.5), percent_number(0.9999), percent_number(1e-9), percent_number(0.0)
    ('50.0', '>99.9', '<0.1', '0.0')
    """
    shown, step = f"{100 * share:z.{digits}f}", 10**-digits
    if share > _ROUNDING and float(shown) == 0:
        return f"<{step:.{digits}f}"
    return f">{100 - step:.{digits}f}" if share < 1 - _ROUNDING and float(shown) == 100 else shown


def percent_as_given(share: float) -> str:
    """Return a share that is a setting, in per cent and unrounded.

    >>> percent_as_given(0.07), percent_as_given(0.9999999)
    ('7 %', '99.99999 %')
    """
    return f"{100 * share:.15g} %"


def html_table(title: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table for a notebook, all its text escaped."""
    lines = ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    heading = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    top = f"<thead><tr>{heading}</tr></thead>" if any(head) else ""
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{html.escape(title)}</caption>{top}<tbody>{body}</tbody></table>"


def data_frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Return rows as a pandas DataFrame.

    Raises
    ------
    AnalogError
        If pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise AnalogError(NO_PANDAS) from error
    return pandas.DataFrame(list(rows))
