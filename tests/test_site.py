"""The documentation site builds without a warning, and its notebooks show what they print."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import nbformat
import pytest

import onnx_analog as oa
from onnx_analog.cli import main
from tests.conftest import ROOT
from tests.pages import same_line

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_each_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {path.name for path in DOCS.glob("*.md")} <= set(listed)


def test_the_reference_has_all_names_and_commands(site):
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    missing = [name for name in oa.__all__ if callable(getattr(oa, name)) and f"oa.{name}\n" not in python]
    assert missing == []
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in main.commands if f'id="onnx-analog-{name}"' not in commands] == []


def test_a_page_of_the_site_loads_nothing_from_elsewhere(site):
    loads = r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(https?:[^"]*)"'
    for page in site.rglob("*.html"):
        assert re.findall(loads, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("link", "code"), [("index.md", 0), ("none.md", 1), ("index.md#none", 1)])
def test_a_link_that_leads_nowhere_fails(tmp_path, link, code):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"[a]({link})", encoding="utf-8")
    of_page = "nav: [index.md]\nhooks: []\nplugins: []\ntheme: mkdocs\nmarkdown_extensions: []\n"
    (tmp_path / "mkdocs.yml").write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\n{of_page}", encoding="utf-8")
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build"], cwd=tmp_path, capture_output=True, check=False)
    assert built.returncode == code, built.stderr


def printed(book):
    """Return the lines that the cells of a notebook print."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout").splitlines()


def pictures(book):
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_show_what_they_print_and_draw(path):
    run = runpy.run_path(str(DOCS / "make_notebooks.py"))["run"]
    shown, found = nbformat.read(path, as_version=4), run(path)
    assert pictures(shown) == pictures(found) > 0
    assert len(printed(shown)) == len(printed(found)) > 0
    assert all(same_line(one, other) for one, other in zip(printed(shown), printed(found), strict=True))
    assert not [output for cell in shown.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
