"""Writes the answer of `check` as JUnit XML, the format of test reports that CI servers read."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from onnx_analog.cli.failures import in_options
from onnx_analog.errors import printable, printable_lines
from onnx_analog.tuning.checked import Checked, with_option

SUITE = "onnx-analog check"


def report(checked: Checked, *, seconds: float) -> str:
    """Return a report of one test case: passed, failed, or with an error if the answer is not decided.

    A check that decides nothing is an error and not skipped: CI servers let a skipped test pass, and a gate that does
    not know has not let anything pass.
    """
    kind = {True: None, False: "failure", None: "error"}[checked.holds]
    counts = {
        "tests": "1",
        "failures": str(int(kind == "failure")),
        "errors": str(int(kind == "error")),
        "skipped": "0",
    }
    time = {"time": f"{seconds:.3f}"}
    suites = ET.Element("testsuites", {"name": SUITE, **counts, **time})
    suite = ET.SubElement(suites, "testsuite", {"name": SUITE, **counts, **time})
    name = printable(f"{checked.model or 'model'}: {checked.question}")
    case = ET.SubElement(suite, "testcase", {"classname": "onnx_analog.check", "name": name, **time})
    if kind is not None:
        line = printable(with_option(str(checked)))
        ET.SubElement(case, kind, {"type": checked.answer, "message": line}).text = line
    ET.SubElement(case, "system-out").text = printable_lines("\n".join(_details(checked)))
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=False).join((_DECLARATION, "\n"))


_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def to_dict(checked: Checked) -> dict[str, Any]:
    """Return the answer, ready for JSON, with options in what it says."""
    body = checked.to_dict()
    return {**body, **{name: with_option(body[name]) for name in ("line", "verdict")}}


def _details(checked: Checked) -> list[str]:
    """Return the answer in one line, and then all that it rests on, a line each."""
    rows = ((name, value) for name, value in to_dict(checked).items() if name not in ("line", "warnings"))
    listed = [f"{name}: {value}" for name, value in rows if value not in (None, "")]
    return [with_option(str(checked)), *listed, *(f"warning: {in_options(text)}" for text in checked.warnings)]
