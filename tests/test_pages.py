"""Every block of code of every page is run, or is an exception with a reason."""

from __future__ import annotations

import re

import click
import pytest

from tests.conftest import ROOT
from tests.packages import needs
from tests.page_exceptions import (
    EXCEPTIONS,
    RUN_IN,
    check_command,
    check_extras,
    check_script,
    check_target,
    check_test,
    exception_of,
    read,
)
from tests.pages import PAGES, Ran, blocks, name, not_printed, run_page, run_step, same_line, shows_output

STEPS = [(name(page), step) for page in PAGES for block in blocks(read(page)) for step in block.steps()]
ELSEWHERE = {page for pages in RUN_IN.values() for page in pages}


@needs("matplotlib")
@needs("jinja2")
@pytest.mark.parametrize("page", [page for page in PAGES if name(page) not in ELSEWHERE], ids=name)
def test_every_block_runs_or_is_an_exception(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


@pytest.mark.parametrize("test", RUN_IN)
def test_pages_that_are_run_elsewhere_are_run_there(test):
    check_test(test)
    path, _, function = test.partition("::")
    body = re.split(r"\n(?=\S)", read(ROOT / path).partition(f"def {function}(")[2])[0]
    assert "run_page(" in body


@pytest.mark.parametrize("exempt", EXCEPTIONS, ids=lambda exempt: exempt.step)
def test_each_exception_is_one_and_its_test_is_there(exempt):
    assert any(exception_of(page, step) is exempt for page, step in STEPS)
    if exempt.why.startswith("tests/"):
        check_test(exempt.why.partition(";")[0])


# ------------------------------------------------------------------------------------------------ wrong answers


def test_blocks_are_found_in_fences_and_by_their_indent():
    page = "A\n\n    make a  # b\n\n- c\n  ```sh\n  # d\n  cp e \\\n      f\n  ```\n\n    g\n\n```text\nh\n```\n"
    found = list(blocks(page))
    assert [block.kind for block in found] == ["sh", "sh", "text", "text"]
    assert [block.steps() for block in found] == [["make a  # b"], ["cp e f"], ["g\n"], ["h\n"]]


def test_every_fence_is_one_of_a_block():
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|~~~)", read(page), re.MULTILINE)
        assert len(fences) == 2 * sum(f"```{block.kind}\n" in read(page) for block in blocks(read(page)) if block.kind)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Return a function that runs a page with a text, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.pages.ROOT", tmp_path)

    def run(text):
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
        return run_page(tmp_path / "page.md")

    return run


@pytest.mark.parametrize(
    "block",
    [
        "```rust\nfn main() {}\n```\n",
        "```\nls\n```\n",
        "```sh\ncurl example.org\n```\n",
        "```sh\nonnx-analog inspect none.onnx\n```\n",
        "```sh\nonnx-analog inspect model.onnx --none\n```\n",
        "```python\nraise ValueError\n```\n",
        "```text\nnobody printed this\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```sh\npytest none.py\n```\n",
        "\n\n    any formula\n",
        "```toml\n# sweep.toml\ncells = 1\n```\n\n```sh\nonnx-analog sweep --help\n```\n",
    ],
)
def test_a_block_that_does_not_run_fails(page, block):
    with pytest.raises((AssertionError, ValueError)):
        page(f"# Page\n\n{block}")


def test_a_block_that_runs_is_run(page):
    assert page("```python\nprint(1)\n```\n\n```text\n1\n```\n") == [Ran("print(1)\n", "1\n")]


def test_pages_without_output_are_run_with_few_trials_and_others_as_they_stand(page, tmp_path):
    code = "```python\ntrials=25\nprint(trials)\n```\n"
    assert [ran.printed for ran in page(code)] == ["2\n"]
    assert [ran.printed for ran in page(f"{code}\n```text\n25\n```\n")] == ["25\n"]
    assert shows_output(tmp_path / "page.md")


def test_a_file_is_written_and_used_by_what_follows(page, tmp_path):
    page(
        "```python\n# mine.py\nassert False\n```\n\n```python\nfrom pathlib import Path\nPath('mine.py').stat()\n```\n"
    )
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "# mine.py\nassert False\n"


def test_numbers_may_differ_by_half_a_point():
    ran = [Ran("", "a 1.2 b 3\n")]
    assert not_printed("a 1.6 b 3\n", ran) == []
    assert not_printed("a 1.8 b 3\n", ran) == ["a 1.8 b 3"]
    assert not_printed("a 1.2 b 4\n", ran) == ["a 1.2 b 4"]
    assert not same_line("1.0", "1.0 2.0")


def test_numbers_with_more_decimals_may_differ_by_a_tenth():
    assert same_line("0.571  cells", "0.591 cells")
    assert not same_line("0.571 cells", "0.671 cells")
    assert not same_line("0.571 cells", "0.571 bits")


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (check_command, "onnx-analog guard model.onnx"),
        (check_command, "onnx-analog channel draw pcm"),
        (check_command, "onnx-analog protect model.onnx --cells-tiny 1"),
        (check_command, "onnx-analog protect model.onnx --cells-small none"),
        (check_command, "onnx-analog protect model.onnx --cells-small 0"),
        (check_command, "onnx-analog evaluate model.protected.onnx"),
        (check_command, "onnx-analog protect model.onnx other.onnx"),
        (check_command, "onnx-analog channel fit pairs.csv --input a --output b --log input"),
        (check_command, "onnx-analog channel fit pairs.csv --color ..."),
        (check_script, "python examples/codes.py model.onnx --none 1"),
        (check_script, "python -m fuzz --none"),
        (check_script, "python docs/none.py"),
        (check_target, "make none  # why"),
        (check_extras, "pip install 'onnx-analog[report,none]'"),
    ],
)
def test_checks_reject(check, wrong, tmp_path):
    with pytest.raises((AssertionError, click.UsageError, FileNotFoundError)):
        check(wrong, tmp_path)


@pytest.mark.parametrize("wrong", ["tests/test_pages.py::test_none", "tests/test_none.py::test_a"])
def test_check_test_rejects(wrong):
    with pytest.raises((AssertionError, FileNotFoundError)):
        check_test(wrong)


def test_an_exception_of_a_page_is_none_of_another():
    assert exception_of("docs/cluster.md", "kubectl get pods") is not None
    assert exception_of("docs/gate.md", "kubectl get pods") is None
    with pytest.raises(AssertionError, match="no test runs"):
        run_step("sh", "kubectl get pods", [], whole=True)
