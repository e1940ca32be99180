"""What all tests share: deterministic property tests, and data sets that need not be there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "data"

# The same examples in every run; `pytest --hypothesis-profile=search` looks further.
settings.register_profile("fixed", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("search", max_examples=5_000, deadline=None)
settings.load_profile("fixed")


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
