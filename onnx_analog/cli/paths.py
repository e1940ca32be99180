"""Types of options that are paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from onnx_analog.errors import is_function_name


class _Path(click.Path):
    """A path; refuses an empty one, and a zero byte, which a file of options may hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        if not os.fspath(value):
            self.fail("the path is empty", param, ctx)
        if "\0" in str(value):
            self.fail("a path cannot hold a zero byte", param, ctx)
        return super().convert(value, param, ctx)


class FileOr(_Path):
    """A file that exists, or a word that stands in its place."""

    def __init__(self, word: str) -> None:
        super().__init__(exists=True, dir_okay=False)
        self._word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the word, or fail as click does."""
        text = os.fspath(value)
        if text == self._word:
            return text
        like_a_path = not text or "\0" in text or Path(text).exists() or Path(text).suffix or os.sep in text
        if not like_a_path:
            self.fail(f"{text!r} is neither a file nor the word {self._word}", param, ctx)
        return super().convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        """Return that a file completes the word, and the word that stands for one, once its first letter is typed."""
        from click.shell_completion import CompletionItem

        word = [self._word] if incomplete and self._word.startswith(incomplete) else []  # bash prefers it to files
        return [*super().shell_complete(ctx, param, incomplete), *map(CompletionItem, word)]


class _FileOrFunction(_Path):
    """A file that exists, or module:function."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, or fail as click does."""
        if is_function_name(value):
            return value
        return super().convert(value, param, ctx)


class _Out(_Path):
    """A path to be written. Refuses "-", which means stdout in other programs."""

    def __init__(self, *, folder: bool) -> None:
        super().__init__(path_type=Path)
        self._folder = folder  # whether it may be one

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail as click does."""
        text = os.fspath(value)
        if text == "-":
            self.fail("'-' would be a file, not the standard output. Write ./- for a file of that name", param, ctx)
        if text and not self._folder and (text.endswith("/") or Path(text).name in ("", "..")):
            self.fail(f"{text!r} is a folder; a file is needed", param, ctx)
        return super().convert(value, param, ctx)


FILE = _Path(exists=True, dir_okay=False, path_type=Path)
OUT = _Out(folder=False)
OUT_OR_FOLDER = _Out(folder=True)
FILE_NAME = _Path(exists=True, dir_okay=False)  # as text
FILE_OR_FUNCTION = _FileOrFunction(exists=True, dir_okay=False)  # as text
