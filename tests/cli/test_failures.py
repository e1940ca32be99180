from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from onnx_analog import errors
from onnx_analog.cli.console import Group
from onnx_analog.cli.failures import with_options
from onnx_analog.errors import AnalogError
from tests.cli.test_console import tool


def caused_by(cause: Exception) -> Exception:
    """Return an error that wraps another, twice."""
    try:
        try:
            raise ValueError("inner wrapper") from cause
        except ValueError as error:
            raise RuntimeError("outer wrapper") from error
    except RuntimeError as error:
        return error


NO_SPACE = "Error: 'a\\x1b.npz': No space left on device\n"
UNWRITABLE = (
    "Error: a name or a path cannot be written as text: 'utf-8' codec can't encode character '\\ud800' in position 0: "
    "surrogates not allowed\n"
)


def families() -> Iterator[type[AnalogError]]:
    waiting = [AnalogError]
    while waiting:
        family = waiting.pop()
        yield family
        waiting += family.__subclasses__()


CODES = {
    "AnalogError": 1,
    "OptionError": 2,
    "ModelError": 1,
    "NothingToStore": 3,
    "ChannelError": 2,
    "LevelError": 1,
    "MeasurementError": 1,
    "DataError": 1,
    "EngineError": 1,
    "ManifestError": 1,
    "OutputError": 1,
}


def test_the_errors_are_these():
    names = {family.__name__ for family in families() if family.__module__ == errors.__name__}
    assert names == {*CODES, "FunctionError"}  # the command line adds to the latter where to look


def test_an_error_of_a_function_of_the_users_says_where_to_look():
    found = tool(errors.FunctionError("the metric failed"))
    assert "the metric failed. --debug shows where" in found.stderr


@pytest.mark.parametrize("name", CODES)
def test_an_error_of_ours_is_one_line_and_its_exit_code(name):
    found = tool(getattr(errors, name)("what was\n  found"))
    assert (found.exit_code, found.stdout, found.stderr) == (CODES[name], "", "Error: what was found\n")


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (RuntimeError("two\nlines"), 1, "Error: unexpected RuntimeError: two lines. --debug shows where\n"),
        (IndexError("a stop."), 1, "Error: unexpected IndexError: a stop. --debug shows where\n"),
        (RuntimeError(), 1, "Error: unexpected RuntimeError: no reason given. --debug shows where\n"),
        (caused_by(errors.ModelError("is empty")), 1, "Error: is empty\n"),
        (caused_by(OSError(28, "No space left on device", "a\x1b.npz")), 1, NO_SPACE),
        (OSError("no folder for scratch"), 1, "Error: no folder for scratch\n"),
        (RecursionError("maximum"), 1, "Error: the input is nested too deeply\n"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 1, UNWRITABLE),
        (MemoryError(), 1, "Error: not enough memory.\n"),
        (MemoryError("8 GB asked for"), 1, "Error: not enough memory. 8 GB asked for\n"),
        (click.ClickException("of click"), 1, "Error: of click\n"),
        (click.ClickException("x" * 400), 1, f"Error: {errors.one_line('x' * 400)}\n"),
        (KeyboardInterrupt(), 1, "Error: stopped; nothing was written\n"),
        (click.exceptions.Exit(7), 7, ""),
    ],
    ids=[
        *("unforeseen", "with a stop", "without text", "wrapped, ours", "wrapped", "system", "deep", "text"),
        *("memory", "memory's reason", "click", "long", "interrupted", "exit"),
    ],
)
def test_any_other_error_is_told_without_a_traceback(wrong, code, said):
    found = tool(wrong)
    assert (found.exit_code, found.stdout, found.stderr) == (code, "", said)


def test_a_click_usage_error_keeps_its_usage():
    found = tool(click.UsageError("not so"))
    assert found.exit_code == 2
    assert found.stderr.startswith("Usage: ")
    assert found.stderr.endswith("\n\nError: not so\n")


def test_usage_errors_have_the_style_of_all_others_and_one_suggestion():
    """No capital, no full stop, and the option that the fewest edits make of the wrong one."""

    @click.group(cls=Group)
    def main():
        """Do."""

    @main.command()
    @click.option("--mask-seed")
    @click.option("--max-drop", type=float)
    @click.option("--max-trials")
    @click.argument("model", type=click.Path(exists=True))
    def tune(**_):
        """Tune."""

    for line, said in {
        "tune --max-drp 2 .": "no such option '--max-drp': did you mean '--max-drop'?",
        "tune --xyz 2 .": "no such option '--xyz'",
        "tnue": "no such command 'tnue': did you mean 'tune'?",
        "tune": "missing argument 'MODEL'",
        "tune . --max-drop": "option '--max-drop' requires an argument",
        "tune none.onnx": "invalid value for 'MODEL': path 'none.onnx' does not exist",
    }.items():
        found = CliRunner().invoke(main, line.split())
        assert (found.exit_code, found.stderr.splitlines()[-1]) == (2, f"Error: {said}")


def test_messages_name_options_only_for_arguments():
    names = ("class-axis", "samples", "force", "mean", "std", "correct", "reference", "check")
    command = click.Command("c", params=[click.Option([f"--{name}"]) for name in names])
    said = {
        "'a:class_axis=1d' is no number, or 'give samples'": "'a:class_axis=1d' is no number, or 'give samples'",
        'class_axis="my:class_axis" is one': "--class-axis my:class_axis is one",
        "mine:C:class_axis=3 is read": "mine:C:class_axis=3 is read",
        "the metric failed with KeyError: give class_axis": "the metric failed with KeyError: give class_axis",
        "samples is 0; it must be 1": "--samples is 0; it must be 1",
        "the samples are few": "the samples are few",
        "give class_axis": "give --class-axis",
        "'class_axis' is a tensor": "'class_axis' is a tensor",
        "my.class_axis is a tensor": "my.class_axis is a tensor",
        "replace it with force=True": "replace it with --force",
        "give mean and std as in training (these images have mean 0.5 and std 0.2)": (
            "give --mean and --std as in training (these images have mean 0.5 and std 0.2)"
        ),
        "check mean, std, preprocess and the labels": "check --mean, --std, preprocess and the labels",
        "normalised with mean and std": "normalised with mean and std",
        "give std=0.004": "give std=0.004",
        "Give correct that many samples": "Give --correct that many samples",
        "here 0.2: give the same mean, std and preprocess": "here 0.2: give the same --mean, --std and preprocess",
        "Give the same samples, or leave mean, std and reference out": (
            "Give the same --samples, or leave --mean, --std and --reference out"
        ),
        "give samples, and correct what is wrong": "give --samples, and correct what is wrong",
        "give more samples": "give more samples",
        "leave samples for which it overflows": "leave samples for which it overflows",
        "leave samples out": "leave --samples out",
        "these checks give samples.npz": "these checks give samples.npz",
        "samples is 0, and class_axis no setting: choose from samples, class_axis": (
            "--samples is 0, and --class-axis no setting: choose from samples, class_axis"
        ),
    }
    for message, shown in said.items():
        assert with_options(message, command) == shown
