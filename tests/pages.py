"""The pages of the documentation: their blocks of code, and how each is run as a reader types it.

A block is run, or falls under one entry of `EXCEPTIONS`, which says why it is not run here and what is checked instead.
A block that is neither fails, so nobody can add one that no test runs.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
from click.testing import CliRunner

from onnx_analog import demo
from onnx_analog.cli import main
from onnx_analog.tuning import candidates
from tests.conftest import ROOT
from tests.page_exceptions import BEFORE, exception_of, read

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"( *)```([^\n]*)\n(.*?)^\1```\n", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:\A|(?<=\n))\n((?:    [^\n]*\n)+)")
_PROGRAMS = ("make", "cp", "pip", "onnx-analog", "#")  # with which an indented block of commands begins
_FILE = re.compile(r"# ([\w-]+\.\w+)\b")  # the first line of a block that is to be saved


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# ------------------------------------------------------------------------------------------------------ blocks


@dataclass(frozen=True)
class Block:
    """A block of code of a page: of a shell ("sh"), Python ("python"), what is printed or computed ("text"), ..."""

    kind: str
    text: str

    def steps(self) -> list[str]:
        """Return the lines of a shell, without remarks, and any other block as it is."""
        if self.kind != "sh":
            return [self.text]
        lines = re.sub(r"\s*\\\n\s*", " ", self.text).splitlines()
        return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a page in their order: those in fences, and those that are indented by four blanks."""
    rest = text
    while found := min(
        (m for m in (_FENCE.search(rest), _INDENTED.search(rest)) if m), key=re.Match.start, default=None
    ):
        if found.re is _FENCE:
            yield Block(found[2], found[3])
        else:
            code = re.sub("^    ", "", found[1], flags=re.MULTILINE)
            yield Block("sh" if code.split()[0] in _PROGRAMS else "text", code)
        rest = rest[found.end() :]


# ----------------------------------------------------------------------------------------------------- running

_FEWER: Mapping[str, list[str]] = {  # samples and trials, as the numbers that come out are not looked at
    "sweep": ["--trials", "2", "--engine", "serial"],
    "evaluate": ["--trials", "2"],
    "tune": ["--max-drop", "20"],  # so few samples decide no less
    "check": ["--max-drop", "20"],
}
_FEWER_IN_PYTHON = {
    r"\btrials=\d+": "trials=2",
    r"\bmax_drop=[\d.]+": "max_drop=20",
    r'engines\.build\("local", workers=2\)': 'engines.build("serial")',
}


@dataclass(frozen=True)
class Ran:
    """A step that was run, and what it printed."""

    step: str
    printed: str


def run_page(page: Path) -> list[Ran]:
    """Run all steps of a page in the current folder, in their order; return those that were run.

    A page that shows what is printed is run as it stands but for its sweeps, any other with few samples and trials.
    """
    prepare(whole=shows_output(page))
    with _own_modules():
        if name(page) in BEFORE:
            _python(
                next(block.text for block in blocks(read(ROOT / BEFORE[name(page)])) if block.kind == "python"),
                whole=True,
            )
        return _run(page)


def _run(page: Path) -> list[Ran]:
    ran: list[Ran] = []
    for block in blocks(read(page)):
        for step in block.steps():
            exempt = exception_of(name(page), step)
            if exempt is None:
                run_step(block.kind, step, ran, whole=shows_output(page))
            elif exempt.check is not None:
                Path("unused").mkdir(exist_ok=True)
                exempt.check(step, Path("unused"))
    unused = unused_files(page, ran)
    assert unused == [], "no step uses these files, so nothing runs them"
    return ran


def unused_files(page: Path, ran: list[Ran]) -> list[str]:
    """Return the files that blocks of a page write, and no step that was run names: of Python, as a module."""
    texts = (block.text for block in blocks(read(page)) if block.kind != "sh")
    files = [file[1] for text in texts if (file := _FILE.match(text)) and exception_of(name(page), text) is None]
    steps = "\n".join(each.step for each in ran)
    return [file for file in files if not re.search(rf"\b{re.escape(file.removesuffix('.py'))}\b", steps)]


