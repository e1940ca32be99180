"""What docs/security.md promises of the current folder and of the network."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_analog as oa
from tests.conftest import faults, printed_errors
from tests.forking import forking
from tests.models import proto

SCRIPT = Path(sys.executable).with_name("onnx-analog")
NET = "net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] w = random> { y = MatMul(x, w) }"
OWN = """
import numpy as np
import sibling

def share(outputs, *, labels, clean):
    return float(np.mean(outputs[0] == clean[0])) + sibling.ZERO

def same(array):
    return array
"""
# One of each kind: needed and optional packages, what workers and plots import, the standard library, and no module.
HOSTILE = (  # noqa: SIM905 - a list of so many words is read more easily
    "tomli_w numpy matplotlib multiprocessing onnx onnxruntime onnx_ir onnxscript rich click loky cloudpickle scipy "
    "pyarrow pandas filelock re2 distributed dask ray psutil yaml json pickle inspect tomllib sitecustomize "
    "usercustomize concurrent difflib statistics PIL IPython ipywidgets pygments typing_extensions ml_dtypes "
    "constriction"
).split()
CAUGHT = "import os; open(os.environ['CAUGHT'], 'a').write(__name__ + chr(10)); raise SystemExit(99)"


def write_hostile(folder: Path) -> None:
    (folder / "matplotlibrc").write_bytes(b"\xff")  # which matplotlib cannot read
    for place, name in enumerate(HOSTILE):
        if place % 2:
            (folder / f"{name}.py").write_text(CAUGHT)
        else:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(CAUGHT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of models, data, and modules that nobody named."""
    found = tmp_path_factory.mktemp("folder")
    onnx.save(proto(NET), found / "model.onnx")
    oa.protect(found / "model.onnx").save(found / "model.protected.onnx")
    np.savez(found / "test.npz", x=np.ones((4, 16), np.float32))
    rows = "\n".join(f"{i},{i + j / 10}" for i in range(5) for j in range(9))
    (found / "pairs.csv").write_text(f"a,b\n{rows}\n")
    (found / "own.py").write_text(OWN)
    (found / "sibling.py").write_text("ZERO = 0")
    write_hostile(found)
    return found


