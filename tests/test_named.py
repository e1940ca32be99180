import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from onnx_analog import named
from onnx_analog.errors import OptionError
from onnx_analog.named import named_function

MODULE = """
import numpy as np
import helper
import folder_package.part

def twice(x):
    return 2 * np.float64(x) + helper.ZERO + folder_package.part.ZERO

def late(x):
    import late_helper
    return late_helper.ZERO + x
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the current folder, with a module of the user's and what it imports."""
    (tmp_path / "own_module.py").write_text(MODULE)
    for name in ("helper", "late_helper"):
        (tmp_path / f"{name}.py").write_text("ZERO = 0")
    (tmp_path / "folder_package").mkdir()
    (tmp_path / "folder_package" / "part.py").write_text("ZERO = 0")
    for name in ("numpy", "json", "stray"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the folder was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(named._FOLDER, "modules", set())
    yield tmp_path
    for name in ("own_module", "helper", "late_helper", "folder_package", "folder_package.part", "broken"):
        sys.modules.pop(name, None)


def test_a_module_of_the_folder_is_found_with_what_it_imports(here):
    assert named_function("own_module:twice")(3) == 6
    assert named_function("own_module:late")(3) == 3
    assert str(here) not in sys.path


def test_what_is_installed_comes_first(here):
    assert named_function("json:loads") is json.loads


@pytest.mark.parametrize("statement", ["import stray", "import helper", "import late_helper"])
def test_nothing_else_is_looked_for_in_the_folder(here, statement):
    named_function("own_module:twice")
    sys.modules.pop("helper", None)
    with pytest.raises(ModuleNotFoundError):
        exec(statement, {"__name__": "another"})


def test_a_folder_is_looked_at_when_a_module_is_named_and_not_before(here, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    named_function("own_module:twice")
    sys.modules.pop("own_module")
    monkeypatch.chdir(other)
    with pytest.raises(OptionError, match="'own_module:twice' cannot be imported"):
        named_function("own_module:twice")
    (other / "own_module.py").write_text("def twice(x): return -x")
    assert named_function("own_module:twice")(3) == -3


@pytest.mark.parametrize(
    "text", ["def twice(", "raise KeyError('x')", "import nowhere", "x = 1", "raise SystemExit(0)"]
)
def test_a_module_that_does_not_run_is_an_error_in_one_line(here, text):
    (here / "broken.py").write_text(text)
    with pytest.raises(OptionError, match=r"'broken:twice' cannot be imported: "):
        named_function("broken:twice")


@pytest.mark.parametrize("name", ["twice", "late"])
def test_a_function_goes_to_another_process_with_its_code(here, tmp_path_factory, name):
    data = tmp_path_factory.mktemp("elsewhere") / "data"
    data.write_bytes(named.dumps(named_function(f"own_module:{name}")))
    code = f"from pathlib import Path; from onnx_analog import named; f = named.loads(Path({str(data)!r}).read_bytes())"
    line = [sys.executable, "-P", "-c", f"{code}; print(float(f(21)))"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=Path(data).parent)
    assert done.stdout == ("42.0\n" if name == "twice" else "21.0\n")


def test_what_is_installed_goes_by_its_name(here):
    assert named.loads(named.dumps(json.loads)) is json.loads
    assert len(named.dumps(json.loads)) < 500


def test_threads_may_make_bytes_at_the_same_time(here):
    """Modules of the folder are registered for all threads while one makes bytes."""
    (here / "many.py").write_text("def double(x): return 2 * x\n")
    function = named.named_function("many:double")
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: named.dumps(function), range(200)))
    assert set(made) == {made[0]}
