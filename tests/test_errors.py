"""The tree of errors is drawn in the docstring of its module; here it is compared with the classes."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import demo, errors
from onnx_analog.cli import main
from onnx_analog.errors import AnalogError, OptionError, require_int, require_path

Tree = dict[str, tuple[str, int | None]]  # name to parent and exit code
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AnalogError)]
_LINE = re.compile(r"^(?P<branches>(?:│   |    )*)(?:├── |└── )(?P<name>\w+) +(?P<code>\d+) +(?P<meaning>.*)$")


def drawn(text: str) -> Tree:
    """Return the tree in a docstring: one class a line, four characters deeper than its parent."""
    root = next(line.split()[0] for line in text.splitlines() if line.endswith("exit code"))
    found: Tree = {root: ("", None)}
    path = [root]
    for line in text.splitlines():
        if match := _LINE.match(line):
            depth = len(match["branches"]) // 4 + 1
            path[depth:] = [match["name"]]
            found[match["name"]] = (path[depth - 1], int(match["code"]))
    return found


def real() -> Tree:
    """Return the tree of the classes; the root's own exit code is not drawn."""
    parents = {kind: next((b for b in kind.__bases__ if issubclass(b, AnalogError)), None) for kind in CLASSES}
    return {
        kind.__name__: (parent.__name__, kind.exit_code) if parent else ("", None) for kind, parent in parents.items()
    }


def meanings(text: str) -> dict[str, str]:
    return {match["name"]: match["meaning"] for line in text.splitlines() if (match := _LINE.match(line))}


def test_the_drawn_tree_is_the_real_one():
    assert drawn(str(errors.__doc__)) == real()
    assert len(real()) == 12


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("│   └── NothingToStore    3", "├── NothingToStore        3"),
        ("NothingToStore    3", "NothingToStore    1"),
        ("│   ├── LevelError        1   a level lies outside what a channel can hold\n", ""),
        ("└── OutputError", "└── OutpurError"),
        ("├── OptionError           2", "├── OptionError           1"),
        ("AnalogError  ", "Exception  "),
    ],
)
def test_a_tree_drawn_wrong_is_noticed(right, wrong):
    text = str(errors.__doc__)
    assert text.count(right) == 1
    assert drawn(text.replace(right, wrong)) != real()


def test_every_error_is_one_of_ours():
    raised = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert raised == CLASSES


def test_what_is_drawn_beside_a_class_is_what_it_says_itself():
    for kind in CLASSES:
        if kind is not AnalogError:
            said = str(kind.__doc__)
            assert meanings(str(errors.__doc__))[kind.__name__] == said[0].lower() + said[1:].removesuffix(".")


def test_exit_codes_are_those_of_the_command_line():
    codes = {kind.__name__: kind.exit_code for kind in CLASSES if kind.exit_code != 1}
    assert codes == {"OptionError": 2, "ChannelError": 2, "NothingToStore": 3}
    assert AnalogError.exit_code == 1


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.OptionError, ValueError),
        (errors.LevelError, ValueError),
        (errors.ManifestError, ValueError),
        (errors.OutputError, OSError),
    ],
)
def test_who_does_not_know_this_package_can_catch_them_too(kind, builtin):
    with pytest.raises(builtin, match="what was found"):
        raise kind("what was found")


@pytest.mark.parametrize("kind", [errors.OptionError, errors.ChannelError])
def test_an_error_about_the_content_of_a_file_has_the_code_of_data(kind):
    again = errors.located(kind("what was found"), "'plan.json'")
    assert (type(again), again.exit_code, kind("what was found").exit_code) == (kind, 1, 2)
    assert str(again) == "'plan.json': what was found"


def test_an_error_that_is_only_ours_is_no_other():
    ours = {kind.__name__ for kind in CLASSES if not issubclass(kind, ValueError | OSError)}
    assert ours == {
        "AnalogError",
        "ModelError",
        "NothingToStore",
        "ChannelError",
        "MeasurementError",
        "DataError",
        "FunctionError",
        "EngineError",
    }


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_comes_back_from_a_worker(kind):
    again = pickle.loads(pickle.dumps(kind("what was found")))
    assert (type(again), str(again)) == (kind, "what was found")


@pytest.mark.parametrize("value", [1.5, True, "2", None, np.float64(2)])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(OptionError, match=r"cells is .*; it must be a whole number"):
        require_int("cells", value)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_of_any_type_are_taken(value):
    assert require_int("cells", value) == 3
    assert type(require_int("cells", value)) is int


@pytest.mark.parametrize("path", ["a/b", Path("a")])
def test_paths_are_paths(path):
    assert require_path("out", path) == Path(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "out is None; it must be a path"),
        (3, "out is 3; it must be a path"),
        (b"a", "out is b'a'; it must be a path"),
        (["a"], r"out is \['a'\]; it must be a path"),
        ("", "out is an empty path"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(wrong, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        require_path("out", wrong)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("it is damaged.", "it is damaged"),
        ("it is damaged. Write it again.", "it is damaged. Write it again"),
        ("it is damaged .", "it is damaged"),
        ("it is damaged", "it is damaged"),
        ("write NAME=VALUE,...", "write NAME=VALUE,..."),
        ("look in ..", "look in .."),
        ("", ""),
        (".", ""),
    ],
)
def test_a_full_stop_goes_and_the_dots_of_an_omission_stay(text, kept):
    assert errors.without_stop(text) == kept


@pytest.mark.parametrize("longest", [20, 40, 41, 100])
def test_a_long_line_has_both_of_its_ends_and_is_exactly_as_long_as_allowed(longest):
    """Of what is left beside the " ... ", 4/7 are of the beginning."""
    text = "".join(chr(ord("a") + place % 26) for place in range(200))
    line = errors.one_line(text, longest=longest)
    first, last = line.split(" ... ")
    assert len(line) == longest
    assert text.startswith(first)
    assert text.endswith(last)
    assert len(last) == (longest - 5) * 3 // 7
    assert errors.one_line(text[:longest], longest=longest) == text[:longest]


@pytest.mark.parametrize("longest", range(40, 90))
def test_what_is_cut_keeps_its_words_whole(longest):
    text = "the model takes images and masks; those of the reference are called pixels, masks and boxes " * 3
    line = errors.one_line(text, longest=longest)
    first, last = line.split(" ... ")
    words = text.split()
    assert len(line) <= longest
    assert first.split() == words[: len(first.split())]
    assert last.split() == words[-len(last.split()) :]
    assert len(line) > longest - 2 * len("reference")


def test_white_space_is_one_blank_and_what_does_not_print_is_escaped():
    assert errors.one_line(" no such\n  tensor:\tx\x1b ") == "no such tensor: x\\x1b"


def test_a_function_is_named_by_a_colon_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x:y.json").touch()
    named = {"plans:mine": True, "x:y.json": False, "plan.json": False, "a" * 300 + ":b": True, "a\0:b": False}
    assert {text: errors.is_function_name(text) for text in named} == named


@pytest.mark.parametrize("name", ["a" * 300 + ":b", "a" * 300])
def test_a_plan_with_a_name_too_long_for_a_file_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(errors.AnalogError):
        oa.protect(demo.MODEL, plan=name)
    refused = CliRunner().invoke(main, ["protect", str(demo.MODEL), "--plan", name, "-o", str(tmp_path / "x.onnx")])
    assert refused.exit_code == 2
    assert "standard output" not in refused.stderr
