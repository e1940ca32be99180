"""The blocks of pages that are not run as they stand: why not, and what is checked instead."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import click

from onnx_analog.cli import main
from tests.conftest import ROOT


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def check_command(command: str, folder: Path) -> None:
    """Fail unless the command line takes `command`, which is not run; "..." stands for what a page leaves out.

    Every word is the name of an empty file in `folder`, for arguments that must be files; DIR and FOLDER are folders.
    """
    _, *words = shlex.split(command, comments=True)
    found: click.Command = main
    while isinstance(found, click.Group) and words:
        assert words[0] in found.commands, f"{words[0]!r} is no command of {found.name}"
        found = found.commands[words.pop(0)]
    if words and words[-1] != "...":
        _takes(found, words, folder)
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known, f"{command!r} has options that are not there"


def _takes(found: click.Command, words: list[str], folder: Path) -> None:
    with contextlib.chdir(folder):
        for file in (Path(word) for word in words if "://" not in word):
            (file if file.name in ("DIR", "FOLDER") else file.parent).mkdir(parents=True, exist_ok=True)
            file.touch()
        found.make_context(str(found.name), list(words))


def check_script(command: str, folder: Path) -> None:
    """Fail unless a script of the repository takes `python SCRIPT ...` or `python -m MODULE ...`, which is not run."""
    _, script, *words = shlex.split(command, comments=True)
    if script == "-m":
        script = words.pop(0).replace(".", "/")
        script += "/__main__.py" if (ROOT / script).is_dir() else ".py"
    source = read(ROOT / script)
    if "import click" not in source:
        options = {word for word in words if word.startswith("-")}
        assert options <= set(re.findall(r'"(--[\w-]+)"', source)), f"{command!r} has options that are not there"
    elif "from training import" not in source or find_spec("torch"):
        _takes(_main_of(ROOT / script), words, folder)


def _main_of(script: Path) -> click.Command:
    with patch.object(sys, "path", [str(script.parent), *sys.path]):
        command: click.Command = importlib.import_module(script.stem).main
    return command


def check_target(command: str, folder: Path) -> None:
    """Fail unless the Makefile has the target of `make TARGET`."""
    _, target, *_ = shlex.split(command, comments=True)
    assert re.search(rf"^{target}:", read(ROOT / "Makefile"), re.MULTILINE), f"the Makefile has no target {target}"


def check_extras(command: str, folder: Path) -> None:
    """Fail unless the package has the extras that `pip install` names."""
    named = {extra for extras in re.findall(r"(?:onnx-analog|\.)\[([\w,]+)\]", command) for extra in extras.split(",")}
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    assert named <= set(extras), f"{command!r} names extras that are not there"


def check_job(text: str, folder: Path) -> None:
    """Fail unless the command line takes the command of a RayJob."""
    (command,) = re.findall(r"^  entrypoint: >-\n    (.*)$", text, re.MULTILINE)
    check_command(command.replace("/sweep/", ""), folder)


def check_python(text: str, folder: Path) -> None:
    """Fail unless Python can compile a script."""
    compile(text, "script", "exec")


def check_test(test: str) -> None:
    """Fail unless there is a test of this name, as "tests/test_a.py::test_b"."""
    path, _, function = test.partition("::")
    assert re.search(rf"^def {function}\(", read(ROOT / path), re.MULTILINE), f"there is no {test}"


@dataclass(frozen=True)
class Exempt:
    """Steps that are not run as a page has them.

    Attributes
    ----------
    page : pattern
        Of the names of pages.
    step : pattern
        Of the beginning of the steps: a line of a shell, or another block.
    why : str
        Why they are not run; or the test that runs them, as "tests/test_a.py::test_b".
    check : function (step, folder), optional
        Raises an error unless the step is right, as far as that can be told.
    """

    page: str
    step: str
    why: str
    check: Callable[[str, Path], None] | None = None

    def holds(self, page: str, step: str) -> bool:
        return bool(re.fullmatch(self.page, page) and re.match(self.step, step))


_OTHERS = r"onnx-analog [^\n]*\b(?:resnet\d+-|lenet-mnist\.onnx|lenet-seed)"
_CLUSTER = r"(?:dask|ray|helm|kubectl|head=\$|FROM rayproject|python cluster\.py)"
_CONTRIBUTING, _FORMATS, _GATE = (
    f"tests/{name}.py::test_" for name in ("test_contributing", "graph/test_formats", "test_page_of_gate")
)
EXCEPTIONS = (
    Exempt(".*", "make ", "sets up an environment, or takes minutes; `make test` cannot run itself", check_target),
    Exempt(".*", "pip install ", "needs the network", check_extras),
    Exempt(".*", r"python (?:examples/|docs/make_|benchmarks/|-m fuzz)", "takes minutes to days", check_script),
    Exempt(".*", _OTHERS, "takes hours, or needs a network or images that are not in the repository", check_command),
    Exempt(".*", r"onnx-analog [^\n]*--engine (?:dask|ray)", "needs a cluster", check_command),
    Exempt("docs/sensitivity.md", "model-explorer ", "needs 0.8 GB of packages; `make test-explorer` runs it"),
    Exempt("docs/cluster.md", _CLUSTER, "needs the machines of a cluster"),
    Exempt("docs/cluster.md", r"# cluster\.py", "needs SLURM", check_python),
    Exempt("docs/cluster.md", r"# sweep\.yaml", "needs Kubernetes", check_job),
    Exempt("docs/test-groups.md", "=+ test session starts|tests/tuning/", "shows what takes minutes"),
    Exempt(r"docs/(?:compensation|correction|formats|statistics)\.md", ".* (?:=|becomes) ", "is a formula"),
    Exempt("docs/formats.md", r"Decode \[Masked\]", "is a pattern of names"),
    Exempt("CONTRIBUTING.md", r"# my_strategy\.py", f"{_CONTRIBUTING}a_strategy_of_ones_own_protects_and_is_compared"),
    Exempt(
        "CONTRIBUTING.md",
        r"# my_(?:channel|metric|estimator)\.py",
        f"{_CONTRIBUTING}channel_metric_and_estimator_of_ones_own_are_used_together",
    ),
    Exempt("CONTRIBUTING.md", r"# my_command\.py", f"{_CONTRIBUTING}a_command_of_ones_own_stands_beside_all_others"),
    Exempt("CONTRIBUTING.md", "step: ", f"{_CONTRIBUTING}the_declaration_in_contributing_is_that_of_the_code"),
    Exempt(
        "docs/formats.md",
        r"[-\d. ]+\n[-\d. ]+\n\Z",
        f"{_FORMATS}the_worked_example_has_the_planes_that_are_written_there",
    ),
    Exempt("docs/formats.md", r'\{\n  "format"', f"{_FORMATS}the_plan_that_is_shown_is_one"),
    Exempt("docs/gate.md", r"#!/bin/sh\nset -e", f"{_GATE}the_script_stops_unless_the_answer_is_yes"),
    Exempt("docs/gate.md", r"#!/bin/sh\ncode=0", f"{_GATE}the_script_that_lets_an_open_answer_pass_tells_it_from_no"),
    Exempt("docs/gate.md", "jobs:|survives:", f"{_GATE}ci_runs_the_command_of_the_script"),
    Exempt("docs/tune.md", "  top1, pcm", "tests/test_page_of_tune.py::test_the_page_shows_what_the_command_prints"),
    Exempt(
        "docs/writing_a_channel.md",
        r" *family:|\[project\.entry",
        "tests/test_page_of_channel.py::test_a_channel_of_a_package_is_found_by_its_name",
    ),
)
RUN_IN = {  # the tests that run pages and check more of what comes out; tests/test_pages.py runs all others
    "tests/test_documents.py::test_the_readme_can_be_typed_and_then_other_pages_in_the_same_folder": (
        "README.md", "docs/sweeps.md", "docs/own_measurements.md", "docs/correction.md", "docs/compensation.md",
    ),
    f"{_GATE}the_page_runs_and_every_field_of_the_json_is_on_it": ("docs/gate.md",),
    "tests/test_page_of_real_array.py::test_the_example_runs_and_prints_what_the_page_shows": ("docs/real_array.md",),
}  # fmt: skip
BEFORE = {"docs/tune.md": "docs/compensation.md"}  # pages whose first block of Python makes what a page needs


def exception_of(page: str, step: str) -> Exempt | None:
    """Return the first entry of `EXCEPTIONS` that holds for a step of a page."""
    return next((each for each in EXCEPTIONS if each.holds(page, step)), None)
