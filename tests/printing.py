"""What is printed on a console, and whether it is whole."""

import io
import re
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from onnx_analog.cli.tables import Table

WIDTHS = (40, 60, 80, 120, 100_000)  # the last is a pipe's


def printed(shown: Any, width: int, *, encoding: str = "utf-8") -> str:
    """Return what a console of `width` columns shows."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, markup=False, emoji=False, highlight=False).print(shown)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def squeezed(text: str) -> str:
    return "".join(text.split())


def sliced(line: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the pieces of a line between columns of the console, where a character may take two."""
    pieces, at = [""] * len(spans), 0
    for character in line:
        for place, (first, end) in enumerate(spans):
            if first <= at < end:
                pieces[place] += character
        at += cell_len(character)
    return pieces


def parsed(shown: str, columns: int) -> tuple[list[str], list[str]]:
    """Return headings, and for each column all that stands in it, folded pieces joined, without spaces."""
    lines = shown.splitlines()
    rules = [place for place, line in enumerate(lines) if re.fullmatch(r"(?:  ─+)+", line)]
    spans = [match.span() for match in re.finditer("─+", lines[rules[0]])]
    assert len(spans) == columns
    head = [sliced(line, spans) for line in lines[: rules[0]]]
    body = [sliced(line, spans) for line in lines[rules[0] + 1 :] if not re.fullmatch(r"(?:  ─+)+", line)]
    join = lambda rows: [squeezed("".join(row[place] for row in rows)) for place in range(columns)]  # noqa: E731
    return join(head), join(body)


def contents(table: Table) -> list[tuple[str, list[str]]]:
    return [(str(column.header), [str(cell) for cell in column.cells]) for column in table.columns]


def assert_whole(table: Table, width: int) -> None:
    """Fail unless all headings, names and numbers of a table without title and caption are in what is printed."""
    shown = printed(table, width)
    assert max(map(cell_len, shown.splitlines()), default=0) <= width
    expected = contents(table)
    if "─" in shown:
        headings, columns = parsed(shown, len(expected))
        assert headings == [squeezed(heading) for heading, _ in expected]
        assert columns == [squeezed("".join(cells)) for _, cells in expected]
        numbers = [cell for column, (_, cells) in zip(table.columns, expected, strict=True) for cell in cells
                   if column.justify == "right"]  # fmt: skip
        for number in numbers:
            assert number in shown  # on one line
        return
    blocks = re.split(r"\n\s*\n", shown.strip("\n"))
    rows = [row for row in zip(*(cells for _, cells in expected), strict=True) if any(row)]
    assert len(blocks) == len(rows)
    for block, row in zip(blocks, rows, strict=True):
        for piece in (piece for cell in row for piece in cell.split()):
            assert piece in block or _in_pieces(piece, block)


def _in_pieces(piece: str, block: str) -> bool:
    """Return whether `piece` is folded over the ends of some lines, right of their headings."""
    ends = [line.rstrip() for line in block.splitlines()]
    tails = [re.split(r"\s{2,}", line)[-1] for line in ends]
    return squeezed(piece) in squeezed("".join(tails))
