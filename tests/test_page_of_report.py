"""docs/report.md says which commands write a report, and its Python runs."""

from __future__ import annotations

import re

import click

from onnx_analog.cli import main
from tests.conftest import ROOT
from tests.packages import needs

PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
pytestmark = [needs("matplotlib"), needs("jinja2")]


def with_report(group: click.Group) -> set[str]:
    """Return the commands that have the option."""
    return {name for name, command in group.commands.items() if any("--report" in each.opts for each in command.params)}


def test_the_page_names_every_command_that_has_the_option():
    sentence = next(line for line in PAGE.split(". ") if "have the option" in line)
    assert set(re.findall(r"`(\w+)`", sentence)) == with_report(main)


def test_each_of_them_has_an_example():
    examples = re.findall(r"onnx-analog (\w+) [^\n]* --report", PAGE)
    assert set(examples) == with_report(main)
