import csv
import tomllib

import pytest

from tests.conftest import ROOT
from tests.packages import imported, needs


@pytest.mark.parametrize(
    ("package", "ci", "skipped"), [("no_such", "", True), ("no_such", "1", False), ("csv", "", False)]
)
def test_a_test_is_skipped_for_what_is_missing_but_not_in_ci(package, ci, skipped, monkeypatch):
    monkeypatch.setenv("CI", ci)
    mark = needs(package).mark
    assert (mark.args, mark.kwargs["reason"]) == ((skipped,), f"{package} is not installed")


def test_a_package_that_is_missing_skips_a_test_and_fails_it_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "")
    assert imported("csv") is csv
    with pytest.raises(pytest.skip.Exception, match="no_such is not installed"):
        imported("no_such")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        imported("no_such")


def test_every_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "onnx_analog").rglob("__init__.py")}
    assert set(listed) == found | {"onnx_analog.passes"}
