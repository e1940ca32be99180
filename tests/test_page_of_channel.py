"""docs/writing_a_channel.md: its channels do what it says."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from onnx_analog import demo
from onnx_analog.cli import main
from tests.conftest import ROOT
from tests.page_exceptions import read
from tests.pages import blocks

PAGE = read(ROOT / "docs" / "writing_a_channel.md")


def block(beginning: str) -> str:
    """Return the block of the page that begins so."""
    (found,) = (each.text for each in blocks(PAGE) if each.text.lstrip().startswith(beginning))
    return found


def names_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "my_package"}
    exec(compile(text, "writing_a_channel.md", "exec", dont_inherit=True), found)
    return found


def test_the_channel_that_is_written_works():
    channel = names_of(block("# my_module.py"))["Ferroelectric"](floor=0.05)
    level = np.array([0.0, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(channel.std(level), [0.05, 0.075, 0.1])
    assert channel.read(level, cells=4, rng=np.random.default_rng(0)).shape == (3,)


def test_the_channel_that_separates_programming_from_reading_works():
    channel = names_of(block("# settled.py"))["Settled"]().changed(cells_hold="residual")
    level = np.full(1000, 0.5, np.float32)
    _, averaged = channel.inner.moments(level[:1], cells=3)
    # Residual cells leave little more than √2 times the read noise of 0.01; three cells averaged have 0.029.
    assert channel.read(level, cells=3, rng=np.random.default_rng(0)).std() < 0.7 * averaged[0]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install the package of the page in a folder: its module, with the family, and its entry points."""
    head, tail = block("# my_module.py").split("    floor: float")
    (tmp_path / "my_package.py").write_text(f"{head}{block('family:')}\n    floor: float{tail}", encoding="utf-8")
    points = tomllib.loads(block("[project"))["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {target}\n" for group, of in points.items() for name, target in of.items()]
    installed = tmp_path / "my_package-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text("".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("package")
def test_a_channel_of_a_package_is_found_by_its_name():
    shutil.copy(demo.MODEL, "model.onnx")
    for line in ("protect model.onnx --channel ferroelectric:floor=0.05", "manifest model.protected.onnx --json"):
        ended = CliRunner().invoke(main, line.split(), prog_name="onnx-analog")
        assert ended.exit_code == 0, ended.stderr
    (scheme,) = json.loads(ended.stdout)["schemes"]
    assert scheme["channel"] == {"family": "ferroelectric", "floor": 0.05}
