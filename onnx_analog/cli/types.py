"""Types of options that are numbers, words, times, and lists of them; those of paths are in `paths`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from onnx_analog.errors import OptionError

if TYPE_CHECKING:
    NumberType = click.ParamType[float]
    NumbersType = click.ParamType[tuple[float, ...]]
    WordsType = click.ParamType[tuple[str, ...]]
    IntegersType = click.ParamType[tuple[int, ...]]
else:  # before click 8.4 it takes no type
    NumberType = NumbersType = WordsType = IntegersType = click.ParamType

_PRACTICAL = 10**12  # no help mentions a larger limit


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or fail in plain words."""
        try:
            number = int(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a whole number", param, ctx)
        if (self.min is not None and number < self.min) or (self.max is not None and number > self.max):
            self.fail(f"{number} is not in the range {self._range(self.max)}", param, ctx)
        return number

    def _describe_range(self) -> str:
        """Return the range for the help, without limits beyond all practical values."""
        most = None if self.max is None or self.max > _PRACTICAL else self.max
        return "" if self.min is None and most is None else self._range(most)

    def _range(self, most: float | None) -> str:
        left = "" if self.min is None else f"{self.min}<=x" if most is not None else f"x>={self.min}"
        return left if most is None else f"{left or 'x'}<={int(most):,}"


class Floats(NumbersType):
    """Comma-separated numbers, such as 0.485,0.456,0.406."""

    name = "numbers"
    listed = True

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the numbers, or fail as click does."""
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            self.fail(f"{value!r} is not a comma-separated list of numbers", param, ctx)


class Words(WordsType):
    """Comma-separated words; a word with options keeps its own commas, as gaussian:sigma=0.1,low=0."""

    name = "words"
    listed = of_text = True  # as a file of options has it: a list, of texts

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        self._choices = choices  # that a shell offers; what is typed is checked by its setting

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return the lists that complete an incomplete one."""
        from onnx_analog.cli import completion

        return completion.some_of(lambda: self._choices)(ctx, param, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the words, or fail as click does."""
        parts = [part.strip() for part in (value.split(",") if isinstance(value, str) else map(str, value))]
        words: list[str] = []
        for part in parts:
            if not part:
                self.fail(f"{value!r} has an empty entry", param, ctx)
            if words and "=" in part and ":" in words[-1] and ":" not in part:
                words[-1] += f",{part}"
            else:
                words.append(part)
        return tuple(words)


class Integers(IntegersType):
    """Comma-separated whole numbers, at least `least`, such as 1,3,10."""

    name = "integers"
    listed = True

    def __init__(self, *, least: int = 1) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the numbers, or fail as click does."""
        parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else value
        if not all(str(part).strip() for part in parts):
            self.fail(f"{value!r} has an empty entry", param, ctx)
        entry = Whole(self._least)
        return tuple(entry.convert(part, param, ctx) for part in parts)


class Finite(NumberType):
    """A finite number within the given limits: above `above`, below `below`, from `least` to `most`."""

    name = "number"

    def __init__(
        self,
        *,
        above: float | None = None,
        least: float | None = None,
        most: float | None = None,
        below: float | None = None,
    ) -> None:
        self._above = -math.inf if above is None else above
        self._least, self._most, self._open = least, most if below is None else below, below is not None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail as click does."""
        try:
            number = float(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        if not number > self._above:
            self.fail(f"{value!r} is not above {self._above:g}", param, ctx)
        return float(click.FloatRange(self._least, self._most, max_open=self._open).convert(number, param, ctx))


class Seconds(NumberType):
    """A time, such as 20s, 90m, 1h, 1d, 2w or 1y; a bare number is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, or fail as click does."""
        from onnx_analog.channels.modifiers import seconds

        try:
            return float(value) if isinstance(value, int | float) else seconds(str(value))
        except OptionError as error:
            self.fail(str(error), param, ctx)
