"""Tables that keep every name and every digit, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column
from rich.table import Table as Base
from rich.text import Text

from onnx_analog.cli.ascii_words import spelled
from onnx_analog.errors import printable, printable_lines

NAME_WIDTH = 16  # columns that a name of one word may claim beside numbers; a longer one is folded
WORDS_WIDTH = 12  # and one of several words, which folds between them
_GAP = "  "  # between columns, and before the first
_READABLE = 100  # columns of a caption


class Table(Base):
    """A table of names, aligned to the left and folded if needed, and numbers, aligned to the right and never cut.

    It takes the widest layout that the console has room for: itself; `narrower`, another table of the same; or
    one line for each cell.
    """

    narrower: Table | None = None

    def add_column(self, header: Any = "", **options: Any) -> None:  # type: ignore[override]  # headers are texts
        """Add a column; characters of its heading that are not printable are escaped."""
        super().add_column(printable(str(header)), **options)

    def add_row(self, *cells: str | None, **options: Any) -> None:  # type: ignore[override]  # cells are texts
        """Add a row; characters that are not printable are escaped."""
        super().add_row(*(printable(cell or "") for cell in cells), **options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the range of widths that the table can take."""
        return Measurement(1, options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the layout that fits."""
        width = options.max_width
        shown = self._spelled(options.encoding).that_fits(width)
        rule = "-" if options.ascii_only else "─"
        if shown.title:
            yield from _lines(printable_lines(str(shown.title)), width, "bold")
            yield Text("")
        yield from shown._wide(width, rule) if shown._fits(width) else shown._tall(width)
        if shown.caption:
            if not shown._fits(width):  # below the last of many lines
                yield Text("")
            yield from _lines(printable_lines(str(shown.caption)), _reading_width(width), "italic", _GAP)
        yield Text("")

    def _spelled(self, encoding: str) -> Table:
        """Return the table with words for characters that an encoding lacks: they are wider, and columns with them."""
        if encoding.startswith("utf"):
            return self
        title, caption = (text and spelled(str(text), encoding) for text in (self.title, self.caption))
        same = Table(title=title, caption=caption)
        for column in self.columns:
            same.add_column(spelled(str(column.header), encoding), justify=column.justify)
        for cells, row in zip(self._cells(), self.rows, strict=True):
            same.add_row(*(spelled(cell, encoding) for cell in cells), end_section=row.end_section)
        same.narrower = self.narrower and self.narrower._spelled(encoding)
        return same

    def that_fits(self, width: int) -> Table:
        """Return the table that a console of `width` columns shows: this table or a narrower version."""
        if self.narrower is None or self._fits(width):
            return self
        return self.narrower.that_fits(width)

    def _fits(self, width: int) -> bool:
        return _total([least for least, _ in map(_widths, self.columns)]) <= width

    def _wide(self, width: int, rule: str) -> Iterator[Text]:
        widths = _shared([*map(_widths, self.columns)], [*map(_is_name, self.columns)], width)
        headings = [_folded(str(column.header), w) for column, w in zip(self.columns, widths, strict=True)]
        ruled = [[rule * w] for w in widths]
        yield from self._row(headings, widths, style="bold", bottom=True)
        yield from self._row(ruled, widths)
        for cells, row in zip(self._cells(), self.rows, strict=True):
            yield from self._row([_folded(cell, w) for cell, w in zip(cells, widths, strict=True)], widths)
            if row.end_section and row is not self.rows[-1]:
                yield from self._row(ruled, widths)

    def _row(
        self, parts: Sequence[list[str]], widths: Sequence[int], *, style: str = "", bottom: bool = False
    ) -> Iterator[Text]:
        height = max(map(len, parts), default=0)
        filled = [_heightened(part, height, bottom=bottom) for part in parts]
        for line in zip(*filled, strict=True):
            cells = [_aligned(*cell) for cell in zip(self.columns, line, widths, strict=True)]
            yield _unwrapped((_GAP + _GAP.join(cells)).rstrip(), style)

    def _tall(self, width: int) -> Iterator[Text]:
        headings = [str(column.header) for column in self.columns]
        key = max(1, min(max(map(cell_len, headings), default=1), width // 2 - len(_GAP)))
        value = max(1, width - key - 2 * len(_GAP))
        for number, cells in enumerate(self._cells()):
            if number:
                yield Text("")
            for heading, cell in zip(headings, cells, strict=True):
                if cell:
                    yield from _pair(_folded(heading, key), _folded(cell, value), key)

    def _cells(self) -> list[tuple[str, ...]]:
        return list(zip(*(map(str, column.cells) for column in self.columns), strict=True))


def table(*columns: str, title: str = "", left: int = 1) -> Table:
    """Return an empty table: the first `left` columns hold names, which may fold, the others numbers, which do not."""
    empty = Table(title=title or None)
    for number, column in enumerate(columns):
        empty.add_column(column, justify="left" if number < left else "right")
    return empty


def _pair(left: list[str], right: list[str], width: int) -> Iterator[Text]:
    for number in range(max(len(left), len(right))):
        heading, cell = (part[number] if number < len(part) else "" for part in (left, right))
        yield _unwrapped(f"{_GAP}{heading}{' ' * (width - cell_len(heading))}{_GAP}{cell}".rstrip())


def _heightened(lines: list[str], height: int, *, bottom: bool) -> list[str]:
    missing = [""] * (height - len(lines))
    return missing + lines if bottom else lines + missing


def _is_name(column: Column) -> bool:
    return column.justify == "left"


def _widths(column: Column) -> tuple[int, int]:
    """Return the least and the largest useful width of a column, in characters."""
    header = str(column.header)
    longest = max((cell_len(str(cell)) for cell in column.cells), default=0)
    word = max(map(cell_len, header.split()), default=0)
    most = max(longest, cell_len(header), 1)
    if not _is_name(column):
        return max(longest, word, 1), most
    words = [word, *(cell_len(part) for cell in column.cells for part in str(cell).split())]
    return min(max(*words, min(most, WORDS_WIDTH)), NAME_WIDTH), most


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * len(widths)


def _shared(widths: Sequence[tuple[int, int]], names: Sequence[bool], width: int) -> list[int]:
    """Return the widths of columns: the space beyond the least widths goes to names first, then to headings."""
    shared = [least for least, _ in widths]
    left = width - _total(shared)
    for is_name in (True, False):
        narrow = [column for column, name in enumerate(names) if name is is_name]
        while left > 0 and (narrow := [column for column in narrow if shared[column] < widths[column][1]]):
            column = min(narrow, key=shared.__getitem__)
            step = min(left, max(1, left // (2 * len(narrow))), widths[column][1] - shared[column])
            shared[column] += step
            left -= step
    return shared


def _folded(text: str, width: int) -> list[str]:
    """Return a text as lines, broken between words, or within a word that is wider than the column."""
    if cell_len(text) <= width:  # most are, and need no more
        return [text]
    lines = Text(text).wrap(_PLAIN, width, overflow="fold")
    return [line.plain.rstrip() for line in lines] or [""]


_PLAIN = Console(width=80, color_system=None)  # `wrap` takes a console, of which it uses tab stops only


def _aligned(column: Column, text: str, width: int) -> str:
    space = " " * (width - cell_len(text))
    return text + space if _is_name(column) else space + text


def _unwrapped(line: str, style: str = "") -> Text:
    return Text(line, style=style, no_wrap=True, overflow="ignore")


def _reading_width(width: int) -> int:
    """Return the width of a caption: limited on a terminal for reading, one line in a pipe."""
    return min(width, _READABLE) if width < 1000 else width


def _lines(text: str, width: int, style: str, indent: str = "") -> Iterator[Text]:
    for line in _folded(printable(text), max(1, width - len(indent))):
        yield _unwrapped(indent + line, style)
