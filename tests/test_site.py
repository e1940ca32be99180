"""The documentation site builds without a warning, and its notebooks show what they print."""

from __future__ import annotations

import html
import inspect
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass

import nbformat
import pytest

import onnx_analog as oa
from onnx_analog.cli import main
from onnx_analog.settings import settings_of
from tests.browser import CHROMIUM, browser
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


def tables_of(page):
    """Return the rows of each entry of the reference that has parameters: (name, type, default), by path."""
    entries = re.split(r'<h[2-6] id="(onnx_analog[^"]*)"', page)[1:]
    found = {}
    for path, entry in zip(entries[::2], entries[1::2], strict=True):
        for table in re.findall(r"Parameters:</span></p>\s*<table>(.*?)</table>", entry, flags=re.DOTALL):
            rows = re.findall(r'<tr class="doc-section-item">(.*?)</tr>', table, flags=re.DOTALL)
            cells = [re.findall(r"<td>(.*?)</td>", row, flags=re.DOTALL) for row in rows]
            found[path] = [tuple(text_of(row[place]) for place in (0, 1, 3)) for row in cells]
    return found


def text_of(cell):
    return html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()


def wrong_rows(path, rows):
    """Return the parameters of an entry whose type or default is not that of the signature, and those it lacks."""
    thing = pkgutil.resolve_name(path)
    real, docstring = inspect.signature(thing).parameters, inspect.getdoc(thing).partition("\nSettings\n---")[0]
    made = {entry.name: entry.default_factory for entry in fields(thing)} if is_dataclass(thing) else {}
    spread = [name for name, *_ in rows if name.startswith("**")]
    wrong = [
        (name, kind, default)
        for name, kind, default in rows
        if name not in spread
        and not (
            is_default(default, real[name].default, made.get(name))
            and is_type(name, kind, real[name].annotation, docstring)
        )
    ]
    code = getattr(inspect.unwrap(thing), "__code__", None)
    taken = set(real) if code is None else set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return wrong + sorted(taken - {"self"} - {name for name, *_ in rows})


def is_default(shown, default, made):
    if repr(default) == "<factory>":
        default = made()
    if default is inspect.Parameter.empty or shown == "required":
        return (default is inspect.Parameter.empty) == (shown == "required")
    if inspect.isroutine(default):
        return shown == default.__name__
    try:
        return eval(shown, {"Modifiers": oa.Modifiers, "Scheme": oa.Scheme}) == default
    except (NameError, SyntaxError):
        return False


def is_type(name, shown, annotation, docstring):
    """Return whether a type is the annotation, or the docstring states it, and contradicts it in no type of number."""
    written = re.search(rf"^(?:[\w, ]+, )?{name}(?:, [\w, ]+)? : (.*?)(?:, optional)?$", docstring, flags=re.MULTILINE)
    if written is None:
        return shown == re.sub(r"\b(?:\w+\.)+", "", str(annotation))
    number = re.match(r"(int|float|bool|str)(?:,|$)", shown)
    return shown == written[1] and (number is None or number[1] in str(annotation))


def test_parameters_of_the_reference_are_those_of_the_signatures(site):
    tables = tables_of((site / "reference" / "python.html").read_text(encoding="utf-8"))
    assert sum(map(len, tables.values())) > 300
    assert {path: found for path, rows in tables.items() if (found := wrong_rows(path, rows))} == {}
    functions = [getattr(oa, name) for name in oa.__all__ if inspect.isfunction(getattr(oa, name))]
    of_several = {f"{f.__module__}.{f.__name__}" for f in functions if len(inspect.signature(f).parameters) > 1}
    assert of_several - set(tables) == set()


@pytest.mark.parametrize(
    "row",
    [
        ("mean", "int", "None"),
        ("mean", "str", "None"),
        ("mean", "float | Iterable[float] | None", "required"),
        ("seed", "int", "seed"),
        ("seed", "int", "1"),
        ("model", "int", "required"),
        ("threads", "float, >= 0", "0"),
    ],
)
def test_a_wrong_type_or_default_is_found(row):
    assert row in wrong_rows("onnx_analog._check.check", [row])


def test_a_parameter_that_is_not_shown_is_found():
    assert "seed" in wrong_rows("onnx_analog._check.check", [("model", "model", "required")])


def test_the_reference_lists_the_settings_of_a_class_that_has_no_list_of_its_own(site):
    tables = tables_of((site / "reference" / "python.html").read_text(encoding="utf-8"))
    for kind in (oa.Scheme, oa.Paper):
        assert {name for name, *_ in tables[f"{kind.__module__}.{kind.__name__}"]} == set(settings_of(kind))


def test_a_page_of_the_site_loads_nothing_from_elsewhere(site):
    loads = r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="(https?:[^"]*)"'
    for page in site.rglob("*.html"):
        assert re.findall(loads, page.read_text(encoding="utf-8")) == []


def found_from_disk(site, words, profile, seconds):
    """Return what a browser shows when words are searched for in a page that is opened from disk."""
    with browser(profile) as opened:
        return opened.text(f"{(site / 'index.html').as_uri()}?q={words}", until="matching document", seconds=seconds)


@pytest.mark.skipif(CHROMIUM is None, reason="no headless Chromium is installed")
def test_the_search_works_in_a_page_that_is_opened_from_disk(site, tmp_path):
    text = found_from_disk(site, "array_statistics", tmp_path / "profile", 60)
    results = text.partition("matching document")[2].partition("Table of contents")[0]
    assert "oa.array_statistics" in results


@pytest.mark.skipif(CHROMIUM is None, reason="no headless Chromium is installed")
def test_a_site_whose_search_does_not_work_from_disk_is_found(site, tmp_path):
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "scripts" / "iframe-worker.js").write_text("")
    assert "matching document" not in found_from_disk(tmp_path / "site", "array_statistics", tmp_path / "profile", 5)


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


def warned(book):
    """Return what the cells of a notebook write to stderr: the warnings of what they do."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    return [output["text"] for output in outputs if output.get("name") == "stderr"]


def own_colours(book):
    """Return the colours that a notebook names itself; those of the package have names in `onnx_analog.drawing`."""
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    return re.findall(r'"#[0-9a-fA-F]{3,8}"|(?:color|c)=["\'][\w:#]+["\']', code)


def test_a_warning_and_a_colour_in_a_notebook_are_found():
    cell = nbformat.v4.new_code_cell('axis.plot(1, 2, color="black")\naxis.plot(1, 2, c=("#1b7837"))')
    cell.outputs = [nbformat.v4.new_output("stream", name="stderr", text="far more may be lost")]
    book = nbformat.v4.new_notebook(cells=[cell])
    assert warned(book) == ["far more may be lost"]
    assert own_colours(book) == ['color="black"', '"#1b7837"']


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_show_what_they_print_and_draw(path):
    run = runpy.run_path(str(DOCS / "make_notebooks.py"))["run"]
    shown, found = nbformat.read(path, as_version=4), run(path)
    assert pictures(shown) == pictures(found) > 0
    assert len(printed(shown)) == len(printed(found)) > 0
    assert all(same_line(one, other) for one, other in zip(printed(shown), printed(found), strict=True))
    assert warned(shown) == warned(found) == []
    assert own_colours(shown) == []
