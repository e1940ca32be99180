import click
import pytest
from click.testing import CliRunner

from onnx_analog.cli.types import Finite, Floats, Seconds, Whole


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Finite(least=0, most=1), "0", 0.0),
        (Finite(least=0, most=1), "1", 1.0),
        (Finite(least=0, most=1), "0.25", 0.25),
        (Finite(least=0, below=1), "0", 0.0),
        (Finite(least=0, below=1), "0.9999", 0.9999),
        (Floats(), "0.5", (0.5,)),
        (Floats(), "0.485,0.456, 0.406", (0.485, 0.456, 0.406)),
        (Floats(), "-1,1e3", (-1.0, 1000.0)),
        (Floats(), (1.0, 2.0), (1.0, 2.0)),
        (Seconds(), "20", 20.0),
        (Seconds(), "20s", 20.0),
        (Seconds(), "90m", 5400.0),
        (Seconds(), "1.5h", 5400.0),
        (Seconds(), "1d", 86_400.0),
        (Seconds(), "2w", 1_209_600.0),
        (Seconds(), "1y", 365.25 * 86_400),
        (Seconds(), 5, 5.0),
        (Seconds(), 2.5, 2.5),
    ],
)
def test_a_value_is_converted(kind, text, value):
    found = kind.convert(text, None, None)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (Finite(least=0, most=1), "-0.0001", "0<=x<=1"),
        (Finite(least=0, most=1), "1.0001", "0<=x<=1"),
        (Finite(least=0, most=1), "half", "is not a number"),
        (Finite(least=0, below=1), "-0.0001", "0<=x<1"),
        (Finite(least=0, below=1), "1", "0<=x<1"),
        (Floats(), "", "comma-separated list of numbers"),
        (Floats(), "1,,2", "comma-separated list of numbers"),
        (Floats(), "1;2", "comma-separated list of numbers"),
        (Seconds(), "", "not a time"),
        (Seconds(), "-5s", "not a time"),
        (Seconds(), "nan", "not a time"),
        (Seconds(), "5 minutes", "not a time"),
        (Seconds(), "1.2.3s", "not a time"),
    ],
)
def test_another_value_is_refused_as_click_does(kind, text, said):
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(text, None, None)
    assert said in caught.value.message
    assert caught.value.exit_code == 2


def test_a_whole_number_without_a_range_shows_none():
    options = [click.Option(["--free"], type=Whole()), click.Option(["--bounded"], type=Whole(1, 3))]
    command = click.Command("command", params=[*options])
    shown = CliRunner().invoke(command, ["--help"]).stdout
    assert "None" not in shown
    assert "1<=x<=3" in shown
