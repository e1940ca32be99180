"""Write the table of docs/limits.md from the channels that are installed: python docs/make_limits.py."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from onnx_analog import channels

PAGE = Path(__file__).with_name("limits.md")
_HEAD = "| channel | changes with time | programming and reading apart | limits of the model |"
_TABLE = re.compile(rf"{re.escape(_HEAD)}\n(?:\|.*\n)*")


def named() -> list[str]:
    """Return the names of the channels of this package that need no file."""
    needs = runpy.run_path(str(Path(__file__).with_name("make_channels.py")))["NEEDS_A_FILE"]
    entries = channels.available().items()
    return [name for name, entry in entries if entry.value.startswith("onnx_analog.") and name not in needs]


def row(name: str) -> str:
    channel = channels.resolve(name)
    facts = (hasattr(channel, "read_after_s"), channel.separated is not None)
    return f"| `{name}` | {' | '.join('yes' if fact else 'no' for fact in facts)} | {channel.source.left_out} |\n"


def table() -> str:
    return f"{_HEAD}\n{'|---' * 4}|\n" + "".join(map(row, named()))


def with_table(page: str) -> str:
    """Return the page with the table as it is now."""
    (before,) = _TABLE.findall(page)
    return page.replace(before, table())


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE)
