"""Who may import whom. The order of the layers themselves is in pyproject.toml, and import-linter checks it."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_analog
from tests.conftest import ROOT
from tests.models import HEAVY

TRAINING = "onnx_analog.train"
MODULES = [module.name for module in pkgutil.walk_packages(onnx_analog.__path__, "onnx_analog.")]
MODULES = [name for name in MODULES if name != TRAINING and not name.startswith(f"{TRAINING}.")]
WHOLE_STORY = """
import onnx_analog as oa
from onnx_analog.demo import IMAGES, MODEL
protected = oa.protect(MODEL, sparsity=0.5)
oa.evaluate(protected, IMAGES, trials=1, samples=2)
oa.readback(protected, decoded=True)
"""


def python(code: str, folder: Path = ROOT, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment)


def imported(code: str, path: str = "") -> set[str]:
    """Return the packages that a fresh interpreter holds after `code`."""
    done = python(
        f"{code}\nimport sys\nprint('packages:', *{{name.partition('.')[0] for name in sys.modules}})", path=path
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.partition("packages:")[2].split())


def test_imported_sees_what_is_imported_on_the_way():
    assert HEAVY.isdisjoint(imported("import json"))
    assert "numpy" in imported("import numpy.linalg")
    assert "numpy" in imported("def f():\n    import numpy\nf()")


@pytest.mark.parametrize(
    "code", ["import onnx_analog", "import onnx_analog.cli", "import onnx_analog; dir(onnx_analog)"]
)
def test_importing_the_package_imports_nothing_heavy(code):
    assert HEAVY.isdisjoint(imported(code))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["protect", "--help"], ["channel", "fit", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    assert HEAVY.isdisjoint(imported(f"from onnx_analog.cli import main\nmain({arguments}, standalone_mode=False)"))


def test_torch_is_never_imported(tmp_path):
    assert {"onnx_analog.cli", "onnx_analog.passes.protect", "onnx_analog.channels.pcm"} <= set(MODULES)
    (tmp_path / "torch.py").write_text("")  # so that it could be, wherever this runs
    assert "torch" in imported("import torch", path=str(tmp_path))
    assert "torch" not in imported(f"import {', '.join(MODULES)}\n{WHOLE_STORY}", path=str(tmp_path))


def test_training_without_torch_says_how_to_install_it(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError")
    done = python("import onnx_analog.train.loop", path=str(tmp_path))
    assert done.stderr.splitlines()[-1] == (
        "ImportError: onnx_analog.train needs PyTorch: pip install 'onnx-analog[train]'"
    )


def test_passes_are_imported_by_their_full_name():
    done = python("import passes")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "onnx_analog.passes" in last