def run(folder: Path, line: str, *, by: tuple[str, ...] = (str(SCRIPT),)) -> str:
    """Return which of the hostile modules were run by a command that succeeds, or fail."""
    caught = folder / "caught.txt"
    caught.unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [*by, *shlex.split(line)],
        cwd=folder,
        env={**environment, "CAUGHT": str(caught)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return caught.read_text() if caught.exists() else ""


EVALUATE = "evaluate model.protected.onnx --data test.npz --trials 1"
SWEEP = "sweep model.onnx --data test.npz --cells 1 --strategy sign --trials 2 --workers 1"


ONE_AFTER_ANOTHER = """
import shlex, sys
from onnx_analog.cli import main
for line in sys.argv[1:]:
    main(shlex.split(line), standalone_mode=False)
"""


@pytest.mark.parametrize(
    "lines",
    [
        ("inspect model.onnx", "prune model.onnx --sparsity 0.5 --force", "protect model.onnx -o again.onnx --force"),
        ("channel list", "channel fit pairs.csv --input a --output b --neighbours 1 --force",
         "channel show pcm --plot plot.png --force"),
        ("manifest model.protected.onnx", "readback model.protected.onnx --force", EVALUATE,
         f"{EVALUATE} --metric own:share --preprocess own:same"),
        (f"{SWEEP} -o swept --save-config saved.toml",),
        (f"{SWEEP} -o swept-own --metric own:share",),
    ],
    ids=lambda lines: lines[-1],
)  # fmt: skip
def test_no_code_of_the_current_folder_is_run_but_what_is_named(folder, tmp_path, lines):
    """Commands of a process follow one another as they import more: each module is looked for once in a process."""
    if len(lines) == 1:
        assert run(folder, lines[0]) == ""
        return
    script = tmp_path / "script.py"  # beside which Python looks, as beside the command that is installed
    script.write_text(ONE_AFTER_ANOTHER)
    assert run(folder, shlex.join(lines), by=(sys.executable, str(script))) == ""


@pytest.fixture(scope="module")
def bounded():
    """Return a function that runs a command in a child of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAUGHT", "caught.txt")
        with forking() as run:
            yield run


@pytest.mark.parametrize(
    "setting",
    [
        {"channel": "own:Channel"},
        {"channel": {"family": "own:Channel"}},
        {"side_channel": "own:Channel"},
        {"estimator": "own:Estimator"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["plan", "model", "manifest"])
def test_no_file_names_code_that_is_run(folder, bounded, tmp_path, kind, setting):
    """The module `own` would be found here, and would say in a file that it was run."""
    (tmp_path / "own.py").write_text(CAUGHT)
    if kind == "plan":
        body = {"format": "onnx-analog-plan/1", "schemes": {"a": setting}, "default": "a"}
        (tmp_path / "plan.json").write_text(json.dumps(body))
        line = f"protect {folder / 'model.onnx'} --plan plan.json -o q.onnx"
    else:
        stored = onnx.load(folder / "model.protected.onnx")
        entries = {entry.key: entry for entry in stored.metadata_props}
        schemes = json.dumps([{**json.loads(entries["onnx_analog.schemes"].value)[0], **setting}])
        manifest = {**json.loads(entries["onnx_analog.manifest"].value), "schemes": json.loads(schemes)}
        entries["onnx_analog.schemes"].value = schemes
        entries["onnx_analog.manifest"].value = json.dumps(manifest)
        onnx.save(stored, tmp_path / "q.onnx")
        (tmp_path / "q.json").write_text(json.dumps(manifest))
        line = f"manifest q.{'onnx' if kind == 'model' else 'json'}"
    done = bounded(tmp_path, line, memory=2**30, seconds=60)
    assert done.returncode in (1, 2), done.stderr
    (message,) = printed_errors(done.stderr)
    assert faults(message) == []
    assert "own:" in message or "'own'" in message
    assert not (tmp_path / "caught.txt").exists()


def test_a_module_that_a_command_names_is_run_there(folder, bounded, tmp_path):
    """The check above can fail."""
    (tmp_path / "own.py").write_text(CAUGHT)
    bounded(tmp_path, f"protect {folder / 'model.onnx'} --channel own:Channel -o q.onnx", memory=2**30, seconds=60)
    assert (tmp_path / "caught.txt").read_text() == "own\n"


def test_nor_by_python_with_the_module(folder):
    assert run(folder, "inspect model.onnx", by=(sys.executable, "-m", "onnx_analog")) == ""


def test_what_python_itself_runs_from_the_folder_is_seen(folder):
    """The check above can fail: `python -m` looks in the current folder first."""
    with pytest.raises(AssertionError):
        run(folder, "", by=(sys.executable, "-m", "tomli_w"))
    assert (folder / "caught.txt").read_text() != ""


@pytest.mark.cluster(reason="a Dask or Ray cluster starts: up to 30 s, 2 GB")
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_nor_by_workers_of_a_cluster(folder, engine):
    line = SWEEP.replace("--workers 1", f"--engine {engine}")
    assert run(folder, f"{line} -o swept-{engine} --metric own:share") == ""


# ------------------------------------------------------------------------------------------------ network

NETWORK = """
import os, sys, time
{first}
import onnxruntime as ort
from onnx.parser import parse_model
model = parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) {{ y = Relu(x) }}')
ort.InferenceSession(model.SerializeToString())
"""


def written_by_onnxruntime(folder: Path, first: str, **environment: str) -> list[str]:
    """Return the files that onnxruntime leaves in a home that was empty."""
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    line = [sys.executable, "-c", NETWORK.format(first=first)]
    subprocess.run(line, env={**kept, **home, **environment}, check=True, capture_output=True, timeout=60)
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_onnxruntime_writes_no_usage_data(tmp_path):
    assert written_by_onnxruntime(tmp_path, "import onnx_analog") == []


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or ort.__version__ < "1.32", reason="seen of onnxruntime 1.32 for Linux"
)
def test_without_this_package_it_does(tmp_path):
    assert set(written_by_onnxruntime(tmp_path, "")) == {"deviceid", "onnxruntime.db"}


def test_what_the_user_set_is_kept():
    code = "import os, onnx_analog; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "0\n"
