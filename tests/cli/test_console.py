import logging
import subprocess
import sys
from typing import Any

import click
import pytest
from click.testing import CliRunner

from onnx_analog import errors
from onnx_analog.cli.console import Command, Group, several


def tool(wrong: BaseException | None = None, *arguments: str, log: str = "a warning") -> Any:
    """Return what a group with one command does that raises `wrong`."""

    @click.group(cls=Group)
    def main() -> None:
        pass

    @main.command()
    def act() -> None:
        logging.getLogger("onnx_analog.test").debug("a detail")
        logging.getLogger("onnx_analog.test").warning(log)
        if wrong is not None:
            raise wrong
        click.echo("done")

    return CliRunner().invoke(main, ["act", *arguments])


@pytest.mark.parametrize("wrong", [RuntimeError("of Python"), errors.ModelError("of ours")], ids=["other", "ours"])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(wrong):
    plain, debug = tool(wrong), tool(wrong, "--debug")
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback (most recent call last):\n")
    assert debug.stderr.endswith(plain.stderr)
    assert debug.exit_code == plain.exit_code == 1


def refused(wrong: BaseException) -> Any:
    """Return a group with an option that raises `wrong`."""

    def look(*_: object) -> None:
        raise wrong

    option = click.Option(["--config"], callback=look)
    return Group("main", params=[option], commands={"act": click.Command("act")})


@pytest.mark.parametrize("wrong", [OSError(5, "odd disk", "a.toml"), PermissionError(13, "not yours", "a.toml")])
def test_what_the_system_refuses_before_a_command_runs_is_one_line(wrong):
    """Options look at files, too; a program that runs the group itself is told all."""
    main = refused(wrong)
    found = CliRunner().invoke(main, ["--config", "a.toml", "act"])
    assert (found.exit_code, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith("Error: ")
    assert "a.toml" in line
    assert "Traceback" not in line
    with pytest.raises(type(wrong)):
        main(["--config", "a.toml", "act"], standalone_mode=False)


def test_an_interrupt_while_options_are_read_is_no_answer():
    """Code 1 of a command may be one."""
    found = CliRunner().invoke(refused(KeyboardInterrupt()), ["--config", "a.toml", "act"])
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.strip() == "Error: stopped; nothing was written"


def test_without_an_error_debug_shows_no_traceback():
    found = tool(None, "--debug")
    assert (found.exit_code, found.stdout, found.stderr) == (0, "done\n", "")


def test_a_reader_that_leaves_ends_the_command_without_a_word():
    """Rich meets the broken pipe first, and raises SystemExit."""
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" | head -c 1; exit 0', sys.executable, _MANY_LINES],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


_MANY_LINES = """
import click
from onnx_analog.cli.console import Group
from onnx_analog.cli.printing import show
main = Group("main")
@main.command()
def act():
    for _ in range(20_000):
        show("a line that nobody reads")
main(["act"])
"""


def test_a_command_without_a_name_shows_its_help():
    found = CliRunner().invoke(Group("main"), [])
    assert (found.exit_code, found.stderr.split()[0]) == (2, "Usage:")


def test_a_group_in_a_group_makes_the_same_commands() -> None:
    @click.group(cls=Group)
    def main() -> None:
        pass

    @main.group()
    def inner() -> None:
        pass

    @inner.command()
    def act() -> None:
        raise errors.NothingToStore("none")

    assert isinstance(inner, Group)
    assert isinstance(act, Command)
    assert CliRunner().invoke(main, ["inner", "act"]).exit_code == 3


def test_options_are_added_in_the_order_in_which_they_stand() -> None:
    @click.command()
    @several(click.option("--one"), click.option("--two"), click.option("--three"))
    @click.option("--four")
    def act(**_: Any) -> None:
        pass

    assert [parameter.name for parameter in act.params] == ["one", "two", "three", "four"]


def test_an_interrupt_says_what_is_left():
    code = (
        "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        "from onnx_analog import channels; from onnx_analog.cli import main; "
        "channels.available = lambda: os.kill(os.getpid(), signal.SIGINT); main()"
    )
    found = subprocess.run([sys.executable, "-c", code, "channel", "list"], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (1, "Error: stopped; nothing was written\n")
