"""Write what `onnx-analog tune` prints for the packaged LeNet into docs/tune.md: python docs/make_tune.py.

Takes a minute, and draws docs/tune/lenet.png too.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner

from onnx_analog import demo
from onnx_analog.cli import main, printing

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs" / "tune.md", ROOT / "docs" / "tune" / "lenet.png"
_BLOCK = re.compile(r"```sh\n(onnx-analog tune [^\n]+)\n```\n\n```text\n(.*?)```\n", re.DOTALL)
_WIDTH = 110  # columns of the page


def example(text: str) -> tuple[str, str]:
    """Return the command of the page, and what it says is printed."""
    (found,) = _BLOCK.findall(text)
    return found[0], found[1]


def run(command: str, folder: Path) -> str:
    """Run a command in a folder with the packaged model and data; return its output, as wide as the page."""
    shutil.copy(demo.MODEL, folder / "model.onnx")
    shutil.copy(demo.IMAGES, folder / "test.npz")
    with contextlib.chdir(folder), patch.object(printing, "PIPED_WIDTH", _WIDTH):
        ended = CliRunner().invoke(main, shlex.split(command)[1:], prog_name="onnx-analog", catch_exceptions=False)
    if ended.exit_code:
        raise SystemExit(ended.stderr)
    return ended.stdout


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    command, before = example(page)
    with tempfile.TemporaryDirectory() as folder:
        printed = run(command, Path(folder))
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / "tuned.png", PICTURE)
    head, _, rest = page.partition(f"```text\n{before}```")
    PAGE.write_text(f"{head}```text\n{printed.rstrip()}\n```{rest}", encoding="utf-8")
