"""docs/sensitivity.md says what the command prints."""

from __future__ import annotations

import re
import shlex
import shutil

import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.cli import main
from tests.conftest import ROOT
from tests.test_page_of_gate import same_line

PAGE = (ROOT / "docs" / "sensitivity.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    (text, *_) = re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(text)


def test_the_page_shows_what_the_command_prints(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    shutil.copy(demo.MODEL, "model.onnx")
    shutil.copy(demo.IMAGES, "test.npz")
    command = shlex.split(block("sh"))[1:]
    result = CliRunner().invoke(main, command, prog_name="onnx-analog")
    assert result.exit_code == 0, result.output
    shown = block("text")
    assert any(same_line(line, shown) for line in result.stdout.splitlines())
    assert not any(same_line(line, shown.replace("79.8", "97.8")) for line in result.stdout.splitlines())


def test_the_share_and_the_cells_are_as_the_page_says():
    found = oa.sensitivity(demo.MODEL, demo.IMAGES, mean=0.1307, std=0.3081)
    worst = found.of("tensor")[0]
    text = " ".join(PAGE.split())
    share, cells = 100 * found.share(worst), 100 * worst.part.cells / found.whole.part.cells
    weights = f"{worst.part.weights} of {found.whole.part.weights:,} weights"
    (said,) = re.findall(rf"{weights} do ([\d.]+) % of the harm, in {cells:.1f} % of the cells", text)
    assert abs(float(said) - share) < 0.5  # machines may round otherwise


def test_the_python_block_runs(capsys):
    exec(block("python"), {})
    assert re.fullmatch(r"conv1.weight \d+ % of the divergence\n", capsys.readouterr().out)
