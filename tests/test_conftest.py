"""What all tests share: the standard of messages, on messages that do not keep it, and the limits of slow tests."""

import pytest

from onnx_analog.errors import LONGEST, ModelError
from tests.conftest import LONG_S, faults, printed_errors, pytest_collection_modifyitems
from tests.extras import missing_extra, skip_without_extra

GOOD = "'model.onnx': the tensor 'w' holds NaN in row 3. Leave it digital with --exclude '^w$'."


@pytest.mark.parametrize("message", [GOOD, "x" * LONGEST, "σ is 0; it must be above 0"])
def test_a_message_that_keeps_the_standard_has_no_fault(message):
    assert faults(message) == []


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("", "is empty"),
        ("two\nlines", "is no printable line"),
        ("colour \x1b[31m", "is no printable line"),
        ("turned \u202e round", "is no printable line"),
        ("trailing ", "has blanks around it"),
        ("x" * (LONGEST + 1), f"is longer than {LONGEST}"),
        ("it failed (run again with --debug)", "asks to run again"),
        ("PassError: an error occurred", "names a class of Python"),
        ("ValueError: no", "names a class of Python"),
        ("cannot read: KeyError('x')", "shows Python's own text"),
        ("<onnx_ir.Model object at 0x7f>", "shows Python's own text"),
        ("its classes is [ClassEntry(low=1.0, high=2.0)]", "shows Python's own text"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT", "shows Python's own text"),
    ],
)
def test_a_message_that_does_not_is_found(message, fault):
    assert any(found.endswith(fault) for found in faults(message))


def test_what_nobody_foresaw_may_name_its_class():
    assert faults("unexpected ValueError: no. --debug shows where", unforeseen=True) == []


def test_errors_are_found_in_what_a_command_printed():
    assert printed_errors("WARNING: a\nError: one\n") == ["one"]
    assert printed_errors("Usage: x\n\nError: one\n  line more\n") == ["one\n  line more"]
    assert printed_errors("a warning that quotes Error: no\n") == []


@pytest.mark.xfail(strict=True, reason="the hook fails any test that meets such a message")
def test_a_test_that_meets_such_a_message_fails():
    with pytest.raises(ModelError):
        raise ModelError("PassError: an error occurred")


@pytest.mark.any_message
def test_a_test_may_say_that_it_does_so_on_purpose():
    with pytest.raises(ModelError):
        raise ModelError("PassError: an error occurred")


def error_of(code: str) -> Exception:
    try:
        exec(code, {})
    except Exception as error:
        return error
    raise AssertionError("no error")


MISSING = "raise ModuleNotFoundError('no torch', name='torch.nn')"
WITHIN = f"try:\n    {MISSING}\nexcept ImportError as error:\n    raise ValueError('needs torch') from error"

CIRCLE = "one, two = ValueError(), ValueError()\none.__cause__, two.__cause__ = two, one\nraise one"


@pytest.mark.parametrize(
    ("code", "package"),
    [
        (MISSING, "torch"),
        (WITHIN, "torch"),
        ("raise ValueError('the engine ray needs Ray')", "ray"),
        ("import no_such_module_at_all", None),
        (CIRCLE, None),
        ("assert 0", None),
    ],
)
def test_an_extra_that_is_missing_is_seen(code, package):
    assert missing_extra(error_of(code)) == package


def test_without_an_extra_tests_skip_and_fail_where_ci_is_set(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="torch is not installed"):
        skip_without_extra(error_of(WITHIN))
    skip_without_extra(error_of("assert 0"))
    monkeypatch.setenv("CI", "1")
    skip_without_extra(error_of(WITHIN))


@pytest.mark.parametrize(
    ("marks", "limits"),
    [
        ([], []),
        ([pytest.mark.any_message], []),
        ([pytest.mark.slow(reason="1 s, 1 MB")], [LONG_S]),
        ([pytest.mark.cluster(reason="1 s, 1 MB")], [LONG_S]),
        ([pytest.mark.slow(reason="1 s, 1 MB"), pytest.mark.timeout(60)], [60]),
        ([pytest.mark.timeout(60)], [60]),
    ],
)
def test_slow_tests_have_more_time_unless_they_have_a_limit_of_their_own(marks, limits, request):
    item = pytest.Function.from_parent(request.node.parent, name="slow", callobj=lambda: None)
    for mark in marks:
        item.add_marker(mark)
    pytest_collection_modifyitems([item])
    assert [mark.args[0] for mark in item.iter_markers("timeout")] == limits