@contextlib.contextmanager
def _own_modules() -> Iterator[None]:
    """Forget the modules that come from the current folder: those of another page may have the same names."""
    folder = Path.cwd()
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
                del sys.modules[name]


def shows_output(page: Path) -> bool:
    texts = (block.text for block in blocks(read(page)) if block.kind == "text")
    return any(exception_of(name(page), text) is None for text in texts)


def prepare(*, whole: bool) -> None:
    """Put the model and the data of the demo into the current folder, unless they are there."""
    if not Path("model.onnx").exists():
        shutil.copy(demo.MODEL, "model.onnx")
        shutil.copy(demo.IMAGES, "test.npz")
        if not whole:
            shorten(Path("test.npz"))


def shorten(data: Path) -> None:
    """Keep the first 200 samples of a file, for speed."""
    with np.load(data) as file:
        arrays = {name: file[name][:200] for name in file.files}
    np.savez(data, **arrays)


def run_step(kind: str, step: str, ran: list[Ran], *, whole: bool) -> None:
    """Run a step and add it to those that ran; `text` must be what some of those before printed."""
    file = _FILE.match(step)
    if file and kind != "sh":
        Path(file[1]).write_text(step, encoding="utf-8")
    elif kind == "text":
        missing = not_printed(step, ran)
        assert missing == [], "no command before it prints this"
    elif kind == "python":
        ran.append(Ran(step, _python(step, whole=whole)))
    else:
        assert kind == "sh", f"no test runs this block of {kind or 'an unknown kind'}:\n{step}"
        ran.append(Ran(step, _line(step, whole=whole)))


def not_printed(text: str, ran: list[Ran]) -> list[str]:
    """Return the lines of a text that no step printed."""
    printed = [line for each in ran for line in each.printed.splitlines()]
    return [line for line in text.splitlines() if not any(same_line(line, other) for other in printed)]


def same_line(one: str, other: str) -> bool:
    """Return whether two lines say the same in numbers that may round otherwise on another machine.

    They differ by half a point at most or, with three decimals and more, by a tenth.
    """
    numbers = [re.findall(r"-?\d+\.\d+", line) for line in (one, other)]
    words = [re.sub(r"-?\d+\.\d+", "0", line).split() for line in (one, other)]
    return words[0] == words[1] and all(_near(*pair) for pair in zip(*numbers, strict=True))


def _near(one: str, other: str) -> bool:
    decimals = len(one.partition(".")[2])
    apart = round(abs(float(one) - float(other)), decimals)
    return apart <= (0.5 if decimals < 3 else max(0.1 * abs(float(one)), 10**-decimals))


def _python(text: str, *, whole: bool) -> str:
    for long, short in {} if whole else _FEWER_IN_PYTHON.items():
        text = re.sub(long, short, text)
    module = ModuleType("page")  # dataclasses look for their module
    known = patch.dict(sys.modules, page=module)
    with known, _fewer_steps(whole=whole), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, "page", "exec", dont_inherit=True), vars(module))
    return out.getvalue()


def _line(line: str, *, whole: bool) -> str:
    program, *words = shlex.split(line, comments=True)
    if program == "cp":
        shutil.copy(ROOT / words[0], words[1])
        return ""
    if program == "pytest":
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
        return done.stdout
    assert program == "onnx-analog", f"no test runs {line!r}"
    if words[:2] == ["demo", "--copy"]:  # `prepare` has done it, for pages that begin otherwise
        words.append("--force")
    if not whole or words[0] == "sweep":
        words += _FEWER.get(words[0], [])
    with _fewer_steps(whole=whole):
        ended = CliRunner().invoke(main, words, prog_name="onnx-analog")
    assert ended.exit_code == 0, f"{line}: {ended.stderr}"
    if words[:2] == ["demo", "--copy"] and not whole:
        shorten(Path("test.npz"))
    return ended.stdout


@contextlib.contextmanager
def _fewer_steps(*, whole: bool) -> Iterator[None]:
    """With all steps, `tune` takes several times as long."""
    steps = candidates.STEPS if whole else candidates.STEPS[::5]
    with patch.object(candidates, "STEPS", steps):
        yield
