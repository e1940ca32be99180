"""A short run of each kind of input, and the corpus: no oracle finds anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fuzz.corpus import rows
from fuzz.kinds import KINDS
from tests.conftest import ROOT


def fuzz(*arguments: str):
    ran = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ran.returncode in (0, 1), ran.stderr
    return json.loads(ran.stdout)


def faults(found) -> list[str]:
    return [f"{' | '.join(one['fault'])}: {one['examples']}" for one in found["findings"]]


@pytest.mark.parametrize(
    ("kinds", "count"), [("plain,protected", 30), ("plan", 15), ("manifest,channel,npz,csv,toml,run", 60)]
)
def test_mutated_inputs_show_no_fault(tmp_path, kinds, count):
    found = fuzz("fuzz", "--json", "--seed", "1", "--kinds", kinds, "--count", str(count), "--out", str(tmp_path))
    assert sum(found["inputs"].values()) == count
    assert found["accepted"] > count / 4, "the mutations are too wild to test anything but refusals"
    assert not faults(found)


def test_every_input_of_the_corpus_comes_to_what_the_table_says():
    found = fuzz("fuzz", "--corpus")
    assert found["rows"] == len(rows())
    assert not {name: findings for name, findings in found["findings"].items() if findings}


def test_a_sample_of_the_backend_tests_of_onnx_shows_no_fault(tmp_path):
    found = fuzz("fuzz.backend", "--sample", "25", "--json", "--out", str(tmp_path))
    assert found["inputs"] == {"backend": 25}
    assert not faults(found)


def test_every_kind_of_input_is_in_a_short_run():
    tested = "plain,protected,plan,manifest,channel,npz,csv,toml,run"
    assert tested.split(",") == list(KINDS)


def test_a_failing_input_is_kept_minimised_and_replayed(tmp_path):
    script = f"""
import sys
import fuzz.run as run
import fuzz.lane as lane
from pathlib import Path

def main(**_):
    if "odd" in Path("c.json").read_text():
        raise ValueError("odd")

import fuzz.of_texts as of_texts
of_texts.CHANNELS = {{"odd": {{"family": "odd", "sigma": 0.5}}}}
run.prepare = lambda: None
sys.modules["onnx_analog.cli"] = type(sys)("cli")
sys.modules["onnx_analog.cli"].main = main
summary = run.run(run.mutations(0, ["channel"], 0), count=12, minutes=None, workers=2, out=Path({str(tmp_path)!r}))
(path, *_) = next(paths for fault, paths in summary.examples.items() if fault[0] == "traceback")
print([finding.oracle for finding in run.replay(Path(path)).findings])
print(path)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    *_, oracles, path = ran.stdout.strip().splitlines()
    assert "'traceback'" in oracles
    kept = json.loads((tmp_path / path).read_text())
    assert kept["kind"] == "channel"
    assert len(kept["keep"] or [0]) == 1  # one step, or none at all, shows it: the seed itself does
