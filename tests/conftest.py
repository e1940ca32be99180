"""What all tests share: deterministic property tests, and data sets that need not be there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import settings

from onnx_analog.errors import LONGEST, AnalogError
from tests.extras import skip_without_extra

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "data"

# The same examples in every run; `pytest --hypothesis-profile=search` looks further.
settings.register_profile("fixed", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("search", max_examples=5_000, deadline=None)
settings.load_profile("fixed")


SAFE_PATH = os.environ.get("PYTHONSAFEPATH")


@pytest.fixture(autouse=True)
def same_environment() -> None:
    """Undo what the command line, called in this process by tests and fixtures before, does to the environment."""
    os.environ.pop("PYTHONSAFEPATH", None)
    if SAFE_PATH is not None:
        os.environ["PYTHONSAFEPATH"] = SAFE_PATH


# ------------------------------------------------------------------------------------------------- time limits

LONG_S = 3600  # the limit of a test that is marked "slow" or "cluster"; pyproject.toml has that of others


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time, unless they have a limit of their own."""
    for item in items:
        slow = any(item.get_closest_marker(name) for name in ("slow", "cluster"))
        if slow and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG_S))


# -------------------------------------------------------------------------------------- every message that is met

_CLASSES = re.compile(
    r"\b(Pass|Serde|Key|Value|Type|Attribute|Index|Runtime|Recursion|Assertion|NotImplemented)Error\b"
)
# As Python shows an object of ours; a call that a hint gives has the name of the package before it.
_REPRS = re.compile(
    r"\w+(Error|Exception)\(|<[\w.]+ object at |(?<![\w.])[A-Z][a-z]\w+\(\w+=|ONNXRuntimeError|Traceback|\[ErrorCode:"
)


def faults(message: str, *, unforeseen: bool = False) -> list[str]:
    """Return what is wrong with an error's message: it is one printable line, in this program's own words.

    Where nobody foresaw the error, as in a metric of the user's, its class may be named.
    """
    found = {
        "is empty": not message,
        "is no printable line": not message.isprintable(),
        "has blanks around it": message != message.strip(),
        f"is longer than {LONGEST}": len(message) > LONGEST,
        "asks to run again": "run again with --debug" in message,
        "names a class of Python": bool(_CLASSES.search(message)) and not unforeseen,
        "shows Python's own text": bool(_REPRS.search(message)),
    }
    return [f"{message!r} {fault}" for fault, there in found.items() if there]


def printed_errors(stderr: str) -> list[str]:
    """Return the errors that a command printed, without "Error: ", each with the lines that follow it, if any."""
    return [message.removesuffix("\n") for message in re.split(r"(?m)^Error: ", stderr)[1:]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test that meets an error of ours, raised or printed, whose message does not keep the standard."""
    met: list[str] = []
    raised, invoked = AnalogError.__init__, CliRunner.invoke

    def init(self: AnalogError, message: str) -> None:
        raised(self, message)
        met.extend(faults(str(self)))

    def invoke(self: CliRunner, *arguments: Any, **options: Any) -> Any:
        result = invoked(self, *arguments, **options)
        for message in printed_errors(result.stderr):
            met.extend(faults(message, unforeseen=message.startswith("unexpected ")))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnalogError, "__init__", init)
        patch.setattr(CliRunner, "invoke", invoke)
        try:
            yield
        except Exception as error:
            skip_without_extra(error)
            raise
    assert item.get_closest_marker("any_message") or met == []


# ------------------------------------------------------------------------------------------------------- data


def data_folder() -> Path | None:
    """Return the folder of the data sets: ONNX_ANALOG_DATA, or ../shared/data, or None."""
    named = os.environ.get("ONNX_ANALOG_DATA")
    if named:
        return Path(named)
    beside = ROOT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def needed(path: Path | None, what: str) -> Path:
    """Return `path`; without it skip with a reason, or fail where CI is set."""
    if path is not None and path.exists():
        return path
    reason = f"{what} is not here: name the folder of the data sets in ONNX_ANALOG_DATA"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_set():
    """Return a function from the name of a data set, as "cifar10-test", to its npz, unpacked once into a cache."""

    def path(name: str) -> Path:
        folder = needed(data_folder(), name)
        file = CACHE / f"{name}.npz"
        if not file.exists():
            partial = CACHE / f"partial-{os.getpid()}"  # parallel test processes may unpack at the same time
            subprocess.run([sys.executable, folder / "unpack.py", partial, name], check=True, capture_output=True)
            (partial / file.name).replace(file)
            partial.rmdir()
        return file

    return path


@pytest.fixture(scope="session")
def trained_model():
    """Return a function from the name of a trained model, as "resnet20-cifar10.onnx", to its path."""

    def path(name: str) -> Path:
        folder = data_folder()
        return needed(None if folder is None else folder.parent / "models" / name, name)

    return path
