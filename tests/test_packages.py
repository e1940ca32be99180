import pytest

from tests.packages import needs


@pytest.mark.parametrize(
    ("package", "ci", "skipped"), [("no_such", "", True), ("no_such", "1", False), ("csv", "", False)]
)
def test_a_test_is_skipped_for_what_is_missing_but_not_in_ci(package, ci, skipped, monkeypatch):
    monkeypatch.setenv("CI", ci)
    mark = needs(package).mark
    assert (mark.args, mark.kwargs["reason"]) == ((skipped,), f"{package} is not installed")
