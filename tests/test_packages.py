import csv
import email
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages import imported, needs


@pytest.mark.parametrize(
    ("package", "ci", "skipped"), [("no_such", "", True), ("no_such", "1", False), ("csv", "", False)]
)
def test_a_test_is_skipped_for_what_is_missing_but_not_in_ci(package, ci, skipped, monkeypatch):
    monkeypatch.setenv("CI", ci)
    mark = needs(package).mark
    assert (mark.args, mark.kwargs["reason"]) == ((skipped,), f"{package} is not installed")


def test_a_package_that_is_missing_skips_a_test_and_fails_it_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "")
    assert imported("csv") is csv
    with pytest.raises(pytest.skip.Exception, match="no_such is not installed"):
        imported("no_such")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(ModuleNotFoundError, match="no_such"):
        imported("no_such")


def test_every_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "onnx_analog").rglob("__init__.py")}
    assert set(listed) == found | {"onnx_analog.passes"}


# ------------------------------------------------------------------------------------------------- sdist and wheel

NOT_IN_SDIST = {".ci/browser", ".ci/run", ".gitignore", "onnx_analog/passes"}  # the last is a link for editors
MADE = {"PKG-INFO", "setup.cfg"}  # which the build adds, beside what tells of the package


def tracked() -> list[str]:
    """Return the files of the repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no repository of git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of the sdist and of the wheel that is made from it."""
    imported("build")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Warning" not in ended.stdout + ended.stderr
    return out


def contents(file: Path) -> set[str]:
    """Return the names of the files in an sdist, below its folder, or in a wheel."""
    if file.suffix == ".whl":
        return set(zipfile.ZipFile(file).namelist())
    with tarfile.open(file) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_sdist_is_the_repository(built):
    (sdist,) = built.glob("*.tar.gz")
    found = {name for name in contents(sdist) if not name.startswith("onnx_analog.egg-info/")}
    assert found == set(tracked()) - NOT_IN_SDIST | MADE


def test_the_wheel_holds_the_package_its_licences_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    found = contents(wheel)
    packages = [name for name in tracked() if name.startswith(("onnx_analog/", "passes/"))]
    ours = {f"onnx_analog/{name}" if name.startswith("passes/") else name for name in packages}
    ours.remove("onnx_analog/passes")  # the link
    facts = {name for name in found if name.startswith(f"onnx_analog-{version('onnx-analog')}.dist-info/")}
    assert found - facts == ours
    assert {"LICENSE", "LICENSE-partial-reset"} <= {Path(name).name for name in facts}


def test_the_metadata_is_complete_and_renders(built):
    imported("twine")
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("PASSED") == 2
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = email.message_from_string(archive.read(name).decode("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (facts["Name"], facts["Version"]) == (project["name"], project["version"])
    assert facts["License-Expression"] == "Apache-2.0"
    assert set(facts.get_all("License-File")) == set(project["license-files"])
    assert set(facts.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    assert facts.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_twine_refuses_a_description_that_does_not_render(tmp_path):
    """The check would find a fault."""
    imported("twine")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "bad"\nversion = "1"\nreadme = {text = "`a\\n==\\n", content-type = "text/x-rst"}\n',
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--sdist",
        "--outdir",
        str(tmp_path / "out"),
        str(tmp_path),
    ]
    subprocess.run(command, capture_output=True, check=True)
    checked = [sys.executable, "-m", "twine", "check", "--strict", *map(str, (tmp_path / "out").iterdir())]
    assert subprocess.run(checked, capture_output=True, check=False).returncode != 0


REPORT = "(pip install 'onnx-analog[report]')"
HINTS = {  # what each command says where an extra is missing, and its exit code
    "onnx-analog channel show pcm --plot x.png": (1, f"Error: no plot: matplotlib is not installed {REPORT}"),
    "onnx-analog evaluate m.protected.onnx --data test.npz --report x.html": (
        1,
        f"Error: no report: matplotlib and jinja2 are not installed {REPORT}",
    ),
    "onnx-analog sweep m.onnx --data test.npz --engine dask --out x": (
        2,
        "Error: the engine dask needs dask.distributed: pip install 'onnx-analog[dask]'",
    ),
    "onnx-analog sweep m.onnx --data test.npz --engine ray --out x": (
        2,
        "Error: the engine ray needs Ray: pip install 'onnx-analog[ray]'",
    ),
}


@pytest.mark.parametrize(
    "kind",
    [
        "*.whl",
        pytest.param(
            "*.tar.gz",
            marks=pytest.mark.slow(reason="installs the sdist into an empty environment, from PyPI: 5 min, 1 GB"),
        ),
    ],
)
def test_the_demo_runs_in_an_environment_with_nothing_else(built, kind, tmp_path):
    (file,) = built.glob(kind)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    programs = tmp_path / "empty" / "bin"
    folder = tmp_path / "work"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean["PATH"] = f"{programs}:/usr/bin:/bin"

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(shlex.split(command), cwd=folder, env=clean, capture_output=True, text=True, check=False)

    assert run(f"pip install --quiet --disable-pip-version-check {file}").returncode == 0
    for program in ("onnx-analog", "python -m onnx_analog"):
        assert run(f"{program} --version").stdout == f"onnx-analog, version {version('onnx-analog')}\n"
    told = run("onnx-analog demo --trials 1")
    assert told.returncode == 0, told.stderr
    assert f"no plot: matplotlib is not installed {REPORT}" in told.stdout
    assert "`onnx-analog tune` looks for a scheme for each tensor" in told.stdout
    assert run("onnx-analog demo --copy .").returncode == 0
    (folder / "model.onnx").rename(folder / "m.onnx")
    assert run("onnx-analog protect m.onnx").returncode == 0
    for command, (code, line) in HINTS.items():
        ended = run(command)
        assert (ended.returncode, ended.stderr.strip()) == (code, line), command
    of_sweep = "m.onnx --data test.npz --samples 50 --strategy raw --cells 1 --trials 2 --out swept -v"
    swept = run(f"onnx-analog sweep {of_sweep}")
    assert swept.returncode == 0
    assert "pip install 'onnx-analog[parquet]'" in swept.stderr
    trained = run("python -c 'import onnx_analog.train'")
    assert trained.stderr.splitlines()[-1].endswith("needs PyTorch: pip install 'onnx-analog[train]'")
    framed = run("""python -c 'import onnx_analog as oa; oa.inspect("m.onnx").to_dataframe()'""")
    assert framed.stderr.splitlines()[-1].endswith("pandas is not installed (pip install pandas)")
